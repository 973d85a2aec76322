"""Where prices go: moving averages, MACD, directional movement, Aroon, regression. See spec.py for the names used in
kernels.
"""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .spec import Indicator, Output, Param, forgets


def _sma(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of the last n closes."""
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            total = state_KS[1, s] + (x_CTS[0, t, s] - x_CTS[0, t - n, s])
            state_KS[1, s] = total
            out_OTS[0, t, s] = total * inverse if state_KS[0, s] + bar >= size else nan


sma = Indicator(
    name="sma",
    kernel=_sma,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("sma", "KRW", "price"),),
    state=2,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib SMA",
)


def _ema(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Exponential mean of closes with weight 2 / (n + 1), begun with the mean of the first n."""
    size, weight, inverse = p[0], 2.0 / (p[0] + 1.0), 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            old = state_KS[1, s]
            mean = old + (weight if count > size else inverse) * (x_CTS[0, t, s] - (old if count > size else 0.0))
            state_KS[1, s] = mean
            out_OTS[0, t, s] = mean if count >= size else nan


ema = Indicator(
    name="ema",
    kernel=_ema,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("ema", "KRW", "price"),),
    state=2,
    past=lambda n: 0,
    ready=lambda n: n,
    warmup=lambda n: n + forgets(1 - 2 / (n + 1)),
    source="TA-Lib EMA",
)


def _wma(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of the last n closes with weights 1..n, the newest the heaviest; the weighted sum rolls with the plain
    one.
    """
    n, size, inverse = int(p[0]), p[0], 2.0 / (p[0] * (p[0] + 1.0))
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close, total, weighted = x_CTS[0, t, s], state_KS[1, s], state_KS[2, s]
            rank = count if count < size else size
            rank = rank if rank > 0.0 else 0.0
            weighted = weighted + rank * close - (total if count > size else 0.0)
            total = total + (close - x_CTS[0, t - n, s])
            state_KS[1, s] = total
            state_KS[2, s] = weighted
            out_OTS[0, t, s] = weighted * inverse if count >= size else nan


wma = Indicator(
    name="wma",
    kernel=_wma,
    inputs=("close",),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("wma", "KRW", "price"),),
    state=3,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: n,
    source="TA-Lib WMA",
)


def _macd(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Fast less slow exponential mean of closes, its own exponential mean (signal), and the difference of the two
    (histogram).
    """
    fast, slow, signal = p[0], p[1], p[2]
    w_fast, w_slow, w_signal = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0), 2.0 / (signal + 1.0)
    i_fast, i_slow, i_signal = 1.0 / fast, 1.0 / slow, 1.0 / signal
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            begun = count > slow
            quick, long, mean = state_KS[1, s], state_KS[2, s], state_KS[3, s]
            recent = close if count > slow - fast else 0.0  # both means begin together, at bar `slow`
            quick = quick + (w_fast if begun else i_fast) * (recent - (quick if begun else 0.0))
            long = long + (w_slow if begun else i_slow) * (close - (long if begun else 0.0))
            line = quick - long if count >= slow else 0.0
            late = count > slow + signal - 1.0
            mean = mean + (w_signal if late else i_signal) * (line - (mean if late else 0.0))
            state_KS[1, s] = quick
            state_KS[2, s] = long
            state_KS[3, s] = mean
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


