"""Indicators beside TA-Lib and Polars: thirty columns and single ones, how far they differ, how long a start takes,
and what the features stage adds.

Series are random walks. Both sides are timed in turn in one process. TA-Lib's arrays are let go series by series,
which is kind to it: it writes where its last columns were and are still in the cache.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.cluster import Cluster, ClusterSection
from pipeline.features.section import FeatureSection, feature_set
from pipeline.features.stage import features
from pipeline.indicators import Spec, plan_of, reads, resolve, rows_of
from pipeline.job import Job
from pipeline.labels import LabelSection
from pipeline.recurrence import Series
from pipeline.recurrence import run as compute
from pipeline.universe import UniverseSection
from storage.emit import silent
from storage.store import write_parquet
from tests.market import bars as daily
from tests.market import ingested
from tests.peers import polars30, talib30
from tests.walks import Array, Bars, walk

from .measure import Measure

ROOT = Path(__file__).resolve().parents[2]
PANELS = ((252, 2_000, 0.02), (1_260, 2_000, 0.02), (98_000, 200, 0.001))  # bars, series, step
INPUTS = ("open", "high", "low", "close", "volume")
SET = feature_set("bench30")
SINGLES = (("sma", 20), ("ema", 20), ("rsi", 14))
LAKE = (2_700, 2_500)  # symbols, daily bars
THREADS, REPEATS, RUNS, STARTS = 2, 7, 3, 5
FIRST = """
from pipeline.features.section import feature_set
from pipeline.indicators import compute
from tests.walks import frame, walk
print(compute(frame({"A": walk(1260)}), feature_set("bench30")).shape[1], flush=True)
"""
Task = Callable[[], object]


class Panel:
    """Hold series of equal length as the driver takes them, (5, rows), and one by one, as TA-Lib does."""

    def __init__(self, bars: int, count: int, step: float) -> None:
        starts = np.arange(count, dtype=np.int64) * bars
        self.series = Series(starts, np.full(count, bars, np.int64))
        self.src_CN = np.empty((len(INPUTS), count * bars))
        self.each: list[Bars] = [
            {name: self.src_CN[c, at : at + bars] for c, name in enumerate(INPUTS)} for at in starts
        ]
        for i, one in enumerate(self.each):
            made = walk(bars, i, step=step)
            for name in INPUTS:
                one[name][:] = made[name]

    def ours(self, specs: Sequence[Spec]) -> Callable[[Any], None]:
        """Return what computes the columns on two threads, into an array."""
        columns = resolve(specs)
        plan, first = plan_of(columns), INPUTS.index(rows_of(columns)[0])
        src_CN = self.src_CN[first : first + plan.inputs]
        return lambda out_ON: compute(plan, src_CN, self.series, out_ON, threads=THREADS)

    def talib(self, function: Callable[[Bars], object], pool: ThreadPoolExecutor | None = None) -> None:
        """Call a function for every series, here or on the threads of a pool."""

        def job(low: int, high: int) -> None:
            for one in self.each[low:high]:
                function(one)

        edges = np.linspace(0, len(self.each), 4 * THREADS + 1 if pool else 2).astype(int)
        list((pool.map if pool else map)(job, edges[:-1], edges[1:]))


def timed(tasks: Mapping[str, Task], repeats: int = REPEATS) -> dict[str, float]:
    """Return each task's median seconds; they run in turn, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def ratio(name: str, took: Mapping[str, float], ours: str, peer: str, fresh: str = "") -> Measure:
    note = f"with fresh output {took[peer] / took[fresh]:.3g}" if fresh else ""
    return Measure(f"indicators.{name}", took[peer] / took[ours], took[ours], took[peer], note)


def thirty(bars: int, panel: Panel, pool: ThreadPoolExecutor) -> Iterator[Measure]:
    """Compare the set with TA-Lib's better way; at 1,260 bars also with Polars, with a fill, and value by value."""
    ours = panel.ours(SET)
    out = np.zeros((len(resolve(SET)), panel.src_CN.shape[1]))
    half = out.reshape(-1).view(np.float32)[: out.size].reshape(out.shape)
    tasks: dict[str, Task] = {
        "serial": lambda: panel.talib(talib30),
        "threads": lambda: panel.talib(talib30, pool),
        "f64": lambda: ours(out),
        "f32": lambda: ours(half),
        "fresh f64": lambda: ours(np.empty_like(out)),
        "fresh f32": lambda: ours(np.empty_like(half)),
    }
    if bars == 1_260:
        import polars

        frame = polars.DataFrame(dict(zip(INPUTS, panel.src_CN))).with_columns(
            symbol=polars.Series(np.repeat(np.arange(len(panel.each)), bars))
        )
        parts = np.array_split(out.reshape(-1), THREADS)
        tasks["polars"] = lambda: frame.lazy().select(polars30()).collect()
        tasks["fill"] = lambda: list(pool.map(lambda part: part.fill(1.0), parts))
    took = timed(tasks)
    took["talib"] = min(took["serial"], took["threads"])
    yield ratio(f"set30_{bars}_vs_talib", took, "f64", "talib", "fresh f64")
    yield ratio(f"set30_{bars}_f32_vs_talib", took, "f32", "talib", "fresh f32")
    if bars == 1_260:
        yield ratio(f"set30_{bars}_vs_polars", took, "f64", "polars", "fresh f64")
        yield Measure("indicators.bound_share", took["f64"] / took["fill"], took["f64"], took["fill"])
        for name, columns in (("f32", half), ("f64", out)):
            ours(columns)
            worst = max(error(talib30(one), columns[:, i * bars :][:, :bars]) for i, one in enumerate(panel.each))
            yield Measure(f"indicators.error_{name}", worst, worst)


