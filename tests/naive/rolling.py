"""Twins: what stands where in the last n bars."""

from __future__ import annotations

import numpy as np

from .windows import Array, Bars, Outputs, all_equal, before, windowed


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
    returns = bars["close"] / before(bars["close"]) - 1

    def standardised(w: Array, power: int) -> float:
        gap = w - np.mean(w)
        if np.mean(gap**2) <= 1e-12 * np.mean(w**2):
            return 0.0
        return float(np.mean(gap**power) / np.mean(gap**2) ** (power / 2)) - (3.0 if power == 4 else 0.0)

    return {
        "skew": windowed(returns, int(n), lambda w: standardised(w, 3), 1),
        "kurtosis": windowed(returns, int(n), lambda w: standardised(w, 4), 1),
    }


def sample_deviation(w: Array) -> float:
    return 0.0 if all_equal(w) else float(np.std(w, ddof=1))


def deviation(bars: Bars, n: float) -> Outputs:
    return {"deviation": windowed(bars["close"], int(n), sample_deviation)}


def quantile(bars: Bars, n: float, q: float) -> Outputs:
    """The value at place q (n - 1) of the sorted closes, between two of them in proportion."""

    def of(w: Array) -> float:
        ordered, place = sorted(w), q * (len(w) - 1)
        below = int(place)
        above = min(below + 1, len(w) - 1)
        return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))

    return {"quantile": windowed(bars["close"], int(n), of)}


def rank(bars: Bars, n: float) -> Outputs:
    def of(w: Array) -> float:
        smaller, equal = sum(v < w[-1] for v in w), sum(v == w[-1] for v in w)
        return float((smaller + (equal + 1) / 2) / len(w))

    return {"rank": windowed(bars["close"], int(n), of)}


def argextremes(bars: Bars, n: float) -> Outputs:
    def place_of(best: float, w: Array) -> float:
        return (list(w).index(best) + 1) / len(w)

    highest = windowed(bars["high"], int(n), lambda w: place_of(max(w), w))
    lowest = windowed(bars["low"], int(n), lambda w: place_of(min(w), w))
    return {"argmax": highest, "argmin": lowest, "argmax_less_argmin": highest - lowest}
