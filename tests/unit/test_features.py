"""The features stage on a small lake: right rows, the same content after any interruption, clear words about what is
wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster
from pydantic import ValidationError

from pipeline import krx
from pipeline.actions import adjust
from pipeline.cluster import gpu_count
from pipeline.features import FeatureError, FeatureSection, Order, block_of, feature_set, features
from pipeline.indicators import compute, reads, resolve
from pipeline.job import Job
from pipeline.labels import LabelSection
from pipeline.receipt import Receipt
from storage.emit import Emit, silent
from storage.schema import ACTIONS, SYMBOLS, content_digest
from storage.store import read_json
from tests.market import STAMP, bars, ingested
from tests.naive import forward_returns

NAMES = [f"{i:06d}" for i in range(12)]
LABELS = LabelSection(horizons=(1, 5))


@dataclass
class Threads:
    """Stand where the cluster stands, over workers that are threads of this process."""

    threads: int = 2
    device: Literal["cpu"] = "cpu"
    backend: Literal["pandas"] = "pandas"
    used: Client | None = None
    prefixes: tuple[str, ...] = ()

    def client(self) -> Client:
        if self.used is None:
            self.used = Client(
                LocalCluster(n_workers=1, threads_per_worker=self.threads, processes=False, dashboard_address=":0")
            )
        return self.used


class Never(Threads):
    def client(self) -> Client:
        raise AssertionError("a cluster was started for nothing")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Threads]:
    found = Threads()
    yield found
    if found.used is not None:
        local = found.used.cluster
        found.used.close()
        local.close()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    ingested(folder, bars(NAMES, 150))
    return folder


def stage(
    folder: Path, cluster: Any, section: FeatureSection | None = None, *, emit: Emit = silent, out: str = "features"
) -> dict[str, Any]:
    (folder / out).mkdir(exist_ok=True)
    job = Job(folder / out, {"ingest": folder / "ingest"}, cast(Any, cluster), emit)
    return features(job, section or FeatureSection(), LABELS)


def rows(folder: Path, out: str = "features") -> Any:
    tables = [pq.read_table(path) for path in sorted((folder / out / "blocks").glob("*.parquet"))]
    return pa.concat_tables(tables).sort_by([("symbol", "ascending"), ("ts", "ascending")]).to_pandas()


@pytest.fixture(scope="module")
def made(market: Path, cluster: Threads) -> tuple[dict[str, Any], Path]:
    return stage(market, cluster), market


def test_blocks_hold_what_compute_gives(made: tuple[dict[str, Any], Path]) -> None:
    manifest, folder = made
    found, receipt = rows(folder), Receipt.load(folder / "ingest")
    raw = receipt.bars("1d").to_pandas()
    assert manifest["rows"] == len(found) == len(raw) and manifest["symbols"] == len(NAMES)
    assert found["symbol"].tolist() == raw["symbol"].tolist() and (found["ts"] == raw["ts"]).all()
    columns = read_json(folder / "features" / "columns.json")
    names = [c["name"] for c in columns["features"]]
    np.testing.assert_array_equal(found[names], compute(raw, feature_set("basic")))
    assert list(found.columns) == ["symbol", "ts", "close", *names, "y_1", "y_1_end", "y_5", "y_5_end"]
    assert columns["interval"] == "1d" and [t["name"] for t in columns["targets"]] == ["y_1", "y_5"]
    for h in (1, 5):
        one = raw[raw["symbol"] == NAMES[3]]
        ts = one["ts"].astype("int64").to_numpy()
        opened, close = one["open"].to_numpy(), one["close"].to_numpy()
        value, end = forward_returns({"buy": opened, "sell": opened, "close": close}, ts, h, delisted=False)
        mine = found[found["symbol"] == NAMES[3]]
        np.testing.assert_array_equal(mine[f"y_{h}"], value.astype(np.float32))
        assert mine[f"y_{h}_end"].isna().tolist() == np.isnan(end).tolist()
        known = ~np.isnan(end)
        assert (mine[f"y_{h}_end"].astype("int64").to_numpy()[known] == end[known]).all()


def test_every_block_is_sorted_and_of_one_schema(made: tuple[dict[str, Any], Path]) -> None:
    blocks = sorted((made[1] / "features" / "blocks").glob("*.parquet"))
    assert len(blocks) == made[0]["blocks"] == 8
    tables = [pq.read_table(path) for path in blocks]
    assert len({str(table.schema) for table in tables}) == 1
    for path, table in zip(blocks, tables):
        assert content_digest(table) == content_digest(table, ("symbol", "ts")), path
    kinds = {str(field.type) for field in tables[0].schema if field.name not in ("symbol", "ts", "close")}
    assert kinds == {"float", "timestamp[us, tz=UTC]"}


def test_a_finished_stage_starts_no_cluster(made: tuple[dict[str, Any], Path]) -> None:
    assert stage(made[1], Never()) == made[0]


def test_what_a_killed_attempt_left_is_reused_only_if_it_is_whole(
    market: Path, made: tuple[dict[str, Any], Path], cluster: Threads
) -> None:
    stage(market, cluster, out="torn")
    blocks = market / "torn" / "blocks"
    good = blocks / "000.parquet"
    before = good.stat().st_mtime_ns
    (blocks / "001.json").unlink()
    (blocks / "002.parquet").write_bytes((blocks / "002.parquet").read_bytes()[:-20])
    (blocks / "003.parquet").write_bytes((blocks / "004.parquet").read_bytes())
    (blocks / "005.json").write_text("{")
    (blocks / ".006.parquet.abc").write_bytes(b"half")
    assert stage(market, cluster, out="torn")["content"] == made[0]["content"]
    assert good.stat().st_mtime_ns == before
    assert rows(market, "torn").equals(rows(market))


KILLED = """
import sys
import time
from pathlib import Path
from tests.unit.test_features import Threads, stage

