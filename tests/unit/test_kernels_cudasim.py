"""The GPU driver in Numba's CUDA simulator: every kernel, thread by thread, gives the bits of the CPU driver.

The simulator is chosen before Numba is imported, hence the subprocess. It proves typing of nothing and speed of
nothing, but it runs the launch, the lanes, the past rows, the carry and every line of the kernels. Compilation for a
real GPU and runs on one are other tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import numpy as np
from numba import cuda
from pipeline.indicators import ALL, Spec, plan_of, reads, resolve
from pipeline.recurrence import Carry, Series
from pipeline.recurrence.lanes import run_lanes
from pipeline.recurrence.tiles import run_tiles
from tests.walks import flat, walk

assert "simulator" in cuda.jit.__module__
small = [Spec(indicator="extremes", params={"n": 5}), Spec(indicator="ema", params={"n": 5}, over="close"),
         Spec(indicator="macd", over="close", outputs=("macd",))]
columns = resolve([Spec(indicator=one.name) for one in ALL] + small)
plan = plan_of(columns)
src, series = flat([walk(n, i) for i, n in enumerate((45, 1, 33, 18))], reads(columns))
quiet = np.errstate(all="ignore")


def unequal(a, b):
    return [c.name for c, x, y in zip(columns, a, b) if not np.array_equal(x, y, equal_nan=True)]


out = np.full((4, len(columns), src.shape[1]), 3.0)
cpu, gpu = Carry.fresh(plan, 4), Carry.fresh(plan, 4)
with quiet:
    run_tiles(plan, src, series, out[0], carry=cpu)
    run_lanes(plan, src, series, out[1], carry=gpu, chunk=32, threads=3)
    # cut in time, each series elsewhere; CPU and GPU take over from each other
    rng, carry, at, turn = np.random.default_rng(0), Carry.fresh(plan, 4), np.zeros(4, np.int64), 0
    while (at < series.lengths).any():
        step = np.minimum(rng.integers(0, 30, 4), series.lengths - at)
        driver = (run_lanes, run_tiles)[turn % 2]
        driver(plan, src, Series(series.starts + at, step), out[2], carry=carry)
        at, turn = at + step, turn + 1
    float32 = np.empty((2, len(columns), src.shape[1]), np.float32)
    run_tiles(plan, src, series, float32[0])
    run_lanes(plan, src, series, float32[1])
print(json.dumps({
    "columns": len(columns),
    "kernels": len({p.kernel for p in plan.passes}),
    "whole": unequal(out[0], out[1]),
    "pieces": unequal(out[0], out[2]),
    "float32": unequal(*float32),
    "state": bool(np.array_equal(cpu.state_KN, gpu.state_KN) and np.array_equal(cpu.past_CHN, gpu.past_CHN)),
    "state_of_pieces": bool(np.array_equal(cpu.state_KN, carry.state_KN)),
    "turns": turn,
}))
"""


@pytest.fixture(scope="module")
def simulated(root: Path) -> dict[str, object]:
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def test_every_kernel_ran(simulated: dict[str, object]) -> None:
    from pipeline.indicators import ALL

    assert simulated["kernels"] == len({one.kernel for one in ALL})


@pytest.mark.parametrize("what", ["whole", "pieces", "float32"])
def test_bits_are_those_of_the_cpu(simulated: dict[str, object], what: str) -> None:
    assert simulated[what] == []


def test_states_are_those_of_the_cpu(simulated: dict[str, object]) -> None:
    assert simulated["state"] and simulated["state_of_pieces"] and simulated["turns"]
