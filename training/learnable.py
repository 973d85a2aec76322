"""What the parts of a fold must hold for a model to learn from them.

Shapes: N rows, H labels, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .columns import DataError, Label
from .losses import LossName, loss_of
from .panel import Panel
from .section import BASELINES
from .splits import TRAIN, VALID


def check_labels(
    panel: Panel, y_NH: NDArray[np.float32], split_N: NDArray[np.int8], labels: Sequence[Label], fold: int
) -> None:
    """Refuse a label without a known value in training or validation. y_NH : labels to learn, NaN = none, of all that
    the panel has. DataError.
    """
    for name, code in (("train", TRAIN), ("valid", VALID)):
        rows = split_N == code
        for h, label in enumerate(labels):
            if not np.isfinite(y_NH[rows, h]).any():
                before = int(np.isfinite(panel.y_NH[rows, h]).sum())
                raise DataError(
                    f"expected known labels {label.name} in {name} of fold {fold}, got {int(rows.sum())} rows "
                    f"of which {before} have a label and none is left after purging; shorten the label's horizon, "
                    "ingest a longer history or move the boundaries of split.*"
                )


def check_moments(ts_W: NDArray[np.int64], loss: LossName, models: Sequence[str], fold: int) -> None:
    """Refuse a loss that compares the windows of a moment where no moment of the training windows, which end at ts_W,
    has two; baselines do without. DataError.
    """
    if not loss_of(loss).compares or set(models) <= set(BASELINES):
        return
    if np.unique(ts_W, return_counts=True)[1].max() < 2:
        raise DataError(
            f"expected moments with at least two symbols for train.loss {loss}, which compares them, got one in each "
            f"of the training of fold {fold}; use mse, huber or bce"
        )
