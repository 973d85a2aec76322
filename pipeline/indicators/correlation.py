"""How two series move together: the close with the market, prices with volumes. See spec.py for the names used in
kernels.
"""

from __future__ import annotations

import math
from math import nan

from ..recurrence import Floats
from .running import anchored, renewed, unchanged
from .spec import Indicator, Output, Param


def _together(
    out_OTS: Floats, a: int, b: int, correlation: int, slope: int, rest: int, size: float, late: float,
    state_KS: Floats, row: int, first: int,
) -> None:  # fmt: skip
    """Write how own output `a` follows `b` over `size` values, which begin `late` bars after the series, to the outputs
    named: correlation, slope, and the mean of a less slope times the mean of b.

    Where b is all equal all are 0, where a is, the first two. NaN until the window is full; after a value that
    is not finite no number until the sums are renewed.

    State rows from `row` on: eight of a and of b (`anchored`), sum and fresh sum of products, for how long a and b have
    been equal. Each loop has few rows, and those that read outputs write none: the compiler tests that rows do not
    overlap, once for all bars if it can.
    """
    n, inverse = int(size), 1.0 / size
    for t in range(first, out_OTS.shape[1]):
        bar = t - first + 1.0 - late
        for s in range(out_OTS.shape[2]):
            count, value, gone = state_KS[0, s] + bar, out_OTS[a, t, s], out_OTS[a, t - n, s]
            equal = unchanged(state_KS[row + 18, s], value == out_OTS[a, t - 1, s], count)
            state_KS[row + 18, s] = equal
            anchored(state_KS, row, s, value, gone, count, size)
        for s in range(out_OTS.shape[2]):
            count, value, gone = state_KS[0, s] + bar, out_OTS[b, t, s], out_OTS[b, t - n, s]
            equal = unchanged(state_KS[row + 19, s], value == out_OTS[b, t - 1, s], count)
            state_KS[row + 19, s] = equal
            anchored(state_KS, row + 8, s, value, gone, count, size)
        for s in range(out_OTS.shape[2]):
            count, renew = state_KS[0, s] + bar, state_KS[row + 4, s] == 0.0
            u, v, u_gone, v_gone = out_OTS[a, t, s], out_OTS[b, t, s], out_OTS[a, t - n, s], out_OTS[b, t - n, s]
            u0, u1, v0, v1 = state_KS[row + 5, s], state_KS[row + 6, s], state_KS[row + 13, s], state_KS[row + 14, s]
            entering, fresh, gone = (u - u0) * (v - v0), (u - u1) * (v - v1), (u_gone - u0) * (v_gone - v0)
            fresh = entering if renew else fresh  # the anchors are renewed already
            entering = entering if count > 0.0 else 0.0
            fresh = fresh if count > 0.0 else 0.0
            gone = gone if count > size else 0.0
            products, fresh = renewed(state_KS[row + 16, s], entering - gone, state_KS[row + 17, s], fresh, renew)
            state_KS[row + 16, s] = products
            state_KS[row + 17, s] = fresh
        for s in range(out_OTS.shape[2]):
            known, sum_a, sum_b = state_KS[0, s] + bar >= size, state_KS[row, s], state_KS[row + 8, s]
            a_moves, b_moves = state_KS[row + 18, s] < size - 1.0, state_KS[row + 19, s] < size - 1.0
            spread_a = state_KS[row + 1, s] - sum_a * sum_a * inverse
            spread_b = state_KS[row + 9, s] - sum_b * sum_b * inverse
            common = state_KS[row + 16, s] - sum_a * sum_b * inverse
            common = common if a_moves else 0.0
            both = math.sqrt(0.0 if spread_a < 0.0 else spread_a) * math.sqrt(0.0 if spread_b < 0.0 else spread_b)
            value, steep = common / (1.0 if both == 0.0 else both), common / spread_b
            value = 0.0 if both == 0.0 else value
            value = 1.0 if value > 1.0 else value
            value = -1.0 if value < -1.0 else value
            steep = 0.0 if spread_b <= 0.0 else steep
            level = state_KS[row + 5, s] + sum_a * inverse - steep * (state_KS[row + 13, s] + sum_b * inverse)
            value = value if b_moves else 0.0
            steep = steep if b_moves else 0.0
            level = level if b_moves else 0.0
            out_OTS[correlation, t, s] = value if known else nan
            out_OTS[slope, t, s] = steep if known else nan
            out_OTS[rest, t, s] = level if known else nan


def _market(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Simple returns of the close against those of the market over the last n: slope (beta), correlation, and what the
    close returns a bar beyond beta times the market (alpha). All 0 where the market's returns are equal.

    The scratch outputs are both returns.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            out_OTS[3, t, s] = x_CTS[0, t, s] / x_CTS[0, t - 1, s] - 1.0
            out_OTS[4, t, s] = x_CTS[1, t, s] / x_CTS[1, t - 1, s] - 1.0
    _together(out_OTS, 3, 4, 1, 0, 2, p[0], 1.0, state_KS, 1, first)


market = Indicator(
    name="market",
    kernel=_market,
    inputs=("close", "market"),
    params=(Param("n", 60, 3, 500),),
    outputs=(
        Output("beta", "ratio"),
        Output("market_correlation", "ratio", bounds=(-1.0, 1.0)),
        Output("market_alpha", "ratio"),
    ),
    scratch=2,
    state=21,
    past=lambda n: 1,
    own=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="least squares; TA-Lib BETA (market, close, n), W. Sharpe, A Simplified Model for Portfolio Analysis, 1963",
)


def _price_volume(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Correlation over n bars of close and logarithm of volume + 1, and of their changes: close over the close before
    and logarithm of volume over the volume before + 1. 0 where one of the two is all equal.

    After a volume of 0 the ratio counts as 0. The scratch outputs are these four and what nobody asks for.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            before, ratio = x_CTS[1, t - 1, s], x_CTS[1, t, s] / x_CTS[1, t - 1, s]
            out_OTS[2, t, s] = x_CTS[0, t, s]
            out_OTS[3, t, s] = x_CTS[1, t, s]
            out_OTS[4, t, s] = x_CTS[0, t, s] / x_CTS[0, t - 1, s]
            out_OTS[5, t, s] = ratio if before > 0.0 else 0.0
        for row in (3, 5):
            for s in range(x_CTS.shape[2]):
                value = out_OTS[row, t, s]
                out_OTS[row, t, s] = math.log((value if value > 0.0 else 0.0) + 1.0)
    _together(out_OTS, 2, 3, 0, 6, 6, p[0], 0.0, state_KS, 1, first)
    _together(out_OTS, 4, 5, 1, 6, 6, p[0], 1.0, state_KS, 21, first)


price_volume = Indicator(
    name="price_volume",
    kernel=_price_volume,
    inputs=("close", "volume"),
    params=(Param("n", 20, 3, 500),),
    outputs=(
        Output("price_volume_correlation", "ratio", bounds=(-1.0, 1.0)),
        Output("change_correlation", "ratio", bounds=(-1.0, 1.0)),
    ),
    scratch=5,
    state=41,
    past=lambda n: 1,
    own=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="Qlib Alpha158 CORR, CORD",
)

ALL = (market, price_volume)
