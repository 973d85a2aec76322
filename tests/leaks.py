"""Strategies that look ahead, each in another way, which an audit has to find, and one that wants nothing."""

from __future__ import annotations

from typing import Any

from pipeline.backtest.single.event import LONG, SHORT, STAY
from pipeline.strategies import Parameter, Strategy, Use

N = Parameter("n", 5, 2, 40, 1)


def _next_close(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Go where the next bar goes, if it goes more than n 0.1 %."""
    change = x[at[0], i + 1] / x[at[0], i] - 1.0
    if change > 0.001 * p[0]:
        return LONG
    return SHORT if change < -0.001 * p[0] else STAY


next_close = Strategy("next_close", (N,), (Use("ema", {"n": 2}),), _next_close)


def _wrapped(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Look farther back than declared: before there are so many bars, an index below zero is one from the end."""
    if side != 0 or not x[at[0], i] > 0.0:
        return STAY
    return LONG if x[at[0], i - 30] > 0.0 else SHORT


wrapped = Strategy("wrapped", (N,), (Use("roc", {"n": 1}),), _wrapped, lookback=1)


def _still(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Want nothing."""
    return STAY


still = Strategy("still", (N,), next_close.columns, _still)
