"""How far closes have fallen from their highest. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .spec import Indicator, Output, Param


def _drawdown(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Close over the highest close so far, less one, and the bars since then, the latest of equal ones."""
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close, highest, age = x_CTS[0, t, s], state_KS[1, s], state_KS[2, s] + 1.0
            top = close >= highest
            top = top if count > 1.0 else True
            highest = close if top else highest
            age = 0.0 if top else age
            state_KS[1, s] = highest
            state_KS[2, s] = age
            out_OTS[0, t, s] = close / highest - 1.0
            out_OTS[1, t, s] = age


drawdown = Indicator(
    name="drawdown",
    kernel=_drawdown,
    inputs=("close",),
    params=(),
    outputs=(
        Output("drawdown", "ratio", bounds=(-1.0, 0.0)),
        Output("drawdown_age", "bars", bounds=(0.0, inf)),
    ),
    state=3,
    past=lambda: 0,
    ready=lambda: 1,
    warmup=lambda: inf,
    source="running maximum of closes",
)


def _max_drawdown(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Deepest fall among the last n closes, the least of later / earlier - 1; closes that are not positive count as 0.

    By blocks of n bars, as window_extremes: a window is a suffix of the bars before the block and a prefix of it, and
    its deepest fall lies in one of them or leads from the highest of the suffix to the lowest of the prefix. Division
    keeps order, so each way gives the bits of the smallest ratio. The scratch output is the highest of the suffix. All
    state rows are scratch: the least ratio, the highest and the lowest so far.
    """
    n, size, end = int(p[0]), p[0], x_CTS.shape[1]
    start = first
    while start < end:
        rows = min(n, end - start)
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = 1.0
            state_KS[2, s] = 0.0
            state_KS[3, s] = inf
            out_OTS[0, start + rows - 1, s] = 1.0
            out_OTS[1, start + rows - 1, s] = 0.0
        for t in range(start - 1, start - n, -1):
            for s in range(x_CTS.shape[2]):
                close, worst, highest, lowest = x_CTS[0, t, s], state_KS[1, s], state_KS[2, s], state_KS[3, s]
                floor = close if close > 0.0 else 0.0
                lowest = floor if floor < lowest else lowest
                ratio = lowest / close
                ratio = ratio if close > 0.0 else 1.0
                state_KS[1, s] = ratio if ratio < worst else worst
                state_KS[2, s] = close if close > highest else highest
                state_KS[3, s] = lowest
            if t + n - 1 < start + rows:
                for s in range(x_CTS.shape[2]):
                    out_OTS[0, t + n - 1, s] = state_KS[1, s]
                    out_OTS[1, t + n - 1, s] = state_KS[2, s]
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = 1.0
            state_KS[2, s] = 0.0
            state_KS[3, s] = inf
        for t in range(start, start + rows):
            bar = t - first + 1.0
            for s in range(x_CTS.shape[2]):
                close, worst, highest, lowest = x_CTS[0, t, s], state_KS[1, s], state_KS[2, s], state_KS[3, s]
                before, top = out_OTS[0, t, s], out_OTS[1, t, s]
                floor = close if close > 0.0 else 0.0
                highest = close if close > highest else highest
                lowest = floor if floor < lowest else lowest
                ratio, across = floor / highest, lowest / top
                worst = ratio if ratio < worst else worst
                state_KS[1, s] = worst
                state_KS[2, s] = highest
                state_KS[3, s] = lowest
                least = before if before < worst else worst
                least = across if across < least else least
                out_OTS[0, t, s] = least - 1.0 if state_KS[0, s] + bar >= size else nan
        start += rows
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0
        state_KS[3, s] = 0.0


max_drawdown = Indicator(
    name="max_drawdown",
    kernel=_max_drawdown,
    inputs=("close",),
    params=(Param("n", 60, 2, 500),),
    outputs=(Output("max_drawdown", "ratio", bounds=(-1.0, 0.0)),),
    scratch=1,
    state=4,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="largest relative fall from a peak within the window",
)

ALL = (drawdown, max_drawdown)
