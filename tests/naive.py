"""Slow, obvious twins of the kernels: one series, windows as slices, every value from its definition. They share no
code with what they check.

Each takes the columns of one series and the parameters, and returns its outputs by name; NaN where a value is not
known yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bars = Mapping[str, Array]
Outputs = dict[str, Array]


def empty(bars: Bars) -> Array:
    return np.full(len(next(iter(bars.values()))), np.nan)


def windowed(values: Array, n: int, of: Callable[[Array], float], first: int = 0) -> Array:
    """Apply `of` to every window of n values; the first window begins at `first`."""
    out = np.full(len(values), np.nan)
    for t in range(first + n - 1, len(values)):
        out[t] = of(values[t - n + 1 : t + 1])
    return out


def all_equal(values: Sequence[float] | Array) -> bool:
    return all(v == values[0] for v in values)


def smoothed(values: Array, first: int, n: int, weight: float) -> Array:
    """Begin with the mean of n values from `first` on, then move by `weight` of the difference."""
    out = np.full(len(values), np.nan)
    if first + n > len(values):
        return out
    out[first + n - 1] = np.mean(values[first : first + n])
    for t in range(first + n, len(values)):
        out[t] = out[t - 1] + weight * (values[t] - out[t - 1])
    return out


def sma(bars: Bars, n: float) -> Outputs:
    return {"sma": windowed(bars["close"], int(n), lambda w: float(np.mean(w)))}


def ema(bars: Bars, n: float) -> Outputs:
    return {"ema": smoothed(bars["close"], 0, int(n), 2 / (n + 1))}


def wma(bars: Bars, n: float) -> Outputs:
    weights = np.arange(1, n + 1)
    return {"wma": windowed(bars["close"], int(n), lambda w: float(np.sum(w * weights) / np.sum(weights)))}


def macd(bars: Bars, fast: float, slow: float, signal: float) -> Outputs:
    close, f, w, g = bars["close"], int(fast), int(slow), int(signal)
    line = smoothed(close, w - f, f, 2 / (fast + 1)) - smoothed(close, 0, w, 2 / (slow + 1))
    mean = smoothed(line, w - 1, g, 2 / (signal + 1))
    line[: w + g - 2] = np.nan
    return {"macd": line, "macd_signal": mean, "macd_histogram": line - mean}


def true_range(bars: Bars) -> Array:
    out = empty(bars)
    for t in range(1, len(out)):
        before = bars["close"][t - 1]
        out[t] = max(bars["high"][t], before) - min(bars["low"][t], before)
    return out


def adx(bars: Bars, n: float) -> Outputs:
    n = int(n)
    high, low, reach = bars["high"], bars["low"], true_range(bars)
    plus, minus, dx = empty(bars), empty(bars), empty(bars)
    total = ups = downs = 0.0
    for t in range(1, len(high)):
        rise, fall = high[t] - high[t - 1], low[t - 1] - low[t]
        if t >= n:
            total, ups, downs = total - total / n, ups - ups / n, downs - downs / n
        total += reach[t]
        ups += rise if rise > fall and rise > 0 else 0.0
        downs += fall if fall > rise and fall > 0 else 0.0
        if t >= n:
            plus[t] = 100 * ups / total if total > 0 else 0.0
            minus[t] = 100 * downs / total if total > 0 else 0.0
            both = plus[t] + minus[t]
            dx[t] = 100 * abs(plus[t] - minus[t]) / both if both > 0 else 0.0
    return {"plus_di": plus, "minus_di": minus, "adx": smoothed(dx, n, n, 1 / n)}


def aroon(bars: Bars, n: float) -> Outputs:
    n = int(n)
    up, down = empty(bars), empty(bars)
    for t in range(n, len(up)):
        high, low = bars["high"][t - n : t + 1], bars["low"][t - n : t + 1]
        up[t] = 100 / n * max(j for j in range(n + 1) if high[j] == max(high))
        down[t] = 100 / n * max(j for j in range(n + 1) if low[j] == min(low))
    return {"aroon_up": up, "aroon_down": down, "aroon_oscillator": up - down}


def regression(bars: Bars, n: float) -> Outputs:
    n, close = int(n), bars["close"]
    slope, r2, residual = empty(bars), empty(bars), empty(bars)
    x = np.arange(n) - (n - 1) / 2
    for t in range(n - 1, len(close)):
        y = close[t - n + 1 : t + 1]
        if all_equal(y):
            slope[t] = r2[t] = residual[t] = 0.0
            continue
        y = y - np.mean(y)
        slope[t] = np.sum(x * y) / np.sum(x * x)
        r2[t] = np.sum(x * y) ** 2 / (np.sum(x * x) * np.sum(y * y))
        residual[t] = y[-1] - slope[t] * x[-1]
    return {"slope": slope, "r_squared": r2, "residual": residual}


def rsi(bars: Bars, n: float) -> Outputs:
    n = int(n)
    change = np.diff(bars["close"], prepend=np.nan)
    up = smoothed(np.maximum(change, 0), 1, n, 1 / n)
    down = smoothed(np.maximum(-change, 0), 1, n, 1 / n)
    out = empty(bars)
    for t in range(n, len(out)):
        out[t] = 100 * up[t] / (up[t] + down[t]) if up[t] + down[t] > 0 else 0.0
    return {"rsi": out}


def roc(bars: Bars, n: float) -> Outputs:
    out, n, close = empty(bars), int(n), bars["close"]
    for t in range(n, len(out)):
        out[t] = close[t] / close[t - n] - 1
    return {"roc": out}


def stochastic(bars: Bars, n: float) -> Outputs:
    n = int(n)
    fast, williams = empty(bars), empty(bars)
    for t in range(n - 1, len(fast)):
        close, high, low = bars["close"][t], max(bars["high"][t - n + 1 : t + 1]), min(bars["low"][t - n + 1 : t + 1])
        fast[t] = 100 * (close - low) / (high - low) if high != low else 0.0
        williams[t] = 100 * (close - high) / (high - low) if high != low else 0.0
    slow_k = windowed(fast, 3, lambda w: float(np.mean(w)), n - 1)
    return {"fast_k": fast, "slow_d": windowed(slow_k, 3, lambda w: float(np.mean(w)), n + 1), "williams_r": williams}


def cci(bars: Bars, n: float) -> Outputs:
    typical = (bars["high"] + bars["low"] + bars["close"]) * (1 / 3)

    def of(w: Array) -> float:
        return 0.0 if all_equal(w) else float((w[-1] - np.mean(w)) / (0.015 * np.mean(np.abs(w - np.mean(w)))))

    return {"cci": windowed(typical, int(n), of)}


def bollinger(bars: Bars, n: float, k: float) -> Outputs:
    n, close = int(n), bars["close"]
    upper, lower, place, width, z = (empty(bars) for _ in range(5))
    for t in range(n - 1, len(close)):
        w = close[t - n + 1 : t + 1]
        mean, deviation = np.mean(w), 0.0 if all_equal(w) else np.std(w)
        upper[t], lower[t] = mean + k * deviation, mean - k * deviation
        z[t] = (close[t] - mean) / deviation if deviation > 0 else 0.0
        place[t] = (close[t] - lower[t]) / (upper[t] - lower[t]) if deviation > 0 else 0.5
        width[t] = (upper[t] - lower[t]) / mean
    return {
        "bollinger_upper": upper, "bollinger_lower": lower, "bollinger_percent_b": place, "bollinger_width": width,
        "zscore": z,
    }  # fmt: skip


def atr(bars: Bars, n: float) -> Outputs:
    mean = smoothed(true_range(bars), 1, int(n), 1 / n)
    return {"atr": mean, "natr": 100 * mean / bars["close"]}


def volatility(bars: Bars, n: float) -> Outputs:
    returns = empty(bars)
    for t in range(1, len(returns)):
        returns[t] = math.log(bars["close"][t] / bars["close"][t - 1])
    return {"log_return": returns, "volatility": windowed(returns, int(n), lambda w: float(np.std(w)), 1)}


def extremes(bars: Bars, n: float) -> Outputs:
    highest, lowest = windowed(bars["high"], int(n), max), windowed(bars["low"], int(n), min)
    close = bars["close"]
    return {
        "highest": highest,
        "lowest": lowest,
        "high_distance": close / highest - 1,
        "low_distance": close / lowest - 1,
    }


def close_extremes(bars: Bars, n: float) -> Outputs:
    found = extremes({"high": bars["close"], "low": bars["close"], "close": bars["close"]}, n)
    return dict(zip(("highest_close", "lowest_close", "high_close_distance", "low_close_distance"), found.values()))


def moments(bars: Bars, n: float) -> Outputs:
    returns = empty(bars)
    returns[1:] = bars["close"][1:] / bars["close"][:-1] - 1

    def standardised(w: Array, power: int) -> float:
        gap = w - np.mean(w)
        if np.mean(gap**2) <= 1e-12 * np.mean(w**2):
            return 0.0
        return float(np.mean(gap**power) / np.mean(gap**2) ** (power / 2)) - (3.0 if power == 4 else 0.0)

    return {
        "skew": windowed(returns, int(n), lambda w: standardised(w, 3), 1),
        "kurtosis": windowed(returns, int(n), lambda w: standardised(w, 4), 1),
    }


def obv(bars: Bars) -> Outputs:
    out, total = empty(bars), 0.0
    for t in range(len(out)):
        change = bars["close"][t] - bars["close"][t - 1] if t else 1.0
        total += bars["volume"][t] if change > 0 else -bars["volume"][t] if change < 0 else 0.0
        out[t] = total
    return {"obv": out}


def relative_volume(bars: Bars, n: float) -> Outputs:
    return {
        "relative_volume": windowed(bars["volume"], int(n), lambda w: float(w[-1] / np.mean(w)) if w[-1] > 0 else 0.0)
    }


def mfi(bars: Bars, n: float) -> Outputs:
    n = int(n)
    typical = (bars["high"] + bars["low"] + bars["close"]) * (1 / 3)
    up, down = empty(bars), empty(bars)
    for t in range(1, len(up)):
        flow = typical[t] * bars["volume"][t]
        up[t] = flow if typical[t] > typical[t - 1] else 0.0
        down[t] = flow if typical[t] < typical[t - 1] else 0.0
    out = empty(bars)
    for t in range(n, len(out)):
        ups, downs = np.sum(up[t - n + 1 : t + 1]), np.sum(down[t - n + 1 : t + 1])
        out[t] = 100 * ups / (ups + downs) if ups + downs >= 1 else 0.0
    return {"mfi": out}


TWINS: dict[str, Callable[..., Outputs]] = {
    f.__name__: f
    for f in (
        sma, ema, wma, macd, adx, aroon, regression, rsi, roc, stochastic, cci, bollinger, atr, volatility, extremes,
        close_extremes, moments, obv, relative_volume, mfi,
    )
}  # fmt: skip


def forward_returns(bars: Bars, ts: Array, h: int, *, delisted: bool) -> tuple[Array, Array]:
    """Return the label and its end stamp (NaN = none) of every bar of one series, straight from the rule.

    bars : buy and sell (what orders of that side pay, NaN = they do not fill) and close.
    """
    buy, sell = bars["buy"], bars["sell"]
    value, end = empty(bars), empty(bars)
    last = len(buy) - 1
    for t in range(last):
        entry = t + 1
        if math.isnan(buy[entry]):
            continue
        exits = [u for u in range(entry + h, last + 1) if not math.isnan(sell[u])]
        if exits:
            value[t], end[t] = sell[exits[0]] / buy[entry] - 1, ts[exits[0]]
        elif delisted:
            value[t], end[t] = bars["close"][last] / buy[entry] - 1, ts[last]
    return value, end
