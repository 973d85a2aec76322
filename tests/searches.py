"""Searches without and with skill, their sums, and what ffn 1.4.1 says about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """A search of `search` and the results of ffn: deflated Sharpe ratio and expected maximum of its best, pbo, mean
    rank and sum of logits by number of blocks.
    """

    made: tuple[Any, ...]
    best: int
    deflated: float
    hurdle: float
    blocks: dict[int, tuple[float, float, float]]


FFN = (
    Known((1, 96, 12, 0.0, False), 9, 0.18782006464933876, 0.22587498046705937,
          {6: (0.1, 0.6807692307692308, 16.097994979251318),
           8: (0.314285714285714, 0.5901098901098902, 26.2111753681179),
           10: (0.261904761904762, 0.6101953601953602, 127.04947134792675)}),
    Known((2, 250, 40, 0.0, True), 23, 0.7247767797311275, 0.19248033731738637,
          {6: (0.1, 0.7414634146341463, 27.883112349002964),
           8: (0.128571428571429, 0.7512195121951218, 103.78428370130277),
           10: (0.130952380952381, 0.7551296941540845, 399.9994901313074)}),
    Known((3, 250, 40, 0.003, False), 0, 0.9969997485593938, 0.18759367610541508,
          {6: (0.0, 0.9756097560975612, 73.7775890822787),
           8: (0.028571428571429, 0.946341463414634, 240.3065201090472),
           10: (0.023809523809524, 0.9573170731707318, 895.2435531764106)}),
    Known((4, 500, 25, 0.002, True), 0, 0.5555097316591512, 0.11785230973713202,
          {6: (0.15, 0.7346153846153846, 23.99821602844765),
           8: (0.228571428571429, 0.7087912087912087, 75.07690870753675),
           10: (0.214285714285714, 0.7069597069597069, 276.34842599559914)}),
    Known((5, 121, 15, 0.001, False), 0, 0.6907890724127068, 0.18207805306957198,
          {6: (0.4, 0.584375, 7.8793891105495595),
           8: (0.4, 0.5883928571428572, 29.04251568603138),
           10: (0.408730158730159, 0.5873015873015873, 104.6142101517866)}),
)  # fmt: skip


def search(seed: int, sessions: int, trials: int, skill: float = 0.0, tail: bool = False) -> Floats:
    """Return (sessions, trials) returns of which only the first trial's have a mean: `skill`."""
    rng = np.random.default_rng(seed)
    shape = (sessions, trials)
    returns = rng.standard_t(4, shape) * 0.007 if tail else rng.normal(0, 0.01, shape)
    returns[:, 0] += skill
    return returns


def powers(returns_T: Floats) -> list[float]:
    return [float((returns_T**k).sum()) for k in (1, 2, 3, 4)]


def block_sums(returns_TC: Floats, blocks: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return sums of r and r^2 (C, B, 2) and counts (B,) of equally long blocks; the rest at the end is left away."""
    length = len(returns_TC) // blocks
    cut = returns_TC[: length * blocks].reshape(blocks, length, -1)
    return np.stack([cut.sum(1), (cut**2).sum(1)], -1).transpose(1, 0, 2), np.full(blocks, length)


def sharpe_ratios(returns_TC: Floats) -> Floats:
    return np.asarray(returns_TC.mean(0) / returns_TC.std(0, ddof=1), np.float64)
