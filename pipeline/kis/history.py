"""Whole histories of a symbol out of pages that go backwards from the newest row.

Chart calls have no cursor: the next page is asked for from just before the oldest row of the last one. Pages may
overlap, repeat rows, hold empty ones, be an older page once more or reach into earlier days, so nothing is concluded
from how many rows a page has. A page without anything new, or that begins before what was asked for, is asked for once
more before it is believed, and one that only says again what was said before is not believed at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import orjson
import pyarrow as pa

from pipeline import krx

from .client import Answer
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
from .wire import (
    compact,
    day_ends,
    minute_bars,
    parse_daily,
    parse_index,
    parse_investors,
    parse_minutes,
)

MARKET_CODES = {"KRX": "J", "NXT": "NX", "UN": "UN"}
ASK = 2  # times that a page without anything new is asked for
STALE = 10  # times in a row that a page that was seen before may come in the place of another
_KST, _MINUTE = np.timedelta64(9, "h"), np.timedelta64(1, "m")
Moved = Callable[[int], None]


class Asker(Protocol):
    """Whoever answers calls: a client, or one that keeps what it hears."""

    async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
        """Return the page of a call."""
        ...


@dataclass(frozen=True)
class History:
    """Hold the rows of one symbol, oldest first, and the texts of rows that could not be read."""

    rows: pa.Table
    unread: list[str]


async def daily(
    kis: Asker, symbol: str, days: Days, *, venue: str, moved: Moved, period: Literal["D", "W"] = "D"
) -> History:
    """Fetch raw bars of sessions as DAILY_ROWS, oldest first; `moved` is told how many new rows a page brought.

    period W: bars of the weeks in which the days are, each named by its week's last session; the days are whole weeks.
    Sessions without a row are asked for again by themselves; what stays missing then, the broker does not have.
    Raises KisError.
    """
    params = {
        "FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue],
        "FID_INPUT_ISCD": symbol,
        "FID_PERIOD_DIV_CODE": period,
        "FID_ORG_ADJ_PRC": "1",  # raw; inquire-daily-price means the opposite by its 1
    }
    found = _Found(partial(parse_daily, venue=venue), DAILY, DAILY_ROWS, weekly=period == "W", venue=venue)
    return await _charted(kis, params, found, days, moved)


async def index(kis: Asker, code: str, days: Days, *, moved: Moved) -> History:
    """Fetch daily levels of an index (0001 KOSPI, 1001 KOSDAQ, 2001 KOSPI 200) as INDEX_ROWS, oldest first. Raises
    KisError."""
    params = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": code, "FID_PERIOD_DIV_CODE": "D"}
    return await _charted(kis, params, _Found(parse_index, INDEX_DAILY, INDEX_ROWS), days, moved)


async def flows(kis: Asker, symbol: str, days: Days, *, venue: str, moved: Moved, latest: bool = False) -> History:
    """Fetch who bought and sold on sessions as INVESTOR_ROWS, oldest first, without days whose flows are not known yet.

    `latest`: by the one call that the paper environment has too, which knows the latest 30 sessions. Raises KisError.
    """
    tr = INVESTORS if latest else INVESTORS_DAILY
    params = {"FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue], "FID_INPUT_ISCD": symbol}
    found = _Found(partial(parse_investors, tr=tr), tr, INVESTOR_ROWS)
    if latest:
        while (await found.ask(kis, params)).new.size:  # asked again while days between its ends are lacking
            held = found.rows["date"].to_numpy().astype("datetime64[D]")
            if np.isin(days[(days > held.min()) & (days < held.max())], held).all():
                break
        return found.history(lambda rows: _within(rows, days).drop_null())
    whole = await _charted(kis, params, found, days, moved)
    return History(whole.rows.drop_null(), whole.unread)


async def _charted(kis: Asker, params: Mapping[str, str], found: _Found, days: Days, moved: Moved) -> History:
    """Go back page by page from the newest day, and again to where a page had a hole."""
    every = found.named(days)
    waiting = [(every, 0)] if every.size else []  # runs of days, newest last, and how often they brought nothing
    while waiting:
        run, asked = waiting.pop()
        page = await found.ask(kis, {**params, **found.span(run)})
        here = _among(run, found.named(page.new.astype("datetime64[D]")))
        moved(len(here))
        if not here.size:
            if asked + 1 < ASK:
                waiting.append((run, asked + 1))
            continue
        older = run[run < here[0]]
        missing = np.setdiff1d(run[run > here[0]], here, assume_unique=True)
        waiting += [(part, asked) for part in (older, *runs(missing, run)) if part.size]
    return found.history(lambda rows: _within(rows, every))


async def minutes(kis: Asker, symbol: str, days: Days, *, venue: str, moved: Moved, today: bool = False) -> History:
    """Fetch the minute bars of whole days (consecutive sessions, oldest first): MINUTE_ROWS, turnover for cumulative.

    `moved` is told how many new rows a page brought. A day of which the broker has nothing is passed over. `today`: the
    one day is the broker's today, which the call for today's minutes answers, in the paper environment too. Raises
    KisError.
    """
    tr = MINUTES_TODAY if today else MINUTES_PAST
    found = _Found(parse_minutes, tr, MINUTE_ROWS)
    if not days.size:
        return found.history(minute_bars)
    first, last = _labels(days, venue)
    day, asked = len(days) - 1, 0
    label = last[day]

    async def page(label: np.datetime64) -> _Page:
        params = {
            "FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue],
            "FID_INPUT_ISCD": symbol,
            "FID_INPUT_HOUR_1": np.datetime_as_string(label, unit="s")[11:].replace(":", ""),
            "FID_INPUT_DATE_1": compact(label.astype("datetime64[D]").reshape(1))[0],
            "FID_PW_DATA_INCU_YN": "N" if today else "Y",
        }
        return await found.ask(kis, params)

    while day >= 0:
        told = await page(label)
        here = told.stamps[(told.stamps <= label) & (told.stamps >= first[0])]
        moved(int((told.new >= first[0]).sum()))
        asked = 0 if here.size and here.max() == label else asked + 1
        if 0 < asked < ASK:
            continue
        asked = 0
        if here.size:
            oldest = here.min()
            day = int(np.searchsorted(days, oldest.astype("datetime64[D]")))
            label = oldest - _MINUTE
        if not here.size or label < first[day]:
            day -= 1
            label = last[day]
    tried: Counter[np.datetime64] = Counter()
    while torn := [label for label in _torn(_within(found.rows, days), last) if tried[label] < ASK]:
        for label in torn:
            tried[label] += 1
            moved(len((await page(label)).new))
    return found.history(lambda rows: minute_bars(_within(rows, days)))


def _torn(rows: pa.Table, closes: Days) -> list[np.datetime64]:
    """Return the labels, KST, up to which minutes may be lacking: where the turnover since the minute before is more
    than the minute's highest price times its shares, and where a day ends before its close."""
    rows = rows.sort_by("ts")
    ts, day, total = rows["ts"].to_numpy() + _KST, rows["date"].to_numpy(), rows["cumulative"].to_numpy()
    if not len(ts):
        return []
    follows = np.append(False, day[1:] == day[:-1])
    own = total - np.where(follows, np.append(0.0, total[:-1]), 0.0)
    more = own > rows["high"].to_numpy() * rows["volume"].to_numpy() + 1.0
    more &= ~follows | (np.append(_MINUTE, np.diff(ts)) > _MINUTE)
    labels = ts[more] - np.where(np.isin(ts[more], closes), _MINUTE, 2 * _MINUTE)
    ends = np.append(~follows[1:], True)  # the last minute of each day, which may be lacking, too
    within = np.minimum(np.searchsorted(closes, ts[ends]), len(closes) - 1)
    early = closes[within][ts[ends] < closes[within]]
    return list(np.unique(np.concatenate([labels, early])))


