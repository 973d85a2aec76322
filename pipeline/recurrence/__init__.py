"""Two drivers for kernels over many series, and no third: tiles on a CPU, a thread a series on a GPU.

Numba stays in this package and is loaded by the first call, so that reading a configuration does not wait for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .plan import AS_IS, OVER_CLOSE, OVER_CLOSE_LESS_ONE, Carry, Floats, Kernel, Pass, Plan, Series, Write

__all__ = [
    "AS_IS", "OVER_CLOSE", "OVER_CLOSE_LESS_ONE", "Carry", "Floats", "Kernel", "Pass", "Plan", "Series", "Write",
    "prepare", "run",
]  # fmt: skip


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
) -> None:
    """Compute the columns of a plan where the data is: NumPy arrays on the CPU, CuPy arrays on their GPU.

    src_CN : (C, rows) float64, all finite; dst_ON : (columns, rows) float32 or float64. carry : the state after earlier
    bars, replaced by the state after these; None = series begin here. `threads` serves the CPU only, and no result
    depends on it or on `chunk` (bars that are time-major at once). An output at bar t sees bars up to and including t.
    """
    if isinstance(src_CN, np.ndarray):
        from .tiles import CHUNK, run_tiles

        run_tiles(plan, src_CN, series, dst_ON, carry=carry, threads=threads, chunk=chunk or CHUNK)
    else:
        from .lanes import CHUNK, run_lanes

        run_lanes(plan, src_CN, series, dst_ON, carry=carry, chunk=chunk or CHUNK)
