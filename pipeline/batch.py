"""What was fetched and is not yet committed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from storage.lake import Lake
from storage.schema import ACTIONS, BARS, KEYS, PAGES

from . import actions
from .coverage import Coverage, Span
from .days import runs, week_ends
from .kis.columns import Days
from .kis.history import torn_days
from .task import Task


@dataclass
class Batch:
    """Hold rows by table of the lake, and what they answer: symbols and spans by interval, and the days of minutes by
    symbol that the broker left some out of."""

    tables: dict[str, list[pa.Table]] = field(default_factory=dict)
    answered: dict[str, list[tuple[str, Span]]] = field(default_factory=dict)
    torn: dict[str, Days] = field(default_factory=dict)
    rows: int = 0

    def take(self, name: str, rows: pa.Table) -> None:
        if rows.num_rows:
            self.tables.setdefault(name, []).append(rows)

    def keep(self, task: Task, good: pa.Table, wrong: pa.Table, pages: pa.Table) -> int:
        """Take a complete history; days that were only asked for again serve to find corporate actions. Return how many
        bars are new."""
        own = good["date"].to_numpy().astype("datetime64[D]")
        first, last = week_ends(task.days[[0, -1]]) if task.what == "weekly" else task.days[[0, -1]]
        new = (own >= first) & (own <= last)
        bars = good.filter(pa.array(new)).select(BARS.names)
        self.take("bars", bars)
        self.take("actions", actions.detect(good) if task.what == "daily" else ACTIONS.empty_table())
        self.take("quarantine", wrong)
        self.take("pages", pages)
        if task.interval == "1m" and (torn := torn_days(good)).size:
            self.torn[task.symbol] = np.union1d(torn, self.torn.get(task.symbol, torn))
        if task.what != "index":
            self.answer(task, task.days[0], task.days[-1], bars.num_rows)
        elif new.any():  # an index has no idle day: only what came before its first row is answered without one
            for run in runs(np.union1d(own[new], task.days[task.days < own.min()]), task.days):
                self.answer(task, run[0], run[-1], int(np.isin(own[new], run).sum()))
        return int(bars.num_rows)

    def answer(self, task: Task, first: np.datetime64, last: np.datetime64, rows: int) -> None:
        """Note that all days of a task from `first` to `last` were answered, with so many rows."""
        self.answered.setdefault(task.interval, []).append((task.symbol, Span(first, last, rows)))
        self.rows += rows

    def write(self, lake: Lake, coverage: Coverage) -> None:
        """Commit rows first and what is covered last: a run that is killed in between asks again."""
        for name, parts in self.tables.items():
            rows = pa.concat_tables(parts)
            if name == "actions" and coverage.venue != "KRX":
                rows = _unknown(lake, rows)
            if name == "pages":
                lake.append(name, rows.select(PAGES.names))
            else:
                lake.write(name, rows)
        for interval, answered in self.answered.items():
            coverage.add(interval, answered, self.torn if interval == "1m" else None)


def _unknown(lake: Lake, found: pa.Table) -> pa.Table:
    """Leave out actions that the lake has. They are the same on every venue, but only bars that end with KRX's close
    give the factor exactly; others have it from a rate of two decimals."""
    keys = list(KEYS["actions"])
    known = lake.read("actions", columns=keys, symbols=set(found["symbol"].to_pylist()))
    return found.join(known, keys, join_type="left anti")
