"""A journal is believed only as far as it is whole, belongs to the request and agrees with the lake."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.journal import FILE, Journal, Unit, by_symbol, digest, remove
from storage.lake import Lake
from storage.schema import BARS

NOW = datetime(2026, 1, 2, tzinfo=UTC)
REQUEST, FACTS = {"kis": {"seed": 1}}, {"at": "2026-01-02T00:00:00+00:00"}


def bars(symbol: str, *closes: float) -> pa.Table:
    n = len(closes)
    ts = [datetime(2025, 3, 4 + i, 6, 30, tzinfo=UTC) for i in range(n)]
    price = list(closes)
    columns = [[symbol] * n, ["KRX"] * n, ["1d"] * n, ts, *[price] * 5, price, ["s"] * n, [NOW] * n]
    return pa.table(columns, schema=BARS)


def unit(symbol: str, rows: pa.Table) -> Unit:
    return Unit("1d", symbol, rows.num_rows, digest("bars", rows), quarantined={"duplicate": 2})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    found = Journal(tmp_path, REQUEST, FACTS)
    found.add([unit(s, bars(s, 1.0, 2.0)) for s in ("a", "b")])
    found.add([unit("c", bars("c", 3.0))])
    return found


def test_units_and_facts_are_taken_over(tmp_path: Path, journal: Journal) -> None:
    again = Journal(tmp_path, REQUEST, {"at": "later"})
    assert again.units == journal.units and len(again.units) == 3
    assert again.facts == FACTS


def test_another_request_takes_nothing_over(tmp_path: Path, journal: Journal) -> None:
    other = Journal(tmp_path, {"kis": {"seed": 2}}, {"at": "later"})
    assert other.units == {} and other.facts == {"at": "later"}
    assert Journal(tmp_path, REQUEST, FACTS).units == {}


@pytest.mark.parametrize(
    ("harm", "left"),
    [
        (lambda text: text[:-10], 2),
        (lambda text: text + b'{"interval": "1d"', 3),
        (lambda text: text.replace(b'"symbol":"b"', b'"sym":"b"'), 1),
        (lambda text: text.replace(b'"symbol":"a"', b'"symbol":'), 0),
        (lambda text: b"\x00\xff" + text, 0),
        (lambda text: b"[1, 2]\n" + text, 0),
        (lambda text: b"", 0),
    ],
)
def test_what_follows_a_harmed_line_is_dropped(tmp_path: Path, journal: Journal, harm: object, left: int) -> None:
    path = tmp_path / FILE
    path.write_bytes(harm(path.read_bytes()))  # type: ignore[operator]
    found = Journal(tmp_path, REQUEST, FACTS)
    assert len(found.units) == left
    found.add([unit("d", bars("d", 1.0))])
    assert len(Journal(tmp_path, REQUEST, FACTS).units) == left + 1, "what is added afterwards is readable"


def test_units_that_the_lake_does_not_hold_are_forgotten(tmp_path: Path, journal: Journal) -> None:
    lake = Lake(tmp_path / "lake")
    lake.write("bars", pa.concat_tables([bars("a", 1.0, 2.0), bars("b", 1.0, 2.5)]))
    journal.verify(lake, source="s", venue="KRX")
    assert list(journal.units) == [("1d", "a")]


def test_nothing_is_left_of_a_complete_run(tmp_path: Path, journal: Journal) -> None:
    remove(tmp_path)
    remove(tmp_path)
    assert Journal(tmp_path, REQUEST, FACTS).units == {}


def test_cut_by_symbol() -> None:
    table = pa.concat_tables([bars("a", 1.0), bars("b", 1.0, 2.0), bars("c", 4.0)])
    assert {name: rows.num_rows for name, rows in by_symbol(table).items()} == {"a": 1, "b": 2, "c": 1}
    assert by_symbol(table)["b"].equals(bars("b", 1.0, 2.0))
    assert by_symbol(table.slice(0, 0)) == {}
