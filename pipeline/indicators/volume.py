"""How much is traded: on-balance volume, relative volume, money flow. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .spec import Indicator, Output, Param


def _obv(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sum of volumes, taken negative where the close fell and left out where it stayed; the first bar counts as a
    rise.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            close, before, volume = (
                x_CTS[0, t, s],
                x_CTS[0, t - 1, s],
                x_CTS[1, t, s],
            )  # before the first bar: 0 < close
            signed = volume if close > before else 0.0
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
            volume = x_CTS[0, t, s]
            total = state_KS[1, s] + (volume - x_CTS[0, t - n, s])
            state_KS[1, s] = total
            ratio = size * volume / total
            ratio = ratio if volume > 0.0 else 0.0
            out_OTS[0, t, s] = ratio if state_KS[0, s] + bar >= size else nan


relative_volume = Indicator(
    name="relative_volume",
    kernel=_relative_volume,
    inputs=("volume",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("relative_volume", "ratio", bounds=(0.0, inf)),),
    state=2,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="volume / TA-Lib SMA of it",
)


def _mfi(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Share of turnover on bars whose typical price rose in that on bars where it changed, over n bars, times 100.

    0 where that turnover is below 1, as in TA-Lib.
    """
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            now = (x_CTS[0, t, s] + x_CTS[1, t, s] + x_CTS[2, t, s]) * (1.0 / 3.0)
            before = (x_CTS[0, t - 1, s] + x_CTS[1, t - 1, s] + x_CTS[2, t - 1, s]) * (1.0 / 3.0)
            flow = now * x_CTS[3, t, s]
            flow = flow if count > 1.0 else 0.0
            up = flow if now > before else 0.0
            down = flow if now < before else 0.0
            now = (x_CTS[0, t - n, s] + x_CTS[1, t - n, s] + x_CTS[2, t - n, s]) * (1.0 / 3.0)
            before = (x_CTS[0, t - n - 1, s] + x_CTS[1, t - n - 1, s] + x_CTS[2, t - n - 1, s]) * (1.0 / 3.0)
            flow = now * x_CTS[3, t - n, s]
            flow = flow if count > size + 1.0 else 0.0
            left_up = flow if now > before else 0.0
            left_down = flow if now < before else 0.0
            still = state_KS[6, s] + 1.0
            still = still if up == 0.0 and down == 0.0 and count > 1.0 else 0.0
            state_KS[6, s] = still
            phase = state_KS[5, s] + 1.0
            phase = phase if count > 1.0 else 0.0
            renew = phase >= size
            fresh_ups, fresh_downs = state_KS[3, s] + up, state_KS[4, s] + down
            ups, downs = state_KS[1, s] + (up - left_up), state_KS[2, s] + (down - left_down)
            ups = fresh_ups if renew else ups
            downs = fresh_downs if renew else downs
            state_KS[1, s] = ups
            state_KS[2, s] = downs
            state_KS[3, s] = 0.0 if renew else fresh_ups
            state_KS[4, s] = 0.0 if renew else fresh_downs
            state_KS[5, s] = 0.0 if renew else phase
            ups = ups if ups > 0.0 else 0.0
            downs = downs if downs > 0.0 else 0.0
            both = ups + downs
            value = 100.0 * ups / (both if both >= 1.0 else 1.0)
            value = value if both >= 1.0 and still < size else 0.0
            out_OTS[0, t, s] = value if count > size else nan


mfi = Indicator(
    name="mfi",
    kernel=_mfi,
    inputs=("high", "low", "close", "volume"),
    params=(Param("n", 14, 2, 500),),
    outputs=(Output("mfi", "percent", bounds=(0.0, 100.0)),),
    state=7,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="TA-Lib MFI",
)
