"""Fit models on a dataset: one loop that can be killed anywhere and goes on as if it had not been.

Shapes: B batch, L window, F features, W windows.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from storage.emit import Emit, silent

from .data import Resident, on_device
from .dataset import TRAIN, VALID, Dataset
from .metrics import Sections, make_sections, mean_rank_ic
from .model import CheckpointError, load, save, save_model, state_digest
from .model.lstm import LSTM
from .model.ridge import Ridge
from .precision import resolved_precision
from .section import ModelName, TrainSection

EpochHook = Callable[[int, float], None]
_SCORE_BATCH = 2048
_PROGRESS_S = 0.5
_GPU_CHECK = 32
_WIDE = (
    128  # below, threads mostly wait for each other: on two idle cores 1.2 to 1.6 times as fast, on busy ones slower
)


class TrainingDiverged(Exception):
    """A loss or a score that is no number any more."""


@dataclass
class Fit:
    """Hold a fitted model: the weights of its best epoch, the figures of every epoch and which one was the best."""

    name: ModelName
    model: LSTM | Ridge
    best_epoch: int
    history: list[dict[str, float]] = field(default_factory=list)

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


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[int]:
    """Set torch's threads (0 = all cores of this process) and restore them: Dask's nanny exports OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    chosen = count or len(os.sched_getaffinity(0))
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def choose_precision(train: TrainSection, device: str) -> tuple[torch.dtype | None, str]:
    """Return the type of mixed precision (None = float32) and its name; PrecisionError for fp16 on a CPU."""
    return {
        "off": (None, "float32"),
        "bf16": (torch.bfloat16, "bf16"),
        "fp16": (torch.float16, "fp16 with a gradient scaler"),
    }[resolved_precision(train, device)]


def fit_model(
    name: ModelName,
    data: Dataset,
    train: TrainSection,
    device: str,
    emit: Emit = silent,
    out: Path | None = None,
    on_epoch: EpochHook | None = None,
) -> Fit:
    """Fit one model on the training windows and pick its best epoch on the validation windows.

    The test is not looked at. With `out` the state after each epoch is kept in out/last.pt and the best model in
    out/best.pt; a later call with the same data and settings goes on from there and ends with the same bits on a CPU.
    `on_epoch(epoch, validation figure to maximise)` may raise to stop. TrainingDiverged when a loss is no number; the
    files then hold the last good epoch.
    """
    narrow = name == "ridge" or train.hidden_size < _WIDE
    with torch_threads(train.threads or int(narrow)):
        if name == "ridge":
            return _fit_ridge(data, train, emit, out, on_epoch)
        return Loop(data, train, device, emit, out).run(on_epoch)


class Judge:
    """Score the validation windows of a dataset and compare with their targets."""

    def __init__(self, data: Dataset, train: TrainSection) -> None:
        self.ends_W = data.windows(VALID, train.window)
        self.target_W = data.target_N[self.ends_W]
        self.sections: Sections = make_sections(data.panel.ts_N[self.ends_W], train.min_names)

    def __call__(self, scores_W: NDArray[np.float32]) -> tuple[float, float]:
        """Return mean squared error and mean rank IC."""
        loss = float(np.mean((scores_W - self.target_W) ** 2, dtype=np.float64))
        return loss, mean_rank_ic(scores_W, self.target_W, self.sections)


def scores(
    model: LSTM | Ridge, resident: Resident, ends_W: NDArray[np.int64], batch_size: int = _SCORE_BATCH
) -> NDArray[np.float32]:
    """Score the windows (W,) that end at the given rows, in evaluation mode."""
    model.eval()
    ends = on_device(torch.from_numpy(ends_W), resident.device)
    with torch.inference_mode():
        parts = [model(resident.batch(ends[a : a + batch_size])).float().cpu() for a in range(0, len(ends), batch_size)]
    return np.concatenate([part.numpy() for part in parts]) if parts else np.empty(0, np.float32)


