"""Bars of one instrument, what the market allows at them, and whole won, for the brute-force twin in events.py."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import Any, NamedTuple

RATE = 10_000_000
BILLIONTH, MILLIONTH = Fraction(1, 10**9), Fraction(1, 10**6)


class Bar(NamedTuple):
    """A bar and what the market allows at it."""

    open: float
    high: float
    low: float
    close: float
    above: float
    below: float
    high_limit: float
    low_limit: float
    factor: float
    unit: float
    tax: int
    room: int
    day: int
    ticks: tuple[tuple[float, float], ...]
    block: int
    flags: int

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)

    def can_buy(self, price: float) -> bool:
        return price < self.above

    def can_sell(self, price: float) -> bool:
        return price > self.below

    def rounded(self, price: float, up: bool) -> float:
        tick = ([0.0] + [width for start, width in self.ticks if start <= price])[-1]
        if tick == 0:
            return price
        ticks = Fraction(price) / Fraction(tick)
        return (ceil(ticks - BILLIONTH) if up else floor(ticks + BILLIONTH)) * tick

    def slipped(self, price: float, slippage: float, up: bool) -> float:
        if slippage == 0:
            return price
        if up:
            return min(self.rounded(price * (1 + slippage), up=True), self.high_limit)
        lower = max(self.rounded(price * (1 - slippage), up=False), self.low_limit)
        return lower if lower > 0 else price


def won(amount: Fraction) -> int:
    return floor(amount + Fraction(1, 2) + MILLIONTH)


def fee(value: int, rate: int) -> int:
    return value * rate // RATE


def bars_of(case: Any) -> list[Bar]:
    """Return the bars of a case, one object each."""
    out = []
    for t in range(len(case.flag_T)):
        tax, room, day, table, _ = map(int, case.fact_TC[t])
        ticks = tuple((float(start), float(width)) for start, width in case.tick_RBC[table])
        price, rule = map(float, case.price_TC[t]), map(float, case.rule_TC[t])
        out.append(Bar(*price, *rule, tax, room, day, ticks, int(case.block_T[t]), int(case.flag_T[t])))
    return out
