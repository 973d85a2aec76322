"""What a trial does: fit one model with its settings, report each epoch, return the best validation figure."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from math import nan
from pathlib import Path

from storage.emit import silent

from ..dataset import Dataset, prepare
from ..fit import fit_model
from ..learnable import check_moments
from ..section import ModelName, TrainSection
from ..splits import TRAIN, SplitSection
from ..trainer import TrainingDiverged
from .remote import Handle

_lock = threading.Lock()


@dataclass(frozen=True)
class TrainingObjective:
    """Fit a model; the value, to be maximised, is what train.early_stopping names (the rank IC, or minus the loss)."""

    features: Path
    split: SplitSection
    train: TrainSection
    model: ModelName
    device: str

    def __call__(self, handle: Handle) -> float:
        train = TrainSection(**{**self.train.model_dump(), **handle.params, "seed": handle.seed})
        with _lock:
            data = _dataset(self.features, self.split, _of_data(train, self.train.seed))
        check_moments(data.panel.ts_N[data.left.used(TRAIN)], train.loss, (self.model,), data.fold.number)
        best = nan

        def on_epoch(epoch: int, figure: float) -> None:
            nonlocal best
            best = figure if not figure <= best else best
            if epoch + 1 < train.num_epochs:  # pruning a trial that is done would only lose its value
                handle.report(figure, epoch + 1)

        try:
            fit_model(self.model, data, train, self.device, on_epoch=on_epoch)
        except TrainingDiverged:
            return nan
        return best


def _of_data(train: TrainSection, seed: int) -> TrainSection:
    """Reduce settings to those on which the dataset depends, so that trials share one copy of it. seed : the search's,
    not the trial's, because all trials learn the same labels, shuffled or not.
    """
    names = ("targets", "target_kind", "window", "max_gap_days", "scaler", "clip", "shuffle_labels")
    shuffled = {"seed": seed} if train.shuffle_labels else {}
    return TrainSection(**{name: getattr(train, name) for name in names}, **shuffled)


@functools.lru_cache(maxsize=1)
def _dataset(features: Path, split: SplitSection, train: TrainSection) -> Dataset:
    return prepare(features, split, train, silent)
