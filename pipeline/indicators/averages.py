"""How prices are smoothed: moving averages. See spec.py for the names used in kernels."""

from __future__ import annotations

import math
from math import nan

from ..recurrence import Floats
from .running import one_sum, smoothed, two_sums, unchanged
from .spec import Indicator, Output, Param, forgets


def _sma(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of the last n closes: their sum / n.

    The sum is not renewed: exact while prices are whole, else some 1e-14 of the mean drifts in.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            total = state_KS[1, s] + (x_CTS[0, t, s] - x_CTS[0, t - n, s])
            state_KS[1, s] = total
            out_OTS[0, t, s] = total * inverse if state_KS[0, s] + bar >= size else nan


sma = Indicator(
    name="sma",
    kernel=_sma,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("sma", "KRW", "price"),),
    state=2,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib SMA",
)


def _ema(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Exponential mean of closes with weight 2 / (n + 1), begun with the mean of the first n."""
    size, weight = p[0], 2.0 / (p[0] + 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            mean = smoothed(state_KS[1, s], x_CTS[0, t, s], count, size, weight)
            state_KS[1, s] = mean
            out_OTS[0, t, s] = mean if count >= size else nan


ema = Indicator(
    name="ema",
    kernel=_ema,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("ema", "KRW", "price"),),
    state=2,
    past=lambda n: 0,
    ready=lambda n: n,
    warmup=lambda n: n + forgets(1 - 2 / (n + 1)),
    source="TA-Lib EMA",
)


def _wma(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of the last n closes with weights 1..n, the newest the heaviest."""
    n, size, inverse = int(p[0]), p[0], 2.0 / (p[0] * (p[0] + 1.0))
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            total = _weighted(state_KS, 1, s, x_CTS[0, t, s], x_CTS[0, t - n, s], count, size)
            out_OTS[0, t, s] = total * inverse if count >= size else nan


def _weighted(state_KS: Floats, row: int, s: int, value: float, leaving: float, count: float, size: float) -> float:
    """Return the sum of the last `size` values of lane s with weights 1..size after its `count`-th: with each new one
    the others move one weight down. Renewed every `size` values, since an error of the plain sum adds up in it.

    `leaving` is the value `size` bars ago, 0 while there is none. Takes five state rows from `row` on.
    """
    plain, place = state_KS[row, s], state_KS[row + 4, s]
    rank = count if count < size else size
    rank = rank if rank > 0.0 else 0.0
    change = rank * value - (plain if count > size else 0.0)
    _, total = two_sums(state_KS, row, s, value - leaving, value, change, (place + 1.0) * value, count, size)
    return total


wma = Indicator(
    name="wma",
    kernel=_wma,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("wma", "KRW", "price"),),
    state=6,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="TA-Lib WMA",
)


def _hma(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Hull's mean: twice the weighted mean of n / 2 closes less that of n, weighted again over the root of n values.

    The half and the root of n are cut to whole numbers.
    """
    n, h, r = int(p[0]), int(p[0]) // 2, int(math.sqrt(p[0]))
    size, half, root = p[0], float(h), float(r)
    w_half, w_size, w_root = 4.0 / (half * (half + 1.0)), 2.0 / (size * (size + 1.0)), 2.0 / (root * (root + 1.0))
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            late = count - size + 1.0  # of the difference, which begins with the longer mean
            close = x_CTS[0, t, s]
            short = _weighted(state_KS, 1, s, close, x_CTS[0, t - h, s], count, half)
            long = _weighted(state_KS, 6, s, close, x_CTS[0, t - n, s], count, size)
            value = short * w_half - long * w_size
            out_OTS[1, t, s] = value if late > 0.0 else 0.0
        for s in range(x_CTS.shape[2]):  # a loop of its own, since LLVM vectorises none over so many rows
            late = state_KS[0, s] + bar - size + 1.0
            leaving = out_OTS[1, t - r, s]
            leaving = leaving if late > root else 0.0
            total = _weighted(state_KS, 11, s, out_OTS[1, t, s], leaving, late, root)
            out_OTS[0, t, s] = total * w_root if late >= root else nan


hma = Indicator(
    name="hma",
    kernel=_hma,
    inputs=("close",),
    params=(Param("n", 16, 4, 1000),),
    outputs=(Output("hma", "KRW", "price"),),
    state=16,
    past=lambda n: n,
    own=lambda n: math.isqrt(int(n)),
    scratch=1,
    ready=lambda n: n + math.isqrt(int(n)) - 1,
    warmup=lambda n: 2 * (n + math.isqrt(int(n))),
    source="TA-Lib HMA (A. Hull, How to reduce lag in a moving average, 2005)",
)


def _kama(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Kaufman's mean: it moves by w^2 of its difference from the close, w = 2 / 31 + e (2 / 3 - 2 / 31), that is from
    the weight of an exponential mean over 30 bars to that over 2 with the efficiency e of the last n changes, |their
    sum| / sum of |changes|; 1 where nothing changed.
    """
    n, size, slow, fast = int(p[0]), p[0], 2.0 / 31.0, 2.0 / 3.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close, before, start = x_CTS[0, t, s], x_CTS[0, t - 1, s], x_CTS[0, t - n, s]
            change, leaving = abs(close - before), abs(start - x_CTS[0, t - n - 1, s])
            change = change if count > 1.0 else 0.0
            leaving = leaving if count > size + 1.0 else 0.0
            equal = unchanged(state_KS[5, s], change == 0.0, count)
            path = one_sum(state_KS, 2, s, change - leaving, change, count - 1.0, size)
            state_KS[5, s] = equal
            move = abs(close - start)
            efficiency = move / path
            efficiency = efficiency if path > move else 1.0
            efficiency = efficiency if equal < size else 1.0
            weight = efficiency * (fast - slow) + slow
            mean = state_KS[1, s]
            mean = mean if count > size + 1.0 else before
            mean = mean + weight * weight * (close - mean)
            state_KS[1, s] = mean
            out_OTS[0, t, s] = mean if count > size else nan


kama = Indicator(
    name="kama",
    kernel=_kama,
    inputs=("close",),
    params=(Param("n", 10, 2, 500),),
    outputs=(Output("kama", "KRW", "price"),),
    state=6,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + forgets(1 - (2 / 31) ** 2),
    source="TA-Lib KAMA (P. J. Kaufman, Smarter Trading, 1995)",
)

ALL = (sma, ema, wma, hma, kama)
