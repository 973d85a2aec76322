"""Make the lake whole again: damaged files out, what they held from the archive, and the rest from the broker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from storage.lake import Damage, Lake, group_of
from storage.schema import ACTIONS, BARS
from storage.store import read_json, write_json

from . import actions, krx
from .archive import histories
from .broker import Broker
from .collect import CALLS, Origin, Task, What, checked
from .coverage import Coverage, Span
from .kis.columns import Days
from .kis.history import runs
from .verify import KINDS, PLAN, Checked, verify
from .wanted import open_days

KIND_OF: dict[str, What] = {tr.name: what for what, tr in reversed(CALLS.items())}


Lost = dict[str, dict[str, Days]]  # days by interval and symbol


def finish(lake: Lake) -> None:
    """Forget the plan of a repair that has done all of it."""
    (lake.path / PLAN).unlink(missing_ok=True)


def discard(lake: Lake, found: list[Damage], *, source: str, venue: str) -> tuple[list[str], Lost]:
    """Take damaged files out of their tables and let the source forget what it had in them.

    Returns sentences about it and what has to be brought back; to both comes what a repair that was killed had begun.
    What other sources had in a file is gone with it: files are imported again by their next run, which compares
    digests; another broker's history by a repair of its own.
    """
    path, said = lake.path / PLAN, list[str]()
    before, lost = _planned(path, source, venue)
    found = [*found, *(one for one in before if one not in found)]
    if not found and not lost:
        return said, lost
    _plan(path, source, venue, found, lost)
    for one in found:
        lake.discard(one)
        said.append(f"{one.table}/{one.file}: {one.reason}; moved to {lake.path / 'damaged'}")
    coverage = Coverage(lake, source, venue)
    if any(one.table == "coverage" for one in found):
        coverage.rebuild()
    for one in found:
        for interval, symbol, days in _held(lake, coverage, one):
            own = lost.setdefault(interval, {})
            own[symbol] = np.union1d(own.get(symbol, days[:0]), days)
    _plan(path, source, venue, found, lost)
    for interval, of in lost.items():
        for symbol, days in of.items():
            coverage.forget(interval, symbol, days)
    return said, lost


def _plan(path: Path, source: str, venue: str, found: list[Damage], lost: Lost) -> None:
    days = {interval: {s: [str(day) for day in own] for s, own in of.items()} for interval, of in lost.items()}
    damages = [asdict(one) for one in found]
    write_json(path, {"source": source, "venue": venue, "damaged": damages, "lost": days})


def _planned(path: Path, source: str, venue: str) -> tuple[list[Damage], Lost]:
    """Read the plan of a repair that was killed; days of another source are that one's to bring back."""
    if not path.exists():
        return [], Lost()
    told: dict[str, Any] = read_json(path)
    mine = (told["source"], told["venue"]) == (source, venue)
    lost = {
        interval: {symbol: np.array(days, "datetime64[D]") for symbol, days in of.items()}
        for interval, of in (told["lost"].items() if mine else ())
    }
    return [Damage(**one) for one in told["damaged"]], lost


async def repair(broker: Broker, start: date, end: date, lost: Lost) -> dict[str, int]:
    """Bring what is missing between two days, and what was lost, into the lake: from the archive where it has it, from
    the broker else.

    Returns the number of rows by where they came from. Raises KisError, LakeError.
    """
    origin, lake, coverage = broker.origin, broker.lake, broker.coverage
    told = {"archive": 0, "broker": 0}
    for one in verify(lake, source=origin.source, venue=origin.venue, start=start, end=end):
        for symbol, days in _lacking(one).items():
            coverage.forget(one.interval, symbol, days)
            own = lost.setdefault(one.interval, {})
            own[symbol] = np.union1d(own.get(symbol, days[:0]), days)
    tasks = []
    for interval, own in lost.items():
        if interval in KINDS:
            told["archive"] += _from_archive(lake, coverage, origin, interval, own)
        for symbol, days in own.items():
            tasks += open_days(_what(interval, symbol), symbol, days, coverage)
    if tasks:
        collector = broker.collector()
        await collector.run(tasks, at_once=broker.kis.max_workers)
        told["broker"] = collector.rows
    return told


def _lacking(one: Checked) -> dict[str, Days]:
    none = np.array([], "datetime64[D]")
    names = sorted({**one.gaps, **one.holes})
    return {name: np.union1d(one.gaps.get(name, none), one.holes.get(name, none)) for name in names}


def _what(interval: str, symbol: str) -> What:
    """Return the kind of history; codes of indices have four digits."""
    return cast(What, "index" if interval == "1d" and len(symbol) == 4 else KINDS.get(interval, interval))


def _from_archive(lake: Lake, coverage: Coverage, origin: Origin, interval: str, lacking: dict[str, Days]) -> int:
    """Make bars of kept answers for the days that lack them; return how many."""
    bars, answered = [BARS.empty_table()], []
    kept = histories(lake, sorted(lacking), interval, lacking, source=origin.source, venue=origin.venue)
    for symbol, call, history in kept:
        good, _ = checked(history, Task(KIND_OF[call], symbol, lacking[symbol]), origin)
        bars.append(good.select(BARS.names))
        day = good["date"].to_numpy().astype("datetime64[D]")
        held = np.unique(day)
        for run in runs(held, krx.sessions(held[0], held[-1])) if held.size else ():
            answered.append((symbol, Span(run[0], run[-1], int(((day >= run[0]) & (day <= run[-1])).sum()))))
    table = pa.concat_tables(bars)
    lake.write("bars", table)
    coverage.add(interval, answered)
    return int(table.num_rows)


def _held(lake: Lake, coverage: Coverage, one: Damage) -> Iterator[tuple[str, str, Days]]:
    """Yield interval, symbol and days of what the source had in a damaged file."""
    if one.table == "bars":
        interval, group, period = (str(one.partition[name]) for name in ("interval", "group", "period"))
        unit = "Y" if len(period) == 4 else "M"
        first, after = (np.datetime64(period, unit) + n for n in (0, 1))  # type: ignore[call-overload]
        days = krx.sessions(first.astype("datetime64[D]"), after.astype("datetime64[D]") - 1)
        for symbol in coverage.symbols(interval):
            if group_of(symbol, interval) == int(group):
                yield interval, symbol, days[coverage.covered(interval, symbol, days)]
    if one.table == "flows":
        for symbol in coverage.symbols("flows"):
            yield "flows", symbol, coverage.days("flows", symbol)
    if one.table == "actions":
        for symbol in _without_actions(lake, coverage):
            yield "1d", symbol, coverage.days("1d", symbol)


def _without_actions(lake: Lake, coverage: Coverage) -> list[str]:
    """Find the corporate actions of all daily histories again in kept answers; return the symbols whose answers are not
    kept whole."""
    origin = Origin(coverage.source, coverage.venue, datetime.now(UTC))
    names = {"source": origin.source, "venue": origin.venue}
    stocks = [symbol for symbol in coverage.symbols("1d") if _what("1d", symbol) == "daily"]
    days = {symbol: coverage.days("1d", symbol) for symbol in stocks}
    held = lake.counts("bars", interval="1d", **names)
    parts, whole = [ACTIONS.empty_table()], set()
    for symbol, call, history in histories(lake, stocks, "1d", days, **names):
        if KIND_OF[call] == "daily":
            good, _ = checked(history, Task("daily", symbol, days[symbol]), origin)
            parts.append(actions.detect(good))
            whole |= {symbol} if good.num_rows == held.get(symbol, 0) else set()
    lake.write("actions", pa.concat_tables(parts))
    return [symbol for symbol in stocks if symbol not in whole]
