"""Sweeps of one strategy over one symbol: the fixed grid from a frame of bars, beside vectorbt, beside process pools,
without sharing columns, in the meta-optimiser, and a million combinations within bounded memory.

The symbol trades around the clock: 12,000 bars of 15 minutes, from which those of 30 minutes, 1 and 4 hours are
derived. Both sides are timed in turn. A pool gets an instrument that is laid out already, and its time begins when its
processes run, as that of the threads and of the processes over shared memory does.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.backtest.single.chunks import Threads, evaluate, span
from pipeline.backtest.single.event import TRADED
from pipeline.backtest.single.instrument import Instrument, instruments
from pipeline.backtest.single.meta import optimize
from pipeline.backtest.single.processes import Processes
from pipeline.backtest.single.run import run as traded
from pipeline.backtest.single.samples import Samples, samples
from pipeline.backtest.single.section import AccountSection, MetaSection
from pipeline.backtest.single.sweep import sweep
from pipeline.indicators import compute
from pipeline.strategies import wm_pattern

from .measure import Measure

ROOT = Path(__file__).resolve().parents[2]
BARS, COMBINATIONS, MILLION, TOP = 12_000, 1_000, 1_000_000, 100
THREADS, TURNS = 2, 9
ACCOUNT = AccountSection(direction="both", commission_bp=4, slippage_bp=4)
FEES = 0.0008  # what both cost together, for vectorbt
GIVEN = 400  # combinations whose signals vectorbt gets
PER_TASK = {"pickled_pool": (1, 40), "batched_process": (10, 200)}  # combinations of a task, and of a turn
ALONE = 100  # combinations that compute their own columns
RANGES = {"pattern_timeframe": ["1h"], "entry_timeframe": ["15m", "30m"], "filter_timeframe": ["1h", "4h"]}
PEER = "BENCH_VECTORBT"
# Reads bars, entries and stops, says which engines it has, then for each line with an engine and a number of columns
# runs all combinations, so many at once, and says the seconds of the simulation, of it with four metrics, and how many
# trades there were. Entries fill at the open of their bar, as they do here. A stop is an ATR distance that trails from
# the start: vectorbt cannot begin to trail later, nor at another distance.
VECTORBT = """
import sys, time
import numpy as np, pandas as pd, vectorbt
from vectorbt._engine import is_rust_available
folder, fees = sys.argv[1], float(sys.argv[2])
bars, long, short, stop = (np.load(f"{folder}/{name}.npy") for name in ("bars", "long", "short", "stop"))
index = pd.date_range("2025-01-01", periods=len(bars), freq="15min")
opens, high, low, close = (pd.Series(column, index) for column in bars.T)
print("numba rust" if is_rust_available() else "numba", flush=True)
for line in sys.stdin:
    engine, size = line.split()
    simulated = measured = trades = 0
    for at in range(0, long.shape[1], int(size)):
        one = slice(at, at + int(size))
        columns = [np.ascontiguousarray(array[:, one]) for array in (long, short, stop)]
        begin = time.perf_counter()
        found = vectorbt.Portfolio.from_signals(
            close, columns[0], False, short_entries=columns[1], short_exits=False, price=opens, open=opens, high=high,
            low=low, sl_stop=columns[2], sl_trail=True, stop_entry_price="fillprice", upon_opposite_entry="ignore",
            fees=fees, init_cash=1e8, freq="15min", engine=engine,
        )
        simulated += time.perf_counter() - begin
        found.total_return(), found.max_drawdown(), found.trades.win_rate(), found.sharpe_ratio()
        measured += time.perf_counter() - begin
        trades += int(np.sum(found.trades.count()))
    print(simulated, measured, trades, flush=True)
