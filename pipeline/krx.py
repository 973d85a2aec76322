"""Dated facts of the Korea Exchange: sessions and hours, ticks, price limits, taxes on sales, settlement.

Everything that depends on the date is a table here with its source, so that a backtest of 1999 does not trade by the
rules of today. The days without a session are in krx_holidays.json (made by scripts/build_calendar.py); nothing else is
read. Days are KST calendar days, times are UTC. Korea has had no daylight saving time since 1988-10; KST is UTC+9
throughout.
"""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

KST = timezone(timedelta(hours=9), "KST")
Day = date | np.datetime64 | str
Days = npt.NDArray[np.datetime64]
Floats = npt.NDArray[np.float64]
Kind = Literal["stock", "preferred", "etf", "etn", "elw"] | str
Segments = dict[str, tuple[Days, Days]]  # (opens, closes) by name
VENUES = ("KRX", "NXT", "UN")  # UN: the other two as one


class CalendarError(ValueError):
    """A day that is no session, or lies outside the years that the calendar covers."""


_FILE = json.loads((Path(__file__).with_name("krx_holidays.json")).read_text())
FIRST, LAST = (np.datetime64(_FILE[name], "D") for name in ("first", "last"))
_LAST_SATURDAY = np.datetime64("1998-12-05", "D")  # trading on Saturdays ended here (Seoul Shinmun 1998-09-21)


def _sessions() -> Days:
    days = np.arange(FIRST, LAST + 1)
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
    regular = (weekday < 5) | ((weekday == 5) & (days <= _LAST_SATURDAY))
    closed = np.array([f"{y}-{d[:2]}-{d[2:]}" for y, dates in _FILE["closed"].items() for d in dates], "datetime64[D]")
    return cast(Days, days[regular & ~np.isin(days, closed)])


_SESSIONS = _sessions()
_LATE = np.array(_FILE["late"], "datetime64[D]")  # CSAT days: everything one hour later
_YEARS = _SESSIONS.astype("datetime64[Y]")
_FIRST_OF_YEAR = _SESSIONS[np.append(True, _YEARS[1:] != _YEARS[:-1])]

Steps = tuple[Days, Floats]  # first days of rules, and the rules' values


def _steps(*rows: tuple[str, float]) -> Steps:
    return np.array([row[0] for row in rows], "datetime64[D]"), np.array([row[1] for row in rows], np.float64)


# Hours in KST, minutes after midnight, by first day. The closing auction at 15:30 came on 2016-08-01 (KRX notice
# 2016-07). Before 1998-12-07 there were a morning and an afternoon session (and mornings on Saturdays) whose hours
# changed several times and on which sources disagree; one convention, 09:30-15:00, stands for all of them, since only
# daily bars exist from then.
_OPENS = _steps(("1985-01-01", 570), ("1998-12-07", 540))
_CLOSES = _steps(("1985-01-01", 900), ("2016-08-01", 930))
AUCTION = np.timedelta64(10, "m")  # the last minutes of a session gather orders for one print at its close

# Outside the regular session. Nextrade (NXT) trades since 2025-03-04, a day whose opening ceremony took the place of
# the pre-market (E-today 2025-09-09); pre-market 08:00-08:50, main market from 30 s after the exchange's opening to the
# start of its closing auction, after-market 15:40-20:00, for which orders are gathered from 15:30 (Kiwoom's guide).
# On the first session of a year it has no pre-market (Asiae 2025-12-18), on an examination day none either and an
# after-market that begins an hour later and ends at 20:00 (Herald 2025-11-13). The exchange's own after-market runs
# 16:00-20:00 since 2026-09-14 (KRX notice of 2026); that it, too, begins an hour later on an examination day is our
# reading of the exchange's rule for its older evening session.
NXT_FIRST = np.datetime64("2025-03-04", "D")
AFTER_FIRST = np.datetime64("2026-09-14", "D")
_PRE, _EVENING = (480, 530), 1200  # minutes after midnight, KST

# Ticks in KRW: (first day, ((price from, tick), ...)). 2023-01-25: KRX notice of 2023-01-17, one table for all markets.
# Before, the table of 2010-10-04 stands for all earlier years; KOSDAQ then had 100 won from 50,000 upwards.
_Bands = tuple[Floats, Floats]


def _bands(*rows: tuple[float, float]) -> _Bands:
    return np.array([row[0] for row in rows], np.float64), np.array([row[1] for row in rows], np.float64)


