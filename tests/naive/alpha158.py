"""The 158 features of Qlib's Alpha158 with its default configuration, straight from its published expressions.

Source: microsoft/qlib, qlib/contrib/data/loader.py (Alpha158DL), operators as in qlib/data/ops.py: Std is the sample
deviation, Rank the percentile with ties shared, Quantile interpolates, IdxMax and IdxMin count from 1 = oldest and take
the oldest of equal ones; Rsquare and Corr are NaN where a deviation is 0 to within 2e-5. One deviation: a value is NaN
until its window is full of known values (Qlib: from the first value on; it also counts the unknown first change as
neither rise nor fall).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .rolling import quantile, rank, sample_deviation
from .windows import Array, Bars, Outputs, before, mean, windowed

WINDOWS = (5, 10, 20, 30, 60)


def ref(values: Array, n: int) -> Array:
    """Return the value n bars ago."""
    return np.concatenate([np.full(n, np.nan), values])[: len(values)]


def over(values: Array, n: int, of: Callable[[Array], float]) -> Array:
    """Apply `of` to every window of n values; NaN where one of them is not finite."""
    return windowed(values, n, lambda w: of(w) if np.isfinite(w).all() else math.nan)


def still(w: Array) -> bool:
    return bool(np.isclose(sample_deviation(w), 0, atol=2e-5))


def slope(w: Array) -> float:
    x = np.arange(1, len(w) + 1)
    return float(np.sum((x - np.mean(x)) * (w - np.mean(w))) / np.sum((x - np.mean(x)) ** 2))


def residual(w: Array) -> float:
    return float(w[-1] - np.mean(w)) - slope(w) * (len(w) - 1) / 2


def r_squared(w: Array) -> float:
    return math.nan if still(w) else float(np.corrcoef(np.arange(len(w)), w)[0, 1]) ** 2


def corr(a: Array, b: Array, n: int) -> Array:
    out = np.full(len(a), np.nan)
    for t in range(n - 1, len(a)):
        p, q = a[t - n + 1 : t + 1], b[t - n + 1 : t + 1]
        if np.isfinite(p).all() and np.isfinite(q).all() and not still(p) and not still(q):
            out[t] = np.corrcoef(p, q)[0, 1]
    return out


def compared(values: Array, sign: int) -> Array:
    """Return 1 where a value is above (sign 1) or below (sign -1) the one before, else 0; NaN at the first bar."""
    change = sign * (values - before(values))
    return np.where(np.isnan(change), np.nan, change > 0)


def bar_features(bars: Bars) -> Outputs:
    o, h, l, c = (bars[name] for name in ("open", "high", "low", "close"))
    top, bottom, span = np.maximum(o, c), np.minimum(o, c), h - l + 1e-12
    return {
        "KMID": (c - o) / o,
        "KLEN": (h - l) / o,
        "KMID2": (c - o) / span,
        "KUP": (h - top) / o,
        "KUP2": (h - top) / span,
        "KLOW": (bottom - l) / o,
        "KLOW2": (bottom - l) / span,
        "KSFT": (2 * c - h - l) / o,
        "KSFT2": (2 * c - h - l) / span,
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": l / c,
        "VWAP0": bars["turnover"] / bars["volume"] / c,
    }


def price_features(bars: Bars, n: int) -> Outputs:
    h, l, c = (bars[name] for name in ("high", "low", "close"))
    highest, lowest = over(h, n, max), over(l, n, min)
    oldest_high = over(h, n, lambda w: float(np.argmax(w)) + 1)
    oldest_low = over(l, n, lambda w: float(np.argmin(w)) + 1)
    return {
        "ROC": ref(c, n) / c,
        "MA": over(c, n, mean) / c,
        "STD": over(c, n, sample_deviation) / c,
        "BETA": over(c, n, slope) / c,
        "RSQR": over(c, n, r_squared),
        "RESI": over(c, n, residual) / c,
        "MAX": highest / c,
        "MIN": lowest / c,
        "QTLU": quantile(bars, n, 0.8)["quantile"] / c,
        "QTLD": quantile(bars, n, 0.2)["quantile"] / c,
        "RANK": rank(bars, n)["rank"],
        "RSV": (c - lowest) / (highest - lowest + 1e-12),
        "IMAX": oldest_high / n,
        "IMIN": oldest_low / n,
        "IMXD": (oldest_high - oldest_low) / n,
    }


def shares(values: Array, n: int) -> tuple[Array, Array, Array]:
    """Return SUMP, SUMN and SUMD of values."""
    change = values - before(values)
    total = over(np.abs(change), n, np.sum) + 1e-12
    gains, losses = over(np.maximum(change, 0), n, np.sum), over(np.maximum(-change, 0), n, np.sum)
    return gains / total, losses / total, (gains - losses) / total


def change_features(bars: Bars, n: int) -> Outputs:
    c, v = bars["close"], bars["volume"]
    rises, falls = over(compared(c, 1), n, mean), over(compared(c, -1), n, mean)
    moves = np.abs(c / ref(c, 1) - 1) * v
    return {
        "CORR": corr(c, np.log(v + 1), n),
        "CORD": corr(c / ref(c, 1), np.log(v / ref(v, 1) + 1), n),
        "CNTP": rises,
        "CNTN": falls,
        "CNTD": rises - falls,
        **dict(zip(("SUMP", "SUMN", "SUMD"), shares(c, n))),
        "VMA": over(v, n, mean) / (v + 1e-12),
        "VSTD": over(v, n, sample_deviation) / (v + 1e-12),
        "WVMA": over(moves, n, sample_deviation) / (over(moves, n, mean) + 1e-12),
        **dict(zip(("VSUMP", "VSUMN", "VSUMD"), shares(v, n))),
    }


def alpha158(bars: Bars) -> Outputs:
    """Return all features of one series by Qlib's names, in its order.

    bars : open, high, low, close, volume, turnover; vwap is turnover / volume. A volume of 0 gives NaN where Qlib
    divides by it without 1e-12.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        out = bar_features(bars)
        by_window = {n: price_features(bars, n) | change_features(bars, n) for n in WINDOWS}
    for name in by_window[5]:
        out |= {f"{name}{n}": by_window[n][name] for n in WINDOWS}
    return out
