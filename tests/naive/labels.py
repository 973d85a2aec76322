"""Twins: targets."""

from __future__ import annotations

import math

from .windows import Array, Bars, empty


def forward_returns(bars: Bars, ts: Array, h: int, *, delisted: bool) -> tuple[Array, Array]:
    """Return the label and its end stamp (NaN = none) of every bar of one series, straight from the rule.

    bars : buy and sell (what orders of that side pay, NaN = they do not fill) and close.
    """
    buy, sell = bars["buy"], bars["sell"]
    value, end = empty(bars), empty(bars)
    last = len(buy) - 1
    for t in range(last):
        entry = t + 1
        if math.isnan(buy[entry]):
            continue
        exits = [u for u in range(entry + h, last + 1) if not math.isnan(sell[u])]
        if exits:
            value[t], end[t] = sell[exits[0]] / buy[entry] - 1, ts[exits[0]]
        elif delisted:
            value[t], end[t] = bars["close"][last] / buy[entry] - 1, ts[last]
    return value, end