_TICKS_OLD = _bands((0, 1), (1_000, 5), (5_000, 10), (10_000, 50), (50_000, 100), (100_000, 500), (500_000, 1_000))
_TICKS_OLD_KOSDAQ = _bands((0, 1), (1_000, 5), (5_000, 10), (10_000, 50), (50_000, 100))
_TICKS_2023 = _bands((0, 1), (2_000, 5), (5_000, 10), (20_000, 50), (50_000, 100), (200_000, 500), (500_000, 1_000))
# ETF, ETN, ELW: 1 won below 2,000 since December 2023 (KRX notice of 2023-10-05)
_TICKS: dict[str, tuple[tuple[np.datetime64, _Bands], ...]] = {
    "KOSPI": ((FIRST, _TICKS_OLD), (np.datetime64("2023-01-25", "D"), _TICKS_2023)),
    "KOSDAQ": ((FIRST, _TICKS_OLD_KOSDAQ), (np.datetime64("2023-01-25", "D"), _TICKS_2023)),
    "fund": ((FIRST, _bands((0, 5))), (np.datetime64("2023-12-11", "D"), _bands((0, 1), (2_000, 5)))),
}
_FUNDS = frozenset({"etf", "etn", "elw"})

# Price limits in per mille of the base price. KOSPI: fixed won amounts by price band until 1995-03 (2.2 to 6.7 %; the
# widest stands for all), then 6 %, 8 % (1996-11), 12 % (1998-03), 15 % (1998-12-07), 30 % (2015-06-15). KOSDAQ: 12 %
# until 15 % came on 2005-03-28 (Hankyung 2006-02-08, 1999-06-24; MBN 2015-06-15).
_LIMITS = {
    "KOSPI": _steps(
        ("1985-01-01", 67),
        ("1995-04-01", 60),
        ("1996-11-25", 80),
        ("1998-03-02", 120),
        ("1998-12-07", 150),
        ("2015-06-15", 300),
    ),
    "KOSDAQ": _steps(("1985-01-01", 80), ("1998-05-25", 120), ("2005-03-28", 150), ("2015-06-15", 300)),
}

# Securities transaction tax plus special tax for rural development on sales, by first day of *settlement* (the tax
# falls due when a sale settles: Korea Securities Depository notice of 2019-05-27). KOSPI carries 0.15 % special tax
# since 1994-07-01. Sources: Hankyung 1994-07-01, 1996-01-05, 2001-08-03; FNTimes 2019-04-02; broker notice of
# 2024-12-26; Dong-A 2025-12-01.
_TAX = {
    "KOSPI": _steps(
        ("1985-01-01", 0.0020),
        ("1987-03-01", 0.0050),
        ("1990-06-01", 0.0020),
        ("1994-02-01", 0.0035),
        ("1994-07-01", 0.0050),
        ("1995-07-15", 0.0045),
        ("1996-04-01", 0.0030),
        ("2019-06-03", 0.0025),
        ("2021-01-01", 0.0023),
        ("2023-01-01", 0.0020),
        ("2024-01-01", 0.0018),
        ("2025-01-01", 0.0015),
        ("2026-01-01", 0.0020),
    ),
    "KOSDAQ": _steps(
        ("1985-01-01", 0.0030),
        ("2019-06-03", 0.0025),
        ("2021-01-01", 0.0023),
        ("2023-01-01", 0.0020),
        ("2024-01-01", 0.0018),
        ("2025-01-01", 0.0015),
        ("2026-01-01", 0.0020),
    ),
    "KONEX": _steps(("1985-01-01", 0.0030), ("2019-06-03", 0.0010)),
}
SETTLEMENT_DAYS = 2  # sessions from trade to settlement

# Days on which nobody may sell any share short (first, last). Sources: FSC 2013-11-13 (the first two), KBS 2020-03-13
# and FSC 2021-02-03, FSC 2023-11-05 (ANI 2023-11-06) and AGCM 2025-04-01. Not covered: bans of some shares alone, which
# are financials until 2013-11-13 and all but KOSPI 200 and KOSDAQ 150 from 2021-05-03 to 2023-11-03, overheated issues
# of a day, and the rule against short sales below the last price.
_NO_SHORT_SALES = (
    ("2008-10-01", "2009-05-31"),
    ("2011-08-10", "2011-11-09"),
    ("2020-03-16", "2021-05-02"),
    ("2023-11-06", "2025-03-30"),
)


def _days(days: Day | Days) -> Days:
    return np.asarray(days, "datetime64[D]")


def day64(day: Day) -> np.datetime64:
    """Return a day, however it is written, as datetime64[D]."""
    return cast(np.datetime64, _days(day)[()])


def _dated(steps: Steps, days: Days) -> Floats:
    since, values = steps
    return values[np.maximum(np.searchsorted(since, days, side="right") - 1, 0)]


