"""Where money goes: volumes weighted by what the price did in their bar. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .running import smoothed, two_sums, typical, unchanged
from .spec import Indicator, Output, Param, forgets


def flow(high: float, low: float, close: float, volume: float) -> float:
    """Return the volume times the place of the close in its bar, -1 at the low to 1 at the high; 0 without a range."""
    place = ((close - low) - (high - close)) / (high - low)
    place = place if place < 1.0 else 1.0
    place = place if place > -1.0 else -1.0
    return volume * (place if high > low else 0.0)


def _mfi(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Share of turnover on bars whose typical price rose in that on bars where it changed, over n bars, times 100.

    0 where that turnover is below 1, as in TA-Lib.
    """
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            now = typical(x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s])
            before = typical(x_CTS[0, t - 1, s], x_CTS[1, t - 1, s], x_CTS[2, t - 1, s])
            flow = now * x_CTS[3, t, s]
            flow = flow if count > 1.0 else 0.0
            up = flow if now > before else 0.0
            down = flow if now < before else 0.0
            now = typical(x_CTS[0, t - n, s], x_CTS[1, t - n, s], x_CTS[2, t - n, s])
            before = typical(x_CTS[0, t - n - 1, s], x_CTS[1, t - n - 1, s], x_CTS[2, t - n - 1, s])
            flow = now * x_CTS[3, t - n, s]
            flow = flow if count > size + 1.0 else 0.0
            left_up = flow if now > before else 0.0
            left_down = flow if now < before else 0.0
            still = unchanged(state_KS[6, s], up == 0.0 and down == 0.0, count)
            ups, downs = two_sums(state_KS, 1, s, up - left_up, up, down - left_down, down, count - 1.0, size)
            state_KS[6, s] = still
            ups = ups if ups > 0.0 else 0.0
            downs = downs if downs > 0.0 else 0.0
            both = ups + downs
            value = 100.0 * (ups / (both if both >= 1.0 else 1.0))
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


def _ad(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sum of the volumes, each times the place of the close in its bar: 1 at the high, -1 at the low, 0 without a
    range.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            total = state_KS[1, s] + flow(x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[3, t, s])
            state_KS[1, s] = total
            out_OTS[0, t, s] = total


ad = Indicator(
    name="ad",
    kernel=_ad,
    inputs=("high", "low", "close", "volume"),
    params=(),
    outputs=(Output("ad", "shares", "volume"),),
    state=2,
    past=lambda: 0,
    ready=lambda: 1,
    warmup=lambda: inf,
    source="TA-Lib AD (M. Chaikin)",
)


def _chaikin(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Fast less slow exponential mean of the accumulation line `ad`, both begun with its first value.

    State holds how far each mean is from the line: unlike the line itself, that forgets its beginning.
    """
    slow, quick_share, slow_share = p[1], 1.0 - 2.0 / (p[0] + 1.0), 1.0 - 2.0 / (p[1] + 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            step = flow(x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[3, t, s])
            step = step if count > 1.0 else 0.0
            near = quick_share * (state_KS[1, s] - step)
            far = slow_share * (state_KS[2, s] - step)
            state_KS[1, s] = near
            state_KS[2, s] = far
            out_OTS[0, t, s] = near - far if count >= slow else nan


chaikin = Indicator(
    name="chaikin",
    kernel=_chaikin,
    inputs=("high", "low", "close", "volume"),
    params=(Param("fast", 3, 2, 500), Param("slow", 10, 3, 1000)),
    outputs=(Output("chaikin", "shares", "volume"),),
    state=3,
    past=lambda fast, slow: 0,
    ready=lambda fast, slow: slow,
    warmup=lambda fast, slow: slow + forgets(1 - 2 / (slow + 1)),
    source="TA-Lib ADOSC (M. Chaikin)",
    rising=("fast", "slow"),
)


def _cmf(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Sum of the volumes over n bars, each times the place of the close in its bar (see ad), over that of the volumes;
    0 where nothing was traded.
    """
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            volume, gone = x_CTS[3, t, s], x_CTS[3, t - n, s]
            step = flow(x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], volume)
            left = flow(x_CTS[0, t - n, s], x_CTS[1, t - n, s], x_CTS[2, t - n, s], gone)
            still = unchanged(state_KS[6, s], volume == 0.0, count + 1.0)
            flows, volumes = two_sums(state_KS, 1, s, step - left, step, volume - gone, volume, count, size)
            state_KS[6, s] = still
            value = flows / volumes
            value = 1.0 if value > 1.0 else value
            value = -1.0 if value < -1.0 else value
            value = value if still < size else 0.0
            out_OTS[0, t, s] = value if count >= size else nan


cmf = Indicator(
    name="cmf",
    kernel=_cmf,
    inputs=("high", "low", "close", "volume"),
    params=(Param("n", 20, 2, 500),),
    outputs=(Output("cmf", "ratio", bounds=(-1.0, 1.0)),),
    state=7,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="TA-Lib CMF (M. Chaikin)",
)


def _force(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Exponential mean over n bars of the change of the close times the volume, begun with the mean of the first n.

    A product beyond the range of floats counts as 0.
    """
    size, weight = p[0], 2.0 / (p[0] + 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            push = (x_CTS[0, t, s] - x_CTS[0, t - 1, s]) * x_CTS[1, t, s]
            push = push if abs(push) < inf else 0.0
            mean = smoothed(state_KS[1, s], push, count - 1.0, size, weight)
            state_KS[1, s] = mean
            out_OTS[0, t, s] = mean if count > size else nan


force = Indicator(
    name="force",
    kernel=_force,
    inputs=("close", "volume"),
    params=(Param("n", 13, 2, 500),),
    outputs=(Output("force", "KRW shares", "turnover"),),
    state=2,
    past=lambda n: 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1 + forgets(1 - 2 / (n + 1)),
    source="TA-Lib EFI (A. Elder, Trading for a Living, 1993)",
)

ALL = (mfi, ad, chaikin, cmf, force)
