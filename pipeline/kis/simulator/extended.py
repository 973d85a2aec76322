"""What trades beside KRX's regular session: NXT's pre-market, main market and after-market, and KRX's after-market.

All is a pure function of (seed, symbol, day), as the days of KRX are. NXT takes 10 to 40 % of KRX's volume in the
larger quarter of the common stocks. While both venues trade their prices differ by a tick or two: NXT's main market
follows KRX's minutes, and the two after-markets follow one walk. A segment's bar is made first, for all days at once;
its minutes add up to it, and a minute without a trade is not there.

Legend: D sessions of the listing since NXT's first.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np

from pipeline import krx
from pipeline.kis.simulator import intraday, paths
from pipeline.kis.simulator.intraday import THIN, Bar, Minutes
from pipeline.kis.simulator.paths import DAYS, Bools, Floats, Path, extremes, on_tick
from pipeline.kis.simulator.universe import Listing, stream
from pipeline.kis.simulator.views import segments, starts

FIRST = int(np.searchsorted(DAYS, krx.NXT_FIRST))  # place on the axis of all sessions
_LARGE = 7.5e11  # KRW of market value on the reference day: a quarter of the issues have more
_ADMINISTRATIVE = 120  # sessions before a delisting
_FEWEST = 30.0  # shares of a segment: its open, high, low and close may lie in four minutes
_FIRST_QUARTER = int(krx.NXT_FIRST.astype("datetime64[M]").astype(np.int64)) // 3
_QUARTERS = int(krx.LAST.astype("datetime64[M]").astype(np.int64)) // 3 - _FIRST_QUARTER + 1
_QUIET = 20  # minutes of NXT's after-market before that of KRX: the evening's high and low come later
_MINUTE = np.timedelta64(1, "m")
Prices = tuple[Floats, Floats, Floats, Floats]  # open, high, low, close


@dataclass(frozen=True)
class Bars:
    """A segment's bars, (D,): KRW and shares; volume 0 where it has no trade."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats


@dataclass(frozen=True)
class Extended:
    """The bars of one listing: `segments` by name, beginning at a row of its path."""

    begin: int
    segments: dict[str, Bars]

    def bar(self, name: str, row: int) -> Bar:
        """Return the bar of a segment at a row of the path; without volume before NXT's first day."""
        bars, at = self.segments[name], row - self.begin
        return {column: float(getattr(bars, column)[at]) if at >= 0 else 0.0 for column in bars.__dataclass_fields__}


def member(seed: int, item: Listing, days: krx.Days) -> Bools:
    """Say on which days NXT has an issue on its list, halted or not: common stocks of the larger quarter, chosen anew
    each quarter, but none under administration. (D,)"""
    quarter = days.astype("datetime64[M]").astype(np.int64) // 3 - _FIRST_QUARTER
    noise = stream(seed, "nxt list", item.number).standard_normal(_QUARTERS)[np.clip(quarter, 0, _QUARTERS - 1)]
    large = np.log(item.price * item.shares / _LARGE) + 0.05 * noise > 0.0
    return np.asarray(large & (item.kind == "stock") & (days >= krx.NXT_FIRST) & ~administrative(item, days))


def administrative(item: Listing, days: krx.Days) -> Bools:
    """Say on which days an issue is under administration. (D,)"""
    if item.delisted is None:
        return np.zeros(len(days), bool)
    return np.asarray(np.searchsorted(DAYS, days) >= paths.span(item)[1] - _ADMINISTRATIVE)


def extended(seed: int, item: Listing, whole: Path) -> Extended:
    """Return all bars of a listing beside the regular session."""
    begin = min(max(FIRST - whole.first, 0), len(whole.close))
    day = whole.cut(begin, len(whole.close))
    rows = slice(day.first - FIRST, day.first - FIRST + len(day.close))
    days = DAYS[day.first : day.first + len(day.close)]
    rng, size = stream(seed, "extended", item.number), len(DAYS) - FIRST
    level = rng.standard_normal(2)
    drawn, uniform = rng.standard_normal((10, size))[:, rows], rng.random((6, size))[:, rows]
    nxt = member(seed, item, days) & ~day.halted
    late = (item.kind in ("stock", "preferred")) & ~administrative(item, days) & ~day.halted
    late = late & (days >= krx.AFTER_FIRST)
    opening = np.where(day.halted, day.base, day.open)

    def near(price: Floats, sigma: float, normal: Floats) -> Floats:
        wish = on_tick(price * np.exp(sigma * item.sigma * normal), days, item)
        return np.asarray(np.clip(wish, day.lower, day.upper))

    def ranged(first: Floats, last: Floats, volatility: float, pick: slice) -> Prices:
        found = on_tick(extremes(first, last, np.square(volatility * item.sigma), uniform[pick]), days, item)
        top, bottom = np.maximum(first, last), np.minimum(first, last)
        return first, np.clip(found[0], top, day.upper), np.clip(found[1], day.lower, bottom), last

    pre = ranged(near(day.base * (opening / day.base) ** 0.3, 0.1, drawn[0]), near(opening, 0.05, drawn[1]), 0.2, _PRE)
    beside = day.close + np.round(np.clip(drawn[2], -1.0, 1.0)) * krx.tick(day.close, days, item.kind, item.market)
    first = np.clip(beside, day.lower, day.upper)
    evening = ranged(first, near(day.close, 0.15, drawn[3]), 0.15, _EVENING)
    main = _inside(day, opening, days, item, uniform[4:])
    held = ~np.isnat(segments()["pre"][0][day.first : day.first + len(day.close)])
    share = np.clip(np.exp(np.log(0.22) + 0.3 * level[0] + 0.15 * drawn[4]), 0.10, 0.40)
    weight = np.exp(np.log([[0.06], [0.70], [0.24]]) + 0.25 * drawn[5:8])
    weight[0] *= held
    parts = np.floor(share * day.volume * weight / weight.sum(axis=0))
    krx_part = np.floor(np.clip(np.exp(np.log(0.05) + 0.3 * level[1] + 0.3 * drawn[8]), 0.01, 0.15) * day.volume)
    with np.errstate(invalid="ignore"):
        mean = day.turnover / np.maximum(day.volume, 1.0)
    return Extended(
        begin,
        {
            "pre": _bars(pre, parts[0], nxt & held, _mean(pre)),
            "main": _bars(main, parts[1], nxt, mean),
            "after": _bars(evening, parts[2], nxt, _mean(evening)),
            "evening": _bars(evening, krx_part, late, _mean(evening)),
        },
    )


