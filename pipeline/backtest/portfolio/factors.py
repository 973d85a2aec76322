"""Factors: scores straight from bars, which the engine trades as it trades predictions, and portfolios of quantiles.

Shapes: T sessions, S symbols.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.seen import runs_of, seen, sound
from pipeline.indicators import Spec, parts_of, reads, resolve
from pipeline.indicators.timeframes import View, crossed, values_at
from pipeline.receipt import Receipt
from pipeline.recurrence import Series

from ..analysis.quantiles import QUANTILES, quantiles
from ..section import BacktestError, BacktestSection
from .kernel import Ledger
from .market import INTERVAL, Market
from .schedule import sessions_of
from .targets import Targets, trade

Scores = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]

# What price factors usually mean; high = bought. Reversal reads them the other way round: give -scores.
CLASSIC: tuple[Mapping[str, Any], ...] = (
    {"indicator": "roc", "params": {"n": 20}},
    {"indicator": "rsi", "params": {"n": 14}},
    {"indicator": "bollinger", "params": {"n": 20}, "outputs": ["bollinger_percent_b"]},
    {"indicator": "macd", "outputs": ["macd_histogram"], "over": "close"},
)


def scores(
    receipt: Receipt, specs: Iterable[Spec | Mapping[str, Any]], market: Market, *, threads: int = 1
) -> dict[str, Scores]:
    """Return columns of the indicator library as scores known after each close, (T, S) float32 by name; NaN = not known
    yet, or a symbol that did not trade in that session.

    Computed as the features are: over all of the receipt's daily bars up to the last session, adjusted by the actions
    known on each bar's day, halts left out. A score sees bars up to and including its session. Raises IndicatorError
    for specs that cannot be, BacktestError for columns that daily bars of the symbol itself do not give.
    """
    columns = resolve(specs)
    sources = tuple({c.source.name: c.source for c in columns}.values())
    wanted = reads(sources)
    if not columns or any(c.at for c in columns) or "market" in wanted:
        asked = ", ".join(c.name for c in columns if c.at or "market" in c.indicator.inputs) or "none"
        raise BacktestError(
            f"expected columns of a symbol's own daily bars as scores, got {asked}; leave `at` and those that read the "
            "market out, or trade the columns of the features stage"
        )
    names = [name for name in wanted if name != "day"]
    end = market.ts_T[-1].astype("datetime64[us]").item().replace(tzinfo=UTC)
    table = receipt.bars(INTERVAL, columns=["symbol", "ts", *dict.fromkeys([*names, "volume"])], end=end)
    runs = runs_of(table)
    if runs is None:
        table, _ = sound(table)
    bars = seen(table.to_pandas(), receipt, receipt.actions(), wanted, INTERVAL, runs)
    view = View(bars.gated, bars.series)
    values, bar = values_at(sources, parts_of(sources), {"": view}, np.float32, threads=threads)
    if any(c.cross for c in columns):
        values = crossed(columns, sources, values, view, bar)
    rows, cell = cells(table["ts"], bars.series, bars.names, market)
    out = {}
    for column, x_N in zip(columns, values):
        out[column.name] = np.full(market.print_TS.shape, np.nan, np.float32)
        out[column.name].reshape(-1)[cell] = x_N[rows]
    return out


def cells(ts: pa.ChunkedArray, series: Series, names: Iterable[str], market: Market) -> tuple[Longs | slice, Longs]:
    """Return the rows of bars that the market traded, and where each lies in a flat (T, S).

    ts : closes of the bars; series, names : where each symbol's rows lie.
    """
    T, S = market.print_TS.shape
    times, row = sessions_of(ts)
    at = np.minimum(np.searchsorted(market.ts_T, times), T - 1)
    place = {symbol: s for s, symbol in enumerate(market.symbols)}
    column = np.repeat(np.array([place.get(name, -1) for name in names], np.int64), series.lengths)
    cell = at[row] * S + column
    inside = (market.ts_T[at] == times)[row] & (column >= 0) & np.isfinite(market.print_TS.reshape(-1)[cell])
    return (slice(None), cell) if inside.all() else (np.flatnonzero(inside), cell[inside])


def trade_quantiles(
    market: Market,
    score_TS: npt.NDArray[Any],
    decide_T: Bools,
    section: BacktestSection,
    *,
    parts: int = QUANTILES,
    threads: int = 1,
) -> list[Ledger]:
    """Return what each quantile of the scores would have left if it alone had been held, equal weights, lowest first:
    the engine with all its costs, once a quantile; threads change no bit.
    """
    rows = np.flatnonzero(decide_T)
    score = np.asarray(score_TS[rows])
    place = quantiles(score, parts)
    size = np.maximum((place[:, :, None] == np.arange(parts)).sum(axis=1), 1)
    order_TS = np.zeros(score_TS.shape, np.int32)
    order_TS[rows] = np.argsort(-score, axis=1, kind="stable")

    def some(numbers: range) -> list[Ledger]:
        weight_TS = np.zeros(score_TS.shape)
        out = []
        for number in numbers:
            weight_TS[rows] = (place == number) / size[:, number : number + 1]
            out.append(trade(market, Targets(weight_TS, order_TS, decide_T), section))
        return out

    shares = [range(first, parts, threads) for first in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(some, shares))
    found = {number: ledger for numbers, ledgers in zip(shares, done) for number, ledger in zip(numbers, ledgers)}
    return [found[number] for number in range(parts)]
