"""A lake of an older layout is brought up to the newest one without losing a row; a newer one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from storage import migrations
from storage.lake import Lake, LakeError
from storage.partitions import schema_of, split
from storage.schema import KEYS, SYMBOLS, content_digest
from tests.market import bars


def older_lake(path: Path) -> tuple[pa.Table, pa.Table]:
    """Write a lake as the first layout had it: delta-rs' own files, no `lake.json`, bars without turnover, symbols
    without flags.
    """
    table = bars(["005930", "000660"], 300)
    narrow = schema_of("bars").remove(schema_of("bars").get_field_index("turnover"))
    parts = []
    for (interval, group, period), rows in split("bars", table).items():
        rows = rows.append_column("group", pa.array([int(group)] * rows.num_rows, pa.int32()))
        rows = rows.append_column("period", pa.array([period] * rows.num_rows))
        assert set(rows["interval"].to_pylist()) == {interval}
        parts.append(rows.select(narrow.names))
    deltalake.write_deltalake(str(path / "bars"), pa.concat_tables(parts), partition_by=["interval", "group", "period"])
    names = [name for name in SYMBOLS.names if name not in ("halted", "administrative")]
    one = {"symbol": "005930", "name": "삼성전자", "market": "KOSPI", "source": "kis"}
    symbols = pa.Table.from_pylist([one], SYMBOLS).select(names)
    deltalake.write_deltalake(str(path / "symbols"), symbols)
    return table, symbols


def test_an_older_lake_is_read_as_it_is_and_completed_by_the_first_write(tmp_path: Path) -> None:
    table, _ = older_lake(tmp_path)
    lake = Lake(tmp_path)
    assert migrations.check(tmp_path) == 1
    found = lake.read("bars", source="test")
    known = [name for name in table.column_names if name != "turnover"]
    assert content_digest(found.select(known), KEYS["bars"]) == content_digest(table.select(known), KEYS["bars"])
    assert found["turnover"].null_count == 600
    assert lake.damaged() == []
    assert not (tmp_path / "lake.json").exists(), "reading changes nothing"

    assert lake.write("bars", bars(["035420"], 10)) == 10
    assert json.loads((tmp_path / "lake.json").read_text()) == {"schema": migrations.LAYOUT}
    for name in ("bars", "symbols"):
        delta = deltalake.DeltaTable(str(tmp_path / name))
        assert {field.name for field in delta.schema().fields} == set(schema_of(name).names)
        assert delta.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    assert lake.counts("bars") == {"000660": 300, "005930": 300, "035420": 10}
    assert lake.read("symbols")["name"].to_pylist() == ["삼성전자"]
    assert lake.write("bars", table) == 600, "rows whose turnover is known now differ"
    assert lake.read("bars", symbols=["005930", "000660"]).equals(
        table.sort_by([(k, "ascending") for k in KEYS["bars"]])
    )


def test_migrating_twice_or_after_a_kill_in_the_middle_is_harmless(tmp_path: Path) -> None:
    older_lake(tmp_path)
    migrations.prepare(tmp_path)
    (tmp_path / "lake.json").unlink()  # as if killed before the number was written
    versions = [Lake(tmp_path).version(name) for name in ("bars", "symbols")]
    migrations.prepare(tmp_path)
    assert [Lake(tmp_path).version(name) for name in ("bars", "symbols")] == versions
    assert migrations.check(tmp_path) == migrations.LAYOUT


def test_a_newer_lake_is_refused_with_what_to_do(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("bars", bars(["005930"], 3))
    (tmp_path / "lake.json").write_text('{"schema": 99}')
    for use in (lambda: lake.read("bars"), lambda: lake.write("bars", bars(["005930"], 4)), lambda: lake.damaged()):
        with pytest.raises(LakeError, match=r"layout \d+ or older .* got 99.*update the program"):
            use()


def test_a_spoiled_number_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write("bars", bars(["005930"], 3))
    (tmp_path / "lake.json").write_text("{")
    with pytest.raises(LakeError, match=r"lake.json, got '\{'"):
        lake.read("bars")
