"""How fast prices go: RSI, CMO, rate of change, momentum. See spec.py for the names used in kernels."""

from __future__ import annotations

from math import inf, nan

from ..recurrence import Floats
from .running import gain_and_loss, lasts
from .spec import Indicator, Output, Param, forgets


def _rsi(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Share of rises in all changes of the close, both by Wilder's smoothing, times 100; 0 where nothing changed."""
    size = p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            change = x_CTS[0, t, s] - x_CTS[0, t - 1, s]
            up, down = gain_and_loss(state_KS, 1, s, change, count - 1.0, size)
            both = up + down
            value = 100.0 * (up / both)
            value = value if lasts(both) else 0.0
            out_OTS[0, t, s] = value if count > size else nan


rsi = Indicator(
    name="rsi",
    kernel=_rsi,
    inputs=("close",),
    params=(Param("n", 14, 2, 500),),
    outputs=(Output("rsi", "percent", bounds=(0.0, 100.0)),),
    state=3,
    past=lambda n: 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + forgets(1 - 1 / n, 1e-10),  # what was before may have moved ten times as much
    counts="changes",
    source="TA-Lib RSI (J. W. Wilder, New Concepts in Technical Trading Systems, 1978)",
)


def _cmo(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Rises less falls of the close over both, by Wilder's smoothing, times 100; 0 where nothing changed."""
    size = p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            count = state_KS[0, s] + bar
            change = x_CTS[0, t, s] - x_CTS[0, t - 1, s]
            up, down = gain_and_loss(state_KS, 1, s, change, count - 1.0, size)
            both = up + down
            value = 100.0 * ((up - down) / both)
            value = value if lasts(both) else 0.0
            out_OTS[0, t, s] = value if count > size else nan


cmo = Indicator(
    name="cmo",
    kernel=_cmo,
    inputs=("close",),
    params=(Param("n", 14, 2, 500),),
    outputs=(Output("cmo", "percent", bounds=(-100.0, 100.0)),),
    state=3,
    past=lambda n: 1,
    ready=lambda n: n + 1,
    warmup=lambda n: n + forgets(1 - 1 / n, 1e-10),
    counts="changes",
    source="TA-Lib CMO (T. Chande and S. Kroll, The New Technical Trader, 1994, with Wilder's smoothing)",
)


def _roc(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Close over the close n bars before, less one."""
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            value = x_CTS[0, t, s] / x_CTS[0, t - n, s] - 1.0
            out_OTS[0, t, s] = value if state_KS[0, s] + bar > size else nan


roc = Indicator(
    name="roc",
    kernel=_roc,
    inputs=("close",),
    params=(Param("n", 10, 1, 1000),),
    outputs=(Output("roc", "ratio", bounds=(-1.0, inf)),),
    state=1,
    past=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="TA-Lib ROCP",
)


def _momentum(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Close less the close n bars before."""
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            value = x_CTS[0, t, s] - x_CTS[0, t - n, s]
            out_OTS[0, t, s] = value if state_KS[0, s] + bar > size else nan


momentum = Indicator(
    name="momentum",
    kernel=_momentum,
    inputs=("close",),
    params=(Param("n", 10, 1, 1000),),
    outputs=(Output("momentum", "KRW", "price_change"),),
    state=1,
    past=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="TA-Lib MOM",
)


def _lag(x_CTS: Floats, p: Floats, state_KS: Floats, out_OTS: Floats, first: int) -> None:
    """Close n bars before."""
    n, size = int(p[0]), p[0]
    for t in range(first, x_CTS.shape[1]):
        bar = t - first + 1.0
        for s in range(x_CTS.shape[2]):
            value = x_CTS[0, t - n, s]
            out_OTS[0, t, s] = value if state_KS[0, s] + bar > size else nan


lag = Indicator(
    name="lag",
    kernel=_lag,
    inputs=("close",),
    params=(Param("n", 1, 1, 1000),),
    outputs=(Output("close_before", "KRW", "price"),),
    state=1,
    past=lambda n: n,
    ready=lambda n: n + 1,
    warmup=lambda n: n + 1,
    source="the close itself (Qlib ROC divides it by the close of the bar)",
)

ALL = (rsi, cmo, roc, momentum, lag)
