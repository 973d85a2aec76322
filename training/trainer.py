"""Train a network: one loop that can be killed anywhere and goes on as if it had not been.

Shapes: B batch, L window, F features, W windows, H heads. A step of the optimiser takes batch_size x
gradient_accumulation_steps windows, however small the parts are in which they go through the network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from storage.emit import Emit, silent

from . import profile
from .dataset import Dataset
from .hardware import autocast_type
from .judge import Judge, merit_of, scores
from .losses import loss_of
from .memory import Forecast, forecast, is_out_of_memory, release
from .model import build
from .model.network import Network
from .parallel import Ranks
from .plan import Plan
from .resume import keep, resume, weights_of
from .section import NetworkName, TrainSection
from .splits import TRAIN
from .steps import Meter
from .windows import Windows, to_device

EpochHook = Callable[[int, float], None]
History = list[dict[str, float]]
_PROGRESS_S = 0.5
_RANK = 1_000_003  # between the seeds of ranks
_GPU_CHECK = 32  # steps between looks at the loss, which wait for the GPU


class TrainingDiverged(Exception):
    """A loss or a score that is no number any more."""


class TooLarge(Exception):
    """A network that does not fit into memory with a single window at a time."""


def too_large(name: str, train: TrainSection, windows: int, error: Exception) -> TooLarge:
    """Return the error of a network that memory does not hold with so many windows at a time."""
    return TooLarge(
        f"expected {windows} windows of {train.window} bars to fit into memory beside the {name}, got: {error}; choose "
        "a smaller train.hidden_size, train.layers, train.window or train.batch_size, or train.recompute"
    )


class Loop:
    """Hold everything that changes while a network is trained; `run` goes on from wherever that is."""

    def __init__(
        self,
        name: NetworkName,
        data: Dataset,
        train: TrainSection,
        device: str,
        emit: Emit,
        out: Path | None,
        ranks: Ranks | None = None,
    ) -> None:
        self.name, self.data, self.train, self.out = name, data, train, out
        self.ranks = ranks or Ranks()
        self.emit = emit if self.ranks.first else silent
        self.loss = loss_of(train.loss)
        self.plan = Plan(data.windows(TRAIN, train), data.panel.ts_N, train, self.loss.compares, self.ranks)
        self.judge = Judge(data, train)
        normalise, threads = train.normalise == "window", torch.get_num_threads()
        self.windows = Windows(data.panel.x_NF, train.window, device, normalise=normalise, threads=threads)
        self.device = self.windows.device
        self.meter = Meter(self.device)
        self.target_NH = to_device(torch.from_numpy(data.target_NH), self.device)
        self.moment_N = to_device(torch.from_numpy(data.panel.ts_N), self.device)
        shape = {"n_features": self.windows.n_features, "n_heads": data.target_NH.shape[1], **train.shape(name)}
        self.model: Network = build(name, shape, train.dropout, train.seed).to(self.device)
        self.model.recompute = train.recompute
        self.model.random.manual_seed(train.seed + _RANK * self.ranks.rank)
        self.forward: Any = self.ranks.wrap(self.model, self.device)
        if train.compile:
            self.forward = torch.compile(self.forward)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
        )
        self.precision, self.said = autocast_type(train, device, name)
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.fingerprint = data.fingerprint(train, name) if out else ""
        self.micro = train.batch_size
        self.epoch = self.best_epoch = self.stale = self.cursor = 0
        self.total, self.spent = 0.0, 0.0  # of the epoch so far: summed loss, seconds
        self.history: History = []
        self.best_state = weights_of(self.model)
        self.kept = time.monotonic()

    def run(self, on_epoch: EpochHook | None = None) -> History:
        """Train until the last epoch or until `patience` has run out; the model then has the weights of the best one.

        `on_epoch(epoch, validation figure to maximise)` may raise to stop.
        """
        resume(self)
        text = f"{self.name} on {self.device.type}, {torch.get_num_threads()} threads, {self.said}"
        self.emit("log", level="info", text=f"{text}, data on the {self.windows.place}")
        try:
            said = self.forecast().text()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = "memory forecast: more than there is, even for the few windows that tell it"
        self.emit("log", level="info", text=said)
        while self.epoch < self.train.num_epochs and not (self.train.patience and self.stale >= self.train.patience):
            with self.meter:
                row = self._one_epoch()
            merit = merit_of(row, self.train)
            best = merit_of(self.history[self.best_epoch], self.train) if self.history else nan
            first = not self.history
            if first and not isfinite(merit):
                text = f"{self.name}: the validation has no rank IC (scores or targets are all the same): set "
                self.emit("log", level="warning", text=text + "train.early_stopping loss, or give it more moments")
            self.history.append(row)
            if first or merit > best or (isfinite(merit) and not isfinite(best)):
                self.best_epoch, self.stale, self.best_state = self.epoch, 0, weights_of(self.model)
            else:
                self.stale += 1
            self.epoch, self.cursor, self.total, self.spent = self.epoch + 1, 0, 0.0, 0.0
            keep(self)
            self.emit("epoch", model=self.name, **row)
            if on_epoch:
                on_epoch(int(row["epoch"]), merit)
        total = self.epoch * self.plan.drawn
        self.emit("progress", done=total, total=total, unit="windows")
        self.model.load_state_dict(self.best_state)
        return self.history

    def forecast(self) -> Forecast:
        """Predict the peak of memory that training takes on its device."""
        held = self.target_NH.nbytes + self.moment_N.nbytes
        held += self.data.panel.x_NF.nbytes if self.windows.place == "device" else 0
        shape = (self.train.window, self.windows.n_features)
        return forecast(self.model, shape, min(self.micro, len(self.plan.ends_W)), held, self.precision)

    def _one_epoch(self) -> dict[str, float]:
        order_W = self.plan.order(self.epoch)
        self.meter.start()
        while self.cursor < len(order_W):
            micro = self.micro
            self._steps(order_W)
            if self.micro < micro:
                release(self.device)
        judged = time.perf_counter()
        found = [0.0, 0.0, 1.0]
        if self.ranks.first:
            scores_WH = scores(self.model, self.windows, self.judge.ends_W)
            found = [*self.judge(scores_WH), float(np.isfinite(scores_WH).all())]
        valid_loss, valid_rank_ic, finite = self.ranks.told(found, self.device)
        if not finite:
            raise TrainingDiverged(self._diverged("the scores of the validation windows are"))
        return {
            "epoch": self.epoch,
            "train_loss": self.total / len(order_W),
            "valid_loss": valid_loss,
            "valid_rank_ic": valid_rank_ic,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": self.spent + time.perf_counter() - judged,
            "samples_per_s": len(order_W) / self.spent,
            **self.meter.figures(),
        }

    def _steps(self, order_W: NDArray[np.int64]) -> None:
        """Take the epoch's steps from `cursor` on, up to the first that memory does not hold."""
        steps = self.plan.steps(order_W[self.cursor :], self.micro)
        batches = self.meter.waits(self.windows.batches([part for step in steps for part in step.parts]))
        self.model.train()
        began = told = time.perf_counter()
        seen: list[torch.Tensor] = []  # losses on the device that were not yet looked at
        check_every = 1 if self.device.type == "cpu" else _GPU_CHECK
        for number, step in enumerate(steps, 1):
            random = self.model.random.get_state()
            self.meter.begin()
            try:
                loss = self._gradients(batches, len(step.parts), step.weight / step.windows)
            except (RuntimeError, MemoryError) as error:
                self.model.random.set_state(random)
                self.total += sum(float(one) for one in seen)
                self.spent += time.perf_counter() - began
                self._back_off(error)
                return
            seen.append(loss)
            self._step()
            self.meter.end()
            profile.step()
            self.cursor += step.windows
            if len(seen) == check_every or number == len(steps):
                self.total += float(self.ranks.total(torch.stack(seen).sum()))
                seen.clear()
                self.meter.read()
                now = time.perf_counter()
                self.spent, began = self.spent + now - began, now
                place = f"step {-(-self.cursor // self.plan.step_size)} of epoch {self.epoch}"
                if not isfinite(self.total):
                    raise TrainingDiverged(self._diverged(f"the loss up to {place} is"))
                if now - told > _PROGRESS_S:
                    told = now
                    done = self.epoch * self.plan.drawn + self.cursor
                    self.emit("progress", done=done, total=self.train.num_epochs * self.plan.drawn, unit="windows")
                due = float(time.monotonic() - self.kept > self.train.checkpoint_s)
                if self.out and self.ranks.told([due], self.device)[0]:
                    if not all(bool(values.isfinite().all()) for values in self.model.parameters()):
                        raise TrainingDiverged(self._diverged(f"the weights after {place} are"))
                    keep(self)

    def _gradients(self, batches: Any, parts: int, weight: float) -> torch.Tensor:
        """Add up the gradients of this rank's parts of a step; return their summed loss.

        weight : of a window in the mean over the step, 0 = its windows are another rank's.
        """
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for number in range(1, parts + 1):
            x_BLF, end_B = next(batches)
            with self.ranks.apart(self.forward, number == parts):
                with torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
                    score_BH = self.forward(x_BLF)
                part = self.loss(score_BH.float(), self.target_NH[end_B], self.moment_N[end_B])
                self.grad_scaler.scale(part * (weight * self.ranks.count)).backward()  # gradients are averaged
            if weight:
                loss += part.detach()
        return loss

    def _step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.epoch, self.cursor)
        if self.train.gradient_clip:
            self.grad_scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.gradient_clip)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _back_off(self, error: Exception) -> None:
        """After running out of memory go on with half as many windows at a time; a step's windows stay the same."""
        if not is_out_of_memory(error):
            raise error
        self.optimizer.zero_grad(set_to_none=True)
        if self.micro == 1 or self.loss.compares or self.ranks.count > 1:
            raise too_large(self.name, self.train, self.micro, error) from error
        self.micro = -(-self.micro // 2)
        text = (
            f"out of memory: {self.micro} windows at a time from now on, "
            f"{-(-self.plan.step_size // self.micro)} times a step, which keeps its {self.plan.step_size}"
        )
        self.emit("log", level="warning", text=text)

    def _diverged(self, what: str) -> str:
        kept = f"the last good state is kept in {self.out}" if self.out and self.history else "no epoch was finished"
        largest = float(torch.nan_to_num(self.target_NH, nan=0.0).abs().max())
        return (
            f"expected finite numbers, but {what} not; {kept}. Lower train.learning_rate "
            f"({self.train.learning_rate:g}), set train.gradient_clip (now {self.train.gradient_clip:g}) or "
            f"train.mixed_precision off; the largest target is {largest:.3g}"
        )
