"""Index levels of the simulated market: KOSPI, KOSDAQ and KOSPI 200 follow the market factor, with a little of their
own. Minutes add up to the day."""

from datetime import date

import numpy as np

from pipeline.kis.simulator import intraday
from pipeline.kis.simulator.market import Columns, Market
from pipeline.kis.simulator.paths import DAYS
from pipeline.kis.simulator.universe import ANCHOR, stream

# code -> (name, level on the anchor day, own volatility a day, thousand shares on a usual day)
INDICES: dict[str, tuple[str, float, float, float]] = {
    "0001": ("종합", 2_670.0, 0.001, 450_000.0),
    "1001": ("코스닥", 880.0, 0.006, 1_000_000.0),
    "2001": ("코스피 200", 360.0, 0.002, 150_000.0),
}


def _whole(market: Market, code: str) -> Columns:
    """Return an index on the whole axis of sessions. Raises KeyError for an unknown index."""
    _, level, own, shares = INDICES[code]
    rng = stream(market.seed, "index", code)
    night, day = market.factors.market
    day = day + own * rng.standard_normal(len(DAYS))
    total = np.cumsum(night + day)
    close = np.round(level * np.exp(total - total[np.searchsorted(DAYS, np.datetime64(ANCHOR))]), 2)
    before = np.append(close[0], close[:-1])
    opening = np.round(before * np.exp(night), 2)
    reach = rng.exponential(0.003, (2, len(DAYS)))
    high = np.round(np.maximum(opening, close) * (1.0 + reach[0]), 2)
    low = np.round(np.minimum(opening, close) * (1.0 - reach[1]), 2)
    volume = np.round(shares * np.exp(0.2 * market.factors.heat + 0.1 * rng.standard_normal(len(DAYS))))
    return {
        "date": DAYS,
        "open": opening,
        "high": high,
        "low": low,
        "close": close,
        "before": before,
        "volume": volume,
        "turnover": np.round(volume * 22.0),
    }


def index_rows(market: Market, code: str, start: np.datetime64, end: np.datetime64) -> Columns:
    """Return an index's closed sessions in [start, end], oldest first: date, open, high, low, close (points, two
    decimals), before (the close before), volume (thousand shares), turnover (million KRW). Raises KeyError for an
    unknown index."""
    rows = slice(int(np.searchsorted(DAYS, start)), min(int(np.searchsorted(DAYS, end, side="right")), market.closed()))
    return {name: values[rows] for name, values in _whole(market, code).items()}


def index_minutes(market: Market, code: str, day: date, seconds: int = 60) -> Columns:
    """Return a session's bars of `seconds` as far as the clock has come, oldest first; none on a day without a session.

    Columns: start (datetime64[us], UTC), open, high, low, close (points), volume (thousand shares), cumulative (million
    KRW since the opening). Raises KeyError for an unknown index.
    """
    whole, at = _whole(market, code), int(np.searchsorted(DAYS, np.datetime64(day)))
    held = at < len(DAYS) and DAYS[at].item() == day
    names = ("open", "high", "low", "close", "volume", "turnover")
    if not held:
        return {"start": np.empty(0, "datetime64[us]"), **{name: np.empty(0) for name in (*names[:5], "cumulative")}}
    first, high, low, last, volume, turnover = (float(whole[name][at]) for name in names)
    rng, (start, end) = stream(market.seed, "index minutes", code, day), intraday.labels(day)
    count = len(start)
    time, walk = np.linspace(0.0, 1.0, count), np.cumsum(rng.standard_normal(count)) / np.sqrt(count)
    bridge = first + (last - first) * time + 0.9 * (high - low) * (walk - walk[0] - time * (walk[-1] - walk[0]))
    close = np.round(np.clip(bridge, low, high), 2)
    close[-1] = last
    opening = np.append(first, close[:-1])
    top, bottom = np.maximum(opening, close), np.minimum(opening, close)
    top[int(np.argmax(top))], bottom[int(np.argmin(bottom))] = high, low
    share = np.cumsum((0.5 + np.linspace(-1.0, 1.0, count) ** 2) * rng.gamma(1.2, size=count))
    total, money = (np.floor(amount * share / share[-1]) for amount in (volume, turnover))
    own = np.diff(total, prepend=0.0)
    over = int(np.searchsorted(end, market.instant(), side="right"))
    bucket = (start - start[0]).astype("timedelta64[s]").astype(np.int64)[:over] // seconds
    begin = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])[:over])
    stop = np.append(begin[1:], over)[: len(begin)] - 1
    none = np.empty(0)
    return {
        "start": start[begin],
        "open": opening[begin],
        "high": np.maximum.reduceat(top[:over], begin) if over else none,
        "low": np.minimum.reduceat(bottom[:over], begin) if over else none,
        "close": close[stop],
        "volume": np.add.reduceat(own[:over], begin) if over else none,
        "cumulative": money[stop],
    }
