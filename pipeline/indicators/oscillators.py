"""Where prices stand in what they lately did: stochastic, CCI, ultimate. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import nan

from ..recurrence import Floats
from .rows import window_extremes
from .running import gain_and_loss, lasts, two_sums, typical, unchanged
from .spec import Indicator, Output, Param, forgets


def _stochastic(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Place of the close in the range of the last n bars: fast %K = 100 (close - lowest) / (highest - lowest), slow %K
    the mean of 3 of it, slow %D the mean of 3 of that, Williams %R = fast %K - 100; 0 where there is no range.
    """
    n, size = int(p[0]), p[0]
    window_extremes(x_CTS, 0, 1, out_OTS, 2, 3, state_KS, first, n)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            highest, lowest, close = out_OTS[2, t, s], out_OTS[3, t, s], x_CTS[2, t, s]
            scale = 100.0 / (highest - lowest)
            scale = scale if highest != lowest else 0.0
            known = state_KS[0, s] + bar >= size
            out_OTS[0, t, s] = (close - lowest) * scale if known else nan
            out_OTS[3, t, s] = (close - highest) * scale if known else nan
        for s in range(x_CTS.shape[2]):
            now, before, earlier = out_OTS[0, t, s], out_OTS[0, t - 1, s], out_OTS[0, t - 2, s]
            older = 2.0 * out_OTS[0, t - 3, s] + out_OTS[0, t - 4, s]
            out_OTS[1, t, s] = (now + before + earlier) * (1.0 / 3.0)
            out_OTS[2, t, s] = (now + 2.0 * before + 3.0 * earlier + older) * (1.0 / 9.0)


stochastic = Indicator(
    name="stochastic",
    kernel=_stochastic,
    inputs=("high", "low", "close"),
    params=(Param("n", 14, 2, 500),),
    outputs=(
        Output("fast_k", "percent"),
        Output("slow_k", "percent"),
        Output("slow_d", "percent"),
        Output("williams_r", "percent"),
    ),
    state=3,
    past=lambda n: n,
    own=lambda n: 4,
    ready=lambda n: n + 4,
    warmup=lambda n: n + 4,
    source="TA-Lib STOCHF (n, 3), STOCH (n, 3, 3), WILLR; TA-Lib hides what is known before the slowest of a function",
)


