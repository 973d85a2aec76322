"""Patterns of swings: double bottoms and double tops. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .running import macd_line
from .spec import Indicator, Output, Param


def _macd_double(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """1 on the bar that completes a double bottom (W) of the MACD histogram, -1 on one that completes a double top (M),
    else 0. A swing is a run of bars with the histogram on one side of 0; its extreme is the farthest value, the first
    of equal ones. A W is complete on the bar that ends a swing below 0, the first above it, if |second| is at most
    |first| (1 + tolerance), where second is the extreme of that swing and first that of the swing below 0 before it,
    and if they are at most `apart` bars apart (0 = any number). An M is the same with the sides exchanged.

    The second swing may be the first of the next pattern. A histogram of 0 ends no swing. The first swing begins when
    the histogram is known.

    State rows from 4 on: the side of the swing, its extreme and the number of its bar; both for the last swing
    below 0; both for the last one above.
    """
    fast, slow, signal, most, apart = p[0], p[1], p[2], 1.0 + p[3], p[4]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            line, mean = macd_line(state_KS, 1, s, x_CTS[0, t, s], count, fast, slow, signal)
            known, value = count >= slow + signal - 1.0, line - mean
            value = value if known else 0.0
            side, extreme, place = state_KS[4, s], state_KS[5, s], state_KS[6, s]
            low, low_place, high, high_place = state_KS[7, s], state_KS[8, s], state_KS[9, s], state_KS[10, s]
            now = 1.0 if value > 0.0 else side
            now = -1.0 if value < 0.0 else now
            turned, below = now != side, side < 0.0
            before = low if below else high
            gap = place - (low_place if below else high_place)
            double = abs(extreme) <= most * abs(before)
            double = double if gap <= apart or apart == 0.0 else False
            double = double if turned and before != 0.0 else False
            found = -side if double else 0.0
            out_OTS[0, t, s] = found if known else nan
            bottom, top = turned and side < 0.0, turned and side > 0.0
            state_KS[7, s] = extreme if bottom else low
            state_KS[8, s] = place if bottom else low_place
            state_KS[9, s] = extreme if top else high
            state_KS[10, s] = place if top else high_place
            farther = turned or abs(value) > abs(extreme)
            state_KS[4, s] = now
            state_KS[5, s] = value if farther else extreme
            state_KS[6, s] = count if farther else place


macd_double = Indicator(
    name="macd_double",
    kernel=_macd_double,
    inputs=("close",),
    params=(
        Param("fast", 12, 2, 500), Param("slow", 26, 3, 1000), Param("signal", 9, 2, 500),
        Param("tolerance", 0.1, 0, 1, whole=False), Param("apart", 0, 0, 1000),
    ),
    outputs=(Output("macd_double", "number", bounds=(-1.0, 1.0)),),
    state=11,
    past=lambda fast, slow, signal, tolerance, apart: 0,
    ready=lambda fast, slow, signal, tolerance, apart: slow + signal - 1,
    warmup=lambda fast, slow, signal, tolerance, apart: inf,
    source="double bottoms and tops of charts, read in the swings of the histogram of TA-Lib MACD",
    rising=("fast", "slow"),
)  # fmt: skip

ALL = (macd_double,)
