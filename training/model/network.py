"""What all networks share: weights from a seed, chance from a generator of their own, and memory saved by computing
activations again.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Network(nn.Module):
    """Map windows (B, L, F) to scores (B, H).

    Nothing depends on torch's global generator, which all tasks of one process share: weights come from `seed`, and
    dropout from `random`, whose state belongs in a checkpoint. recompute : activations inside blocks are not kept for
    the backward pass but computed again; the gradients are the same bits on a CPU.
    """

    attention: nn.Linear  # a state -> its weight; without bias, since softmax ignores a shift
    head: nn.Linear  # the pooled state and the last one -> scores

    def __init__(self, dropout: float, seed: int) -> None:
        super().__init__()
        self.dropout, self.recompute = dropout, False
        self._seed = seed
        self._random: torch.Generator | None = None

    def shape(self) -> dict[str, int]:
        """Return what it takes to build the same network again."""
        raise NotImplementedError

    @property
    def random(self) -> torch.Generator:
        """Return the generator of dropout, on the device of the weights."""
        device = next(self.parameters()).device
        if self._random is None or self._random.device != device:
            self._random = torch.Generator(device).manual_seed(self._seed)
        return self._random

    def draw(self) -> None:
        """Draw all weights from the seed: uniform within 1 / sqrt(inputs) (LeCun), biases 0, factors of norms 1."""
        random = torch.Generator().manual_seed(self._seed)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    bound = 1.0 / sqrt(parameter[0].numel())
                    parameter.uniform_(-bound, bound, generator=random)
                else:
                    parameter.zero_()
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.weight.fill_(1.0)

    def pooled(self, state_BLD: torch.Tensor) -> torch.Tensor:
        """Score states of bars (B, L, D) -> (B, H): their mean by softmax attention, with the last one beside it."""
        weight_BL1 = torch.softmax(self.attention(state_BLD), dim=1)
        both = torch.cat([(weight_BL1 * state_BLD).sum(dim=1), state_BLD[:, -1]], dim=1)
        score_BH: torch.Tensor = self.head(dropped(both, self.mask(both)))
        return score_BH

    def mask(self, like: torch.Tensor) -> torch.Tensor | None:
        """Draw what dropout multiplies a tensor by; None where nothing is dropped. To be drawn outside `block`."""
        if not (self.training and self.dropout):
            return None
        keep = torch.rand(like.shape, generator=self.random, device=like.device) >= self.dropout
        return keep.to(like.dtype) / (1.0 - self.dropout)

    def block(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor | None) -> torch.Tensor:
        """Call a part of the network, computed again in the backward pass where `recompute` says so."""
        if self.recompute and self.training:
            out: torch.Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
            return out
        return function(*inputs)


def dropped(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return values if mask is None else values * mask