_PRE, _EVENING = slice(0, 2), slice(2, 4)  # uniform numbers of the highs and lows


def _inside(day: Path, opening: Floats, days: krx.Days, item: Listing, uniform: Floats) -> Prices:
    """Return NXT's main market: KRX's range, half of the time a tick narrower at either end. Its close is never that
    of a day, since the after-market follows; KRX's stands for it."""
    high, low = np.where(day.halted, opening, day.high), np.where(day.halted, opening, day.low)
    unit = krx.tick(high, days, item.kind, item.market)
    wide = high - low >= 4.0 * unit
    high = high - unit * (wide & (uniform[0] < 0.5))
    low = low + krx.tick(low, days, item.kind, item.market) * (wide & (uniform[1] < 0.5))
    return np.clip(opening, low, high), high, low, np.clip(day.close, low, high)


def _mean(prices: Prices) -> Floats:
    return np.asarray(sum(prices) / 4.0)


def _bars(prices: Prices, volume: Floats, traded: Bools, mean: Floats) -> Bars:
    high, low = prices[1], prices[2]
    volume = np.where(traded, np.maximum(volume, _FEWEST), 0.0)
    fair = np.clip(mean, low + 0.25 * (high - low), high - 0.25 * (high - low))
    return Bars(*prices, volume, np.clip(np.round(volume * fair), volume * low, volume * high))


def minutes(seed: int, item: Listing, place: int, name: str, bar: Bar, regular: Minutes) -> Minutes:
    """Return the minutes of a segment with trade of the session at a place of the axis. `regular` are those of KRX on
    the day."""
    day = DAYS[place].item()
    start, rng = starts(name, place), stream(seed, name, item.number, day)
    if name == "pre":
        points = intraday.walk(rng, item, day, bar, len(start))
        return _thinned(rng, item, day, bar, points, start, _extremes(points))
    if name == "main":
        points, ends = np.append(regular.open[0], regular.close[:-1]), (regular.high[:-1], regular.low[:-1])
        points = _apart(rng, item, day, bar, points)
        return _thinned(rng, item, day, bar, points, start, (int(np.argmax(ends[0])), int(np.argmin(ends[1]))))
    whole = starts("after", place)
    points = intraday.walk(stream(seed, "evening walk", item.number, day), item, day, bar, len(whole))
    peak, trough = _extremes(points[_QUIET:])
    cut = len(whole) - len(start)
    points = _apart(rng, item, day, bar, points)[cut:]
    points[-1] = bar["close"]
    if not cut:
        points[0] = bar["open"]
    return _thinned(rng, item, day, bar, points, start, (peak + _QUIET - cut, trough + _QUIET - cut))


def _extremes(points: Floats) -> tuple[int, int]:
    """Return the minutes with the highest and the lowest of their opens and closes."""
    opening, close = points[:-1], points[1:]
    return int(np.argmax(np.maximum(opening, close))), int(np.argmin(np.minimum(opening, close)))


def _apart(rng: np.random.Generator, item: Listing, day: date, bar: Bar, points: Floats) -> Floats:
    """Return prices of another venue at most a tick away, inside the bar's range; the first is the bar's open."""
    away = rng.integers(-1, 2, len(points)) * krx.tick(points, day, item.kind, item.market)
    away[0] = 0.0
    return np.asarray(np.clip(points + away, bar["low"], bar["high"]))


def _thinned(
    rng: np.random.Generator, item: Listing, day: date, bar: Bar, points: Floats, start: krx.Days, ends: tuple[int, int]
) -> Minutes:
    """Return minutes between prices, as many as the bar has shares for: the first and the last, those of the high and
    the low, and others at random."""
    count = len(start)
    wanted = min(int(bar["volume"] // THIN), count)
    at = np.unique([0, count - 1, *ends])
    if wanted == count:
        at = np.arange(count)
    elif wanted > len(at):
        at = np.union1d(at, rng.choice(count, wanted - len(at), replace=False))
    extremes = int(np.searchsorted(at, ends[0])), int(np.searchsorted(at, ends[1]))
    opening, close, start = points[:-1][at], points[1:][at], start[at]
    return intraday.spread(rng, item, day, bar, opening, close, start, start + _MINUTE, extremes, wicks=wanted == count)
