"""How fast prices go: RSI, rate of change, stochastic and Williams %R, CCI. See spec.py for the names used in
kernels.
"""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .spec import Indicator, Output, Param, forgets


def _rsi(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Share of rises in all changes of the close, both by Wilder's smoothing, times 100; 0 where nothing changed."""
    size, share = p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            change = x_CTS[0, t, s] - x_CTS[0, t - 1, s]
            change = change if count > 1.0 else 0.0
            begun = count > size + 1.0
            up, down = state_KS[1, s], state_KS[2, s]
            up = up + share * ((change if change > 0.0 else 0.0) - (up if begun else 0.0))
            down = down + share * ((-change if change < 0.0 else 0.0) - (down if begun else 0.0))
            state_KS[1, s] = up
            state_KS[2, s] = down
            both = up + down
            value = 100.0 * up / both
            value = value if both > 0.0 else 0.0
            out_OTS[0, t, s] = value if count > size else nan


rsi = Indicator(
    name="rsi",
    kernel=_rsi,
    inputs=("close",),
    params=(Param("n", 14, 2, 500),),
    outputs=(Output("rsi", "percent", bounds=(0.0, 100.0)),),
    state=3,
    past=lambda n: 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + forgets(1 - 1 / n),
    source="TA-Lib RSI (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _roc(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Close over the close n bars before, less one."""
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            value = x_CTS[0, t, s] / x_CTS[0, t - n, s] - 1.0
            out_OTS[0, t, s] = value if state_KS[0, s] + bar > size else nan


roc = Indicator(
    name="roc",
    kernel=_roc,
    inputs=("close",),
    params=(Param("n", 10, 1, 1000),),
    outputs=(Output("roc", "ratio", bounds=(-1.0, inf)),),
    state=1,
    past=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="TA-Lib ROCP",
)


def _stochastic(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Place of the close in the range of the last n bars: fast %K, slow %D (two means of 3 of it), Williams %R; 0
    where there is no range.

    The range is found by van Herk's blocks over the past rows: a window is a suffix of the rows before a block and a
    prefix of the block.
    """
    n, size, end = int(p[0]), p[0], x_CTS.shape[1]
    start = first
    while start < end:
        rows = min(n, end - start)
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
        if rows == n:
            for s in range(x_CTS.shape[2]):
                out_OTS[1, start + n - 1, s] = -inf
                out_OTS[2, start + n - 1, s] = inf
        for t in range(start - 1, start - n, -1):
            for s in range(x_CTS.shape[2]):
                high, low = x_CTS[0, t, s], x_CTS[1, t, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                state_KS[1, s] = high if high > highest else highest
                state_KS[2, s] = low if low < lowest else lowest
            if t + n - 1 < start + rows:
                for s in range(x_CTS.shape[2]):
                    out_OTS[1, t + n - 1, s] = state_KS[1, s]
                    out_OTS[2, t + n - 1, s] = state_KS[2, s]
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
        for t in range(start, start + rows):
            bar = t - first + 1.0
            for s in range(x_CTS.shape[2]):
                high, low = x_CTS[0, t, s], x_CTS[1, t, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                high = high if high > highest else highest
                low = low if low < lowest else lowest
                state_KS[1, s] = high
                state_KS[2, s] = low
                highest, lowest = out_OTS[1, t, s], out_OTS[2, t, s]
                out_OTS[1, t, s] = high if high > highest else highest
                out_OTS[2, t, s] = low if low < lowest else lowest
            for s in range(x_CTS.shape[2]):
                highest, lowest, close = out_OTS[1, t, s], out_OTS[2, t, s], x_CTS[2, t, s]
                scale = 100.0 / (highest - lowest)
                scale = scale if highest != lowest else 0.0
                known = state_KS[0, s] + bar >= size
                out_OTS[0, t, s] = (close - lowest) * scale if known else nan
                out_OTS[2, t, s] = (close - highest) * scale if known else nan
            for s in range(x_CTS.shape[2]):
                near = out_OTS[0, t, s] + 2.0 * out_OTS[0, t - 1, s] + 3.0 * out_OTS[0, t - 2, s]
                out_OTS[1, t, s] = (near + 2.0 * out_OTS[0, t - 3, s] + out_OTS[0, t - 4, s]) * (1.0 / 9.0)
        start += rows
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0


stochastic = Indicator(
    name="stochastic",
    kernel=_stochastic,
    inputs=("high", "low", "close"),
    params=(Param("n", 14, 2, 500),),
    outputs=(Output("fast_k", "percent"), Output("slow_d", "percent"), Output("williams_r", "percent")),
    state=3,
    past=lambda n: n,
    own=lambda n: 4,
    ready=lambda n: n + 4,
    warmup=lambda n: n + 4,
    source="TA-Lib STOCHF (n, 3), STOCH (n, 3, 3), WILLR; TA-Lib hides the first two bars of fast %K",
)


def _cci(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Distance of the typical price from its mean over n bars, in 0.015 of the mean absolute deviation; 0 where they
    are equal.

    The scratch output is the typical price, read back as the window.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            typical = (x_CTS[0, t, s] + x_CTS[1, t, s] + x_CTS[2, t, s]) * (1.0 / 3.0)
            before = out_OTS[1, t - 1, s]
            equal = state_KS[1, s] + 1.0
            equal = equal if typical == before else 0.0
            state_KS[1, s] = equal if state_KS[0, s] + bar > 1.0 else 0.0
            state_KS[2, s] = 0.0
            out_OTS[0, t, s] = 0.0
            out_OTS[1, t, s] = typical
        for j in range(t - n + 1, t + 1):
            for s in range(x_CTS.shape[2]):
                state_KS[2, s] += out_OTS[1, j, s]
        for s in range(x_CTS.shape[2]):
            state_KS[2, s] = state_KS[2, s] * inverse
        for j in range(t - n + 1, t + 1):
            for s in range(x_CTS.shape[2]):
                gap = out_OTS[1, j, s] - state_KS[2, s]
                out_OTS[0, t, s] += gap if gap > 0.0 else -gap
        for s in range(x_CTS.shape[2]):
            deviation = 0.015 * inverse * out_OTS[0, t, s]
            value = (out_OTS[1, t, s] - state_KS[2, s]) / deviation
            value = value if state_KS[1, s] < size - 1.0 else 0.0
            out_OTS[0, t, s] = value if state_KS[0, s] + bar >= size else nan
    for s in range(x_CTS.shape[2]):
        state_KS[2, s] = 0.0


cci = Indicator(
    name="cci",
    kernel=_cci,
    inputs=("high", "low", "close"),
    params=(Param("n", 20, 2, 200),),
    outputs=(Output("cci", "number"),),
    scratch=1,
    state=3,
    past=lambda n: 0,
    own=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib CCI (D. Lambert, 1980)",
)
