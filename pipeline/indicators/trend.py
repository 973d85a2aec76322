"""Where prices go: differences of means, directional movement, Aroon. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import nan

from ..recurrence import Floats
from .rows import window_places
from .running import full_range, lasts, macd_line, smoothed
from .spec import Indicator, Output, Param, forgets


def _macd(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Fast less slow exponential mean of closes, its own exponential mean (signal), and the difference of the two
    (histogram).
    """
    fast, slow, signal = p[0], p[1], p[2]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            line, mean = macd_line(state_KS, 1, s, x_CTS[0, t, s], count, fast, slow, signal)
            known = count >= slow + signal - 1.0
            out_OTS[0, t, s] = line if known else nan
            out_OTS[1, t, s] = mean if known else nan
            out_OTS[2, t, s] = line - mean if known else nan


macd = Indicator(
    name="macd",
    kernel=_macd,
    inputs=("close",),
    params=(Param("fast", 12, 2, 500), Param("slow", 26, 3, 1000), Param("signal", 9, 2, 500)),
    outputs=(
        Output("macd", "KRW", "price_change"),
        Output("macd_signal", "KRW", "price_change"),
        Output("macd_histogram", "KRW", "price_change"),
    ),
    state=4,
    past=lambda fast, slow, signal: 0,
    ready=lambda fast, slow, signal: slow + signal - 1,
    warmup=lambda fast, slow, signal: slow + signal + 2 * forgets(1 - 2 / (max(slow, signal) + 1)),
    source="TA-Lib MACD",
    rising=("fast", "slow"),
)