"""


def walk() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    close = 50_000 * np.exp(np.cumsum(rng.normal(0, 0.003, BARS)))
    opens = np.append(50_000, close[:-1])
    high = np.maximum(opens, close) * (1 + np.abs(rng.normal(0, 0.001, BARS)))
    low = np.minimum(opens, close) * (1 - np.abs(rng.normal(0, 0.001, BARS)))
    ts = pd.date_range("2025-01-01 00:15", periods=BARS, freq="15min", unit="us")
    columns = {"ts": ts, "open": opens, "high": high, "low": low, "close": close, "volume": 1e6}
    return pd.DataFrame({"symbol": "WALK", **columns})


def fixed_grid(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    columns = {
        "fast": rng.choice([6, 8, 10, 12, 14], count),
        "slow": rng.choice([20, 24, 26, 30, 36], count),
        "signal": rng.choice([5, 7, 9, 12], count),
        "rsi": rng.choice([7, 9, 11, 14, 17, 21], count),
        "atr": rng.choice([7, 10, 14, 20], count),
        "stop_atr": rng.uniform(1, 4, count),
        "trail_start_atr": rng.uniform(0.5, 3, count),
        "trail_atr": rng.uniform(0.5, 3, count),
        "filter_timeframe": rng.choice(["1h", "4h"], count),
        "filter_ema": rng.choice([20, 50, 100], count),
        "entry_timeframe": rng.choice(["15m", "30m"], count),
    }
    return pd.DataFrame(columns)


def swept(bars: Any, combinations: Any, **options: Any) -> pd.DataFrame:
    return sweep(bars, wm_pattern, combinations, account=ACCOUNT, venue="24h", workers=THREADS, **options)


def seconds(task: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    task()
    return time.perf_counter() - begin


def beside_vectorbt(bars: pd.DataFrame) -> Iterator[Measure]:
    """Sweep the fixed grid, in turn with vectorbt, which is told at which bars our engine enters: it computes no
    indicator. Its rate is that of the engine and the number of columns at once that are the fastest here.
    """
    grid = fixed_grid(COMBINATIONS)

    def ours() -> tuple[float, float]:
        cpu = time.process_time()
        taken = seconds(lambda: swept(bars, grid))
        return COMBINATIONS / taken, COMBINATIONS / (time.process_time() - cpu)

    ours()
    python = os.environ.get(PEER)
    if not python:
        yield (measure := combos([ours() for _ in range(TURNS)]))
        for name in ("sim", "metrics"):
            yield Measure(
                f"sweep.vs_vectorbt_{name}", 0.0, measure.ours, None, f"{PEER} names no python that has vectorbt"
            )
        return
    with tempfile.TemporaryDirectory() as folder:
        trades = entries(Path(folder), bars, grid[:GIVEN])
        command = [python, "-c", VECTORBT, folder, str(FEES)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            yield from compared(ours, peer, trades)


def combos(rates: list[tuple[float, float]]) -> Measure:
    """Return the median rate; one by CPU time says what neighbours on the machine took away."""
    rate = statistics.median(wall for wall, _ in rates)
    by_cpu = statistics.median(cpu for _, cpu in rates)
    fastest = max(wall for wall, _ in rates)
    note = f"fastest {fastest:,.0f}/s; {by_cpu:,.0f} in a second of CPU time, of which {THREADS} threads have {THREADS}"
    return Measure("sweep.combos_per_s", rate, rate, None, note)


def entries(folder: Path, bars: pd.DataFrame, grid: pd.DataFrame) -> int:
    """Write bars (T, 4), the entries that our engine made and the stops (T, C); return how many entries there are."""
    found = instruments(bars, ACCOUNT, venue="24h")
    lengths = sorted(set(grid["atr"]))
    atr = compute(bars, [{"indicator": "atr", "params": {"n": n}, "outputs": ["atr"]} for n in lengths])
    long, short = np.zeros((2, BARS, len(grid)), bool)
    stop = np.empty((BARS, len(grid)))
    for c, values in enumerate(grid.to_dict("records")):
        trades = traded(found, wm_pattern, values, account=ACCOUNT).trades
        for side, array in (("long", long), ("short", short)):
            array[trades["entry"][trades["side"] == side], c] = True
        stop[:, c] = values["stop_atr"] * atr[f"atr_{values['atr']}"].shift(1) / bars["open"]
    np.save(folder / "bars.npy", bars[["open", "high", "low", "close"]].to_numpy())
    for name, array in (("long", long), ("short", short), ("stop", np.nan_to_num(stop, nan=np.inf))):
        np.save(folder / f"{name}.npy", array)
    return int(long.sum() + short.sum())


def compared(ours: Callable[[], tuple[float, float]], peer: subprocess.Popen[str], entered: int) -> Iterator[Measure]:
    assert peer.stdin is not None and peer.stdout is not None
    engines = peer.stdout.readline().split()
    if not engines:
        raise RuntimeError(f"expected vectorbt's engines from the python of {PEER}, got none; does it import there?")
    ways = list(itertools.product(engines, (25, 100, GIVEN)))
    mine: list[tuple[float, float]] = []
    rates: dict[Any, list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(TURNS + 1):
        mine.append(ours())
        for engine, size in ways:
            print(engine, size, file=peer.stdin, flush=True)
            simulated, measured, trades = peer.stdout.readline().split()
            # It may miss an entry while its own stop still holds the trade before.
            if not 0.5 * entered < int(trades) <= entered:
                raise RuntimeError(f"expected about {entered:,} trades from vectorbt, got {trades}")
            rates[engine, size].append((GIVEN / float(simulated), GIVEN / float(measured)))
        if turn == 0:  # compiles; then three turns choose
            rates = {way: [] for way in ways}
            mine.clear()
        elif turn == 3:
            ways = [max(ways, key=lambda way: statistics.median(r[k] for r in rates[way])) for k in (0, 1)]
    peer.stdin.close()
    yield (measure := combos(mine))
    for k, name in enumerate(("sim", "metrics")):
        theirs = {way: statistics.median(r[k] for r in each) for way, each in rates.items()}
        best = ways[k]
        told = ", ".join(
            f"{engine} {max(r for way, r in theirs.items() if way[0] == engine):,.0f}/s" for engine in engines
        )
        note = f"vectorbt at its best {told}; {best[0]} with {best[1]} columns at once is compared"
        yield Measure(f"sweep.vs_vectorbt_{name}", measure.ours / theirs[best], measure.ours, theirs[best], note)


def evaluated(runs: Any, instrument: Instrument, chosen: Samples) -> int:
    """Trade combinations on threads or processes that run already; return the trades."""
    over = span(instrument, wm_pattern)
    found = evaluate(runs, instrument, chosen, [over], ACCOUNT.array())
    return sum(int(raw.book_CB[:, TRADED].sum()) for _, (raw,) in found)


def task(instrument: Instrument, chosen: Samples) -> int:
    """What a process of a pool does with what was pickled for it: the same columns and the same loop."""
    with Threads(wm_pattern, 1) as runs:
        return evaluated(runs, instrument, chosen)


def cut(chosen: Samples, size: int, count: int) -> list[Samples]:
    return [Samples(wm_pattern, chosen.code_CP[low : low + size]) for low in range(0, count, size)]


def beside_processes(instrument: Instrument) -> Iterator[Measure]:
    """Compare threads that share everything with two pools, with processes over shared memory, and with themselves when
    every combination computes its own columns. All made the same trades.
    """
    chosen = samples(wm_pattern, fixed_grid(COMBINATIONS))
    context = multiprocessing.get_context("forkserver")
    begin = time.perf_counter()
    with (
        Threads(wm_pattern, THREADS) as threads,
        Threads(wm_pattern, 1) as single,
        Processes(wm_pattern, THREADS) as shared,
        ProcessPoolExecutor(THREADS, mp_context=context) as pool,
        ThreadPoolExecutor(THREADS) as own,
    ):
        ways: dict[str, tuple[int, Callable[[int], int]]] = {
            "threads": (COMBINATIONS, lambda n: evaluated(threads, instrument, chosen)),
            "shared_memory": (COMBINATIONS, lambda n: evaluated(shared, instrument, chosen)),
            "own": (ALONE, lambda n: sum(own.map(lambda c: evaluated(single, instrument, c), cut(chosen, 1, n)))),
        }
        for name, (size, count) in PER_TASK.items():
            ways[name] = (
                count,
                lambda n, size=size: sum(pool.map(task, [instrument] * -(-n // size), cut(chosen, size, n))),  # type: ignore[misc]
            )
        trades = {count: evaluated(threads, instrument, cut(chosen, count, count)[0]) for count, _ in ways.values()}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(TURNS // 2 + 1):
            for name, (count, way) in ways.items():
                start = time.perf_counter()
                if (got := way(count)) != trades[count]:
                    raise RuntimeError(f"expected {trades[count]:,} trades of {name}, got {got:,}")
                rates[name].append(count / (time.perf_counter() - start))
            if turn == 0:
                started = time.perf_counter() - begin
    rate = {name: statistics.median(each[1:]) for name, each in rates.items()}
    for name in (*PER_TASK, "shared_memory"):
        note = (
            f"{started:.1f} s until all processes had run once, which do not count" if name == "shared_memory" else ""
        )
        yield Measure(f"sweep.vs_{name}", rate["threads"] / rate[name], rate["threads"], rate[name], note)
    yield Measure("sweep.dedup_gain", rate["threads"] / rate["own"], rate["threads"], rate["own"])


def meta(bars: pd.DataFrame) -> Measure:
    """Search with three iterations of a thousand samples, from a frame of bars to the judgement of the best."""
    section = MetaSection(samples=1_000, iterations=3, gain=0)

    def search() -> int:
        found = optimize(bars, wm_pattern, section, ranges=RANGES, account=ACCOUNT, venue="24h", workers=THREADS)
        return len(found.score_C)

    if (count := search()) != 3_000:
        raise RuntimeError(f"expected three iterations of 1,000 samples, got {count:,} samples")
    took = [seconds(search) for _ in range(TURNS // 2)]
    return Measure(
        "sweep.meta_3x1000_s", statistics.median(took), statistics.median(took), None, f"fastest {min(took):.2f}"
    )


def million(count: int, parts: int = 10) -> Iterator[str]:
    """Sweep combinations and say the peak of the memory of this process in MB, then prove the best ones by the sorted
    whole result, made in parts.
    """
    bars, grid = walk(), fixed_grid(count)
    best = swept(bars, grid, top=TOP)
    yield str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
    near = []
    for part in np.array_split(np.arange(count), parts):
        whole = swept(bars, grid.iloc[part])
        near.append(whole[whole["sharpe"] >= whole["sharpe"].nlargest(TOP).min()])
    names = [p.name for p in wm_pattern.parameters]  # equal ones by their parameters; words stand in order here
    order = pd.concat(near).sort_values(["sharpe", *names], ascending=[False, *[True] * len(names)])
    pd.testing.assert_frame_equal(best, order.head(TOP).reset_index(drop=True), check_exact=True)
    yield "exact"


def memory() -> Measure:
    start = time.perf_counter()
    fresh = f"from tests.bench.sweep import million\nfor line in million({MILLION}):\n    print(line, flush=True)"
    command = [sys.executable, "-c", fresh]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - start
        exact = process.stdout.readline().strip() == "exact"
    if not exact:
        raise RuntimeError(f"expected the best {TOP} of a million as in the sorted whole result, got others; see above")
    return Measure("sweep.million_peak_mb", float(line), float(line), None, f"{taken:.0f} s; its best {TOP} are exact")


def run() -> Iterator[Measure]:
    bars = walk()
    yield from beside_vectorbt(bars)
    yield from beside_processes(instruments(bars, ACCOUNT, venue="24h")[0])
    yield meta(bars)
    yield memory()
