"""The universe as of each bar: who belongs to it, judged by nothing that became known later.

A universe made of today's list, or of today's flags, holds the winners only. So each bar is judged on its own day:

- Listing. A symbol belongs from its listing until the day it is delisted, whatever became of it. Trade proves that
  there was a listing: a company that moved between markets carries the date of the later one. A close that is no halt
  is trade where the volume is unknown. The day of a delisting
  decides about that day and those after it, never about one before.
- Facts (SYMBOLS is a history by `as_of`) hold from their day until another one is told. What a company was before the
  first of them is not known: whether it was administrative stays open then, since a source without a history tells
  today's flag alone. The kind reaches back, because an issue keeps it; only a SPAC that merged is taken for a stock
  throughout where nothing older than the merger is told. The market reaches back too, although a few companies a year
  move: a source that tells it once could not be divided at all; how many members are judged so is counted.
- Halts are read from bars alone. A flag of one day says nothing about the next.
- Liquidity, price and history come from bars up to and including the one that is judged.

What is not known leaves nobody out; `why` counts it. Bars within days are judged by what was known at the end of the
day before, so that all bars of a day belong or none.

Shapes: N bars sorted by (symbol, ts), S symbols, D pairs of a symbol and a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.section import Section, setting

from .as_of import Facts
from .receipt import Receipt
from .recurrence import Series

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

Market = Literal["KOSPI", "KOSDAQ", "KONEX"]
Kind = Literal["stock", "preferred", "spac", "reit", "etf", "etn", "elw", "fund", "dr"]

REASONS = (  # the first that holds is given; "" = belongs
    "",
    "not_listed",
    "market",
    "kind",
    "administrative",
    "halted",
    "history",
    "price",
    "turnover",
)
FACTS = ("symbol", "as_of", "name", "market", "kind", "listed", "delisted", "administrative")
SPAC_NAMES = ("스팩", "기업인수목적")  # what the exchange has every SPAC carry in its name
_KST, _DAY = 9 * 3_600_000_000, 86_400_000_000  # microseconds
_PARTS = 1_000  # turnovers are added up in thousandths as integers: exact, so that no other bar can move a sum
_LARGEST = 3e13  # KRW a day, more than any symbol; 250 of them fit into 64 bits


class UniverseSection(Section):
    """Which symbols belong to the universe, decided anew for every bar."""

    markets: tuple[Market, ...] = setting((), "markets that belong; none named = all")
    leave_out: tuple[Kind, ...] = setting(
        ("etf", "etn", "elw", "spac", "preferred"),
        "kinds of issues that do not belong, as far as the source tells",
    )
    leave_out_administrative: bool = setting(True, "leave out issues on the days on which they are administrative")
    leave_out_halted: bool = setting(True, "leave out bars without a trade")
    min_history: int = setting(0, "traded bars (of intraday bars: days) up to the decision", unit="bars", ge=0)
    min_price: float = setting(0.0, "lowest raw close", unit="KRW", ge=0)
    min_turnover: float = setting(
        0.0, "lowest mean turnover of a bar (of intraday bars: of a day); unknown turnovers leave nobody out",
        unit="KRW", ge=0,
    )  # fmt: skip
    liquidity_window: int = setting(20, "bars (days) of that mean", unit="bars", ge=1, le=250)
    largest: int = setting(0, "only so many members of a moment with the highest mean turnover; 0 = all", ge=0)


class Bars(NamedTuple):
    """Hold what bars say: (N,) each.

    ts : end, microseconds UTC; close : raw KRW, NaN = none; volume : shares; turnover : KRW; both NaN = unknown, and a
    volume of zero is unknown too unless the bar is halted. halted : stands for a halt, see `tradable.untraded`.
    """

    ts: Longs
    close: Floats
    volume: Floats
    turnover: Floats
    halted: Bools


class Judged(NamedTuple):
    """Say who belongs.

    reason : (N,) int8, place in REASONS of what leaves a bar out, 0 = belongs; turnover : (N,) KRW, the mean by which
    the bar was judged, NaN = unknown or not asked for; unknown : how many members could not be judged by what was
    asked for.
    """

    reason: npt.NDArray[np.int8]
    turnover: Floats
    unknown: dict[str, int]

    @property
    def member(self) -> Bools:
        return np.asarray(self.reason == 0)


def facts_of(receipt: Receipt, symbols: Sequence[str]) -> pa.Table:
    """Return all that the receipt's source ever said about symbols, sorted by (symbol, as_of). Raises LakeError."""
    return receipt.opened.read("symbols", columns=FACTS, symbols=symbols, source=receipt.source)


