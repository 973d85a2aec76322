"""Who is held: the symbols of each side after each decision.

Shapes: D decisions, S symbols. Scores are float64, NaN = not eligible; equal scores stand in the order of symbols.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Sides = npt.NDArray[np.int8]


class Choice(NamedTuple):
    """Hold who is chosen: side_DS (D, S) int8, 1 = long, -1 = short, 0 = none; slots_D (D,) int64, into how many parts
    the equity of a side is cut; kept_DS (D, S) bool, whose shares stay as they are.
    """

    side_DS: Sides
    slots_D: Longs
    kept_DS: Bools


def ranked(score_DS: Floats) -> Ints:
    """Return symbols by falling score, NaN last; (D, S) int32."""
    return np.argsort(-score_DS, axis=1, kind="stable").astype(np.int32)


def places(order_DS: Ints) -> Ints:
    """Return the place of each symbol in an order, 0 = best; (D, S) int32."""
    out = np.empty_like(order_DS)
    np.put_along_axis(out, order_DS.astype(np.int64), np.arange(order_DS.shape[1], dtype=np.int32)[None], axis=1)
    return out


def top_k(score_DS: Floats, place_DS: Ints, k: int, shorts: bool) -> Choice:
    """Choose the k best, and the k worst where there are shorts; with fewer than 2 k scores half of them a side."""
    count_D = np.isfinite(score_DS).sum(axis=1)
    best_D = np.minimum(k, count_D // 2 if shorts else count_D)
    return _ends(place_DS, count_D, best_D, np.full(len(count_D), k, np.int64), shorts)


def quantile(score_DS: Floats, place_DS: Ints, quantiles: int, held: int, shorts: bool) -> Choice:
    """Choose the best `held` of so many quantiles, and the worst where there are shorts, all of equal weight: of n
    scores n x held / quantiles, rounded down.
    """
    count_D = np.isfinite(score_DS).sum(axis=1)
    best_D = count_D * held // quantiles
    return _ends(place_DS, count_D, best_D, np.maximum(best_D, 1), shorts)


def beyond(score_DS: Floats, upper: float, lower: float, slots_D: Longs) -> Choice:
    """Choose each score above `upper`, and short each below `lower`; NaN = nobody on that side."""
    with np.errstate(invalid="ignore"):
        side_DS = (score_DS > upper).astype(np.int8) - (score_DS < lower).astype(np.int8)
    return Choice(side_DS, slots_D, np.zeros(score_DS.shape, bool))


def drop_out(score_DS: Floats, alive_DS: Bools, k: int, drop: int, shorts: bool) -> Choice:
    """Hold k, of which each decision replaces at most `drop`: the worst held, by better ones that are not held.

    As TopkDropoutStrategy of Qlib: of those held and the drop + k - held best others the k best. A held symbol without
    a score is worse than any with one; one that is delisted (not alive) frees its place. The short side does the same
    with the worst scores, of symbols that are not long; the long side takes nobody who is short. Longs keep their
    shares; shorts do not, because one that loses grows.
    """
    D, S = score_DS.shape
    side_DS, kept_DS = np.zeros((D, S), np.int8), np.zeros((D, S), bool)
    before_S = np.zeros(S, np.int8)
    for d in range(D):
        before_S = np.where(alive_DS[d], before_S, 0).astype(np.int8)
        after_S = np.zeros(S, np.int8)
        sides = (1, -1) if shorts else (1,)
        for side in sides:
            free = (before_S == 0) & (after_S == 0)
            held = np.flatnonzero((before_S == side) & (after_S == 0))
            after_S[_dropped_out(side * score_DS[d], held, free, k, drop)] = side
        side_DS[d], kept_DS[d] = after_S, (after_S == 1) & (before_S == 1)
        before_S = after_S
    return Choice(side_DS, np.full(D, k, np.int64), kept_DS)


def _dropped_out(score_S: Floats, held: Longs, free_S: Bools, k: int, drop: int) -> Longs:
    """Return who is held after one decision of one side; a higher score is better."""
    worth_S = np.where(np.isfinite(score_S), score_S, -np.inf)
    others = np.flatnonzero(free_S & np.isfinite(score_S))
    others = others[np.argsort(-worth_S[others], kind="stable")][: drop + k - len(held)]
    both = np.sort(np.concatenate([held, others]))
    return both[np.argsort(-worth_S[both], kind="stable")][:k]


def _ends(place_DS: Ints, count_D: Longs, best_D: Longs, slots_D: Longs, shorts: bool) -> Choice:
    """Choose the first best_D places, and as many last ones of those with a score where there are shorts."""
    worst_D = count_D - (best_D if shorts else 0)
    long_DS = place_DS < best_D[:, None]
    short_DS = (place_DS >= worst_D[:, None]) & (place_DS < count_D[:, None])
    return Choice(long_DS.astype(np.int8) - short_DS.astype(np.int8), slots_D, np.zeros(place_DS.shape, bool))
