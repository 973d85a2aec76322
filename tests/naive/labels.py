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


def triple_barrier(
    bars: Bars, volatility: Array, h: int, upper: float, lower: float, *, delisted: bool
) -> tuple[Array, Array, Array]:
    """Return the side, the return and the row of the exit (NaN = none) of every bar of one series: everything that
    could end the position is listed, and the earliest of it did.

    bars : as above, with traded (what orders meet at, NaN = no trade), high and low.
    """
    side, value, end = empty(bars), empty(bars), empty(bars)
    traded, sell, last = bars["traded"], bars["sell"], len(bars["close"]) - 1
    for t in range(last):
        entry, paid = t + 1, bars["buy"][t + 1]
        scale = volatility[t] * math.sqrt(h)
        if math.isnan(paid) or not scale > 0:
            continue
        top, bottom = paid * (1 + upper * scale), paid * (1 - lower * scale)

        def over(price: float, top: float = top, bottom: float = bottom) -> int:
            return 1 if price >= top else -1 if price <= bottom else 0

        seen: list[tuple[int, bool, float]] = []  # row, at its open?, price, in the order of time
        for u in [u for u in range(entry, last + 1) if not math.isnan(traded[u])]:
            within = [x for x in (traded[u], bars["high"][u], bars["low"][u], bars["close"][u]) if not math.isnan(x)]
            seen += [(u, True, traded[u])] if u > entry else []
            seen += [(u, False, min(within)), (u, False, max(within))]
        touches = [found for found in seen if over(found[2])]
        opens = [u for u in range(entry + 1, last + 1) if not math.isnan(sell[u])]
        expiry = [u for u in opens if u >= entry + h]
        touch = touches[0] if touches else None
        if touch and expiry and (touch[0], not touch[1]) > (expiry[0], False):
            touch = None
        if touch:
            row, opening, price = touch
            side[t] = over(price)
            later = [u for u in opens if u > row]
            if not math.isnan(sell[row]):
                out = row, sell[row] if opening else top if side[t] > 0 else bottom
            elif later:
                out = later[0], sell[later[0]]
            else:
                out = last, bars["close"][last] if delisted else math.nan
        elif expiry:
            side[t], out = 0, (expiry[0], sell[expiry[0]])
        else:
            out = last, bars["close"][last] if delisted else math.nan
            side[t] = over(out[1])
        value[t], end[t] = out[1] / paid - 1, out[0]
        if math.isnan(out[1]):
            side[t], end[t] = math.nan, math.nan
    return side, value, end
