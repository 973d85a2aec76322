"""Twins: ranges, deviations and falls."""

from __future__ import annotations

import math

import numpy as np

from .windows import Array, Bars, Outputs, before, empty, exponential, reach, wilder_range, windowed


def atr(bars: Bars, n: float) -> Outputs:
    mean = wilder_range(bars, int(n))
    return {"atr": mean, "natr": 100 * mean / bars["close"]}


def atr_ratio(bars: Bars, n: float, m: float) -> Outputs:
    ranges, out = wilder_range(bars, int(n)), empty(bars)
    usual = exponential(ranges, int(m), int(n))
    for t in range(int(n + m) - 1, len(out)):
        out[t] = ranges[t] / usual[t] if usual[t] > 0 else 0.0
    return {"atr_ratio": out}


def true_range(bars: Bars) -> Outputs:
    return {"true_range": reach(bars)}


def volatility(bars: Bars, n: float) -> Outputs:
    returns = np.log(bars["close"] / before(bars["close"]))
    return {"log_return": returns, "volatility": windowed(returns, int(n), lambda w: float(np.std(w)), 1)}


def range_volatility(bars: Bars, n: float) -> Outputs:
    """Estimators of the deviation of a bar's log return from opens, highs, lows and closes of n bars."""
    n = int(n)
    o, h, l, c = (bars[name] for name in ("open", "high", "low", "close"))
    last = before(c)

    def root_mean(terms: Array, first: int = 0) -> Array:
        return windowed(terms, n, lambda w: math.sqrt(max(float(np.mean(w)), 0.0)), first)

    satchell = np.log(h / c) * np.log(h / o) + np.log(l / c) * np.log(l / o)
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    yang_zhang = empty(bars)
    for t in range(n, len(yang_zhang)):
        w = slice(t - n + 1, t + 1)
        night, day = np.var(np.log(o[w] / last[w]), ddof=1), np.var(np.log(c[w] / o[w]), ddof=1)
        yang_zhang[t] = math.sqrt(max(night + k * day + (1 - k) * np.mean(satchell[w]), 0.0))
    return {
        "realised": root_mean(np.log(c / last) ** 2, 1),
        "parkinson": root_mean(np.log(h / l) ** 2 / (4 * math.log(2))),
        "garman_klass": root_mean(0.5 * np.log(h / l) ** 2 - (2 * math.log(2) - 1) * np.log(c / o) ** 2),
        "rogers_satchell": root_mean(satchell),
        "yang_zhang": yang_zhang,
    }


def drawdown(bars: Bars) -> Outputs:
    close, fall, age = bars["close"], empty(bars), empty(bars)
    for t in range(len(close)):
        highest = max(close[: t + 1])
        fall[t] = close[t] / highest - 1
        age[t] = t - max(u for u in range(t + 1) if close[u] == highest)
    return {"drawdown": fall, "drawdown_age": age}


def max_drawdown(bars: Bars, n: float) -> Outputs:
    def deepest(w: Array) -> float:
        return min(float(np.min(w[i:]) / w[i] - 1) for i in range(len(w)))

    return {"max_drawdown": windowed(bars["close"], int(n), deepest)}
