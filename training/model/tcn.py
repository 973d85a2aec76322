"""A temporal convolution network: layers of causal convolutions whose reach doubles from one to the next, pooled by
attention (after Bai, Kolter and Koltun 2018).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .network import Network, dropped


class Layer(nn.Module):
    """Add to (B, D, L) what a causal convolution over `kernel` bars, `dilation` apart, makes of it."""

    def __init__(self, size: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.convolution = nn.Conv1d(size, size, kernel, dilation=dilation)
        self.mix = nn.Conv1d(size, size, 1)
        self.norm = nn.LayerNorm(size)

    def forward(self, x_BDL: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        seen = functional.gelu(self.convolution(functional.pad(self._normed(x_BDL), (self.past, 0))))
        out: torch.Tensor = x_BDL + dropped(self.mix(seen), mask)
        return out

    def _normed(self, x_BDL: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(x_BDL.transpose(1, 2))
        return normed.transpose(1, 2)


class TCN(Network):
    """Score windows (B, L, F) -> (B, H); bar t sees bars up to and including t in every layer."""

    def __init__(
        self, n_features: int, n_heads: int, hidden_size: int, layers: int, kernel: int, dropout: float, seed: int
    ) -> None:
        super().__init__(dropout, seed)
        self.kernel = kernel
        self.inlet = nn.Linear(n_features, hidden_size)
        self.layers = nn.ModuleList(Layer(hidden_size, kernel, 2**i) for i in range(layers))
        self.attention = nn.Linear(hidden_size, 1, bias=False)
        self.head = nn.Linear(2 * hidden_size, n_heads)
        self.draw()

    def shape(self) -> dict[str, int]:
        return {
            "n_features": self.inlet.in_features,
            "n_heads": self.head.out_features,
            "hidden_size": self.inlet.out_features,
            "layers": len(self.layers),
            "kernel": self.kernel,
        }

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        state_BDL = self.inlet(x_BLF).transpose(1, 2)
        for layer in self.layers:
            state_BDL = self.block(layer, state_BDL, self.mask(state_BDL))
        return self.pooled(state_BDL.transpose(1, 2))
