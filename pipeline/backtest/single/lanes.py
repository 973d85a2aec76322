"""Run combinations of one instrument on a GPU, a thread each: the same event loop and step as on the CPU, to the same
bits.

Bars and rules lie on the device once, columns for a chunk, parameters come and results go with each launch. Columns are
computed on the CPU. The CUDA simulator runs every line of it. Not run on hardware so far.

Shapes: C combinations, M blocks of sessions, others as in event.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, Self

import numpy as np
from numba import cuda
from numba.core import types

from pipeline.recurrence.exact import device, unfused
from pipeline.recurrence.parts import with_parts
from pipeline.strategies.declare import Step, Strategy, StrategyError

from .chunks import Task
from .driver import STATE, bound
from .event import BOOK, MOMENTS, ORDER, trade
from .figures import Raw

CHUNK = 1 << 18  # combinations of a launch: as many threads as a large GPU holds at once
BLOCK = 64  # threads of a block: neighbours, which share columns
_COLUMNS = _PARAMETERS = 1  # stand for those of the strategy, which are constants of the compiled code


def _lane(
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
    worst_C: Any,
    book_CB: Any,
    moment_CMK: Any,
    moment_MKC: Any,
) -> None:
    """Trade combination number `thread`, see `trade`; moment_MKC : to work in, neighbours lie together."""
    c = cuda.grid(1)
    if c < worst_C.shape[0]:
        order, state = cuda.local.array(ORDER, types.float64), cuda.local.array(STATE, types.float64)
        book = cuda.local.array(BOOK, types.int64)
        at, p = cuda.local.array(_COLUMNS, types.uint32), cuda.local.array(_PARAMETERS, types.float64)
        for k in range(STATE):
            state[k] = 0.0
        for k in range(BOOK):
            book[k] = 0
        for k in range(at_CJ.shape[1]):
            at[k] = at_CJ[c, k]
        for k in range(p_CP.shape[1]):
            p[k] = p_CP[c, k]
        for m in range(moment_MKC.shape[0]):
            for k in range(MOMENTS):
                moment_MKC[m, k, c] = 0.0
        worst_C[c] = trade(
            price_TC, flag_T, rule_TC, fact_TC, tick_RBC, block_T, x_UT, at, trigger, wake_VT[wake_C[c]], p, account,
            start, stop, order, state, book, moment_MKC[:, :, c], fact_TC[:0, 0], fact_TC[:0], price_TC[:0],
        )  # fmt: skip
        for k in range(BOOK):
            book_CB[c, k] = book[k]
        for m in range(moment_MKC.shape[0]):
            for k in range(MOMENTS):
                moment_CMK[c, m, k] = moment_MKC[m, k, c]


def _signature() -> Any:
    f8, i8, i4, u4, u1 = types.float64, types.int64, types.int32, types.uint32, types.uint8

    def array(kind: Any, dimensions: int) -> Any:
        return types.Array(kind, dimensions, "C")

    return types.void(
        array(f8, 2), array(u1, 1), array(f8, 2), array(i8, 2), array(f8, 3), array(i4, 1), array(types.float32, 2),
        array(u4, 2), i8, array(i4, 2), array(i4, 1), array(f8, 2), array(f8, 1), i8, i8,
        array(f8, 1), array(i8, 2), array(f8, 3), array(f8, 3),
    )  # fmt: skip


SIGNATURE = _signature()


def lane(step: Step, columns: int, parameters: int) -> Callable[..., None]:
    """Return the kernel of a strategy with so many columns and parameters, not compiled yet; its parts are device
    functions.
    """
    sizes = {"_COLUMNS": max(columns, 1), "_PARAMETERS": max(parameters, 1)}
    plain = bound(step, _lane)
    return with_parts(FunctionType(plain.__code__, {**plain.__globals__, **sizes}, plain.__name__), device)


@functools.cache
def _kernel(step: Step, columns: int, parameters: int) -> Any:
    with unfused():
        return cuda.jit(SIGNATURE)(lane(step, columns, parameters))


class Lanes:
    """Run tasks on the current GPU, with the interface of Threads. count : CPU threads that compute columns; block :
    threads of a block. Raises StrategyError where there is no GPU.
    """

    chunk = CHUNK

    def __init__(self, strategy: Strategy, count: int, block: int = BLOCK) -> None:
        self.count, self.block = count, block
        self._strategy = strategy
        self._lying: dict[str, tuple[Any, Any]] = {}

    def __enter__(self) -> Self:
        if not cuda.is_available():
            raise StrategyError(
                "expected a GPU because executor is 'gpu', got none from CUDA (numba-cuda with a driver); install the "
                "driver and the [gpu] extra, or use executor='thread'"
            )
        strategy = self._strategy
        self._run = _kernel(strategy.step, len(strategy.columns), len(strategy.parameters))
        return self

    def __exit__(self, *_: object) -> None:
        self._lying.clear()

    def run(self, task: Task, blocks: int, moved: Callable[[int], None]) -> Raw:
        """Trade all combinations of a task; `moved` hears when they are done."""
        count = len(task.at_CJ)
        raw = Raw.empty(count, blocks)
        given = [self._there(name, value) for name, value in zip(Task._fields, task)]
        outs = [cuda.device_array(out.shape, out.dtype) for out in raw]
        within = cuda.device_array((blocks, MOMENTS, count))
        self._run[-(-count // self.block), self.block](*given, *outs, within)
        for out, host in zip(outs, raw):
            out.copy_to_host(host)
        if np.isnan(raw.worst_C).any():
            raise StrategyError(
                f"expected STAY, LONG, SHORT or FLAT from the step of strategy '{self._strategy.name}', got another "
                "number; correct it"
            )
        moved(count)
        return raw

    def _there(self, name: str, value: Any) -> Any:
        """Return an argument as the device has it: an array is copied when it is another one than last time."""
        if not isinstance(value, np.ndarray):
            return value
        if name not in self._lying or self._lying[name][0] is not value:
            self._lying.pop(name, None)  # frees its memory first
            self._lying[name] = value, cuda.to_device(value)
        return self._lying[name][1]
