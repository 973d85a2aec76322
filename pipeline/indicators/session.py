"""The day so far, for bars within it. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf

from ..recurrence import Floats
from .spec import Indicator, Output, Param


def _session(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Open, high and low of the local calendar day up to this bar, and high and low of its first n bars (of those so
    far, within them).
    """
    size = p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            opened, high, low, day = x_CTS[0, t, s], x_CTS[1, t, s], x_CTS[2, t, s], x_CTS[3, t, s]
            bars, begun, top, bottom = state_KS[2, s], state_KS[3, s], state_KS[4, s], state_KS[5, s]
            early_top, early_bottom = state_KS[6, s], state_KS[7, s]
            bars = bars if day == state_KS[1, s] else 0.0
            begins = bars == 0.0
            bars = bars + 1.0 if count > 0.0 else 0.0
            begun = opened if begins else begun
            top = high if begins else top
            bottom = low if begins else bottom
            top = high if high > top else top
            bottom = low if low < bottom else bottom
            early_top = top if bars <= size else early_top
            early_bottom = bottom if bars <= size else early_bottom
            state_KS[1, s] = day
            state_KS[2, s] = bars
            state_KS[3, s] = begun
            state_KS[4, s] = top
            state_KS[5, s] = bottom
            state_KS[6, s] = early_top
            state_KS[7, s] = early_bottom
            out_OTS[0, t, s] = begun
            out_OTS[1, t, s] = top
            out_OTS[2, t, s] = bottom
            out_OTS[3, t, s] = early_top
            out_OTS[4, t, s] = early_bottom


session = Indicator(
    name="session",
    kernel=_session,
    inputs=("open", "high", "low", "day"),
    params=(Param("n", 30, 1, 1000),),
    outputs=(
        Output("session_open", "KRW", "price", params=()),
        Output("session_high", "KRW", "price", params=()),
        Output("session_low", "KRW", "price", params=()),
        Output("opening_high", "KRW", "price"),
        Output("opening_low", "KRW", "price"),
    ),
    state=8,
    past=lambda n: 0,
    ready=lambda n: 1,
    warmup=lambda n: inf,
    source="opening range: T. Crabel, Day Trading with Short Term Price Patterns and Opening Range Breakout, 1990",
)

ALL = (session,)
