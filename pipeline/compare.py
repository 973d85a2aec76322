"""Two sources of the same bars, row by row: what only one has, what differs, and why it does.

Sources differ for a few known reasons: another adjustment basis (the closes of a run of days have one ratio), rounding
after such an adjustment, halted days that one of them leaves out, stamps that mean another moment. What these explain
is counted by reason, so that the rest, which nothing explains, can be seen. Two sources without a common row are not
called equal: nothing can be said of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import Lake

from .disagreement import Disagreement
from .series import COLUMNS, Series

DAILY_AT_ONCE, INTRADAY_AT_ONCE = 128, 8  # symbols read together: some million rows


def audit(
    lake: Lake,
    source: str,
    against: str,
    *,
    interval: str,
    venue: str | None = None,
    symbols: Iterable[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 20,
) -> Disagreement:
    """Compare the bars of two sources in the lake, some symbols at a time, so that neither is in memory as a whole.

    `symbols` None: all that either source has. Raises ValueError when a source has one bar at several venues and
    `venue` does not choose.
    """
    wanted = None if symbols is None else sorted(set(symbols))
    if wanted is None:
        equal = {"interval": interval} | ({} if venue is None else {"venue": venue})
        wanted = sorted({name for one in (source, against) for name in lake.counts("bars", source=one, **equal)})
    at_once = DAILY_AT_ONCE if interval in ("1d", "1w", "1mo") else INTRADAY_AT_ONCE
    place: dict[str, Any] = {} if venue is None else {"venue": venue}
    total = Disagreement(limit)
    for members in lake.groups(interval, source=source, symbols=wanted).values():
        for at in range(0, len(members), at_once):
            some = members[at : at + at_once]
            found = [
                lake.read(
                    "bars",
                    columns=["symbol", "interval", "ts", *COLUMNS],
                    symbols=some,
                    start=start,
                    end=end,
                    interval=interval,
                    source=one,
                    **place,
                )
                for one in (source, against)
            ]
            total.add(compare(*found, limit=limit))
    return total


def compare(left: pa.Table, right: pa.Table, *, tolerance: float = 1e-9, limit: int = 20) -> Disagreement:
    """Compare two tables of bars joined on (symbol, interval, ts); `tolerance` is relative.

    A value that is NaN or null on one side only is no difference and counted as such. Raises ValueError when a table
    has two rows of one key.
    """
    total = Disagreement(limit, rows=[left.num_rows, right.num_rows])
    pair = (_Side(left), _Side(right))
    for series in sorted({*pair[0].series, *pair[1].series}):
        sides = [side.series.get(series) for side in pair]
        if sides[0] is None or sides[1] is None:
            for one, alone in zip(sides, (total.left, total.right)):
                if one is not None:
                    alone.missing[series[0]] += len(one["ts"])
        else:
            Series(series, sides[0], sides[1], tolerance, total).run()
    return total


class _Side:
    """One table cut into series: (symbol, interval) -> columns, oldest first."""

    def __init__(self, table: pa.Table) -> None:
        self.series: dict[tuple[str, str], dict[str, Any]] = {}
        if not table.num_rows:
            return
        table = table.sort_by([(name, "ascending") for name in ("symbol", "interval", "ts")])
        codes = [table[name].combine_chunks().dictionary_encode() for name in ("symbol", "interval")]
        numbers = [code.indices.to_numpy(zero_copy_only=False) for code in codes]
        names = [code.dictionary.to_pylist() for code in codes]
        columns: dict[str, Any] = {"ts": table["ts"].cast(pa.timestamp("us")).to_numpy().astype(np.int64)}
        for name in COLUMNS:
            columns[name] = pc.fill_null(table[name], np.nan).to_numpy() if name in table.column_names else None
        changes = (np.diff(numbers[0]) != 0) | (np.diff(numbers[1]) != 0)
        edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [table.num_rows]])
        if bool((~changes & (np.diff(columns["ts"]) == 0)).any()):
            at = int((~changes & (np.diff(columns["ts"]) == 0)).argmax())
            row = table.select(["symbol", "interval", "ts"]).slice(at, 1).to_pylist()[0]
            raise ValueError(
                f"expected one bar of {row['symbol']} {row['interval']} at {row['ts']}, got several; choose one venue "
                "and one source a side"
            )
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist()):
            key = (names[0][numbers[0][begin]], names[1][numbers[1][begin]])
            self.series[key] = {
                name: values[begin:end] if values is not None else np.full(end - begin, np.nan)
                for name, values in columns.items()
            }
