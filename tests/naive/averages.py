"""Twins: moving averages and mean prices by volume."""

from __future__ import annotations

import math

import numpy as np

from .windows import Array, Bars, Outputs, all_equal, empty, exponential, mean, typical_price, windowed


def sma(bars: Bars, n: float) -> Outputs:
    return {"sma": windowed(bars["close"], int(n), mean)}


def ema(bars: Bars, n: float) -> Outputs:
    return {"ema": exponential(bars["close"], int(n))}


def weighted(values: Array, n: int, first: int = 0) -> Array:
    weights = np.arange(1, n + 1)
    return windowed(values, n, lambda w: float(np.sum(w * weights) / np.sum(weights)), first)


def wma(bars: Bars, n: float) -> Outputs:
    return {"wma": weighted(bars["close"], int(n))}


def nested(close: Array, n: int, times: int) -> list[Array]:
    """Smooth closes exponentially again and again; each begins with the mean of the first n of the one before."""
    out = [exponential(close, n)]
    for i in range(1, times):
        out.append(exponential(out[-1], n, i * (n - 1)))
    return out


def dema(bars: Bars, n: float) -> Outputs:
    a, b = nested(bars["close"], int(n), 2)
    return {"dema": 2 * a - b}


def tema(bars: Bars, n: float) -> Outputs:
    a, b, c = nested(bars["close"], int(n), 3)
    return {"tema": 3 * a - 3 * b + c}


def t3(bars: Bars, n: float, v: float) -> Outputs:
    """Tillson: three times the generalised double mean (1 + v) EMA - v EMA(EMA), as a polynomial of six EMAs."""
    _, _, c, d, e, f = nested(bars["close"], int(n), 6)
    return {"t3": (1 + v) ** 3 * c - 3 * v * (1 + v) ** 2 * d + 3 * v**2 * (1 + v) * e - v**3 * f}


def kama(bars: Bars, n: float) -> Outputs:
    """Kaufman: the smoothing moves between those of 2 and 30 bars by |move over n bars| / sum of |moves|."""
    n, close, out = int(n), bars["close"], empty(bars)
    fast, slow = 2 / (2 + 1), 2 / (30 + 1)
    for t in range(n, len(close)):
        w = close[t - n : t + 1]
        efficiency = 1.0 if all_equal(w) else abs(w[-1] - w[0]) / float(np.sum(np.abs(np.diff(w))))
        weight = (slow + efficiency * (fast - slow)) ** 2
        last = close[t - 1] if t == n else out[t - 1]
        out[t] = last + weight * (close[t] - last)
    return {"kama": out}


def hma(bars: Bars, n: float) -> Outputs:
    n = int(n)
    twice = 2 * weighted(bars["close"], n // 2) - weighted(bars["close"], n)
    return {"hma": weighted(twice, math.isqrt(n), n - 1)}


def weighted_by_volume(price: Array, volume: Array, otherwise: float) -> float:
    total = float(np.sum(volume))
    return float(np.sum(price * volume)) / total if total > 0 else otherwise


def vwap(bars: Bars, n: float) -> Outputs:
    n, typical, volume, out = int(n), typical_price(bars), bars["volume"], empty(bars)
    for t in range(n - 1, len(out)):
        last = slice(t - n + 1, t + 1)
        out[t] = weighted_by_volume(typical[last], volume[last], typical[t])
    return {"vwap": out}


def session_vwap(bars: Bars) -> Outputs:
    typical, volume, day, out = typical_price(bars), bars["volume"], bars["day"], empty(bars)
    for t in range(len(out)):
        first = t
        while first > 0 and day[first - 1] == day[t]:
            first -= 1
        out[t] = weighted_by_volume(typical[first : t + 1], volume[first : t + 1], typical[t])
    return {"session_vwap": out}


def average_price(bars: Bars) -> Outputs:
    out = empty(bars)
    for t in range(len(out)):
        volume = bars["volume"][t]
        out[t] = bars["turnover"][t] / volume if volume > 0 else bars["close"][t]
    return {"average_price": out}
