"""Donchian breakout: follow a close beyond the highest high or lowest low of the bars before."""

from __future__ import annotations

from typing import Any

from pipeline.backtest.single.event import FLAT, LONG, SHORT, STAY, STOP, TRAIL

from .declare import Parameter, Strategy, Use

UPPER, LOWER, LEAVE_UPPER, LEAVE_LOWER, CLOSE, ATR = range(6)
_, _, STOP_ATR, TRAIL_ATR = range(4)


def step(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Go long on a close above the highest high of the `enter` bars before, short on one below their lowest low; leave
    on a close beyond the opposite end of the `leave` bars before, at an ATR stop or a trailing one.
    """
    close = x[at[CLOSE], i]
    order[STOP], order[TRAIL] = p[STOP_ATR] * x[at[ATR], i], p[TRAIL_ATR] * x[at[ATR], i]
    if close > x[at[UPPER], i]:
        return LONG
    if close < x[at[LOWER], i]:
        return SHORT
    if side > 0 and close < x[at[LEAVE_LOWER], i]:
        return FLAT
    return FLAT if side < 0 and close > x[at[LEAVE_UPPER], i] else STAY


donchian_breakout = Strategy(
    name="donchian_breakout",
    parameters=(
        Parameter("enter", 20, 10, 100, 5),
        Parameter("leave", 10, 5, 50, 5),
        Parameter("stop_atr", 2.0, 0.0, 6.0, 0.25),
        Parameter("trail_atr", 0.0, 0.0, 8.0, 0.5),
    ),
    columns=(
        Use("donchian_before", {"n": "enter"}, "donchian_upper_before"),
        Use("donchian_before", {"n": "enter"}, "donchian_lower_before"),
        Use("donchian_before", {"n": "leave"}, "donchian_upper_before"),
        Use("donchian_before", {"n": "leave"}, "donchian_lower_before"),
        Use("close"),
        Use("atr", {"n": 14}, "atr"),
    ),
    step=step,
    rising=(("leave", "enter"),),
)
