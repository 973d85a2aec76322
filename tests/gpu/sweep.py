"""Measure sweeps of one instrument on a GPU: `python -m tests.gpu.sweep speed | parity [--tiny]`, JSON lines to stdout.

speed : combinations a second at several sizes, columns computed and results brought back, on the GPU and on the cores
of the CPU, and the size from which the GPU wins. parity : how many combinations of each strategy differ from those of
the CPU, by what; one is a failure. --tiny runs the same code at sizes of a test: on the CUDA simulator too (its times
say nothing).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.backtest.single.chunks import Threads, evaluate, span
from pipeline.backtest.single.figures import Raw
from pipeline.backtest.single.forecast import cores
from pipeline.backtest.single.instrument import Instrument, instruments
from pipeline.backtest.single.lanes import BLOCK, CHUNK, Lanes
from pipeline.backtest.single.samples import Samples, in_order, samples
from pipeline.backtest.single.section import AccountSection
from pipeline.backtest.single.sweep import sweep
from pipeline.strategies import ALL, Strategy, wm_pattern
from tests.bench.sweep import BARS, fixed_grid, walk

from .indicators import SIMULATED, say, told

ACCOUNT = AccountSection(commission_bp=4, slippage_bp=4)
SIZES = (1_000, 100_000, 1_000_000, 10_000_000)
NAMED = 1_000_000  # the size of the target
CPU_SIZES = SIZES[:2]
DISTINCT = 100_000  # combinations that are drawn one by one; beyond, their real parameters are drawn anew
REAL = ("stop_atr", "trail_start_atr", "trail_atr")
FINE = ("15m", "30m", "1h")


def market(bars: int) -> Instrument:
    """Return the first bars of the benchmark's walk."""
    return instruments(walk().head(bars), ACCOUNT, venue="24h")[0]


def draws(strategy: Strategy, count: int) -> Samples:
    """Return combinations from all of a strategy's ranges, on bars of an hour at most."""
    rng, codes = np.random.default_rng(5), np.empty((0, len(strategy.parameters)))
    values = [[p.value(k) for k in range(p.count)] for p in strategy.parameters]
    axes = [[p.code(v) for v in of if not p.choices or v in FINE] for p, of in zip(strategy.parameters, values)]
    while len(codes) < count:
        more = np.stack([rng.choice(axis, count) for axis in axes], axis=1)
        codes = np.concatenate([codes, more[in_order(strategy, more)]])
    return Samples(strategy, np.ascontiguousarray(codes[:count]))


def grid(count: int) -> Samples:
    """Return so many combinations of the benchmark's fixed grid."""
    base = samples(wm_pattern, fixed_grid(min(count, DISTINCT)))
    if count <= DISTINCT:
        return base
    codes, rng = base.code_CP[np.arange(count) % DISTINCT], np.random.default_rng(4)
    for column, p in enumerate(wm_pattern.parameters):
        if p.name in REAL:
            codes[:, column] = rng.uniform(max(p.low, 0.5), p.high, count)
    return Samples(wm_pattern, codes)


def lanes(strategy: Strategy) -> Lanes:
    return Lanes(strategy, cores(), 1 if SIMULATED else BLOCK)


def evaluated(kind: Callable[[], Any], one: Instrument, chosen: Samples) -> float:
    """Return the seconds of all combinations on an executor that stands already."""
    over = [span(one, chosen.strategy)]
    with kind() as runs:
        begin = time.perf_counter()
        for _ in evaluate(runs, one, chosen, over, ACCOUNT.array()):
            pass
        return time.perf_counter() - begin


def speed(tiny: bool) -> int:
    one = market(300 if tiny else BARS)
    sizes = {size: size // 100_000 + 1 + k if tiny else size for k, size in enumerate(SIZES)}
    gpu, cpu = lambda: lanes(wm_pattern), lambda: Threads(wm_pattern, cores())
    for kind in (gpu, cpu):  # compiles
        evaluated(kind, one, grid(sizes[SIZES[0]]))
    took: dict[str, dict[int, float]] = {"gpu": {}, "cpu": {}}
    for size, count in sizes.items():
        chosen = grid(count)
        took["gpu"][size] = evaluated(gpu, one, chosen)
        rate, peer = count / took["gpu"][size], None
        if size in CPU_SIZES:
            took["cpu"][size] = evaluated(cpu, one, chosen)
            peer = count / took["cpu"][size]
        end = "" if size == NAMED else f"_{size}"
        told(f"sweep_combos_per_s{end}", rate, rate, peer, bars=len(one), count=count, cores=cores(), launch=CHUNK)
        if size == NAMED:
            begin = time.perf_counter()
            sweep([one], wm_pattern, chosen, account=ACCOUNT, executor="gpu", top=100, patience=1e9)
            whole = count / (time.perf_counter() - begin)
            told("sweep_ranked_combos_per_s", whole, whole, note="forecast, figures and ranking included")
    told("sweep_wins_from", wins_from(took["gpu"], took["cpu"]), cores=cores())
    return 0


def wins_from(gpu: dict[int, float], cpu: dict[int, float]) -> float:
    """Return the number of combinations from which the GPU is quicker: each side is taken as a start and a rate."""
    few, many = CPU_SIZES
    (start, each), (start_cpu, each_cpu) = (
        (took[few] - few * rate, rate) for took in (gpu, cpu) for rate in [(took[many] - took[few]) / (many - few)]
    )
    return max((start - start_cpu) / (each_cpu - each), 1.0) if each < each_cpu else float("inf")


def parity(tiny: bool) -> int:
    one, wrong = market(300 if tiny else BARS), 0
    for strategy in ALL:
        chosen = draws(strategy, 4 if tiny else 2_000)
        spans = [span(one, strategy, blocks=4), span(one, strategy, one.day_T[2], blocks=2)]
        got: list[list[Raw]] = []
        for kind in (lanes(strategy), Threads(strategy, cores())):
            with kind as runs:
                runs.chunk = 8_192  # the same cuts, so that rows lie alike
                parts = list(evaluate(runs, one, chosen, spans, ACCOUNT.array()))
            got.append([raw for _, raws in parts for raw in raws])
        apart = {name: sum(differ(a, b, name) for a, b in zip(*got)) for name in Raw._fields}
        trades = sum(int(raw.book_CB[:, 5].sum()) for raw in got[0])
        wrong += any(apart.values())
        told(f"sweep_parity_{strategy.name}", sum(apart.values()), combinations=len(chosen), trades=trades, **apart)
    say(f"{len(ALL)} strategies, {wrong} of them unlike the CPU")
    return int(wrong > 0)


def differ(a: Raw, b: Raw, name: str) -> int:
    """Return how many combinations differ in a bit."""
    x, y = (np.ascontiguousarray(getattr(raw, name)).reshape(len(raw.worst_C), -1).view(np.int64) for raw in (a, b))
    return int((x != y).any(axis=1).sum())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("speed", "parity"))
    parser.add_argument("--tiny", action="store_true", help="sizes of a test")
    words = parser.parse_args()
    sys.exit((parity if words.part == "parity" else speed)(words.tiny))
