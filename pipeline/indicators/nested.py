"""Exponential means of exponential means, of closes: each begins with the mean of the first n values of the one before.

See spec.py for the names used in kernels.
"""

from __future__ import annotations

from math import nan

from ..recurrence import Floats
from .running import smoothed
from .spec import Indicator, Output, Param, forgets


def _dema(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Twice the exponential mean less the mean of the mean, which takes out most of the lag."""
    size, weight, later = p[0], 2.0 / (p[0] + 1.0), p[0] - 1.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            a = smoothed(state_KS[1, s], x_CTS[0, t, s], count, size, weight)
            b = smoothed(state_KS[2, s], a, count - later, size, weight)
            state_KS[1, s] = a
            state_KS[2, s] = b
            out_OTS[0, t, s] = 2.0 * a - b if count - later >= size else nan


dema = Indicator(
    name="dema",
    kernel=_dema,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("dema", "KRW", "price"),),
    state=3,
    past=lambda n: 0,
    ready=lambda n: 2 * n - 1,
    warmup=lambda n: 2 * n + 2 * forgets(1 - 2 / (n + 1)),
    source="TA-Lib DEMA (P. Mulloy, Smoothing data with faster moving averages, 1994)",
)


def _three_means(
    state_KS: Floats, row: int, s: int, value: float, count: float, size: float
) -> tuple[float, float, float]:
    """Return the exponential mean, the mean of it and the mean of that of lane s after its `count`-th value. Takes
    three state rows from `row` on.
    """
    weight, later = 2.0 / (size + 1.0), size - 1.0
    a = smoothed(state_KS[row, s], value, count, size, weight)
    b = smoothed(state_KS[row + 1, s], a, count - later, size, weight)
    c = smoothed(state_KS[row + 2, s], b, count - 2.0 * later, size, weight)
    state_KS[row, s] = a
    state_KS[row + 1, s] = b
    state_KS[row + 2, s] = c
    return a, b, c


def _tema(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Three times the difference of the first and second nested exponential mean, plus the third."""
    size, later = p[0], p[0] - 1.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            a, b, c = _three_means(state_KS, 1, s, x_CTS[0, t, s], count, size)
            out_OTS[0, t, s] = 3.0 * (a - b) + c if count - 2.0 * later >= size else nan


tema = Indicator(
    name="tema",
    kernel=_tema,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("tema", "KRW", "price"),),
    state=4,
    past=lambda n: 0,
    ready=lambda n: 3 * n - 2,
    warmup=lambda n: 3 * n + 3 * forgets(1 - 2 / (n + 1)),
    source="TA-Lib TEMA (P. Mulloy, Smoothing data with less lag, 1994)",
)


def _trix(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Change of the third nested exponential mean over that of the bar before, in percent; 0 where that was 0."""
    size, later = p[0], p[0] - 1.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count, before = state_KS[0, s] + bar, state_KS[3, s]
            _, _, c = _three_means(state_KS, 1, s, x_CTS[0, t, s], count, size)
            change = 100.0 * (c / before - 1.0)
            change = change if before != 0.0 else 0.0
            out_OTS[0, t, s] = change if count - 2.0 * later > size else nan


trix = Indicator(
    name="trix",
    kernel=_trix,
    inputs=("close",),
    params=(Param("n", 15, 2, 500),),
    outputs=(Output("trix", "percent"),),
    state=4,
    past=lambda n: 0,
    ready=lambda n: 3 * n - 1,
    warmup=lambda n: 3 * n + 3 * forgets(1 - 2 / (n + 1)),
    source="TA-Lib TRIX (J. Hutson, Good TRIX, 1983)",
)


def _t3(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Tillson's mean: (1 + v) exponential mean - v mean of the mean, three times over, from six nested means."""
    size, v, later = p[0], p[1], p[0] - 1.0
    w3, w4, w5, w6 = (1.0 + v) ** 3, -3.0 * v * (1.0 + v) ** 2, 3.0 * v * v * (1.0 + v), -v * v * v
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            _, _, c = _three_means(state_KS, 1, s, x_CTS[0, t, s], count, size)
            d, e, f = _three_means(state_KS, 4, s, c, count - 3.0 * later, size)
            out_OTS[0, t, s] = w3 * c + w4 * d + w5 * e + w6 * f if count - 5.0 * later >= size else nan


t3 = Indicator(
    name="t3",
    kernel=_t3,
    inputs=("close",),
    params=(Param("n", 5, 2, 500), Param("v", 0.7, 0, 1, whole=False)),
    outputs=(Output("t3", "KRW", "price"),),
    state=7,
    past=lambda n, v: 0,
    ready=lambda n, v: 6 * n - 5,
    warmup=lambda n, v: 6 * n + 6 * forgets(1 - 2 / (n + 1)),
    source="TA-Lib T3 (T. Tillson, Better moving averages, 1998)",
)

ALL = (dema, tema, trix, t3)
