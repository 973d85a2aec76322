"""An LSTM whose states are pooled by attention: late bars matter, but not only the last one."""

from __future__ import annotations

import torch
from torch import nn

from .network import Network, dropped


class LSTM(Network):
    """Score windows (B, L, F) -> (B, H): stacked LSTM layers, softmax attention over the L states of the last one, and
    its last state beside the pooled one.
    """

    def __init__(self, n_features: int, n_heads: int, hidden_size: int, layers: int, dropout: float, seed: int) -> None:
        super().__init__(dropout, seed)
        self.n_features = n_features
        sizes = [n_features, *[hidden_size] * (layers - 1)]
        self.layers = nn.ModuleList(nn.LSTM(size, hidden_size, batch_first=True) for size in sizes)
        self.attention = nn.Linear(hidden_size, 1, bias=False)
        self.head = nn.Linear(2 * hidden_size, n_heads)
        self.draw()

    def shape(self) -> dict[str, int]:
        return {
            "n_features": self.n_features,
            "n_heads": self.head.out_features,
            "hidden_size": self.attention.in_features,
            "layers": len(self.layers),
        }

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        state_BLD = x_BLF
        for number, layer in enumerate(self.layers):
            mask = self.mask(state_BLD) if number else None
            state_BLD = self.block(lambda x, m, layer=layer: layer(dropped(x, m))[0], state_BLD, mask)
        return self.pooled(state_BLD)
