"""What tests of training share: settings that fit within a second, and how two fits are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from storage.emit import silent
from training.checkpoint import load
from training.dataset import Dataset
from training.fit import Fit
from training.judge import scores
from training.metrics import make_sections, mean_rank_ic
from training.section import NetworkName, TrainSection
from training.splits import TEST, VALID
from training.trainer import Loop
from training.windows import Windows, window_ends

NETWORKS: tuple[NetworkName, ...] = ("lstm", "tcn", "transformer")
TINY: dict[str, Any] = {
    "window": 4,
    "hidden_size": 8,
    "num_epochs": 4,
    "windows_per_epoch": 2000,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "threads": 1,
    "mixed_precision": "off",
}
SHORT: dict[str, Any] = {**TINY, "num_epochs": 2, "windows_per_epoch": 600}
FIGURES = ("epoch", "train_loss", "valid_loss", "valid_rank_ic", "learning_rate")


def loop_of(name: NetworkName, data: Dataset, train: TrainSection, out: Path | None = None) -> Loop:
    """Return a loop on the CPU that has not yet moved."""
    return Loop(name, data, train, "cpu", silent, out)


def test_rank_ic(fit: Fit, data: Dataset, window: int = 4) -> float:
    """Return the mean rank IC of a fit on the test rows, whose labels the dataset keeps from training."""
    ends_W = window_ends(data.panel, data.known_N, window, 0)
    y_W = data.panel.y_NH[ends_W, 0]
    keep_W = (data.split_N[ends_W] == TEST) & np.isfinite(y_W)
    found = scores(fit.model, Windows(data.panel.x_NF, window, "cpu"), ends_W[keep_W])[:, 0]
    return mean_rank_ic(found, y_W[keep_W], make_sections(data.panel.ts_N[ends_W[keep_W]], 10))


test_rank_ic.__test__ = False  # type: ignore[attr-defined]


def validated(fit: Fit, data: Dataset, window: int = 4) -> NDArray[np.float32]:
    """Return the scores of the validation windows."""
    ends_W = data.windows(VALID, TrainSection(**{**TINY, "window": window}))
    return scores(fit.model, Windows(data.panel.x_NF, window, "cpu"), ends_W)


def assert_same_state(one: Path, two: Path) -> None:
    """Compare two checkpoints bit for bit, but for what the clock says."""
    a, b = load(one), load(two)
    assert a.keys() == b.keys()
    for key in ("fingerprint", "epoch", "cursor", "total", "micro", "best_epoch", "stale", "grad_scaler"):
        assert a[key] == b[key], key
    for key in ("weights", "best_weights"):
        assert a[key].keys() == b[key].keys()
        assert all(torch.equal(a[key][k], b[key][k]) for k in a[key]), key
    assert all(torch.equal(p, q) for p, q in zip(a["random"], b["random"], strict=True))
    moved = zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(p[k], q[k]) for p, q in moved for k in p)
    assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
    assert [[row[k] for k in FIGURES] for row in a["history"]] == [[row[k] for k in FIGURES] for row in b["history"]]
