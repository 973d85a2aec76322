"""All KRX stocks in files of a year: layouts, halts, markets, names and corporate actions over the borders of files."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import krx
from pipeline.importers import Loaded
from tests.bar_files import read_all
from tests.marcap_files import row, write

A, B, SMALL, LATE = "005930", "000660", "112240", "0126Z0"


def _days(start: str, end: str) -> list[str]:
    return [str(day) for day in krx.sessions(start, end)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write 2022 (old order), 2023 (new order) and 2026 (Parquet), with an action at each border and within a year."""
    first = _days("2022-12-26", "2022-12-29")
    second = _days("2023-01-02", "2023-01-06")
    third = _days("2026-01-02", "2026-01-07")
    rows = [row(day, A, 50_000, 0, stocks=100) for day in first]
    rows += [row(day, B, 1_000 + i, 1 if i else 0, market="KOSDAQ") for i, day in enumerate(first)]
    rows += [row(day, SMALL, 700, 0, market="KONEX") for day in first]
    write(tmp_path, 2022, rows)
    # 50 for 1 on the first session of 2023; halted for two days, a bonus issue on the 5th
    rows = [row(second[0], A, 1_010, 10, stocks=5_000)]
    rows += [row(day, A, 1_010, 0, halted=True, stocks=5_000) for day in second[1:3]]
    rows += [row(second[3], A, 980, -20, stocks=5_050), row(second[4], A, 980, 0, stocks=5_050)]
    rows += [
        row(day, B, 1_003 + i, 0 if i == 0 else 1, market="KOSDAQ GLOBAL", Dept="관리종목(소속부없음)", Name="새이름")
        for i, day in enumerate(second)
    ]
    write(tmp_path, 2023, rows)
    rows = [row(day, A, 990, 0, stocks=5_050) for day in third]
    rows += [row(day, LATE, 300, 0, market="KOSDAQ", Dept="SPAC(소속부없음)") for day in third[1:]]
    write(tmp_path, 2026, rows)
    return tmp_path


def _symbols(found: Loaded) -> list[tuple[Any, ...]]:
    assert found.symbols is not None
    names = ("symbol", "as_of", "name", "market", "shares", "administrative")
    return [tuple(r[n] for n in names) for r in found.symbols.to_pylist()]


def test_years_of_every_layout_are_one_history(folder: Path) -> None:
    found = read_all(folder)
    assert found.quarantined.num_rows == 0 and found.counts["rows"] == found.bars.num_rows == 12 + 10 + 4 + 3
    mine = [r for r in found.bars.to_pylist() if r["symbol"] == A]
    assert [r["ts"].date() for r in mine] == [
        date.fromisoformat(str(d)) for d in krx.sessions("2022-12-26", "2023-01-06")
    ] + [date(2026, 1, 2), *(date(2026, 1, d) for d in (5, 6, 7))]
    first = mine[0]
    assert first["ts"] == datetime(2022, 12, 26, 6, 30, tzinfo=UTC)
    assert [first[n] for n in ("open", "high", "low", "close", "volume", "turnover")] == [
        50_000,
        50_005,
        49_995,
        50_000,
        10,
        500_000,
    ]


def test_halted_rows_keep_their_close_and_have_no_open_high_low(folder: Path) -> None:
    halted = [r for r in read_all(folder).bars.to_pylist() if r["symbol"] == A and r["volume"] == 0]
    assert [r["ts"].day for r in halted] == [3, 4] and [r["close"] for r in halted] == [1_010, 1_010]
    assert all(np.isnan(r[name]) for r in halted for name in ("open", "high", "low"))


def test_base_price_that_leaves_the_close_before_is_an_action_also_between_files(folder: Path) -> None:
    found = read_all(folder)
    assert found.actions is not None
    actions = [(r["symbol"], r["ex_date"], r["kind"], r["factor"]) for r in found.actions.to_pylist()]
    assert actions == [
        (A, date(2023, 1, 2), "split", 50.0),
        (A, date(2023, 1, 5), "other", 1_010 / 1_000),
    ], "and none where years are missing between two files: the close before is not known"


def test_one_file_alone_has_no_action_on_its_first_day(folder: Path) -> None:
    found = read_all(folder / "marcap-2023.csv.gz")
    assert found.actions is not None and found.actions["ex_date"].to_pylist() == [date(2023, 1, 5)]


def test_names_markets_sections_and_shares_are_history(folder: Path) -> None:
    told = _symbols(read_all(folder))
    assert [t for t in told if t[0] == B] == [
        (B, date(2022, 12, 26), "회사000660", "KOSDAQ", 1_000.0, None),
        (B, date(2023, 1, 2), "새이름", "KOSDAQ GLOBAL", 1_000.0, True),
        (B, date(2023, 1, 6), "새이름", "KOSDAQ GLOBAL", 1_000.0, True),
    ]
    assert [t[4] for t in told if t[0] == A] == [100.0, 5_000.0, 5_050.0, 5_050.0]


def test_markets_can_be_chosen(folder: Path) -> None:
    found = read_all(folder, markets=["KOSPI", "KOSDAQ"])
    assert found.counts["other_market"] == 4 and SMALL not in found.bars["symbol"].to_pylist()
    told = _symbols(found)
    assert {t[3] for t in told} == {"KOSPI", "KOSDAQ", "KOSDAQ GLOBAL"}, "the segment of a market is part of it"


def test_complete_files_tell_listing_and_delisting(folder: Path) -> None:
    found = read_all(folder, complete=True)
    assert found.symbols is not None
    last = {r["symbol"]: (r["listed"], r["delisted"], r["kind"]) for r in found.symbols.to_pylist()}
    assert last[A] == (None, None, "stock")
    assert last[B] == (None, date(2023, 1, 9), "stock"), "the first session without it"
    assert last[SMALL] == (None, date(2023, 1, 2), "stock"), "not the last day of the year, which is no session"
    assert last[LATE] == (date(2026, 1, 5), None, "spac")


def test_complete_files_of_one_symbol_each_are_held_against_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.importers.owners.GROUP_BYTES", 1)
    for code, last in ((A, 3), (B, 1)):
        rows = "".join(f"{day},1000\n" for day in _days("2020-01-02", "2020-01-07")[: last + 1])
        (tmp_path / f"{code}.csv").write_text("date,close\n" + rows)
    found = read_all(tmp_path, complete=True)
    assert found.symbols is not None
    assert {r["symbol"]: r["delisted"] for r in found.symbols.to_pylist()} == {A: None, B: date(2020, 1, 6)}


def test_changes_that_are_none_are_not_believed(tmp_path: Path) -> None:
    days = _days("2022-01-03", "2022-12-29")
    close = [10_000 + 37 * (i % 11) for i in range(len(days))]
    changes = [0, *np.diff(close).tolist()]
    unsigned = [row(d, A, c, abs(change)) for d, c, change in zip(days, close, changes)]
    found = read_all(write(tmp_path, 2022, unsigned))
    assert found.actions is None and found.counts["changes_not_used"] == len(days) and found.bars.num_rows == len(days)
    found = read_all(write(tmp_path, 2022, [row(d, A, c, change) for d, c, change in zip(days, close, changes)]))
    assert found.actions is not None and found.actions.num_rows == found.counts["changes_not_used"] == 0


def test_an_unreadable_change_costs_no_bar(tmp_path: Path) -> None:
    (tmp_path / "005930.csv").write_text("날짜,종가,전일대비\n2020-01-02,100,▲ 5\n2020-01-03,101,상승 1\n")
    found = read_all(tmp_path)
    assert found.bars.num_rows == 2 and found.quarantined.num_rows == 0