def _among(days: Days, known: Days) -> npt.NDArray[np.bool_]:
    """Say which days are in a sorted array; many times faster than np.isin, which sorts."""
    among: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, days), len(known) - 1)] == days
    return among


def sessions(start: Day, end: Day) -> Days:
    """Return the sessions from start to end, both included.

    Raises CalendarError when the range reaches outside FIRST..LAST; an empty or reversed range gives an empty array.
    """
    first, last = day64(start), day64(end)
    if first <= last and (first < FIRST or last > LAST):
        raise CalendarError(
            f"expected days in {FIRST}..{LAST}, got {first}..{last}; add years with scripts/build_calendar.py"
        )
    return _SESSIONS[np.searchsorted(_SESSIONS, first) : np.searchsorted(_SESSIONS, last, side="right")].copy()


def is_session(day: Day | Days) -> npt.NDArray[np.bool_]:
    """Say whether the exchange opens on a day, or on each of an array of days; False outside FIRST..LAST."""
    return _among(_days(day), _SESSIONS)


def session_opens(days: Days) -> Days:
    """Return the scheduled openings of days as datetime64[us] in UTC; for a day without a session those it would have
    had."""
    days = _days(days)
    minutes = _dated(_OPENS, days).astype(np.int64)
    return _utc(days, minutes + 60 * (_among(days, _LATE) | _among(days, _FIRST_OF_YEAR)))


def session_closes(days: Days) -> Days:
    """Return the scheduled closes of days as datetime64[us] in UTC; for a day without a session those it would have
    had."""
    days = _days(days)
    minutes = _dated(_CLOSES, days).astype(np.int64)
    return _utc(days, minutes + 60 * _among(days, _LATE))


def segments(venue: str, days: Days) -> Segments:
    """Return when a venue of Korean shares trades on days: (opens, closes) as datetime64[us] in UTC by name of the
    segment, in order of time.

    venue : "KRX" (regular, after), "NXT" (pre, main, after) or "UN", both as one (pre, regular, after). NaT where a day
    lacks a segment; a day without a session has those that it would have had. `regular` ends with the closing auction.
    Raises ValueError for another venue.
    """
    if venue not in VENUES:
        raise ValueError(f"expected one of {', '.join(VENUES)}, got {venue!r}; pipeline.venues knows other venues")
    days = _days(days)
    late = _among(days, _LATE)
    opens, closes = session_opens(days), session_closes(days)
    if venue == "KRX":
        after = _utc(days, 960 + 60 * late), _utc(days, _EVENING)
        return {"regular": (opens, closes), "after": _where(days >= AFTER_FIRST, *after)}
    held = days >= NXT_FIRST
    usual = held & (days > NXT_FIRST) & ~late & ~_among(days, _FIRST_OF_YEAR)
    pre = _where(usual, *(_utc(days, minute) for minute in _PRE))
    after = _where(held, closes + AUCTION, _utc(days, _EVENING))
    if venue == "UN":
        return {"pre": pre, "regular": (opens, closes), "after": after}
    main = _where(held, opens + np.timedelta64(30, "s"), closes - AUCTION)
    return {"pre": pre, "main": main, "after": after}


def extended_hours(days: Days) -> tuple[Days, Days]:
    """Return 08:00 and 20:00 KST of days as datetime64[us] in UTC: NXT and UN trade inside them, on some days in fewer
    segments (see `segments`)."""
    days = _days(days)
    return _utc(days, _PRE[0]), _utc(days, _EVENING)


def _utc(days: Days, minutes: int | npt.NDArray[np.int64]) -> Days:
    """Return minutes after midnight, KST, of days as datetime64[us] in UTC."""
    return cast(Days, days.astype("datetime64[us]") + np.asarray(minutes - 540).astype("timedelta64[m]"))


def _where(held: npt.NDArray[np.bool_], opens: Days, closes: Days) -> tuple[Days, Days]:
    never = np.datetime64("NaT", "us")
    return np.where(held, opens, never), np.where(held, closes, never)


def _one(day: Day) -> Days:
    days = _days(day).reshape(1)
    if not is_session(days)[0]:
        raise CalendarError(f"expected a session of the Korea Exchange, got {days[0]}; ask is_session() first")
    return days


def session_open(day: Day) -> datetime:
    """Return the opening of a session in UTC. Raises CalendarError when the day has none."""
    return cast(datetime, session_opens(_one(day))[0].item()).replace(tzinfo=UTC)


def session_close(day: Day) -> datetime:
    """Return the close of a session in UTC. Raises CalendarError when the day has none."""
    return cast(datetime, session_closes(_one(day))[0].item()).replace(tzinfo=UTC)


