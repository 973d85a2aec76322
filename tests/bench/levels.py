"""The thirty columns at each value of features.level, and in a loop over TA-Lib: seconds, for information.

Bars lie in memory as a frame (on the workers at dask, on the device at cuda) and columns stay where they are made.
Every level is checked against the kernels on one thread.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.cluster import Cluster, ClusterSection, gpu_count
from pipeline.indicators import compute
from tests.peers import talib30
from tests.walks import Array, frame, walk

from .indicators import INPUTS, SET, THREADS, Task, error, timed
from .measure import Measure

SYMBOLS, BARS, PARTS, REPEATS = 500, 1_260, 8, 5
TOLERANCE = 1e-9


class Way(NamedTuple):
    """Name a way to the columns, with what brings them here as (columns, rows)."""

    name: str
    task: Task
    brought: Callable[[Any], Array]
    hides: bool = False  # may be NaN where others know


def run() -> Iterator[Measure]:
    bars = frame({f"{i:06d}": walk(BARS, i) for i in range(SYMBOLS)})
    expected = _here(_columns(bars))
    with ExitStack() as stack:
        ways = list(_ways(bars, stack))
        worst = {way.name: _checked(way, expected) for way in ways}
        for name, seconds in timed({way.name: way.task for way in ways}, REPEATS).items():
            note = f"differs by at most {worst[name]:.2g}"
            yield Measure(f"indicators.level_{name}_s", seconds, seconds, note=note)


def _ways(bars: pd.DataFrame, stack: ExitStack) -> Iterator[Way]:
    for level in ("pandas", "polars"):
        if importlib.util.find_spec(level):
            yield Way(level, lambda level=level: _columns(bars, level=level), _here)
    yield Way("numba_1_thread", lambda: _columns(bars), _here)
    yield Way(f"numba_{THREADS}_threads", lambda: _columns(bars, threads=THREADS), _here)
    client = stack.enter_context(Cluster(ClusterSection(device="cpu", max_workers=1, threads=THREADS))).client()
    yield Way("dask", _on_workers(client, bars), lambda found: _here(pd.concat(client.gather(found))))
    if gpu_count() and importlib.util.find_spec("cudf"):
        import cudf

        there = cudf.DataFrame.from_pandas(bars)
        yield Way("cuda", lambda: _on_gpu(there), lambda found: _here(found.to_pandas()))
    if importlib.util.find_spec("talib"):
        each = [{name: part[name].to_numpy() for name in INPUTS} for _, part in bars.groupby("symbol")]
        yield Way(
            "talib_loop", lambda: [talib30(one) for one in each], lambda found: np.concatenate(found, axis=1), True
        )


def _columns(bars: Any, **how: Any) -> Any:
    return compute(bars, SET, dtype=np.float64, **how)


def _here(found: pd.DataFrame) -> Array:
    return found.to_numpy().T


def _on_workers(client: Any, bars: pd.DataFrame) -> Task:
    """Return what computes the parts of a frame on the workers that hold them."""
    from distributed import wait

    edges = np.linspace(0, SYMBOLS, PARTS + 1).astype(int) * BARS
    parts = client.scatter([bars.iloc[a:b] for a, b in itertools.pairwise(edges)])

    def task() -> Any:
        futures = client.map(compute, parts, specs=SET, dtype=np.float64, pure=False)
        wait(futures)
        return futures

    return task


def _on_gpu(bars: Any) -> Any:
    import cupy

    found = _columns(bars)
    cupy.cuda.Device().synchronize()
    return found


def _checked(way: Way, expected_ON: Array) -> float:
    """Return by how much a way differs, see error. Raises RuntimeError beyond the tolerance."""
    found_ON = way.brought(way.task())
    worst = error(found_ON, expected_ON)
    unknown = np.isnan(found_ON) != np.isnan(expected_ON)
    if not worst <= TOLERANCE or (unknown.any() and not way.hides):
        raise RuntimeError(
            f"expected {way.name} to differ by at most {TOLERANCE:g} from the kernels, got {worst:g} and "
            f"{np.count_nonzero(unknown)} values that only one of them knows"
        )
    return worst
