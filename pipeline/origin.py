"""Where the rows of a run come from, and how what the broker said becomes rows of the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import pyarrow as pa

from storage.schema import BARS, FLOWS

from . import quality
from .kis.pages import History
from .kis.section import KisSection
from .kis.wire import day_ends
from .task import CALLS, Task


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
        return rows.append_column("source", pa.repeat(self.source, rows.num_rows)).append_column("ingested_at", at)


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


def flow_rows(found: History, task: Task, origin: Origin) -> pa.Table:
    """Return who bought and sold as FLOWS, turnovers in KRW."""
    rows = found.rows.append_column("symbol", pa.repeat(task.symbol, found.rows.num_rows))
    units = {name: origin.reading.flow_turnover for name in rows.column_names if name.endswith("_turnover")}
    return origin.stamp(_scaled(rows, units)).select(FLOWS.names)


def _scaled(rows: pa.Table, units: Mapping[str, float]) -> pa.Table:
    for name, unit in units.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(rows[name].to_numpy() * unit))
    return rows
