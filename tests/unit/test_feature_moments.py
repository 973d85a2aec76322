"""Columns and members that are decided among all symbols of a moment, against a slow twin over whole frames."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.features.pool import FOLDER
from pipeline.features.section import FeatureError, FeatureSection
from pipeline.universe import UniverseSection
from storage.schema import SYMBOLS
from storage.store import read_json
from tests.feature_stage import NAMES, Alone, Threads, rows, stage
from tests.market import STAMP, bars, ingested

TABLE = bars(NAMES, 100, start="2020-09-01")  # until 2021-01-18
CHAINS: dict[str, list[Any]] = {
    "rank": ["rank"],
    "winsorise_0.1_zscore": [{"winsorise": 0.1}, "zscore"],
    "neutralise_sector": [{"neutralise": ["sector"]}],
    "winsorise_0.2_neutralise_sector_size": [{"winsorise": 0.2}, {"neutralise": ["sector", "size"]}],
}
EXTRA = tuple({"indicator": "roc", "params": {"n": 5}, "cross": chain} for chain in CHAINS.values())
CROSSED = FeatureSection(set="close", level="numba", dtype="float64", extra=EXTRA)
FEW = UniverseSection(largest=7, min_history=3)


def facts() -> pa.Table:
    """Return two facts about each symbol: sectors and shares, of which some are told later and some never."""
    common = {"market": "KOSPI", "halted": False, "administrative": False, "source": "test"}
    out = []
    for i, symbol in enumerate(NAMES):
        one = {**common, "symbol": symbol, "name": symbol, "ingested_at": STAMP.as_py()}
        one |= {"kind": "etf" if i == 3 else "stock", "sector": "" if i in (5, 6) else f"sector {i % 3}"}
        shares = [None if i == 8 else 1e6 * (i + 1), None if i == 7 else 2e6 * (i + 1)]
        for day, count in zip((date(2020, 9, 1 if i % 2 else 20), date(2020, 12, 1)), shares):
            out.append({**one, "as_of": day, "shares": count})
    return pa.Table.from_pylist(out, SYMBOLS)


def made(folder: Path, table: pa.Table = TABLE, section: FeatureSection = CROSSED) -> dict[str, Any]:
    ingested(folder, table, symbols=facts())
    return stage(folder, Alone(), section, universe=FEW)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return made(folder), folder


def upto(day: str) -> pa.Table:
    return TABLE.filter(pc.less_equal(pc.strftime(TABLE["ts"], "%Y-%m-%d"), day))


def known_shares(found: pd.DataFrame) -> pd.Series:
    """Return the shares as told on the day of each row, NaN before."""
    told = facts().to_pandas().dropna(subset=["shares"])
    out = pd.Series(np.nan, found.index)
    for i, row in found.iterrows():
        mine = told[(told["symbol"] == row["symbol"]) & (told["as_of"] <= row["ts"].date())]
        if len(mine):
            out[i] = mine.sort_values("as_of")["shares"].iloc[-1]
    return out


def neutral(group: pd.DataFrame, by: list[str]) -> pd.Series:
    x = group["x"].dropna()
    if "size" in by:
        x = x[group.loc[x.index, "size"] > 0]
    columns = [(group.loc[x.index, "sector"] == one).astype(float) for one in group.loc[x.index, "sector"].unique()]
    if "size" in by:
        logs = np.log(group.loc[x.index, "size"])
        columns.append(logs - logs.mean())
    if len(x) == 0:
        return x
    X = np.stack(columns, axis=1)
    return x - X @ np.linalg.lstsq(X, x.to_numpy(), rcond=1e-10)[0]


def moment(group: pd.DataFrame, chain: list[Any]) -> pd.Series:
    """Return a chain of operators over the members of one moment."""
    x = group["x"]
    for one in chain:
        name, given = next(iter(one.items())) if isinstance(one, dict) else (one, None)
        if name == "rank":
            x = (x.rank(method="average") - 0.5) / x.count()
        elif name == "winsorise":
            x = x.clip(x.quantile(given), x.quantile(1 - given))
        elif name == "zscore":
            x = (x - x.mean()) / x.std(ddof=0) if x.nunique() > 1 else x * 0.0
        else:
            x = neutral(group.assign(x=x), given).reindex(x.index)
    return x


def test_columns_among_symbols_are_those_of_a_slow_twin(whole: tuple[dict[str, Any], Path]) -> None:
    found = rows(whole[1])
    raw = TABLE.to_pandas()
    assert found["symbol"].tolist() == raw["symbol"].tolist()
    twin = found.assign(x=found["roc_5"], size=known_shares(found) * raw["close"])
    sectors = facts().to_pandas().drop_duplicates("symbol").set_index("symbol")["sector"]
    twin["sector"] = twin["symbol"].map(sectors).replace("", "none")
    members = twin[twin["member"]]
    for name, chain in CHAINS.items():
        parts = [moment(group, chain) for _, group in members.groupby("ts")]
        expected = pd.concat(parts).reindex(twin.index)
        np.testing.assert_allclose(found[f"roc_5_{name}"], expected, rtol=1e-7, atol=1e-9, err_msg=name)
        assert found[f"roc_5_{name}"][~twin["member"]].isna().all(), "who is no member has none"
        assert found[f"roc_5_{name}"].notna().sum() > 300, name


def test_members_are_the_largest_of_their_moment(whole: tuple[dict[str, Any], Path]) -> None:
    found, raw = rows(whole[1]), TABLE.to_pandas()
    mean = raw.groupby("symbol")["turnover"].transform(lambda one: one.rolling(20, min_periods=1).mean())
    able = (raw["symbol"] != NAMES[3]) & (raw.groupby("symbol").cumcount() >= 2)
    place = mean.where(able).groupby(raw["ts"]).rank(ascending=False, method="first")
    assert found["member"].tolist() == (able & (place <= 7)).tolist()
    assert found.groupby("ts")["member"].sum().tolist() == [0, 0] + [7] * 98
    np.testing.assert_allclose(found["turnover"], mean, rtol=1e-9)


def test_columns_json_says_where_each_column_is(whole: tuple[dict[str, Any], Path]) -> None:
    manifest, folder = whole
    told = read_json(folder / "features" / "columns.json")
    assert told["member"] == "cross"
    at = {one["name"]: one["in"] for one in told["features"]}
    assert {name for name, place in at.items() if place == "cross"} == {f"roc_5_{name}" for name in CHAINS}
    assert len(at) == manifest["columns"]
    for path in (folder / "features" / "blocks").iterdir():
        assert {n for n, place in at.items() if place == "blocks"} <= set(pq.read_schema(path).names)
        cross = pq.read_schema(folder / "features" / "cross" / path.name)
        assert set(cross.names) == {"member"} | {f"roc_5_{name}" for name in CHAINS}
        assert {str(cross.field(f"roc_5_{name}").type) for name in CHAINS} == {"double"}


def test_the_stored_type_is_that_of_the_section(tmp_path: Path) -> None:
    made(tmp_path, upto("2020-12-10"), CROSSED.model_copy(update={"dtype": "float32"}))
    cross = pq.read_schema(next((tmp_path / "features" / "cross").iterdir()))
    assert {str(cross.field(f"roc_5_{name}").type) for name in CHAINS} == {"float"}


def test_groups_of_symbols_change_no_bit(
    whole: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("storage.lake", "storage.partitions"):
        monkeypatch.setattr(f"{module}.group_of", lambda symbol, interval: (int(symbol) * 7) % 5)
    assert made(tmp_path)["blocks"] == 10
    assert rows(tmp_path).equals(rows(whole[1]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_comes_later_changes_nothing_before(whole: tuple[dict[str, Any], Path], tmp_path: Path, seed: int) -> None:
    """C1 for what is decided among symbols: all symbols kept, the lake cut at a random day, facts as they were told."""
    cut = TABLE["ts"][int(np.random.default_rng(seed).integers(70, 99))]
    early = TABLE.filter(pc.less_equal(TABLE["ts"], cut))
    told = facts()
    told = told.filter(pc.less_equal(told["as_of"], pa.scalar(cut.as_py().date())))
    ingested(tmp_path, early, symbols=told)
    stage(tmp_path, Alone(), CROSSED, universe=FEW)
    found, later = rows(tmp_path), rows(whole[1])
    names = [name for name in later.columns if not name.startswith("y_")]
    assert found[names].equals(later[later["ts"] <= cut.as_py()][names].reset_index(drop=True))


def cross_files(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_ino for path in (folder / "features" / "cross").iterdir()}


@pytest.mark.parametrize(
    ("first", "last", "kept"),
    [("2021-01-13", "2021-01-14", True), ("2020-12-30", "2021-01-04", False)],
)
def test_an_append_decides_the_open_period_alone(tmp_path: Path, first: str, last: str, kept: bool) -> None:
    made(tmp_path / "a", upto(first))
    before = cross_files(tmp_path / "a")
    again = made(tmp_path / "a", upto(last))
    assert again["content"] == made(tmp_path / "b", upto(last))["content"]
    assert rows(tmp_path / "a").equals(rows(tmp_path / "b"))
    after = cross_files(tmp_path / "a")
    same = {name for name in before if before[name] == after[name]}
    assert same == ({name for name in before if name.endswith("2020")} if kept else set())
    again = cross_files(tmp_path / "a")
    made(tmp_path / "a", upto(last))
    assert cross_files(tmp_path / "a") == again, "nothing is decided twice"


def test_one_symbol_changes_its_moments_for_all(tmp_path: Path) -> None:
    """A repaired bar of one group changes what the others' blocks hold among symbols, and nothing else of theirs."""
    made(tmp_path / "b")
    frame = TABLE.to_pandas()
    frame.loc[(frame["symbol"] == NAMES[0]) & (frame["ts"] == frame["ts"][80]), "close"] *= 1.2
    ingested(tmp_path / "a", pa.Table.from_pandas(frame, schema=TABLE.schema, preserve_index=False), symbols=facts())
    before = stage(tmp_path / "a", Alone(), CROSSED, universe=FEW)
    again = made(tmp_path / "a")
    assert again["content"] != before["content"] and again["computed"] <= 2
    assert rows(tmp_path / "a").equals(rows(tmp_path / "b"))


