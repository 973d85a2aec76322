"""Dated facts of the exchange, against examples from its notices, real trading days and properties that hold for every
price."""

import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import krx

DAYS = st.dates(date(1985, 1, 4), date(2027, 12, 1))


@pytest.mark.parametrize(
    "file, source",
    [("krx_daily.parquet", "7 stocks and KOSPI"), ("krx_close_2019.parquet", ""), ("krx_close_2021.parquet", "")],
)
def test_sessions_are_the_days_on_which_real_stocks_traded(market_data: Path, file: str, source: str) -> None:
    traded = np.unique(pq.read_table(market_data / file, columns=["date"])["date"].to_numpy().astype("datetime64[D]"))
    expected = krx.sessions(traded[0], traded[-1])
    assert traded.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "day, open_",
    [
        ("2026-06-03", False),  # local elections
        ("2026-07-17", False),  # Constitution Day is a holiday again
        ("2025-07-17", True),
        ("2025-01-27", False),  # declared before Seollal
        ("2024-10-01", False),
        ("2020-08-17", False),
        ("2026-12-30", True),
        ("2026-12-31", False),
        ("2026-09-24", False),
        ("2026-11-19", True),
        ("1998-12-05", True),  # the last Saturday
        ("1998-12-12", False),
        ("1984-01-04", False),  # outside the calendar
    ],
)
def test_single_days(day: str, open_: bool) -> None:
    assert bool(krx.is_session(day)) is open_


@pytest.mark.parametrize(
    "day, opening, close",
    [
        ("2026-11-20", "00:00", "06:30"),
        ("2026-01-02", "01:00", "06:30"),  # first session of the year
        ("2021-11-18", "01:00", "07:30"),  # entrance examinations
        ("2022-11-17", "01:00", "07:30"),
        ("2023-11-16", "01:00", "07:30"),
        ("2024-11-14", "01:00", "07:30"),
        ("2025-11-13", "01:00", "07:30"),
        ("2026-11-19", "01:00", "07:30"),
        ("2015-11-12", "01:00", "07:00"),
        ("2016-07-29", "00:00", "06:00"),
        ("2016-08-01", "00:00", "06:30"),
        ("1999-01-04", "01:00", "06:00"),
    ],
)
def test_hours(day: str, opening: str, close: str) -> None:
    assert krx.session_open(day) == datetime.fromisoformat(f"{day}T{opening}+00:00")
    assert krx.session_close(day) == datetime.fromisoformat(f"{day}T{close}+00:00")


@given(DAYS)
def test_neighbours_bracket_a_day_and_arrays_agree_with_single_days(day: date) -> None:
    before, after = krx.previous_session(day) if day > date(1985, 1, 4) else None, krx.next_session(day)
    assert after > day and bool(krx.is_session(after))
    assert before is None or (before < day and bool(krx.is_session(before)))
    between = krx.sessions(before or day, after)
    assert len(between) == (before is not None) + int(krx.is_session(day)) + 1
    closes = krx.session_closes(between)
    assert [krx.session_close(one) for one in between] == [one.replace(tzinfo=UTC) for one in closes.tolist()]
    assert (krx.session_opens(between) < closes).all()


@given(st.datetimes(datetime(1985, 1, 10), datetime(2027, 12, 20), timezones=st.just(UTC)))
def test_last_closed_session_is_over_and_the_next_is_not(now: datetime) -> None:
    last = krx.last_closed_session(now)
    assert krx.session_close(last) <= now < krx.session_close(krx.next_session(last))


def test_errors_name_the_day() -> None:
    with pytest.raises(krx.CalendarError, match="2026-06-03"):
        krx.session_close("2026-06-03")
    with pytest.raises(krx.CalendarError, match="2030-01-01"):
        krx.sessions("2020-01-01", "2030-01-01")
    with pytest.raises(krx.CalendarError, match="zone"):
        krx.last_closed_session(datetime(2026, 1, 1))
    with pytest.raises(krx.CalendarError):
        krx.next_session("2027-12-31")
    assert len(krx.sessions("2026-02-01", "2026-01-01")) == 0


@pytest.mark.parametrize(
    "price, day, kind, market, tick",
    [
        (1_999, "2026-01-02", "stock", "KOSPI", 1),
        (2_000, "2026-01-02", "stock", "KOSDAQ", 5),
        (19_990, "2026-01-02", "stock", "KOSPI", 10),
        (20_000, "2026-01-02", "stock", "KOSPI", 50),
        (163_500, "2023-01-25", "stock", "KOSPI", 100),  # Celltrion in the notice of the change
        (163_500, "2023-01-20", "stock", "KOSPI", 500),
        (163_500, "2023-01-20", "stock", "KOSDAQ", 100),
        (500_000, "2026-01-02", "preferred", "KOSPI", 1_000),
        (1_500, "2022-06-02", "stock", "KOSPI", 5),
        (999, "2022-06-02", "stock", "KOSPI", 1),
        (30_000, "2026-01-02", "etf", "KOSPI", 5),
        (1_500, "2026-01-02", "etf", "KOSPI", 1),
        (1_500, "2023-11-01", "etf", "KOSPI", 5),
    ],
)
def test_ticks(price: float, day: str, kind: str, market: str, tick: float) -> None:
    assert krx.tick(price, day, kind, market) == tick


