"""RSI reversion: buy weakness and sell strength, back to the middle."""

from __future__ import annotations

from typing import Any

from pipeline.backtest.single.event import BARS, FLAT, LONG, SHORT, STAY, STOP

from .declare import Parameter, Strategy, Use

RSI, TREND, ATR = range(3)
_, _, LOW, MIDDLE, STOP_ATR, MOST_BARS = range(6)


def step(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Go long when the RSI comes back above `low` while the close is above its average, short when it comes back below
    100 - `low` while it is below; leave when the RSI has reached the middle, at an ATR stop or after `most_bars`.
    """
    rsi, before, trend = x[at[RSI], i], x[at[RSI], i - 1], x[at[TREND], i]
    if side > 0 and rsi >= p[MIDDLE]:
        return FLAT
    if side < 0 and rsi <= 100.0 - p[MIDDLE]:
        return FLAT
    order[STOP], order[BARS] = p[STOP_ATR] * x[at[ATR], i], p[MOST_BARS]
    if trend < 0.0 and before <= p[LOW] < rsi:
        return LONG
    return SHORT if trend > 0.0 and before >= 100.0 - p[LOW] > rsi else STAY


rsi_reversion = Strategy(
    name="rsi_reversion",
    parameters=(
        Parameter("rsi", 5, 2, 30, 1),
        Parameter("trend", 100, 20, 240, 20),
        Parameter("low", 25, 5, 40, 1),
        Parameter("middle", 55, 45, 70, 1),
        Parameter("stop_atr", 3.0, 0.0, 6.0, 0.25),
        Parameter("most_bars", 20, 0, 100, 5),
    ),
    columns=(Use("rsi", {"n": "rsi"}), Use("sma", {"n": "trend"}, over="close"), Use("atr", {"n": 14}, "atr")),
    step=step,
)
