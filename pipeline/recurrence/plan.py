"""What a driver has to know about a set of kernels: which rows each reads, keeps and writes. No compiler and no
indicator in here.

Shapes: C inputs, T bars, S series of a tile, N series in all, P parameters, K state rows, O outputs, H past rows, Q
own past outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Kernel = Callable[[Floats, Floats, Floats, Floats, int], None]
"""kernel(x_CTS, p, state_KS, out_OTS, first): plain Python, state in and state out.

Rows before `first` are the past, of the inputs and of the kernel's own outputs (zeros before a series begins), so
that a window is plain indexing. state_KS[0] is the number of bars that a lane has seen before this call; the driver
keeps it. It is <= 0 while a lane has not begun: its rows are zeros then, and the kernel must leave its state at zero.
"""

AS_IS, OVER_CLOSE, OVER_CLOSE_LESS_ONE = 0, 1, 2
BLOCK = 8  # rows and lanes that are transposed at once


class Write(NamedTuple):
    """Store output `output` of a pass in column `column`; `over` divides it by the close first (AS_IS, OVER_CLOSE,
    OVER_CLOSE_LESS_ONE).
    """

    output: int
    column: int
    over: int = AS_IS


@dataclass(frozen=True)
class Pass:
    """Hold one kernel with its parameters: input rows, state rows, outputs, how far it looks back, and what is stored
    of it.
    """

    kernel: Kernel
    first_input: int
    inputs: int
    params: tuple[float, ...]
    state: int
    outputs: int
    past: int
    own: int  # rows of its own outputs that it looks back at, 0 = none
    writes: tuple[Write, ...]
    warmup: float = math.inf  # bars after which its outputs no longer depend on where a series began


class Table(NamedTuple):
    """Hold a plan as the arrays that the compiled driver reads.

    meta : one row a pass: first and last input row, first and last state row, first buffer row, outputs, own rows,
    first and last write, first row among the own past outputs. writes : one row a stored column, see Write. params :
    one row a pass.
    """

    meta: Longs
    writes: Longs
    params: Floats
    buffers: int


@dataclass(frozen=True)
class Plan:
    """Hold the passes that share one tile; `close` is the row of the close among the `inputs`, or -1."""

    passes: tuple[Pass, ...]
    inputs: int
    close: int

    @cached_property
    def past(self) -> int:
        """Rows of the past that a driver keeps: the farthest look-back, rounded up to whole blocks."""
        rows = max((max(p.past, p.own) for p in self.passes), default=0)
        return max(BLOCK, -(-rows // BLOCK) * BLOCK)

    @cached_property
    def state(self) -> int:
        return sum(p.state for p in self.passes)

    @cached_property
    def own(self) -> int:
        return sum(p.outputs for p in self.passes if p.own)

    @cached_property
    def columns(self) -> int:
        return sum(len(p.writes) for p in self.passes)

    @cached_property
    def table(self) -> Table:
        """Lay the passes out: those without own past share the first buffer rows, the others have theirs to
        themselves.
        """
        shared = max((p.outputs for p in self.passes if not p.own), default=0)
        state, own, writes = 0, 0, 0
        meta, flat = [], []
        params = np.zeros((len(self.passes), max((len(p.params) for p in self.passes), default=0) + 1))
        for i, p in enumerate(self.passes):
            buffer = shared + own if p.own else 0
            meta.append(
                (
                    p.first_input,
                    p.first_input + p.inputs,
                    state,
                    state + p.state,
                    buffer,
                    p.outputs,
                    p.own,
                    writes,
                    writes + len(p.writes),
                    own if p.own else -1,
                )
            )
            flat += list(p.writes)
            params[i, : len(p.params)] = p.params
            state, writes = state + p.state, writes + len(p.writes)
            own += p.outputs if p.own else 0
        return Table(
            np.array(meta, np.int64).reshape(-1, 10),
            np.array(flat, np.int64).reshape(-1, 3),
            params,
            max(shared + own, 1),
        )


@dataclass(frozen=True)
class Carry:
    """Hold what every series needs to go on after its last bar; drivers read it and leave the new one in its place.

    past_CHN : the last H input rows; own_QHN : the last H rows of outputs that their kernels look back at; state_KN :
    kernel state. All NaN are one, so that equal carries have equal bits.
    """

    past_CHN: Any
    own_QHN: Any
    state_KN: Any

    @classmethod
    def fresh(cls, plan: Plan, series: int, xp: Any = np) -> Carry:
        """Return the carry of series that have no bar yet; `xp` is numpy or cupy."""
        return cls(
            xp.zeros((plan.inputs, plan.past, series)),
            xp.full((plan.own, plan.past, series), xp.nan),
            xp.zeros((plan.state, series)),
        )


class Series(NamedTuple):
    """Say where each series lies in long-format columns: first row and number of rows, (N,) int64 each."""

    starts: Longs
    lengths: Longs
