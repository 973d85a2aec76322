"""Lines through the last n bars. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import nan

from ..recurrence import Floats
from .running import anchored, renewed, unchanged
from .spec import Indicator, Output, Param


def _regression(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Least-squares line through the last n closes: slope a bar, R squared, and the last close's distance from the
    line.

    All three are 0 where the n closes are equal.
    """
    n, size = int(p[0]), p[0]
    middle, spread = 0.5 * (size - 1.0), size * (size * size - 1.0) / 12.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            equal = unchanged(state_KS[11, s], close == x_CTS[0, t - 1, s], count)
            place = state_KS[5, s]  # the phase: how many bars the fresh sums hold
            anchor, mean, variance = anchored(state_KS, 1, s, close, x_CTS[0, t - n, s], count, size)
            total, renew, y, fresh = state_KS[1, s], state_KS[5, s] == 0.0, close - anchor, close - state_KS[7, s]
            fresh = y if renew else fresh
            last = count if count < size else size
            turn = last * y - (total if count > size else y)  # all others move one place down
            cross, fresh_cross = renewed(state_KS[9, s], turn, state_KS[10, s], place * fresh, renew)
            state_KS[9, s] = cross
            state_KS[10, s] = fresh_cross
            state_KS[11, s] = equal
            moves = equal < size - 1.0
            covariance = cross - middle * total
            slope = covariance / spread
            slope = slope if moves else 0.0
            r2 = slope * covariance / (size * variance)
            r2 = 0.0 if variance == 0.0 or not moves else r2
            r2 = 1.0 if r2 > 1.0 else r2
            residual = y - mean - slope * middle
            known = count >= size
            out_OTS[0, t, s] = slope if known else nan
            out_OTS[1, t, s] = r2 if known else nan
            out_OTS[2, t, s] = (residual if moves else 0.0) if known else nan


regression = Indicator(
    name="regression",
    kernel=_regression,
    inputs=("close",),
    params=(Param("n", 20, 3, 500),),
    outputs=(
        Output("slope", "KRW", "price_change"),
        Output("r_squared", "ratio", bounds=(0.0, 1.0)),
        Output("residual", "KRW", "price_change"),
    ),
    state=12,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="TA-Lib LINEARREG_SLOPE, LINEARREG; R squared = squared TA-Lib CORREL with the bar number",
)

ALL = (regression,)
