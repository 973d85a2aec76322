"""Does choosing the best combination of a search in one half of the past say anything about the other half?

Combinatorially symmetric cross-validation of Bailey, Borwein, Lopez de Prado and Zhu, "The probability of backtest
overfitting" (Journal of Computational Finance 20(4), 2017): the past is cut into B blocks in order, each choice of
B / 2 of them is once the half in which the best combination is chosen and once the half in which it is judged.
Performance is the Sharpe ratio of one session, which follows for any union of blocks from the sums of r and r^2 in
each block.

Shapes: C combinations, B blocks, S = B! / (B / 2)!^2 splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .metrics import LEAST_FOR_RISK, Sheet
from .section import BacktestError

Floats = npt.NDArray[np.float64]
Halves = Iterator[tuple[Floats, int, Floats, int]]  # sums (2, C) and count of each half

BLOCKS = 16  # of the paper: 12,870 splits
LEAST_BLOCKS, MOST_BLOCKS = 6, 20  # 20 splits, below which a share says little; 184,756, above which nothing is gained
LEAST_COMBINATIONS = 10  # below them the rank of one says little
# Variance over mean square up to which returns do not vary: sums of 100,000 returns are exact to 1e-11 of it.
FLAT = 1e-10


@dataclass(frozen=True)
class Splits:
    """Hold what became of the best of each split, in the order of itertools.combinations of the blocks; (S,) each.

    rank : w = rank / (C + 1) of the best in the other half, rank 1 the worst. inside, outside : its Sharpe ratio of one
    session in the half where it was chosen and in the other.
    """

    rank: Floats
    inside: Floats
    outside: Floats

    @property
    def logit(self) -> Floats:
        """Return log(w / (1 - w)): at or below zero the best was no better than the median."""
        return np.asarray(np.log(self.rank / (1 - self.rank)), np.float64)


def cscv(sums_CB2: Floats, counts_B: npt.NDArray[np.int64]) -> Splits:
    """Return the best of each split. Takes C x S x 10 ns and memory of (B + 10) x C x 16 bytes.

    sums_CB2 : sums of r and of r^2 in each block, finite; counts_B : returns in each block, two or more in each half.
    Bits do not depend on the order of combinations. Equal combinations: the best of a half is the mean of those that
    are equally good there, equal values in the other half share their mean rank. Returns that do not vary in a half,
    such as those of a combination without a trade, count as a Sharpe ratio of zero there.
    """
    x_B2C = np.ascontiguousarray(np.moveaxis(np.asarray(sums_CB2, np.float64), 0, -1))
    splits = math.comb(len(counts_B), len(counts_B) // 2)
    found = np.empty((3, splits))
    for i, (one_2C, n_one, other_2C, n_other) in enumerate(_halves(x_B2C, np.asarray(counts_B, np.int64))):
        one_C, other_C = _sharpe(one_2C, n_one), _sharpe(other_2C, n_other)
        found[:, i] = _best(one_C, other_C)
        found[:, splits - 1 - i] = _best(other_C, one_C)
    return Splits(found[0] / (x_B2C.shape[2] + 1), found[1], found[2])


def overfitting(
    sums_CB2: Floats, counts_B: npt.NDArray[np.int64]
) -> tuple[dict[str, Any], dict[str, str], Splits | None]:
    """Return the numbers of a search, the reasons for those that are None and the splits behind them, if any.

    Arguments as for `cscv`; a combination with a sum that is not finite is left out and counted in `left_out`.
    BacktestError for shapes that do not belong together and for a number of blocks that is odd or out of range.

    pbo = share of splits with logit <= 0: the best of one half was at or below the median of the other (noise: about
    0.5); mean_rank = mean of w (noise: 0.5); mean_inside, mean_outside = mean Sharpe ratio of the best, of one session;
    slope, intercept of outside = intercept + slope x inside by least squares (performance degradation: 1 is none);
    loss = share of splits with outside < 0; dominates = 1 where P(rank <= k) <= k / C for all k, else 0: first-order
    stochastic dominance over a combination that is chosen by lot. Definitions of the paper, the last one on ranks
    instead of Sharpe ratios.
    """
    sums, counts = np.asarray(sums_CB2, np.float64), np.asarray(counts_B, np.int64)
    blocks = len(counts)
    if counts.ndim != 1 or sums.ndim != 3 or sums.shape[1:] != (blocks, 2):
        raise BacktestError(f"expected sums (C, B, 2) and counts (B,), got {sums.shape} and {counts.shape}")
    if blocks % 2 or not LEAST_BLOCKS <= blocks <= MOST_BLOCKS or (counts < 0).any():
        raise BacktestError(
            f"expected an even number of blocks from {LEAST_BLOCKS} to {MOST_BLOCKS}, each with a count, got {blocks} "
            f"with counts from {counts.min(initial=0)}; {BLOCKS} is usual"
        )
    usable = np.asarray(np.isfinite(sums).all(axis=(1, 2)))
    sheet = Sheet()
    n, half = int(usable.sum()), int(np.sort(counts)[: blocks // 2].sum())
    splits = math.comb(blocks, blocks // 2)
    sheet.values |= {"blocks": blocks, "splits": splits, "combinations": n, "left_out": len(usable) - n}
    why = ""
    if n < LEAST_COMBINATIONS:
        why = f"needs at least {LEAST_COMBINATIONS} combinations with finite returns, got {n}"
    elif half < LEAST_FOR_RISK:
        why = f"needs at least {LEAST_FOR_RISK} returns in each half, got {half}"
    if why:
        for name in ("pbo", "mean_rank", "mean_inside", "mean_outside", "slope", "intercept", "loss", "dominates"):
            sheet.put(name, None, why)
        return sheet.values, sheet.reasons, None
    found = cscv(sums if n == len(usable) else sums[usable], counts)
    sheet.put("pbo", float(np.mean(found.rank <= 0.5)))
    sheet.put("mean_rank", float(found.rank.mean()))
    sheet.put("mean_inside", float(found.inside.mean()))
    sheet.put("mean_outside", float(found.outside.mean()))
    spread = found.inside - found.inside.mean()
    varies = float(np.abs(spread).max()) > 1e-12
    slope = float(spread @ found.outside / (spread @ spread)) if varies else None
    why = "the best is equally good in every half"
    sheet.put("slope", slope, why)
    sheet.put("intercept", None if slope is None else float(np.mean(found.outside - slope * found.inside)), why)
    sheet.put("loss", float(np.mean(found.outside < 0)))
    by_lot = np.sort(found.rank) * (n + 1) / n
    sheet.put("dominates", float((np.arange(1, splits + 1) / splits <= by_lot + 1e-9).all()))
    return sheet.values, sheet.reasons, found


def _halves(x_B2C: Floats, counts_B: npt.NDArray[np.int64]) -> Halves:
    """Yield sums and count of both halves for the splits whose first half has the first block, in the order of
    itertools.combinations: the other splits are these, mirrored.

    Sums of the blocks so far are shared by all splits that begin alike, so that a split costs about two additions.
    """
    blocks = len(x_B2C)

    def walk(at: int, one: Floats, took: int, n: int, other: Floats, m: int) -> Halves:
        if at == blocks:
            yield one, n, other, m
            return
        count = int(counts_B[at])
        if took < blocks // 2:
            yield from walk(at + 1, one + x_B2C[at], took + 1, n + count, other, m)
        if at - took < blocks // 2:
            yield from walk(at + 1, one, took, n, other + x_B2C[at], m + count)

    return walk(1, x_B2C[0], 1, int(counts_B[0]), np.zeros_like(x_B2C[0]), 0)


def _sharpe(sums_2C: Floats, n: int) -> Floats:
    """Return mean / sd (ddof 1) = s1 sqrt((n - 1) / n) / sqrt(n s2 - s1^2) of each combination; zero where flat."""
    s1_C, scaled_C = sums_2C[0], n * sums_2C[1]
    varied_C = scaled_C - s1_C * s1_C
    moving_C = varied_C > FLAT * scaled_C
    root_C = np.sqrt(varied_C, where=moving_C, out=np.ones_like(s1_C))
    ratio_C: Floats = np.where(moving_C, s1_C, 0.0) / root_C
    ratio_C *= math.sqrt((n - 1) / n)
    return ratio_C


def _best(one_C: Floats, other_C: Floats) -> tuple[float, float, float]:
    """Return rank in `other`, value in `one` and value in `other` of the best of `one`."""
    at = int(np.argmax(one_C))
    equal_C = one_C == one_C[at]
    if np.count_nonzero(equal_C) == 1:
        value = other_C[at]
        rank = np.count_nonzero(other_C < value) + (np.count_nonzero(other_C == value) + 1) / 2
        return rank, float(one_C[at]), float(value)
    order_C, values = np.sort(other_C), np.sort(other_C[equal_C])
    low, high = (np.searchsorted(order_C, values, side) for side in ("left", "right"))
    return float(np.mean(low + high + 1) / 2), float(one_C[at]), float(values.mean())
