"""What there is to fetch: the days that are asked for, less those that the lake has, and what that will cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from storage.emit import Emit

from . import krx
from .coverage import Coverage
from .days import runs, week_ends
from .kis.columns import Days
from .kis.layouts import INVESTORS, Tr
from .kis.quotations import INVESTORS_DAILY
from .request import IngestSection
from .symbols import Directory
from .task import CALLS, MINUTES_A_DAY, Task, What

KEPT = np.timedelta64(365, "D")  # minutes older than this the broker does not have
AGAIN = 60  # sessions before new ones that are asked for again: they come on the same page
_CALLS: dict[What, Tr] = {**CALLS, "flows": INVESTORS_DAILY, "latest_flows": INVESTORS}


@dataclass(frozen=True)
class Plan:
    """Hold what a run would fetch. seconds : at the rate limit, None without one."""

    tasks: list[Task]
    calls: int
    rows: int
    seconds: float | None

    def lines(self) -> list[str]:
        """Return the plan as text, a line a kind of history."""
        out = []
        for what in dict.fromkeys(task.what for task in self.tasks):
            mine = [task for task in self.tasks if task.what == what]
            days = sum(len(task.days) for task in mine)
            first, last = min(task.days[0] for task in mine), max(task.days[-1] for task in mine)
            out.append(
                f"{what:<8} {len({task.symbol for task in mine}):>6} symbols {days:>9} sessions {first}..{last} "
                f"{sum(map(calls_of, mine)):>8} calls {sum(task.guess for task in mine):>10} rows"
            )
        return [*out, str(self)]

    def __str__(self) -> str:
        """Say it in one line."""
        if not self.tasks:
            return "plan: the lake has all that is asked for"
        end = "" if self.seconds is None else f", {_spoken(self.seconds)} at the rate limit"
        return f"plan: about {self.calls:,} calls for {self.rows:,} rows{end}"


def plan(tasks: list[Task], *, rate: float) -> Plan:
    """Count what tasks will cost; `rate` calls a second, 0 = no limit."""
    calls = sum(map(calls_of, tasks))
    return Plan(tasks, calls, sum(task.guess for task in tasks), calls / rate if rate else None)


def calls_of(task: Task) -> int:
    """Return how many calls a task takes when nothing goes wrong."""
    days = len(task.days) + len(task.again)
    if task.what in ("minute", "today"):
        return -(-days * task.minutes // _CALLS[task.what].max_rows)
    return max(1, -(-(days // 5 if task.what == "weekly" else days) // _CALLS[task.what].max_rows))


def wanted(
    found: Directory, chosen: list[str], ingest: IngestSection, coverage: Coverage, today: date, emit: Emit
) -> list[Task]:
    """Say what to fetch: bars of the days on which a symbol was listed, minutes of the largest that still are."""
    sessions, late = krx.sessions(ingest.first, ingest.end), ingest.since == "last"
    tasks: list[Task] = []
    for symbol in chosen:
        days = _listed(found, symbol, sessions)
        if ingest.daily:
            tasks += open_days("daily", symbol, days, coverage, since_last=late)
        if ingest.weekly:
            tasks += open_days("weekly", symbol, _whole_weeks(days, ingest.end), coverage, since_last=late)
        if ingest.investors:
            tasks += open_days("flows", symbol, days, coverage, since_last=late)
    for code in ingest.indices:
        tasks += open_days("index", code, sessions, coverage, since_last=late)
    recent = sessions[-ingest.minute_days :]
    old = recent < np.datetime64(today, "D") - KEPT
    if ingest.minute_symbols and old.any():
        text = f"no minute bars of {old.sum()} sessions to {recent[old][-1]}: the broker keeps them for a year"
        emit("log", level="warning", text=text)
        recent = recent[~old]
    whole = [s for s in found.alive(chosen) if recent.size and found.listed(s, recent[0].item(), recent[0].item())]
    begun = set(coverage.symbols("1m")) if ingest.minute_symbols else set()  # goes on though others have grown larger
    for symbol in [s for at, s in enumerate(whole) if at < ingest.minute_symbols or s in begun]:
        tasks += open_days("minute", symbol, recent, coverage, since_last=late)
    return tasks


def on_paper(tasks: list[Task], today: date) -> list[Task]:
    """Ask for today's minutes and for the latest flows by the calls that the paper environment has."""
    one = np.array([today], "datetime64[D]")
    out = []
    for task in tasks:
        if task.what == "minute" and (task.days == one).all():
            task = Task("today", task.symbol, one)
        elif task.what == "flows":
            task = Task("latest_flows", task.symbol, task.days[-INVESTORS.max_rows :])
        out.append(task)
    return out


def _listed(found: Directory, symbol: str, sessions: Days) -> Days:
    row = found.rows[symbol]
    days = sessions[sessions >= np.datetime64(row["listed"], "D")] if row["listed"] else sessions
    return days[days <= np.datetime64(row["delisted"], "D")] if row["delisted"] else days


def _whole_weeks(days: Days, end: date) -> Days:
    """Leave out the days of a week that is not over at `end`."""
    return days[week_ends(days) <= np.datetime64(end)]


def open_days(what: What, symbol: str, days: Days, coverage: Coverage, *, since_last: bool = False) -> list[Task]:
    """Return the runs of days that are not covered, each with the covered days about it that are worth asking again."""
    interval = Task(what, symbol, days).interval
    spans = coverage.spans(interval, symbol)
    missing = days[~coverage.covered(interval, symbol, days)]
    if since_last and spans:
        missing = missing[missing > spans[-1].last]
    tasks = []
    for run in runs(missing, krx.sessions(days[0], days[-1])) if missing.size else ():
        again = run[:0]
        if what in ("daily", "index"):
            before = [s for s in spans if s.last < run[0] and not krx.sessions(s.last, run[0])[1:-1].size]
            after = [s for s in spans if s.first > run[-1] and not krx.sessions(run[-1], s.first)[1:-1].size]
            parts = [krx.sessions(s.first, s.last)[-AGAIN:] for s in before]
            again = np.concatenate([again, *parts, *(np.array([s.first]) for s in after)])
        tasks.append(Task(what, symbol, run, again, MINUTES_A_DAY[coverage.venue]))
    return tasks


def _spoken(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