def error(expected: Sequence[Array], got_OT: Any) -> float:
    """Return the largest difference relative to max(|expected|, its median in the column), where both are known."""
    worst = 0.0
    for theirs, ours in zip(expected, got_OT, strict=True):
        known = np.isfinite(theirs)
        size = np.abs(theirs[known])
        worst = max(worst, float(np.max(np.abs(theirs[known] - ours[known]) / np.maximum(size, np.median(size)))))
    return worst


def single(name: str, n: int, bars: int, panel: Panel) -> Measure:
    """Compare one indicator on two threads with TA-Lib's loop over the series."""
    import talib

    function, ours = getattr(talib, name.upper()), panel.ours([Spec(indicator=name, params={"n": n})])
    out = np.zeros((1, panel.src_CN.shape[1]))
    took = timed({"talib": lambda: panel.talib(lambda one: function(one["close"], n)), "ours": lambda: ours(out)})
    return ratio(f"{name}{n}_{bars}_vs_talib", took, "ours", "talib")


def first_columns(cache: str | None = None) -> float:
    """Return the seconds that a new process takes until it has the columns of one symbol."""
    start = time.perf_counter()
    told = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    process = subprocess.Popen([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=told)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - start
    if line.strip() != str(len(resolve(SET))):
        raise RuntimeError(f"expected {len(resolve(SET))} columns from a new process, got '{line.strip()}'")
    return taken


def stage_overhead(pool: ThreadPoolExecutor) -> Measure:
    """Compare the features stage on a worker that runs already with reading, kernels and writing, each alone; all on
    two threads.
    """
    section = FeatureSection(set="basic")
    columns = section.columns(close_only=False)
    plan, names = plan_of(columns), reads(columns)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Cluster(ClusterSection(device="cpu", max_workers=1, threads=THREADS)) as cluster,
    ):
        folder = Path(temporary)
        symbols, count = [f"{i:05d}0" for i in range(1, LAKE[0] + 1)], LAKE[0] * LAKE[1]
        receipt = ingested(folder, daily(symbols, LAKE[1], start="2016-01-04"))
        groups = list(receipt.groups("1d").values())
        whole = receipt.bars("1d", columns=names)
        src_CN = np.stack([whole[name].to_numpy() if name in names else np.zeros(count) for name in rows_of(columns)])
        series = Series(np.arange(LAKE[0]) * LAKE[1], np.full(LAKE[0], LAKE[1]))
        out_ON = np.zeros((plan.columns, count), section.dtype)
        blocks: list[Any] = []

        out = folder / "stage" / "features"

        def stage() -> None:
            out.mkdir(parents=True)
            job = Job(out, {"ingest": folder / "ingest"}, cluster, silent)
            features(job, section, LabelSection(), UniverseSection())

        def clear() -> None:
            if not blocks:
                blocks.extend(pq.read_table(path) for path in sorted(out.rglob("*.parquet")))
            shutil.rmtree(out.parent)

        def read(group: list[str]) -> None:
            receipt.bars("1d", symbols=group, columns=["symbol", "ts", *names])

        def write(number: int) -> None:
            write_parquet(folder / f"block-{number}.parquet", blocks[number])

        cluster.client()
        took = timed(
            {
                "stage": stage,
                "clear": clear,
                "read": lambda: list(pool.map(read, groups)),
                "kernels": lambda: compute(plan, src_CN, series, out_ON, threads=THREADS),
                "write": lambda: list(pool.map(write, range(len(blocks)))),
            },
            RUNS,
        )
    parts = ("read", "kernels", "write")
    alone = sum(took[part] for part in parts)
    note = ", ".join(f"{part} {took[part]:.2f} s" for part in ("stage", *parts))
    return Measure("indicators.stage_overhead", took["stage"] / alone, took["stage"], alone, note)


def run() -> Iterator[Measure]:
    with ThreadPoolExecutor(THREADS) as pool:
        for bars, count, step in PANELS:
            panel = Panel(bars, count, step)
            yield from thirty(bars, panel, pool)
            if bars > 252:
                yield from (single(name, n, bars, panel) for name, n in SINGLES)
        yield stage_overhead(pool)
    first_columns()
    warm = statistics.median(first_columns() for _ in range(STARTS))
    yield Measure("indicators.warm_start_s", warm, warm)
    cold = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_columns(cache))
    yield Measure("indicators.cold_compile_s", statistics.median(cold), statistics.median(cold))