def judge(
    bars: Bars, series: Series, names: Sequence[str], facts: pa.Table, section: UniverseSection, *, intraday: bool
) -> Judged:
    """Judge every bar by all of a section but `largest`, see the top of this file.

    names : (S,) symbols of `series`; facts : the columns FACTS in any order of rows, see `facts_of`. Sees bars of the
    symbol up to and including each bar (intraday: of days before) and facts as of its day (intraday: the day before).
    """
    begins = _days_of(bars, series, intraday)
    day = _day(bars.ts)[begins]
    owner = np.repeat(np.arange(len(names)), series.lengths)[begins]
    first = np.searchsorted(begins, series.starts)[owner]
    ends = np.append(begins[1:], bars.ts.size)[: begins.size] - 1
    none = bars.halted | ~np.isfinite(bars.close)
    halted, traded = none, (bars.volume > 0) | ~none
    if intraday and begins.size:
        halted, traded = np.logical_and.reduceat(none, begins), np.logical_or.reduceat(traded, begins)
    price, mean = bars.close[ends], np.full(begins.size, np.nan)
    if section.min_turnover > 0 or section.largest:
        turnover = _turnover(bars)
        turnover = np.add.reduceat(turnover, begins) if intraday and begins.size else turnover
        mean = _mean_of_last(turnover, first, section.liquidity_window)
    history, traded = _counted(~halted, first), _counted(traded, first) > 0
    if intraday:
        before, new = np.maximum(np.arange(begins.size) - 1, 0), np.arange(begins.size) == first
        price, mean = (np.where(new, np.nan, known[before]) for known in (price, mean))
        history, halted, traded = (np.where(new, 0, known[before]) for known in (history, halted, traded))
    reason = np.zeros(begins.size, np.int8)
    unknown: dict[str, Bools] = {}

    def leave_out(why: str, where: Bools) -> None:
        reason[where & (reason == 0)] = REASONS.index(why)

    told = Facts(facts, names)
    leave_out("not_listed", told.outside(owner, day, traded > 0))
    known_day = day - intraday
    if section.markets:
        chosen = [None if m is None else m in section.markets for m in map(_market, told.texts("market"))]
        inside, here, later = told.flag(chosen, owner, known_day)
        leave_out("market", ~inside & (here | later))
        unknown |= {"market": ~here & ~later, "market, taken from a later day": later}
    if section.leave_out:
        kinds = map(_kind, told.texts("kind"), told.texts("name"))
        left = [kind in section.leave_out if kind else None for kind in kinds]
        outside, here, later = told.flag(left, owner, known_day)
        leave_out("kind", outside)
        unknown["kind"] = ~here & ~later
    if section.leave_out_administrative:
        watched, here, _ = told.flag(told.table["administrative"].to_pylist(), owner, known_day)
        leave_out("administrative", watched & here)
        unknown["administrative"] = ~here
    if section.leave_out_halted:
        leave_out("halted", halted > 0)
    leave_out("history", history < section.min_history)
    if section.min_price > 0:
        leave_out("price", price < section.min_price)
        unknown["price"] = ~np.isfinite(price)
    if section.min_turnover > 0:
        leave_out("turnover", mean < section.min_turnover)
        unknown["turnover"] = ~np.isfinite(mean)
    bars_D = ends - begins + 1
    counts = {what: int(bars_D[where & (reason == 0)].sum()) for what, where in unknown.items()}
    return Judged(np.repeat(reason, bars_D), np.repeat(mean, bars_D), {what: n for what, n in counts.items() if n})


