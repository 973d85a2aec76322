"""The GPU driver: one thread a series calls the same kernel on its own lane, over time-major arrays that all series
share.

Written against numba.cuda and the arrays' own module, so that the CUDA simulator runs it with NumPy arrays. Not run
on hardware so far.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
from numba import cuda

from .plan import AS_IS, OVER_CLOSE_LESS_ONE, Carry, Kernel, Plan, Series

CHUNK = 2048
THREADS = 128


@functools.cache
def _launcher(kernel: Kernel) -> Any:
    """Compile the grid of one kernel: thread i runs series i from its own first row and adds the bars to its count."""
    step = cuda.jit(device=True)(kernel)

    def launch(x_CTS: Any, p: Any, state_KS: Any, out_OTS: Any, first_S: Any) -> None:
        i = cuda.grid(1)
        if i < x_CTS.shape[2]:
            first = first_S[i]
            step(x_CTS[:, :, i : i + 1], p, state_KS[:, i : i + 1], out_OTS[:, :, i : i + 1], first)
            state_KS[0, i] += x_CTS.shape[1] - first

    return cuda.jit(launch)


def run_lanes(
    plan: Plan,
    src_CN: Any,
    series: Series,
    dst_ON: Any,
    *,
    carry: Carry | None = None,
    chunk: int = CHUNK,
    threads: int = THREADS,
) -> None:
    """Compute the columns of a plan on the GPU: the contract of `run_tiles`, with CuPy arrays and the carry on the
    device.

    chunk : bars that are time-major at once, a bound on memory: 8 * (inputs + outputs) * (past + chunk) * series
    bytes.
    """
    xp = sys.modules[type(src_CN).__module__.partition(".")[0]]
    H, resume = plan.past, carry is not None and carry.begun
    table = plan.table
    used = np.flatnonzero(series.lengths > 0)
    if used.size == 0:
        return
    starts, lengths = series.starts[used], series.lengths[used]
    S, longest = used.size, int(lengths.max())
    pads = longest - lengths
    state_KS = xp.zeros((plan.state, S))
    if carry is not None and resume:
        state_KS[...] = carry.state_KN[:, used]
    else:
        state_KS[xp.asarray(table.meta[:, 2])] = -xp.asarray(pads, dtype=xp.float64)
    x_past = xp.zeros((plan.inputs, H, S))
    out_past = xp.full((table.buffers, H, S), xp.nan)
    starts_S, pads_S, rows_H = xp.asarray(starts), xp.asarray(pads), xp.arange(H)[:, None]
    for begin in range(0, longest, chunk):
        T = min(chunk, longest - begin)
        x_CTS = xp.zeros((plan.inputs, H + T, S))
        out_OTS = xp.full((table.buffers, H + T, S), xp.nan)
        x_CTS[:, :H], out_OTS[:, :H] = x_past, out_past
        time = begin + xp.arange(T)[:, None]
        inside = time >= pads_S
        index = xp.where(inside, starts_S + time - pads_S, 0)
        for c in range(plan.inputs):
            x_CTS[c, H:] = xp.where(inside, src_CN[c][index], 0.0)
        first = np.full(S, H)
        if carry is not None and resume:  # a lane that goes on finds its past right before its first new bar
            here = np.flatnonzero((pads >= begin) & (pads < begin + T))
            first = np.where(pads >= begin, np.minimum(H + pads - begin, H + T), H)
            place, lanes = rows_H + xp.asarray(pads[here] - begin), xp.asarray(here)
            for c in range(plan.inputs):
                x_CTS[c, place, lanes] = carry.past_CHN[c][:, used[here]]
            for meta in table.meta:
                for q in range(meta[5] if meta[6] else 0):
                    out_OTS[meta[4] + q, place, lanes] = carry.own_QHN[meta[9] + q][:, used[here]]
        first_S = xp.asarray(first)
        for p, params, meta in zip(plan.passes, table.params, table.meta):
            out = out_OTS[meta[4] : meta[4] + meta[5]]
            _launcher(p.kernel)[-(-S // threads), threads](
                x_CTS[meta[0] : meta[1]], xp.asarray(params), state_KS[meta[2] : meta[3]], out, first_S
            )
            for write in p.writes:
                column = out[write.output, H:]
                if write.over != AS_IS:
                    column = column / x_CTS[plan.close, H:] - (1.0 if write.over == OVER_CLOSE_LESS_ONE else 0.0)
                dst_ON[write.column][index[inside]] = column[inside]
        x_past, out_past = x_CTS[:, T:].copy(), out_OTS[:, T:].copy()
    if carry is not None:
        carry.past_CHN[:, :, used], carry.state_KN[:, used] = x_past, state_KS
        for meta in table.meta:
            if meta[6]:
                carry.own_QHN[meta[9] : meta[9] + meta[5], H - meta[6] :, used] = out_past[
                    meta[4] : meta[4] + meta[5], H - meta[6] :
                ]
