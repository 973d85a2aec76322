"""Ranks and rank correlations within each session, as matrices: kernels that sort 2,000 symbols in 20 microseconds.

Values are compared as float32, the precision of scores; equal ones share the mean of their ranks. Plain functions,
which pipeline/recurrence compiles; ranges of sessions run on threads and no bit depends on how many there are.

Shapes: T sessions, S symbols, H spans.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32] | Floats

PLACE = 21  # bits of a packed number that hold the place: up to two million symbols
DIGIT = 11  # bits of a radix digit; three hold a float32
LEAST = 3  # pairs below which no correlation is given


def ranks(x_TS: Matrix, *, threads: int = 1) -> Floats:
    """Return the rank of each value within its session, from 1, (T, S) float64; NaN where the value is not finite."""
    values = np.ascontiguousarray(x_TS, np.float32)
    out = np.full(values.shape, np.nan)
    _spread(_rank_rows, _RANKS, len(values), threads, values, out)
    return out


def coefficients(
    score_TS: Matrix, entry_TS: Floats, exit_TS: Floats, begin_H: Longs, end_H: Longs, *, threads: int = 1
) -> tuple[Floats, Floats, Longs]:
    """Return (IC, rank IC, pairs) of each span and session, (H, T): Pearson's and Spearman's correlation between scores
    of session t and returns from the entry of session t + begin to the exit of t + end; NaN below three pairs or where
    one side does not vary.

    Pairs are symbols with both, and both are ranked among them, equal values sharing the mean of their ranks (Grinold
    and Kahn, Active Portfolio Management, 2000).
    """
    score = np.ascontiguousarray(score_TS, np.float32)
    if not score.shape == entry_TS.shape == exit_TS.shape or len(begin_H) != len(end_H):
        raise ValueError(
            f"expected scores, entries and exits of one shape and as many begins as ends, got {score.shape}, "
            f"{entry_TS.shape}, {exit_TS.shape}, {len(begin_H)} and {len(end_H)}"
        )
    shape = (len(begin_H), len(score))
    ic, rank_ic, n = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int64)
    prices = np.ascontiguousarray(entry_TS), np.ascontiguousarray(exit_TS)
    spans = np.asarray(begin_H, np.int64), np.asarray(end_H, np.int64)
    _spread(_correlate, _COEFFICIENTS, len(score), threads, score, *prices, *spans, ic, rank_ic, n)
    return ic, rank_ic, n


def _spread(kernel: Any, signature: str, T: int, threads: int, *arrays: Any) -> None:
    """Call a kernel for ranges of sessions, on threads."""
    # At import, it would cost everybody who reads a configuration the start of Numba.
    from pipeline.recurrence.compile import compiled

    run = compiled(kernel, signature, alias=True)
    edges = np.linspace(0, T, (4 * threads if threads > 1 else 1) + 1).astype(int).tolist()
    if threads <= 1:
        run(*arrays, 0, T)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda low, high: run(*arrays, low, high), edges[:-1], edges[1:]))


def _sort(packed: Longs, spare: Longs, counts: Longs, n: int) -> None:
    """Sort the first n packed numbers by their key (radix, least digit first); the order of equal keys stays."""
    size = 1 << DIGIT
    for number in range(3):
        shift = PLACE + DIGIT * number
        counts[:] = 0
        for i in range(n):
            counts[(packed[i] >> shift) & (size - 1)] += 1
        total = 0
        for k in range(size):
            held = counts[k]
            counts[k] = total
            total += held
        for i in range(n):
            k = (packed[i] >> shift) & (size - 1)
            spare[counts[k]] = packed[i]
            counts[k] += 1
        for i in range(n):
            packed[i] = spare[i]


def _key(bits: Any) -> Any:
    """Return a number in the order of float32 values from their bits read as int32."""
    return bits + (1 << 31) if bits >= 0 else -1 - bits


def _share(packed: Longs, n: int, rank: Floats) -> None:
    """Write the ranks of sorted packed numbers to their places."""
    i = 0
    while i < n:
        key, j = packed[i] >> PLACE, i + 1
        while j < n and packed[j] >> PLACE == key:
            j += 1
        mean = 0.5 * (i + j + 1)
        for k in range(i, j):
            rank[packed[k] & ((1 << PLACE) - 1)] = mean
        i = j


def _rank_rows(x_TS: Any, out_TS: Floats, low: int, high: int) -> None:
    S = x_TS.shape[1]
    packed, spare, counts = np.empty(S, np.int64), np.empty(S, np.int64), np.empty(1 << DIGIT, np.int64)
    value = np.empty(S, np.float32)
    bits = value.view(np.int32)
    for t in range(low, high):
        n = 0
        for s in range(S):
            value[s] = x_TS[t, s] + 0.0  # one zero, not two
            if np.isfinite(x_TS[t, s]):
                packed[n] = (_key(np.int64(bits[s])) << PLACE) | s
                n += 1
        _sort(packed, spare, counts, n)
        _share(packed, n, out_TS[t])


def _correlation(a: Floats, b: Floats, n: int) -> float:
    """Return Pearson's correlation of the first n values of two arrays; NaN where one does not vary."""
    mean_a, mean_b, varies_a, varies_b = 0.0, 0.0, False, False
    for i in range(n):
        mean_a += a[i]
        mean_b += b[i]
        varies_a |= a[i] != a[0]
        varies_b |= b[i] != b[0]
    if n < LEAST or not (varies_a and varies_b):
        return np.nan
    mean_a, mean_b = mean_a / n, mean_b / n
    aa, bb, ab = 0.0, 0.0, 0.0
    for i in range(n):
        da, db = a[i] - mean_a, b[i] - mean_b
        aa += da * da
        bb += db * db
        ab += da * db
    return min(max(ab / np.sqrt(aa) / np.sqrt(bb), -1.0), 1.0) if aa > 0.0 and bb > 0.0 else np.nan


