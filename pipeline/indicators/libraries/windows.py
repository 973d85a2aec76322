"""What the last n bars hold: bands, ranges, deviations, order, lines and correlations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .algebra import Bars, Formula, Known, age, deviation, equal, larger, log_ratio, never, smaller, true_range, wilder


def bollinger(b: Bars, n: int, k: float) -> list[Known]:
    close = b.column("close")
    mean, spread = b.mean(close, n), deviation(b, close, n, 0)
    z = b.where(spread > 0.0, (close - mean) / spread, 0.0)
    reach = k * spread
    out = (mean + reach, mean - reach, 0.5 / k * z + 0.5, 2.0 * reach / mean, z)
    return [(value, n) for value in out]


def donchian(b: Bars, n: int) -> list[Known]:
    high, low = b.highest(b.column("high"), n), b.lowest(b.column("low"), n)
    middle, reach = 0.5 * (high + low), high - low
    width = b.where(reach > 0.0, reach / middle, 0.0)
    place = b.where(reach > 0.0, (b.column("close") - low) / reach, 0.0)
    return [(value, n) for value in (high, low, middle, width, place)]


def donchian_before(b: Bars, n: int) -> list[Known]:
    high, low = b.highest(b.column("high"), n), b.lowest(b.column("low"), n)
    return [(b.lag(high, 1), n + 1), (b.lag(low, 1), n + 1)]


def _extremes(b: Bars, high: Any, low: Any, n: int) -> list[Known]:
    close, top, bottom = b.column("close"), b.highest(high, n), b.lowest(low, n)
    return [(value, n) for value in (top, bottom, close / top - 1.0, close / bottom - 1.0)]


def extremes(b: Bars, n: int) -> list[Known]:
    return _extremes(b, b.column("high"), b.column("low"), n)


def close_extremes(b: Bars, n: int) -> list[Known]:
    return _extremes(b, b.column("close"), b.column("close"), n)


def atr(b: Bars, n: int) -> list[Known]:
    mean = wilder(b, true_range(b), n, 2)
    return [(mean, n + 1), (100.0 * mean / b.column("close"), n + 1)]


def reach(b: Bars) -> list[Known]:
    return [(true_range(b), 2)]


def volatility(b: Bars, n: int) -> list[Known]:
    close = b.column("close")
    moves = log_ratio(b, close, b.lag(close, 1))
    spread = b.where(never(b, moves != 0.0, n), 0.0, deviation(b, moves, n, 0))
    return [(moves, 2), (spread, n + 1)]


def _root(b: Bars, square: Any, still: Any) -> Any:
    return b.where((square < 0.0) | still, 0.0, square) ** 0.5


def range_volatility(b: Bars, n: int) -> list[Known]:
    opened, close = b.column("open"), b.column("close")
    up, down, day = (log_ratio(b, b.column(name), opened) for name in ("high", "low", "close"))
    night = log_ratio(b, opened, b.lag(close, 1))
    moves = b.where(close == b.lag(close, 1), 0.0, night + day)
    quiet, idle = never(b, up != down, n), never(b, night != 0.0, n)
    squares = b.mean((up - down) ** 2, n)
    parkinson = squares / (4.0 * math.log(2.0))
    klass = 0.5 * squares - (2.0 * math.log(2.0) - 1.0) * b.mean(day**2, n)
    drift = up * (up - day) + down * (down - day)
    satchell = b.where(never(b, drift != 0.0, n), 0.0, b.mean(drift, n))
    within, between = deviation(b, day, n, 1) ** 2, deviation(b, night, n, 1) ** 2
    k = 0.34 / (1.34 + (n + 1.0) / (n - 1.0))
    both = b.where(idle, 0.0, between) + k * b.where(quiet, 0.0, within) + (1.0 - k) * satchell
    return [
        (_root(b, b.mean(moves**2, n), never(b, moves != 0.0, n)), n + 1),
        (_root(b, parkinson, quiet), n),
        (_root(b, klass, quiet), n),
        (_root(b, satchell, satchell < 0.0), n),
        (_root(b, both, both < 0.0), n + 1),
    ]


def close_deviation(b: Bars, n: int) -> list[Known]:
    return [(deviation(b, b.column("close"), n, 1), n)]


def moments(b: Bars, n: int) -> list[Known]:
    close = b.column("close")
    r = close / b.lag(close, 1) - 1.0
    mean, square, cube, fourth = (b.mean(r**power, n) for power in (1, 2, 3, 4))
    variance = square - mean * mean
    level = (variance <= 1e-12 * square) | never(b, r != 0.0, n)
    root = b.where(variance > 0.0, variance, 1.0) ** 0.5
    skew = (cube - 3.0 * mean * square + 2.0 * mean**3) / (variance * root)
    kurtosis = (fourth - 4.0 * mean * cube + 6.0 * mean**2 * square - 3.0 * mean**4) / (variance * variance) - 3.0
    return [(b.where(level, 0.0, value), n + 1) for value in (skew, kurtosis)]


def quantile(b: Bars, n: int, q: float) -> list[Known]:
    return [(b.quantile(b.column("close"), n, q), n)]


def rank(b: Bars, n: int) -> list[Known]:
    return [(b.rank(b.column("close"), n) / n, n)]


def argextremes(b: Bars, n: int) -> list[Known]:
    high, low = b.column("high"), b.column("low")
    top, bottom = b.highest(high, n), b.lowest(low, n)
    up, down = ((n - age(b, x, best, n, oldest=True)) / n for x, best in ((high, top), (low, bottom)))
    return [(up, n), (down, n), (up - down, n)]


def regression(b: Bars, n: int) -> list[Known]:
    close, still = b.column("close"), equal(b, b.column("close"), n)
    middle, spread = 0.5 * (n - 1.0), n * (n * n - 1.0) / 12.0
    slope = b.where(still, 0.0, b.weighted(close, np.arange(float(n)) - middle) / spread)
    variance = n * b.variance(close, n, 0)
    r2 = b.where((variance > 0.0) & (slope != 0.0), slope * slope * spread / variance, 0.0)
    residual = b.where(still, 0.0, close - b.mean(close, n) - slope * middle)
    return [(slope, n), (smaller(b, r2, r2 * 0.0 + 1.0), n), (residual, n)]


def _together(b: Bars, x: Any, y: Any, n: int) -> tuple[Any, Any]:
    """Return correlation and slope of x to y over n bars; 0 where one of them is all equal."""
    common = b.mean(x * y, n) - b.mean(x, n) * b.mean(y, n)
    one, two = deviation(b, x, n, 0), deviation(b, y, n, 0)
    moves = (one > 0.0) & (two > 0.0)
    value = b.where(moves, common / (one * two), 0.0)
    value = larger(b, smaller(b, value, value * 0.0 + 1.0), value * 0.0 - 1.0)
    return value, b.where(moves, common / (two * two), 0.0)


def market(b: Bars, n: int) -> list[Known]:
    own, index = (b.column(name) / b.lag(b.column(name), 1) - 1.0 for name in ("close", "market"))
    correlation, beta = _together(b, own, index, n)
    alpha = b.where(equal(b, index, n), 0.0, b.mean(own, n) - beta * b.mean(index, n))
    return [(beta, n + 1), (correlation, n + 1), (alpha, n + 1)]


def price_volume(b: Bars, n: int) -> list[Known]:
    close, volume = b.column("close"), b.column("volume")
    level, before = b.log1p(b.where(volume > 0.0, volume, 0.0)), b.lag(volume, 1)
    ratio = b.where((before > 0.0) & (volume > 0.0), volume / before, 0.0)
    levels, _ = _together(b, close - b.first(close), level - b.first(level), n)
    changes, _ = _together(b, close / b.lag(close, 1) - 1.0, b.log1p(ratio), n)
    return [(levels, n), (changes, n + 1)]


FORMULAS: dict[str, Formula] = {
    "bollinger": bollinger, "donchian": donchian, "donchian_before": donchian_before, "extremes": extremes,
    "close_extremes": close_extremes, "atr": atr, "true_range": reach, "volatility": volatility,
    "range_volatility": range_volatility, "deviation": close_deviation, "moments": moments, "quantile": quantile,
    "rank": rank, "argextremes": argextremes, "regression": regression, "market": market, "price_volume": price_volume,
}  # fmt: skip
