"""Train a network: one loop that can be killed anywhere and goes on as if it had not been.

Shapes: B batch, L window, F features, W windows, H heads. A step of the optimiser takes batch_size x
gradient_accumulation_steps windows, however small the parts are in which they go through the network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from storage.emit import Emit, silent

from . import checkpoint, profile
from .columns import DataError
from .dataset import Dataset
from .hardware import autocast_type
from .judge import Judge, merit_of, scores
from .losses import loss_of
from .memory import Forecast, forecast, is_out_of_memory, release
from .model import build, save_model
from .model.network import Network
from .parallel import Ranks
from .schedule import factor
from .section import NetworkName, TrainSection
from .splits import TRAIN
from .steps import Meter
from .windows import Windows, cut, to_device, whole_moments

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


class Step(NamedTuple):
    """Say what one step of the optimiser takes: windows of all ranks, this rank's parts of them (rows), and their
    weight, 0 = they are another rank's.
    """

    windows: int
    parts: list[NDArray[np.int64]]
    weight: float


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
        self.ends_W = data.windows(TRAIN, train)
        self.judge = Judge(data, train)
        normalise, threads = train.normalise == "window", torch.get_num_threads()
        self.windows = Windows(data.panel.x_NF, train.window, device, normalise=normalise, threads=threads)
        self.device = self.windows.device
        self.meter = Meter(self.device)
        self.target_NH = to_device(torch.from_numpy(data.target_NH), self.device)
        self.loss = loss_of(train.loss)
        if self.loss.compares and np.unique(data.panel.ts_N[self.ends_W], return_counts=True)[1].max() < 2:
            raise DataError(
                f"expected moments with at least two symbols for train.loss {train.loss}, which compares them, got one "
                "in each; use mse, huber or bce"
            )
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
        self.precision, self.said = autocast_type(train, device)
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.fingerprint = data.fingerprint(train, name) if out else ""
        self.micro = train.batch_size
        self.epoch = self.best_epoch = self.stale = self.cursor = 0
        self.total, self.spent = 0.0, 0.0  # of the epoch so far: summed loss, seconds
        self.history: History = []
        self.best_state = self._weights()
        self.kept = time.monotonic()

    @property
    def drawn(self) -> int:
        """Return how many windows an epoch draws."""
        return min(self.train.windows_per_epoch or len(self.ends_W), len(self.ends_W))

    @property
    def step_size(self) -> int:
        return self.train.batch_size * self.train.gradient_accumulation_steps

    def run(self, on_epoch: EpochHook | None = None) -> History:
        """Train until the last epoch or until `patience` has run out; the model then has the weights of the best one.

        `on_epoch(epoch, validation figure to maximise)` may raise to stop.
        """
        self._resume()
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
            self.history.append(row)
            if merit > best or not isfinite(best):
                self.best_epoch, self.stale, self.best_state = self.epoch, 0, self._weights()
            else:
                self.stale += 1
            self.epoch, self.cursor, self.total, self.spent = self.epoch + 1, 0, 0.0, 0.0
            self._keep()
            self.emit("epoch", model=self.name, **row)
            if on_epoch:
                on_epoch(int(row["epoch"]), merit)
        total = self.epoch * self.drawn
        self.emit("progress", done=total, total=total, unit="windows")
        self.model.load_state_dict(self.best_state)
        return self.history

    def forecast(self) -> Forecast:
        """Predict the peak of memory that training takes on its device."""
        held = self.target_NH.nbytes + self.moment_N.nbytes
        held += self.data.panel.x_NF.nbytes if self.windows.place == "device" else 0
        shape = (self.train.window, self.windows.n_features)
        return forecast(self.model, shape, min(self.micro, len(self.ends_W)), held, self.precision)

    def _one_epoch(self) -> dict[str, float]:
        order_W = self._order()
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
            "learning_rate": self._rate(),
            "seconds": self.spent + time.perf_counter() - judged,
            "samples_per_s": len(order_W) / self.spent,
            **self.meter.figures(),
        }

    def _order(self) -> NDArray[np.int64]:
        """Return this epoch's windows, whose order depends on seed and epoch alone. A loss that compares gets them
        moment by moment.
        """
        random = np.random.default_rng([self.train.seed, self.epoch])
        if not self.loss.compares:
            return random.permutation(self.ends_W)[: self.drawn]
        moments, code_W = np.unique(self.data.panel.ts_N[self.ends_W], return_inverse=True)
        place_W = random.permutation(len(moments))[code_W]
        order_W = self.ends_W[np.argsort(place_W, kind="stable")]
        return np.concatenate(whole_moments(order_W, self.data.panel.ts_N, self.drawn)[:1])

    def _planned(self, order_W: NDArray[np.int64]) -> list[Step]:
        """Cut windows into steps, and these into the parts that go through the network at once. A loss that compares
        gets whole moments in a part, as many as it takes to fill it.
        """
        if not self.loss.compares:
            groups = cut(order_W, self.step_size)
            shares = [self.ranks.share(group) for group in groups]
            return [Step(len(group), cut(mine, self.micro), weight) for group, (mine, weight) in zip(groups, shares)]
        parts = whole_moments(order_W, self.data.panel.ts_N, self.train.batch_size)
        size = self.train.gradient_accumulation_steps
        together = [parts[a : a + size] for a in range(0, len(parts), size)]
        return [Step(sum(map(len, one)), one, 1.0) for one in together]

    def _steps(self, order_W: NDArray[np.int64]) -> None:
        """Take the epoch's steps from `cursor` on, up to the first that memory does not hold."""
        steps = self._planned(order_W[self.cursor :])
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
                place = f"step {-(-self.cursor // self.step_size)} of epoch {self.epoch}"
                if not isfinite(self.total):
                    raise TrainingDiverged(self._diverged(f"the loss up to {place} is"))
                if now - told > _PROGRESS_S:
                    told = now
                    done = self.epoch * self.drawn + self.cursor
                    self.emit("progress", done=done, total=self.train.num_epochs * self.drawn, unit="windows")
                due = float(time.monotonic() - self.kept > self.train.checkpoint_s)
                if self.out and self.ranks.told([due], self.device)[0]:
                    if not all(bool(values.isfinite().all()) for values in self.model.parameters()):
                        raise TrainingDiverged(self._diverged(f"the weights after {place} are"))
                    self._keep()

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

    def _rate(self) -> float:
        """Return the learning rate of the step that the cursor stands at."""
        per_epoch = -(-self.drawn // self.step_size)
        steps = per_epoch * self.train.num_epochs
        step = self.epoch * per_epoch + self.cursor // self.step_size
        warmup = int(steps * self.train.warmup)
        return self.train.learning_rate * factor(min(step, steps - 1), steps, warmup, self.train.least_rate)

    def _step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
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
            f"{-(-self.step_size // self.micro)} times a step, which keeps its {self.step_size}"
        )
        self.emit("log", level="warning", text=text)

    def _diverged(self, what: str) -> str:
        kept = f"the last good state is kept in {self.out}" if self.out and self.history else "no epoch was finished"
        return (
            f"expected finite numbers, but {what} not; {kept}. Lower train.learning_rate "
            f"({self.train.learning_rate:g}), "
            f"set train.gradient_clip (now {self.train.gradient_clip:g}) or train.mixed_precision off"
        )

    def _weights(self) -> dict[str, torch.Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def _keep(self) -> None:
        self.kept = time.monotonic()
        if self.out is None:
            return
        random = self.ranks.each(self.model.random.get_state(), self.device)
        if not self.ranks.first:
            return
        value = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "cursor": self.cursor,
            "total": self.total,
            "spent": self.spent,
            "micro": self.micro,
            "best_epoch": self.best_epoch,
            "stale": self.stale,
            "history": self.history,
            "weights": self._weights(),
            "best_weights": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
            "random": random,
        }
        checkpoint.keep(self.out / "last.pt", value)
        if self.stale == 0 and self.cursor == 0:
            save_model(self.out / "best.pt", self.name, self.model, self.train)

    def _resume(self) -> None:
        """Go on from out/last.pt when it is of the same data and settings; say so when it is not."""
        if self.out is None:
            return
        value, troubles = checkpoint.newest(self.out / "last.pt")
        for trouble in troubles:
            self.emit("log", level="warning", text=f"{self.name}: {trouble}")
        if value is None:
            if troubles:
                self.emit("log", level="warning", text=f"{self.name} starts again: no checkpoint is left")
            return
        if value["fingerprint"] != self.fingerprint:
            text = f"{self.name} starts again: {self.out / 'last.pt'} is of other data or settings"
            self.emit("log", level="warning", text=text)
            return
        self.model.load_state_dict(value["best_weights"])  # best.pt may be behind last.pt, which is written first
        if value["history"] and self.ranks.first:
            save_model(self.out / "best.pt", self.name, self.model, self.train)
        self.model.load_state_dict(value["weights"])
        self.optimizer.load_state_dict(value["optimizer"])
        self.grad_scaler.load_state_dict(value["grad_scaler"])
        self.model.random.set_state(value["random"][self.ranks.rank])
        for name in ("epoch", "cursor", "total", "spent", "micro", "best_epoch", "stale", "history"):
            setattr(self, name, value[name])
        self.best_state = value["best_weights"]
        self.emit("log", level="info", text=f"{self.name} goes on in epoch {self.epoch} after {self.cursor:,} windows")
