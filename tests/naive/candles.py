"""Twins: shapes of candles as TA-Lib's CDL functions have them, with its settings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .windows import Array, Bars, Outputs, empty


class Candles:
    """Parts of the bars, and what is long and short beside the bars before."""

    def __init__(self, bars: Bars) -> None:
        self.o, self.h, self.l, self.c = (bars[name] for name in ("open", "high", "low", "close"))
        self.top, self.bottom = np.maximum(self.o, self.c), np.minimum(self.o, self.c)
        self.body, self.range = self.top - self.bottom, self.h - self.l
        self.upper, self.lower = self.h - self.top, self.bottom - self.l

    def color(self, t: int) -> int:
        return 1 if self.c[t] >= self.o[t] else -1

    def mean_body(self, t: int) -> float:
        """Above it a body is long, below it short."""
        return float(1.0 * (np.sum(self.body[t - 10 : t]) / 10))

    def share_of_range(self, share: float, n: int, t: int) -> float:
        return float(share * (np.sum(self.range[t - n : t]) / n))

    def very_short(self, t: int) -> float:
        """Below it a shadow is very short; up to it a body is a doji's."""
        return self.share_of_range(0.1, 10, t)

    def near(self, t: int) -> float:
        return self.share_of_range(0.2, 5, t)

    def far(self, t: int) -> float:
        return self.share_of_range(0.6, 5, t)

    def above(self, a: int, b: int) -> bool:
        """Return whether the body of bar a is wholly above that of b."""
        return bool(self.bottom[a] > self.top[b])


Shape = Callable[[Candles, int], int]


def doji(k: Candles, t: int) -> int:
    return 100 * (k.body[t] <= k.very_short(t))


def long_lower_shadow(k: Candles, t: int) -> bool:
    return bool(k.body[t] < k.mean_body(t) and k.lower[t] > k.body[t] and k.upper[t] < k.very_short(t))


def long_upper_shadow(k: Candles, t: int) -> bool:
    return bool(k.body[t] < k.mean_body(t) and k.upper[t] > k.body[t] and k.lower[t] < k.very_short(t))


def hammer(k: Candles, t: int) -> int:
    return 100 * (long_lower_shadow(k, t) and k.bottom[t] <= k.l[t - 1] + k.near(t - 1))


def hanging_man(k: Candles, t: int) -> int:
    return -100 * (long_lower_shadow(k, t) and k.bottom[t] >= k.h[t - 1] - k.near(t - 1))


def shooting_star(k: Candles, t: int) -> int:
    return -100 * (long_upper_shadow(k, t) and k.above(t, t - 1))


def inverted_hammer(k: Candles, t: int) -> int:
    return 100 * (long_upper_shadow(k, t) and k.above(t - 1, t))


def marubozu(k: Candles, t: int) -> int:
    short = k.very_short(t)
    return 100 * k.color(t) * (k.body[t] > k.mean_body(t) and k.upper[t] < short and k.lower[t] < short)


def spinning_top(k: Candles, t: int) -> int:
    return 100 * k.color(t) * (k.body[t] < k.mean_body(t) and k.upper[t] > k.body[t] and k.lower[t] > k.body[t])


def engulfing(k: Candles, t: int) -> int:
    """Return 80 instead of 100 where one end of the two bodies is the same."""
    if k.color(t) == k.color(t - 1):
        return 0
    outer, inner = (k.top[t], k.bottom[t]), (k.top[t - 1], k.bottom[t - 1])
    if outer[0] > inner[0] and outer[1] < inner[1]:
        return 100 * k.color(t)
    if (outer[0] >= inner[0] and outer[1] < inner[1]) or (outer[0] > inner[0] and outer[1] <= inner[1]):
        return 80 * k.color(t)
    return 0


def harami(k: Candles, t: int) -> int:
    """Return 80 instead of 100 where one end of the two bodies is the same, or both are."""
    if not (k.body[t - 1] > k.mean_body(t - 1) and k.body[t] <= k.mean_body(t)):
        return 0
    if k.top[t] < k.top[t - 1] and k.bottom[t] > k.bottom[t - 1]:
        return -100 * k.color(t - 1)
    if k.top[t] <= k.top[t - 1] and k.bottom[t] >= k.bottom[t - 1]:
        return -80 * k.color(t - 1)
    return 0


