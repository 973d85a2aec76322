"""The lake's files: minute bars of the simulated market, written and read through the lake."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import krx
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.universe import listing
from storage.lake import Lake, group_of
from storage.schema import BARS

from .measure import Measure

SEED = 7
GROUPS = (0, 1)
SYMBOLS = 170  # a group: 2,700 / 16
MONTHS = ((date(2024, 4, 1), date(2024, 4, 30)), (date(2024, 5, 1), date(2024, 5, 31)))  # 21 sessions each
COLUMNS = ("symbol", "ts", "open", "high", "low", "close", "volume", "turnover")
WRITES, READS, SINGLES = 5, 11, 21


def names() -> list[str]:
    """Return the first symbols of each group that were listed all through the months."""
    out: dict[int, list[str]] = {group: [] for group in GROUPS}
    number = 0
    while any(len(found) < SYMBOLS for found in out.values()):
        item, number = listing(SEED, number), number + 1
        listed = item.listed < MONTHS[0][0] and (item.delisted is None or item.delisted > MONTHS[-1][1])
        found = out.get(group_of(item.symbol, "1m"), [])
        if listed and len(found) < SYMBOLS:
            found.append(item.symbol)
    return sorted(symbol for found in out.values() for symbol in found)


def minutes(symbols: list[str]) -> pa.Table:
    """Return all minute bars of some symbols, as an ingest hands them to the lake: symbol by symbol, oldest first."""
    market, tables = Market(SEED, 5_000), []
    for symbol in symbols:
        for day in krx.sessions(MONTHS[0][0], MONTHS[-1][1]):
            rows = market.minutes(symbol, day.astype("datetime64[D]").item())
            if count := len(rows["end"]):
                text = {"symbol": symbol, "venue": "KRX", "interval": "1m", "source": "kis"}
                columns = {name: pa.repeat(value, count) for name, value in text.items()}
                columns |= {name: pa.array(rows[name]) for name in COLUMNS[2:]}
                stamp = np.datetime64(day.astype("datetime64[D]"), "us") + np.timedelta64(9, "h")
                columns |= {"ts": pa.array(rows["end"]), "ingested_at": pa.array(np.full(count, stamp))}
                tables.append(pa.table([columns[n].cast(BARS.field(n).type) for n in BARS.names], schema=BARS))
    return pa.concat_tables(tables).combine_chunks()


def market() -> pa.Table:
    """Return the minute bars of all four partitions, made on two cores."""
    symbols = names()
    half = len(symbols) // 2
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return pa.concat_tables(pool.map(minutes, [symbols[:half], symbols[half:]])).combine_chunks()


def seconds(task: Callable[[], object], repeats: int) -> float:
    """Return the median time of a task that has run once before."""
    task()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run() -> Iterator[Measure]:
    table = market()
    symbol = sorted(s for s in names() if group_of(s, "1m") == GROUPS[0])[SYMBOLS // 2]
    month = {"start": krx.session_open(MONTHS[0][0]), "end": krx.session_close(MONTHS[0][1])}
    with tempfile.TemporaryDirectory() as folder:
        writes = []
        for number in range(WRITES):
            lake = Lake(Path(folder) / str(number))
            start = time.perf_counter()
            written = lake.write("bars", table)
            writes.append(table.num_rows / (time.perf_counter() - start))
            if written != table.num_rows:
                raise RuntimeError(f"expected {table.num_rows} rows in the lake, got {written}")
        files = list((lake.path / "bars").rglob("part-*.parquet"))
        if len(files) != len(GROUPS) * len(MONTHS):
            raise RuntimeError(f"expected a file for each of four partitions, got {len(files)}")
        size = sum(file.stat().st_size for file in files) / table.num_rows
        yield Measure("parquet.bytes_per_row", size, size)
        yield Measure("parquet.write_rows_per_s", statistics.median(writes), statistics.median(writes))
        rate = table.num_rows / seconds(lambda: lake.read("bars", columns=COLUMNS), READS)
        yield Measure("parquet.read_rows_per_s", rate, rate)
        rows = lake.read("bars", symbols=[s for s in names() if group_of(s, "1m") == GROUPS[0]], **month)
        single = Lake(Path(folder) / "single")
        single.write("bars", rows)
        whole = seconds(lambda: single.read("bars", columns=COLUMNS), READS)
        one = seconds(lambda: single.read("bars", columns=COLUMNS, symbols=[symbol]), SINGLES)
        yield Measure("parquet.one_symbol_share", one / whole, one, whole)
