"""What networks minimise.

Each loss returns the sum over windows, so that the caller divides by the windows of a whole step and small parts add up
to one large batch. Windows without a target count as nothing. The losses that compare do so within a moment, all its
windows that are in the batch.

Shapes: B batch, H heads. score_BH, target_BH : float32, NaN targets = not known; moment_B : int64, time of each window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch.nn import functional

LossName = Literal["mse", "huber", "ic", "rank", "bce"]
_EPS = 1e-6


class Loss(NamedTuple):
    """A loss of score_BH, target_BH and moment_B; compares : a batch must hold whole moments."""

    of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    compares: bool

    def __call__(self, score_BH: torch.Tensor, target_BH: torch.Tensor, moment_B: torch.Tensor) -> torch.Tensor:
        return self.of(score_BH, target_BH, moment_B)


def _each(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Loss:
    """Return a loss that looks at each window alone; heads count alike."""

    def of(score_BH: torch.Tensor, target_BH: torch.Tensor, moment_B: torch.Tensor) -> torch.Tensor:
        known = torch.isfinite(target_BH)
        target = torch.where(known, target_BH, 0.0)
        return torch.where(known, function(score_BH, target), 0.0).sum() / target_BH.shape[1]

    return Loss(of, compares=False)


def _square(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (score - target).square()


def _huber(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Square within one deviation, a line beyond (Huber 1964)."""
    return functional.huber_loss(score, target, reduction="none")


def _cross_entropy(score: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the target's sign, the score being its log odds."""
    return functional.binary_cross_entropy_with_logits(score, (target > 0).to(score.dtype), reduction="none")


def _correlation(score_BH: torch.Tensor, target_BH: torch.Tensor, moment_B: torch.Tensor) -> torch.Tensor:
    """Return n (1 - Pearson's correlation) summed over moments of n windows; a moment without variance counts n."""
    _, code_B = torch.unique(moment_B, return_inverse=True)
    moments = int(code_B.max()) + 1
    known_BH = torch.isfinite(target_BH).to(score_BH.dtype)

    def summed(values_BH: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros((moments, values_BH.shape[1]), dtype=values_BH.dtype, device=values_BH.device)
        return zeros.index_add(0, code_B, values_BH)

    count = summed(known_BH)

    def centred(values_BH: torch.Tensor) -> torch.Tensor:
        values_BH = torch.where(known_BH > 0, values_BH, 0.0)
        return (values_BH - (summed(values_BH) / count.clamp(min=1.0))[code_B]) * known_BH

    a, b = centred(score_BH), centred(target_BH)
    both = summed(a * b) / ((summed(a * a) + _EPS) * (summed(b * b) + _EPS)).sqrt()
    return (count * (1.0 - both)).sum() / target_BH.shape[1]


def _pairs(score_BH: torch.Tensor, target_BH: torch.Tensor, moment_B: torch.Tensor) -> torch.Tensor:
    """Return n times the mean logistic loss of the pairs of a moment of n windows, that with the higher target first
    (RankNet: Burges et al. 2005); a moment without a pair counts nothing.
    """
    total = score_BH.new_zeros(())
    _, code_B = torch.unique(moment_B, return_inverse=True)
    order = torch.argsort(code_B, stable=True)
    counts = torch.bincount(code_B)
    for rows in order.split(counts.tolist()):
        above = target_BH[rows].unsqueeze(1) - target_BH[rows].unsqueeze(0) > 0  # NaN is above nothing
        ahead = score_BH[rows].unsqueeze(1) - score_BH[rows].unsqueeze(0)
        lost = torch.where(above, functional.softplus(-ahead), 0.0).sum(dim=(0, 1))
        pairs = above.sum(dim=(0, 1))
        known = torch.isfinite(target_BH[rows]).sum(dim=0)
        total = total + (known * lost / pairs.clamp(min=1)).sum()
    return total / target_BH.shape[1]


_LOSSES = {
    "mse": _each(_square),
    "huber": _each(_huber),
    "bce": _each(_cross_entropy),
    "ic": Loss(_correlation, compares=True),
    "rank": Loss(_pairs, compares=True),
}


def loss_of(name: LossName) -> Loss:
    """Return a loss by name."""
    return _LOSSES[name]
