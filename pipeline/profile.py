"""What a stage costs: time by function, memory over time and by line, and a trace of training.

Time is that of the thread that runs the stage and of those that run its tasks, here or on workers; threads that these
start themselves are not seen. Results and keys are the same with and without.
"""

from __future__ import annotations

import contextlib
import cProfile
import io
import linecache
import pstats
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from storage.emit import Emit
from storage.store import read_json, replacing, write_json

from .job import Measure, unmeasured

TOP, SITES, LINES = 50, 30, 60  # functions, lines of code, lines of memory over time
EVERY_S = 0.2
LEARNING = ("tune", "train", "predict")
ARRAYS = ("features", *LEARNING, "backtest")  # few large allocations, which cost little to trace
_GROWN, _LEAST = 1.25, 4 << 20  # times, bytes: traced memory has grown by so much when it is looked at who holds it
_WATCHING = (tracemalloc.__file__, linecache.__file__, "distributed/profile.py")  # this profiler, that of Dask
_tracing = threading.Lock()  # tracemalloc is one for the process


@dataclass(frozen=True)
class Measured:
    """A task of a stage that leaves a profile of itself in `parts`, wherever it runs; what it returns is the work's.

    On a worker that does not see that folder it runs as it is.
    """

    work: Callable[..., Any]
    stage: str
    parts: Path

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.parts.is_dir():
            return self.work(*arguments, **named)
        trace: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.stage in LEARNING:
            from training.profile import loaded, traced

            loaded()
            trace = traced(self.parts.parent / self.stage) if self.stage == "train" else trace
        with trace, _costs(self.parts / uuid4().hex, lines=self.stage in ARRAYS):
            return self.work(*arguments, **named)


@contextlib.contextmanager
def profiled(stage: str, folder: Path | None, emit: Emit, memory: Memory) -> Iterator[Measure]:
    """Profile a stage that runs in the block into `folder`/<stage>.prof, .txt, -memory.txt and, for train, -trace.json
    and -ops.txt; say where they are. None = do nothing. Yield what makes its tasks leave theirs.
    """
    if folder is None:
        yield unmeasured
        return
    parts = folder / f".{stage}"
    parts.mkdir(parents=True)
    try:
        with _costs(parts / "client", lines=stage == "features"):  # the others' arrays are those of tasks on workers
            yield lambda work: Measured(work, stage, parts)
    finally:
        _write_times(folder / stage, sorted(parts.glob("*.prof")))
        text = memory.text() + "\n" + _sites(stage, sorted(parts.glob("*.json")))
        (folder / f"{stage}-memory.txt").write_text(text, encoding="utf-8")
        shutil.rmtree(parts)
        names = ", ".join(sorted(p.name for p in folder.glob(f"{stage}[.-]*")))
        names += ", no trace because no network took enough steps" if stage == "train" and "trace" not in names else ""
        prof = folder / f"{stage}.prof"
        text = f"profile in {folder}: {names}; snakeviz {prof} or gprof2dot -f pstats {prof} | dot -Tpng > {stage}.png"
        emit("log", level="info", text=text)


@contextlib.contextmanager
def _costs(part: Path, *, lines: bool) -> Iterator[None]:
    """Write <part>.prof and, where this process traces nothing yet, <part>.json: what each line held at most."""
    profile = cProfile.Profile()
    with _allocations(part.with_suffix(".json")) if lines else contextlib.nullcontext():
        profile.enable()
        try:
            yield
        finally:
            profile.disable()
            with replacing(part.with_suffix(".prof")) as temporary:
                profile.dump_stats(temporary)


@contextlib.contextmanager
def _allocations(path: Path) -> Iterator[None]:
    if not _tracing.acquire(blocking=False):
        yield  # who traces this process sees this block too
        return
    stop, most, found = threading.Event(), 0, tracemalloc.Snapshot((), 1)

    def look(least: int) -> None:
        nonlocal most, found
        now = tracemalloc.get_traced_memory()[0]
        if now > _GROWN * most + least:
            most, found = now, tracemalloc.take_snapshot()

    def watch() -> None:
        while not stop.wait(EVERY_S):
            look(_LEAST)

    tracemalloc.start()
    thread = threading.Thread(target=watch, name="allocations", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look(0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        top = [s for s in found.statistics("lineno") if not s.traceback[0].filename.endswith(_WATCHING)][:SITES]
        write_json(path, {"peak": peak, "seen": most, "sites": {str(s.traceback): [s.size, s.count] for s in top}})
        _tracing.release()


def _write_times(stem: Path, parts: list[Path]) -> None:
    """Add up profiles and write them and their tables."""
    text = io.StringIO()
    pstats.Stats(*map(str, parts)).dump_stats(f"{stem}.prof")
    stats = pstats.Stats(f"{stem}.prof", stream=text)
    for order in ("cumulative", "tottime"):
        stats.sort_stats(order).print_stats(TOP)
    Path(f"{stem}.txt").write_text(text.getvalue(), encoding="utf-8")


def _sites(stage: str, parts: list[Path]) -> str:
    """Return the lines of code that held most, each as much as in that process or task where it held most."""
    if stage not in ARRAYS:
        return "Allocations by line are not traced here: with many small objects that takes several times as long.\n"
    told = [read_json(part) for part in parts]
    peak, seen = (max((one[name] for one in told), default=0) for name in ("peak", "seen"))
    sites: dict[str, list[int]] = {}
    for site, held in (item for one in told for item in one["sites"].items()):
        sites[site] = max(sites.get(site, [0, 0]), held)
    found = sorted(sites.items(), key=lambda item: -item[1][0])[:SITES]
    return (
        "Allocations by line, where a process held most (tracemalloc: Python and numpy, not torch, Arrow or a GPU)\n"
        f"peak {peak / 1e6:.1f} MB, looked at {seen / 1e6:.1f} MB\n{'MB':>10} {'blocks':>9}  line\n"
        + "".join(f"{size / 1e6:>10.2f} {count:>9,}  {site}\n" for site, (size, count) in found)
    )


class Memory:
    """Measure the resident memory (MB) of this process and its descendants while a block runs."""

    def __enter__(self) -> Memory:
        self.samples: list[tuple[float, float]] = []  # seconds since the start, MB
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        return max((mb for _, mb in self.samples), default=0.0)

    def text(self) -> str:
        """Return the peak and at most LINES lines of memory over time, each the most of its share of the time."""
        share = -(-len(self.samples) // LINES)
        rows = [max(self.samples[a : a + share], key=lambda s: s[1]) for a in range(0, len(self.samples), share or 1)]
        return (
            f"Resident memory of this process and those that it started: peak {self.peak:,.1f} MB\n"
            f"{'s':>10} {'MB':>10}\n"
            + "".join(f"{t:>10.1f} {mb:>10.1f}  {'#' * round(40 * mb / self.peak)}\n" for t, mb in rows)
        )

    def _watch(self) -> None:
        me, start = psutil.Process(), time.perf_counter()
        while True:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.samples.append((time.perf_counter() - start, round(total / 1e6, 1)))
            if self._stop.wait(EVERY_S):
                return