def _fit_ridge(data: Dataset, train: TrainSection, emit: Emit, out: Path | None, on_epoch: EpochHook | None) -> Fit:
    started = time.perf_counter()
    ends_W = data.windows(TRAIN, train.window)
    judge = Judge(data, train)
    model = Ridge(len(data.panel.features)).fit(data.panel.x_NF, data.target_N, ends_W, train.ridge_penalty)
    resident = Resident(data.panel.x_NF, 1, "cpu")
    residual = scores(model, resident, ends_W) - data.target_N[ends_W]
    valid_loss, valid_rank_ic = judge(scores(model, resident, judge.ends_W))
    seconds = time.perf_counter() - started
    row = {
        "epoch": 0,
        "train_loss": float(np.mean(residual**2, dtype=np.float64)),
        "valid_loss": valid_loss,
        "valid_rank_ic": valid_rank_ic,
        "seconds": seconds,
        "samples_per_s": len(ends_W) / seconds,
    }
    emit("epoch", model="ridge", **row)
    if out is not None:
        save_model(out / "best.pt", "ridge", model, train.window)
    if on_epoch:
        on_epoch(0, _merit(row, train))
    return Fit("ridge", model, 0, [row])


def _merit(row: dict[str, float], train: TrainSection) -> float:
    return row["valid_rank_ic"] if train.early_stopping == "rank_ic" else -row["valid_loss"]


