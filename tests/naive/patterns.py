"""Twins: patterns of swings."""

from __future__ import annotations

from typing import NamedTuple

from .trend import macd
from .windows import Array, Bars, Outputs, empty


class Swing(NamedTuple):
    """Hold a run of bars with values on one side of 0: the side, the farthest value and its bar."""

    side: int
    extreme: float
    place: int


def swings(values: Array) -> list[Swing]:
    """Cut values into swings, the oldest first; 0 ends none."""
    out: list[Swing] = []
    for t, value in enumerate(values):
        side = int(value > 0) - int(value < 0)
        if side and (not out or out[-1].side != side):
            out.append(Swing(side, value, t))
        elif side and abs(value) > abs(out[-1].extreme):
            out[-1] = Swing(side, value, t)
    return out


def macd_double(bars: Bars, fast: float, slow: float, signal: float, tolerance: float, apart: float) -> Outputs:
    """Each bar that begins a swing ends one: that one beside the last on its side is the pattern, or is none."""
    histogram, out = macd(bars, fast, slow, signal)["macd_histogram"], empty(bars)
    first = int(slow + signal) - 2
    for t in range(first, len(out)):
        before, now = swings(histogram[first:t]), swings(histogram[first : t + 1])
        out[t] = 0.0
        if len(now) > len(before) >= 3:
            one, two = before[-3], before[-1]
            alike = abs(two.extreme) <= (1 + tolerance) * abs(one.extreme)
            if alike and (apart == 0 or two.place - one.place <= apart):
                out[t] = -two.side
    return {"macd_double": out}
