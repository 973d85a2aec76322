"""Where a trend counts as over: parabolic stop, Supertrend. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .running import full_range, smoothed
from .spec import Indicator, Output, Param


def _sar(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Wilder's parabolic stop: it nears the extreme of the move by a share that each new extreme raises by `step` up
    to `most`, and stays out of the range of the last two bars. A bar that touches it turns the move.
    """
    most = p[1]
    step = p[0] if p[0] < most else most
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, high_before, low_before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[0, t - 1, s], x_CTS[1, t - 1, s]
            falls, stop, extreme, share = state_KS[1, s], state_KS[2, s], state_KS[3, s], state_KS[4, s]
            second, drop = count == 2.0, low_before - low
            start = 1.0 if drop > high - high_before else 0.0
            start = start if drop > 0.0 else 0.0
            falls = start if second else falls
            down = falls > 0.5
            begin = high_before if down else low_before
            end = low if down else high
            stop = begin if second else stop
            extreme = end if second else extreme
            share = step if second else share
            top = high if high > high_before else high_before
            bottom = low if low < low_before else low_before
            top = high if second else top  # the first bar bounds only the first stop
            bottom = low if second else bottom
            touched = high >= stop if down else low <= stop
            above = extreme if extreme > top else top
            below = extreme if extreme < bottom else bottom
            turned = above if not down else below
            stop = turned if touched else stop
            falls = (0.0 if down else 1.0) if touched else falls
            down = falls > 0.5
            end = low if down else high
            farther = low < extreme if down else high > extreme
            more = share + step
            more = more if more < most else most
            more = more if farther else share
            share = step if touched else more
            extreme = end if touched or farther else extreme
            ahead = stop + share * (extreme - stop)
            above = ahead if ahead > top else top
            below = ahead if ahead < bottom else bottom
            ahead = above if down else below
            known = count >= 2.0
            state_KS[1, s] = falls if known else 0.0
            state_KS[2, s] = ahead if known else 0.0
            state_KS[3, s] = extreme if known else 0.0
            state_KS[4, s] = share if known else 0.0
            out_OTS[0, t, s] = stop if known else nan


sar = Indicator(
    name="sar",
    kernel=_sar,
    inputs=("high", "low"),
    params=(Param("step", 0.02, 0.0001, 1, whole=False), Param("most", 0.2, 0.0001, 1, whole=False)),
    outputs=(Output("sar", "KRW", "price"),),
    state=5,
    past=lambda step, most: 1,
    ready=lambda step, most: 2,
    warmup=lambda step, most: inf,
    source="TA-Lib SAR (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _supertrend(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Band k mean true ranges off the middle of the bar, on the side that holds the trend, and the direction, 1 up or
    -1 down. A band only nears prices until a close passes it; the trend turns when a close passes the band behind it.
    """
    size, k, share = p[0], p[1], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, close, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[2, t - 1, s]
            mean = smoothed(state_KS[1, s], full_range(high, low, before), count - 1.0, size, share)
            centre, width = 0.5 * (high + low), k * mean
            above, below = centre + width, centre - width
            upper, lower, falls = state_KS[2, s], state_KS[3, s], state_KS[4, s]
            begun = count > size + 1.0
            tight = above if above < upper else upper
            tight = above if before > upper else tight
            upper = tight if begun else above
            tight = below if below > lower else lower
            tight = below if before < lower else tight
            lower = tight if begun else below
            down = 0.0 if close > upper else 1.0
            up = 1.0 if close < lower else 0.0
            falls = down if falls > 0.5 else up
            falls = falls if begun else 0.0
            band = upper if falls > 0.5 else lower
            state_KS[1, s] = mean
            state_KS[2, s] = upper
            state_KS[3, s] = lower
            state_KS[4, s] = falls
            known = count > size
            out_OTS[0, t, s] = band if known else nan
            out_OTS[1, t, s] = 1.0 - 2.0 * falls if known else nan


supertrend = Indicator(
    name="supertrend",
    kernel=_supertrend,
    inputs=("high", "low", "close"),
    params=(Param("n", 10, 2, 500), Param("k", 3, 0.1, 20, whole=False)),
    outputs=(Output("supertrend", "KRW", "price"), Output("supertrend_direction", "number", bounds=(-1.0, 1.0))),
    state=5,
    past=lambda n, k: 1,
    ready=lambda n, k: n + 1,
    warmup=lambda n, k: inf,
    source="TA-Lib SUPERTREND (O. Seban)",
)

ALL = (sar, supertrend)
