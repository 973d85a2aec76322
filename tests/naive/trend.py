"""Twins: trends, stops and clouds."""

from __future__ import annotations

from .averages import nested
from .windows import Bars, Outputs, before, empty, exponential, reach, smoothed, wilder_range


def macd(bars: Bars, fast: float, slow: float, signal: float) -> Outputs:
    """The fast mean begins so late that both begin at the same bar."""
    close, f, w, g = bars["close"], int(fast), int(slow), int(signal)
    line = exponential(close, f, w - f) - exponential(close, w)
    mean = exponential(line, g, w - 1)
    line[: w + g - 2] = float("nan")
    return {"macd": line, "macd_signal": mean, "macd_histogram": line - mean}


def apo(bars: Bars, fast: float, slow: float) -> Outputs:
    """Each mean begins as early as it can."""
    return {"apo": exponential(bars["close"], int(fast)) - exponential(bars["close"], int(slow))}


def ppo(bars: Bars, fast: float, slow: float, signal: float) -> Outputs:
    line = 100 * apo(bars, fast, slow)["apo"] / exponential(bars["close"], int(slow))
    mean = exponential(line, int(signal), int(slow) - 1)
    return {"ppo": line, "ppo_signal": mean, "ppo_histogram": line - mean}


def trix(bars: Bars, n: float) -> Outputs:
    triple = nested(bars["close"], int(n), 3)[2]
    return {"trix": 100 * (triple / before(triple) - 1)}


def adx(bars: Bars, n: float) -> Outputs:
    n = int(n)
    high, low, ranges = bars["high"], bars["low"], reach(bars)
    plus, minus, dx = empty(bars), empty(bars), empty(bars)
    total = ups = downs = 0.0
    for t in range(1, len(high)):
        rise, fall = high[t] - high[t - 1], low[t - 1] - low[t]
        if t >= n:
            total, ups, downs = total - total / n, ups - ups / n, downs - downs / n
        total += ranges[t]
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


def sar(bars: Bars, step: float, most: float) -> Outputs:
    """Wilder's stop: from the stop to the extreme of the move by a share that grows with each new extreme, never
    into the range of the last two bars. A bar that touches it turns the move around.
    """
    high, low, out = bars["high"], bars["low"], empty(bars)
    if len(out) < 2:
        return {"sar": out}
    rising = not low[0] - low[1] > max(high[1] - high[0], 0)
    stop, extreme = (low[0], high[1]) if rising else (high[0], low[1])
    share = step = min(step, most)
    for t in range(1, len(out)):
        last = slice(max(t - 1, 1), t + 1)
        touched = low[t] <= stop if rising else high[t] >= stop
        if touched:
            rising = not rising
            stop = min(extreme, *low[last]) if rising else max(extreme, *high[last])
            extreme, share = (high[t] if rising else low[t]), step
        out[t] = stop
        if not touched and (high[t] > extreme if rising else low[t] < extreme):
            extreme, share = (high[t] if rising else low[t]), min(share + step, most)
        stop = stop + share * (extreme - stop)
        stop = min(stop, *low[last]) if rising else max(stop, *high[last])
    return {"sar": out}


def supertrend(bars: Bars, n: float, k: float) -> Outputs:
    """Bands that only tighten until a close passes them, and the side on which the trend is."""
    close, out, direction = bars["close"], empty(bars), empty(bars)
    middle, width = (bars["high"] + bars["low"]) / 2, k * wilder_range(bars, int(n))
    for t in range(int(n), len(out)):
        above, below = middle[t] + width[t], middle[t] - width[t]
        if t == int(n):
            upper, lower, side = above, below, 1.0
        else:
            upper = above if above < upper or close[t - 1] > upper else upper
            lower = below if below > lower or close[t - 1] < lower else lower
            if side > 0 and close[t] < lower:
                side = -1.0
            elif side < 0 and close[t] > upper:
                side = 1.0
        out[t], direction[t] = lower if side > 0 else upper, side
    return {"supertrend": out, "supertrend_direction": direction}


def ichimoku(bars: Bars, short: float, middle: float, long: float) -> Outputs:
    a, b, c = int(short), int(middle), int(long)
    high, low, close = bars["high"], bars["low"], bars["close"]
    names = ("conversion", "base", "span_a", "span_b", "lagging")
    out = {f"ichimoku_{name}": empty(bars) for name in names}

    def centre(t: int, n: int) -> float:
        if t < n - 1:
            return float("nan")
        return float(max(high[t - n + 1 : t + 1]) + min(low[t - n + 1 : t + 1])) / 2

    for t in range(len(close)):
        out["ichimoku_conversion"][t], out["ichimoku_base"][t] = centre(t, a), centre(t, b)
        out["ichimoku_span_a"][t] = (centre(t - b, a) + centre(t - b, b)) / 2
        out["ichimoku_span_b"][t] = centre(t - b, c)
        if t >= b:
            out["ichimoku_lagging"][t] = close[t] - close[t - b]
    return out
