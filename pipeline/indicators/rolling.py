"""What the last n bars hold: extremes, deviation, moments. See spec.py for the names used in kernels."""

from __future__ import annotations

import math
from math import inf, nan

from ..recurrence import Floats
from .rows import window_extremes
from .running import anchored, two_sums, unchanged
from .spec import Indicator, Output, Param


def _extremes(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Highest high and lowest low of the last n bars, and the close over each, less one.

    With closes as the only input they stand for highs and lows.
    """
    n, size = int(p[0]), p[0]
    below, last = x_CTS.shape[0] // 2, x_CTS.shape[0] - 1
    window_extremes(x_CTS, 0, below, out_OTS, 0, 1, state_KS, first, n)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            high, low, close = out_OTS[0, t, s], out_OTS[1, t, s], x_CTS[last, t, s]
            under, above = close / high - 1.0, close / low - 1.0
            known = state_KS[0, s] + bar >= size
            out_OTS[0, t, s] = high if known else nan
            out_OTS[1, t, s] = low if known else nan
            out_OTS[2, t, s] = under if known else nan
            out_OTS[3, t, s] = above if known else nan


extremes = Indicator(
    name="extremes",
    kernel=_extremes,
    inputs=("high", "low", "close"),
    params=(Param("n", 20, 2, 1000),),
    outputs=(
        Output("highest", "KRW", "price"),
        Output("lowest", "KRW", "price"),
        Output("high_distance", "ratio"),
        Output("low_distance", "ratio"),
    ),
    state=3,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib MAX of highs, MIN of lows",
)


close_extremes = Indicator(
    name="close_extremes",
    kernel=_extremes,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(
        Output("highest_close", "KRW", "price"),
        Output("lowest_close", "KRW", "price"),
        Output("high_close_distance", "ratio", bounds=(-1.0, 0.0)),
        Output("low_close_distance", "ratio", bounds=(0.0, inf)),
    ),
    state=3,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib MAX and MIN of closes",
)


def _deviation(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sample standard deviation of the last n closes; 0 where they are equal."""
    n, size, sample = int(p[0]), p[0], math.sqrt(p[0] / (p[0] - 1.0))
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            equal = unchanged(state_KS[9, s], close == x_CTS[0, t - 1, s], count)
            state_KS[9, s] = equal
            _, _, variance = anchored(state_KS, 1, s, close, x_CTS[0, t - n, s], count, size)
            deviation = sample * math.sqrt(variance if equal < size - 1.0 else 0.0)
            out_OTS[0, t, s] = deviation if count >= size else nan


deviation = Indicator(
    name="deviation",
    kernel=_deviation,
    inputs=("close",),
    params=(Param("n", 20, 2, 500),),
    outputs=(Output("deviation", "KRW", "price_change", bounds=(0.0, inf)),),
    state=10,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="pandas Rolling.std (Qlib STD)",
)


def _moments(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean third power of the distance from the mean over the deviation cubed (skew) and mean fourth power over its
    fourth, less 3 (kurtosis), of the last n simple returns; both 0 where the returns are all but equal (deviation <
    1e-6 rms).
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            r = x_CTS[0, t, s] / x_CTS[0, t - 1, s] - 1.0
            q = x_CTS[0, t - n, s] / x_CTS[0, t - n - 1, s] - 1.0
            r = r if count > 1.0 else 0.0
            q = q if count > size + 1.0 else 0.0
            still = unchanged(state_KS[11, s], r == 0.0, count)
            state_KS[11, s] = still
            r2, q2 = r * r, q * q
            r3, r4, turn3, turn4 = r2 * r, r2 * r2, r2 * r - q2 * q, r2 * r2 - q2 * q2
            sum1, sum2 = two_sums(state_KS, 1, s, r - q, r, r2 - q2, r2, count - 1.0, size)
            sum3, sum4 = two_sums(state_KS, 6, s, turn3, r3, turn4, r4, count - 1.0, size)
            mean, square = sum1 * inverse, sum2 * inverse
            variance = square - mean * mean
            third = sum3 * inverse - 3.0 * mean * square + 2.0 * mean * mean * mean
            fourth = (
                sum4 * inverse
                - 4.0 * mean * sum3 * inverse
                + 6.0 * mean * mean * square
                - 3.0 * mean * mean * mean * mean
            )
            skew = third / (variance * math.sqrt(variance if variance > 0.0 else 1.0))
            kurtosis = fourth / (variance * variance) - 3.0
            level = variance <= 1e-12 * square or still >= size
            known = count > size
            out_OTS[0, t, s] = (0.0 if level else skew) if known else nan
            out_OTS[1, t, s] = (0.0 if level else kurtosis) if known else nan


moments = Indicator(
    name="moments",
    kernel=_moments,
    inputs=("close",),
    params=(Param("n", 20, 3, 500),),
    outputs=(Output("skew", "number"), Output("kurtosis", "number")),
    state=12,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="third and fourth standardised population moments (scipy.stats.skew, kurtosis)",
    tolerance=1e-7,
)

ALL = (extremes, close_extremes, deviation, moments)
