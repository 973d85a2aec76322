"""Two drivers for kernels over many series, and no third: tiles on a CPU, a thread a lane on a GPU.

Numba stays in this package and is loaded by the first call, so that reading a configuration does not wait for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .plan import AS_IS, OVER_CLOSE, OVER_CLOSE_LESS_ONE, Carry, Floats, Kernel, Pass, Plan, Series, Write

__all__ = [
    "AS_IS",
    "OVER_CLOSE",
    "OVER_CLOSE_LESS_ONE",
    "Carry",
    "Floats",
    "Kernel",
    "Pass",
    "Plan",
    "Series",
    "Write",
    "arrays",
    "prepare",
    "run",
]  # fmt: skip


def arrays(backend: str) -> Any:
    """Return the array module beside a kind of frame: cupy for cudf, else numpy."""
    if backend == "cudf":
        import cupy

        return cupy
    return np


def prepare(plan: Plan, dtype: Any = np.float32) -> None:
    """Compile the CPU driver and a plan's kernels, or load them from disk, before anyone waits for them."""
    from .tiles import load

    load(plan, dtype)


def run(
    plan: Plan,
    src_CN: Any,
    series: Series,
    dst_ON: Any,
    *,
    carry: Carry | None = None,
    threads: int = 1,
    chunk: int | None = None,
    pieces: int | None = None,
) -> None:
    """Compute the columns of a plan where the data is: NumPy arrays on the CPU, CuPy arrays on their GPU.

    src_CN : (C, rows) float64, all finite; dst_ON : (columns, rows) float32 or float64. carry : the state after earlier
    bars, replaced by the state after these; None = series begin here. `threads` serves the CPU only, and no result
    depends on it or on `chunk` (bars that are time-major at once). `pieces` serves the GPU only: how many the longest
    series is cut into, None = as many as fill the GPU when there is no carry, else 1; cut series agree with whole ones
    within the tolerance of the indicators, not bit for bit. An output at bar t sees bars up to and including t.
    Raises ValueError where arrays do not fit the plan: compiled code would write beside them.
    """
    _check(plan, src_CN, series, dst_ON, carry)
    if isinstance(src_CN, np.ndarray):
        from .tiles import CHUNK, run_tiles

        run_tiles(plan, src_CN, series, dst_ON, carry=carry, threads=threads, chunk=chunk or CHUNK)
    else:
        from .lanes import run_lanes

        run_lanes(plan, src_CN, series, dst_ON, carry=carry, chunk=chunk, pieces=pieces)


def _check(plan: Plan, src_CN: Any, series: Series, dst_ON: Any, carry: Carry | None) -> None:
    rows, last = src_CN.shape[1], int((series.starts + series.lengths).max(initial=0))
    fits = {
        "src_CN": (src_CN.shape, (plan.inputs, rows)),
        "dst_ON": (dst_ON.shape, (plan.columns, rows)),
        "series": ((min(last, rows),), (last,)),
    }
    if carry is not None:
        many = series.lengths.size
        fits["carry.past_CHN"] = (carry.past_CHN.shape, (plan.inputs, plan.past, many))
        fits["carry.own_QHN"] = (carry.own_QHN.shape, (plan.own, plan.past, many))
        fits["carry.state_KN"] = (carry.state_KN.shape, (plan.state, many))
    for name, (got, expected) in fits.items():
        if tuple(got) != expected:
            raise ValueError(f"expected {name} of shape {expected} for this plan, got {tuple(got)}")
