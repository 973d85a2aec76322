"""The baseline that a network has to beat: ridge regression on the last bar of a window, in closed form."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..section import TrainSection

_CHUNK = 1 << 16


class Ridge(nn.Module):
    """Score windows (B, L, F) -> (B, H) by a linear function of the last bar."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_features: int, n_heads: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_features, n_heads))
        self.register_buffer("bias", torch.zeros(n_heads))

    def shape(self) -> dict[str, int]:
        return {"n_features": int(self.weight.shape[0]), "n_heads": int(self.weight.shape[1])}

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        return x_BLF[:, -1] @ self.weight + self.bias

    def fit(
        self,
        x_NF: NDArray[np.float32],
        target_NH: NDArray[np.float32],
        rows_W: NDArray[np.int64],
        valid_W: NDArray[np.int64],
        train: TrainSection,
    ) -> Self:
        """Solve (X'X / n + penalty I) w = X'y / n over centred rows, in float64, a chunk of rows at a time, for each
        head over the rows whose target is known.

        The penalty is a window's, so that it means the same for any number of rows; the intercept is not penalised
        (Hoerl and Kennard 1970).
        """
        for h in range(target_NH.shape[1]):
            known_W = rows_W[np.isfinite(target_NH[rows_W, h])]
            weight, bias = _solved(x_NF, target_NH[:, h], known_W, train.ridge_penalty)
            self.weight[:, h].copy_(torch.from_numpy(weight))
            self.bias[h] = bias
        return self


def _solved(
    x_NF: NDArray[np.float32], target_N: NDArray[np.float32], rows_W: NDArray[np.int64], penalty: float
) -> tuple[NDArray[np.float64], float]:
    n, width = len(rows_W), x_NF.shape[1]
    cross, moment, mean = np.zeros((width, width)), np.zeros(width), np.zeros(width)
    y_mean = float(target_N[rows_W].mean(dtype=np.float64))
    for a in range(0, n, _CHUNK):
        mean += x_NF[rows_W[a : a + _CHUNK]].sum(axis=0, dtype=np.float64)
    mean /= n
    for a in range(0, n, _CHUNK):
        x = x_NF[rows_W[a : a + _CHUNK]] - mean
        cross += x.T @ x
        moment += x.T @ (target_N[rows_W[a : a + _CHUNK]] - y_mean)
    weight = np.linalg.lstsq(cross / n + penalty * np.eye(width), moment / n, rcond=None)[0]
    return np.asarray(weight, np.float64), y_mean - float(weight @ mean)
