"""How much is traded, and on which side. See spec.py for the names used in kernels."""

from __future__ import annotations

import math
from math import inf, nan

from ..recurrence import Floats
from .running import anchored, one_sum, two_sums, unchanged
from .spec import Indicator, Output, Param


def _obv(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sum of volumes, taken negative where the close fell and left out where it stayed; the first bar counts as a
    rise.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            close, before, volume = x_CTS[0, t, s], x_CTS[0, t - 1, s], x_CTS[1, t, s]
            signed = volume if close > before else 0.0  # before the first bar: 0 < close
            signed = -volume if close < before else signed
            total = state_KS[1, s] + signed
            state_KS[1, s] = total
            out_OTS[0, t, s] = total


obv = Indicator(
    name="obv",
    kernel=_obv,
    inputs=("close", "volume"),
    params=(),
    outputs=(Output("obv", "shares", "volume"),),
    state=2,
    past=lambda: 1,
    ready=lambda: 1,
    warmup=lambda: inf,
    source="TA-Lib OBV (J. Granville, 1963)",
)


def _relative_volume(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Volume over its mean of the last n bars, this one included; 0 where nothing was traded."""
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count, volume = state_KS[0, s] + bar, x_CTS[0, t, s]
            total = one_sum(state_KS, 1, s, volume - x_CTS[0, t - n, s], volume, count, size)
            ratio = size * volume / total
            ratio = ratio if ratio > 0.0 else 0.0  # also 0 / 0, and what an absurd volume left
            out_OTS[0, t, s] = ratio if count >= size else nan


relative_volume = Indicator(
    name="relative_volume",
    kernel=_relative_volume,
    inputs=("volume",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("relative_volume", "ratio", bounds=(0.0, inf)),),
    state=4,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="volume / TA-Lib SMA of it",
)


def _volume_ratio(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Volume of bars that rose over that of bars that fell, times 100, over n changes of the close; where it stayed,
    half the volume is with each. 0 where nothing is in the denominator.
    """
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close, before, volume = x_CTS[0, t, s], x_CTS[0, t - 1, s], x_CTS[1, t, s]
            volume = volume if count > 1.0 else 0.0
            half = 0.5 * volume
            up = volume if close > before else (0.0 if close < before else half)
            down = volume if close < before else (0.0 if close > before else half)
            close, before, volume = x_CTS[0, t - n, s], x_CTS[0, t - n - 1, s], x_CTS[1, t - n, s]
            volume = volume if count > size + 1.0 else 0.0
            half = 0.5 * volume
            left_up = volume if close > before else (0.0 if close < before else half)
            left_down = volume if close < before else (0.0 if close > before else half)
            still = unchanged(state_KS[6, s], down == 0.0, count)
            ups, downs = two_sums(state_KS, 1, s, up - left_up, up, down - left_down, down, count - 1.0, size)
            state_KS[6, s] = still
            value = 100.0 * (ups if ups > 0.0 else 0.0) / downs
            value = 0.0 if value < 0.0 else value
            value = value if still < size else 0.0
            out_OTS[0, t, s] = value if count > size else nan


volume_ratio = Indicator(
    name="volume_ratio",
    kernel=_volume_ratio,
    inputs=("close", "volume"),
    params=(Param("n", 20, 2, 500),),
    outputs=(Output("volume_ratio", "percent", bounds=(0.0, inf)),),
    state=7,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="volume ratio (VR) of Korean and Japanese charts",
)


def _price_volume_trend(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sum of the volumes, each times the simple return of its bar; 0 at the first bar.

    A step that is no finite number (the close before is 0) counts as 0.
    """
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            step = (x_CTS[0, t, s] / x_CTS[0, t - 1, s] - 1.0) * x_CTS[1, t, s]
            step = step if abs(step) < inf else 0.0
            total = state_KS[1, s] + (step if state_KS[0, s] + bar > 1.0 else 0.0)
            state_KS[1, s] = total
            out_OTS[0, t, s] = total


price_volume_trend = Indicator(
    name="price_volume_trend",
    kernel=_price_volume_trend,
    inputs=("close", "volume"),
    params=(),
    outputs=(Output("price_volume_trend", "shares", "volume"),),
    state=2,
    past=lambda: 1,
    ready=lambda: 1,
    warmup=lambda: inf,
    source="TA-Lib PVT",
)


def _volume_deviation(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean and sample deviation of the volume over n bars, both over the volume; 0 where nothing was traded."""
    n, size, sample = int(p[0]), p[0], math.sqrt(p[0] / (p[0] - 1.0))
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            volume = x_CTS[0, t, s]
            equal = unchanged(state_KS[9, s], volume == x_CTS[0, t - 1, s], count)
            state_KS[9, s] = equal
            anchor, mean, variance = anchored(state_KS, 1, s, volume, x_CTS[0, t - n, s], count, size)
            deviation = sample * math.sqrt(variance if equal < size - 1.0 else 0.0)
            level, spread = (anchor + mean) / volume, deviation / volume
            level = 0.0 if level < 0.0 else level
            level = level if volume > 0.0 else 0.0
            spread = spread if volume > 0.0 else 0.0
            out_OTS[0, t, s] = level if count >= size else nan
            out_OTS[1, t, s] = spread if count >= size else nan


volume_deviation = Indicator(
    name="volume_deviation",
    kernel=_volume_deviation,
    inputs=("volume",),
    params=(Param("n", 20, 2, 500),),
    outputs=(
        Output("volume_mean_ratio", "ratio", bounds=(0.0, inf)),
        Output("volume_deviation_ratio", "ratio", bounds=(0.0, inf)),
    ),
    state=10,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="Qlib Alpha158 VMA and VSTD",
)

ALL = (obv, relative_volume, volume_ratio, price_volume_trend, volume_deviation)
