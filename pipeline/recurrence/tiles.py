"""The CPU driver: cut long-format bars into time-major tiles, run every kernel of a plan on a tile, write the columns
back.

A tile of 32 series becomes vector lanes; 512 bars of it and its outputs stay in the cache. Series are sorted by
length and end together: a shorter one begins late, with zeros before it and a count of bars that starts below zero.
"""

from __future__ import annotations

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba.core import types

from .blocks import to_column, to_tile
from .compile import addresses, call, compiled
from .plan import BLOCK, Carry, Longs, Plan, Series

LANES = 32
CHUNK = 512


def _run(
    kernels: Any,
    meta: Any,
    writes: Any,
    params: Any,
    cuts: Any,
    order: Any,
    starts: Any,
    lengths: Any,
    src_CN: Any,
    dst_ON: Any,
    past_CHN: Any,
    own_QHN: Any,
    state_KN: Any,
    carried: bool,
    low: int,
    high: int,
    lanes: int,
    chunk: int,
    H: int,
    K: int,
    buffers: int,
    close: int,
) -> None:
    """Run tiles low..high; `carried` starts each lane from its carry and leaves the new one, with one kind of NaN
    (lanes of a tile have equal lengths then).
    """
    C = src_CN.shape[0]
    lane = np.empty(lanes, np.int64)
    offsets = np.empty(lanes, np.int64)
    pads = np.empty(lanes, np.int64)
    x_flat = np.empty(C * (H + chunk) * lanes)
    out_flat = np.empty(buffers * (H + chunk) * lanes)
    over = np.empty(chunk * lanes)
    for tile in range(low, high):
        S = cuts[tile + 1] - cuts[tile]
        if S > 1:  # a lone series is a tile of its own width: seven idle lanes would cost it up to eight times as much
            S = (S + 7) // 8 * 8  # the last tile is as narrow as it can be
        longest = 0
        for s in range(S):
            lane[s] = order[
                min(cuts[tile] + s, cuts[tile + 1] - 1)
            ]  # missing lanes repeat the last one: same values, same place
            longest = max(longest, lengths[lane[s]])
        chunks = (longest + chunk - 1) // chunk
        T = ((longest + chunks - 1) // chunks + 7) // 8 * 8
        R = H + T
        x = x_flat[: C * R * S].reshape((C, R, S))
        out = out_flat[: buffers * R * S].reshape((buffers, R, S))
        skip = (
            chunks * T - longest if carried else 0
        )  # rows before the first new bar, the same for all lanes of a carried tile
        x[:, :H] = 0.0
        out[:, :H] = np.nan
        state = np.zeros((K, S))
        for s in range(S):
            i = lane[s]
            pads[s] = chunks * T - lengths[i]
            offsets[s] = starts[i] - pads[s]
            if carried:
                for k in range(K):
                    state[k, s] = state_KN[k, i]
            else:
                for j in range(meta.shape[0]):
                    state[meta[j, 2], s] = -pads[s]
        for n in range(chunks):
            for c in range(C):
                to_tile(x_flat, (c * R + H) * S, S, T, src_CN[c], offsets, pads)
            if n == 0 and carried:
                for c in range(C):
                    for t in range(H):
                        for s in range(S):
                            x[c, skip + t, s] = past_CHN[c, t, lane[s]]
                for j in range(meta.shape[0]):
                    if meta[j, 6] > 0:
                        for q in range(meta[j, 5]):
                            for t in range(H):
                                for s in range(S):
                                    out[meta[j, 4] + q, skip + t, s] = own_QHN[meta[j, 9] + q, t, lane[s]]
            for j in range(meta.shape[0]):
                top = meta[j, 4]
                call(
                    kernels[j],
                    x[meta[j, 0] : meta[j, 1]],
                    params[j],
                    state[meta[j, 2] : meta[j, 3]],
                    out[top : top + meta[j, 5]],
                    H + skip,
                )
                for s in range(S):
                    state[meta[j, 2], s] += T - skip
                for w in range(meta[j, 7], meta[j, 8]):
                    row = top + writes[w, 0]
                    if writes[w, 2] == 0:
                        to_column(out_flat, (row * R + H) * S, S, T, dst_ON[writes[w, 1]], offsets, pads)
                    else:
                        less = 1.0 if writes[w, 2] == 2 else 0.0
                        for t in range(T):
                            for s in range(S):
                                over[t * S + s] = out[row, H + t, s] / x[close, H + t, s] - less
                        to_column(over, 0, S, T, dst_ON[writes[w, 1]], offsets, pads)
                if meta[j, 6] > 0:
                    for q in range(top, top + meta[j, 5]):
                        for t in range((H - meta[j, 6]) * S, H * S):
                            out_flat[q * R * S + t] = out_flat[(q * R + T) * S + t]
            for c in range(C):
                for t in range(H * S):
                    x_flat[c * R * S + t] = x_flat[(c * R + T) * S + t]
            skip = 0
            for s in range(S):
                pads[s] -= T
                offsets[s] += T
        if carried:
            for s in range(S):
                i = lane[s]
                for k in range(K):
                    state_KN[k, i] = state[k, s] if state[k, s] == state[k, s] else np.nan
                for c in range(C):
                    for t in range(H):
                        past_CHN[c, t, i] = x[c, t, s]
                for j in range(meta.shape[0]):
                    if meta[j, 6] > 0:
                        for q in range(meta[j, 5]):
                            for t in range(H - meta[j, 6], H):
                                value = out[meta[j, 4] + q, t, s]
                                own_QHN[meta[j, 9] + q, t, i] = value if value == value else np.nan


@functools.cache
def _signature(dtype: np.dtype[Any]) -> Any:
    i64, f64 = types.int64, types.float64
    i1, i2, f2, f3 = (
        types.Array(i64, 1, "C"),
        types.Array(i64, 2, "C"),
        types.Array(f64, 2, "C"),
        types.Array(f64, 3, "C"),
    )
    dst = types.Array(types.float32 if dtype == np.float32 else f64, 2, "C")
    return types.void(i1, i2, i2, f2, i1, i1, i1, i1, f2, dst, f3, f3, f2, types.boolean, *([i64] * 8))


def load(plan: Plan, dtype: Any) -> None:
    """Compile the driver and the plan's kernels, or load them from disk, before anyone waits for them."""
    compiled(_run, _signature(np.dtype(dtype)), alias=True)
    addresses([p.kernel for p in plan.passes])


def run_tiles(
    plan: Plan,
    src_CN: Any,
    series: Series,
    dst_ON: Any,
    *,
    carry: Carry | None = None,
    threads: int = 1,
    lanes: int = LANES,
    chunk: int = CHUNK,
) -> None:
    """Compute the columns of a plan on the CPU; the bits depend on no tile width, chunk length, neighbour or number
    of threads.

    src_CN : (C, rows) float64, all finite, oldest bar first in each series. dst_ON : (columns, rows) float64 or
    float32, written at the rows of `series`. carry : the state after earlier bars, replaced by the state after these,
    whose bits depend on no cut in time, tile or neighbour either; None = series begin here. lanes and chunk : multiples
    of 8, series and bars of a tile. An output at bar t sees bars up to and including t.
    """
    if lanes % BLOCK or chunk % BLOCK:
        raise ValueError(f"expected lanes and chunk as multiples of {BLOCK}, got {lanes} and {chunk}")
    for part in [series] if carry is None else _level(series, lanes):
        _run_all(plan, src_CN, part, dst_ON, carry, threads, lanes, chunk)


def _level(series: Series, lanes: int) -> list[Series]:
    """Return series in two parts, one after the other, such that tiles of the second hold one length each.

    Lanes that go on have their past right before their first new bar, so those of a tile must begin together; so must
    new ones, since what kernels make of the zeros before a shorter lane would stay in its carry. Series sorted by
    length differ little within a tile: what one has beyond the shortest is run first.
    """
    order = np.argsort(-series.lengths, kind="stable")
    sorted_lengths = series.lengths[order]
    least = np.minimum.reduceat(sorted_lengths, np.arange(0, order.size, lanes)) if order.size else sorted_lengths
    head = np.zeros_like(series.lengths)
    head[order] = sorted_lengths - np.repeat(least, lanes)[: order.size]
    if not head.any():
        return [series]
    return [Series(series.starts, head), Series(series.starts + head, series.lengths - head)]


def _run_all(
    plan: Plan,
    src_CN: Any,
    series: Series,
    dst_ON: Any,
    carry: Carry | None,
    threads: int,
    lanes: int,
    chunk: int,
) -> None:
    table = plan.table
    order = np.argsort(-series.lengths, kind="stable")
    order = order[series.lengths[order] > 0]
    if order.size == 0:
        return
    cuts = _cuts(series.lengths[order], lanes, equal=carry is not None)
    at = carry or Carry.fresh(plan, 0)
    run = compiled(_run, _signature(dst_ON.dtype), alias=True)
    kernels = addresses([p.kernel for p in plan.passes])

    def job(low: int, high: int) -> None:
        run(
            kernels, table.meta, table.writes, table.params, cuts, order, series.starts, series.lengths, src_CN, dst_ON,
            at.past_CHN, at.own_QHN, at.state_KN, carry is not None, low, high,
            lanes, chunk, plan.past, plan.state, table.buffers, plan.close,
        )  # fmt: skip

    tiles = len(cuts) - 1
    if threads <= 1 or tiles == 1:
        job(0, tiles)
        return
    bars = np.add.reduceat(series.lengths[order], cuts[:-1]).cumsum()
    share = np.searchsorted(bars, bars[-1] * np.arange(1, 4 * threads) / (4 * threads)) + 1
    edges = np.minimum(np.concatenate([[0], share, [tiles]]), tiles).tolist()
    jobs = itertools.pairwise(edges)

    def work() -> None:
        for low, high in jobs:
            job(low, high)

    with ThreadPoolExecutor(threads - 1) as pool:  # the caller is a worker too: it need not wait for threads to start
        helpers = [pool.submit(work) for _ in range(threads - 1)]
        work()
        for helper in helpers:
            helper.result()


def _cuts(lengths: Longs, lanes: int, *, equal: bool) -> Longs:
    """Return where tiles begin and end among series sorted by length; `equal` lets no tile hold two lengths."""
    if not equal:
        return np.append(np.arange(0, lengths.size, lanes), lengths.size).astype(np.int64)
    begins = np.flatnonzero(np.append(True, lengths[1:] != lengths[:-1]))
    ends = np.append(begins[1:], lengths.size)
    pieces = [np.arange(begin, end, lanes) for begin, end in zip(begins, ends)]
    return np.append(np.concatenate(pieces), lengths.size).astype(np.int64)
