"""Twins: volume and flows of money."""

from __future__ import annotations

import numpy as np

from .averages import weighted_by_volume
from .rolling import sample_deviation
from .windows import Array, Bars, Outputs, before, empty, exponential, windowed


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


def flow(bars: Bars) -> Array:
    """Return the volume times where the close is in its bar: +1 at the high, -1 at the low, 0 without a range."""
    out = empty(bars)
    for t in range(len(out)):
        high, low, close = bars["high"][t], bars["low"][t], bars["close"][t]
        place = ((close - low) - (high - close)) / (high - low) if high > low else 0.0
        out[t] = place * bars["volume"][t]
    return out


def ad(bars: Bars) -> Outputs:
    return {"ad": np.cumsum(flow(bars))}


def chaikin(bars: Bars, fast: float, slow: float) -> Outputs:
    """Both means of the accumulation line begin with its first value."""
    line, out = np.cumsum(flow(bars)), empty(bars)
    quick = late = line[0]
    for t in range(len(out)):
        quick += 2 / (fast + 1) * (line[t] - quick)
        late += 2 / (slow + 1) * (line[t] - late)
        if t >= slow - 1:
            out[t] = quick - late
    return {"chaikin": out}


def cmf(bars: Bars, n: float) -> Outputs:
    n, flows, out = int(n), flow(bars), empty(bars)
    for t in range(n - 1, len(out)):
        w = slice(t - n + 1, t + 1)
        total = np.sum(bars["volume"][w])
        out[t] = np.sum(flows[w]) / total if total > 0 else 0.0
    return {"cmf": out}


def force(bars: Bars, n: float) -> Outputs:
    return {"force": exponential((bars["close"] - before(bars["close"])) * bars["volume"], int(n), 1)}


def volume_ratio(bars: Bars, n: float) -> Outputs:
    n, volume, out = int(n), bars["volume"], empty(bars)
    change = bars["close"] - before(bars["close"])
    for t in range(n, len(out)):
        window = range(t - n + 1, t + 1)
        up, down = (sum(volume[u] for u in window if sign * change[u] > 0) for sign in (1, -1))
        half = sum(volume[u] for u in window if change[u] == 0) / 2
        out[t] = 100 * (up + half) / (down + half) if down + half > 0 else 0.0
    return {"volume_ratio": out}


def price_volume_trend(bars: Bars) -> Outputs:
    steps = (bars["close"] / before(bars["close"]) - 1) * bars["volume"]
    steps[0] = 0.0
    return {"price_volume_trend": np.cumsum(steps)}


def vwma(bars: Bars, n: float) -> Outputs:
    n, close, out = int(n), bars["close"], empty(bars)
    for t in range(n - 1, len(out)):
        w = slice(t - n + 1, t + 1)
        out[t] = weighted_by_volume(close[w], bars["volume"][w], close[t])
    return {"vwma": out}


def volume_deviation(bars: Bars, n: float) -> Outputs:
    volume = bars["volume"]
    return {
        "volume_mean_ratio": windowed(volume, int(n), lambda w: float(np.mean(w) / w[-1]) if w[-1] > 0 else 0.0),
        "volume_deviation_ratio": windowed(
            volume, int(n), lambda w: float(sample_deviation(w) / w[-1]) if w[-1] > 0 else 0.0
        ),
    }
