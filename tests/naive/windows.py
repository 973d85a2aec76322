"""What most twins need: windows as slices and exponential smoothing, from the definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bars = Mapping[str, Array]
Outputs = dict[str, Array]


def empty(bars: Bars) -> Array:
    return np.full(len(bars["close"]), np.nan)


def windowed(values: Array, n: int, of: Callable[[Array], float], first: int = 0) -> Array:
    """Apply `of` to every window of n values; the first window begins at `first`."""
    out = np.full(len(values), np.nan)
    for t in range(first + n - 1, len(values)):
        out[t] = of(values[t - n + 1 : t + 1])
    return out


def mean(w: Array) -> float:
    return float(np.mean(w))


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


def exponential(values: Array, n: int, first: int = 0) -> Array:
    """Smooth by the weight of an EMA over n bars; values are known from `first` on."""
    return smoothed(values, first, n, 2 / (n + 1))


def before(values: Array) -> Array:
    """Return the value of the bar before; NaN at the first."""
    return np.append(np.nan, values)[: len(values)]


def typical_price(bars: Bars) -> Array:
    return (bars["high"] + bars["low"] + bars["close"]) / 3


def reach(bars: Bars) -> Array:
    """Return the true range; NaN at the first bar."""
    out = empty(bars)
    for t in range(1, len(out)):
        close = bars["close"][t - 1]
        out[t] = max(bars["high"][t], close) - min(bars["low"][t], close)
    return out


def wilder_range(bars: Bars, n: int) -> Array:
    """Return Wilder's mean of the true range."""
    return smoothed(reach(bars), 1, n, 1 / n)
