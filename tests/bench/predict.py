"""Scores by the Scorer, as the live stage asks for them: one window, a batch, the whole universe."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.trained_stage import write_trained
from training.score import Scorer
from training.section import TrainSection

from .measure import Measure

NETWORKS = ("lstm", "tcn", "transformer")
WINDOW, FEATURES = 60, 20
SECTION = TrainSection(models=NETWORKS, window=WINDOW, hidden_size=64)
SINGLES, BATCHES, UNIVERSES = 2_000, 20, 5


def seconds(scorer: Scorer, windows: np.ndarray, repeats: int) -> list[float]:
    """Return the time of each call, after a few that do not count."""
    times = []
    for number in range(repeats + 3):
        start = time.perf_counter()
        found = scorer.score(windows)
        if number >= 3:
            times.append(time.perf_counter() - start)
    if not np.isfinite(found).all():
        raise RuntimeError("expected a score for each window, got NaN")
    return times


def run() -> Iterator[Measure]:
    with tempfile.TemporaryDirectory() as folder:
        trained = write_trained(Path(folder), SECTION, FEATURES)
        one = {name: Scorer(trained, name) for name in NETWORKS}
        whole = {name: Scorer(trained, name, threads=0) for name in NETWORKS}
    x_SLF = np.random.default_rng(0).standard_normal((2_700, WINDOW, FEATURES), np.float32)
    tail = {n: float(np.percentile(seconds(s, x_SLF[:1], SINGLES), 99)) * 1e3 for n, s in one.items()}
    yield slowest("predict.score_p99_ms", tail, "ms")
    batch = {n: statistics.median(seconds(s, x_SLF[:256], BATCHES)) * 1e3 for n, s in whole.items()}
    yield slowest("predict.batch256_ms", batch, "ms")
    universe = {n: statistics.median(seconds(s, x_SLF, UNIVERSES)) for n, s in whole.items()}
    yield slowest("predict.universe_s", universe, "s")


def slowest(name: str, found: dict[str, float], unit: str) -> Measure:
    worst = max(found.values())
    return Measure(name, worst, worst, None, ", ".join(f"{n} {value:.3g} {unit}" for n, value in found.items()))
