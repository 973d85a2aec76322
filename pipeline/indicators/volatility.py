"""How far prices go: Bollinger bands, true range, deviation of returns, range, skew. See spec.py for the names used
in kernels.
"""

from __future__ import annotations

import math
from math import inf, nan

from ..recurrence import Floats
from .spec import Indicator, Output, Param, forgets


def _bollinger(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of n closes plus and less k population deviations, place in the band (%b), width over mean, and the z-score.

    Where the n closes are equal the width is 0, %b 0.5 and the z-score 0.
    """
    n, size, k, inverse, half = int(p[0]), p[0], p[1], 1.0 / p[0], 0.5 / p[1]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            close = x_CTS[0, t, s]
            equal = state_KS[8, s] + 1.0
            equal = equal if close == x_CTS[0, t - 1, s] else 0.0
            equal = equal if count > 1.0 else 0.0
            fresh_anchor = state_KS[4, s]
            fresh_anchor = close if count == 1.0 else fresh_anchor
            y = close - fresh_anchor
            fresh_sum, fresh_squares = state_KS[5, s] + y, state_KS[6, s] + y * y
            phase = state_KS[7, s] + 1.0
            phase = phase if count > 0.0 else 0.0
            renew = phase >= size
            anchor = state_KS[3, s]
            anchor = close if count == 1.0 else anchor
            y, leaving = close - anchor, x_CTS[0, t - n, s] - anchor
            leaving = leaving if count > size else 0.0
            total = state_KS[1, s] + (y - leaving)
            squares = state_KS[2, s] + (y - leaving) * (y + leaving)
            total = fresh_sum if renew else total
            squares = fresh_squares if renew else squares
            anchor = fresh_anchor if renew else anchor
            state_KS[1, s] = total
            state_KS[2, s] = squares
            state_KS[3, s] = anchor
            state_KS[4, s] = close if renew else fresh_anchor
            state_KS[5, s] = 0.0 if renew else fresh_sum
            state_KS[6, s] = 0.0 if renew else fresh_squares
            state_KS[7, s] = 0.0 if renew else phase
            state_KS[8, s] = equal
            y, mean = close - anchor, total * inverse
            variance = squares * inverse - mean * mean
            variance = variance if equal < size - 1.0 else 0.0
            deviation = math.sqrt(variance if variance > 0.0 else 0.0)
            z = (y - mean) / deviation
            z = z if deviation > 0.0 else 0.0
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
    state=9,
    past=lambda n, k: n,
    ready=lambda n, k: n,
    warmup=lambda n, k: 2 * n,
    source="TA-Lib BBANDS (n, k, k, 0); %b and width after J. Bollinger, Bollinger on Bollinger Bands, 2001",
)


def _atr(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Wilder's mean of the true range, and the same in percent of the close."""
    size, share = p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            high, low, before = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t - 1, s]
            reach = (high if high > before else before) - (low if low < before else before)
            reach = reach if count > 1.0 else 0.0
            mean = state_KS[1, s]
            mean = mean + share * (reach - (mean if count > size + 1.0 else 0.0))
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


