"""Scores of validation windows and what they are worth: what decides which epoch, and which settings, are the best.

Shapes: W windows, H heads.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .dataset import Dataset
from .losses import loss_of
from .memory import is_out_of_memory
from .metrics import make_sections, mean_rank_ic
from .section import TrainSection
from .splits import VALID
from .windows import Windows, cut

BATCH = 256  # on a CPU larger ones leave its caches: a transformer took twice as long with 1,024


class Judge:
    """Compare scores of the validation windows of a dataset with their targets; the first head decides."""

    def __init__(self, data: Dataset, train: TrainSection) -> None:
        self.data, self.of = data, loss_of(train.loss)
        self.ends_W = data.windows(VALID, train)
        self.target_W = data.target_NH[self.ends_W, 0]
        self.sections = make_sections(data.panel.ts_N[self.ends_W], train.min_names)

    def __call__(self, scores_WH: NDArray[np.float32]) -> tuple[float, float]:
        """Return the mean loss that training minimises, over all heads, and the mean rank IC."""
        return self.loss(scores_WH, self.ends_W), mean_rank_ic(scores_WH[:, 0], self.target_W, self.sections)

    def loss(self, scores_WH: NDArray[np.float32], ends_W: NDArray[np.int64]) -> float:
        """Return the mean loss of the windows that end at rows (W,)."""
        told = (scores_WH, self.data.target_NH[ends_W], self.data.panel.ts_N[ends_W])
        score_WH, target_WH, moment_W = (torch.from_numpy(values) for values in told)
        if not self.of.compares:  # one sum over all windows wants more digits
            score_WH, target_WH = score_WH.double(), target_WH.double()
        return float(self.of(score_WH, target_WH, moment_W)) / len(ends_W)


def merit_of(row: dict[str, float], train: TrainSection) -> float:
    """Return the figure of an epoch that is maximised."""
    return row["valid_rank_ic"] if train.early_stopping == "rank_ic" else -row["valid_loss"]


def scores(model: nn.Module, windows: Windows, ends_W: NDArray[np.int64], size: int = BATCH) -> NDArray[np.float32]:
    """Score the windows (W,) that end at the given rows, in evaluation mode: (W, H). What memory does not hold is
    scored in halves.
    """
    model.eval()
    try:
        with torch.inference_mode():
            parts = [model(x_BLF).float().cpu() for x_BLF, _ in windows.batches(cut(ends_W, size))]
    except (RuntimeError, MemoryError) as error:
        if size == 1 or not is_out_of_memory(error):
            raise
        parts = [torch.from_numpy(scores(model, windows, ends_W, -(-size // 2)))]
    return torch.cat(parts).numpy() if parts else np.empty((0, 1), np.float32)