def _ppo(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Fast less slow exponential mean of closes in percent of the slow one, 0 where that is 0; its own exponential mean
    (signal), and the difference of the two (histogram).

    Each mean begins with its own first closes, unlike those of MACD.
    """
    fast, slow, signal = p[0], p[1], p[2]
    w_fast, w_slow, w_signal = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0), 2.0 / (signal + 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            late = count - slow + 1.0
            quick = smoothed(state_KS[1, s], close, count, fast, w_fast)
            long = smoothed(state_KS[2, s], close, count, slow, w_slow)
            line = 100.0 * ((quick - long) / long)
            line = line if long != 0.0 else 0.0
            mean = smoothed(state_KS[3, s], line, late, signal, w_signal)
            state_KS[1, s] = quick
            state_KS[2, s] = long
            state_KS[3, s] = mean
            known = late >= signal
            out_OTS[0, t, s] = line if late > 0.0 else nan
            out_OTS[1, t, s] = mean if known else nan
            out_OTS[2, t, s] = line - mean if known else nan


ppo = Indicator(
    name="ppo",
    kernel=_ppo,
    inputs=("close",),
    params=(Param("fast", 12, 2, 500), Param("slow", 26, 3, 1000), Param("signal", 9, 2, 500)),
    outputs=(Output("ppo", "percent"), Output("ppo_signal", "percent"), Output("ppo_histogram", "percent")),
    state=4,
    past=lambda fast, slow, signal: 0,
    ready=lambda fast, slow, signal: slow + signal - 1,
    warmup=lambda fast, slow, signal: slow + signal + 2 * forgets(1 - 2 / (max(slow, signal) + 1)),
    source="TA-Lib PPO (fast, slow, 1); signal as that of MACD",
    rising=("fast", "slow"),
)


def _apo(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Fast less slow exponential mean of closes, each begun with its own first closes, unlike those of MACD."""
    fast, slow = p[0], p[1]
    w_fast, w_slow = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            quick = smoothed(state_KS[1, s], close, count, fast, w_fast)
            long = smoothed(state_KS[2, s], close, count, slow, w_slow)
            state_KS[1, s] = quick
            state_KS[2, s] = long
            out_OTS[0, t, s] = quick - long if count >= slow else nan


apo = Indicator(
    name="apo",
    kernel=_apo,
    inputs=("close",),
    params=(Param("fast", 12, 2, 500), Param("slow", 26, 3, 1000)),
    outputs=(Output("apo", "KRW", "price_change"),),
    state=3,
    past=lambda fast, slow: 0,
    ready=lambda fast, slow: slow,
    warmup=lambda fast, slow: slow + 2 * forgets(1 - 2 / (slow + 1)),
    source="TA-Lib APO (fast, slow, 1)",
    rising=("fast", "slow"),
)


def _adx(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """+DI = 100 x sum of +DM / sum of the true range, both by Wilder's smoothing over n; -DI likewise; ADX = Wilder's
    mean of 100 |+DI - -DI| / (+DI + -DI).

    +DM is the rise of the high where it is above the fall of the low and above 0, else 0; -DM is that fall likewise.
    All are 0 where there has been no range, or none for so long that its sum no longer `lasts`.
    """
    size, share = p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
            rise, fall = high - x_CTS[0, t - 1, s], x_CTS[1, t - 1, s] - low
            reach = full_range(high, low, before)
            up = rise if rise > fall else 0.0
            up = up if rise > 0.0 else 0.0
            down = fall if fall > rise else 0.0
            down = down if fall > 0.0 else 0.0
            second = count > 1.0
            reach = reach if second else 0.0
            up = up if second else 0.0
            down = down if second else 0.0
            keep = 1.0 - share if count > size else 1.0
            total, ups, downs, smooth = state_KS[1, s], state_KS[2, s], state_KS[3, s], state_KS[4, s]
            total = total * keep + reach
            ups = ups * keep + up
            downs = downs * keep + down
            some, scale = lasts(total), 100.0 / total
            scale = scale if some else 0.0
            plus, minus = ups * scale, downs * scale
            total = total if some else 0.0
            ups = ups if some else 0.0
            downs = downs if some else 0.0
            plus = plus if plus < 100.0 else 100.0
            minus = minus if minus < 100.0 else 100.0
            both, gap = plus + minus, plus - minus
            gap = gap if gap > 0.0 else -gap
            dx = 100.0 * (gap / both)
            dx = dx if both > 0.0 else 0.0
            smooth = smoothed(smooth, dx, count - size, size, share)
            state_KS[1, s] = total
            state_KS[2, s] = ups
            state_KS[3, s] = downs
            state_KS[4, s] = smooth
            out_OTS[0, t, s] = plus if count > size else nan
            out_OTS[1, t, s] = minus if count > size else nan
            out_OTS[2, t, s] = smooth if count >= 2.0 * size else nan


adx = Indicator(
    name="adx",
    kernel=_adx,
    inputs=("high", "low", "close"),
    params=(Param("n", 14, 2, 500),),
    outputs=(
        Output("plus_di", "percent", bounds=(0.0, 100.0)),
        Output("minus_di", "percent", bounds=(0.0, 100.0)),
        Output("adx", "percent", bounds=(0.0, 100.0)),
    ),
    state=5,
    past=lambda n: 1,
    ready=lambda n: 2 * n,
    warmup=lambda n: 2 * n + 2 * forgets(1 - 1 / n),
    counts="changes",
    source="TA-Lib PLUS_DI, MINUS_DI, ADX (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _aroon(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """100 (n - bars since) / n of the highest high (up) and the lowest low (down) of the last n + 1 bars, and up less
    down (oscillator); of equal ones the latest counts.
    """
    n, size, scale = int(p[0]), p[0], 100.0 / p[0]
    window_places(x_CTS, 0, 1.0, True, out_OTS, 2, 0, state_KS, first, n + 1)
    window_places(x_CTS, 1, -1.0, True, out_OTS, 2, 1, state_KS, first, n + 1)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            known = state_KS[0, s] + bar > size
            up, down = scale * out_OTS[0, t, s], scale * out_OTS[1, t, s]
            up = up if up < 100.0 else 100.0
            down = down if down < 100.0 else 100.0
            out_OTS[0, t, s] = up if known else nan
            out_OTS[1, t, s] = down if known else nan
            out_OTS[2, t, s] = up - down if known else nan


aroon = Indicator(
    name="aroon",
    kernel=_aroon,
    inputs=("high", "low"),
    params=(Param("n", 14, 2, 500),),
    outputs=(
        Output("aroon_up", "percent", bounds=(0.0, 100.0)),
        Output("aroon_down", "percent", bounds=(0.0, 100.0)),
        Output("aroon_oscillator", "percent", bounds=(-100.0, 100.0)),
    ),
    state=3,
    past=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="TA-Lib AROON, AROONOSC",
)

ALL = (macd, ppo, apo, adx, aroon)
