"""A Transformer encoder over the bars of a window (Vaswani et al. 2017, norms first), pooled by attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .network import Network, dropped


class Layer(nn.Module):
    """Let the bars of (B, L, D) attend to each other, then go through two dense layers; both are added to the input."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_dense = nn.LayerNorm(size), nn.LayerNorm(size)
        self.read = nn.Linear(size, 3 * size)
        self.write = nn.Linear(size, size)
        self.wide = nn.Linear(size, 4 * size)
        self.narrow = nn.Linear(4 * size, size)

    def forward(self, x_BLD: torch.Tensor, mask: torch.Tensor | None, mask_dense: torch.Tensor | None) -> torch.Tensor:
        batch, length, size = x_BLD.shape
        split = self.read(self.norm_attention(x_BLD)).view(batch, length, 3, self.heads, size // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        x_BLD = x_BLD + dropped(self.write(seen.transpose(1, 2).reshape(batch, length, size)), mask)
        dense = self.narrow(functional.gelu(self.wide(self.norm_dense(x_BLD))))
        out: torch.Tensor = x_BLD + dropped(dense, mask_dense)
        return out


class Transformer(Network):
    """Score windows (B, L, F) -> (B, H). All bars of a window see each other; none lies after its end."""

    def __init__(
        self,
        n_features: int,
        n_heads: int,
        hidden_size: int,
        layers: int,
        heads: int,
        window: int,
        dropout: float,
        seed: int,
    ) -> None:
        super().__init__(dropout, seed)
        self.inlet = nn.Linear(n_features, hidden_size)
        self.place = nn.Parameter(torch.empty(window, hidden_size))
        self.layers = nn.ModuleList(Layer(hidden_size, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.attention = nn.Linear(hidden_size, 1, bias=False)
        self.head = nn.Linear(2 * hidden_size, n_heads)
        self.heads = heads
        self.draw()

    def shape(self) -> dict[str, int]:
        return {
            "n_features": self.inlet.in_features,
            "n_heads": self.head.out_features,
            "hidden_size": self.inlet.out_features,
            "layers": len(self.layers),
            "heads": self.heads,
            "window": len(self.place),
        }

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        state_BLD = self.inlet(x_BLF) + self.place
        for layer in self.layers:
            state_BLD = self.block(layer, state_BLD, self.mask(state_BLD), self.mask(state_BLD))
        return self.pooled(self.norm(state_BLD))
