"""Minute bars with months as periods, and columns of coarser bars: seen once their bar has closed, never before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from pipeline import krx
from pipeline.features.section import FeatureError, FeatureSection
from pipeline.indicators import compute
from pipeline.receipt import Receipt
from storage.schema import BARS
from tests.feature_stage import NAMES, Alone, counted, rows, stage
from tests.market import bars, ingested

MINUTE = np.timedelta64(1, "m")


def minutes(first: str = "2024-02-22", last: str = "2024-03-06", seed: int = 5) -> pa.Table:
    """Return minutes of five symbols over the turn of a month: one trades always, one seldom, one from the second
    session on, one until the first session of March, one not on the second session.
    """
    rng, parts = np.random.default_rng(seed), []
    opens = krx.session_opens(krx.sessions(first, last)).astype("datetime64[us]")
    every = (opens[:, None] + MINUTE * np.arange(1, 391)).ravel()
    day = np.repeat(np.arange(len(opens)), 390)
    march = int(np.flatnonzero(opens >= np.datetime64("2024-03-01"))[0])
    keep = [day >= 0, rng.random(day.size) < 0.2, day >= 1, day <= march, day != 1]
    for symbol, mine in zip(NAMES, keep):
        ts = every[mine & (rng.random(day.size) < 0.95)] if symbol != NAMES[0] else every
        one = bars([symbol], len(ts), interval="1m", seed=int(symbol) + seed)
        parts.append(stamped(one, ts))
    return pa.concat_tables(parts)


def stamped(table: pa.Table, ts: Any) -> pa.Table:
    return table.set_column(table.column_names.index("ts"), BARS.field("ts"), pa.array(ts, BARS.field("ts").type))


def sessions(symbols: list[str], first: str = "2023-09-01", last: str = "2024-02-08") -> pa.Table:
    """Return daily bars of real sessions."""
    ts = krx.session_closes(krx.sessions(first, last)).astype("datetime64[us]")
    return stamped(bars(symbols, len(ts)), np.tile(ts, len(symbols)))


BASE = ({"indicator": "roc", "params": {"n": 3}}, {"indicator": "rsi", "params": {"n": 5}})
COARSE = (
    {"indicator": "sma", "params": {"n": 3}, "over": "close"},
    {"indicator": "roc", "params": {"n": 1}},
    {"indicator": "atr", "params": {"n": 2}, "outputs": ["natr"]},
)
CASES = {"1m": ("1h", "1d"), "15m": ("1h", "4h", "1d"), "1d": ("1w",)}  # bars -> coarser bars of columns
TABLES = {"1m": minutes(), "15m": minutes(), "1d": sessions(NAMES[:4])}


def section(folder: Path, interval: str) -> FeatureSection:
    """Return a section whose set is a file of one's own."""
    path = folder / f"set-{interval}.yaml"
    specs = [*BASE, *({**spec, "at": at} for at in CASES[interval] for spec in COARSE)]
    path.write_text(f"features: {specs}\n")
    return FeatureSection(set=str(path), interval=interval, level="numba")


def upto(table: pa.Table, cut: Any) -> pa.Table:
    return table.filter(pc.less_equal(table["ts"], pa.scalar(cut, table["ts"].type)))


