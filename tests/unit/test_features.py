"""The features stage on a small lake: right rows, the same content after any interruption, clear words about what is
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.actions import adjust
from pipeline.cluster import gpu_count
from pipeline.features.pool import FOLDER
from pipeline.features.section import FeatureError, FeatureSection, feature_set
from pipeline.features.seen import sound
from pipeline.indicators import compute, resolve
from pipeline.receipt import Receipt
from storage.schema import ACTIONS, content_digest
from storage.store import read_json
from tests.clients import killed_client
from tests.feature_stage import NAMES, Alone, Threads, block_of, order_of, rows, stage
from tests.market import STAMP, bars, ingested
from tests.naive import forward_returns


@pytest.fixture(scope="module")
def cluster() -> Iterator[Threads]:
    with Threads() as found:
        yield found


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    ingested(folder, bars(NAMES, 150))
    return folder


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
    assert list(found.columns) == ["symbol", "ts", "close", *names, "y_1", "y_1_end", "y_5", "y_5_end", "member"]
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
    assert {path.stem for path in blocks} == {f"{group:03d}-2020" for group in range(8)}
    tables = [pq.read_table(path) for path in blocks]
    assert len({str(table.schema) for table in tables}) == 1
    for path, table in zip(blocks, tables):
        assert content_digest(table) == content_digest(table, ("symbol", "ts")), path
    kinds = {str(field.type) for field in tables[0].schema if field.name not in ("symbol", "ts", "close")}
    assert kinds == {"float"}
    beside = [pq.read_schema(path.parent.parent / "targets" / path.name) for path in blocks]
    assert len({str(schema) for schema in beside}) == 1
    assert {str(field.type) for field in beside[0]} == {"float", "timestamp[us, tz=UTC]", "bool"}
    assert not (made[1] / "features" / "cross").exists(), "nothing is decided among symbols"


def test_in_this_process_no_cluster_is_started_and_what_is_whole_is_not_made_again(
    made: tuple[dict[str, Any], Path],
) -> None:
    again = stage(made[1], Alone(), FeatureSection(level="numba"))
    assert again["content"] == made[0]["content"]
    assert (made[0]["computed"], again["computed"]) == (8, 0)


def test_what_a_killed_attempt_left_is_reused_only_if_it_is_whole(
    made: tuple[dict[str, Any], Path], cluster: Threads, tmp_path: Path
) -> None:
    ingested(tmp_path, bars(NAMES, 150))
    stage(tmp_path, cluster)
    out, (pool,) = tmp_path / "features", (tmp_path / FOLDER).iterdir()
    good = out / "blocks" / "000-2020.parquet"
    before = good.stat().st_ino
    named = {path.stat().st_ino: path for path in pool.glob("*.parquet")}
    made_of = [named[(out / "blocks" / f"{group:03d}-2020.parquet").stat().st_ino] for group in range(8)]
    made_of[1].with_suffix(".json").unlink()
    made_of[2].write_bytes(made_of[2].read_bytes()[:-20])
    made_of[3].write_bytes(made_of[4].read_bytes())
    made_of[5].with_suffix(".json").write_text("{")
    (pool / f".{made_of[6].name}.abc").write_bytes(b"half")
    (out / "targets" / "006-2020.parquet").write_bytes(b"half")
    (out / "blocks" / "007-2020.parquet").unlink()
    (out / "blocks" / "007-2019.parquet").write_bytes(b"of another attempt")
    again = stage(tmp_path, cluster)
    assert again["content"] == made[0]["content"] and again["computed"] == 4
    assert good.stat().st_ino == before
    assert rows(tmp_path).equals(rows(made[1]))


KILLED = """
import sys
import time
from pathlib import Path
from tests.feature_stage import Threads, stage

def emit(kind, /, **fields):
    if kind == "progress":
        print(fields["done"], flush=True)
        if fields["done"] >= int(sys.argv[3]):  # the workers go on, this one waits to be killed
            time.sleep(60)

if __name__ == "__main__":
    stage(Path(sys.argv[1]), Threads(threads=1), emit=emit, out=sys.argv[2])
