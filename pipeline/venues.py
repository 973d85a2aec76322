"""When each venue trades: its sessions, the end of its days and weeks, and the minutes in which a bar can exist.

KRX, NXT and UN (both as one) follow the dated facts of pipeline.krx. "FX" trades from Sunday 22:00 to Friday 22:00 UTC,
an hour off while New York has daylight saving time; its days are UTC days, as the files of brokers have them, and the
hours before Monday belong to Monday. Every other name is a venue that never closes, such as BINANCE, with UTC days.
Days are calendar days of the venue's own zone, stamps are UTC.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from pipeline import krx
from pipeline.krx import Day, Days

Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]
_HOUR, _MINUTE = np.timedelta64(1, "h"), np.timedelta64(1, "m")
_FIRST_MONDAY = 4  # 1970-01-05, days since 1970


def zone(venue: str) -> np.timedelta64:
    """Return how far the clock of a venue is ahead of UTC."""
    return np.timedelta64(9 if venue in krx.VENUES else 0, "h")


def sessions(venue: str, start: Day, end: Day) -> Days:
    """Return the days on which a venue trades, from start to end, both included.

    Raises krx.CalendarError when the range of a Korean venue leaves the years of its calendar.
    """
    if venue in krx.VENUES:
        days = krx.sessions(start, end)
        return days[days >= krx.NXT_FIRST] if venue == "NXT" else days
    days = np.arange(krx.day64(start), krx.day64(end) + 1)
    return days[is_session(venue, days)]


def is_session(venue: str, days: Day | Days) -> Bools:
    """Say on which days a venue trades; False where the calendar of a Korean venue has no year."""
    days = np.asarray(days, "datetime64[D]")
    if venue in krx.VENUES:
        held = krx.is_session(days)
        return held & (days >= krx.NXT_FIRST) if venue == "NXT" else held
    return _weekday(days) < 5 if venue == "FX" else np.ones(days.shape, bool)


def closes(venue: str, days: Days) -> Days:
    """Return the stamps of a venue's daily bars: the scheduled ends of days, datetime64[us] in UTC.

    KRX: the close of the regular session, so that the after-market is in no daily bar. NXT and UN: the end of their
    last segment, 20:00 KST. Others: the midnight that ends the day.
    """
    days = np.asarray(days, "datetime64[D]")
    if venue not in krx.VENUES:
        return cast(Days, (days + 1).astype("datetime64[us]"))
    regular = krx.session_closes(days)
    return regular if venue == "KRX" else cast(Days, np.fmax(regular, krx.segments(venue, days)["after"][1]))


def segments(venue: str, day: Day) -> dict[str, tuple[np.datetime64, np.datetime64]]:
    """Return the hours of a venue on a day, (open, close) in UTC by name in order of time; empty without a session."""
    days = np.asarray(day, "datetime64[D]").reshape(1)
    if not is_session(venue, days)[0]:
        return {}
    if venue in krx.VENUES:
        hours = {name: (opens[0], ends[0]) for name, (opens, ends) in krx.segments(venue, days).items()}
        return {name: pair for name, pair in hours.items() if not np.isnat(pair[0])}
    start, end = days.astype("datetime64[us]")[0], closes(venue, days)[0]
    if venue == "FX" and _weekday(days)[0] == 0:
        start -= 2 * _HOUR
    if venue == "FX" and _weekday(days)[0] == 4:
        end -= 2 * _HOUR
    return {"regular": (start, end)}


def minute_ends(venue: str, day: Day) -> Days:
    """Return the stamps of all minute bars that a venue can have on a day, datetime64[us] in UTC; empty without a
    session.

    KRX: the regular session, 09:01 to 15:20 and the closing auction's 15:30 on a usual day; its after-market is left
    out, since the broker's minute chart of that venue ends with the auction.
    """
    hours = segments(venue, day)
    parts = [np.zeros(0, "datetime64[us]")]
    for name, (start, end) in hours.items():
        if venue == "KRX" and name == "after":
            continue
        first, last = start.astype("datetime64[m]") + _MINUTE, end  # the minute of 09:00:30 is that of 09:00
        if venue in krx.VENUES and name == "regular":
            parts.append(np.array([end]))
            last = end - krx.AUCTION
        parts.append(np.arange(first, last + _MINUTE, _MINUTE).astype("datetime64[us]"))
    return np.sort(np.concatenate(parts))


def days_of(venue: str, ts: Days) -> Days:
    """Return the day of a venue to which each stamp belongs, datetime64[D]; a stamp is an end, so that midnight ends
    the day before. FX: Saturday and Sunday count to Monday."""
    days = (np.asarray(ts, "datetime64[us]") + zone(venue) - np.timedelta64(1, "us")).astype("datetime64[D]")
    if venue == "FX":
        days = days + np.where(_weekday(days) > 4, 7 - _weekday(days), 0)
    return cast(Days, days)


def last_sessions(venue: str, days: Days, interval: str) -> Days:
    """Return the last session of each day's week (Monday to Sunday, "1w") or month ("1mo"), datetime64[D].

    Raises krx.CalendarError for a day on which the venue does not trade: its week may have no session at all.
    """
    days = np.asarray(days, "datetime64[D]")
    closed = days[~is_session(venue, days)]
    if closed.size:
        raise krx.CalendarError(
            f"expected bars on sessions of {venue}, got one on {closed[0]}; quarantine it, or if the venue did trade, "
            f"correct scripts/build_calendar.py"
        )
    if not days.size:
        return days
    if interval == "1w":
        end = days - _weekday(days) + 6
    else:
        end = (days.astype("datetime64[M]") + 1).astype("datetime64[D]") - 1
    last = end.max()
    every = sessions(venue, days.min(), min(last, krx.LAST) if venue in krx.VENUES else last)
    return every[np.searchsorted(every, end, side="right") - 1]


def _weekday(days: Days) -> Longs:
    """Return the days of the week, 0 for Monday."""
    return (days.astype(np.int64) - _FIRST_MONDAY) % 7
