"""Make the lake whole again: damaged files out, what they held from the archive, and the rest from the broker."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import cast

import numpy as np
import pyarrow as pa

from storage.lake import Damage, Lake
from storage.schema import ACTIONS, BARS

from . import actions, krx
from .archive import histories
from .broker import Broker
from .coverage import Coverage, Span
from .days import runs, week_ends
from .kis.columns import Days
from .kis.history import torn_days
from .origin import Origin, Reading, checked
from .task import CALLS, Task, What
from .verify import KINDS, verify
from .wanted import open_days

KIND_OF: dict[str, What] = {tr.name: what for what, tr in reversed(CALLS.items())}


def discard(lake: Lake, found: list[Damage], *, source: str, venue: str, reading: Reading) -> list[str]:
    """Take damaged files out of their tables and say so in sentences. `reading` is how `source` is read.

    What every broker's source had in them is known by its coverage, which names more rows than are left: its own run or
    repair brings them back. Files are imported again by their next run, which compares digests. Corporate actions, of
    which coverage knows no number, are found again here in the kept answers of all brokers, or their histories are
    forgotten, so that the next run asks for them.
    """
    said = []
    for one in sorted(found, key=lambda one: one.table != "coverage"):
        if one.table != "actions":
            lake.discard(one)
        said.append(f"{one.table}/{one.file}: {one.reason}; moved to {lake.path / 'damaged'}")
    tables = {one.table for one in found}
    sources = {(source, venue)}
    for table in ("coverage", "pages"):
        held = lake.read(table, columns=["source", "venue"]).group_by(["source", "venue"]).aggregate([])
        sources |= set(zip(held["source"].to_pylist(), held["venue"].to_pylist()))
    brokers = [Coverage(lake, *names) for names in sorted(sources)]
    if "coverage" in tables:
        for coverage in brokers:
            coverage.rebuild()
    if "actions" in tables:
        readings = [reading if broker.source == source else Reading() for broker in brokers]
        _actions_again(lake, list(zip(brokers, readings)), [one for one in found if one.table == "actions"])
    return said


def _actions_again(lake: Lake, brokers: list[tuple[Coverage, Reading]], damaged: list[Damage]) -> None:
    """Make the table of corporate actions anew from kept answers. All daily histories are forgotten first and those
    whose answers are kept whole remembered last: whoever is killed in between has them asked for again. KRX comes last,
    since its factors are exact and replace those of other venues."""
    before = []
    for coverage, reading in sorted(brokers, key=lambda broker: broker[0].venue == "KRX"):
        stocks = [symbol for symbol in coverage.symbols("1d") if _what("1d", symbol) == "daily"]
        days = {symbol: coverage.days("1d", symbol) for symbol in stocks}
        before.append((coverage, reading, days, {symbol: coverage.spans("1d", symbol) for symbol in stocks}))
        coverage.forget("1d", days)
    for one in damaged:
        lake.discard(one)
    for coverage, reading, days, spans in before:
        origin = Origin(coverage.source, coverage.venue, datetime.now(UTC), reading)
        names = {"source": origin.source, "venue": origin.venue}
        held = lake.counts("bars", interval="1d", **names)
        parts, whole = [ACTIONS.empty_table()], []
        for symbol, call, history in histories(lake, sorted(days), "1d", days, **names):
            if KIND_OF[call] == "daily":
                good, _ = checked(history, Task("daily", symbol, days[symbol]), origin)
                parts.append(actions.detect(good))
                whole += [symbol] if good.num_rows == held.get(symbol, 0) else []
        lake.write("actions", pa.concat_tables(parts))
        coverage.add("1d", [(symbol, span) for symbol in whole for span in spans[symbol]])


async def repair(broker: Broker, start: date, end: date) -> dict[str, int]:
    """Bring what the lake lacks between two days, and what the configuration asks for, into it: from kept answers where
    they have it, from the broker else.

    Returns the number of rows by where they came from. Raises KisError, LakeError.
    """
    origin, lake, coverage = broker.origin, broker.lake, broker.coverage
    told, lacking = {"archive": 0, "broker": 0}, {}
    for one in verify(lake, source=origin.source, venue=origin.venue, start=start, end=end):
        lacking[one.interval] = one.lacking
        coverage.forget(one.interval, lacking[one.interval])
        if one.interval in KINDS:  # a day of which minutes are gone may have come so
            told["archive"] += _from_archive(lake, coverage, origin, one.interval, one.gaps)
    tasks = broker.tasks(*await broker.choose(keep=True), holes=True)
    asked = {(task.interval, task.symbol) for task in tasks}
    for interval, own in lacking.items():
        for symbol, days in own.items():
            if (interval, symbol) not in asked:
                tasks += open_days(_what(interval, symbol), symbol, days, coverage)
    if tasks:
        collector = broker.collector()
        await collector.run(tasks, at_once=broker.kis.max_workers)
        told["broker"] = collector.rows
    return told


def _what(interval: str, symbol: str) -> What:
    """Return the kind of history; codes of indices have four digits."""
    return cast(What, "index" if interval == "1d" and len(symbol) == 4 else KINDS.get(interval, interval))


def _from_archive(lake: Lake, coverage: Coverage, origin: Origin, interval: str, lacking: dict[str, Days]) -> int:
    """Make bars of kept answers for the days that lack them; return how many."""
    bars, answered = [BARS.empty_table()], []
    kept = histories(lake, sorted(lacking), interval, lacking, source=origin.source, venue=origin.venue)
    for symbol, call, history in kept:
        what: What = "weekly" if interval == "1w" else KIND_OF[call]  # days and weeks share one call
        good, _ = checked(history, Task(what, symbol, lacking[symbol]), origin)
        bars.append(good.select(BARS.names))
        day = good["date"].to_numpy().astype("datetime64[D]")
        held = np.setdiff1d(day, torn_days(good)) if interval == "1m" else np.unique(day)
        if interval == "1w" and held.size:  # a week is answered with all of its days
            every = krx.sessions(held[0] - 6, held[-1])
            held = every[np.isin(week_ends(every), held)]
        for run in runs(held, krx.sessions(held[0], held[-1])) if held.size else ():
            answered.append((symbol, Span(run[0], run[-1], int(((day >= run[0]) & (day <= run[-1])).sum()))))
    table = pa.concat_tables(bars)
    lake.write("bars", table)
    coverage.add(interval, answered)
    return int(table.num_rows)
