"""The trainer beside the bare step of the same model: what reading windows, checks, schedule and clipping cost.

Both sides are timed in turn in one process, with the threads that the trainer takes; the ratio is the median of those
of neighbours in time, since the speed of a shared machine drifts. The bare step has its batches ready in memory:
forward, mean squared error, backward, AdamW.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from storage.emit import silent
from tests.feature_blocks import write_blocks
from training.dataset import Dataset, prepare
from training.hardware import threads_for, torch_threads
from training.model import build
from training.section import NetworkName, TrainSection
from training.splits import SplitSection
from training.trainer import Loop

from .measure import Measure

ROOT = Path(__file__).resolve().parents[2]
NETWORKS: tuple[NetworkName, ...] = ("lstm", "tcn", "transformer")
SETTINGS: dict[str, Any] = {"window": 60, "batch_size": 256, "hidden_size": 64, "models": NETWORKS}
PANEL = {"symbols": 60, "days": 900, "features": 20, "groups": 2, "signal": 0.1, "noise": 0.2}
STEPS, REPEATS, POOL = 8, 21, 8
PEAK = """
import sys, json
from pathlib import Path
from storage.emit import silent
from tests.bench.trainer import memory
print(json.dumps(memory(Path(sys.argv[1]), sys.argv[2])))
"""


def both(name: NetworkName, data: Dataset, train: TrainSection) -> tuple[float, float, float]:
    """Return the samples/s of the trainer and of the bare step, and the first over the second."""
    loop = Loop(name, data, train, "cpu", silent, None)
    shape = {"n_features": loop.windows.n_features, "n_heads": 1, **train.shape(name)}
    model = build(name, shape, train.dropout, train.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay, fused=True
    )
    windows = STEPS * train.batch_size
    order = np.random.default_rng(0).permutation(loop.plan.ends_W)[:windows]
    x_BLF = torch.randn(POOL, train.batch_size, train.window, loop.windows.n_features)
    y_BH = torch.randn(POOL, train.batch_size, 1)

    def trainer() -> None:
        loop.cursor = 0
        loop._steps(order)

    def bare() -> None:
        model.train()
        for step in range(STEPS):
            with torch.autocast("cpu", dtype=loop.precision, enabled=loop.precision is not None):
                score_BH = model(x_BLF[step % POOL])
            (score_BH.float() - y_BH[step % POOL]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    times: dict[Any, list[float]] = {trainer: [], bare: []}
    for number in range(REPEATS + 1):
        for task in (trainer, bare) if number % 2 else (bare, trainer):
            start = time.perf_counter()
            task()
            times[task].append(time.perf_counter() - start)
    ours, peer = (windows / statistics.median(times[task][1:]) for task in (trainer, bare))
    return ours, peer, statistics.median(b / a for a, b in zip(times[trainer][1:], times[bare][1:]))


def resident_mb(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024 / 1e6


def memory(folder: Path, name: NetworkName) -> tuple[float, float]:
    """Return what training was predicted to take, and what it took at most, MB. For a process of its own."""
    few = TrainSection(**{**SETTINGS, "batch_size": 8, "windows_per_epoch": 16, "num_epochs": 1})
    train = TrainSection(**{**SETTINGS, "batch_size": 1_024, "windows_per_epoch": 4_096})
    data = prepare(folder, SplitSection(), few, silent)
    with torch_threads(threads_for(name, train)):
        small = Loop(name, data, few, "cpu", silent, None)
        small._steps(small.plan.order(0))  # the libraries' own memory is not the trainer's
        before = resident_mb("VmRSS") - data.panel.x_NF.nbytes / 1e6
        loop = Loop(name, data, train, "cpu", silent, None)
        predicted = loop.forecast().total / 1e6
        loop._steps(loop.plan.order(0))
    return predicted, resident_mb("VmHWM") - before


def forecasts(folder: Path) -> Iterator[tuple[str, float, float]]:
    for name in NETWORKS:
        found = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder), name], cwd=ROOT, capture_output=True, text=True
        )
        if found.returncode:
            raise RuntimeError(found.stderr)
        predicted, measured = json.loads(found.stdout)
        yield name, predicted, measured


def run() -> Iterator[Measure]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_blocks(Path(temporary), **PANEL)
        train = TrainSection(**SETTINGS)
        data = prepare(folder, SplitSection(), train, silent)
        for name in NETWORKS:
            with torch_threads(threads_for(name, train)) as threads:
                ours, bare, ratio = both(name, data, train)
                precision = Loop(name, data, train, "cpu", silent, None).said
            note = f"{ours:,.0f} and {bare:,.0f} samples/s, {threads} threads, {precision}"
            yield Measure(f"trainer.{name}_vs_bare", ratio, ours, bare, note)
            if name == "lstm":
                yield Measure("trainer.samples_per_s", ours, ours)
        found = list(forecasts(folder))
        name, predicted, measured = max(found, key=lambda one: abs(one[1] - one[2]) / one[2])
        note = ", ".join(f"{one}: {a:,.0f} MB predicted, {b:,.0f} MB measured" for one, a, b in found)
        yield Measure("trainer.forecast_error", abs(predicted - measured) / measured, predicted, measured, note)
