"""The columns that combinations look at, each computed once however many share it.

Shapes: C combinations, J columns of a strategy, P parameters, U unique columns, T bars.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.indicators import Column, IndicatorError, plan_of, reads, resolve, rows_of
from pipeline.indicators.frame import values_of
from pipeline.recurrence import Series
from pipeline.strategies.declare import StrategyError, Use, Value

from .frames import of_symbol
from .instrument import Instrument
from .samples import Samples

Array = npt.NDArray[Any]
OWN = ("open", "high", "low", "close", "volume")


class Own(NamedTuple):
    """Name a column of the bars themselves."""

    name: str
    at: str
    ready: int = 1


class Unique(NamedTuple):
    """Name one column; once : only on the bar that closes its own, 0 on the bars after it."""

    column: Column | Own
    once: bool


@dataclass(frozen=True)
class Wanted:
    """Hold which unique columns there are, and which of them each combination reads, (C, J) uint32."""

    columns: tuple[Unique, ...]
    at_CJ: Array


def wanted(samples: Samples, interval: str) -> Wanted:
    """Find the unique columns behind combinations, on bars of `interval`."""
    strategy = samples.strategy
    place = {p.name: i for i, p in enumerate(strategy.parameters)}
    number: dict[tuple[str, bool], int] = {}
    columns: list[Unique] = []
    at = np.empty((len(samples), len(strategy.columns)), np.uint32)
    for j, use in enumerate(strategy.columns):
        names = use.names(strategy.parameters)
        group, first = _groups(samples.code_CP, [place[name] for name in names])
        numbers = np.empty(len(first), np.uint32)
        for k, c in enumerate(first.tolist()):
            column = _column(strategy.name, use, tuple(samples.values(c, names).items()), interval)
            once = use.once and bool(column.at)
            if (column.name, once) not in number:
                number[column.name, once] = len(columns)
                columns.append(Unique(column, once))
            numbers[k] = number[column.name, once]
        at[:, j] = numbers[group]
    return Wanted(tuple(columns), at)


def _groups(code_CP: Array, places: Sequence[int]) -> tuple[Array, Array]:
    """Return which combinations agree in some parameters, (C,) group of each, and the first one of each group."""
    group = np.zeros(len(code_CP), np.int64)
    for place in places:
        codes, values = pd.factorize(code_CP[:, place])
        group, _ = pd.factorize(group * len(values) + codes)
    first = np.empty(int(group.max(initial=0)) + 1, np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    return group, first


@functools.lru_cache(1 << 14)  # many symbols and iterations ask for the same
def _column(strategy: str, use: Use, values: tuple[tuple[str, Value], ...], interval: str) -> Column | Own:
    """Return the one column that a strategy uses with these values."""
    spec = use.spec(dict(values), interval)
    if spec.indicator in OWN:
        return Own(f"{spec.indicator}@{spec.at}" if spec.at else spec.indicator, spec.at)
    try:
        found = resolve([spec])
    except IndicatorError as error:
        raise StrategyError(f"strategy '{strategy}': {error}") from error
    if len(found) != 1:
        raise StrategyError(
            f"expected one output for each column of strategy '{strategy}', got {', '.join(c.name for c in found)}; "
            f"say output="
        )
    return found[0]


def fill(out_UT: Array, rows: Sequence[int], instrument: Instrument, columns: Sequence[Unique], threads: int) -> None:
    """Compute unique columns over an instrument's bars into rows of out_UT, float32, NaN = not known; a value at t sees
    bars up to t, and of coarser bars those that have closed by then. Warns of columns that need more bars than there
    are. Raises StrategyError for what cannot be computed.
    """
    intervals = dict.fromkeys(column.at for column, _ in columns)
    instrument.coarsen(filter(None, intervals))
    bars = {at: instrument.coarser(at) if at else instrument.bars for at in intervals}
    for at in filter(None, intervals):
        instrument.place(at)  # before threads ask for it
    if few := [column for column, _ in columns if column.ready > len(bars[column.at])]:
        widest = max(few, key=lambda column: column.ready)
        warnings.warn(
            f"{len(few)} of {len(columns)} columns{of_symbol(instrument.symbol)} are NaN throughout: {widest.name} "
            "needs "
            f"{widest.ready} bars, there are {len(bars[widest.at])}; give more bars or smaller windows",
            stacklevel=2,
        )
    jobs = []
    for at, frame in bars.items():
        kinds: dict[frozenset[str], list[int]] = {}
        gaps = {name for name in ("volume", "turnover") if name in frame and frame[name].isna().any()}
        for i, (column, _) in enumerate(columns):
            if column.at == at:
                kinds.setdefault(frozenset(_reads(column)) & gaps, []).append(i)
        jobs += [(frame, mine[part::threads]) for mine in kinds.values() for part in range(threads)]

    def work(frame: Any, mine: list[int]) -> None:
        if mine:
            _fill(out_UT, [rows[i] for i in mine], instrument, frame, [columns[i] for i in mine])

    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(work, *job) for job in jobs]:
            job.result()


def _reads(column: Column | Own) -> Sequence[str]:
    return reads([column]) if isinstance(column, Column) else [column.name.partition("@")[0]]


def _fill(out_UT: Array, rows: Sequence[int], instrument: Instrument, bars: Any, columns: Sequence[Unique]) -> None:
    """Fill rows with columns of one interval, computed over its bars; a halt is no bar, whatever a column reads, and a
    bar with a gap in one of the columns that are read is none for all of them.
    """
    at = columns[0].column.at
    plain = [column for column, _ in columns if isinstance(column, Column)]
    read = list(dict.fromkeys(name for column, _ in columns for name in _reads(column)))
    if missing := [name for name in read if name not in bars and name != "day"]:
        raise StrategyError(
            f"expected bars{of_symbol(instrument.symbol)} with {', '.join(read)} for {columns[0].column.name}, got "
            "none of "
            f"{', '.join(missing)}; add them"
        )
    traded = np.isfinite(bars["open"].to_numpy())
    frame = bars if traded.all() else bars[traded]
    some = np.empty((len(columns), len(frame)), np.float32)
    if plain and len(frame):
        series = Series(np.zeros(1, np.int64), np.array([len(frame)], np.int64))
        values, _ = values_of(frame, series, plan_of(plain), rows_of(plain), reads(plain), np.float32)
        some[[isinstance(column, Column) for column, _ in columns]] = values
    for row, (column, _) in enumerate(columns):
        if isinstance(column, Own):
            some[row] = frame[_reads(column)[0]].to_numpy(np.float64)
    found = some
    if frame is not bars:
        found = np.full((len(columns), len(bars)), np.nan, np.float32)
        found[:, traded] = some
    if not at:
        out_UT[rows] = found
        return
    place = instrument.place(at)
    begun, closing = np.flatnonzero(place >= 0), np.flatnonzero(instrument.closes(at))
    for row, values, (_, once) in zip(rows, found, columns):
        out_UT[row] = 0.0 if once else np.nan
        seen = closing if once else begun
        out_UT[row, seen] = values[place[seen]]