def emit(kind, /, **fields):
    if kind == "progress":
        print(fields["done"], flush=True)
        if fields["done"] >= int(sys.argv[3]):  # the workers go on, this one waits to be killed
            time.sleep(60)

if __name__ == "__main__":
    stage(Path(sys.argv[1]), Threads(threads=1), emit=emit, out=sys.argv[2])
"""


def test_killed_and_started_again_it_ends_with_the_same_content(
    market: Path, made: tuple[dict[str, Any], Path], cluster: Threads, root: Path
) -> None:
    out, after = "killed", 2
    command = [sys.executable, "-c", KILLED, str(market), out, str(after)]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == after:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stdout.close()
    assert not (market / out / "columns.json").exists()
    assert stage(market, cluster, out=out)["content"] == made[0]["content"]


def test_workers_and_the_order_of_writing_do_not_matter(made: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    table = bars(NAMES, 150)
    half = table.slice(0, 700)
    ingested(tmp_path, table.slice(700))
    ingested(tmp_path, half)
    again = ingested(tmp_path, table)  # the receipt names all of it
    assert again.rows["1d"] == made[0]["rows"]
    one = Threads(threads=1)
    try:
        assert stage(tmp_path, one)["content"] == made[0]["content"]
    finally:
        assert one.used is not None
        local = one.used.cluster
        one.used.close()
        local.close()


def test_tasks_carry_the_name_of_the_stage(made: tuple[dict[str, Any], Path], cluster: Threads) -> None:
    scheduler = cluster.client().cluster.scheduler
    assert set(scheduler.task_prefixes) == {"features"}


def test_runtime_settings_change_no_content_and_no_key(
    market: Path, made: tuple[dict[str, Any], Path], cluster: Threads
) -> None:
    other = FeatureSection(chunk=64, threads=2)
    assert other.keyed() == FeatureSection().keyed()
    assert stage(market, cluster, other, out="other")["content"] == made[0]["content"]


def test_a_split_leaves_features_and_targets_alone(
    market: Path, made: tuple[dict[str, Any], Path], cluster: Threads, tmp_path: Path
) -> None:
    """Four for one on day 80: raw prices a quarter, volumes four times; powers of two, so even the bits agree."""
    table = bars(NAMES, 150).to_pandas()
    day = table["ts"].iloc[80]
    late = (table["symbol"] == NAMES[2]) & (table["ts"] >= day)
    for name in ("open", "high", "low", "close"):
        table.loc[late, name] /= 4
    table.loc[late, "volume"] *= 4
    row = {
        "symbol": NAMES[2],
        "ex_date": day.date(),
        "kind": "split",
        "factor": 4.0,
        "source": "test",
        "ingested_at": STAMP.as_py(),
    }
    ingested(tmp_path, pa.Table.from_pandas(table, preserve_index=False), pa.Table.from_pylist([row], ACTIONS))
    assert stage(tmp_path, cluster)["content"] == made[0]["content"]
    assert rows(tmp_path).equals(rows(market))


def test_delisted_symbols_have_labels_to_the_end(cluster: Threads, tmp_path: Path) -> None:
    table = bars(NAMES[:2], 120)
    last = table["ts"].to_pylist()[119].date()
    known = {
        "symbol": NAMES[0],
        "name": "gone",
        "market": "KOSPI",
        "kind": "stock",
        "delisted": last,
        "as_of": last,
        "source": "test",
    }
    ingested(tmp_path, table, symbols=pa.Table.from_pylist([{**known, "ingested_at": STAMP.as_py()}], SYMBOLS))
    stage(tmp_path, cluster)
    found = rows(tmp_path)
    assert found[found["symbol"] == NAMES[0]]["y_5"].isna().sum() == 1  # the last bar can't be bought any more
    assert found[found["symbol"] == NAMES[1]]["y_5"].isna().sum() == 6


def test_one_broken_symbol_is_named_and_the_rest_finishes(market: Path, made: tuple[dict[str, Any], Path]) -> None:
    receipt, section = Receipt.load(market / "ingest"), FeatureSection()
    columns = section.columns(close_only=False)
    order = Order(market / "x", market / "ingest", "pandas", section, LABELS)
    good = receipt.bars("1d", symbols=NAMES[:4]).to_pandas()
    whole, _ = block_of(good, receipt, columns, order)
    shuffled = np.arange(600)
    shuffled[[200, 201]] = [201, 200]
    doubled = np.sort(np.append(shuffled[:600], 500))
    for wrong, message in ((shuffled, "sorted by"), (doubled, "got two of")):
        table, report = block_of(good.iloc[wrong].reset_index(drop=True), receipt, columns, order)
        (name,) = report["broken"]
        assert message in report["broken"][name]
        assert content_digest(table) == content_digest(whole.filter(pc.not_equal(whole["symbol"], name)))


def test_short_symbols_are_kept_and_named(cluster: Threads, tmp_path: Path) -> None:
    said: list[str] = []

    def emit(kind: str, /, **fields: object) -> None:
        if kind == "log":
            said.append(str(fields["text"]))

    table = pa.concat_tables([bars(NAMES[:3], 100), bars(["999999"], 3)])
    ingested(tmp_path, table)
    manifest = stage(tmp_path, cluster, emit=emit)
    assert manifest["short"] == {"999999": 3} and manifest["rows"] == 303
    assert any("999999 (3)" in text for text in said)
    ingested(tmp_path / "all", bars(NAMES[:2], 20))
    with pytest.raises(FeatureError, match=r"at least 61 complete bars .* got at most 20 among 2 symbols"):
        stage(tmp_path / "all", cluster)


def blank(table: pa.Table, holes: dict[str, tuple[str, float]]) -> pa.Table:
    """Give all bars of some symbols one value in a column."""
    frame = table.to_pandas()
    for symbol, (name, value) in holes.items():
        frame.loc[frame["symbol"] == symbol, name] = value
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_a_symbol_without_a_column_is_named_with_it(cluster: Threads, tmp_path: Path) -> None:
    said: list[str] = []

    def emit(kind: str, /, **fields: object) -> None:
        if kind == "log":
            said.append(f"{fields['level']}: {fields['text']}")

    holes = {NAMES[1]: ("high", np.nan), NAMES[2]: ("volume", np.nan), NAMES[3]: ("volume", 0.0)}
    ingested(tmp_path, blank(bars(NAMES[:5], 100), {**holes, NAMES[4]: ("open", np.nan)}))
    manifest = stage(tmp_path, cluster, emit=emit)
    expected = {symbol: [name] for symbol, (name, _) in holes.items()} | {NAMES[4]: ["open"]}
    assert manifest["empty"] == expected and manifest["short"] == {}
    named = ", ".join(f"{symbol} ({name})" for symbol, (name,) in expected.items())
    assert f"warning: 4 symbols have no value at all in a column and take no part in what reads it: {named}" in said
    found = rows(tmp_path).groupby("symbol")
    assert found["natr_14"].count().gt(0).tolist() == [True, False, False, False, True]
    assert found["y_5"].count().gt(0).tolist() == [True, True, True, False, False]
    closes = stage(tmp_path, cluster, FeatureSection(set="close"), out="closes")
    assert closes["empty"] == {NAMES[3]: ["volume"], NAMES[4]: ["open"]}, "the other columns are not read"


def test_no_high_or_no_open_anywhere_is_said_to_be_the_cause(cluster: Threads, tmp_path: Path) -> None:
    table = bars(NAMES[:2], 100)
    ingested(tmp_path / "high", blank(table, dict.fromkeys(NAMES[:2], ("high", np.nan))))
    with pytest.raises(FeatureError, match=r"2 have no value at all in a column: 000000 \(high\), .*set close"):
        stage(tmp_path / "high", cluster)
    ingested(tmp_path / "open", blank(table, dict.fromkeys(NAMES[:2], ("open", np.nan))))
    with pytest.raises(FeatureError, match=r"1d with an open, .* got none in all 200 bars, so that no label"):
        stage(tmp_path / "open", cluster)


def test_zeros_become_nan_and_are_counted(cluster: Threads, tmp_path: Path) -> None:
    table = bars(NAMES[:1], 140).to_pandas()
    table.loc[70, ["open", "high", "low", "close"]] = 0.0
    ingested(tmp_path, pa.Table.from_pandas(table, preserve_index=False))
    manifest = stage(tmp_path, cluster)
    numbers = rows(tmp_path).select_dtypes("number")
    assert manifest["infinite"] > 0 and not np.isinf(numbers).any(axis=None)
    assert numbers.drop(columns=["y_1", "y_5"]).iloc[-1].notna().all(), "it recovers"


def test_closes_only_choose_their_set(market: Path, cluster: Threads, tmp_path: Path) -> None:
    receipt = ingested(tmp_path, bars(NAMES[:4], 100))
    receipt.model_copy(update={"close_only": True}).save(tmp_path / "ingest")
    stage(tmp_path, cluster)
    found = rows(tmp_path)
    one = found[found["symbol"] == NAMES[0]]
    assert "skew_20" in found.columns and "natr_14" not in found.columns
    np.testing.assert_allclose(one["y_1"].iloc[0], one["close"].iloc[2] / one["close"].iloc[1] - 1, rtol=1e-6)
    with pytest.raises(FeatureError, match=r"closes only.*natr_14"):
        stage(tmp_path, cluster, FeatureSection(set="basic"), out="wrong")


def block(folder: Path, table: pa.Table, section: FeatureSection | None = None, *, close_only: bool = False) -> Any:
    """Return the block of one small market as a frame."""
    receipt = ingested(folder, table).model_copy(update={"close_only": close_only})
    section = section or FeatureSection()
    order = Order(folder / "x", folder / "ingest", "pandas", section, LABELS)
    found, _ = block_of(receipt.bars("1d").to_pandas(), receipt, section.columns(close_only=close_only), order)
    return found.to_pandas()


HALT = slice(70, 76)


def halted(table: pa.Table, *, volume: float = 0.0) -> Any:
    """Return the bars as a frame with a halt written as a repeated close without volume."""
    frame = table.to_pandas()
    frame.loc[70:75, ["open", "high", "low", "close"]] = frame["close"].iloc[69]
    frame.loc[70:75, ["volume", "turnover"]] = volume
    return frame


def test_a_halt_written_as_flat_bars_is_no_bar(tmp_path: Path) -> None:
    """The same columns and targets as with the other way of writing a halt: no open, high and low."""
    flat = halted(bars(NAMES[:1], 150))
    empty = flat.copy()
    empty.loc[70:75, ["open", "high", "low"]] = np.nan
    one, two = (
        block(tmp_path / name, pa.Table.from_pandas(frame, preserve_index=False))
        for name, frame in (("flat", flat), ("empty", empty))
    )
    assert one.equals(two)
    names = [c.name for c in FeatureSection().columns(close_only=False)]
    assert one[names].iloc[HALT].isna().all(axis=None) and one["close"].iloc[HALT].notna().all()
    assert one["y_1"].iloc[69:75].isna().all() and one["y_1"].notna().iloc[75], "nobody bought during the halt"
    assert one["y_5_end"].iloc[66] == one["ts"].iloc[76], "the exit waits for the end of the halt"


@pytest.mark.parametrize("close_only", [False, True])
def test_columns_of_closes_leave_halts_out_too(tmp_path: Path, close_only: bool) -> None:
    section = FeatureSection(set="close", dtype="float64")
    frame = halted(bars(NAMES[:1], 150))
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), section, close_only=close_only)
    left = frame.drop(index=range(70, 76)).reset_index(drop=True)
    expected = compute(left, feature_set("close"), dtype=np.float64)
    kept = found.drop(index=range(70, 76))[list(expected.columns)].reset_index(drop=True)
    np.testing.assert_array_equal(kept, expected)
    assert found[list(expected.columns)].iloc[HALT].isna().all(axis=None)


@pytest.mark.parametrize("everywhere", [0.0, np.nan])
def test_a_source_without_volume_has_no_halts_to_tell(tmp_path: Path, everywhere: float) -> None:
    frame = halted(bars(NAMES[:1], 150))
    frame["volume"] = everywhere
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), FeatureSection(set="close"))
    assert found["y_1"].iloc[69:75].notna().all()
    assert found["roc_5"].iloc[HALT].notna().all()


def at_limits(frame: Any, rows: range, side: int) -> None:
    """Let these rows open and close at their upper (1) or lower (0) limit, and leave it in between."""
    for row in rows:
        day = frame["ts"].iloc[row].to_datetime64()
        price = float(krx.limits(frame["close"].iloc[row - 1], day)[side])
        frame.loc[row, ["open", "high", "low", "close"]] = price
        frame.loc[row, "low" if side else "high"] = price * (0.99 if side else 1.01)


@pytest.mark.parametrize("close_only", [False, True])
def test_nobody_buys_in_a_run_of_upper_limits(tmp_path: Path, close_only: bool) -> None:
    frame = bars(NAMES[:1], 130).to_pandas()
    at_limits(frame, range(100, 103), 1)
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), close_only=close_only)
    assert found["y_1"].isna().to_numpy().nonzero()[0].tolist() == [99, 100, 101, 128, 129]


@pytest.mark.parametrize("close_only", [False, True])
def test_nobody_sells_in_a_run_of_lower_limits(tmp_path: Path, close_only: bool) -> None:
    frame = bars(NAMES[:1], 130).to_pandas()
    at_limits(frame, range(100, 103), 0)
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), close_only=close_only)
    price = frame["close" if close_only else "open"]
    for row in (98, 99, 100, 101):
        assert found["y_1_end"].iloc[row] == found["ts"].iloc[103]
        np.testing.assert_allclose(found["y_1"].iloc[row], price[103] / price[row + 1] - 1, rtol=1e-6)


def test_extra_columns_and_float64(market: Path, cluster: Threads) -> None:
    extra = ({"indicator": "wma", "params": {"n": 9}, "over": "close"},)
    manifest = stage(market, cluster, FeatureSection(set="close", extra=extra, dtype="float64"), out="extra")
    found = rows(market, "extra")
    assert manifest["columns"] == len(resolve(feature_set("close"))) + 1
    raw = Receipt.load(market / "ingest").bars("1d").to_pandas()
    np.testing.assert_array_equal(found["wma_9_over_close"], compute(raw, extra, dtype=np.float64)["wma_9_over_close"])


def test_mistakes_are_told_with_what_was_meant(market: Path, cluster: Threads) -> None:
    with pytest.raises(ValidationError, match="did you mean 'basic'"):
        FeatureSection(set="basics")
    with pytest.raises(ValidationError, match="did you mean 'sma'"):
        FeatureSection(extra=({"indicator": "smaa"},))
    with pytest.raises(FeatureError, match=r"bars of 1d, got --features.interval 1m"):
        stage(market, cluster, FeatureSection(interval="1m"))


def test_a_later_future_changes_no_feature(market: Path, made: tuple[dict[str, Any], Path]) -> None:
    """C1 over the whole block: cut the bars, and no feature up to the cut changes."""
    receipt, section = Receipt.load(market / "ingest"), FeatureSection()
    columns = section.columns(close_only=False)
    order = Order(market / "x", market / "ingest", "pandas", section, LABELS)
    cut = datetime(2020, 6, 1, tzinfo=UTC)
    early, _ = block_of(receipt.bars("1d", end=cut).to_pandas(), receipt, columns, order)
    whole = rows(market)
    names = ["symbol", "ts", "close", *(c.name for c in columns)]
    assert early.to_pandas()[names].equals(whole[whole["ts"] <= cut][names].reset_index(drop=True))


SETS = {"basic": (20, 28), "close": (15, 28), "bench30": (30, 30)}


def test_feature_sets_are_what_they_say(root: Path) -> None:
    shipped = {path.stem for path in (root / "pipeline" / "feature_sets").glob("*.yaml")}
    assert shipped == SETS.keys()
    for name, (low, high) in SETS.items():
        columns = resolve(feature_set(name))
        assert low <= len(columns) <= high
        if name != "bench30":
            assert {c.scales_with for c in columns} == {"none"}, "one model eats all symbols"
    assert {"relative_volume_5", "relative_volume_20"} <= {c.name for c in resolve(feature_set("basic"))}
    assert reads(resolve(feature_set("close"))) == ("close",)


def test_a_group_without_bars_makes_an_empty_block(market: Path, made: tuple[dict[str, Any], Path]) -> None:
    receipt, section = Receipt.load(market / "ingest"), FeatureSection()
    columns = section.columns(close_only=False)
    order = Order(market / "x", market / "ingest", "pandas", section, LABELS)
    table, report = block_of(receipt.bars("1d", symbols=["none"]).to_pandas(), receipt, columns, order)
    assert table.num_rows == 0 and report["symbols"] == []
    assert table.schema.equals(pq.read_schema(market / "features" / "blocks" / "000.parquet"))


@pytest.mark.gpu
def test_a_cudf_frame_gives_the_same_block(market: Path, made: tuple[dict[str, Any], Path]) -> None:
    if gpu_count() == 0:
        pytest.skip("needs a GPU: NVML reports none")
    cudf = pytest.importorskip("cudf")
    receipt, section = Receipt.load(market / "ingest"), FeatureSection()
    columns = section.columns(close_only=False)
    order = Order(market / "x", market / "ingest", "cudf", section, LABELS)
    table, _ = block_of(cudf.DataFrame.from_arrow(receipt.bars("1d")), receipt, columns, order)
    expected = rows(market)
    found = table.to_pandas()
    assert found[["symbol", "ts"]].equals(expected[["symbol", "ts"]])
    for column in columns:
        np.testing.assert_allclose(found[column.name], expected[column.name], rtol=1e-5, atol=1e-6, err_msg=column.name)


def test_adjusting_comes_before_computing(market: Path) -> None:
    """`close` in a block is the adjusted one, so that a reader needs no actions."""
    receipt = Receipt.load(market / "ingest")
    row = {
        "symbol": NAMES[0],
        "ex_date": date(2020, 3, 2),
        "kind": "other",
        "factor": 1.1,
        "source": "test",
        "ingested_at": STAMP.as_py(),
    }
    actions = pa.Table.from_pylist([row], ACTIONS)
    raw = receipt.bars("1d", symbols=NAMES[:1]).to_pandas()
    section = FeatureSection()

    class With(Receipt):
        def actions(self) -> pa.Table:
            return actions

    order = Order(market / "x", market / "ingest", "pandas", section, LABELS)
    table, _ = block_of(raw, With.model_validate(receipt.model_dump()), section.columns(close_only=False), order)
    expected = adjust(raw, actions)
    np.testing.assert_array_equal(table["close"], expected["close"])
    np.testing.assert_array_equal(
        table["roc_5"], compute(expected, [{"indicator": "roc", "params": {"n": 5}}])["roc_5"]
    )
