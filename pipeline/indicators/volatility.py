"""How far prices go: true range, deviation of returns and its estimates. See spec.py for the names used in kernels."""

from __future__ import annotations

import math
from math import inf, nan

from ..recurrence import Floats
from .rows import log_ratio
from .running import full_range, lasts, renewed, smoothed, two_sums, unchanged
from .spec import Indicator, Output, Param, forgets


def _atr(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Wilder's mean of the true range, and the same in percent of the close."""
    size, share = p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
            mean = smoothed(state_KS[1, s], full_range(high, low, before), count - 1.0, size, share)
            state_KS[1, s] = mean
            percent = 100.0 * mean / x_CTS[2, t, s]
            out_OTS[0, t, s] = mean if count > size else nan
            out_OTS[1, t, s] = percent if count > size else nan


atr = Indicator(
    name="atr",
    kernel=_atr,
    inputs=("high", "low", "close"),
    params=(Param("n", 14, 2, 500),),
    outputs=(Output("atr", "KRW", "price_change", bounds=(0.0, inf)), Output("natr", "percent", bounds=(0.0, inf))),
    state=2,
    past=lambda n: 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + forgets(1 - 1 / n),
    source="TA-Lib ATR, NATR (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _atr_ratio(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Wilder's mean of the true range over n bars in its own exponential mean over m, begun with the mean of its first
    m: 1 is the usual range, 2 twice that; 0 where there has been no range, or none for long.
    """
    n, m, share, weight = p[0], p[1], 1.0 / p[0], 2.0 / (p[1] + 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
            mean = smoothed(state_KS[1, s], full_range(high, low, before), count - 1.0, n, share)
            usual = smoothed(state_KS[2, s], mean, count - n, m, weight)
            state_KS[1, s] = mean
            state_KS[2, s] = usual
            ratio = mean / usual
            ratio = ratio if lasts(usual) else 0.0
            out_OTS[0, t, s] = ratio if count >= n + m else nan


atr_ratio = Indicator(
    name="atr_ratio",
    kernel=_atr_ratio,
    inputs=("high", "low", "close"),
    params=(Param("n", 14, 2, 500), Param("m", 100, 2, 1000)),
    outputs=(Output("atr_ratio", "ratio", bounds=(0.0, inf)),),
    state=3,
    past=lambda n, m: 1,
    ready=lambda n, m: n + m,
    warmup=lambda n, m: n + m + 2 * max(forgets(1 - 1 / n), forgets(1 - 2 / (m + 1))),
    counts="changes",
    source="TA-Lib ATR over TA-Lib EMA of it",
)


def _true_range(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Range of the bar and the close before it."""
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
            reach = full_range(high, low, before)
            out_OTS[0, t, s] = reach if state_KS[0, s] + bar > 1.0 else nan


true_range = Indicator(
    name="true_range",
    kernel=_true_range,
    inputs=("high", "low", "close"),
    params=(),
    outputs=(Output("true_range", "KRW", "price_change", bounds=(0.0, inf)),),
    state=1,
    past=lambda: 1,
    ready=lambda: 2,
    warmup=lambda: 2,
    source="TA-Lib TRANGE (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _volatility(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Logarithm of close over the close before, and its population deviation over n bars.

    Without a positive price there is no logarithm: NaN, for the deviation until its sums are renewed.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        log_ratio(x_CTS, 0, t, 0, t - 1, out_OTS, 0)
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            entering, leaving = out_OTS[0, t, s], out_OTS[0, t - n, s]
            entering = entering if count > 1.0 else 0.0
            leaving = leaving if count > size + 1.0 else 0.0
            still = unchanged(state_KS[6, s], entering == 0.0, count)
            step, turn = entering - leaving, (entering - leaving) * (entering + leaving)
            total, squares = two_sums(state_KS, 1, s, step, entering, turn, entering * entering, count - 1.0, size)
            state_KS[6, s] = still
            out_OTS[0, t, s] = entering if count > 1.0 else nan
            mean = total * inverse
            variance = squares * inverse - mean * mean
            variance = variance if still < size else 0.0
            deviation = math.sqrt(0.0 if variance < 0.0 else variance)
            out_OTS[1, t, s] = deviation if count > size else nan


volatility = Indicator(
    name="volatility",
    kernel=_volatility,
    inputs=("close",),
    params=(Param("n", 20, 2, 500),),
    outputs=(Output("log_return", "ratio", params=()), Output("volatility", "ratio", bounds=(0.0, inf))),
    state=7,
    past=lambda n: 1,
    own=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="logarithm of the ratio of closes; TA-Lib STDDEV of it",
)


def _range_volatility(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Deviation of a bar's logarithmic return over n bars: root mean square of returns, and the estimates of Parkinson,
    Garman and Klass, Rogers and Satchell, Yang and Zhang from open, high, low and close. Not annualised.

    Each is the root of a mean over n bars. With h, l and c the logarithms of high, low and close over the open:
    Parkinson of (h - l)^2 / (4 log 2); Garman and Klass of (h - l)^2 / 2 - (2 log 2 - 1) c^2; Rogers and Satchell of
    h (h - c) + l (l - c). Yang and Zhang: the root of var(open over the close before) + k var(c) + (1 - k) the square
    of Rogers and Satchell's, sample variances, k = 0.34 / (1.34 + (n + 1) / (n - 1)).

    A negative sum counts as 0; a bar without a positive price has no logarithm: NaN until the sums are renewed. The
    scratch outputs are logarithms of high, low and close over open, and of open over the close before. Loops that read
    outputs write none: the compiler can then test once for all bars that rows do not overlap.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    quarter, middle = 0.25 * inverse / math.log(2.0), (2.0 * math.log(2.0) - 1.0) * inverse
    k, sample = 0.34 / (1.34 + (size + 1.0) / (size - 1.0)), 1.0 / (size - 1.0)
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        log_ratio(x_CTS, 1, t, 0, t, out_OTS, 5)
        log_ratio(x_CTS, 2, t, 0, t, out_OTS, 6)
        log_ratio(x_CTS, 3, t, 0, t, out_OTS, 7)
        log_ratio(x_CTS, 0, t, 3, t - 1, out_OTS, 8)
        for s in range(x_CTS.shape[2]):  # from this bar alone
            count = state_KS[0, s] + bar
            up, down, day = out_OTS[5, t, s], out_OTS[6, t, s], out_OTS[7, t, s]
            up_gone, down_gone, day_gone = out_OTS[5, t - n, s], out_OTS[6, t - n, s], out_OTS[7, t - n, s]
            up = up if count > 0.0 else 0.0
            down = down if count > 0.0 else 0.0
            day = day if count > 0.0 else 0.0
            up_gone = up_gone if count > size else 0.0
            down_gone = down_gone if count > size else 0.0
            day_gone = day_gone if count > size else 0.0
            reach, reach_gone = up - down, up_gone - down_gone
            drift = up * (up - day) + down * (down - day)
            drift_gone = up_gone * (up_gone - day_gone) + down_gone * (down_gone - day_gone)
            state_KS[11, s] = unchanged(state_KS[11, s], reach == 0.0, count + 1.0)
            state_KS[21, s] = unchanged(state_KS[21, s], drift == 0.0, count + 1.0)
            change, turn = (reach - reach_gone) * (reach + reach_gone), (day - day_gone) * (day + day_gone)
            two_sums(state_KS, 1, s, change, reach * reach, drift - drift_gone, drift, count, size)
            two_sums(state_KS, 6, s, day - day_gone, day, turn, day * day, count, size)
        for s in range(x_CTS.shape[2]):  # with the close before
            count = state_KS[0, s] + bar
            night, night_gone = out_OTS[8, t, s], out_OTS[8, t - n, s]
            change, change_gone = night + out_OTS[7, t, s], night_gone + out_OTS[7, t - n, s]
            change = 0.0 if x_CTS[3, t, s] == x_CTS[3, t - 1, s] else change
            change_gone = 0.0 if x_CTS[3, t - n, s] == x_CTS[3, t - n - 1, s] else change_gone
            night = night if count > 1.0 else 0.0
            change = change if count > 1.0 else 0.0
            night_gone = night_gone if count > size + 1.0 else 0.0
            change_gone = change_gone if count > size + 1.0 else 0.0
            state_KS[17, s] = unchanged(state_KS[17, s], night == 0.0, count)
            state_KS[18, s] = unchanged(state_KS[18, s], change == 0.0, count)
            turn, turns = (night - night_gone) * (night + night_gone), (change - change_gone) * (change + change_gone)
            two_sums(state_KS, 12, s, night - night_gone, night, turn, night * night, count - 1.0, size)
            renew = state_KS[16, s] == 0.0
            changes, fresh = renewed(state_KS[19, s], turns, state_KS[20, s], change * change, renew)
            state_KS[19, s] = changes
            state_KS[20, s] = fresh
        for s in range(x_CTS.shape[2]):
            count, moves = state_KS[0, s] + bar, state_KS[11, s] < size
            reaches, drifts, days, squares = state_KS[1, s], state_KS[2, s], state_KS[6, s], state_KS[7, s]
            nights, night_squares, changes = state_KS[12, s], state_KS[13, s], state_KS[19, s]
            parkinson, klass, satchell = quarter * reaches, 0.5 * inverse * reaches - middle * squares, inverse * drifts
            parkinson = parkinson if moves else 0.0
            klass = klass if moves else 0.0
            satchell = satchell if state_KS[21, s] < size else 0.0
            within = sample * (squares - days * days * inverse)
            within = within if moves else 0.0
            between = sample * (night_squares - nights * nights * inverse)
            between = between if state_KS[17, s] < size else 0.0
            both = between + k * within + (1.0 - k) * satchell
            realised = inverse * changes
            realised = realised if state_KS[18, s] < size else 0.0
            out_OTS[0, t, s] = math.sqrt(0.0 if realised < 0.0 else realised) if count > size else nan
            out_OTS[1, t, s] = math.sqrt(0.0 if parkinson < 0.0 else parkinson) if count >= size else nan
            out_OTS[2, t, s] = math.sqrt(0.0 if klass < 0.0 else klass) if count >= size else nan
            out_OTS[3, t, s] = math.sqrt(0.0 if satchell < 0.0 else satchell) if count >= size else nan
            out_OTS[4, t, s] = math.sqrt(0.0 if both < 0.0 else both) if count > size else nan


range_volatility = Indicator(
    name="range_volatility",
    kernel=_range_volatility,
    inputs=("open", "high", "low", "close"),
    params=(Param("n", 20, 2, 500),),
    outputs=(
        Output("realised", "ratio", bounds=(0.0, inf)),
        Output("parkinson", "ratio", bounds=(0.0, inf)),
        Output("garman_klass", "ratio", bounds=(0.0, inf)),
        Output("rogers_satchell", "ratio", bounds=(0.0, inf)),
        Output("yang_zhang", "ratio", bounds=(0.0, inf)),
    ),
    scratch=4,
    state=22,
    past=lambda n: n + 1,
    own=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="M. Parkinson 1980, M. Garman and M. Klass 1980, L. Rogers and S. Satchell 1991, "
    "D. Yang and Q. Zhang, Drift-Independent Volatility Estimation, 2000",
)

ALL = (atr, atr_ratio, true_range, volatility, range_volatility)
