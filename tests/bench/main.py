"""The main job as a user runs it: empty data folder, environment and kernel cache in place; then again with nothing
changed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from .measure import Measure

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 3


def job(folder: Path) -> tuple[float, float]:
    """Run the main job with its data under `folder`; return seconds and the peak memory of the whole process tree in
    GB.
    """
    command = [
        sys.executable,
        str(ROOT / "run_optimized_pipeline.py"),
        "--run.data",
        str(folder / "data"),
        "--run.runs",
        str(folder / "runs"),
    ]
    start, peak = time.perf_counter(), 0.0
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen(
            [*command, "--lake.path", str(folder / "data" / "lake")], stdout=out, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = max(peak, tree(process.pid))
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"the main job failed: {(folder / 'out.txt').read_text()[-2000:]}")
    return seconds, peak / 1e9


def tree(pid: int) -> float:
    total = 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def run() -> Iterator[Measure]:
    with tempfile.TemporaryDirectory() as warm:
        job(Path(warm))  # fills the kernel cache
    cold, again, memory = [], [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak = job(Path(folder))
            cold.append(seconds)
            memory.append(peak)
            again.append(job(Path(folder))[0])
    yield Measure("main.cold_s", statistics.median(cold), statistics.median(cold))
    yield Measure("main.again_s", statistics.median(again), statistics.median(again))
    yield Measure("main.peak_memory_gb", max(memory), max(memory))
