"""The broker's pages into the lake: several symbols in flight, whole symbols committed in columnar chunks.

Everything that a symbol needs (checks, corporate actions) is done when its history is complete, so that what is
committed never depends on where an earlier attempt stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa

from storage.emit import Emit
from storage.lake import Lake, group_of
from storage.schema import ACTIONS, BARS

from . import actions, quality
from .journal import Journal, Unit, digest
from .kis import history
from .kis.client import KisClient
from .kis.columns import Days
from .kis.layouts import DAILY as DAILY_CALL
from .kis.layouts import MINUTES_PAST as MINUTE_CALL

DAILY, MINUTE = "1d", "1m"
COMMIT_S = 60.0  # a killed run asks again for what came in since the last commit: no more than this
TELL_S = 0.1
MINUTES_A_DAY = 381  # a guess, for the progress bar only


@dataclass(frozen=True)
class Task:
    """Name an interval of a symbol and the sessions of which bars are wanted."""

    interval: str
    symbol: str
    days: Days

    @property
    def guess(self) -> int:
        """Rows that there may be."""
        return len(self.days) * (MINUTES_A_DAY if self.interval == MINUTE else 1)


@dataclass(frozen=True)
class Origin:
    """Hold what all rows of a run share."""

    source: str
    venue: str
    at: datetime

    def stamp(self, rows: pa.Table) -> pa.Table:
        """Add source and ingested_at."""
        at = pa.repeat(pa.scalar(self.at, BARS.field("ingested_at").type), rows.num_rows)
        rows = rows.append_column("source", pa.repeat(self.source, rows.num_rows))
        return rows.append_column("ingested_at", at)


@dataclass
class _Batch:
    """Hold what was fetched and is not yet committed."""

    tables: dict[str, list[pa.Table]] = field(default_factory=lambda: {"bars": [], "actions": [], "quarantine": []})
    units: list[Unit] = field(default_factory=list)
    rows: int = 0


class Collector:
    """Fetch tasks and commit them; the journal says which are done already."""

    def __init__(self, kis: KisClient, lake: Lake, journal: Journal, origin: Origin, emit: Emit, *, chunk: int) -> None:
        self._kis, self._lake, self._journal, self._origin = kis, lake, journal, origin
        self._emit, self._chunk = emit, chunk
        self._batch, self._committed_at = _Batch(), time.monotonic()
        self._turn = asyncio.Lock()
        self._done = self._total = 0
        self._told = 0.0

    async def run(self, tasks: list[Task], *, at_once: int) -> None:
        """Do every task that the journal does not know, `at_once` at a time; what came before an error is committed."""
        todo = [task for task in tasks if (task.interval, task.symbol) not in self._journal.units]
        self._done = sum(unit.rows for unit in self._journal.units.values())
        self._total = self._done + sum(task.guess for task in todo)
        # Minutes first, since their pages follow one another; then by partition, so that a commit rewrites few of them.
        todo.sort(key=lambda task: (task.interval != MINUTE, group_of(task.symbol, task.interval), task.symbol))
        queue = iter(todo)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(todo))):
                    group.create_task(self._work(queue))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._commit()
            self._tell(final=True)

    async def _work(self, queue: Iterator[Task]) -> None:
        for task in queue:
            read = 0

            def moved(rows: int) -> None:
                nonlocal read
                read += rows
                self._done += rows
                self._tell()

            fetch = self._minutes if task.interval == MINUTE else self._daily
            rows = await fetch(task, moved)
            self._done += rows - read
            self._total += rows - task.guess
            if self._due():
                await self._commit(self._due)

    async def _daily(self, task: Task, moved: history.Moved) -> int:
        first, last = task.days[0].item(), task.days[-1].item()
        found = await history.daily(self._kis, task.symbol, first, last, venue=self._origin.venue, moved=moved)
        good, wrong = self._checked(task, found, DAILY_CALL.name)
        return self._keep(task, good, wrong, actions.detect(good))

    async def _minutes(self, task: Task, moved: history.Moved) -> int:
        found = await history.minutes(self._kis, task.symbol, task.days, venue=self._origin.venue, moved=moved)
        return self._keep(task, *self._checked(task, found, MINUTE_CALL.name), ACTIONS.empty_table())

    def _checked(self, task: Task, found: history.History, call: str) -> tuple[pa.Table, pa.Table]:
        """Separate bars, with the other columns that they came with, from what goes to quarantine."""
        rows, n = found.rows, found.rows.num_rows
        shared = {"symbol": task.symbol, "venue": self._origin.venue, "interval": task.interval, "file": call}
        for name, value in shared.items():
            rows = rows.append_column(name, pa.repeat(value, n))
        good, wrong = quality.check(rows.append_column("line", pa.array(np.arange(1, n + 1))), market="KRX")
        unread = [
            {**shared, "line": line, "reason": "unreadable", "row": text}
            for line, text in enumerate(found.unread, n + 1)
        ]
        wrong = pa.concat_tables([wrong, pa.Table.from_pylist(unread, wrong.schema)])
        return self._origin.stamp(good), self._origin.stamp(wrong)

    def _keep(self, task: Task, good: pa.Table, wrong: pa.Table, found: pa.Table) -> int:
        """Put a complete symbol into the batch."""
        bars = good.select(BARS.names)
        unit = Unit(
            interval=task.interval,
            symbol=task.symbol,
            rows=bars.num_rows,
            bars=digest("bars", bars),
            actions=digest("actions", found),
            quarantined=quality.reasons(wrong),
        )
        for name, rows in (("bars", bars), ("actions", found), ("quarantine", wrong)):
            if rows.num_rows:
                self._batch.tables[name].append(rows)
        self._batch.units.append(unit)
        self._batch.rows += bars.num_rows
        return unit.rows

    def _due(self) -> bool:
        return self._batch.rows >= self._chunk or time.monotonic() - self._committed_at > COMMIT_S

    async def _commit(self, still: Callable[[], bool] = lambda: True) -> None:
        """Write the batch to the lake, then to the journal; of those who waited for it only the first does so."""
        async with self._turn:
            if self._batch.units and still():
                batch, self._batch = self._batch, _Batch()
                await asyncio.to_thread(self._write, batch)
                self._committed_at = time.monotonic()

    def _write(self, batch: _Batch) -> None:
        for name, parts in batch.tables.items():
            if parts:
                self._lake.write(name, pa.concat_tables(parts))
        self._journal.add(batch.units)

    def _tell(self, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._told >= TELL_S:
            self._told = now
            self._emit("progress", done=self._done, total=max(self._total, self._done), unit="rows")