@pytest.mark.parametrize(
    "base, day, lower, upper",
    [
        (128_500, "2021-05-03", 90_000, 167_000),  # SK hynix in the portal's example
        (111_000, "2021-05-03", 78_000, 144_000),
        (274_000, "2026-09-22", 192_000, 356_000),
        (111_000, "2026-09-22", 77_700, 144_300),
        (10_000, "2015-06-12", 8_500, 11_500),
        (10_000, "2015-06-15", 7_000, 13_000),
        (10_000, "1998-12-04", 8_800, 11_200),
        (10_000, "1996-05-02", 9_400, 10_600),
    ],
)
def test_limits(base: float, day: str, lower: float, upper: float) -> None:
    assert [float(limit) for limit in krx.limits(base, day)] == [lower, upper]


@given(st.integers(2, 3_000_000), st.dates(date(2000, 1, 4), date(2027, 12, 1)), st.sampled_from(["KOSPI", "KOSDAQ"]))
def test_limits_are_on_ticks_and_inside_the_rate(price: int, day: date, market: str) -> None:
    base = price // (unit := int(krx.tick(price, day, market=market))) * unit
    lower, upper = krx.limits(base, day, market=market)
    rate = 0.30 if day >= date(2015, 6, 15) else 0.15
    assert 0 < lower < base < upper or base == unit
    for limit in (lower, upper):
        assert limit % krx.tick(limit, day, market=market) == 0
        assert abs(limit - base) <= max(rate * base, unit) + 1e-9


def test_columns_broadcast_and_keep_nan() -> None:
    days = np.array(["2015-06-12", "2015-06-15", "2026-01-02"], "datetime64[D]")
    lower, upper = krx.limits(np.array([[10_000.0], [np.nan]]), days)
    assert lower.shape == (2, 3) and np.isnan(upper[1]).all()
    assert upper[0].tolist() == [11_500, 13_000, 13_000]


@pytest.mark.parametrize(
    "day, market, rate",
    [
        ("2019-05-29", "KOSPI", 0.0030),
        ("2019-05-30", "KOSPI", 0.0025),  # settles on 2019-06-03: notice of the depository
        ("2019-05-30", "KONEX", 0.0010),
        ("2021-06-01", "KOSDAQ", 0.0023),
        ("2023-06-01", "KOSPI", 0.0020),
        ("2024-06-03", "KOSDAQ", 0.0018),
        ("2024-12-26", "KOSPI", 0.0018),
        ("2024-12-27", "KOSPI", 0.0015),  # settles on 2025-01-02: notices of brokers
        ("2026-03-03", "KOSPI", 0.0020),
        ("2026-03-03", "KOSDAQ", 0.0020),
        ("1994-07-11", "KOSPI", 0.0050),
    ],
)
def test_taxes_on_sales(day: str, market: str, rate: float) -> None:
    assert krx.sale_tax(day, market) == pytest.approx(rate)
    assert krx.sale_tax(day, market, "etf") == 0.0


def test_taxes_of_columns_and_unknown_markets() -> None:
    days = np.array(["2024-12-26", "2024-12-27"], "datetime64[D]")
    assert krx.sale_tax(days).tolist() == [0.0018, 0.0015]
    with pytest.raises(ValueError, match="BINANCE"):
        krx.sale_tax(days, "BINANCE")
    assert krx.settlement_day("2024-12-27") == date(2025, 1, 2)


def test_short_sales_stop_on_the_first_day_of_a_ban_and_go_on_after_the_last() -> None:
    for before, first, last, after in (
        ("2008-09-30", "2008-10-01", "2009-05-29", "2009-06-01"),
        ("2011-08-09", "2011-08-10", "2011-11-09", "2011-11-10"),
        ("2020-03-13", "2020-03-16", "2021-04-30", "2021-05-03"),
        ("2023-11-03", "2023-11-06", "2025-03-28", "2025-03-31"),
    ):
        days = np.array([before, first, last, after], "datetime64[D]")
        assert krx.is_session(days).all()
        assert krx.short_sales(days).tolist() == [True, False, False, True]
        assert krx.short_sales(np.arange(days[1], days[3])).any() == np.False_


def test_import_takes_milliseconds() -> None:
    code = "import time, json, numpy; t = time.perf_counter(); import pipeline.krx; print(time.perf_counter() - t)"
    root = Path(krx.__file__).parents[1]
    best = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout)
        for _ in range(3)
    )
    assert best < 0.1
    started = time.perf_counter()
    krx.session_closes(krx.sessions("1995-01-03", "2027-12-30"))
    assert timedelta(seconds=time.perf_counter() - started) < timedelta(seconds=0.5)


@pytest.mark.slow
def test_the_file_of_closed_days_is_what_the_script_makes() -> None:
    pytest.importorskip("exchange_calendars", reason="extra [calendar] is not installed")
    script = Path(krx.__file__).parents[1] / "scripts" / "build_calendar.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
