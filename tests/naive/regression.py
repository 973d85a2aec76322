"""Twins: regression, correlation and the market."""

from __future__ import annotations

import math

import numpy as np

from .windows import Array, Bars, Outputs, all_equal, before, empty


def regression(bars: Bars, n: float) -> Outputs:
    n, close = int(n), bars["close"]
    slope, r2, residual = empty(bars), empty(bars), empty(bars)
    x = np.arange(n) - (n - 1) / 2
    for t in range(n - 1, len(close)):
        y = close[t - n + 1 : t + 1]
        if all_equal(y):
            slope[t] = r2[t] = residual[t] = 0.0
            continue
        y = y - np.mean(y)
        slope[t] = np.sum(x * y) / np.sum(x * x)
        r2[t] = np.sum(x * y) ** 2 / (np.sum(x * x) * np.sum(y * y))
        residual[t] = y[-1] - slope[t] * x[-1]
    return {"slope": slope, "r_squared": r2, "residual": residual}


def correlation(a: Array, b: Array) -> float:
    """Return 0 where either side is all equal."""
    if all_equal(a) or all_equal(b):
        return 0.0
    a, b = a - np.mean(a), b - np.mean(b)
    return float(np.sum(a * b)) / math.sqrt(np.sum(a * a) * np.sum(b * b))


def market(bars: Bars, n: float) -> Outputs:
    n = int(n)
    beta, together, alpha = empty(bars), empty(bars), empty(bars)
    own, index = (bars[name] / before(bars[name]) - 1 for name in ("close", "market"))
    for t in range(n, len(beta)):
        r, m = own[t - n + 1 : t + 1], index[t - n + 1 : t + 1]
        if all_equal(m):
            beta[t] = together[t] = alpha[t] = 0.0
            continue
        beta[t] = np.mean((r - np.mean(r)) * (m - np.mean(m))) / np.var(m)
        together[t] = correlation(r, m)
        alpha[t] = np.mean(r) - beta[t] * np.mean(m)
    return {"beta": beta, "market_correlation": together, "market_alpha": alpha}


def price_volume(bars: Bars, n: float) -> Outputs:
    """A volume that follows a volume of 0 counts as the ratio 0."""
    n, close, volume = int(n), bars["close"], bars["volume"]
    levels, changes, log_ratio = empty(bars), empty(bars), empty(bars)
    ratio = close / before(close)
    for t in range(1, len(close)):
        log_ratio[t] = math.log(volume[t] / volume[t - 1] + 1) if volume[t - 1] > 0 else 0.0
    for t in range(n - 1, len(close)):
        w = slice(t - n + 1, t + 1)
        levels[t] = correlation(close[w], np.log(volume[w] + 1))
        if t >= n:
            changes[t] = correlation(ratio[w], log_ratio[w])
    return {"price_volume_correlation": levels, "change_correlation": changes}
