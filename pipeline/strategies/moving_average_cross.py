"""Moving-average cross: from one crossing of two averages to the next."""

from __future__ import annotations

from typing import Any

from pipeline.backtest.single.event import LONG, SHORT, STAY, STOP, TRAIL, TRAIL_START

from .declare import Parameter, Strategy, Use

FAST, SLOW, ATR = range(3)  # columns
_, _, _, STOP_ATR, START_ATR, TRAIL_ATR = range(6)  # parameters; the first three only columns read


def step(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Go long when the fast average crosses above the slow one, short when it crosses below; an ATR stop from the fill,
    which trails once the price has gone far enough.
    """
    gap, before = x[at[FAST], i] - x[at[SLOW], i], x[at[FAST], i - 1] - x[at[SLOW], i - 1]
    atr = x[at[ATR], i]
    order[STOP], order[TRAIL_START], order[TRAIL] = p[STOP_ATR] * atr, p[START_ATR] * atr, p[TRAIL_ATR] * atr
    if gap > 0.0 and before <= 0.0:
        return LONG
    return SHORT if gap < 0.0 and before >= 0.0 else STAY


moving_average_cross = Strategy(
    name="moving_average_cross",
    parameters=(
        Parameter("fast", 20, 5, 60, 5),
        Parameter("slow", 60, 20, 240, 20),
        Parameter("atr", 14, 7, 28, 7),
        Parameter("stop_atr", 3.0, 0.0, 6.0, 0.5),
        Parameter("trail_start_atr", 2.0, 0.0, 4.0, 0.5),
        Parameter("trail_atr", 0.0, 0.0, 6.0, 0.5),
    ),
    columns=(Use("ema", {"n": "fast"}), Use("ema", {"n": "slow"}), Use("atr", {"n": "atr"}, "atr")),
    step=step,
    rising=(("fast", "slow"),),
)
