"""What the order of the last n values says: quantiles, ranks, places of extremes. See spec.py for the names used in
kernels.
"""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .rows import window_places
from .spec import Indicator, Output, Param


def _quantile(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Value at place q * (n - 1) of the last n closes in rising order, between two of them in proportion.

    The scratch output holds the window in order, a[0] to a[n - 1], at rows t - n + 1 to t, with NaN at the end while it
    is not full. A bar takes the leaving close out, c[j] = a[j] if a[j] < leaving else a[j + 1], puts the new one in,
    max(c[j - 1], min(new, c[j])), and moves on by one row; from the last place to the first nothing is overwritten
    before it is read. State rows are scratch: c of the place before, the new and the leaving close.
    """
    n, size, place = int(p[0]), p[0], p[1] * (p[0] - 1.0)
    below = min(int(place), n - 2)
    share = place - below
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count, new, leaving = state_KS[0, s] + bar, x_CTS[0, t, s], x_CTS[0, t - n, s]
            state_KS[1, s] = nan
            state_KS[2, s] = new if count > 0.0 else nan
            state_KS[3, s] = leaving if count > size else inf
        for j in range(t, t - n + 1, -1):
            for s in range(x_CTS.shape[2]):
                before, after, new = out_OTS[1, j - 2, s], out_OTS[1, j - 1, s], state_KS[2, s]
                above = state_KS[1, s]
                under = before if before < state_KS[3, s] else after
                least = above if above < new else new
                out_OTS[1, j, s] = least if least > under else under  # NaN where `under` is
                state_KS[1, s] = under
        for s in range(x_CTS.shape[2]):
            above, new = state_KS[1, s], state_KS[2, s]
            out_OTS[1, t - n + 1, s] = above if above < new else new
        for s in range(x_CTS.shape[2]):
            low, high = out_OTS[1, t - n + 1 + below, s], out_OTS[1, t - n + 2 + below, s]
            value = low + share * (high - low) if share < 0.5 else high - (1.0 - share) * (high - low)
            out_OTS[0, t, s] = value if state_KS[0, s] + bar >= size else nan
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0
        state_KS[3, s] = 0.0


quantile = Indicator(
    name="quantile",
    kernel=_quantile,
    inputs=("close",),
    params=(Param("n", 20, 2, 250), Param("q", 0.5, 0, 1, whole=False)),
    outputs=(Output("quantile", "KRW", "price"),),
    scratch=1,
    state=4,
    past=lambda n, q: n,
    own=lambda n, q: n,
    ready=lambda n, q: n,
    warmup=lambda n, q: n,
    source="numpy.quantile, linear (Qlib QTLU, QTLD)",
)


def _rank(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Rank of the close among the last n over n, equal ones taking the mean of their ranks."""
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            out_OTS[0, t, s] = 1.0
        for j in range(t - n + 1, t + 1):
            for s in range(x_CTS.shape[2]):
                close, other = x_CTS[0, t, s], x_CTS[0, j, s]
                out_OTS[0, t, s] += (1.0 if other < close else 0.0) + (1.0 if other <= close else 0.0)
        for s in range(x_CTS.shape[2]):
            value = out_OTS[0, t, s] / (2.0 * size)
            out_OTS[0, t, s] = value if state_KS[0, s] + bar >= size else nan


rank = Indicator(
    name="rank",
    kernel=_rank,
    inputs=("close",),
    params=(Param("n", 20, 2, 250),),
    outputs=(Output("rank", "ratio", bounds=(0.0, 1.0)),),
    state=1,
    past=lambda n: n - 1,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="pandas Rolling.rank(pct=True) (Qlib RANK)",
)


def _argextremes(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Place of the highest high and of the lowest low among the last n bars over n, the oldest 1 / n, this one 1, and
    the first less the second; of equal ones the oldest counts.
    """
    n, size = int(p[0]), p[0]
    window_places(x_CTS, 0, 1.0, False, out_OTS, 2, 0, state_KS, first, n)
    window_places(x_CTS, 1, -1.0, False, out_OTS, 2, 1, state_KS, first, n)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            known = state_KS[0, s] + bar >= size
            high, low = (out_OTS[0, t, s] + 1.0) / size, (out_OTS[1, t, s] + 1.0) / size
            out_OTS[0, t, s] = high if known else nan
            out_OTS[1, t, s] = low if known else nan
            out_OTS[2, t, s] = high - low if known else nan


argextremes = Indicator(
    name="argextremes",
    kernel=_argextremes,
    inputs=("high", "low"),
    params=(Param("n", 20, 2, 500),),
    outputs=(
        Output("argmax", "ratio", bounds=(0.0, 1.0)),
        Output("argmin", "ratio", bounds=(0.0, 1.0)),
        Output("argmax_less_argmin", "ratio", bounds=(-1.0, 1.0)),
    ),
    state=3,
    past=lambda n: n - 1,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="numpy.argmax, numpy.argmin (Qlib IMAX, IMIN, IMXD)",
)

ALL = (quantile, rank, argextremes)
