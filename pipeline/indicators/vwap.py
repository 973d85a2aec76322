"""Prices weighted by what was traded at them. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .running import two_sums, typical, unchanged
from .spec import Indicator, Output, Param


def _vwap(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of the last n prices weighted by volume; this bar's price where nothing was traded.

    The price of a bar is the mean of high, low and close; with the close as the only price it is that.
    """
    n, size, last = int(p[0]), p[0], x_CTS.shape[0] - 1
    below, end = last // 2, last - 1
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            price = typical(x_CTS[0, t, s], x_CTS[below, t, s], x_CTS[end, t, s])
            past = typical(x_CTS[0, t - n, s], x_CTS[below, t - n, s], x_CTS[end, t - n, s])
            volume, leaving = x_CTS[last, t, s], x_CTS[last, t - n, s]
            idle = unchanged(state_KS[6, s], volume == 0.0, count + 1.0)
            paid, change = price * volume, price * volume - past * leaving
            total, shares = two_sums(state_KS, 1, s, change, paid, volume - leaving, volume, count, size)
            state_KS[6, s] = idle
            mean = total / shares
            mean = mean if idle < size and shares > 0.0 else price
            out_OTS[0, t, s] = mean if count >= size else nan


vwap = Indicator(
    name="vwap",
    kernel=_vwap,
    inputs=("high", "low", "close", "volume"),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("vwap", "KRW", "price"),),
    state=7,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="sum of TA-Lib TYPPRICE * volume / sum of volume",
)

vwma = Indicator(
    name="vwma",
    kernel=_vwap,
    inputs=("close", "volume"),
    params=(Param("n", 20, 2, 1000),),
    outputs=(Output("vwma", "KRW", "price"),),
    state=7,
    past=lambda n: n,
    ready=lambda n: n,
    warmup=lambda n: 2 * n,
    source="TA-Lib VWMA",
)


def _session_vwap(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Mean of the typical prices of a day up to this bar, weighted by volume; this bar's while nothing was traded."""
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            price, volume = typical(x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s]), x_CTS[3, t, s]
            same = x_CTS[4, t, s] == x_CTS[4, t - 1, s]
            total, shares = state_KS[1, s], state_KS[2, s]
            total = (total if same else 0.0) + price * volume
            shares = (shares if same else 0.0) + volume
            state_KS[1, s] = total
            state_KS[2, s] = shares
            mean = total / shares
            out_OTS[0, t, s] = mean if shares > 0.0 else price


session_vwap = Indicator(
    name="session_vwap",
    kernel=_session_vwap,
    inputs=("high", "low", "close", "volume", "day"),
    params=(),
    outputs=(Output("session_vwap", "KRW", "price"),),
    state=3,
    past=lambda: 1,
    ready=lambda: 1,
    warmup=lambda: inf,
    source="TA-Lib VWAP from the first bar of the day",
)


def _average_price(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Price at which the bar's shares changed hands, turnover / volume; the close where nothing was traded."""
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            close, volume = x_CTS[0, t, s], x_CTS[1, t, s]
            price = x_CTS[2, t, s] / volume
            out_OTS[0, t, s] = price if volume > 0.0 else close


average_price = Indicator(
    name="average_price",
    kernel=_average_price,
    inputs=("close", "volume", "turnover"),
    params=(),
    outputs=(Output("average_price", "KRW", "price"),),
    state=1,
    past=lambda: 0,
    ready=lambda: 1,
    warmup=lambda: 1,
    source="turnover / volume",
)

ALL = (vwap, vwma, session_vwap, average_price)