"""


def test_killed_and_started_again_it_ends_with_the_same_content(
    made: tuple[dict[str, Any], Path], cluster: Threads, tmp_path: Path
) -> None:
    ingested(tmp_path, bars(NAMES, 150))
    out, after = "killed", 2
    killed_client(KILLED, tmp_path, tmp_path, out, after, last=str(after))
    assert not (tmp_path / out / "columns.json").exists()
    again = stage(tmp_path, cluster, out=out)
    assert again["content"] == made[0]["content"] and again["computed"] <= 8 - after


def test_workers_and_the_order_of_writing_do_not_matter(made: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    table = bars(NAMES, 150)
    half = table.slice(0, 700)
    ingested(tmp_path, table.slice(700))
    ingested(tmp_path, half)
    again = ingested(tmp_path, table)  # the receipt names all of it
    assert again.rows["1d"] == made[0]["rows"]
    with Threads(threads=1) as one:
        assert stage(tmp_path, one)["content"] == made[0]["content"]


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


def that_reads(receipt: Receipt, table: pa.Table) -> Receipt:
    """Return a receipt whose bars are those of a table, in its order."""

    class Bad(Receipt):
        def bars(self, interval: str, **query: Any) -> pa.Table:
            inside = (pc.field("ts") >= query["start"]) & (pc.field("ts") <= query["end"])
            return table.filter(inside).select(query["columns"])

    return Bad.model_validate(receipt.model_dump())


def test_one_broken_symbol_is_named_and_the_rest_finishes(market: Path, made: tuple[dict[str, Any], Path]) -> None:
    receipt = Receipt.load(market / "ingest")
    good = receipt.bars("1d", symbols=NAMES[:4])
    whole, _ = block_of(order_of(market, out="whole"), receipt, NAMES[:4])
    shuffled = np.arange(600)
    shuffled[[200, 201]] = [201, 200]
    doubled = np.sort(np.append(np.arange(600), 500))
    for wrong, message in ((shuffled, "sorted by"), (doubled, "got two of")):
        bad = good.take(pa.array(wrong))
        table, report = block_of(order_of(market, out=message[:3]), that_reads(receipt, bad), NAMES[:4])
        (name,) = report["broken"]
        assert message in report["broken"][name] and sound(bad)[1] == report["broken"]
        assert table.equals(whole[whole["symbol"] != name].reset_index(drop=True))


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


@pytest.mark.parametrize("seed", [1, 2])
def test_a_later_future_changes_no_feature(
    market: Path, made: tuple[dict[str, Any], Path], tmp_path: Path, seed: int
) -> None:
    """C1 over all blocks: cut the lake, and neither a feature nor a membership up to the cut changes."""
    table = bars(NAMES, 150)
    cut = table["ts"][int(np.random.default_rng(seed).integers(65, 149))]
    ingested(tmp_path, table.filter(pc.less_equal(table["ts"], cut)))
    stage(tmp_path, Alone(), FeatureSection(level="numba"))
    whole, early = rows(market), rows(tmp_path)
    names = [name for name in whole.columns if not name.startswith("y_")]
    assert early[names].equals(whole[whole["ts"] <= cut.as_py()][names].reset_index(drop=True))


def test_a_group_without_bars_makes_no_block(market: Path) -> None:
    _, report = block_of(order_of(market, out="none"), Receipt.load(market / "ingest"), ["none"])
    assert (report["rows"], report["symbols"], report["blocks"], report["targets"]) == (0, 0, {}, {})
    assert not list((market / "none").iterdir())


@pytest.mark.gpu
def test_a_cudf_frame_gives_the_same_block(market: Path, made: tuple[dict[str, Any], Path]) -> None:
    if gpu_count() == 0:
        pytest.skip("needs a GPU: NVML reports none")
    pytest.importorskip("cudf")
    columns = FeatureSection().columns(close_only=False)
    found, _ = block_of(order_of(market, out="cudf", backend="cudf"), Receipt.load(market / "ingest"), NAMES)
    expected = rows(market)
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

    class With(Receipt):
        def actions(self) -> pa.Table:
            return actions

    table, _ = block_of(order_of(market, out="with"), With.model_validate(receipt.model_dump()), NAMES[:1])
    expected = adjust(raw, actions)
    np.testing.assert_array_equal(table["close"], expected["close"])
    np.testing.assert_array_equal(
        table["roc_5"], compute(expected, [{"indicator": "roc", "params": {"n": 5}}])["roc_5"]
    )
