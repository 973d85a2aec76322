"""History that the broker has rewritten: noticed where days that the lake holds are asked for again, and never mixed
with what the lake holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.schema import QUARANTINE

if TYPE_CHECKING:
    from .task import Task

PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume", "turnover")
REASON = "rewritten"
ROUNDING = 1e-9


@dataclass(frozen=True)
class Rewritten:
    """Hold the sessions of one history of which the broker now says something else than the lake holds."""

    symbol: str
    interval: str
    ts: tuple[np.datetime64, ...]
    lake: tuple[dict[str, float | None], ...]  # open ... turnover; empty = the lake has no such bar
    broker: tuple[dict[str, float | None], ...]  # empty = the broker has it no more
    prices: bool  # prices differ: what is new may be on another basis
    taken: bool = False  # the broker's whole history is put in the place of ours

    def __str__(self) -> str:
        """Say what differs and what was done about it."""
        ratios = {
            round(b["close"] / a["close"], 4)
            for a, b in zip(self.lake, self.broker)
            if a and b and a["close"] and b["close"]
        }
        how = (
            f"closes x {ratios.pop():g}" if len(ratios) == 1 and self.prices else "prices" if self.prices else "volumes"
        )
        kept = (
            "nothing was changed and the new sessions were not added, as they may be on another basis"
            if self.prices
            else "what the lake holds was kept"
        )
        todo = "--ingest.rewritten take puts its whole history in the place of ours"
        done = "its whole history is put in the place of ours" if self.taken else f"{kept}; {todo}"
        return (
            f"{self.symbol} {self.interval}: the broker has rewritten {len(self.ts)} sessions from "
            f"{str(self.ts[0])[:10]} to {str(self.ts[-1])[:10]} ({how}); {done}"
        )

    def rows(self) -> pa.Table:
        """Return what the broker says now as QUARANTINE without source and ingested_at."""
        rows = [
            {
                "file": "rewritten history",
                "line": -1,
                "symbol": self.symbol,
                "interval": self.interval,
                "ts": ts.item(),
                "reason": REASON,
                "row": f"broker {_shown(new)}; lake {_shown(old)}",
            }
            for ts, old, new in zip(self.ts, self.lake, self.broker)
        ]
        return pa.Table.from_pylist(rows, pa.schema([f for f in QUARANTINE if f.name not in ("source", "ingested_at")]))


def compared(task: Task, known: pa.Table | None, fresh: pa.Table) -> Rewritten | None:
    """Compare the bars that the lake holds of the days that a task asks for again with what the broker says of them.

    known, fresh : BARS sorted by ts. None when they agree; a bar that only the broker has is new and no disagreement.
    """
    if known is None:
        return None
    first, last = task.again[0], task.again[-1]
    old, new = (_of(table, first, last) for table in (known, fresh))
    day = old["ts"].astype("datetime64[D]")
    outside = (day < task.days[0]) | (day > task.days[-1])
    old = {name: values[outside] for name, values in old.items()}
    place = np.searchsorted(new["ts"], old["ts"])
    there = np.zeros(len(old["ts"]), bool)
    at = np.minimum(place, max(len(new["ts"]) - 1, 0))
    if len(new["ts"]):
        there = new["ts"][at] == old["ts"]
    differs = dict.fromkeys(VALUES, ~there)
    for name in VALUES if len(new["ts"]) else ():
        a, b = old[name], new[name][at]
        unknown = np.isnan(a) & (np.isnan(b) | (name == "turnover"))
        differs[name] = ~there | ~((np.abs(a - b) <= ROUNDING * np.abs(a)) | unknown)
    rows = np.flatnonzero(np.logical_or.reduce(list(differs.values())))
    if not rows.size:
        return None
    return Rewritten(
        symbol=task.symbol,
        interval=task.interval,
        ts=tuple(old["ts"][rows]),
        lake=tuple(_row(old, i) for i in rows),
        broker=tuple(_row(new, at[i]) if there[i] else {} for i in rows),
        prices=bool(np.logical_or.reduce([differs[name] for name in PRICES]).any()),
    )


def _of(bars: pa.Table, first: np.datetime64, last: np.datetime64) -> dict[str, npt.NDArray[Any]]:
    ts = bars["ts"].to_numpy().astype("datetime64[us]")
    day = ts.astype("datetime64[D]")  # the exchange closes within the same UTC day
    keep = (day >= first) & (day <= last)
    columns = {name: np.asarray(bars[name].to_numpy(zero_copy_only=False), np.float64)[keep] for name in VALUES}
    return {"ts": ts[keep], **columns}


def _row(columns: dict[str, npt.NDArray[Any]], at: Any) -> dict[str, float | None]:
    return {name: None if np.isnan(columns[name][at]) else float(columns[name][at]) for name in VALUES}


def _shown(row: dict[str, float | None]) -> str:
    return " ".join(f"{name}={value}" for name, value in row.items()) or "nothing"
