"""The broker's pages into the lake: several symbols in flight, whole histories committed in columnar chunks.

Everything that a history needs (checks, corporate actions, comparison with what the lake holds) is done when it is
complete, so that what is committed never depends on where an earlier attempt stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa

from storage.emit import Emit
from storage.lake import Lake
from storage.schema import BARS

from . import krx
from .archive import Recorder
from .batch import Batch
from .coverage import Coverage, by_symbol
from .kis import history
from .kis.client import KisClient
from .kis.pages import History
from .origin import Origin, checked, flow_rows
from .rewritten import Rewritten, compared
from .task import Task, jobs

COMMIT_S = 60.0  # a killed run asks again for what came in since the last commit: no more than this
TELL_S = 0.1
SETTLED = np.timedelta64(7, "D")  # after so long the broker knows who bought and sold


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
        self._batch, self._committed_at = Batch(), time.monotonic()
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
        queue = iter(jobs(tasks))
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
        return self._batch.keep(task, good, wrong, self._heard(recorder, task))

    def _heard(self, recorder: Recorder, task: Task) -> pa.Table:
        return self._origin.stamp(recorder.pages(task.symbol, task.interval, self._origin.venue))

    async def _flows(self, task: Task, recorder: Recorder, moved: history.Moved) -> int:
        """Take the flows of the days that the broker still has. Days without any are covered once they are some days
        old: those of the latest sessions may not be known yet."""
        latest, venue = task.what == "latest_flows", self._origin.venue
        found = await history.flows(recorder, task.symbol, task.days, venue=venue, moved=moved, latest=latest)
        n = found.rows.num_rows
        answered = found.rows["date"].to_numpy().astype("datetime64[D]")
        self._batch.take("flows", flow_rows(found, task, self._origin))
        if not latest:
            newest = max(one.days[-1] for one in self._tasks)
            answered = np.union1d(answered, task.days[task.days < newest - SETTLED])
        if answered.size:
            self._batch.answer(task, answered[0], answered[-1], n)
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
        batch = Batch()
        batch.keep(whole, good, wrong, self._heard(recorder, task))
        async with self._turn:
            await asyncio.to_thread(self._swap, whole, batch)
        return int(good.num_rows)

    def _swap(self, task: Task, batch: Batch) -> None:
        origin = {"source": self._origin.source}
        here = origin | {"venue": self._origin.venue, "interval": task.interval}
        self._coverage.forget(task.interval, {task.symbol: task.days})
        self._lake.remove("pages", symbols=[task.symbol], **here)
        bars = pa.concat_tables(batch.tables.pop("bars", [BARS.empty_table()]))
        self._lake.replace("bars", bars, symbols=[task.symbol], **here)
        if task.what == "daily" and self._origin.venue == "KRX":
            self._lake.remove("actions", symbols=[task.symbol], **origin)
        batch.write(self._lake, self._coverage)

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

    def _due(self) -> bool:
        return self._batch.rows >= self._chunk or time.monotonic() - self._committed_at > COMMIT_S

    async def _commit(self, still: Callable[[], bool] = lambda: True) -> None:
        """Write the batch to the lake; of those who waited for it only the first does so."""
        async with self._turn:
            if (self._batch.answered or self._batch.tables) and still():
                batch, self._batch = self._batch, Batch()
                await asyncio.to_thread(batch.write, self._lake, self._coverage)
                self._committed_at = time.monotonic()

    def _tell(self, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._told >= TELL_S:
            self._told = now
            self._emit("progress", done=self._done, total=max(self._total, self._done), unit="rows")
