"""Fit any model on a dataset and say how it went: networks by the loop, baselines in one go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any

from torch import nn

from storage.emit import Emit, silent

from .dataset import Dataset
from .hardware import threads_for, torch_threads
from .judge import Judge, merit_of, scores
from .memory import is_out_of_memory
from .model import build, save_model, state_digest
from .parallel import Ranks
from .section import ModelName, TrainSection
from .splits import TRAIN
from .trainer import EpochHook, History, Loop, too_large
from .windows import Windows


@dataclass
class Fit:
    """Hold a fitted model: the weights of its best epoch, the figures of every epoch and which one was the best."""

    name: ModelName
    model: nn.Module
    best_epoch: int
    history: History = field(default_factory=list)

    @property
    def best(self) -> dict[str, float]:
        return self.history[self.best_epoch]

    def summary(self) -> dict[str, Any]:
        """Return what does not depend on the clock."""
        figures = {
            k: (v if isfinite(v) else None)
            for k, v in self.best.items()
            if k in ("train_loss", "valid_loss", "valid_rank_ic")
        }
        return {
            **figures,
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "weights": state_digest(self.model),
        }


def fit_model(
    name: ModelName,
    data: Dataset,
    train: TrainSection,
    device: str,
    emit: Emit = silent,
    out: Path | None = None,
    on_epoch: EpochHook | None = None,
    ranks: Ranks | None = None,
) -> Fit:
    """Fit one model on the training windows and pick its best epoch on the validation windows.

    The test is not looked at. With `out` the state is kept in out/last.pt on the way and the best model in out/best.pt;
    a later call with the same data and settings goes on from there and ends with the same bits on a CPU.
    `on_epoch(epoch, validation figure to maximise)` may raise to stop. TrainingDiverged when a loss is no number; the
    files then hold the last good state. TooLarge when memory does not hold a network with one window.
    """
    with torch_threads(threads_for(name, train, ranks.beside if ranks else 1)):
        if name == "ridge" or name == "trees":
            return _fit_baseline(name, data, train, emit, out, on_epoch)
        try:
            loop = Loop(name, data, train, device, emit, out, ranks)
            history = loop.run(on_epoch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(name, train, 1, error) from error  # the weights and their moments alone are
        return Fit(name, loop.model, loop.best_epoch, history)


def _fit_baseline(
    name: ModelName, data: Dataset, train: TrainSection, emit: Emit, out: Path | None, on_epoch: EpochHook | None
) -> Fit:
    """Fit what sees the last bar of a window alone."""
    started = time.perf_counter()
    ends_W = data.windows(TRAIN, train)
    judge = Judge(data, train)
    shape = {"n_features": len(data.panel.features), "n_heads": data.target_NH.shape[1]}
    model = build(name, shape, 0.0, train.seed)
    model.fit(data.panel.x_NF, data.target_NH, ends_W, judge.ends_W, train)
    last = Windows(data.panel.x_NF, 1, "cpu")
    compares = judge.of.compares  # pairs of a whole history are too many for one figure
    train_loss = nan if compares else judge.loss(scores(model, last, ends_W), ends_W)
    valid_loss, valid_rank_ic = judge(scores(model, last, judge.ends_W))
    seconds = time.perf_counter() - started
    row = {
        "epoch": 0,
        "train_loss": train_loss,
        "valid_loss": valid_loss,
        "valid_rank_ic": valid_rank_ic,
        "learning_rate": 0.0,
        "seconds": seconds,
        "samples_per_s": len(ends_W) / seconds,
    }
    emit("epoch", model=name, **row)
    if out is not None:
        save_model(out / "best.pt", name, model, train)
    if on_epoch:
        on_epoch(0, merit_of(row, train))
    return Fit(name, model, 0, [row])
