"""The broker's pages into the lake: several symbols in flight, whole histories committed in columnar chunks.

Everything that a history needs (checks, corporate actions, comparison with what the lake holds) is done when it is
complete, so that what is committed never depends on where an earlier attempt stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, Self

import numpy as np
import pyarrow as pa

from storage.emit import Emit
from storage.lake import Lake, group_of
from storage.schema import ACTIONS, BARS, FLOWS, PAGES

from . import actions, krx, quality
from .archive import Recorder
from .coverage import Coverage, Span, by_symbol
from .kis import history
from .kis.client import KisClient
from .kis.columns import Days
from .kis.history import History
from .kis.layouts import DAILY, INDEX_DAILY, MINUTES_PAST, MINUTES_TODAY, Tr
from .kis.section import KisSection
from .kis.wire import day_ends
from .rewritten import Rewritten, compared

What = Literal["daily", "weekly", "minute", "today", "index", "flows", "latest_flows"]
INTERVALS: dict[What, str] = {
    "daily": "1d",
    "weekly": "1w",
    "minute": "1m",
    "today": "1m",
    "index": "1d",
    "flows": "flows",
    "latest_flows": "flows",
}
CALLS: dict[What, Tr] = {
    "daily": DAILY,
    "weekly": DAILY,
    "minute": MINUTES_PAST,
    "today": MINUTES_TODAY,
    "index": INDEX_DAILY,
}
COMMIT_S = 60.0  # a killed run asks again for what came in since the last commit: no more than this
TELL_S = 0.1
MINUTES_A_DAY = 381
SETTLED = np.timedelta64(7, "D")  # after so long the broker knows who bought and sold
_NO_DAYS = np.array([], "datetime64[D]")


@dataclass(frozen=True)
class Task:
    """Name a kind of history of a symbol and the consecutive sessions that are wanted of it.

    `again` are sessions about them that the lake holds already: asked for once more to see whether the broker still
    says the same.
    """

    what: What
    symbol: str
    days: Days
    again: Days = field(default_factory=lambda: _NO_DAYS)

    @property
    def interval(self) -> str:
        return INTERVALS[self.what]

    @property
    def guess(self) -> int:
        """Rows that there may be."""
        each = {"minute": MINUTES_A_DAY, "today": MINUTES_A_DAY, "weekly": 0.2}.get(self.what, 1)
        return max(int(len(self.days) * each), 1)


@dataclass(frozen=True)
class Reading:
    """Say how to read what the broker does not document; see the settings of these names."""

    evening: bool = False
    index_volume: float = 1e3
    index_turnover: float = 1e6
    flow_turnover: float = 1e6

    @classmethod
    def of(cls, kis: KisSection) -> Self:
        return cls(kis.day_ends == "evening", kis.index_volume, kis.index_turnover, kis.flow_turnover)


@dataclass(frozen=True)
class Origin:
    """Hold what all rows of a run share."""

    source: str
    venue: str
    at: datetime
    reading: Reading = Reading()

    def stamp(self, rows: pa.Table) -> pa.Table:
        """Add source and ingested_at."""
        at = pa.repeat(pa.scalar(self.at, BARS.field("ingested_at").type), rows.num_rows)
        rows = rows.append_column("source", pa.repeat(self.source, rows.num_rows))
        return rows.append_column("ingested_at", at)


@dataclass
class _Batch:
    """Hold what was fetched and is not yet committed."""

    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    answered: dict[str, list[tuple[str, Span]]] = field(default_factory=dict)  # symbols and spans by interval
    rows: int = 0

    def take(self, name: str, rows: pa.Table) -> None:
        if rows.num_rows:
            self.tables.setdefault(name, []).append(rows)


class Collector:
    """Fetch tasks and commit them."""

    def __init__(
        self,
        kis: KisClient,
        lake: Lake,
        coverage: Coverage,
        origin: Origin,
        emit: Emit,
        *,
        chunk: int,
        archive: bool,
        take: bool,
    ) -> None:
        """Prepare; `take` replaces a whole history by the broker's where the broker has rewritten it."""
        self._kis, self._lake, self._coverage, self._origin = kis, lake, coverage, origin
        self._emit, self._chunk, self._archive, self._take = emit, chunk, archive, take
        self._batch, self._committed_at = _Batch(), time.monotonic()
        self._turn = asyncio.Lock()
        self._done = self._total = self.rows = 0
        self._told = 0.0
        self._tasks: list[Task] = []
        self._known: dict[str, pa.Table] | None = None
        self.rewritten: list[Rewritten] = []

    async def run(self, tasks: list[Task], *, at_once: int, done: int = 0) -> None:
        """Do all tasks, `at_once` at a time; what came before an error is committed. `done` rows are there already."""
        self._done, self._total = done, done + sum(task.guess for task in tasks)
        self._tasks = tasks
        queue = iter(_jobs(tasks))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(tasks))):
                    group.create_task(self._work(queue))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._commit()
            self._tell(final=True)

    async def _work(self, queue: Iterator[list[Task]]) -> None:
        for job in queue:
            rewritten = False
            for task in job:
                if rewritten and task.interval in ("1w", "1m"):  # of the same prices as the days
                    self._left_out(task)
                else:
                    rewritten |= await self._one(task) is None
                if self._due():
                    await self._commit(self._due)
            if rewritten and self._take:
                await self._replace_weeks(job[0].symbol)

    async def _one(self, task: Task) -> int | None:
        """Do a task; None when the broker has rewritten the prices of the history."""
        read = 0

        def moved(rows: int) -> None:
            nonlocal read
            read += rows
            self._done += rows
            self._tell()

        recorder = Recorder(self._kis, self._archive)
        fetch = self._flows if task.interval == "flows" else self._bars
        rows: int | None = await fetch(task, recorder, moved)
        self.rows += rows or 0
        self._done += (rows or 0) - read
        self._total += (rows or 0) - task.guess
        return rows

    def _left_out(self, task: Task) -> None:
        """Leave out what would be on another basis than what the lake holds; where all is taken, weeks come last."""
        self._total -= task.guess
        if not self._take or task.interval == "1m":
            what = f"{task.symbol} {task.interval}: {len(task.days)} sessions were not added"
            self._emit("log", level="warning", text=f"{what}, since the prices of its days were rewritten")

    async def _replace_weeks(self, symbol: str) -> None:
        spans = self._coverage.spans("1w", symbol)
        if spans:
            await self._replace(Task("weekly", symbol, krx.sessions(spans[0].first, spans[-1].last)), lambda rows: None)

    async def _fetched(self, task: Task, kis: Recorder, moved: history.Moved) -> History:
        days = np.union1d(task.again, task.days)
        venue = self._origin.venue
        match task.what:
            case "index":
                return await history.index(kis, task.symbol, days, moved=moved)
            case "minute" | "today":
                today = task.what == "today"
                return await history.minutes(kis, task.symbol, days, venue=venue, moved=moved, today=today)
            case _:
                period: Literal["D", "W"] = "W" if task.what == "weekly" else "D"
                return await history.daily(kis, task.symbol, days, venue=venue, moved=moved, period=period)

    async def _bars(self, task: Task, recorder: Recorder, moved: history.Moved) -> int | None:
        found = await self._fetched(task, recorder, moved)
        good, wrong = checked(found, task, self._origin)
        if task.again.size:
            verdict = compared(task, (await asyncio.to_thread(self._held)).get(task.symbol), good)
            if verdict is not None:
                verdict = replace(verdict, taken=self._take)
                self.rewritten.append(verdict)
                self._emit("log", level="warning", text=str(verdict))
                self._batch.take("quarantine", self._origin.stamp(verdict.rows()))
                if self._take:
                    rows = await self._replace(task, moved)
                    return None if verdict.prices else rows
                if verdict.prices:
                    return None
        pages = recorder.pages(task.symbol, task.interval, self._origin.venue)
        return self._keep(self._batch, task, good, wrong, pages)

    async def _flows(self, task: Task, recorder: Recorder, moved: history.Moved) -> int:
        """Take the flows of the days that the broker still has. Days without any are covered once they are some days
        old: those of the latest sessions may not be known yet."""
        latest, venue = task.what == "latest_flows", self._origin.venue
        found = await history.flows(recorder, task.symbol, task.days, venue=venue, moved=moved, latest=latest)
        n = found.rows.num_rows
        answered = found.rows["date"].to_numpy().astype("datetime64[D]")
        if n:
            rows = found.rows.append_column("symbol", pa.repeat(task.symbol, n))
            unit = self._origin.reading.flow_turnover
            units = {name: unit for name in rows.column_names if name.endswith("_turnover")}
            self._batch.take("flows", self._origin.stamp(_scaled(rows, units)).select(FLOWS.names))
        if not latest:
            newest = max(one.days[-1] for one in self._tasks)
            answered = np.union1d(answered, task.days[task.days < newest - SETTLED])
        if answered.size:
            self._answered(self._batch, task, answered[0], answered[-1], n)
        return int(n)

    async def _replace(self, task: Task, moved: history.Moved) -> int:
        """Fetch everything that was ever fetched of this history again and put it in the place of the old."""
        spans = self._coverage.spans(task.interval, task.symbol)
        days = krx.sessions(
            min([*task.days[:1], *(s.first for s in spans)]), max([*task.days[-1:], *(s.last for s in spans)])
        )
        whole, recorder = Task(task.what, task.symbol, days), Recorder(self._kis, self._archive)
        found = await self._fetched(whole, recorder, moved)
        good, wrong = checked(found, whole, self._origin)
        batch = _Batch()
        pages = recorder.pages(task.symbol, task.interval, self._origin.venue)
        self._keep(batch, whole, good, wrong, pages)
        async with self._turn:
            await asyncio.to_thread(self._swap, whole, batch)
        return int(good.num_rows)

    def _swap(self, task: Task, batch: _Batch) -> None:
        origin = {"source": self._origin.source}
        here = origin | {"venue": self._origin.venue, "interval": task.interval}
        self._coverage.forget(task.interval, {task.symbol: task.days})
        self._lake.remove("pages", symbols=[task.symbol], **here)
        bars = pa.concat_tables(batch.tables.pop("bars", [BARS.empty_table()]))
        self._lake.replace("bars", bars, symbols=[task.symbol], **here)
        if task.what == "daily":
            self._lake.remove("actions", symbols=[task.symbol], **origin)
        self._write(batch)

    def _held(self) -> dict[str, pa.Table]:
        """Return what the lake holds of all days that are asked for again, by symbol; read once."""
        if self._known is None:
            again = [task for task in self._tasks if task.again.size]
            start, end = min(t.again[0] for t in again), max(t.again[-1] for t in again)
            found = self._lake.read(
                "bars",
                symbols={task.symbol for task in again},
                start=datetime.combine(start.item(), datetime.min.time(), krx.KST),
                end=datetime.combine(end.item(), datetime.max.time(), krx.KST),
                source=self._origin.source,
                venue=self._origin.venue,
                interval="1d",
            )
            self._known = by_symbol(found)
        return self._known

    def _keep(self, batch: _Batch, task: Task, good: pa.Table, wrong: pa.Table, pages: pa.Table) -> int:
        """Put a complete history into a batch; days that were only asked for again serve to find corporate actions."""
        own = good["date"].to_numpy().astype("datetime64[D]")
        first, last = history.week_ends(task.days[[0, -1]]) if task.what == "weekly" else task.days[[0, -1]]
        bars = good.filter(pa.array((own >= first) & (own <= last))).select(BARS.names)
        batch.take("bars", bars)
        batch.take("actions", actions.detect(good) if task.what == "daily" else ACTIONS.empty_table())
        batch.take("quarantine", wrong)
        batch.take("pages", self._origin.stamp(pages))
        self._answered(batch, task, task.days[0], task.days[-1], bars.num_rows)
        return int(bars.num_rows)

    def _answered(self, batch: _Batch, task: Task, first: np.datetime64, last: np.datetime64, rows: int) -> None:
        batch.answered.setdefault(task.interval, []).append((task.symbol, Span(first, last, rows)))
        batch.rows += rows

    def _due(self) -> bool:
        return self._batch.rows >= self._chunk or time.monotonic() - self._committed_at > COMMIT_S

    async def _commit(self, still: Callable[[], bool] = lambda: True) -> None:
        """Write the batch to the lake; of those who waited for it only the first does so."""
        async with self._turn:
            if (self._batch.answered or self._batch.tables) and still():
                batch, self._batch = self._batch, _Batch()
                await asyncio.to_thread(self._write, batch)
                self._committed_at = time.monotonic()

    def _write(self, batch: _Batch) -> None:
        """Commit rows first and what is covered last: a run that is killed in between asks again."""
        for name, parts in batch.tables.items():
            rows = pa.concat_tables(parts)
            if name == "pages":
                self._lake.append(name, rows.select(PAGES.names))
            else:
                self._lake.write(name, rows)
        for interval, answered in batch.answered.items():
            self._coverage.add(interval, answered)

    def _tell(self, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._told >= TELL_S:
            self._told = now
            self._emit("progress", done=self._done, total=max(self._total, self._done), unit="rows")


def _jobs(tasks: list[Task]) -> list[list[Task]]:
    """Put together what has to follow one another: where days are compared with what the lake holds, the other
    histories of the symbol wait for what comes of it. Long chains of pages come first, since they cannot be shared, and
    then one partition after the other, so that a commit rewrites few of them."""
    asked_again = {task.symbol for task in tasks if task.what == "daily" and task.again.size}
    jobs: dict[object, list[Task]] = {}
    for task in tasks:
        waits = task.symbol in asked_again and task.interval in ("1d", "1w", "1m")
        jobs.setdefault(task.symbol if waits else (task.what, task.symbol, int(task.days[0].astype(int))), []).append(
            task
        )
    for job in jobs.values():
        job.sort(key=lambda task: (task.what != "daily", not task.again.size, task.what))

    def place(job: list[Task]) -> tuple[bool, int, str]:
        chain = any(task.interval == "1m" for task in job)
        return not chain, group_of(job[0].symbol, job[0].interval), job[0].symbol

    return sorted(jobs.values(), key=place)


def checked(found: History, task: Task, origin: Origin) -> tuple[pa.Table, pa.Table]:
    """Separate bars, with the other columns that they came with, from what goes to quarantine; both stamped."""
    rows, n, call = found.rows, found.rows.num_rows, CALLS[task.what].name
    if task.what == "index":
        rows = _scaled(rows, {"volume": origin.reading.index_volume, "turnover": origin.reading.index_turnover})
    elif origin.reading.evening and task.what in ("daily", "weekly"):
        ends = day_ends(rows["date"].to_numpy().astype("datetime64[D]"), origin.venue, evening=True)
        rows = rows.set_column(rows.column_names.index("ts"), "ts", ends)
    shared = {"symbol": task.symbol, "venue": origin.venue, "interval": task.interval, "file": call}
    for name, value in shared.items():
        rows = rows.append_column(name, pa.repeat(value, n))
    good, wrong = quality.check(rows.append_column("line", pa.array(np.arange(1, n + 1))), market="KRX")
    unread = [
        {**shared, "line": line, "reason": "unreadable", "row": text} for line, text in enumerate(found.unread, n + 1)
    ]
    wrong = pa.concat_tables([wrong, pa.Table.from_pylist(unread, wrong.schema)])
    return origin.stamp(good), origin.stamp(wrong)


def _scaled(rows: pa.Table, units: Mapping[str, float]) -> pa.Table:
    for name, unit in units.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(rows[name].to_numpy() * unit))
    return rows
