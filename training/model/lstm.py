"""A small LSTM whose states are pooled by attention: late bars matter, but not only the last one."""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn


class LSTM(nn.Module):
    """Score windows (B, L, F) -> (B,).

    One LSTM layer, softmax attention over its L states, and the last state beside the pooled one. Weights come from
    `seed`, dropout from a generator of the model's own: nothing depends on torch's global generator, which all tasks in
    one process share.
    """

    def __init__(self, n_features: int, hidden_size: int, dropout: float, seed: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.lstm = nn.LSTM(n_features, hidden_size, batch_first=True)
        self.attention = nn.Linear(hidden_size, 1, bias=False)  # softmax ignores a shift
        self.head = nn.Linear(2 * hidden_size, 1)
        random = torch.Generator().manual_seed(seed)
        bound = 1.0 / sqrt(hidden_size)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound, generator=random)
        self._seed = seed
        self._random: torch.Generator | None = None

    def shape(self) -> dict[str, int]:
        return {"n_features": self.lstm.input_size, "hidden_size": self.hidden_size}

    @property
    def random(self) -> torch.Generator:
        """Return the generator of dropout, on the device of the weights; its state belongs in a checkpoint."""
        device = self.head.weight.device
        if self._random is None or self._random.device != device:
            self._random = torch.Generator(device).manual_seed(self._seed)
        return self._random

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        state_BLH, _ = self.lstm(x_BLF)
        weight_BL1 = torch.softmax(self.attention(state_BLH), dim=1)
        pooled_BH = (weight_BL1 * state_BLH).sum(dim=1)
        both = torch.cat([pooled_BH, state_BLH[:, -1]], dim=1)
        if self.training and self.dropout:
            keep = torch.rand(both.shape, generator=self.random, device=both.device) >= self.dropout
            both = both * keep / (1.0 - self.dropout)
        score: torch.Tensor = self.head(both).squeeze(1)
        return score
