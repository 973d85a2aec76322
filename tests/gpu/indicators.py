"""Measure the indicators on a GPU: `python -m tests.gpu.indicators speed | parity [--tiny]`, JSON lines to stdout.

Bytes are inputs and outputs, once each, over seconds and over the copy bandwidth that the same device shows. Lines that
are measures have the names of docs/benchmarks/targets.json; those that only explain them have longer ones. --tiny runs
the same code at sizes of a test: on the CUDA simulator too, whose arrays are NumPy's (its times say nothing).
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numba import cuda

from pipeline.features.section import feature_set
from pipeline.indicators import ALL, Spec, plan_of, resolve, rows_of
from pipeline.recurrence import Series, arrays
from pipeline.recurrence.lanes import SHAPE, Batch, Shape, as_given, batches_of, run_lanes
from pipeline.recurrence.tiles import run_tiles
from tests.walks import flat, walk

SIMULATED = "simulator" in cuda.jit.__module__
PANELS = {"tiles": (2_700, 7_500), "long": (200, 98_000)}  # series, bars
TINY = {"tiles": (3, 70), "long": (1, 160)}
WALKS, REPEATS, CPU_THREADS = 20, 7, 2
ROLLING = {"sma": "mean", "deviation": "std", "highest_close": "max", "lowest_close": "min"}
ALONE = Shape(1, 64, (1, 1))  # one thread a block is what the simulator is quick at
Task = Callable[[], object]


def told(name: str, value: float, ours: float | None = None, peer: float | None = None, **more: Any) -> None:
    say(json.dumps({"name": f"gpu.{name}", "ours": ours, "peer": peer, "value": value, **more}))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Panel:
    """Hold the columns of a set over series of equal length, on the host and on the device."""

    def __init__(self, columns: Any, count: int, bars: int, xp: Any) -> None:
        self.columns, self.plan, self.xp = columns, plan_of(columns), xp
        few = min(count, WALKS)
        part, _ = flat([walk(bars, i, step=0.001 if bars > 50_000 else 0.02) for i in range(few)], rows_of(columns))
        each = part.reshape(len(part), few, bars)[:, np.arange(count) % few]
        self.host_CN = np.ascontiguousarray(each.reshape(len(part), count * bars))
        self.series = Series(np.arange(count) * bars, np.full(count, bars))
        self.src_CN = xp.asarray(self.host_CN)

    def out(self, dtype: Any, xp: Any | None = None) -> Any:
        return (xp or self.xp).zeros((self.plan.columns, self.host_CN.shape[1]), dtype)

    def bytes(self, size: int) -> int:
        return (8 * self.plan.inputs + size * self.plan.columns) * int(self.host_CN.shape[1])


def seconds(task: Task, xp: Any, repeats: int) -> float:
    """Return the median seconds of a task until the device is done, after a round that does not count."""
    taken = []
    for _ in range(repeats + 1):
        _done(xp)
        start = time.perf_counter()
        task()
        _done(xp)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def _done(xp: Any) -> None:
    if xp is not np:
        xp.cuda.Device().synchronize()


def copy_bandwidth(xp: Any, size: int) -> float:
    """Return bytes a second, read and written, of one array copied to another."""
    a, b = xp.ones(size // 8), xp.empty(size // 8)
    return 2 * a.nbytes / seconds(lambda: xp.copyto(b, a), xp, 5)


def speed(tiny: bool) -> int:
    xp = np if SIMULATED else arrays("cudf")
    repeats, shape = (1 if tiny else REPEATS), (ALONE if SIMULATED else SHAPE)
    bandwidth = copy_bandwidth(xp, 1 << (20 if tiny else 31))
    told("copy_bandwidth_bytes_per_s", bandwidth)
    for what, (count, bars) in (TINY if tiny else PANELS).items():
        end = "" if what == "tiles" else f"_{what}"
        panel = Panel(resolve(feature_set("bench30")), count, bars, xp)
        gpu = on_gpu(panel, end, None, bandwidth, repeats, shape)
        on_gpu(panel, f"{end}_uncut", 1, bandwidth, repeats, shape)
        cpu = on_cpu(panel, min(repeats, 3))
        told(f"indicators_vs_cpu{end}", cpu / gpu, gpu, cpu)
        del panel
    rolling(tiny, xp, repeats, shape)
    return 0


def on_gpu(panel: Panel, end: str, pieces: int | None, bandwidth: float, repeats: int, shape: Shape) -> float:
    """Time the whole way, and in, kernels and out alone; return the seconds of the whole way."""
    xp, src, out = panel.xp, panel.src_CN, panel.out(np.float32)

    def whole() -> None:
        run_lanes(panel.plan, src, panel.series, out, pieces=pieces, shape=shape)

    start = time.perf_counter()
    whole()
    _done(xp)
    took = {"first": time.perf_counter() - start, "columns": seconds(whole, xp, repeats)}
    batches = batches_of(panel.plan, panel.series, xp, pieces=pieces, shape=shape)
    streams = [cuda.stream() for _ in range(32)]
    given, taken = as_given(src), as_given(out)
    parts: dict[str, Callable[[Batch, int], None]] = {
        "in": lambda batch, begin: batch.load(given, begin, streams[0]),
        "kernels": lambda batch, begin: batch.step(begin, streams),
        "out": lambda batch, begin: batch.store(taken, begin, streams[0]),
    }
    for name, part in parts.items():
        took[name] = seconds(functools.partial(each_chunk, batches, part), xp, repeats)
    told(
        f"indicators_copy_share_tiles{end}", panel.bytes(8) / took["kernels"] / bandwidth, took["kernels"],
        panel.bytes(8) / bandwidth,
    )  # fmt: skip
    told(
        f"indicators_copy_share_cudf{end}", panel.bytes(4) / took["columns"] / bandwidth, took["columns"],
        panel.bytes(4) / bandwidth, bars=panel.host_CN.shape[1], seconds=took,
        launches=sum(len(batch.begins) * (len(batch.launches) + 2) for batch in batches),
        lanes=sum(batch.pieces.lengths.size * len(batch.passes) for batch in batches),
    )  # fmt: skip
    return took["columns"]


def each_chunk(batches: list[Batch], part: Callable[[Batch, int], None]) -> None:
    for batch in batches:
        for begin in batch.begins:
            part(batch, begin)


def on_cpu(panel: Panel, repeats: int) -> float:
    out = panel.out(np.float32, np)
    return seconds(lambda: run_tiles(panel.plan, panel.host_CN, panel.series, out, threads=CPU_THREADS), np, repeats)


def rolling(tiny: bool, xp: Any, repeats: int, shape: Shape) -> None:
    """Compare four columns with the built-in rolling of the frame library over the same groups."""
    count, bars = (TINY if tiny else PANELS)["tiles"]
    if not SIMULATED and importlib.util.find_spec("cudf") is None:
        told("indicators_vs_cudf_rolling", float("nan"), skipped="cudf is not installed")
        return
    if SIMULATED:
        frames: Any = pd
    else:
        import cudf as frames
    owners = {output.name: one for one in ALL for output in one.outputs}
    wanted = [Spec(indicator=owners[name].name, params={"n": 20}, outputs=(name,)) for name in ROLLING]
    panel = Panel(resolve(wanted), count, bars, xp)
    frame = frames.DataFrame({"symbol": xp.repeat(xp.arange(count), bars), "close": panel.src_CN[panel.plan.close]})
    grouped = frame.groupby("symbol")["close"].rolling(20)
    peer = seconds(lambda: [getattr(grouped, name)() for name in ROLLING.values()], xp, min(repeats, 3))
    out = panel.out(np.float64)
    ours = seconds(lambda: run_lanes(panel.plan, panel.src_CN, panel.series, out, shape=shape), xp, repeats)
    told("indicators_vs_cudf_rolling", peer / ours, ours, peer, columns=list(ROLLING.values()))


def parity(tiny: bool) -> int:
    """Print, for each indicator, how far the GPU is from the CPU: whole and cut, largest difference relative to the
    largest value of the column, and rows of which only one is NaN. Fail where cut or whole is beyond the tolerance.
    """
    xp = np if SIMULATED else arrays("cudf")
    shape = ALONE if SIMULATED else SHAPE
    lengths = (90, 40) if tiny else (8_000, 3_000, 500, 20, 1)
    walks, wrong = [walk(n, i) for i, n in enumerate(lengths)], []
    for one in ALL:
        columns = resolve([Spec(indicator=one.name)])
        plan = plan_of(columns)
        src_CN, series = flat(walks, rows_of(columns))
        expected = np.empty((plan.columns, src_CN.shape[1]))
        run_tiles(plan, src_CN, series, expected)
        line: dict[str, Any] = {"name": f"gpu.parity.{one.name}", "tolerance": one.tolerance}
        for name, pieces in (("whole", 1), ("cut", 4)):
            got = xp.empty(expected.shape)
            run_lanes(plan, xp.asarray(src_CN), series, got, pieces=pieces, shape=shape)
            back = got if xp is np else got.get()
            gap = np.nanmax(np.abs(back - expected), axis=1, initial=0.0)
            size = np.nanmax(np.abs(expected), axis=1, initial=0.0)
            line[name] = float(np.max(gap / np.maximum(size, np.finfo(float).tiny)))
            line[f"{name}_nan"] = int((np.isnan(back) != np.isnan(expected)).sum())
            if line[name] > one.tolerance or line[f"{name}_nan"]:
                wrong.append(f"{one.name} {name}")
        say(json.dumps(line))
    say(f"{len(ALL)} indicators, beyond their tolerance: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("speed", "parity"))
    parser.add_argument("--tiny", action="store_true", help="sizes of a test")
    words = parser.parse_args()
    raise SystemExit((parity if words.part == "parity" else speed)(words.tiny))
