"""The GPU sweep in Numba's CUDA simulator: every strategy, and random markets with every rule, give the bits of the
compiled CPU loop.

The simulator is chosen before Numba is imported, hence the subprocess. It proves typing of nothing and speed of
nothing: those are other tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.strategies import ALL

START = """
import json
import sys
import threading
import warnings
import numpy as np
from numba import cuda
from numba.cuda.simulator import kernel as simulator

assert "simulator" in cuda.jit.__module__
# It polls its threads in a busy loop; waiting for them is many times quicker.
simulator.BlockThread.is_alive = lambda self: self.join(1e-3) or threading.Thread.is_alive(self)
warnings.simplefilter("ignore")


def unequal(a, b):
    return [name for name in a._fields if getattr(a, name).tobytes() != getattr(b, name).tobytes()]


"""
STRATEGY = """
from pipeline.backtest.single.chunks import Threads, chunks, evaluate, span
from pipeline.backtest.single.lanes import Lanes
from pipeline.backtest.single.sweep import sweep
from pipeline.strategies import strategy_of
from tests.gpu.sweep import ACCOUNT, draws, market

strategy = strategy_of(sys.argv[1])
one, drawn = market(400 if strategy.trigger is None else 1_500), draws(strategy, 20)  # bars are left out
spans = [span(one, strategy, blocks=3), span(one, strategy, one.day_T[len(one) // 4], one.day_T[-50], blocks=2)]
with Threads(strategy, 2) as cpu:
    expected = list(evaluate(cpu, one, drawn, spans, ACCOUNT.array()))
found, heard = {"unequal": [], "trades": [0, 0]}, []
for size in (20, 7):
    with Lanes(strategy, 1, block=1) as gpu:
        gpu.chunk = size
        parts = list(evaluate(gpu, one, drawn, spans, ACCOUNT.array(), moved=heard.append))
    found[f"chunks of {size}"] = len(parts)
    for pick, raws in parts:
        whole, raws_of = expected[0]
        place = np.argsort(whole)[pick]
        for k, (a, b) in enumerate(zip(raws_of, raws)):
            found["unequal"] += unequal(type(a)(*(each[place] for each in a)), b)
            found["trades"][k] += int(b.book_CB[:, 5].sum())
found["heard"] = sum(heard)
found["wakes"] = all(chunk.wake_VT.size > 0 for chunk in chunks(one, drawn, 1 << 28, 1))
few = drawn.frame(slice(0, 3))
one_way, other = (sweep([one], strategy, few, account=ACCOUNT, executor=name) for name in ("thread", "gpu"))
found["sweep"] = bool(one_way.equals(other)) and len(other) == 3
print(json.dumps(found))
"""
SCRIPTED = """
from types import SimpleNamespace
from pipeline.backtest.single.chunks import Task
from pipeline.backtest.single.driver import runner
from pipeline.backtest.single.chunks import NOTHING
from pipeline.backtest.single.figures import Raw
from pipeline.backtest.single.lanes import Lanes
from tests.event_cases import COLUMNS, OPTIONS, random_case, scripted, wake

strategy = SimpleNamespace(step=scripted, columns=COLUMNS, parameters=("wait",))
found = {"unequal": [], "trades": [0, 0], "wakes": 0}
with Lanes(strategy, 1, block=3) as gpu:
    for seed in range(24):
        rng = np.random.default_rng(seed)
        options = {name: values[rng.integers(len(values))] for name, values in OPTIONS.items()}
        case = random_case(rng, 40, options)
        skip = case.trigger >= 0 and seed % 2 == 0
        at = np.stack([case.at, case.at[[0, 2, 1, 3, 4, 5, 6, 7]], case.at, case.at[[0, 1, 2, 4, 3, 5, 6, 7]]])
        task = Task(
            case.price_TC, case.flag_T, case.rule_TC, case.fact_TC, case.tick_RBC, case.block_T, case.x_UT, at,
            case.trigger, wake(case) if skip else np.zeros((1, 0), np.int32), np.zeros(4, np.int32),
            np.array([[1.0], [2.0], [3.0], [1.0]]), case.account, seed % 5, 40 - seed % 3,
        )
        expected = Raw.empty(4, case.blocks)
        runner(scripted)(*task, 0, 4, *expected, *NOTHING)
        got = gpu.run(task, case.blocks, lambda done: None)
        found["unequal"] += [f"{seed} {name}" for name in unequal(expected, got)]
        found["trades"][skip] += int(got.book_CB[:, 5].sum())
        found["wakes"] += int(skip)
print(json.dumps(found))
"""


def simulated(root: Path, script: str, *words: str) -> dict[str, Any]:
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", START + script, *words], env=env, cwd=root, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


@pytest.mark.parametrize("name", [one.name for one in ALL])
def test_a_strategy_has_the_bits_of_the_cpu(root: Path, name: str) -> None:
    """Book, moments and drawdowns over a whole and a part of the bars, in one chunk and in three."""
    found = simulated(root, STRATEGY, name)
    assert found["unequal"] == [] and found["sweep"]
    assert min(found["trades"]) > 10 and found["heard"] == 80
    assert (found["chunks of 20"], found["chunks of 7"]) == (1, 3)
    assert found["wakes"] == (next(one for one in ALL if one.name == name).trigger is not None)


def test_random_markets_have_the_bits_of_the_cpu(root: Path) -> None:
    """Ticks, limits, halts, actions, taxes, shorts and bad orders; with bars left out and without, in
    blocks of threads."""
    found = simulated(root, SCRIPTED)
    assert found["unequal"] == [] and min(found["trades"]) > 50 and found["wakes"] > 3
