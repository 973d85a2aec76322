"""The lake loses nothing, doubles nothing and names its content."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.lake import Lake, LakeError, group_of
from storage.schema import BARS, KEYS, SCHEMAS, content_digest
from tests.market import bars, ingested


def test_written_rows_come_back_sorted_and_exact(tmp_path: Path) -> None:
    table = bars(["000030", "00680K", "0126Z0"], 300)
    lake = Lake(tmp_path)
    assert lake.write("bars", table.take(pa.array(np.random.default_rng(1).permutation(900)))) == 900
    found = lake.read("bars")
    assert found.equals(table.sort_by([(k, "ascending") for k in KEYS["bars"]]))
    assert found["symbol"][0].as_py() == "000030"


def test_writing_again_changes_nothing_and_commits_nothing(tmp_path: Path) -> None:
    lake, table = Lake(tmp_path), bars(["005930"], 50)
    lake.write("bars", table)
    version = lake.version("bars")
    later = table.set_column(11, BARS.field(11), pa.array([5] * 50, BARS.field(11).type))  # ingested later
    assert lake.write("bars", later) == 0
    assert lake.version("bars") == version


def test_a_reader_notices_another_lake_in_the_place_of_the_one_it_knew(tmp_path: Path) -> None:
    """With as many commits, so that only the identity of the log's entry tells them apart."""
    reader = Lake(tmp_path / "lake")
    for symbol in ("005930", "000660", "005930"):
        Lake(tmp_path / "lake").write("bars", bars([symbol], 5))
        assert reader.read("bars")["symbol"].unique().to_pylist() == [symbol]
        shutil.rmtree(tmp_path / "lake")
    assert reader.read("bars").num_rows == 0


def test_a_new_row_replaces_the_old_one_of_its_key(tmp_path: Path) -> None:
    lake, table = Lake(tmp_path), bars(["005930", "000660"], 30)
    lake.write("bars", table)
    close = pa.array(np.where(np.arange(60) == 7, 1.0, table["close"].to_numpy()))
    assert lake.write("bars", table.set_column(7, BARS.field("close"), close)) == 1
    found = lake.read("bars")
    assert found.num_rows == 60
    assert found.filter(pc.equal(found["close"], 1.0)).num_rows == 1


def test_the_last_of_two_rows_of_one_key_in_one_write_wins(tmp_path: Path) -> None:
    one = bars(["005930"], 1)
    two = one.set_column(7, BARS.field("close"), pa.array([7.0]))
    lake = Lake(tmp_path)
    assert lake.write("bars", pa.concat_tables([one, two])) == 1
    assert lake.read("bars")["close"].to_pylist() == [7.0]


def test_nan_and_null_survive_and_are_not_the_same(tmp_path: Path) -> None:
    table = bars(["005930"], 2).set_column(
        9, BARS.field("turnover"), pa.array([None, float("nan")], pa.float64(), from_pandas=False)
    )
    lake = Lake(tmp_path)
    lake.write("bars", table)
    found = lake.read("bars")["turnover"]
    assert found.null_count == 1
    assert np.isnan(found[1].as_py())
    assert lake.write("bars", table) == 0
    assert content_digest(table) != content_digest(
        table.set_column(9, BARS.field("turnover"), pa.array([None, None], pa.float64()))
    )


def test_one_sorted_file_a_partition(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for seed in range(3):
        lake.write("bars", bars([f"{i:06d}" for i in range(20)], 300, seed=seed))
    import deltalake

    uris = deltalake.DeltaTable(str(tmp_path / "bars")).file_uris()
    assert len({Path(u).parent for u in uris}) == len(uris)
    for uri in uris:
        rows = pq.read_table(uri, columns=["symbol", "ts"], partitioning=None)
        assert rows.equals(rows.sort_by([("symbol", "ascending"), ("ts", "ascending")]))


def test_filters_agree_with_reading_everything(tmp_path: Path) -> None:
    lake, names = Lake(tmp_path), [f"{i:06d}" for i in range(12)]
    lake.write("bars", bars(names, 600))
    lake.write("bars", bars(names, 10, source="other"))
    start, end = datetime(2021, 3, 1, tzinfo=UTC), datetime(2021, 12, 31, tzinfo=UTC)
    found = lake.read("bars", symbols=names[:3], start=start, end=end, source="test", interval="1d")
    everything = lake.read("bars")
    mask = pc.and_(pc.is_in(everything["symbol"], pa.array(names[:3])), pc.equal(everything["source"], "test"))
    mask = pc.and_(
        mask,
        pc.and_(
            pc.greater_equal(everything["ts"], pa.scalar(start, BARS.field("ts").type)),
            pc.less_equal(everything["ts"], pa.scalar(end, BARS.field("ts").type)),
        ),
    )
    assert found.num_rows > 0
    assert found.equals(everything.filter(mask).combine_chunks())
    assert lake.read("bars", source="none").num_rows == 0
    assert lake.read("actions").num_rows == 0  # a table that does not exist yet is empty


def test_groups_are_those_of_the_partitions(tmp_path: Path) -> None:
    lake, names = Lake(tmp_path), [f"{i:06d}" for i in range(40)]
    lake.write("bars", bars(names, 3))
    groups = lake.groups("1d", source="test")
    assert sorted(s for g in groups.values() for s in g) == names
    assert all(group_of(s, "1d") == g for g, members in groups.items() for s in members)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(12)), cut=st.integers(0, 12))
def test_the_digest_ignores_order_and_chunks(order: list[int], cut: int) -> None:
    table = bars(["005930", "000660"], 6)
    mixed = table.take(pa.array(order))
    mixed = pa.concat_tables([mixed.slice(0, cut), mixed.slice(cut)])
    assert content_digest(mixed, KEYS["bars"]) == content_digest(table, KEYS["bars"])


@pytest.mark.parametrize("name", ["open", "close", "volume", "symbol", "ts", "source"])
def test_the_digest_notices_one_changed_cell(name: str) -> None:
    table = bars(["005930"], 20)
    values = table[name].to_pylist()
    values[3] = values[4] if name == "ts" else ("x" if isinstance(values[3], str) else values[3] + 1)
    changed = table.set_column(BARS.get_field_index(name), BARS.field(name), pa.array(values, BARS.field(name).type))
    assert content_digest(changed, KEYS["bars"]) != content_digest(table, KEYS["bars"])


def test_text_cannot_slip_from_one_cell_to_the_next() -> None:
    def digest(a: str, b: str) -> str:
        return content_digest(pa.table({"x": [a, b]}))

    assert digest("ab", "c") != digest("a", "bc")


def test_an_unwritable_lake_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match=r"expected to write .* to .*file/lake.*set --lake.path"):
        Lake(tmp_path / "file" / "lake").write("bars", bars(["005930"], 1))


def test_every_table_has_a_key_of_its_own_columns() -> None:
    for name, schema in SCHEMAS.items():
        assert set(KEYS[name]) <= set(schema.names)


def test_a_receipt_knows_when_the_lake_changed(tmp_path: Path) -> None:
    table = bars(["005930", "000660"], 40)
    receipt = ingested(tmp_path, table)
    assert receipt.current()
    assert receipt.rows == {"1d": 80}
    Lake(tmp_path / "lake").write("bars", bars(["005930"], 5, source="other"))
    assert receipt.current(), "another source's rows are none of its business"
    Lake(tmp_path / "lake").write("bars", bars(["005930"], 5, seed=9))
    assert not receipt.current()
