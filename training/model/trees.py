"""A baseline of another kind: gradient-boosted trees (LightGBM) on the last bar of a window."""

from __future__ import annotations

import importlib.util
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..columns import DataError
from ..section import TrainSection

_ROUNDS, _PATIENCE = 500, 30
_SETTINGS: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def check_installed() -> None:
    """Raise DataError where LightGBM is not installed."""
    if importlib.util.find_spec("lightgbm") is None:
        raise DataError(
            "expected LightGBM because train.models names trees, got no such package; install the extra: "
            "pip install -e '.[trees]', or leave trees out"
        )


class Trees(nn.Module):
    """Score windows (B, L, F) -> (B, H) by boosted trees over the last bar, one forest a head, kept as its text."""

    text: torch.Tensor

    def __init__(self, n_features: int, n_heads: int, size: int = 0) -> None:
        super().__init__()
        self.n_features, self.n_heads = n_features, n_heads
        self.register_buffer("text", torch.zeros(size, dtype=torch.uint8))
        self._forests: list[Any] = []

    def shape(self) -> dict[str, int]:
        return {"n_features": self.n_features, "n_heads": self.n_heads, "size": len(self.text)}

    def forward(self, x_BLF: torch.Tensor) -> torch.Tensor:
        last_BF = x_BLF[:, -1].float().cpu().numpy()
        score_BH = np.stack([forest.predict(last_BF, num_threads=1) for forest in self._grown()], axis=1)
        return torch.from_numpy(score_BH.astype(np.float32)).to(x_BLF.device)

    def fit(
        self,
        x_NF: NDArray[np.float32],
        target_NH: NDArray[np.float32],
        rows_W: NDArray[np.int64],
        valid_W: NDArray[np.int64],
        train: TrainSection,
    ) -> Self:
        """Boost on the training rows until the validation rows have not gained for 30 rounds. DataError where LightGBM
        is not installed.
        """
        check_installed()
        import lightgbm

        texts = []
        threads = torch.get_num_threads()
        settings = {**_SETTINGS, "seed": train.seed % 2**31, "num_threads": threads}
        for h in range(self.n_heads):
            fit_W, judge_W = (rows[np.isfinite(target_NH[rows, h])] for rows in (rows_W, valid_W))
            data = lightgbm.Dataset(x_NF[fit_W], target_NH[fit_W, h])
            judged = lightgbm.Dataset(x_NF[judge_W], target_NH[judge_W, h], reference=data)
            stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
            forest = lightgbm.train(settings, data, _ROUNDS, valid_sets=[judged], callbacks=[stop])
            text = forest.model_to_string(num_iteration=forest.best_iteration)
            texts.append(text.replace(f"[num_threads: {threads}]", "[num_threads: 1]"))  # it changes nothing else
        self.text = torch.frombuffer(bytearray("\0".join(texts).encode()), dtype=torch.uint8)
        self._forests = []
        return self

    def _grown(self) -> list[Any]:
        if not self._forests:
            check_installed()
            import lightgbm

            texts = self.text.cpu().numpy().tobytes().decode().split("\0")
            self._forests = [lightgbm.Booster(model_str=text) for text in texts]
        return self._forests