def cuts(table: pa.Table, count: int, seed: int) -> list[Any]:
    """Return some of the later stamps of a table, in order."""
    stamps = np.unique(table["ts"].to_numpy())
    found = np.random.default_rng(seed).choice(stamps[len(stamps) // 3 :], count, replace=False)
    return [pd.Timestamp(one, tz="UTC").to_pydatetime() for one in sorted(found)]


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, FeatureSection, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    ingested(folder, TABLES[request.param])
    wanted = section(folder, request.param)
    stage(folder, Alone(), wanted)
    return request.param, wanted, folder


def test_blocks_are_months_of_minutes(made: tuple[str, FeatureSection, Path]) -> None:
    interval, _, folder = made
    names = {path.stem[4:] for path in (folder / "features" / "blocks").iterdir()}
    assert names == ({"2023", "2024"} if interval == "1d" else {"2024-02", "2024-03"})
    found = rows(folder).groupby("symbol").size()
    if interval == "1m":
        assert found.tolist() == pd.Series(TABLES["1m"]["symbol"]).value_counts().sort_index().tolist()
    assert found.nunique() == {"1m": 5, "15m": 4, "1d": 1}[interval], "different numbers of bars"


def test_a_coarser_value_is_that_of_the_latest_bar_that_has_closed(made: tuple[str, FeatureSection, Path]) -> None:
    """Against whole frames of the coarser bars, joined as of the end of each finer bar."""
    interval, _, folder = made
    found, receipt = rows(folder), Receipt.load(folder / "ingest")
    raw = receipt.bars(interval).to_pandas()
    base = compute(raw, BASE)
    np.testing.assert_array_equal(found[base.columns], base)
    for at in CASES[interval]:
        coarse = receipt.bars(at).to_pandas()
        values = compute(coarse, COARSE).add_suffix(f"@{at}")
        right = pd.concat([coarse[["symbol", "ts"]], values], axis=1).sort_values("ts")
        joined = pd.merge_asof(found[["symbol", "ts"]].sort_values("ts"), right, on="ts", by="symbol")
        joined = joined.sort_values(["symbol", "ts"]).reset_index(drop=True)
        assert joined["symbol"].tolist() == found["symbol"].tolist()
        for name in values.columns:
            np.testing.assert_array_equal(found[name], joined[name], err_msg=name)
            assert found[name].notna().any() and found[name].isna().any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_comes_later_changes_nothing_before(
    made: tuple[str, FeatureSection, Path], tmp_path: Path, seed: int
) -> None:
    """C1: the lake cut at a random bar, all symbols kept; every value up to the cut is the same and none is missing."""
    interval, wanted, folder = made
    (cut,) = cuts(TABLES[interval], 1, seed)
    ingested(tmp_path, upto(TABLES[interval], cut))
    stage(tmp_path, Alone(), wanted)
    found, later = rows(tmp_path), rows(folder)
    names = [name for name in later.columns if not name.startswith("y_")]
    assert found[names].equals(later[later["ts"] <= cut][names].reset_index(drop=True))


@pytest.mark.parametrize("seed", [1, 2])
def test_other_bars_after_the_cut_change_nothing_before(
    made: tuple[str, FeatureSection, Path], tmp_path: Path, seed: int
) -> None:
    """C2: what comes after a random bar is poisoned."""
    interval, wanted, folder = made
    (cut,) = cuts(TABLES[interval], 1, 10 + seed)
    frame = TABLES[interval].to_pandas()
    late = frame["ts"] > cut
    for name in ("open", "high", "low", "close", "volume"):
        frame.loc[late, name] = frame.loc[late, name].to_numpy() * (1e6 if seed == 1 else 1e-3)
    ingested(tmp_path, pa.Table.from_pandas(frame, schema=BARS, preserve_index=False))
    stage(tmp_path, Alone(), wanted)
    found, later = (rows(one)[lambda f: f["ts"] <= cut] for one in (tmp_path, folder))
    names = [name for name in later.columns if not name.startswith("y_")]
    assert found[names].equals(later[names])


def test_appends_at_random_times_change_no_bit(made: tuple[str, FeatureSection, Path], tmp_path: Path) -> None:
    """C4: the bars come in pieces that end anywhere, within days and coarser bars; each append runs new bars alone."""
    interval, wanted, folder = made
    table = TABLES[interval]
    stops = [*cuts(table, 4, 7), max(table["ts"].to_pylist())]
    ingested(tmp_path, upto(table, stops[0]))
    counted(tmp_path, wanted)
    before = seen_by_kernels(tmp_path, wanted)
    for cut in stops[1:]:
        ingested(tmp_path, upto(table, cut))
        run = counted(tmp_path, wanted)
        after = seen_by_kernels(tmp_path, wanted)
        assert run == after - before
        before = after
    again = stage(tmp_path, Alone(), wanted)
    assert again["computed"] == 0 and rows(tmp_path).equals(rows(folder))


def seen_by_kernels(folder: Path, wanted: FeatureSection) -> int:
    """Count the complete bars of all intervals that there are."""
    receipt = Receipt.load(folder / "ingest")
    return sum(receipt.bars(at).num_rows for at in (wanted.interval, *CASES[wanted.interval]))


def test_symbols_in_other_groups_have_the_same_rows(
    made: tuple[str, FeatureSection, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6: which bars are complete is the same for a symbol alone and among others."""
    interval, wanted, _ = made
    (cut,) = cuts(TABLES[interval], 1, 3)
    for count in (1, 5):
        for module in ("storage.lake", "storage.partitions"):
            monkeypatch.setattr(f"{module}.group_of", lambda symbol, interval, n=count: int(symbol) % n)
        ingested(tmp_path / str(count), upto(TABLES[interval], cut))
        stage(tmp_path / str(count), Alone(), wanted)
    one, five = (rows(tmp_path / str(count)) for count in (1, 5))
    assert one.equals(five) and len(one) > 100


@pytest.mark.parametrize("interval", ["1m", "15m"])
def test_chunks_and_threads_change_nothing(tmp_path: Path, interval: str) -> None:
    ingested(tmp_path / "a", TABLES[interval])
    ingested(tmp_path / "b", TABLES[interval])
    wanted = section(tmp_path, interval)
    one = stage(tmp_path / "a", Alone(), wanted)
    two = stage(tmp_path / "b", Alone(), wanted.model_copy(update={"chunk": 8, "threads": 3}))
    assert one["content"] == two["content"] and two["computed"] > 0


def test_intervals_that_are_not_there_are_named(tmp_path: Path) -> None:
    ingested(tmp_path / "quarters", bars(NAMES[:2], 30, interval="15m"))
    wanted = FeatureSection(set="close", level="numba", interval="15m", extra=({"indicator": "roc", "at": "1h"},))
    with pytest.raises(FeatureError, match="bars of 15m, got at: 1h; ingest it"):
        stage(tmp_path / "quarters", Alone(), wanted)
    ingested(tmp_path, TABLES["1d"])
    with pytest.raises(FeatureError, match=r"bars of 1d, got --features.interval 15m; ingest it"):
        stage(tmp_path, Alone(), FeatureSection(level="numba", interval="15m"))


@pytest.mark.parametrize(
    ("interval", "at", "message"),
    [
        ("1x", "", "an interval for bars such as .*got '1x'; did you mean"),
        ("1D", "", "got '1D'; did you mean '1d'"),
        ("2d", "", "got '2d'; did you mean '2h'"),
        ("1d", "1x", "extra, feature 1: expected an interval for 'at' .*got '1x'; did you mean"),
        ("1d", "1d", "'at' coarser than the bars, which are of 1d, got 1d for roc_10@1d"),
        ("1h", "15m", "'at' coarser than the bars, which are of 1h, got 15m for roc_10@15m"),
        ("4h", "60m", "'at' coarser than the bars, which are of 4h, got 60m"),
        ("1mo", "1w", "'at' coarser than the bars, which are of 1mo, got 1w"),
    ],
)
def test_intervals_that_cannot_be_are_refused_at_once(interval: str, at: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FeatureSection(interval=interval, extra=({"indicator": "roc", "at": at},))


def test_intervals_of_files_are_taken() -> None:
    for interval, at in (("10m", "4h"), ("90m", "2h"), ("4h", "1d"), ("1w", "1mo")):
        assert FeatureSection(interval=interval, extra=({"indicator": "roc", "at": at},)).interval == interval
