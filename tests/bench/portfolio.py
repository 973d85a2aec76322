"""Factor backtests from bars in memory, and the engine's orders beside those of vectorbt.

The factor backtest begins with a table of bars and ends with the report's numbers: what could be traded at which price
(limits, ticks, halts, taxes), four factors, a portfolio of each of their ten quantiles, rebalanced at the end of each
month, with all costs. vectorbt needs another Numba than this project, so it runs in a process of its own:
BENCH_VECTORBT names the python of an environment that has it. It is given the engine's orders and times itself.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import krx
from pipeline.backtest.analysis.study import study
from pipeline.backtest.portfolio.factors import CLASSIC
from pipeline.backtest.portfolio.kernel import COLUMNS, Ledger, simulate
from pipeline.backtest.portfolio.market import UNLIMITED
from pipeline.backtest.portfolio.orders import BUY
from pipeline.backtest.section import BacktestSection
from pipeline.receipt import Receipt
from storage.schema import ACTIONS, BARS, SYMBOLS

from .measure import Measure

STOCKS, SESSIONS = 2_000, (252, 1_260)
ORDERS = 1_000  # sessions and symbols
FEE_BP = 1.5
THREADS, REPEATS, TURNS = 2, 5, 15
PEER = "BENCH_VECTORBT"
PATIENCE = 300  # seconds for all of vectorbt's turns, which take ten where its code is compiled
# Reads arrays, says which engines it has, then simulates once for each line with the name of one.
VECTORBT = """
import sys, time
import numpy as np, pandas as pd, vectorbt
from vectorbt._engine import is_rust_available
folder, cash, fees = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
price, size = (np.load(f"{folder}/{name}.npy") for name in ("price", "size"))
print("numba rust" if is_rust_available() else "numba", flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    found = vectorbt.Portfolio.from_orders(
        price, size, price=price, fees=fees, init_cash=cash, group_by=True, cash_sharing=True, engine=line.strip()
    )
    taken = time.perf_counter() - begin
    print(taken, len(found.order_records), float(np.asarray(found.final_value()).item()), flush=True)
"""


class Held(Receipt):
    """A receipt whose bars are in memory."""

    table: Any

    def bars(self, interval: str, **asked: Any) -> pa.Table:
        return self.table.select(asked["columns"])

    def actions(self) -> pa.Table:
        return ACTIONS.empty_table()

    def symbol_table(self) -> pa.Table:
        return SYMBOLS.empty_table()


def panel(sessions: int) -> Held:
    """Return random walks with prices on their ticks."""
    rng = np.random.default_rng(0)
    days = krx.sessions("2018-01-02", "2023-12-28")[:sessions]
    steps = np.clip(rng.normal(0.0003, 0.02, (STOCKS, sessions)), -0.2, 0.2)
    close = np.exp(np.cumsum(steps, axis=1)) * np.exp(rng.uniform(np.log(2e3), np.log(3e5), (STOCKS, 1)))
    opens = np.concatenate([close[:, :1], close[:, :-1]], axis=1) * np.exp(rng.normal(0, 0.003, close.shape))
    close, opens = (np.rint(x / krx.tick(x, days)) * krx.tick(x, days) for x in (close, opens))
    symbols = [f"{i:05d}0" for i in range(1, STOCKS + 1)]
    columns = {
        "symbol": pa.array(np.repeat(np.array(symbols, object), sessions), pa.string()),
        "ts": pa.array(np.tile(krx.session_closes(days), STOCKS), pa.timestamp("us")).cast(BARS.field("ts").type),
        "open": opens.ravel(),
        "close": close.ravel(),
        "volume": np.rint(rng.lognormal(12, 1, close.size)),
    }
    none: dict[str, Any] = {"rows": {}, "digests": {}, "versions": {}, "quarantined": {}}
    return Held(
        lake="", source="bench", venue="KRX", market="KRX", intervals=("1d",), symbols=tuple(symbols),
        start=days[0].item(), end=days[-1].item(), close_only=False, table=pa.table(columns), **none,
    )  # fmt: skip


def factors(sessions: int) -> Measure:
    receipt, section = panel(sessions), BacktestSection(capital=10_000_000_000, rebalance="monthly")
    first = datetime.combine(receipt.start, datetime.min.time(), UTC)
    times, cpu = [], []
    for _ in range(REPEATS + 1):
        begin, used = time.perf_counter(), time.process_time()
        found = study(receipt, CLASSIC, section, first, threads=THREADS)
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
    traded = [one["trades"] for each in found.values() for one in each.portfolios]
    if len(traded) != len(CLASSIC) * 10 or not all(traded):
        raise RuntimeError(f"expected ten portfolios with trades of each factor, got trades {traded}")
    took = statistics.median(times[1:])
    note = (
        f"{len(traded)} portfolios, {sum(traded):,} orders, fastest {min(times[1:]):.3f} s; "
        f"{statistics.median(cpu[1:]):.3f} s of CPU time on {THREADS} threads"
    )
    return Measure(f"portfolio.factor_{sessions}_s", took, took, None, note)


def orders() -> Iterator[Measure]:
    """Compare the time of an order: as many of them, at the same prices and with the same fees."""
    rng = np.random.default_rng(0)
    shape = (ORDERS + 1, ORDERS)  # the first session only decides
    price = np.rint(np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0)) * 10_000) + 10.0
    turn = (np.arange(shape[0])[:, None] + np.arange(shape[1])) % 2
    market = {
        **dict.fromkeys(("buy_TS", "sell_TS", "close_TS"), price),
        "room_TS": np.full(shape, UNLIMITED),
        "factor_TS": np.ones(shape),
        "tax_TS": np.zeros(shape, np.int64),
        "weight_TS": np.where(turn == 0, 0.8, 0.2) / ORDERS,
        "order_TS": np.tile(np.arange(ORDERS, dtype=np.int32), (shape[0], 1)),
        **dict.fromkeys(("decide_T", "shortable_T"), np.ones(shape[0], bool)),
        "nights_T": np.ones(shape[0], np.int64),
        "delist_S": np.full(ORDERS, UNLIMITED),
        "last_S": np.full(ORDERS, np.nan),
        "capital": 10**12,
        "commission_rate": round(FEE_BP * 1000),
        "borrow_rate": 0,
    }

    def ours() -> tuple[float, Ledger]:
        begin = time.perf_counter()
        ledger = simulate(**market)
        return time.perf_counter() - begin, ledger

    ledger = ours()[1]
    rows = ledger.trades_NC
    if len(rows) != ORDERS * ORDERS:
        raise RuntimeError(f"expected {ORDERS * ORDERS:,} orders, got {len(rows):,}")
    t, s, side, shares = (rows[:, COLUMNS.index(name)] for name in ("t", "s", "side", "shares"))
    size = np.full(shape, np.nan)
    size[t, s] = np.where(side == BUY, shares, -shares)
    python = os.environ.get(PEER)
    if not python:
        mine = statistics.median(ours()[0] for _ in range(TURNS)) / len(rows)
        why = f"not compared: {PEER} names no python that has vectorbt"
        yield Measure("portfolio.orders_vs_vectorbt", 0.0, mine, None, why)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("price", price[1:]), ("size", size[1:])):
            np.save(Path(folder) / f"{name}.npy", array)
        command = [python, "-c", VECTORBT, folder, str(market["capital"]), str(FEE_BP / 10_000)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            watch = threading.Timer(PATIENCE, peer.kill)
            watch.start()
            try:
                measure = compared(ours, peer, ledger)
            finally:
                watch.cancel()
                peer.kill()
    yield measure


def answer(peer: subprocess.Popen[str]) -> list[str]:
    assert peer.stdout is not None
    words = peer.stdout.readline().split()
    if not words:
        raise RuntimeError(
            f"expected an answer of vectorbt from the python of {PEER}, got none in {PATIENCE} s or before it ended; "
            "does it import there?"
        )
    return words


def compared(ours: Any, peer: subprocess.Popen[str], ledger: Ledger) -> Measure:
    assert peer.stdin is not None
    engines = answer(peer)
    times: dict[str, list[float]] = {name: [] for name in ("ours", *engines)}
    many = len(ledger.trades_NC)
    for _ in range(TURNS + 1):
        times["ours"].append(ours()[0])
        for engine in engines:
            print(engine, file=peer.stdin, flush=True)
            taken, orders, value = answer(peer)
            # Fees are cut to whole won here and not there: at most a won an order.
            if int(orders) != many or not 0 <= float(ledger.equity_T[-1]) - float(value) <= many:
                raise RuntimeError(
                    f"expected {many:,} orders and {ledger.equity_T[-1]:,} KRW, got {orders} and {value}"
                )
            times[engine].append(float(taken))
    peer.stdin.close()
    took = {name: statistics.median(found[1:]) / many for name, found in times.items()}
    best = min(engines, key=took.__getitem__)
    note = ", ".join(f"{name} {seconds * 1e9:.0f} ns an order" for name, seconds in took.items())
    return Measure("portfolio.orders_vs_vectorbt", took[best] / took["ours"], took["ours"], took[best], note)


def run() -> Iterator[Measure]:
    yield from map(factors, SESSIONS)
    yield from orders()
