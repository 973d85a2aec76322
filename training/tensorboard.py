"""Epochs as TensorBoard shows them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from storage.emit import Emit

TAGS = {
    "train_loss": "loss/train",
    "valid_loss": "loss/valid",
    "valid_rank_ic": "rank_ic/valid",
    "learning_rate": "learning_rate",
    "samples_per_s": "speed/samples_per_s",
    "step_p50_ms": "speed/step_p50_ms",
    "step_p95_ms": "speed/step_p95_ms",
    "wait_share": "speed/wait_share",
    "peak_memory_mb": "memory/process_mb",
    "peak_device_mb": "memory/device_mb",
    "gpu_use": "gpu_use",
}


class TensorBoardError(Exception):
    """TensorBoard was asked for and is not installed."""


def check() -> None:
    """Raise TensorBoardError where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise TensorBoardError(
            "expected the package tensorboard because run.tensorboard is true, found none; install it with "
            "pip install -c constraints.txt -e '.[tensorboard]', or leave --run.tensorboard out"
        )


class Board:
    """Pass events on, and write each epoch's figures below `folder`: a TensorBoard run for each model, seed and
    fold.
    """

    def __init__(self, folder: Path, emit: Emit) -> None:
        self.folder, self._emit = folder, emit
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def emit(self, kind: str, /, **fields: Any) -> None:
        self._emit(kind, **fields)
        if kind != "epoch":
            return
        writer = self._writer("{model}-{seed}-fold-{fold}".format(**fields))
        for name in TAGS.keys() & fields.keys():
            writer.add_scalar(TAGS[name], fields[name], fields["epoch"])
        writer.flush()

    def _writer(self, run: str) -> Any:
        if run not in self._writers:
            from torch.utils.tensorboard import SummaryWriter  # imports torch, which most runs need on workers alone

            self._writers[run] = SummaryWriter(str(self.folder / run))
        return self._writers[run]
