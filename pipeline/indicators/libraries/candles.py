"""Shapes of one, two or three bars; sums are taken bar by bar, because a shape hangs on comparisons."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from .algebra import Bars, Formula, Known, larger, smaller


class _Candle:
    """Bar `back` bars ago: its parts, and what lengths at it are measured by."""

    def __init__(self, b: Bars, back: int) -> None:
        self.b, self.back = b, back
        self.opened, self.high, self.low, self.close = (
            b.lag(b.column(name), back) if back else b.column(name) for name in ("open", "high", "low", "close")
        )
        self.white, self.black = self.close >= self.opened, self.close < self.opened
        self.top, self.bottom = larger(b, self.close, self.opened), smaller(b, self.close, self.opened)
        self.body = self.top - self.bottom

    def _mean(self, of: Any) -> Any:
        sums = [sum((self.b.lag(of, self.back + age) for age in range(far, far - 5, -1)), 0.0) for far in (10, 5)]
        return (sums[1] + sums[0]) / 10.0

    @cached_property
    def long(self) -> Any:
        """Mean body of the 10 bars before."""
        return self._mean((self.b.column("close") - self.b.column("open")).abs())

    @cached_property
    def tiny(self) -> Any:
        """A tenth of the mean range of the 10 bars before."""
        return 0.1 * self._mean(self.b.column("high") - self.b.column("low"))

    @cached_property
    def near(self) -> Any:
        """Mean range of the 5 bars before."""
        reach = self.b.column("high") - self.b.column("low")
        return sum((self.b.lag(reach, self.back + age) for age in range(5, 0, -1)), 0.0) / 5.0


def one_bar_shapes(b: Bars) -> list[Known]:
    now, before = _Candle(b, 0), _Candle(b, 1)
    upper, lower, near = now.high - now.top, now.bottom - now.low, 0.2 * before.near
    short = now.body < now.long
    hangs = short & (lower > now.body) & (upper < now.tiny)
    stands = short & (upper > now.body) & (lower < now.tiny)
    color = b.where(now.white, 100.0, -100.0)
    bare = (now.body > now.long) & (upper < now.tiny) & (lower < now.tiny)
    return [
        (b.where(now.body <= now.tiny, 100.0, 0.0), 11),
        (b.where(hangs & (now.bottom <= before.low + near), 100.0, 0.0), 12),
        (b.where(hangs & (now.bottom >= before.high - near), -100.0, 0.0), 12),
        (b.where(stands & (now.bottom > before.top), -100.0, 0.0), 12),
        (b.where(stands & (now.top < before.bottom), 100.0, 0.0), 12),
        (b.where(bare, color, 0.0), 11),
        (b.where(short & (upper > now.body) & (lower > now.body), color, 0.0), 11),
    ]


def two_bar_shapes(b: Bars) -> list[Known]:
    now, was = _Candle(b, 0), _Candle(b, 1)
    long, was_long, turned = now.body > now.long, was.body > was.long, now.white != was.white
    around = (now.top >= was.top) & (now.bottom <= was.bottom) & ((now.top > was.top) | (now.bottom < was.bottom))
    engulfing = b.where((now.top > was.top) & (now.bottom < was.bottom), 100.0, 80.0)
    engulfing = b.where(turned & around, b.where(now.white, engulfing, -engulfing), 0.0)
    within = (now.top <= was.top) & (now.bottom >= was.bottom)
    harami = b.where((now.top < was.top) & (now.bottom > was.bottom), 100.0, 80.0)
    harami = b.where(within & was_long & (now.body <= now.long), b.where(was.white, -harami, harami), 0.0)
    middle, half = was_long & turned, 0.5 * was.body
    rises = now.white & long & (now.opened < was.low) & (now.close > was.close + half) & (now.close < was.opened)
    falls = was.white & (now.opened > was.high) & (now.close > was.opened) & (now.close < was.close - half)
    piercing, cover = b.where(middle & rises, 100.0, 0.0), b.where(middle & falls, -100.0, 0.0)
    return [(engulfing, 3), (harami, 12), (piercing, 12), (cover, 12)]


def _steps_up(now: _Candle, was: _Candle) -> Any:
    begins = (now.opened > was.opened) & (now.opened <= was.close + 0.2 * was.near)
    return (now.close > was.close) & begins & (now.close - now.opened > was.close - was.opened - 0.6 * was.near)


def _steps_down(now: _Candle, was: _Candle) -> Any:
    return (now.close < was.close) & (now.opened < was.opened) & (now.opened > was.close)


def three_bar_shapes(b: Bars) -> list[Known]:
    third, second, first, before = (_Candle(b, back) for back in range(4))
    long = third.body > third.long
    star = long & (first.body > first.long) & (second.body <= second.long)
    low = star & first.black & (first.bottom > second.top) & third.white
    high = star & first.white & (second.bottom > first.top) & third.black
    up, down = long, before.white & (before.high > first.bottom)
    for bar in (first, second, third):
        up = up & bar.white & (bar.high - bar.top < bar.tiny)
        down = down & bar.black & (bar.bottom - bar.low < bar.tiny)
    up = up & _steps_up(second, first) & _steps_up(third, second)
    down = down & _steps_down(second, first) & _steps_down(third, second)
    return [
        (b.where(low & (third.close > first.bottom + 0.3 * first.body), 100.0, 0.0), 13),
        (b.where(high & (third.close < first.top - 0.3 * first.body), -100.0, 0.0), 13),
        (b.where(up, 100.0, 0.0), 13),
        (b.where(down, -100.0, 0.0), 14),
    ]


FORMULAS: dict[str, Formula] = {
    "one_bar_shapes": one_bar_shapes,
    "two_bar_shapes": two_bar_shapes,
    "three_bar_shapes": three_bar_shapes,
}