def both_long(k: Candles, t: int) -> bool:
    return bool(k.body[t - 1] > k.mean_body(t - 1) and k.body[t] > k.mean_body(t))


def piercing(k: Candles, t: int) -> int:
    b = t - 1
    turned = k.color(b) == -1 and k.color(t) == 1 and both_long(k, t)
    return 100 * (turned and k.o[t] < k.l[b] and k.c[b] + 0.5 * k.body[b] < k.c[t] < k.o[b])


def dark_cloud_cover(k: Candles, t: int) -> int:
    b = t - 1
    turned = k.color(b) == 1 and k.color(t) == -1 and k.body[b] > k.mean_body(b)
    return -100 * (turned and k.o[t] > k.h[b] and k.o[b] < k.c[t] < k.c[b] - 0.5 * k.body[b])


def star(k: Candles, t: int) -> bool:
    """A long body, a short one, and one that is not short."""
    a, b = t - 2, t - 1
    long_short = k.body[a] > k.mean_body(a) and k.body[b] <= k.mean_body(b)
    return bool(long_short and k.body[t] > k.mean_body(t))


def morning_star(k: Candles, t: int) -> int:
    a, b = t - 2, t - 1
    turned = k.color(a) == -1 and k.above(a, b) and k.color(t) == 1
    return 100 * (star(k, t) and turned and k.c[t] > k.c[a] + 0.3 * k.body[a])


def evening_star(k: Candles, t: int) -> int:
    a, b = t - 2, t - 1
    turned = k.color(a) == 1 and k.above(b, a) and k.color(t) == -1
    return -100 * (star(k, t) and turned and k.c[t] < k.c[a] - 0.3 * k.body[a])


def three_white_soldiers(k: Candles, t: int) -> int:
    three = (t - 2, t - 1, t)
    if not all(k.color(u) == 1 and k.upper[u] < k.very_short(u) for u in three):
        return 0
    for a, b in ((t - 2, t - 1), (t - 1, t)):
        if not (k.c[b] > k.c[a] and k.o[a] < k.o[b] <= k.c[a] + k.near(a) and k.body[b] > k.body[a] - k.far(a)):
            return 0
    return 100 * (k.body[t] > k.mean_body(t))


def three_black_crows(k: Candles, t: int) -> int:
    three = (t - 2, t - 1, t)
    if not all(k.color(u) == -1 and k.lower[u] < k.very_short(u) for u in three):
        return 0
    for a, b in ((t - 2, t - 1), (t - 1, t)):
        if not (k.c[b] < k.c[a] and k.c[a] < k.o[b] < k.o[a]):
            return 0
    return -100 * (k.color(t - 3) == 1 and k.h[t - 3] > k.c[t - 2])


def drawn(bars: Bars, shapes: dict[Shape, int]) -> Outputs:
    """Apply shapes to every bar from the one on that has all the bars before it that they look at."""
    candles, found = Candles(bars), {}
    for shape, first in shapes.items():
        values: Array = empty(bars)
        for t in range(first, len(values)):
            values[t] = shape(candles, t)
        found[shape.__name__] = values
    return found


def one_bar_shapes(bars: Bars) -> Outputs:
    shapes: dict[Shape, int] = {
        doji: 10, hammer: 11, hanging_man: 11, shooting_star: 11, inverted_hammer: 11, marubozu: 10, spinning_top: 10,
    }  # fmt: skip
    return drawn(bars, shapes)


def two_bar_shapes(bars: Bars) -> Outputs:
    return drawn(bars, {engulfing: 2, harami: 11, piercing: 11, dark_cloud_cover: 11})


def three_bar_shapes(bars: Bars) -> Outputs:
    return drawn(bars, {morning_star: 12, evening_star: 12, three_white_soldiers: 12, three_black_crows: 13})
