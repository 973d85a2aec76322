"""What kernels share for whole rows of lanes: extremes of windows and their places, logarithms. See running.py for what
serves one lane, and spec.py for the names.
"""

from __future__ import annotations

import math
from math import inf, nan

from ..recurrence import Floats


def window_extremes(
    x_CTS: Floats, high: int, low: int, out_OTS: Floats, top: int, bottom: int, state_KS: Floats, first: int, n: int
) -> None:
    """Write the highest of input `high` and lowest of input `low` over n bars to output rows `top` and `bottom`, from
    bar `first` on.

    By van Herk's blocks of n bars: a window is a suffix of the bars before the block and a prefix of the block. State
    rows 1 and 2 are scratch; nothing survives a call, so that no cut in time changes a bit.
    """
    start, end = first, x_CTS.shape[1]
    while start < end:
        rows = min(n, end - start)
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
            out_OTS[top, start + rows - 1, s] = -inf
            out_OTS[bottom, start + rows - 1, s] = inf
        for t in range(start - 1, start - n, -1):
            for s in range(x_CTS.shape[2]):
                up, down = x_CTS[high, t, s], x_CTS[low, t, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                state_KS[1, s] = up if up > highest else highest
                state_KS[2, s] = down if down < lowest else lowest
            if t + n - 1 < start + rows:
                for s in range(x_CTS.shape[2]):
                    out_OTS[top, t + n - 1, s] = state_KS[1, s]
                    out_OTS[bottom, t + n - 1, s] = state_KS[2, s]
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
        for t in range(start, start + rows):
            for s in range(x_CTS.shape[2]):
                up, down = x_CTS[high, t, s], x_CTS[low, t, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                up = up if up > highest else highest
                down = down if down < lowest else lowest
                state_KS[1, s] = up
                state_KS[2, s] = down
                highest, lowest = out_OTS[top, t, s], out_OTS[bottom, t, s]
                out_OTS[top, t, s] = up if up > highest else highest
                out_OTS[bottom, t, s] = down if down < lowest else lowest
        start += rows
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0


def window_places(
    x_CTS: Floats, row: int, sign: float, newest: bool, out_OTS: Floats, best: int, place: int, state_KS: Floats,
    first: int, n: int,
) -> None:  # fmt: skip
    """Write how many bars the highest of `sign` times an input over n bars lies behind the oldest of them to output
    `place`, from bar `first` on; of equal ones the newest counts, or the oldest.

    By blocks as window_extremes; output `best` and state rows 1 and 2 are scratch.
    """
    start, end = first, x_CTS.shape[1]
    while start < end:
        rows = min(n, end - start)
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = 0.0
            out_OTS[best, start + rows - 1, s] = -inf
            out_OTS[place, start + rows - 1, s] = 0.0
        for t in range(start - 1, start - n, -1):
            at = float(t)
            for s in range(x_CTS.shape[2]):
                value, highest, where = sign * x_CTS[row, t, s], state_KS[1, s], state_KS[2, s]
                better = value > highest if newest else value >= highest
                state_KS[1, s] = value if better else highest
                state_KS[2, s] = at if better else where
            if t + n - 1 < start + rows:
                for s in range(x_CTS.shape[2]):
                    out_OTS[best, t + n - 1, s] = state_KS[1, s]
                    out_OTS[place, t + n - 1, s] = state_KS[2, s]
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = 0.0
        for t in range(start, start + rows):
            at, oldest = float(t), float(t - n + 1)
            for s in range(x_CTS.shape[2]):
                value, highest, where = sign * x_CTS[row, t, s], state_KS[1, s], state_KS[2, s]
                better = value >= highest if newest else value > highest
                where = at if better else where
                highest = value if better else highest
                state_KS[1, s] = highest
                state_KS[2, s] = where
                before, earlier = out_OTS[best, t, s], out_OTS[place, t, s]
                better = highest >= before if newest else highest > before
                out_OTS[place, t, s] = (where if better else earlier) - oldest
        start += rows
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0


def log_ratio(x_CTS: Floats, over: int, t: int, under: int, u: int, out_OTS: Floats, row: int) -> None:
    """Write the logarithm of input `over` at row t over input `under` at row u to output `row` at t, for all lanes.

    log(a / b) = 2 atanh((a - b) / (a + b)) by its series, exact to rounding below 20 %; the rare larger moves take the
    slow road. Without two positive numbers there is no logarithm: NaN.
    """
    far = 0
    for s in range(x_CTS.shape[2]):
        a, b = x_CTS[over, t, s], x_CTS[under, u, s]
        z = (a - b) / (a + b)
        y = z * z
        tail = 1.0 / 7.0 + y * (1.0 / 9.0 + y * (1.0 / 11.0 + y * (1.0 / 13.0)))
        out_OTS[row, t, s] = 2.0 * z * (1.0 + y * (1.0 / 3.0 + y * (0.2 + y * tail)))
        far += 0 if y <= 0.01 else 1
    if far > 0:
        for s in range(x_CTS.shape[2]):
            a, b = x_CTS[over, t, s], x_CTS[under, u, s]
            z = (a - b) / (a + b)
            if not z * z <= 0.01:
                out_OTS[row, t, s] = math.log(a / b) if a > 0.0 and b > 0.0 else nan