def _correlate(
    score_TS: Any,
    entry_TS: Floats,
    exit_TS: Floats,
    begin_H: Longs,
    end_H: Longs,
    ic_HT: Floats,
    rank_ic_HT: Floats,
    n_HT: Longs,
    low: int,
    high: int,
) -> None:
    T, S = entry_TS.shape
    order, mine, theirs, spare = (
        np.empty(S, np.int64),
        np.empty(S, np.int64),
        np.empty(S, np.int64),
        np.empty(S, np.int64),
    )
    counts = np.empty(1 << DIGIT, np.int64)
    value = np.empty(S, np.float32)
    bits = value.view(np.int32)
    a, b, rank_a, rank_b = np.empty(S), np.empty(S), np.empty(S), np.empty(S)
    for t in range(low, high):
        known = 0
        for s in range(S):
            value[s] = score_TS[t, s] + 0.0
            if np.isfinite(score_TS[t, s]):
                order[known] = (_key(np.int64(bits[s])) << PLACE) | s
                known += 1
        _sort(order, spare, counts, known)
        for h in range(begin_H.size):
            first, last = t + begin_H[h], t + end_H[h]
            if last >= T:
                continue
            n = 0
            for i in range(known):  # the pairs, numbered in the order of their scores
                s = order[i] & ((1 << PLACE) - 1)
                y = exit_TS[last, s] / entry_TS[first, s] - 1.0
                if np.isfinite(y):
                    mine[n] = ((order[i] >> PLACE) << PLACE) | n
                    a[n], b[n] = score_TS[t, s], y
                    value[n] = y + 0.0
                    n += 1
            n_HT[h, t] = n
            if n < LEAST:
                continue
            for i in range(n):
                theirs[i] = (_key(np.int64(bits[i])) << PLACE) | i
            _share(mine, n, rank_a)
            _sort(theirs, spare, counts, n)
            _share(theirs, n, rank_b)
            ic_HT[h, t] = _correlation(a, b, n)
            rank_ic_HT[h, t] = _correlation(rank_a, rank_b, n)


_RANKS = "void(float32[:,::1], float64[:,::1], int64, int64)"
_COEFFICIENTS = (
    "void(float32[:,::1], float64[:,::1], float64[:,::1], int64[::1], int64[::1], float64[:,::1], float64[:,::1], "
    "int64[:,::1], int64, int64)"
)
