"""A strategy to copy: buy strength in a rising market, leave on weakness.

Copy this file under another name beside it, name the strategy like the file and change the three parts: then the
optimiser, the audit and the tests know it. A copy anywhere else can be handed over: `sweep(bars, my_strategy, ...)`.
"""

from __future__ import annotations

from typing import Any

from pipeline.backtest.single.event import BARS, FLAT, LONG, STAY, STOP, TARGET
from pipeline.strategies.declare import Parameter, Strategy, Use

# 1. Numbers of what the step reads, in the order of `columns` and of `parameters` below.
RSI, TREND, ATR = range(3)
_, _, _, ENTRY, EXIT, STOP_ATR, TARGET_ATR, MOST_BARS = range(8)


# 2. What is wanted after the close of bar i: x[at[COLUMN], i] is a column (NaN until it is known, and then no
# comparison holds), p[PARAMETER] a parameter, side what is held: 1, 0 or -1. Never look at i + 1: the audit would find
# it.
def step(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Buy when RSI crosses above `entry` while the price is above its average on coarser bars; leave when RSI falls
    below `exit`, at the stop, at the target or after `most_bars`.
    """
    rsi, before = x[at[RSI], i], x[at[RSI], i - 1]
    if side > 0:
        return FLAT if rsi < p[EXIT] else STAY
    order[STOP] = p[STOP_ATR] * x[at[ATR], i]  # distances from the price of the fill; 0 = none, NaN = no entry
    order[TARGET] = p[TARGET_ATR] * x[at[ATR], i]
    order[BARS] = p[MOST_BARS]
    rising = x[at[TREND], i] < 0.0  # average / close - 1
    return LONG if rising and before <= p[ENTRY] < rsi else STAY


# 3. Its parameters (default, lowest, highest, step) and its columns, whose texts name parameters. `at` computes a
# column on coarser bars, seen once they have closed.
template = Strategy(
    name="template",
    parameters=(
        Parameter("rsi", 14, 5, 30, 1),
        Parameter("trend", 50, 10, 200, 10),
        Parameter("trend_timeframe", "1w", choices=("1h", "4h", "1d", "1w")),
        Parameter("entry", 55, 50, 70, 1),
        Parameter("exit", 45, 30, 50, 1),
        Parameter("stop_atr", 2.0, 0.5, 6.0, 0.1),
        Parameter("target_atr", 0.0, 0.0, 10.0, 0.5),
        Parameter("most_bars", 0, 0, 200, 10),
    ),
    columns=(
        Use("rsi", {"n": "rsi"}),
        Use("ema", {"n": "trend"}, over="close", at="trend_timeframe"),
        Use("atr", {"n": 14}, "atr"),
    ),
    step=step,
)
