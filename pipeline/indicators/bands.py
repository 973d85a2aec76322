"""Where prices stand among the last ones: bands and channels. See spec.py for the names used in kernels."""

from __future__ import annotations

import math
from math import nan

from ..recurrence import Floats
from .rows import window_extremes
from .running import anchored, full_range, smoothed, typical, unchanged
from .spec import Indicator, Output, Param, forgets


def _bollinger(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of n closes plus and less k population deviations (upper, lower), %b = (close - lower) / (upper - lower),
    width = (upper - lower) / mean, and z-score = (close - mean) / deviation.

    Where the n closes are equal the width is 0, %b 0.5 and the z-score 0.
    """
    n, size, k, half = int(p[0]), p[0], p[1], 0.5 / p[1]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            equal = unchanged(state_KS[9, s], close == x_CTS[0, t - 1, s], count)
            state_KS[9, s] = equal
            anchor, mean, variance = anchored(state_KS, 1, s, close, x_CTS[0, t - n, s], count, size)
            deviation = math.sqrt(variance if equal < size - 1.0 else 0.0)
            z = ((close - anchor) - mean) / deviation
            z = 0.0 if deviation == 0.0 else z
            known = count >= size
            z = z if known else nan
            centre, reach = anchor + mean, k * deviation
            width = 2.0 * reach / centre
            out_OTS[0, t, s] = centre + reach if known else nan
            out_OTS[1, t, s] = centre - reach if known else nan
            out_OTS[2, t, s] = half * z + 0.5
            out_OTS[3, t, s] = width if known else nan
            out_OTS[4, t, s] = z


bollinger = Indicator(
    name="bollinger",
    kernel=_bollinger,
    inputs=("close",),
    params=(Param("n", 20, 2, 500), Param("k", 2, 0.1, 10, whole=False)),
    outputs=(
        Output("bollinger_upper", "KRW", "price"),
        Output("bollinger_lower", "KRW", "price"),
        Output("bollinger_percent_b", "ratio"),
        Output("bollinger_width", "ratio"),
        Output("zscore", "number", params=("n",)),
    ),
    state=10,
    past=lambda n, k: n,
    ready=lambda n, k: n,
    warmup=lambda n, k: 2 * n,
    source="TA-Lib BBANDS (n, k, k, 0); %b and width after J. Bollinger, Bollinger on Bollinger Bands, 2001",
)


def _keltner(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Exponential mean of n typical prices plus and less k mean true ranges (Wilder, m bars); place of the close in
    the band and width over mean. Both means begin so that they are known from the same bar on.

    The place is 0.5 where the width is below 1e-9 of the mean: what is left of a halted price is rounding.
    """
    size, m, k, weight, share = p[0], p[1], p[2], 2.0 / (p[0] + 1.0), 1.0 / p[1]
    last = size if size > m else m + 1.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, close, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[2, t - 1, s]
            centre = smoothed(state_KS[1, s], typical(high, low, close), count - last + size, size, weight)
            mean = smoothed(state_KS[2, s], full_range(high, low, before), count - last + m, m, share)
            state_KS[1, s] = centre
            state_KS[2, s] = mean
            arm = k * mean
            place, width = 0.5 * (close - centre) / arm, 2.0 * arm / centre
            place = place if width > 1e-9 else 0.0
            known = count >= last
            out_OTS[0, t, s] = centre + arm if known else nan
            out_OTS[1, t, s] = centre - arm if known else nan
            out_OTS[2, t, s] = place + 0.5 if known else nan
            out_OTS[3, t, s] = width if known else nan


keltner = Indicator(
    name="keltner",
    kernel=_keltner,
    inputs=("high", "low", "close"),
    params=(Param("n", 20, 2, 500), Param("m", 10, 2, 500), Param("k", 2, 0.1, 20, whole=False)),
    outputs=(
        Output("keltner_upper", "KRW", "price"),
        Output("keltner_lower", "KRW", "price"),
        Output("keltner_place", "ratio"),
        Output("keltner_width", "ratio"),
    ),
    state=3,
    past=lambda n, m, k: 1,
    ready=lambda n, m, k: max(n, m + 1),
    warmup=lambda n, m, k: max(n, m + 1) + max(forgets(1 - 2 / (n + 1)), forgets(1 - 1 / m)),
    counts="changes",
    source="TA-Lib KC (C. Keltner, How to Make Money in Commodities, 1960; L. B. Raschke)",
)


def _donchian(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Highest high, lowest low and their middle over the last n bars, their distance over the middle, and the place of
    the close between them; both are 0 where there is no range. The window holds the bar itself: donchian_before is the
    channel that a close can leave.
    """
    n, size = int(p[0]), p[0]
    window_extremes(x_CTS, 0, 1, out_OTS, 0, 1, state_KS, first, n)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            high, low, close = out_OTS[0, t, s], out_OTS[1, t, s], x_CTS[2, t, s]
            middle, reach = 0.5 * (high + low), high - low
            width, place = reach / middle, (close - low) / reach
            width = width if reach > 0.0 else 0.0
            place = place if reach > 0.0 else 0.0
            known = state_KS[0, s] + bar >= size
            out_OTS[0, t, s] = high if known else nan
            out_OTS[1, t, s] = low if known else nan
            out_OTS[2, t, s] = middle if known else nan
            out_OTS[3, t, s] = width if known else nan
            out_OTS[4, t, s] = place if known else nan


donchian = Indicator(
    name="donchian",
    kernel=_donchian,
    inputs=("high", "low", "close"),
    params=(Param("n", 20, 2, 1000),),
    outputs=(
        Output("donchian_upper", "KRW", "price"),
        Output("donchian_lower", "KRW", "price"),
        Output("donchian_middle", "KRW", "price"),
        Output("donchian_width", "ratio"),
        Output("donchian_place", "ratio", bounds=(0.0, 1.0)),
    ),
    state=3,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib DONCHIAN",
)


def _donchian_before(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Highest high and lowest low over the n bars before this one: a close beyond them is a breakout.

    The scratch outputs are those of the windows that hold the bar, read back from the bar before.
    """
    n, size = int(p[0]), p[0]
    window_extremes(x_CTS, 0, 1, out_OTS, 2, 3, state_KS, first, n)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            known = state_KS[0, s] + bar > size
            high, low = out_OTS[2, t - 1, s], out_OTS[3, t - 1, s]
            out_OTS[0, t, s] = high if known else nan
            out_OTS[1, t, s] = low if known else nan


donchian_before = Indicator(
    name="donchian_before",
    kernel=_donchian_before,
    inputs=("high", "low"),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("donchian_upper_before", "KRW", "price"), Output("donchian_lower_before", "KRW", "price")),
    scratch=2,
    state=3,
    past=lambda n: n,
    own=lambda n: 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="TA-Lib DONCHIAN of the bar before (R. Donchian)",
)

ALL = (bollinger, keltner, donchian, donchian_before)
