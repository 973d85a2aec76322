"""What runs on the GPU: a grid of lanes for each kernel, and the two that turn long-format columns into time-major
tiles and back.

Written against numba.cuda alone, so that the CUDA simulator runs it too. Lanes begin together: row H + t of a tile
holds bar begin + t of each lane, the rows before H its past. A lane that has ended does nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import cuda

from .parts import with_parts
from .plan import AS_IS, OVER_CLOSE_LESS_ONE, Kernel

# Plain names, since compiled code takes them as constants.
_AS_IS, _LESS_ONE = AS_IS, OVER_CLOSE_LESS_ONE


@functools.cache
def kernel_grid(kernel: Kernel) -> Any:
    """Compile the grid of one kernel: x = lanes, y = sets of parameters, each with state and outputs of its own.

    A lane runs the bars of this chunk that it has, adds them to its count, and moves the last `own` rows of its outputs
    to where the next chunk looks for its past.
    """
    device = cuda.jit(device=True)
    step = device(with_parts(kernel, device))

    def grid(
        x_CTS: Any, params_QP: Any, own_Q: Any, state_KS: Any, out_OTS: Any, lengths_S: Any, begin: int, H: int
    ) -> None:
        i, q = cuda.grid(1), cuda.blockIdx.y
        if i < lengths_S.shape[0]:
            T = min(lengths_S[i] - begin, x_CTS.shape[1] - H)
            if T > 0:
                K, outputs = state_KS.shape[0] // cuda.gridDim.y, out_OTS.shape[0] // cuda.gridDim.y
                state = state_KS[q * K : (q + 1) * K, i : i + 1]
                out = out_OTS[q * outputs : (q + 1) * outputs, : H + T, i : i + 1]
                step(x_CTS[:, : H + T, i : i + 1], params_QP[q], state, out, H)
                state[0, 0] += T
                own = own_Q[q]
                for o in range(outputs):
                    for t in range(H - own, H):
                        out[o, t, 0] = out[o, t + T, 0]

    return cuda.jit(grid)


@functools.cache
def tile_grid(side: int) -> Any:
    """Compile the way in: blocks of side x side values pass through shared memory, so that reads follow time and writes
    follow lanes. Grid: x = lanes, y = rows, z = inputs; block: (side, a part of it).

    A row before a lane's first bar comes from the past of series past_S[i], zeros where that is -1.
    """
    wider = side + 1  # one more column: neighbours in time lie in different memory banks

    def grid(
        src_CN: Any, starts_S: Any, lengths_S: Any, past_CHN: Any, past_S: Any, begin: int, H: int, x_CTS: Any
    ) -> None:
        block = cuda.shared.array((side, wider), np.float64)
        lane, row, c = cuda.blockIdx.x * side, cuda.blockIdx.y * side, cuda.blockIdx.z
        wide, high = min(side, x_CTS.shape[2] - lane), min(side, x_CTS.shape[1] - row)
        for k in range(cuda.threadIdx.y, wide, cuda.blockDim.y):
            i = lane + k
            for j in range(cuda.threadIdx.x, high, cuda.blockDim.x):
                bar = begin - H + row + j
                if bar >= 0:
                    block[k, j] = src_CN[c, starts_S[i] + bar] if bar < lengths_S[i] else 0.0
                else:
                    block[k, j] = past_CHN[c, H + bar, past_S[i]] if past_S[i] >= 0 else 0.0
        cuda.syncthreads()
        for k in range(cuda.threadIdx.y, high, cuda.blockDim.y):
            for j in range(cuda.threadIdx.x, wide, cuda.blockDim.x):
                x_CTS[c, row + k, lane + j] = block[j, k]

    return cuda.jit(grid)


@functools.cache
def column_grid(side: int) -> Any:
    """Compile the way out, dividing by the close as each column asks: x = lanes, y = rows, z = columns.

    writes_W3 : output row, column and `over` of each, see Write. The first early_S[i] bars of a lane are not stored.
    """
    wider = side + 1

    def grid(
        x_CTS: Any, close: int, out_OTS: Any, writes_W3: Any, starts_S: Any, lengths_S: Any, early_S: Any,
        begin: int, H: int, dst_ON: Any,
    ) -> None:  # fmt: skip
        block = cuda.shared.array((side, wider), np.float64)
        lane, row = cuda.blockIdx.x * side, cuda.blockIdx.y * side
        w = cuda.blockIdx.z
        output, column, over = writes_W3[w, 0], writes_W3[w, 1], writes_W3[w, 2]
        wide, high = min(side, out_OTS.shape[2] - lane), min(side, out_OTS.shape[1] - H - row)
        for k in range(cuda.threadIdx.y, high, cuda.blockDim.y):
            for j in range(cuda.threadIdx.x, wide, cuda.blockDim.x):
                i, t = lane + j, row + k
                if begin + t < lengths_S[i]:
                    value = out_OTS[output, H + t, i]
                    if over != _AS_IS:
                        value = value / x_CTS[close, H + t, i] - (1.0 if over == _LESS_ONE else 0.0)
                    block[j, k] = value
        cuda.syncthreads()
        for k in range(cuda.threadIdx.y, wide, cuda.blockDim.y):
            i = lane + k
            for j in range(cuda.threadIdx.x, high, cuda.blockDim.x):
                bar = begin + row + j
                if early_S[i] <= bar and bar < lengths_S[i]:
                    dst_ON[column, starts_S[i] + bar] = block[k, j]

    return cuda.jit(grid)
