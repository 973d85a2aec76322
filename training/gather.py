"""The copy of windows out of one matrix, on the device that holds it: where each window ends is all that moves.

Shapes: N rows, F features, B batch, L window. Normalised: each feature of each window minus its mean over the window,
divided by its deviation there; 0 where the feature does not move within the window.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import sqrt
from typing import Any

import numba
import numpy as np
import torch
from numba import cuda
from numpy.typing import NDArray

_FLAT = np.float32(1e-6)  # a deviation below it is rounding: scaled features are about 1
_STREAMS, _PIECE = 4, 64  # windows copied side by side and values of each in turn: a fifth faster than one by one
_SHARED = 1 << 18  # values from which a second thread pays
_LANES = 128  # GPU threads a block; each takes one feature of one window


def _copied(x_NF: NDArray[np.float32], end_B: NDArray[np.int64], out_BLF: NDArray[np.float32]) -> None:
    """Copy windows whole, for their rows follow one another; several at a time, so that their misses overlap."""
    count, length, width = out_BLF.shape
    x, out = x_NF.reshape(-1), out_BLF.reshape(-1)
    size = length * width
    for b in range(0, count, _STREAMS):
        for k in range(0, size, _PIECE):
            n = min(_PIECE, size - k)
            for c in range(b, min(b + _STREAMS, count)):
                first, to = (end_B[c] - length + 1) * width + k, c * size + k
                out[to : to + n] = x[first : first + n]


def _normalised(x_NF: NDArray[np.float32], end_B: NDArray[np.int64], out_BLF: NDArray[np.float32]) -> None:
    """Copy and normalise while a window is in the nearest cache; features are neighbours, so they become SIMD lanes."""
    count, length, width = out_BLF.shape
    mean, scale = np.empty(width, np.float32), np.empty(width, np.float32)
    part = np.float32(1.0) / np.float32(length)
    for b in range(count):
        first = end_B[b] - length + 1
        mean[:] = np.float32(0.0)
        scale[:] = np.float32(0.0)
        for t in range(length):
            for f in range(width):
                mean[f] += x_NF[first + t, f]
        for f in range(width):
            mean[f] *= part
        for t in range(length):
            for f in range(width):
                away = x_NF[first + t, f] - mean[f]
                out_BLF[b, t, f] = away
                scale[f] += away * away
        for f in range(width):
            deviation = np.float32(sqrt(scale[f] * part))
            scale[f] = np.float32(1.0) / deviation if deviation > _FLAT else np.float32(0.0)
        for t in range(length):
            for f in range(width):
                out_BLF[b, t, f] *= scale[f]


_ON_HOST = {
    False: numba.njit(nogil=True, cache=True, error_model="numpy")(_copied),
    True: numba.njit(nogil=True, cache=True, error_model="numpy")(_normalised),
}


def gather(
    x_NF: NDArray[np.float32], end_B: NDArray[np.int64], out_BLF: NDArray[np.float32], *, normalise: bool, threads: int
) -> None:
    """Fill out_BLF with the windows that end at rows end_B; the bits do not depend on the threads."""
    kernel, count = _ON_HOST[normalise], len(end_B)
    threads = min(threads, count) if out_BLF.size >= _SHARED else 1
    if threads < 2:
        kernel(x_NF, end_B, out_BLF)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    jobs = [_pool(threads).submit(kernel, x_NF, end_B[a:b], out_BLF[a:b]) for a, b in pairwise(edges[1:])]
    kernel(x_NF, end_B[: edges[1]], out_BLF[: edges[1]])
    for job in jobs:
        job.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, "gather")


def _lane(x_NF: Any, end_B: Any, out_BLF: Any, normalise: bool, lane: int) -> None:
    """Do one feature of one window, in the order of the host's sums."""
    length, width = out_BLF.shape[1], out_BLF.shape[2]
    b, f = lane // width, lane % width
    first = end_B[b] - length + 1
    mean, scale = np.float32(0.0), np.float32(1.0)
    if normalise:
        part = np.float32(1.0) / np.float32(length)
        for t in range(length):
            mean += x_NF[first + t, f]
        mean *= part
        square = np.float32(0.0)
        for t in range(length):
            away = x_NF[first + t, f] - mean
            square += away * away
        deviation = np.float32(sqrt(square * part))
        scale = np.float32(1.0) / deviation if deviation > _FLAT else np.float32(0.0)
    for t in range(length):
        out_BLF[b, t, f] = (x_NF[first + t, f] - mean) * scale


@functools.cache
def _on_gpu() -> Any:
    lane = cuda.jit(device=True)(_lane)

    @cuda.jit  # type: ignore[untyped-decorator]
    def kernel(x_NF: Any, end_B: Any, out_BLF: Any, normalise: bool) -> None:
        at = cuda.grid(1)
        if at < out_BLF.shape[0] * out_BLF.shape[2]:
            lane(x_NF, end_B, out_BLF, normalise, at)

    return kernel


def gather_on_gpu(x_NF: torch.Tensor, end_B: torch.Tensor, out_BLF: torch.Tensor, *, normalise: bool) -> None:
    """Do the same on torch's own stream: neighbouring threads read neighbouring features, nothing comes to the host."""
    stream = cuda.external_stream(torch.cuda.current_stream(x_NF.device).cuda_stream)
    blocks = -(-out_BLF.shape[0] * out_BLF.shape[2] // _LANES)
    arrays = [cuda.as_cuda_array(tensor, sync=False) for tensor in (x_NF, end_B, out_BLF)]
    _on_gpu()[blocks, _LANES, stream](*arrays, normalise)