def test_damaged_files_among_symbols_are_made_again(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    made(tmp_path)
    named = set(cross_files(tmp_path).values())
    files = [path for path in (tmp_path / FOLDER).rglob("*.parquet") if path.stat().st_ino in named]
    assert len(files) == len(named) == 16
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].with_suffix(".json").write_text("[]")
    files[2].unlink()
    assert made(tmp_path)["content"] == whole[0]["content"]
    assert rows(tmp_path).equals(rows(whole[1]))


def test_a_worker_of_its_own_gives_the_same_content(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """What Dask sends to another process, columns with their operators among it, is whole after the way there."""
    ingested(tmp_path, TABLE, symbols=facts())
    with Threads(processes=True) as cluster:
        found = stage(tmp_path, cluster, CROSSED.model_copy(update={"level": "dask"}), universe=FEW)
    assert (found["content"], found["level"], found["computed"]) == (whole[0]["content"], "dask", 16)


def test_without_operators_nothing_is_decided(tmp_path: Path) -> None:
    ingested(tmp_path, upto("2020-12-10"))
    stage(tmp_path, Alone(), FeatureSection(set="close", level="numba"))
    assert not (tmp_path / "features" / "cross").exists()
    assert read_json(tmp_path / "features" / "columns.json")["member"] == "targets"
    assert rows(tmp_path)["member"].all()


def test_a_name_that_the_column_under_an_operator_has_is_refused(tmp_path: Path) -> None:
    ingested(tmp_path, upto("2020-12-10"))
    taken = {"indicator": "sma", "params": {"n": 9}, "outputs": ["sma"], "over": "close", "names": {"sma": "roc_7"}}
    under = {"indicator": "roc", "params": {"n": 7}, "cross": ["rank"]}
    section = FeatureSection(set="close", level="numba", extra=(taken, under))
    with pytest.raises(FeatureError, match=r"one column of a name, got 'roc_7'"):
        stage(tmp_path, Alone(), section)
