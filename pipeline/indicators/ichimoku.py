"""Ichimoku's lines and cloud. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import nan

from ..recurrence import Floats
from .rows import window_extremes
from .spec import Indicator, Output, Param


def _ichimoku(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Middles of the range over `short` (conversion) and `middle` bars (base); the cloud as it is drawn at this bar,
    span A the mean of the two lines, span B the middle over `long` bars, both of `middle` bars ago; and the close less
    that of `middle` bars ago, which says where the lagging line stands to prices.
    """
    m, size = int(p[1]), p[1]
    _centres(x_CTS, p[0], state_KS, out_OTS, 0, first)
    _centres(x_CTS, p[1], state_KS, out_OTS, 1, first)
    _centres(x_CTS, p[2], state_KS, out_OTS, 5, first)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            gap = x_CTS[2, t, s] - x_CTS[2, t - m, s]
            out_OTS[2, t, s] = 0.5 * (out_OTS[0, t - m, s] + out_OTS[1, t - m, s])
            out_OTS[3, t, s] = out_OTS[5, t - m, s]
            out_OTS[4, t, s] = gap if state_KS[0, s] + bar > size else nan


def _centres(x_CTS: Floats, size: float, state_KS: Floats, out_OTS: Floats, row: int, first: int) -> None:
    """Write the middle of highest high and lowest low over `size` bars to output `row`; output 2 is scratch."""
    n = int(size)
    window_extremes(x_CTS, 0, 1, out_OTS, row, 2, state_KS, first, n)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            centre = 0.5 * (out_OTS[row, t, s] + out_OTS[2, t, s])
            out_OTS[row, t, s] = centre if state_KS[0, s] + bar >= size else nan


ichimoku = Indicator(
    name="ichimoku",
    kernel=_ichimoku,
    inputs=("high", "low", "close"),
    params=(Param("short", 9, 2, 500), Param("middle", 26, 3, 750), Param("long", 52, 4, 1000)),
    outputs=(
        Output("ichimoku_conversion", "KRW", "price"),
        Output("ichimoku_base", "KRW", "price"),
        Output("ichimoku_span_a", "KRW", "price"),
        Output("ichimoku_span_b", "KRW", "price"),
        Output("ichimoku_lagging", "KRW", "price_change"),
    ),
    state=3,
    past=lambda short, middle, long: long,
    own=lambda short, middle, long: middle,
    scratch=1,
    ready=lambda short, middle, long: long + middle,
    warmup=lambda short, middle, long: long + middle,
    source="G. Hosoda, Ichimoku Kinko Hyo, 1968; of TA-Lib MIDPRICE",
    rising=("short", "middle", "long"),
)

ALL = (ichimoku,)
