"""Twins: oscillators and moves."""

from __future__ import annotations

import numpy as np

from .windows import Array, Bars, Outputs, all_equal, before, empty, mean, reach, smoothed, windowed


def gains_and_losses(bars: Bars, n: int) -> tuple[Array, Array]:
    """Return Wilder's means of rises and of falls of the close."""
    change = bars["close"] - before(bars["close"])
    return smoothed(np.maximum(change, 0), 1, n, 1 / n), smoothed(np.maximum(-change, 0), 1, n, 1 / n)


def rsi(bars: Bars, n: float) -> Outputs:
    (up, down), out = gains_and_losses(bars, int(n)), empty(bars)
    for t in range(int(n), len(out)):
        out[t] = 100 * up[t] / (up[t] + down[t]) if up[t] + down[t] > 0 else 0.0
    return {"rsi": out}


def cmo(bars: Bars, n: float) -> Outputs:
    (up, down), out = gains_and_losses(bars, int(n)), empty(bars)
    for t in range(int(n), len(out)):
        out[t] = 100 * (up[t] - down[t]) / (up[t] + down[t]) if up[t] + down[t] > 0 else 0.0
    return {"cmo": out}


def roc(bars: Bars, n: float) -> Outputs:
    out, n, close = empty(bars), int(n), bars["close"]
    for t in range(n, len(out)):
        out[t] = close[t] / close[t - n] - 1
    return {"roc": out}


def lag(bars: Bars, n: float) -> Outputs:
    out, n = empty(bars), int(n)
    for t in range(n, len(out)):
        out[t] = bars["close"][t - n]
    return {"close_before": out}


def momentum(bars: Bars, n: float) -> Outputs:
    return {"momentum": bars["close"] - lag(bars, n)["close_before"]}


def stochastic(bars: Bars, n: float) -> Outputs:
    n = int(n)
    fast, williams = empty(bars), empty(bars)
    for t in range(n - 1, len(fast)):
        close, high, low = bars["close"][t], max(bars["high"][t - n + 1 : t + 1]), min(bars["low"][t - n + 1 : t + 1])
        fast[t] = 100 * (close - low) / (high - low) if high != low else 0.0
        williams[t] = 100 * (close - high) / (high - low) if high != low else 0.0
    slow_k = windowed(fast, 3, mean, n - 1)
    return {"fast_k": fast, "slow_k": slow_k, "slow_d": windowed(slow_k, 3, mean, n + 1), "williams_r": williams}


def stoch_rsi(bars: Bars, n: float, k: float, d: float) -> Outputs:
    """The place of the RSI among its last k; a range that is only rounding (below 1e-9 of 100) is none."""

    def place(w: Array) -> float:
        width = max(w) - min(w)
        return float(100 * (w[-1] - min(w)) / width) if width > 1e-9 else 0.0

    fast = windowed(rsi(bars, n)["rsi"], int(k), place, int(n))
    return {"stoch_rsi_k": fast, "stoch_rsi_d": windowed(fast, int(d), mean, int(n) + int(k) - 1)}


def cci(bars: Bars, n: float) -> Outputs:
    typical = (bars["high"] + bars["low"] + bars["close"]) * (1 / 3)

    def of(w: Array) -> float:
        return 0.0 if all_equal(w) else float((w[-1] - np.mean(w)) / (0.015 * np.mean(np.abs(w - np.mean(w)))))

    return {"cci": windowed(typical, int(n), of)}


def ultimate(bars: Bars, short: float, middle: float, long: float) -> Outputs:
    """Buying pressure (close less true low) over true range in three windows, weighed 4, 2 and 1."""
    close, ranges, out = bars["close"], reach(bars), empty(bars)
    pressure = close - np.minimum(bars["low"], before(close))
    for t in range(int(long), len(out)):
        total = 0.0
        for n, weight in ((int(short), 4), (int(middle), 2), (int(long), 1)):
            window = slice(t - n + 1, t + 1)
            if max(ranges[window]) > 0:
                total += weight * np.sum(pressure[window]) / np.sum(ranges[window])
        out[t] = 100 * total / 7
    return {"ultimate": out}


def balance_of_power(bars: Bars) -> Outputs:
    out = empty(bars)
    for t in range(len(out)):
        width = bars["high"][t] - bars["low"][t]
        out[t] = (bars["close"][t] - bars["open"][t]) / width if width > 0 else 0.0
    return {"balance_of_power": out}
