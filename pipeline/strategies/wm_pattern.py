"""W and M patterns: double bottoms and tops of the MACD histogram, entered after a pull-back of the RSI."""

from __future__ import annotations

from typing import Any

from pipeline.backtest.single.event import LONG, SHORT, STAY, STOP, TRAIL, TRAIL_START

from .declare import Parameter, Strategy, Use

PATTERN, RSI, ATR, USUAL, TREND = range(5)
VALIDITY, LEVEL, ADAPT, STOP_ATR, START_ATR, TRAIL_ATR = range(10, 16)
MOST = 10.0  # points by which the level adapts at most
ARMED, SINCE = range(2)  # state


def step(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """After a W (M), for `validity` bars, go long (short) when the RSI crosses back above `level` (below 100 - level)
    and the close is above (below) its average on the filter's bars.

    The level moves by `adapt` points for each 100 % that ATR is above its own mean: in wild markets the RSI has to come
    back farther. ATR stop from the fill; trailing stop behind the extreme once the price has gone its start.
    """
    pattern = x[at[PATTERN], i]
    if pattern != 0.0 and pattern == pattern:
        state[ARMED], state[SINCE] = pattern, i
    elif i - state[SINCE] > p[VALIDITY]:
        state[ARMED] = 0.0
    armed, trend = state[ARMED], x[at[TREND], i]
    if side != 0 or not armed * trend < 0.0:  # NaN is not
        return STAY
    rsi, before, atr = x[at[RSI], i], x[at[RSI], i - 1], x[at[ATR], i]
    level = p[LEVEL] + min(max(p[ADAPT] * (x[at[USUAL], i] - 1.0), -MOST), MOST)
    if not (before < level <= rsi if armed > 0.0 else before > 100.0 - level >= rsi):
        return STAY
    order[STOP], order[TRAIL_START], order[TRAIL] = p[STOP_ATR] * atr, p[START_ATR] * atr, p[TRAIL_ATR] * atr
    state[ARMED] = 0.0
    return LONG if armed > 0.0 else SHORT


wm_pattern = Strategy(
    name="wm_pattern",
    parameters=(
        Parameter("fast", 12, 4, 20, 1),
        Parameter("slow", 26, 15, 60, 1),
        Parameter("signal", 9, 3, 20, 1),
        Parameter("tolerance", 0.0, 0.0, 0.5, 0.05),
        Parameter("pattern_timeframe", "1h", choices=("30m", "1h", "4h", "1d", "1w")),
        Parameter("rsi", 14, 5, 30, 1),
        Parameter("entry_timeframe", "15m", choices=("15m", "30m", "1h", "1d")),
        Parameter("atr", 14, 5, 30, 1),
        Parameter("filter_timeframe", "4h", choices=("1h", "4h", "1d", "1w")),
        Parameter("filter_ema", 50, 10, 200, 5),
        Parameter("validity", 32, 4, 96, 4),
        Parameter("level", 45, 25, 50, 1),
        Parameter("adapt", 4.0, 0.0, 20.0, 1.0),
        Parameter("stop_atr", 2.0, 1.0, 4.0, 0.1),
        Parameter("trail_start_atr", 1.0, 0.5, 3.0, 0.1),
        Parameter("trail_atr", 1.0, 0.5, 3.0, 0.1),
    ),
    columns=(
        Use(
            "macd_double",
            {"fast": "fast", "slow": "slow", "signal": "signal", "tolerance": "tolerance"},
            at="pattern_timeframe",
            once=True,
        ),
        Use("rsi", {"n": "rsi"}, at="entry_timeframe"),
        Use("atr", {"n": "atr"}, "atr"),
        Use("atr_ratio", {"n": "atr", "m": 100}),
        Use("ema", {"n": "filter_ema"}, over="close", at="filter_timeframe"),
    ),
    step=step,
    trigger=PATTERN,
    rising=(("fast", "slow"),),
)
