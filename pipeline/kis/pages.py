"""What the pages of one history say: each row once, whatever page it is on and however often it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
import pyarrow as pa

from pipeline.days import week_ends

from .columns import Days, WireError, rows_of
from .layouts import (
    DAILY,
    DAILY_ROWS,
    INDEX_DAILY,
    INDEX_ROWS,
    INVESTOR_ROWS,
    INVESTORS,
    MINUTE_ROWS,
    MINUTES_PAST,
    MINUTES_TODAY,
    Tr,
)
from .quotations import INVESTORS_DAILY
from .wire import day_ends, minute_bars, parse_daily, parse_index, parse_investors, parse_minutes

_READ: dict[str, tuple[Callable[..., pa.Table], pa.Schema]] = {
    DAILY.name: (parse_daily, DAILY_ROWS),
    INDEX_DAILY.name: (parse_index, INDEX_ROWS),
    MINUTES_PAST.name: (parse_minutes, MINUTE_ROWS),
    MINUTES_TODAY.name: (parse_minutes, MINUTE_ROWS),
    INVESTORS.name: (partial(parse_investors, tr=INVESTORS), INVESTOR_ROWS),
    INVESTORS_DAILY.name: (partial(parse_investors, tr=INVESTORS_DAILY), INVESTOR_ROWS),
}


@dataclass(frozen=True)
class History:
    """Hold the rows of one symbol, oldest first, and the texts of rows that could not be read."""

    rows: pa.Table
    unread: list[str]


class Page(NamedTuple):
    """The days or labels (KST) of a page's rows, and those of them that no page held before."""

    stamps: Days
    new: Days


class Pages:
    """Collect the rows of pages, each text once; `weekly` rows are named by the last session of their week."""

    def __init__(self, tr: Tr, *, venue: str = "KRX", weekly: bool = False) -> None:
        parse, schema = _READ[tr.name]
        self._parse = partial(parse, venue=venue) if tr is DAILY else parse
        self.tr, self.weekly, self._venue = tr, weekly, venue
        self._parts = [schema.empty_table()]
        self._key = [name for name in ("stck_bsop_date", "stck_cntg_hour") if name in tr.fields]
        self._seen: dict[str, Mapping[str, Any]] = {}  # rows by their key
        self._versions: dict[str, list[Mapping[str, Any]]] = {}  # further rows of a key that differ from the first
        self._waiting: list[Mapping[str, Any]] = []  # rows that are not read yet
        self._unread: list[str] = []

    def named(self, days: Days) -> Days:
        """Return the days under which bars of these days are found."""
        return np.unique(week_ends(days)) if self.weekly else days

    def add(self, body: Mapping[str, Any]) -> Page:
        """Take the rows of a page; they are read when the history is complete, which is many times faster."""
        rows = rows_of(self.tr, body).rows
        keys = self._keys(rows)
        stamps = _stamps(keys)
        if len(set(keys)) == len(keys) and self._seen.keys().isdisjoint(keys):
            self._seen.update(zip(keys, rows))
            self._waiting += rows
            return Page(stamps, stamps)
        new = []
        for key, row in zip(keys, rows):
            if key in self._seen:
                if any(self._same(row, other) for other in (self._seen[key], *self._versions.get(key, ()))):
                    continue
                self._versions.setdefault(key, []).append(row)
            else:
                self._seen[key] = row
            self._waiting.append(row)
            new.append(key)
        return Page(stamps, _stamps(new))

    def _keys(self, rows: list[Mapping[str, Any]]) -> list[str]:
        first, *second = self._key
        days = [str(row.get(first)) for row in rows]
        return [day + str(row.get(second[0])) for day, row in zip(days, rows)] if second else days

    def _same(self, row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Compare the fields that are read: a row with a field more is the same row."""
        return row == other or all(row.get(name) == other.get(name) for name in self.tr.fields)

    @property
    def rows(self) -> pa.Table:
        """All rows so far that can be read."""
        self._read(self._waiting)
        self._waiting = []
        return pa.concat_tables(self._parts)

    def _read(self, rows: list[Mapping[str, Any]]) -> None:
        """Read rows, or halves of them where one cannot be read, which is set aside."""
        if not rows:
            return
        try:
            found = self._parse({self.tr.array: rows})
        except WireError:
            if len(rows) == 1:
                self._unread.append(orjson.dumps(rows[0]).decode())
            else:
                self._read(rows[: len(rows) // 2])
                self._read(rows[len(rows) // 2 :])
            return
        if self.weekly:
            ends = week_ends(found["date"].to_numpy().astype("datetime64[D]"))
            found = found.set_column(found.column_names.index("date"), "date", pa.array(ends))
            found = found.set_column(found.column_names.index("ts"), "ts", day_ends(ends, self._venue))
        self._parts.append(found)

    def history(self, days: Days) -> History:
        """Return what the pages say of days: minutes as bars, oldest first."""
        rows = of_days(self.rows.sort_by("ts"), days)
        if self.tr in (MINUTES_PAST, MINUTES_TODAY):
            rows = minute_bars(rows)
        return History(rows, sorted(set(self._unread)))


def of_pages(tr: Tr, bodies: Iterable[Mapping[str, Any]], days: Days, *, venue: str, weekly: bool = False) -> History:
    """Read pages that were kept as if they came now: the same bars, in whatever order. Raises WireError."""
    pages = Pages(tr, venue=venue, weekly=weekly)
    for body in bodies:
        pages.add(body)
    return pages.history(pages.named(days))


def of_days(rows: pa.Table, days: Days) -> pa.Table:
    """Return the rows of some days."""
    return rows.filter(pa.array(np.isin(rows["date"].to_numpy().astype("datetime64[D]"), days)))


def _stamps(keys: Sequence[str]) -> Days:
    """Return days (YYYYMMDD) or labels (with HHMMSS) as datetime64[s]; texts that are neither are left out, and dates
    that do not exist are found out when the rows are read."""
    joined, widths = "".join(keys), set(map(len, keys))
    if not (len(widths) == 1 and widths <= {8, 14} and joined.isascii() and joined.isdigit()):
        keys = [key for key in keys if len(key) in (8, 14) and key.isascii() and key.isdigit()]
    numbers = np.array(list(map(int, keys)), np.int64)
    timed = bool(keys) and len(keys[0]) > 8
    clock, date = (numbers % 1_000_000, numbers // 1_000_000) if timed else (np.zeros_like(numbers), numbers)
    months = (date // 10_000 - 1970) * 12 + date // 100 % 100 - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]") + (date % 100 - 1)
    seconds = clock // 10_000 * 3600 + clock // 100 % 100 * 60 + clock % 100
    return cast(Days, days.astype("datetime64[s]") + seconds)