def _volatility(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Logarithm of close over the close before, and its population deviation over n bars.

    log(a / b) = 2 atanh((a - b) / (a + b)) by its series, exact to rounding below 20 %; the rare larger moves take
    the slow road. Without a positive price there is no logarithm: NaN, for the deviation until its sums are renewed.
    """
    n, size, inverse = int(p[0]), p[0], 1.0 / p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        far = 0
        for s in range(x_CTS.shape[2]):
            close, before = x_CTS[0, t, s], x_CTS[0, t - 1, s]
            z = (close - before) / (close + before)
            y = z * z
            tail = 1.0 / 7.0 + y * (1.0 / 9.0 + y * (1.0 / 11.0 + y * (1.0 / 13.0)))
            value = 2.0 * z * (1.0 + y * (1.0 / 3.0 + y * (0.2 + y * tail)))
            out_OTS[0, t, s] = value if state_KS[0, s] + bar > 1.0 else nan
            far += 0 if y <= 0.01 else 1
        if far > 0:
            for s in range(x_CTS.shape[2]):
                close, before = x_CTS[0, t, s], x_CTS[0, t - 1, s]
                z = (close - before) / (close + before)
                if state_KS[0, s] + bar > 1.0 and not z * z <= 0.01:
                    out_OTS[0, t, s] = math.log(close / before) if close > 0.0 and before > 0.0 else nan
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            entering, leaving = out_OTS[0, t, s], out_OTS[0, t - n, s]
            entering = entering if count > 1.0 else 0.0
            still = state_KS[6, s] + 1.0
            still = still if entering == 0.0 and count > 1.0 else 0.0
            state_KS[6, s] = still
            leaving = leaving if count > size + 1.0 else 0.0
            fresh_sum, fresh_squares = state_KS[3, s] + entering, state_KS[4, s] + entering * entering
            phase = state_KS[5, s] + 1.0
            phase = phase if count > 1.0 else 0.0
            renew = phase >= size
            total = state_KS[1, s] + (entering - leaving)
            squares = state_KS[2, s] + (entering - leaving) * (entering + leaving)
            total = fresh_sum if renew else total
            squares = fresh_squares if renew else squares
            state_KS[1, s] = total
            state_KS[2, s] = squares
            state_KS[3, s] = 0.0 if renew else fresh_sum
            state_KS[4, s] = 0.0 if renew else fresh_squares
            state_KS[5, s] = 0.0 if renew else phase
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


def _extremes(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Highest high and lowest low of the last n bars, and the close over each, less one.

    With closes as the only input they stand for highs and lows. By van Herk's blocks, as in the stochastic.
    """
    n, size, end = int(p[0]), p[0], x_CTS.shape[1]
    below, last = x_CTS.shape[0] // 2, x_CTS.shape[0] - 1
    start = first
    while start < end:
        rows = min(n, end - start)
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
        if rows == n:
            for s in range(x_CTS.shape[2]):
                out_OTS[0, start + n - 1, s] = -inf
                out_OTS[1, start + n - 1, s] = inf
        for t in range(start - 1, start - n, -1):
            for s in range(x_CTS.shape[2]):
                high, low = x_CTS[0, t, s], x_CTS[below, t, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                state_KS[1, s] = high if high > highest else highest
                state_KS[2, s] = low if low < lowest else lowest
            if t + n - 1 < start + rows:
                for s in range(x_CTS.shape[2]):
                    out_OTS[0, t + n - 1, s] = state_KS[1, s]
                    out_OTS[1, t + n - 1, s] = state_KS[2, s]
        for s in range(x_CTS.shape[2]):
            state_KS[1, s] = -inf
            state_KS[2, s] = inf
        for t in range(start, start + rows):
            bar = t - first + 1.0
            for s in range(x_CTS.shape[2]):
                high, low, close = x_CTS[0, t, s], x_CTS[below, t, s], x_CTS[last, t, s]
                highest, lowest = state_KS[1, s], state_KS[2, s]
                high = high if high > highest else highest
                low = low if low < lowest else lowest
                state_KS[1, s] = high
                state_KS[2, s] = low
                highest, lowest = out_OTS[0, t, s], out_OTS[1, t, s]
                high = high if high > highest else highest
                low = low if low < lowest else lowest
                under, above = close / high - 1.0, close / low - 1.0
                known = state_KS[0, s] + bar >= size
                out_OTS[0, t, s] = high if known else nan
                out_OTS[1, t, s] = low if known else nan
                out_OTS[2, t, s] = under if known else nan
                out_OTS[3, t, s] = above if known else nan
        start += rows
    for s in range(x_CTS.shape[2]):
        state_KS[1, s] = 0.0
        state_KS[2, s] = 0.0


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


def _moments(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Population skew and excess kurtosis of the last n simple returns; both 0 where the returns are all but equal
    (deviation < 1e-6 rms).
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
            still = state_KS[10, s] + 1.0
            still = still if r == 0.0 and count > 1.0 else 0.0
            state_KS[10, s] = still
            r2, q2 = r * r, q * q
            phase = state_KS[9, s] + 1.0
            phase = phase if count > 1.0 else 0.0
            renew = phase >= size
            fresh1, fresh2 = state_KS[5, s] + r, state_KS[6, s] + r2
            fresh3, fresh4 = state_KS[7, s] + r2 * r, state_KS[8, s] + r2 * r2
            sum1, sum2 = state_KS[1, s] + (r - q), state_KS[2, s] + (r2 - q2)
            sum3, sum4 = state_KS[3, s] + (r2 * r - q2 * q), state_KS[4, s] + (r2 * r2 - q2 * q2)
            sum1 = fresh1 if renew else sum1
            sum2 = fresh2 if renew else sum2
            sum3 = fresh3 if renew else sum3
            sum4 = fresh4 if renew else sum4
            state_KS[1, s] = sum1
            state_KS[2, s] = sum2
            state_KS[3, s] = sum3
            state_KS[4, s] = sum4
            state_KS[5, s] = 0.0 if renew else fresh1
            state_KS[6, s] = 0.0 if renew else fresh2
            state_KS[7, s] = 0.0 if renew else fresh3
            state_KS[8, s] = 0.0 if renew else fresh4
            state_KS[9, s] = 0.0 if renew else phase
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
    state=11,
    past=lambda n: n + 1,
    ready=lambda n: n + 1,
    warmup=lambda n: 2 * n + 1,
    source="third and fourth standardised population moments (scipy.stats.skew, kurtosis)",
    tolerance=1e-7,
)
