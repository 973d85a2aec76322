"""Hours, days and weeks of each venue, against notices and guides of the exchanges."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import krx, venues

USUAL, EXAM, YEAR, FIRST, BEFORE = "2026-11-20", "2026-11-19", "2026-01-02", "2025-03-04", "2026-09-11"


def kst(venue: str, day: str) -> dict[str, str]:
    shift = venues.zone(venue)
    return {
        name: f"{str(start + shift)[11:19]}-{str(end + shift)[11:19]}"
        for name, (start, end) in venues.segments(venue, day).items()
    }


@pytest.mark.parametrize(
    "venue, day, hours",
    [
        ("KRX", USUAL, {"regular": "09:00:00-15:30:00", "after": "16:00:00-20:00:00"}),
        ("KRX", EXAM, {"regular": "10:00:00-16:30:00", "after": "17:00:00-20:00:00"}),
        ("KRX", "2026-09-14", {"regular": "09:00:00-15:30:00", "after": "16:00:00-20:00:00"}),
        ("KRX", BEFORE, {"regular": "09:00:00-15:30:00"}),
        ("KRX", YEAR, {"regular": "10:00:00-15:30:00"}),
        ("KRX", "2016-07-29", {"regular": "09:00:00-15:00:00"}),
        ("KRX", "2026-11-21", {}),  # a Saturday
        ("NXT", USUAL, {"pre": "08:00:00-08:50:00", "main": "09:00:30-15:20:00", "after": "15:40:00-20:00:00"}),
        ("NXT", EXAM, {"main": "10:00:30-16:20:00", "after": "16:40:00-20:00:00"}),
        ("NXT", YEAR, {"main": "10:00:30-15:20:00", "after": "15:40:00-20:00:00"}),
        ("NXT", FIRST, {"main": "09:00:30-15:20:00", "after": "15:40:00-20:00:00"}),
        ("NXT", "2025-02-28", {}),
        ("UN", USUAL, {"pre": "08:00:00-08:50:00", "regular": "09:00:00-15:30:00", "after": "15:40:00-20:00:00"}),
        ("UN", "2025-02-28", {"regular": "09:00:00-15:30:00"}),
        ("FX", "2026-11-16", {"regular": "22:00:00-00:00:00"}),  # Monday begins on Sunday evening
        ("FX", "2026-11-18", {"regular": "00:00:00-00:00:00"}),
        ("FX", USUAL, {"regular": "00:00:00-22:00:00"}),
        ("FX", "2026-11-22", {}),
        ("BINANCE", "2026-11-22", {"regular": "00:00:00-00:00:00"}),
    ],
)
def test_hours(venue: str, day: str, hours: dict[str, str]) -> None:
    assert kst(venue, day) == hours


@pytest.mark.parametrize(
    "venue, day, count, first, last",
    [
        ("KRX", USUAL, 381, "00:01", "06:30"),
        ("KRX", EXAM, 381, "01:01", "07:30"),
        ("KRX", YEAR, 321, "01:01", "06:30"),
        ("KRX", "2016-07-29", 351, "00:01", "06:00"),
        ("NXT", USUAL, 50 + 380 + 260, "23:01", "11:00"),
        ("NXT", EXAM, 380 + 200, "01:01", "11:00"),
        ("UN", USUAL, 50 + 381 + 260, "23:01", "11:00"),
        ("FX", "2026-11-16", 26 * 60, "22:01", "00:00"),
        ("BINANCE", USUAL, 1440, "00:01", "00:00"),
        ("NXT", "2025-02-28", 0, "", ""),
        ("KRX", "2026-11-21", 0, "", ""),
    ],
)
def test_minutes_that_can_exist(venue: str, day: str, count: int, first: str, last: str) -> None:
    ends = venues.minute_ends(venue, day)
    assert len(ends) == count and ends.dtype == np.dtype("datetime64[us]")
    assert [str(end)[11:16] for end in ends[[0, -1]]] == [first, last] if count else not first
    if venue == "KRX" and count:
        assert ends[-1] - ends[-2] == np.timedelta64(10, "m")  # the closing auction's only print


def test_the_simulator_has_these_minutes() -> None:
    from pipeline.kis.simulator import intraday

    for day in (USUAL, EXAM, YEAR):
        assert venues.minute_ends("KRX", day).tolist() == intraday.labels(np.datetime64(day).item())[1].tolist()


@pytest.mark.parametrize(
    "venue, day, close",
    [
        ("KRX", USUAL, "2026-11-20T06:30"),
        ("KRX", EXAM, "2026-11-19T07:30"),
        ("NXT", USUAL, "2026-11-20T11:00"),
        ("UN", USUAL, "2026-11-20T11:00"),
        ("UN", "2025-02-28", "2025-02-28T06:30"),
        ("FX", USUAL, "2026-11-21T00:00"),
        ("BINANCE", "2026-11-21", "2026-11-22T00:00"),
    ],
)
def test_days_end(venue: str, day: str, close: str) -> None:
    assert venues.closes(venue, np.array([day], "datetime64[D]"))[0] == np.datetime64(close, "us")


def test_days_of_stamps() -> None:
    stamps = np.array(
        ["2026-11-19T23:01", "2026-11-20T06:30", "2026-11-20T15:00", "2026-11-21T00:00"], "datetime64[us]"
    )
    assert venues.days_of("UN", stamps).astype(str).tolist() == ["2026-11-20"] * 3 + ["2026-11-21"]
    utc = venues.days_of("BINANCE", stamps).astype(str).tolist()
    assert utc == ["2026-11-19", "2026-11-20", "2026-11-20", "2026-11-20"]
    weekend = np.array(
        ["2026-11-20T22:00", "2026-11-21T00:00", "2026-11-22T23:00", "2026-11-23T01:00"], "datetime64[us]"
    )
    assert venues.days_of("FX", weekend).astype(str).tolist() == ["2026-11-20"] * 2 + ["2026-11-23"] * 2


@pytest.mark.parametrize(
    "venue, day, week, month",
    [
        ("KRX", "2024-09-13", "2024-09-13", "2024-09-30"),
        ("KRX", "2024-10-02", "2024-10-04", "2024-10-31"),
        ("KRX", "2026-12-28", "2026-12-30", "2026-12-30"),  # the last days of the year are shut
        ("KRX", "2027-12-28", "2027-12-30", "2027-12-30"),  # and those of the calendar
        ("KRX", "1998-12-05", "1998-12-05", "1998-12-28"),  # the last Saturday
        ("NXT", "2025-03-04", "2025-03-07", "2025-03-31"),
        ("FX", "2026-11-16", "2026-11-20", "2026-11-30"),
        ("BINANCE", "2026-11-16", "2026-11-22", "2026-11-30"),
    ],
)
def test_weeks_and_months_end_with_their_last_session(venue: str, day: str, week: str, month: str) -> None:
    days = np.array([day], "datetime64[D]")
    assert [str(venues.last_sessions(venue, days, interval)[0]) for interval in ("1w", "1mo")] == [week, month]


def test_sessions_and_errors() -> None:
    assert venues.sessions("FX", "2026-11-20", "2026-11-24").astype(str).tolist() == [
        "2026-11-20",
        "2026-11-23",
        "2026-11-24",
    ]
    assert len(venues.sessions("BINANCE", "2026-11-01", "2026-11-30")) == 30
    assert venues.sessions("NXT", "2025-02-24", "2025-03-05").astype(str).tolist() == ["2025-03-04", "2025-03-05"]
    with pytest.raises(krx.CalendarError, match="2017-10-02"):
        venues.last_sessions("KRX", np.array(["2017-10-02"], "datetime64[D]"), "1w")
    with pytest.raises(krx.CalendarError, match="2030"):
        venues.sessions("UN", "2026-01-01", "2030-01-01")
    with pytest.raises(ValueError, match="BINANCE"):
        krx.segments("BINANCE", np.array([USUAL], "datetime64[D]"))


def test_all_segments_lie_in_the_extended_hours() -> None:
    days = krx.sessions("2025-03-04", "2026-11-20")
    opens, closes = krx.extended_hours(days)
    for venue in krx.VENUES:
        for start, end in krx.segments(venue, days).values():
            held = ~np.isnat(start)
            assert held.any() and (np.isnat(start) == np.isnat(end)).all()
            assert (opens <= start)[held].all() and (start < end)[held].all() and (end <= closes)[held].all()