def _at(index: int) -> date:
    if not 0 <= index < len(_SESSIONS):
        raise CalendarError(f"expected a session in {FIRST}..{LAST}; add years with scripts/build_calendar.py")
    return cast(date, _SESSIONS[index].item())


def previous_session(day: Day) -> date:
    """Return the last session before a day."""
    return _at(int(np.searchsorted(_SESSIONS, day64(day))) - 1)


def next_session(day: Day) -> date:
    """Return the first session after a day."""
    return _at(int(np.searchsorted(_SESSIONS, day64(day), side="right")))


def last_closed_session(now: datetime) -> date:
    """Return the last session whose scheduled close is not after `now` (aware; naive is an error)."""
    if now.tzinfo is None:
        raise CalendarError(f"expected a time with its zone, got {now!r}; use datetime.now(UTC)")
    today = now.astimezone(KST).date()
    if is_session(today) and session_close(today) <= now:
        return today
    return previous_session(today)


def settlement_day(day: Day) -> date:
    """Return the day on which a trade of a session settles (T+2 sessions)."""
    return _at(int(np.searchsorted(_SESSIONS, day64(day))) + SETTLEMENT_DAYS)


def tick_tables(kind: Kind = "stock", market: str = "KOSPI") -> tuple[tuple[np.datetime64, _Bands], ...]:
    """Return the tables of a kind of security: (first day, (prices from which a tick counts, ticks)), KRW."""
    return _TICKS["fund" if kind in _FUNDS else "KOSDAQ" if market == "KOSDAQ" else "KOSPI"]


def tick(price: npt.ArrayLike, day: Day | Days, kind: Kind = "stock", market: str = "KOSPI") -> Floats:
    """Return the tick at prices on days (broadcast against each other), KRW; NaN where the price is.

    kind "etf", "etn" and "elw" have a table of their own; market matters only before 2023-01-25 (KOSDAQ).
    """
    prices, days = np.broadcast_arrays(np.asarray(price, np.float64), _days(day))
    out = np.full(prices.shape, np.nan)
    for since, (starts, ticks) in tick_tables(kind, market):
        step = np.full(prices.shape, ticks[0])
        for start, tick in zip(starts[1:], ticks[1:]):  # few steps: several times faster than searching each price
            step[prices >= start] = tick
        recent = days >= since
        out = step if recent.all() else np.where(recent, step, out)
    return np.where(np.isnan(prices), np.nan, out)[()]


def limits(base: npt.ArrayLike, day: Day | Days, kind: Kind = "stock", market: str = "KOSPI") -> tuple[Floats, Floats]:
    """Return (lower, upper) price limits for base prices on days (broadcast), KRW; NaN where the base is.

    The width is base x rate cut to the base's tick (at least one tick); a limit in another band is brought inside by
    that band's tick. Leveraged funds, whose limits are wider, are not covered.
    """
    bases, days = np.broadcast_arrays(np.asarray(base, np.float64), _days(day))
    rate = _dated(_LIMITS["KOSDAQ" if market == "KOSDAQ" else "KOSPI"], days)
    unit = tick(bases, days, kind, market)
    width = np.maximum(np.floor(bases * rate / (1000.0 * unit)), 1.0) * unit
    lower, upper = np.maximum(bases - width, 1.0), bases + width
    low_tick, high_tick = tick(lower, days, kind, market), tick(upper, days, kind, market)
    return np.ceil(lower / low_tick) * low_tick, np.floor(upper / high_tick) * high_tick


def sale_tax(day: Day | Days, market: str = "KOSPI", kind: Kind = "stock") -> Floats:
    """Return the tax rate (fraction of the value) on sales traded on days: transaction tax plus special tax; 0 for ETF,
    ETN, ELW.

    The rate is that of the settlement day, two sessions later: a cut on 2025-01-01 reached trades of 2024-12-27. Raises
    ValueError for an unknown market.
    """
    if market not in _TAX:
        raise ValueError(f"expected a market of {sorted(_TAX)}, got {market!r}; venues outside Korea have no such tax")
    days = _days(day)
    if kind in _FUNDS:
        return np.zeros(days.shape)[()]
    at = np.minimum(np.searchsorted(_SESSIONS, days) + SETTLEMENT_DAYS, len(_SESSIONS) - 1)
    return _dated(_TAX[market], _SESSIONS[at])[()]


def short_sales(days: Day | Days) -> npt.NDArray[np.bool_]:
    """Say on which days shares may be sold short: not during a ban of the whole market."""
    days = _days(days)
    banned = [(days >= day64(first)) & (days <= day64(last)) for first, last in _NO_SHORT_SALES]
    return cast(npt.NDArray[np.bool_], ~np.logical_or.reduce(banned))