def of_pages(tr: Tr, bodies: Iterable[Mapping[str, Any]], days: Days, *, venue: str, weekly: bool = False) -> History:
    """Read pages that were kept as if they came now: the same bars, in whatever order. Raises WireError."""
    parse, schema = _READ[tr.name]
    parse = partial(parse_daily, venue=venue) if tr is DAILY else parse
    found = _Found(parse, tr, schema, weekly=weekly, venue=venue)
    for body in bodies:
        found.add(body)
    within = found.named(days)
    if schema is MINUTE_ROWS:
        return found.history(lambda rows: minute_bars(_within(rows, within)))
    return found.history(lambda rows: _within(rows, within))


class _Page(NamedTuple):
    """The days or labels (KST) of a page's rows, and those of them that no page held before."""

    stamps: Days
    new: Days


class _Found:
    """Collect the rows of pages, each text once; `weekly` rows are named by the last session of their week."""

    def __init__(
        self,
        parse: Callable[[Mapping[str, Any]], pa.Table],
        tr: Tr,
        schema: pa.Schema,
        *,
        weekly: bool = False,
        venue: str = "KRX",
    ) -> None:
        self._parse, self._tr, self._parts = parse, tr, [schema.empty_table()]
        self._key = [name for name in ("stck_bsop_date", "stck_cntg_hour") if name in tr.fields]
        self._seen: dict[str, Mapping[str, Any]] = {}  # rows by their key
        self._versions: dict[str, list[Mapping[str, Any]]] = {}  # further rows of a key that differ from the first
        self._waiting: list[Mapping[str, Any]] = []  # rows that are not read yet
        self._unread: list[str] = []
        self._weekly, self._venue = weekly, venue

    def named(self, days: Days) -> Days:
        """Return the days under which bars of these days are found."""
        return np.unique(week_ends(days)) if self._weekly else days

    def span(self, run: Days) -> dict[str, str]:
        """Return the parameters that ask for a run of days; which day names a week is the broker's choice."""
        first, last = run[:1], run[-1:]
        if self._weekly:
            first = first - (first.astype(np.int64) + 3) % 7
        days = (last,) if self._tr is INVESTORS_DAILY else (first, last)  # its one date is the end
        return {f"FID_INPUT_DATE_{number}": compact(day)[0] for number, day in enumerate(days, 1)}

    async def ask(self, kis: Asker, params: Mapping[str, str]) -> _Page:
        """Ask for a page until it is another one than those that came before, or has no rows."""
        for _ in range(STALE):
            page = self.add((await kis.ask(self._tr, params)).body)
            if page.new.size or not page.stamps.size:
                break
        return page

    def add(self, body: Mapping[str, Any]) -> _Page:
        """Take the rows of a page; they are read when the history is complete, which is many times faster."""
        rows = rows_of(self._tr, body).rows
        keys = self._keys(rows)
        stamps = _stamps(keys)
        if len(set(keys)) == len(keys) and self._seen.keys().isdisjoint(keys):
            self._seen.update(zip(keys, rows))
            self._waiting += rows
            return _Page(stamps, stamps)
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
        return _Page(stamps, _stamps(new))

    def _keys(self, rows: list[Mapping[str, Any]]) -> list[str]:
        first, *second = self._key
        days = [str(row.get(first)) for row in rows]
        return [day + str(row.get(second[0])) for day, row in zip(days, rows)] if second else days

    def _same(self, row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        """Compare the fields that are read: a row with a field more is the same row."""
        return row == other or all(row.get(name) == other.get(name) for name in self._tr.fields)

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
            found = self._parse({self._tr.array: rows})
        except WireError:
            if len(rows) == 1:
                self._unread.append(orjson.dumps(rows[0]).decode())
            else:
                self._read(rows[: len(rows) // 2])
                self._read(rows[len(rows) // 2 :])
            return
        if self._weekly:
            ends = week_ends(found["date"].to_numpy().astype("datetime64[D]"))
            found = found.set_column(found.column_names.index("date"), "date", pa.array(ends))
            found = found.set_column(found.column_names.index("ts"), "ts", day_ends(ends, self._venue))
        self._parts.append(found)

    def history(self, chosen: Callable[[pa.Table], pa.Table]) -> History:
        rows = self.rows
        return History(chosen(rows.sort_by("ts")), sorted(set(self._unread)))


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


def _among(run: Days, days: Days) -> Days:
    """Return the days of a sorted run that are among others; np.isin would sort both."""
    at = np.minimum(np.searchsorted(run, days), len(run) - 1)
    found = np.zeros(len(run), bool)
    found[at[run[at] == days]] = True
    return run[found]


_READ = {
    DAILY.name: (parse_daily, DAILY_ROWS),
    INDEX_DAILY.name: (parse_index, INDEX_ROWS),
    MINUTES_PAST.name: (parse_minutes, MINUTE_ROWS),
    MINUTES_TODAY.name: (parse_minutes, MINUTE_ROWS),
}


def _within(rows: pa.Table, days: Days) -> pa.Table:
    return rows.filter(pa.array(np.isin(rows["date"].to_numpy().astype("datetime64[D]"), days)))


def runs(days: Days, every: Days) -> list[Days]:
    """Cut days into runs that follow one another in `every`."""
    if not days.size:
        return []
    return np.split(days, np.flatnonzero(np.diff(np.searchsorted(every, days)) > 1) + 1)


def week_ends(days: Days) -> Days:
    """Return for each day the last session of its week (Monday to Sunday), or the day itself in a week without one."""
    if not days.size:
        return days
    monday = days - (days.astype(np.int64) + 3) % 7
    every = krx.sessions(max(monday.min(), krx.FIRST), min(monday.max() + 6, krx.LAST))
    last = every[np.maximum(np.searchsorted(every, monday + 6, side="right") - 1, 0)]
    return np.where((last >= monday) & (last <= monday + 6), last, days)


def _labels(days: Days, venue: str) -> tuple[Days, Days]:
    """Return the labels, KST, of each day's first and last minute."""
    opens, closes = krx.extended_hours(days)
    if venue == "KRX":  # whose chart ends with the closing auction
        opens, closes = krx.session_opens(days), krx.session_closes(days)
    return opens + _KST, closes + _KST