def _adx(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Directional indicators +DI and -DI from Wilder's sums of movement and true range, and their smoothed difference
    ADX.
    """
    size, share = p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
            rise, fall = high - x_CTS[0, t - 1, s], x_CTS[1, t - 1, s] - low
            reach = (high if high > before else before) - (low if low < before else before)
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
            scale = 100.0 / total
            scale = scale if total > 0.0 else 0.0
            plus, minus = ups * scale, downs * scale
            both, gap = plus + minus, plus - minus
            gap = gap if gap > 0.0 else -gap
            dx = 100.0 * gap / both
            dx = dx if both > 0.0 else 0.0
            dx = dx if count > size else 0.0
            smooth = smooth + share * (dx - (smooth if count > 2.0 * size else 0.0))
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
    source="TA-Lib PLUS_DI, MINUS_DI, ADX (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _aroon(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """How recent the highest high (up) and the lowest low (down) of the last n + 1 bars are, 100 = now; of equal ones
    the latest counts.
    """
    n, size, scale = int(p[0]), p[0], 100.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
        for j in range(t - n, t + 1):
            place = float(j - t + n)
            for s in range(x_CTS.shape[2]):
                high, low = x_CTS[0, j, s], x_CTS[1, j, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                up, down = out_OTS[0, t, s], out_OTS[1, t, s]
                out_OTS[0, t, s] = place if high >= highest else up
                out_OTS[1, t, s] = place if low <= lowest else down
                state_KS[1, s] = high if high >= highest else highest
                state_KS[2, s] = low if low <= lowest else lowest
        for s in range(x_CTS.shape[2]):
            known = state_KS[0, s] + bar > size
            up, down = scale * out_OTS[0, t, s], scale * out_OTS[1, t, s]
            out_OTS[0, t, s] = up if known else nan
            out_OTS[1, t, s] = down if known else nan
            out_OTS[2, t, s] = up - down if known else nan
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0


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


def _regression(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Least-squares line through the last n closes: slope a bar, R squared, and the last close's distance from the
    line.

    All three are 0 where the n closes are equal.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    middle, spread = 0.5 * (size - 1.0), size * (size * size - 1.0) / 12.0
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            equal = state_KS[10, s] + 1.0
            equal = equal if close == x_CTS[0, t - 1, s] else 0.0
            equal = equal if count > 1.0 else 0.0
            fresh_anchor = state_KS[5, s]
            fresh_anchor = close if count == 1.0 else fresh_anchor
            y, phase = close - fresh_anchor, state_KS[9, s]
            fresh_sum, fresh_squares, fresh_cross = (
                state_KS[6, s] + y,
                state_KS[7, s] + y * y,
                state_KS[8, s] + phase * y,
            )
            phase = phase + 1.0
            phase = phase if count > 0.0 else 0.0
            renew = phase >= size
            anchor = state_KS[4, s]
            anchor = close if count == 1.0 else anchor
            y, leaving = close - anchor, x_CTS[0, t - n, s] - anchor
            leaving = leaving if count > size else 0.0
            total, squares, cross = state_KS[1, s], state_KS[2, s], state_KS[3, s]
            place = (count if count < size else size) - 1.0
            place = place if place > 0.0 else 0.0
            cross = cross + place * y - (total - leaving if count > size else 0.0)
            total = total + (y - leaving)
            squares = squares + (y - leaving) * (y + leaving)
            total = fresh_sum if renew else total
            squares = fresh_squares if renew else squares
            cross = fresh_cross if renew else cross
            anchor = fresh_anchor if renew else anchor
            state_KS[1, s] = total
            state_KS[2, s] = squares
            state_KS[3, s] = cross
            state_KS[4, s] = anchor
            state_KS[5, s] = close if renew else fresh_anchor
            state_KS[6, s] = 0.0 if renew else fresh_sum
            state_KS[7, s] = 0.0 if renew else fresh_squares
            state_KS[8, s] = 0.0 if renew else fresh_cross
            state_KS[9, s] = 0.0 if renew else phase
            state_KS[10, s] = equal
            y, mean = close - anchor, total * inverse
            moves = equal < size - 1.0
            covariance = cross - middle * total
            slope = covariance / spread
            slope = slope if moves else 0.0
            variance = squares - total * mean
            r2 = slope * covariance / variance
            r2 = r2 if variance > 0.0 and moves else 0.0
            r2 = r2 if r2 < 1.0 else 1.0
            residual = y - mean - slope * middle
            known = count >= size
            out_OTS[0, t, s] = slope if known else nan
            out_OTS[1, t, s] = r2 if known else nan
            out_OTS[2, t, s] = (residual if moves else 0.0) if known else nan


regression = Indicator(
    name="regression",
    kernel=_regression,
    inputs=("close",),
    params=(Param("n", 20, 3, 500),),
    outputs=(
        Output("slope", "KRW", "price_change"),
        Output("r_squared", "ratio", bounds=(0.0, 1.0)),
        Output("residual", "KRW", "price_change"),
    ),
    state=11,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="TA-Lib LINEARREG_SLOPE, LINEARREG; R squared = squared TA-Lib CORREL with the bar number",
)