class Loop:
    """Train an LSTM: epochs of randomly drawn windows, AdamW, early stopping, a checkpoint after each epoch."""

    def __init__(self, data: Dataset, train: TrainSection, device: str, emit: Emit, out: Path | None) -> None:
        self.data, self.train, self.emit, self.out = data, train, emit, out
        self.ends_W = data.windows(TRAIN, train.window)
        self.judge = Judge(data, train)
        self.resident = Resident(data.panel.x_NF, train.window, device)
        self.target_N = on_device(torch.from_numpy(data.target_N), self.resident.device)
        self.model = LSTM(self.resident.n_features, train.hidden_size, train.dropout, train.seed).to(
            self.resident.device
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=device == "gpu"
        )
        self.precision, precision = choose_precision(train, device)
        self.grad_scaler = torch.amp.GradScaler(self.resident.device.type, enabled=self.precision is torch.float16)
        self.fingerprint = data.fingerprint(train) if out else ""
        self.epoch = self.best_epoch = self.stale = 0
        self.history: list[dict[str, float]] = []
        self.best_state = self._weights()
        emit("log", level="info", text=f"lstm on {device}, {torch.get_num_threads()} threads, {precision}")

    @property
    def drawn(self) -> int:
        """Return how many windows an epoch draws."""
        return min(self.train.windows_per_epoch or len(self.ends_W), len(self.ends_W))

    def run(self, on_epoch: EpochHook | None = None) -> Fit:
        self._resume()
        while self.epoch < self.train.num_epochs and not (self.train.patience and self.stale >= self.train.patience):
            row = self._one_epoch()
            merit = _merit(row, self.train)
            best = _merit(self.history[self.best_epoch], self.train) if self.history else nan
            self.history.append(row)
            if merit > best or not isfinite(best):
                self.best_epoch, self.stale, self.best_state = self.epoch, 0, self._weights()
            else:
                self.stale += 1
            self.epoch += 1
            self._keep()
            self.emit("epoch", model="lstm", **row)
            if on_epoch:
                on_epoch(int(row["epoch"]), merit)
        total = self.epoch * self.drawn
        self.emit("progress", done=total, total=total, unit="windows")
        self.model.load_state_dict(self.best_state)
        return Fit("lstm", self.model, self.best_epoch, self.history)

    def _one_epoch(self) -> dict[str, float]:
        started = time.perf_counter()
        train_loss = self._train_epoch()
        seconds = time.perf_counter() - started
        scores_W = scores(self.model, self.resident, self.judge.ends_W)
        if not np.isfinite(scores_W).all():
            raise TrainingDiverged(self._diverged("the scores of the validation windows are"))
        valid_loss, valid_rank_ic = self.judge(scores_W)
        return {
            "epoch": self.epoch,
            "train_loss": train_loss,
            "valid_loss": valid_loss,
            "valid_rank_ic": valid_rank_ic,
            "seconds": time.perf_counter() - started,
            "samples_per_s": self.drawn / seconds,
        }

    def _train_epoch(self) -> float:
        """Go once through this epoch's windows, whose order depends on seed and epoch alone; return the mean loss."""
        random = np.random.default_rng([self.train.seed, self.epoch])
        order_W = random.permutation(self.ends_W)[: self.drawn]
        ends = on_device(torch.from_numpy(order_W), self.resident.device)
        size, steps = self.train.batch_size, self.train.gradient_accumulation_steps
        total = torch.zeros((), dtype=torch.float64, device=self.resident.device)
        check_every = 1 if self.resident.device.type == "cpu" else _GPU_CHECK
        told = time.perf_counter()
        self.model.train()
        for number, a in enumerate(range(0, len(ends), size * steps)):
            group = ends[a : a + size * steps]
            for batch in group.split(size):
                loss = self._loss(batch)
                self.grad_scaler.scale(loss / len(group)).backward()
                total += loss.detach()
            if (number + 1) % check_every == 0 or a + len(group) == len(ends):
                if not isfinite(float(total)):
                    raise TrainingDiverged(self._diverged(f"the loss up to step {number} of epoch {self.epoch} is"))
                if time.perf_counter() - told > _PROGRESS_S:
                    told = time.perf_counter()
                    done = self.epoch * self.drawn + a + len(group)
                    self.emit("progress", done=done, total=self.train.num_epochs * self.drawn, unit="windows")
            self._step()
        return float(total) / len(ends)

    def _loss(self, end_B: torch.Tensor) -> torch.Tensor:
        """Return the summed squared error of a batch; the caller divides by the size of the whole step."""
        x_BLF = self.resident.batch(end_B)
        with torch.autocast(self.resident.device.type, dtype=self.precision, enabled=self.precision is not None):
            score_B = self.model(x_BLF)
        loss: torch.Tensor = (score_B.float() - self.target_N[end_B]).square().sum()
        return loss

    def _step(self) -> None:
        if self.train.gradient_clip:
            self.grad_scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.gradient_clip)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _diverged(self, what: str) -> str:
        kept = f"the last good epoch is kept in {self.out}" if self.out and self.history else "no epoch was finished"
        return (
            f"expected finite numbers, but {what} not; {kept}. Lower train.learning_rate "
            f"({self.train.learning_rate:g}), "
            f"set train.gradient_clip (now {self.train.gradient_clip:g}) or train.mixed_precision off"
        )

    def _weights(self) -> dict[str, torch.Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def _keep(self) -> None:
        if self.out is None:
            return
        value = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "stale": self.stale,
            "history": self.history,
            "weights": self._weights(),
            "best_weights": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "random": self.model.random.get_state(),
        }
        save(self.out / "last.pt", value)
        if self.stale == 0:
            save_model(self.out / "best.pt", "lstm", self.model, self.train.window)

    def _resume(self) -> None:
        """Go on from out/last.pt when it is of the same data and settings; say so when it is not."""
        if self.out is None or not (self.out / "last.pt").exists():
            return
        try:
            value = load(self.out / "last.pt")
        except CheckpointError as error:
            self.emit("log", level="warning", text=f"lstm starts again: {error}")
            return
        if value["fingerprint"] != self.fingerprint:
            self.emit(
                "log", level="warning", text=f"lstm starts again: {self.out / 'last.pt'} is of other data or settings"
            )
            return
        self.model.load_state_dict(value["best_weights"])  # best.pt may be behind last.pt, which is written first
        save_model(self.out / "best.pt", "lstm", self.model, self.train.window)
        self.model.load_state_dict(value["weights"])
        self.optimizer.load_state_dict(value["optimizer"])
        self.grad_scaler.load_state_dict(value["grad_scaler"])
        self.model.random.set_state(value["random"])
        self.epoch, self.best_epoch, self.stale = value["epoch"], value["best_epoch"], value["stale"]
        self.history, self.best_state = value["history"], value["best_weights"]
        self.emit("log", level="info", text=f"lstm goes on after epoch {self.epoch - 1}")
