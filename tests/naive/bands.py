"""Twins: bands and channels."""

from __future__ import annotations

import numpy as np

from .windows import Bars, Outputs, all_equal, empty, exponential, reach, smoothed, typical_price


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


def keltner(bars: Bars, n: float, m: float, k: float) -> Outputs:
    """Both means begin at the first bar at which both can."""
    n, m, place = int(n), int(m), empty(bars)
    begin = max(n - 1, m)
    middle = exponential(typical_price(bars), n, begin - n + 1)
    arm = k * smoothed(reach(bars), begin - m + 1, m, 1 / m)
    for t in range(len(place)):
        if arm[t] == 0:
            place[t] = 0.5
        else:
            place[t] = (bars["close"][t] - (middle[t] - arm[t])) / (2 * arm[t])
    return {
        "keltner_upper": middle + arm,
        "keltner_lower": middle - arm,
        "keltner_place": place,
        "keltner_width": 2 * arm / middle,
    }


def donchian(bars: Bars, n: float) -> Outputs:
    n = int(n)
    upper, lower, place = empty(bars), empty(bars), empty(bars)
    for t in range(n - 1, len(place)):
        upper[t], lower[t] = max(bars["high"][t - n + 1 : t + 1]), min(bars["low"][t - n + 1 : t + 1])
        width = upper[t] - lower[t]
        place[t] = (bars["close"][t] - lower[t]) / width if width > 0 else 0.0
    middle = (upper + lower) / 2
    return {
        "donchian_upper": upper,
        "donchian_lower": lower,
        "donchian_middle": middle,
        "donchian_width": (upper - lower) / middle,
        "donchian_place": place,
    }


def donchian_before(bars: Bars, n: float) -> Outputs:
    upper, lower, n = empty(bars), empty(bars), int(n)
    for t in range(n, len(upper)):
        upper[t], lower[t] = max(bars["high"][t - n : t]), min(bars["low"][t - n : t])
    return {"donchian_upper_before": upper, "donchian_lower_before": lower}
