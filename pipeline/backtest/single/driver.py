"""Compile the event loop with a strategy's step in it, once, and run combinations of parameters through it.

The only file of the single-instrument engine that knows Numba. The compiled function releases the interpreter lock, so
threads share combinations and all arrays.

Shapes: C combinations, J columns of a strategy, V wake rows, others as in event.py.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.core.errors import NumbaError
from numba.core.event import Listener, install_listener

from pipeline.recurrence.compile import compiled
from pipeline.recurrence.parts import parts_digest, with_parts
from pipeline.strategies.declare import StrategyError
from pipeline.strategies.step import written_at

from . import event
from .event import FLAT, LONG, ORDER, SHORT, STAY, trade

LOG = logging.getLogger(__name__)
STATE = 16  # numbers that a step may keep
_LOW = 15  # place of `low` among the arguments of `_run`; high and worst_C follow


def _run(
    price_TC: Any,
    flag_T: Any,
    rule_TC: Any,
    fact_TC: Any,
    tick_RBC: Any,
    block_T: Any,
    x_UT: Any,
    at_CJ: Any,
    trigger: int,
    wake_VT: Any,
    wake_C: Any,
    p_CP: Any,
    account: Any,
    start: int,
    stop: int,
    low: int,
    high: int,
    worst_C: Any,
    book_CB: Any,
    moment_CMK: Any,
    equity_T: Any,
    trade_NC: Any,
    price_NC: Any,
) -> None:
    """Trade combinations low..high, see `trade`; wake_C : the row of wake_VT of each."""
    order, state = np.empty(ORDER), np.empty(STATE)
    for c in range(low, high):
        state[:] = 0.0
        book_CB[c] = 0
        moment_CMK[c] = 0.0
        worst_C[c] = trade(
            price_TC, flag_T, rule_TC, fact_TC, tick_RBC, block_T, x_UT, at_CJ[c], trigger, wake_VT[wake_C[c]], p_CP[c],
            account, start, stop, order, state, book_CB[c], moment_CMK[c], equity_T, trade_NC, price_NC,
        )  # fmt: skip


def _signature() -> Any:
    f8, i8, i4, u4, u1 = types.float64, types.int64, types.int32, types.uint32, types.uint8

    def array(kind: Any, dimensions: int) -> Any:
        return types.Array(kind, dimensions, "C")

    return types.void(
        array(f8, 2), array(u1, 1), array(f8, 2), array(i8, 2), array(f8, 3), array(i4, 1), array(types.float32, 2),
        array(u4, 2), i8, array(i4, 2), array(i4, 1), array(f8, 2), array(f8, 1), i8, i8, i8, i8,
        array(f8, 1), array(i8, 2), array(f8, 3), array(i8, 1), array(i8, 2), array(f8, 2),
    )  # fmt: skip


def bound(step: Callable[..., int], outer: Callable[..., None] = _run) -> Callable[..., None]:
    """Return `outer` with a copy of `trade` that calls this step."""
    inner = FunctionType(trade.__code__, {**event.__dict__, "step": step}, trade.__name__)
    return FunctionType(outer.__code__, {**outer.__globals__, "trade": inner}, outer.__name__)


class _Compiling(Listener):  # type: ignore[misc]
    def __init__(self, step: Callable[..., int], told: Callable[[str], Any]) -> None:
        self._step, self._told, self._thread = step, told, threading.get_ident()

    def on_start(self, event: Any) -> None:
        if self._thread == threading.get_ident():  # listeners hear all threads
            self._thread = 0  # parts follow
            name = self._step.__module__.rpartition(".")[2]
            self._told(f"compiling the step of '{name}' (once for this machine; some seconds)")

    def on_end(self, event: Any) -> None:
        pass


def compiling(step: Callable[..., int], told: Callable[[str], Any]) -> Any:
    """Return a context in which `told` hears when a step has to be compiled; from disk it comes without a word."""
    return install_listener("numba:compile", _Compiling(step, told))


def runner(step: Callable[..., int]) -> Callable[..., None]:
    """Return `_run` compiled with a strategy's step; from the second time on, also in another process, from disk.

    It raises StrategyError for a step that cannot be compiled, that raises, and that wants something unknown.
    """
    return _runner(step, parts_digest(bound(step)))


@functools.cache
def _runner(step: Callable[..., int], digest: str) -> Callable[..., None]:
    """digest : of the step's code and constants, which a notebook may change between two calls."""
    try:
        with compiling(step, LOG.info):
            run = compiled(bound(step), _signature())
    except NumbaError as error:
        raise StrategyError(_reason(step, error)) from error

    def told(*arguments: Any) -> None:
        try:
            run(*arguments)
        except Exception as error:
            raise StrategyError(
                f"expected STAY, LONG, SHORT or FLAT from the step in {written_at(step)}, got {error!r}; correct it"
            ) from error
        low, high, worst_C = arguments[_LOW : _LOW + 3]
        if np.isnan(worst_C[low:high]).any():
            raise StrategyError(
                f"expected {STAY} (STAY), {LONG} (LONG), {SHORT} (SHORT) or {FLAT} (FLAT) from the step in "
                f"{written_at(step)}, got another number; correct it"
            )

    return told


def _reason(step: Any, error: Exception) -> str:
    """Return why a step cannot be compiled: what the compiler says of it alone, or of what it returns."""
    f8 = types.float64
    floats, wide = types.Array(f8, 1, "C"), types.Array(types.float32, 2, "C")
    arguments = (types.int64, wide, types.Array(types.uint32, 1, "C"), floats, floats, floats, types.int64)
    try:
        alone = numba.njit(arguments, error_model="numpy")(with_parts(step, numba.njit(error_model="numpy")))
        found = f"it returns {alone.nopython_signatures[0].return_type}"
    except NumbaError as own:
        error, found = own, ""
    lines = [line.strip() for line in str(error).splitlines()]
    told = found or next((line for line in lines if line and not line.startswith("Failed in nopython")), "no reason")
    line = next((line.rpartition("line ")[2].rstrip(":") for line in lines if line.startswith("File ")), "")
    where = written_at(step) if found or not line else f"{step.__code__.co_filename}:{line}"
    return (
        f"expected a step that can be compiled (numbers and math only; STAY, LONG, SHORT or FLAT on every path), got "
        f"'{told}' in {where}; correct it"
    )


def _wakes(x_UT: Any, row_V: Any, wake_VT: Any) -> None:
    T = x_UT.shape[1]
    for v in range(row_V.shape[0]):
        wake_VT[v, T] = T
        for t in range(T - 1, -1, -1):
            wake_VT[v, t] = t if abs(x_UT[row_V[v], t]) > 0.0 else wake_VT[v, t + 1]


def wakes(x_UT: Any, row_V: Any) -> Any:
    """Return the first bar from each on at which a row is not zero (NaN is), (V, T + 1) int32; T = none."""
    out = np.empty((len(row_V), x_UT.shape[1] + 1), np.int32)
    array = types.Array
    signature = types.void(array(types.float32, 2, "C"), array(types.int64, 1, "C"), array(types.int32, 2, "C"))
    compiled(_wakes, signature)(x_UT, np.asarray(row_V, np.int64), out)
    return out