def why(judged: Judged) -> dict[str, int]:
    """Count bars: members, those left out by reason, and members of whom something that was asked for is unknown."""
    counts = np.bincount(judged.reason, minlength=len(REASONS)).tolist()
    left = {name: n for name, n in zip(REASONS[1:], counts[1:]) if n}
    return {"members": counts[0], **left, **{f"unknown {what}": n for what, n in judged.unknown.items()}}


def largest(ts_N: Longs, symbol_N: Longs, turnover_N: Floats, member_N: Bools, count: int) -> Bools:
    """Return the members among the `count` of their moment with the highest mean turnover, (N,); 0 = all.

    Rows in any order, of all symbols: a part of them would have another ranking. symbol_N : numbers in the order of
    symbols, by which equal turnovers are told apart. Members of unknown turnover stay and take no place.
    """
    if count == 0:
        return member_N.copy()
    rows = np.flatnonzero(member_N & np.isfinite(turnover_N))
    rows = rows[np.lexsort((symbol_N[rows], -turnover_N[rows], ts_N[rows]))]
    new = np.append(True, ts_N[rows[1:]] != ts_N[rows[:-1]])[: rows.size]
    place = np.arange(rows.size) - np.maximum.accumulate(np.where(new, np.arange(rows.size), 0))
    out = member_N.copy()
    out[rows[place >= count]] = False
    return out


def _market(text: str) -> str | None:
    """Return a market by its first word: KOSDAQ GLOBAL is KOSDAQ."""
    return text.upper().split()[0] if text.strip() else None


def _kind(kind: str, name: str) -> str:
    """Return the kind of a fact; sources that know only codes and groups call a SPAC a stock."""
    return "spac" if kind in ("", "stock") and any(word in name for word in SPAC_NAMES) else kind


def _day(ts_N: Longs) -> Longs:
    """Return the KST days of ends, days since 1970: midnight ends the day before."""
    return (ts_N + _KST - 1) // _DAY


def _days_of(bars: Bars, series: Series, intraday: bool) -> Longs:
    """Return the first row of each symbol's days."""
    if not intraday:
        return np.arange(bars.ts.size)
    day = _day(bars.ts)
    new = np.append(True, day[1:] != day[:-1])[: day.size]
    new[series.starts] = True
    return np.flatnonzero(new)


def _turnover(bars: Bars) -> Floats:
    """Return turnovers in KRW, close x volume where the source has none; NaN = unknown, 0 only where halted."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.where(bars.turnover > 0, bars.turnover, bars.close * bars.volume)
    return np.where(found > 0, found, np.where(bars.halted, 0.0, np.nan))


def _mean_of_last(x_D: Floats, first_D: Longs, window: int) -> Floats:
    """Return the mean of the known among the last `window` values of each symbol, NaN where none is."""
    known = np.isfinite(x_D)
    parts = np.rint(np.where(known, np.minimum(x_D, _LARGEST), 0.0) * _PARTS).astype(np.int64)
    totals = [np.concatenate([[0], np.cumsum(of, dtype=np.int64)]) for of in (parts, known)]  # wraps, and back again
    end = np.arange(x_D.size) + 1
    begin = np.maximum(end - window, first_D)
    total, count = (of[end] - of[begin] for of in totals)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count / _PARTS, np.nan)


def _counted(flag_D: Bools, first_D: Longs) -> Longs:
    """Return how many of each symbol's days up to and including each one have the flag."""
    before = np.concatenate([[0], np.cumsum(flag_D)])
    out: Longs = before[1:] - before[first_D]
    return out