def _stoch_rsi(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Place of the RSI over n in the range of its last k values, times 100, and the mean of d of it; 0 where there is
    no range, that is one below 1e-9, which only rounding leaves.

    The scratch output is the RSI, read back as the window.
    """
    n, k, d = p[0], int(p[1]), int(p[2])
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            change = x_CTS[0, t, s] - x_CTS[0, t - 1, s]
            up, down = gain_and_loss(state_KS, 3, s, change, count - 1.0, n)
            both = up + down
            value = 100.0 * (up / both)
            out_OTS[2, t, s] = value if lasts(both) else 0.0
    window_extremes(out_OTS, 2, 2, out_OTS, 0, 1, state_KS, first, k)  # reads row 2, writes the others
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            lowest = out_OTS[1, t, s]
            width = out_OTS[0, t, s] - lowest
            place = 100.0 * ((out_OTS[2, t, s] - lowest) / width)
            place = place if width > 1e-9 else 0.0
            out_OTS[0, t, s] = place if state_KS[0, s] + bar >= n + p[1] else nan
            out_OTS[1, t, s] = 0.0
        for j in range(t - d + 1, t + 1):
            for s in range(x_CTS.shape[2]):
                out_OTS[1, t, s] += out_OTS[0, j, s]
        for s in range(x_CTS.shape[2]):
            out_OTS[1, t, s] = out_OTS[1, t, s] / p[2]


stoch_rsi = Indicator(
    name="stoch_rsi",
    kernel=_stoch_rsi,
    inputs=("close",),
    params=(Param("n", 14, 2, 500), Param("k", 5, 2, 500), Param("d", 3, 1, 50)),
    outputs=(
        Output("stoch_rsi_k", "percent", bounds=(0.0, 100.0)),
        Output("stoch_rsi_d", "percent", bounds=(0.0, 100.0)),
    ),
    scratch=1,
    state=5,
    past=lambda n, k, d: 1,
    own=lambda n, k, d: max(k, d),
    ready=lambda n, k, d: n + k + d - 1,
    warmup=lambda n, k, d: n + k + d + forgets(1 - 1 / n, 1e-12),
    counts="changes",
    source="TA-Lib STOCHRSI (n, k, d, 0) (T. Chande and S. Kroll, The New Technical Trader, 1994)",
)


def _cci(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Distance of the typical price from its mean over n bars, in 0.015 of the mean absolute deviation; 0 where they
    are equal.

    The scratch output is the typical price, read back as the window.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            price = typical(x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s])
            state_KS[1, s] = unchanged(state_KS[1, s], price == out_OTS[1, t - 1, s], state_KS[0, s] + bar)
            state_KS[2, s] = 0.0
            out_OTS[0, t, s] = 0.0
            out_OTS[1, t, s] = price
        for j in range(t - n + 1, t + 1):
            for s in range(x_CTS.shape[2]):
                state_KS[2, s] += out_OTS[1, j, s]
        for s in range(x_CTS.shape[2]):
            state_KS[2, s] = state_KS[2, s] * inverse
        for j in range(t - n + 1, t + 1):
            for s in range(x_CTS.shape[2]):
                gap = out_OTS[1, j, s] - state_KS[2, s]
                out_OTS[0, t, s] += gap if gap > 0.0 else -gap
        for s in range(x_CTS.shape[2]):
            deviation = 0.015 * inverse * out_OTS[0, t, s]
            value = (out_OTS[1, t, s] - state_KS[2, s]) / deviation
            value = value if state_KS[1, s] < size - 1.0 else 0.0
            out_OTS[0, t, s] = value if state_KS[0, s] + bar >= size else nan
    for s in range(x_CTS.shape[2]):
        state_KS[2, s] = 0.0


cci = Indicator(
    name="cci",
    kernel=_cci,
    inputs=("high", "low", "close"),
    params=(Param("n", 20, 2, 200),),
    outputs=(Output("cci", "number"),),
    scratch=1,
    state=3,
    past=lambda n: 0,
    own=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib CCI (D. Lambert, 1980)",
)


def _pressure(x_CTS: Floats, t: int, s: int) -> tuple[float, float]:
    """Return the close less the true low, and the true range."""
    high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
    bottom = low if low < before else before
    return x_CTS[2, t, s] - bottom, (high if high > before else before) - bottom


def _add_share(
    x_CTS: Floats, size: float, weight: float, state_KS: Floats, row: int, out_OTS: Floats, first: int
) -> None:
    """Add `weight` times the share of the pressure in the true range, both summed over `size` changes, to output 0.

    State rows from `row` on: both sums, both fresh ones, the phase, and for how long there has been no range.
    """
    n = int(size)
    for t in range(first, out_OTS.shape[1]):
        bar = t - first + 1.0
        for s in range(out_OTS.shape[2]):
            count = state_KS[0, s] + bar - 1.0
            part, full = _pressure(x_CTS, t, s)
            gone, full_gone = _pressure(x_CTS, t - n, s)
            part = part if count > 0.0 else 0.0
            full = full if count > 0.0 else 0.0
            gone = gone if count > size else 0.0
            full_gone = full_gone if count > size else 0.0
            still = unchanged(state_KS[row + 5, s], full == 0.0, count + 1.0)
            over, under = two_sums(state_KS, row, s, part - gone, part, full - full_gone, full, count, size)
            state_KS[row + 5, s] = still
            value = over / under
            value = 0.0 if value < 0.0 else value
            value = 1.0 if value > 1.0 else value
            value = value if under > 0.0 and still < size else 0.0
            out_OTS[0, t, s] += weight * value if count >= size else nan


def _ultimate(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Share of the close less the true low in the true range, summed over three windows that weigh 4, 2 and 1, times
    100; a window without any range counts 0.
    """
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            out_OTS[0, t, s] = 0.0
    _add_share(x_CTS, p[0], 4.0, state_KS, 1, out_OTS, first)
    _add_share(x_CTS, p[1], 2.0, state_KS, 7, out_OTS, first)
    _add_share(x_CTS, p[2], 1.0, state_KS, 13, out_OTS, first)
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            out_OTS[0, t, s] = out_OTS[0, t, s] * (100.0 / 7.0)  # 7 times that is 100 to the bit


ultimate = Indicator(
    name="ultimate",
    kernel=_ultimate,
    inputs=("high", "low", "close"),
    params=(Param("short", 7, 1, 500), Param("middle", 14, 2, 750), Param("long", 28, 3, 1000)),
    outputs=(Output("ultimate", "percent", bounds=(0.0, 100.0)),),
    state=19,
    past=lambda short, middle, long: long + 1,
    ready=lambda short, middle, long: long + 1,
    warmup=lambda short, middle, long: 2 * long + 1,
    source="TA-Lib ULTOSC (L. Williams, The Ultimate Oscillator, 1985)",
    rising=("short", "middle", "long"),
)


def _balance_of_power(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Close less open over high less low of the bar; 0 where there is no range."""
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            width = x_CTS[1, t, s] - x_CTS[2, t, s]
            value = (x_CTS[3, t, s] - x_CTS[0, t, s]) / width
            out_OTS[0, t, s] = value if width > 0.0 else 0.0


balance_of_power = Indicator(
    name="balance_of_power",
    kernel=_balance_of_power,
    inputs=("open", "high", "low", "close"),
    params=(),
    outputs=(Output("balance_of_power", "ratio", bounds=(-1.0, 1.0)),),
    state=1,
    past=lambda: 0,
    ready=lambda: 1,
    warmup=lambda: 1,
    source="TA-Lib BOP",
)

ALL = (stochastic, stoch_rsi, cci, ultimate, balance_of_power)
