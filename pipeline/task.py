"""What is fetched at a time: one kind of history of one symbol, and which of them have to follow one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from storage.lake import group_of

from .kis.columns import Days
from .kis.layouts import DAILY, INDEX_DAILY, MINUTES_PAST, MINUTES_TODAY, Tr

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
MINUTES_A_DAY = {"KRX": 381, "NXT": 690, "UN": 691}  # that can have a trade, on a usual day
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
    minutes: int = MINUTES_A_DAY["KRX"]  # of a day, at most

    @property
    def interval(self) -> str:
        return INTERVALS[self.what]

    @property
    def guess(self) -> int:
        """Rows that there may be."""
        each = {"minute": self.minutes, "today": self.minutes, "weekly": 0.2}.get(self.what, 1)
        return max(int(len(self.days) * each), 1)


def jobs(tasks: list[Task]) -> list[list[Task]]:
    """Put together what has to follow one another: where days are compared with what the lake holds, the other
    histories of the symbol wait for what comes of it. Long chains of pages come first, since they cannot be shared, and
    then one partition after the other, so that a commit rewrites few of them."""
    asked_again = {task.symbol for task in tasks if task.what == "daily" and task.again.size}
    found: dict[object, list[Task]] = {}
    for task in tasks:
        waits = task.symbol in asked_again and task.interval in ("1d", "1w", "1m")
        job = task.symbol if waits else (task.what, task.symbol, int(task.days[0].astype(int)))
        found.setdefault(job, []).append(task)
    for members in found.values():
        members.sort(key=lambda task: (task.what != "daily", not task.again.size, task.what))

    def place(job: list[Task]) -> tuple[bool, int, str]:
        chain = any(task.interval == "1m" for task in job)
        return not chain, group_of(job[0].symbol, job[0].interval), job[0].symbol

    return sorted(found.values(), key=place)
