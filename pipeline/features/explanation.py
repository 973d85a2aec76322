"""The lines of `features.py --explain`, a part for each question."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage.store import read_json

from ..cluster import Cluster
from ..indicators import Column
from ..indicators.timeframes import Part
from ..krx import KST
from ..receipt import Receipt
from ..stages import Planned
from . import moments
from .group import Maker, Order
from .levels import Level

STEPS = ("reused", "goes on", "computed")
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Look(NamedTuple):
    """Hold what a task would do for one block.

    symbols : that have bars; step : one of STEPS; rows : bars of the block; run : those that are computed; ends : of
    bars by interval ('' = those of the block), microseconds UTC, each once; size : bytes of its bars; read : the
    columns that are read by interval.
    """

    period: str
    symbols: frozenset[str]
    step: str
    rows: int
    run: int
    ends: dict[str, Any]
    size: int
    read: dict[str, tuple[str, ...]]


def head(
    stage: Planned, receipt: Receipt, order: Order, name: str, columns: Sequence[Column], looks: Sequence[Look]
) -> Iterator[str]:
    section, symbols = order.features, frozenset[str]().union(*(look.symbols for look in looks))
    yield (
        f"{len(columns)} columns, set {name}, over {sum(look.rows for look in looks):,} bars of "
        f"{section.interval} of {len(symbols):,} symbols, {receipt.start} to {receipt.end}, source "
        f"{receipt.source}"
    )
    yield f"stage {'reused' if stage.manifest else 'run'}: {textwrap.shorten(stage.why, 300, placeholder=' …')}"


def graph(order: Order, makers: Sequence[Maker], columns: Sequence[Column], looks: Sequence[Look]) -> Iterator[str]:
    """Say the tasks, and the blocks by period."""
    periods = sorted({look.period for look in looks})
    among = [c.name for c in columns if c.cross]
    among += [f"member (largest {order.universe.largest})"] * bool(order.universe.largest)
    second = f"{len(periods)} tasks, one a period, over its finished blocks: {', '.join(among)}"
    sizes = sorted({len(maker.symbols) for maker in makers} or {0})
    targets = ", ".join(target["name"] for target in order.labels.targets())
    yield from ("", "graph")
    yield from _table(
        [
            ("blocks", f"{len(makers)} tasks, one a lake group of {sizes[0]:,} to {sizes[-1]:,} symbols: oldest first"),
            ("targets", f"in the same tasks, anew each time: {targets}, member of the universe"),
            ("among symbols", second if moments.wanted(columns, order) else "no task: nothing is decided among them"),
        ]
    )
    yield from ("", f"blocks ({STEPS[1]}: only the bars that joined since are run)")
    table: list[tuple[str, ...]] = [("period", "bars", *STEPS, "bars run")]
    for period in [*periods, "total"]:
        of = [look for look in looks if period in ("total", look.period)]
        counts = [f"{sum(look.step == step for look in of)}" for step in STEPS]
        table.append((period, f"{sum(look.rows for look in of):,}", *counts, f"{sum(look.run for look in of):,}"))
    yield from _table(table)


def columns(columns: Sequence[Column], parts: dict[str, Part], looks: Sequence[Look]) -> Iterator[str]:
    """Say the columns, and the passes that make them."""
    passes: list[tuple[str, ...]] = [("pass", "kernel", "bars", "inputs", "look-back", "state rows", "columns")]
    made_by: dict[str, str] = {}
    for at, part in parts.items():
        for one in part.plan.passes:
            stored = [part.columns[write.column] for write in one.writes]
            number, indicator = f"{len(passes)}", stored[0].indicator
            made_by |= {c.name: number for c in stored}
            kernel = " ".join([indicator.name, *(f"{name}={value:g}" for name, value in stored[0].params.items())])
            back, names = f"{max(one.past, one.own)}", ", ".join(c.name for c in stored)
            passes.append((number, kernel, at or "own", " ".join(indicator.inputs), back, f"{one.state}", names))
    ends = {at: np.unique(np.concatenate([look.ends[at] for look in looks])) for at in parts} if looks else {}
    table = [("column", "pass", "unit", "warm-up", "ready", "known from", "file")]
    for c in columns:
        warmup, known = c.indicator.warmup(*c.values), ends.get(c.at, np.zeros(0, np.int64))
        steady = f"{warmup:,.0f}" if np.isfinite(warmup) else "never"
        day = str(_day(known[c.ready - 1])) if c.ready <= len(known) else "too few bars"
        where = "cross" if c.cross else "blocks"
        table.append((c.name, made_by[c.source.name], c.unit, steady, f"{c.ready:,}", day, where))
    yield from ("", "columns (warm-up: bars until it no longer matters where a symbol began; ready: bars until all")
    yield "outputs of the kernel are known; known from: the day of that for a symbol that has every bar)"
    yield from _table(table)
    yield from ("", "passes (a kernel runs once for one set of parameters, whatever is stored of it)")
    yield from _table(passes)


def reads(receipt: Receipt, order: Order, parts: dict[str, Part], looks: Sequence[Look]) -> Iterator[str]:
    yield from ("", "what is read")
    table = []
    for at in dict.fromkeys(["", *parts]):
        interval = at or order.features.interval
        finer = "" if interval in receipt.intervals else receipt.finer(interval)
        names = next((" ".join(look.read[at]) for look in looks), "nothing")
        how = f"derived from {finer}, complete bars only" if finer else "as ingested"
        table.append((interval, f"{receipt.rows.get(finer or interval, 0):,} rows", how, names))
    yield from _table(table)


def memory(
    order: Order, makers: Sequence[Maker], columns: Sequence[Column], groups: Sequence[Sequence[Look]]
) -> Iterator[str]:
    section, item = order.features, np.dtype(order.features.dtype).itemsize
    plans = list(makers[0].plans.values()) if makers else []
    inputs, outputs = sum(plan.inputs for plan in plans), sum(plan.columns for plan in plans)
    rows = max((look.rows for looks in groups for look in looks), default=0)
    kept = max((sum(look.size for look in looks) for looks in groups), default=0)
    row = 8 + 8 + item * len(columns) + (4 + 8) * len(order.labels.targets()) + 1
    result = row * sum(look.rows for looks in groups for look in looks)
    block = f"the largest: {rows:,} bars x ({inputs} inputs of 8 B + {outputs} columns of {item} B)"
    table = [
        ("block", _bytes(rows * (8 * inputs + item * outputs)), block),
        ("bars", _bytes(kept), "of the largest group, held until its targets are written"),
        ("result", _bytes(result), "on disk before compression, without names of symbols"),
    ]
    if section.made_by == "kernels":
        state = sum(8 * ((p.inputs + p.own) * p.past + p.state) for p in plans)
        kept_for = "a symbol on disk before compression, for each of the last two periods"
        table.append(("state", _bytes(state), kept_for))
    if section.made_by == "kernels" and order.backend == "pandas":
        from ..recurrence.tiles import LANES

        tile = max((8 * LANES * (p.inputs + p.table.buffers) * (p.past + section.chunk) for p in plans), default=0)
        of = f"a thread: inputs and outputs of {section.chunk} bars x {LANES} symbols"
        table.append(("tile", _bytes(tile), of))
    yield from ("", "memory")
    yield from _table(table)


def where(
    order: Order, level: Level, cluster: Cluster, stages: Path, columns: Sequence[Column], looks: Sequence[Look]
) -> Iterator[str]:
    places = {
        "cuda": "tasks on Dask workers with a GPU each: bars, kernels and columns there, targets on CPU",
        "dask": "tasks on Dask workers, all on CPU",
    }
    place = places.get(level.name, f"tasks on up to {cluster.cores} threads of this process, all on CPU")
    yield from ("", "where", level.said, f"{place}; features.threads {order.features.threads} within a task")
    values, (basis, rows) = sum(look.run for look in looks) * len(columns), _measured(stages, level.name)
    if basis and values:
        yield (
            f"about {values * basis:.1f} s of computing on one core for {values:,} values, at {basis * 1e9:.0f} ns a "
            f"value, measured over {rows:,} bars by the last whole result of this level"
        )


def _measured(stages: Path, level: str) -> tuple[float, int]:
    """Return seconds a value, and the rows, of the latest stage of this level that computed all of its blocks."""
    found = sorted((stages / "features").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        made = read_json(path)
        values = made.get("rows", 0) * made.get("columns", 0)
        if values and made.get("level") == level and made["computed"] == made["blocks"]:
            return made["block_seconds"]["compute"] / values, made["rows"]
    return 0.0, 0


def _day(end: int) -> date:
    return datetime.fromtimestamp((int(end) - 1) / 1e6, KST).date()  # midnight ends the day before


def _bytes(size: float) -> str:
    return next((f"{size / unit:,.1f} {name}" for unit, name in UNITS if size >= unit), f"{size:.0f} B")


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows as aligned lines, numbers to the right."""
    rows = list(rows)
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    for row in rows:
        number = [cell.replace(",", "").isdigit() for cell in row]
        cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, number)]
        yield ("  " + "  ".join(cells)).rstrip()
