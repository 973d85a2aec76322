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
import threading
import warnings
import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel as simulator
from pipeline.indicators import ALL, Spec, plan_of, resolve, rows_of
from pipeline.recurrence import Carry, Series
from pipeline.recurrence.lanes import Shape, run_lanes
from pipeline.recurrence.tiles import run_tiles
from tests.walks import coarse, flat, halted, walk

assert "simulator" in cuda.jit.__module__
# It polls its threads in a busy loop; waiting for them is many times quicker.
simulator.BlockThread.is_alive = lambda self: self.join(1e-3) or threading.Thread.is_alive(self)
warnings.simplefilter("ignore")
ONE, FOUR = Shape(1, 64, (1, 1)), Shape(3, 4, (2, 2))  # one thread a block is quick, several show who waits for whom
found = {}


def unequal(columns, a, b):
    return [c.name for c, x, y in zip(columns, a, b) if not np.array_equal(x, y, equal_nan=True)]


def apart(columns, whole, got):
    return [c.name for c, x, y in zip(columns, whole, got) if not np.array_equal(np.isnan(x), np.isnan(y))
            or np.nanmax(np.abs(x - y), initial=0) > c.indicator.tolerance * np.nanmax(np.abs(x), initial=0)]


small = [Spec(indicator="extremes", params={"n": 5}), Spec(indicator="ema", params={"n": 5}, over="close"),
         Spec(indicator="macd", over="close", outputs=("macd",))]
columns = resolve([Spec(indicator=one.name) for one in ALL] + small)
plan = plan_of(columns)
bars = [walk(45, 0), walk(1, 1), halted(walk(33, 2), 9, 28), halted(walk(18, 3), 0, 18)]
src, series = flat(bars, rows_of(columns))
out = np.full((3, len(columns), src.shape[1]), 3.0)
cpu, gpu = Carry.fresh(plan, 4), Carry.fresh(plan, 4)
run_tiles(plan, src, series, out[0], carry=cpu)
run_lanes(plan, src, series, out[1], carry=gpu, chunk=32, shape=ONE)
# cut in time, each series elsewhere; CPU and GPU take over from each other
rng, carry, at, turn = np.random.default_rng(0), Carry.fresh(plan, 4), np.zeros(4, np.int64), 0
while (at < series.lengths).any():
    step = np.minimum(rng.integers(0, 30, 4), series.lengths - at)
    driver, how = ((run_lanes, {"shape": ONE}), (run_tiles, {}))[turn % 2]
    driver(plan, src, Series(series.starts + at, step), out[2], carry=carry, **how)
    at, turn = at + step, turn + 1
found["kernels"] = len({p.kernel for p in plan.passes})
found["whole"], found["in turn"] = unequal(columns, out[0], out[1]), unequal(columns, out[0], out[2])
found["turns"] = turn
float32, halts = np.zeros((2, len(columns), src.shape[1]), np.float32), Series(series.starts[2:], series.lengths[2:])
run_tiles(plan, src, halts, float32[0])
run_lanes(plan, src, halts, float32[1], shape=ONE)
assert np.isnan(float32[0]).any() and (np.nan_to_num(float32[0]) != 0).sum() > 1000
found["float32"] = unequal(columns, *float32)
found["carry"] = [f"{name} {how}" for name in ("past_CHN", "own_QHN", "state_KN")
                  for how, got in (("whole", gpu), ("in turn", carry))
                  if getattr(cpu, name).tobytes() != getattr(got, name).tobytes()]

few = resolve(small)
plan = plan_of(few)
src, series = flat([walk(n, i) for i, n in enumerate((9, 30, 1, 0, 14, 26))], rows_of(few))
out = np.full((2, len(few), src.shape[1]), 3.0)
run_tiles(plan, src, series, out[0])
run_lanes(plan, src, series, out[1], chunk=11, shape=FOUR)
found["blocks of threads"] = unequal(few, *out)


def shortest(one):
    low = {p.name: max(p.low, 2.0) if p.whole else p.default for p in one.params}
    return low | {name: low[name] + i for i, name in enumerate(one.rising)}


columns = resolve([Spec(indicator=one.name, params=shortest(one)) for one in ALL])
plan = plan_of(columns)
bars = [walk(75, 0), walk(1, 1), coarse(walk(60, 2, step=0.003), 200.0), walk(0, 3), halted(walk(70, 4), 15, 60)]
src, series = flat(bars, rows_of(columns))
whole = np.full((len(columns), src.shape[1]), 3.0)
run_tiles(plan, src, series, whole)
for pieces in (2, 3, 5):
    got = np.full_like(whole, 3.0)
    run_lanes(plan, src, series, got, pieces=pieces, chunk=25 if pieces == 3 else None, shape=ONE)
    found[f"{pieces} pieces"] = apart(columns, whole, got)
    found[f"bits of {pieces} pieces"] = len(unequal(columns, whole, got))
# a carry of a cut run: its last pieces' state, good to go on from
carry, cut = Carry.fresh(plan, 5), series.lengths * 4 // 5
run_lanes(plan, src, Series(series.starts, cut), got, carry=carry, pieces=4, shape=ONE)
run_lanes(plan, src, Series(series.starts + cut, series.lengths - cut), got, carry=carry, shape=ONE)
found["goes on from pieces"] = apart(columns, whole, got)
once = Carry.fresh(plan, 5)
run_tiles(plan, src, series, got, carry=once)
counts = plan.table.meta[:, 2]
found["counts"] = bool(np.array_equal(once.state_KN[counts], carry.state_KN[counts])
                       and np.array_equal(once.past_CHN, carry.past_CHN))
print(json.dumps(found))
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


@pytest.mark.parametrize("what", ["whole", "in turn", "float32", "blocks of threads", "carry"])
def test_bits_are_those_of_the_cpu(simulated: dict[str, object], what: str) -> None:
    assert simulated[what] == [] and simulated["turns"]


@pytest.mark.parametrize("what", ["2 pieces", "3 pieces", "5 pieces", "goes on from pieces"])
def test_pieces_of_series_agree_within_tolerance(simulated: dict[str, object], what: str) -> None:
    assert simulated[what] == []


def test_pieces_were_cut(simulated: dict[str, object]) -> None:
    """Some bits differ, so that the test before saw pieces; the carry counts the bars of the whole series."""
    assert simulated["bits of 2 pieces"] and simulated["bits of 5 pieces"] and simulated["counts"]
