"""Whole histories of a symbol out of pages that go backwards from the newest row.

Chart calls have no cursor: the next page is asked for from just before the oldest row of the last one. Pages may
overlap, repeat rows, hold empty ones, be an older page once more or reach into earlier days, so nothing is concluded
from how many rows a page has, and a page without anything new is asked for once more before it is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipeline import krx

from .client import KisClient
from .columns import Days, WireError
from .layouts import DAILY, DAILY_ROWS, MINUTE_ROWS, MINUTES_PAST, STOCK_INFO, Tr
from .wire import compact, minute_bars, parse_daily, parse_minutes, parse_stock_info

MARKET_CODES = {"KRX": "J", "NXT": "NX", "UN": "UN"}
_EVENING = (np.timedelta64(8, "h"), np.timedelta64(20, "h"))
HOURS = {"NXT": _EVENING, "UN": _EVENING}  # since midnight; KRX: by its calendar
ASK = 2  # times that a page without anything new is asked for
_KST, _MINUTE = np.timedelta64(9, "h"), np.timedelta64(1, "m")
Moved = Callable[[int], None]


@dataclass(frozen=True)
class History:
    """Hold the rows of one symbol, oldest first, and the texts of rows that could not be read."""

    rows: pa.Table
    unread: list[str]


async def daily(kis: KisClient, symbol: str, start: date, end: date, *, venue: str, moved: Moved) -> History:
    """Fetch raw daily bars of start..end as DAILY_ROWS, oldest first; `moved` is told how many new rows a page brought.

    Sessions without a row are asked for again by themselves; what stays missing then, the broker does not have.
    Raises KisError.
    """
    found = _Found(parse_daily, DAILY, DAILY_ROWS)
    every = krx.sessions(start, end)
    waiting = (
        [(every, 0)] if every.size else []
    )  # runs of sessions, newest run last, and how often they brought nothing
    while waiting:
        run, asked = waiting.pop()
        answer = await kis.ask(
            DAILY,
            {
                "FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue],
                "FID_INPUT_ISCD": symbol,
                "FID_INPUT_DATE_1": compact(run[:1])[0],
                "FID_INPUT_DATE_2": compact(run[-1:])[0],
                "FID_PERIOD_DIV_CODE": "D",
                "FID_ORG_ADJ_PRC": "1",  # raw; inquire-daily-price means the opposite by its 1
            },
        )
        rows = found.add(answer.body)
        here = run[np.isin(run, rows["date"].to_numpy().astype("datetime64[D]"))]
        moved(len(here))
        if not here.size:
            if asked + 1 < ASK:
                waiting.append((run, asked + 1))
            continue
        older = run[run < here[0]]
        missing = run[(run > here[0]) & ~np.isin(run, here)]
        waiting += [(part, asked) for part in (older, *_runs(missing, run)) if part.size]
    return found.history(lambda rows: _within(rows, every))


async def minutes(kis: KisClient, symbol: str, days: Days, *, venue: str, moved: Moved) -> History:
    """Fetch the minute bars of whole days (consecutive sessions, oldest first): MINUTE_ROWS, turnover for cumulative.

    `moved` is told how many new rows a page brought. A day of which the broker has nothing is passed over. Raises
    KisError.
    """
    found = _Found(parse_minutes, MINUTES_PAST, MINUTE_ROWS)
    if not days.size:
        return found.history(minute_bars)
    first, last = _labels(days, venue)
    day, asked = len(days) - 1, 0
    label = last[day]
    while day >= 0:
        answer = await kis.ask(
            MINUTES_PAST,
            {
                "FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue],
                "FID_INPUT_ISCD": symbol,
                "FID_INPUT_HOUR_1": np.datetime_as_string(label, unit="s")[11:].replace(":", ""),
                "FID_INPUT_DATE_1": compact(label.astype("datetime64[D]").reshape(1))[0],
                "FID_PW_DATA_INCU_YN": "Y",
            },
        )
        ends = found.add(answer.body)["ts"].to_numpy() + _KST
        ends = ends[(ends <= label + _MINUTE) & (ends >= first[0])]
        moved(len(ends))
        asked = 0 if ends.size else asked + 1
        if 0 < asked < ASK:
            continue
        if ends.size:
            oldest = ends.min()
            day = int(np.searchsorted(days, oldest.astype("datetime64[D]")))
            label = oldest - (_MINUTE if oldest == last[day] else 2 * _MINUTE)
        if not ends.size or label < first[day]:
            day, asked = day - 1, 0
            label = last[day]
    return found.history(lambda rows: minute_bars(_within(rows, days)))


async def stock_info(kis: KisClient, symbol: str) -> dict[str, Any]:
    """Fetch what KIS says about one stock, delisted ones included: one row of schema.SYMBOLS. Raises KisError."""
    answer = await kis.ask(STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": symbol})
    return parse_stock_info(answer.body)


class _Found:
    """Collect the rows of pages, each text once."""

    def __init__(self, parse: Callable[[Mapping[str, Any]], pa.Table], tr: Tr, schema: pa.Schema) -> None:
        self._parse, self._tr, self._parts = parse, tr, [schema.empty_table()]
        self._seen: set[str] = set()
        self._unread: list[str] = []

    def add(self, body: Mapping[str, Any]) -> pa.Table:
        """Read a page and return those of its rows that no page held before; a row that cannot be read is set aside."""
        # As text, not as orjson's bytes: those keep a buffer of 4 kB for a row of 300.
        page: dict[str, Any] = {orjson.dumps(row).decode(): row for row in body.get(self._tr.array) or () if row}
        texts = [text for text in page if text not in self._seen]
        self._seen.update(texts)
        while True:
            try:
                rows = self._parse({self._tr.array: [page[text] for text in texts]})
                break
            except WireError as error:
                if error.row < 0:
                    raise
                self._unread.append(texts.pop(error.row))
        self._parts.append(rows)
        return rows

    def history(self, chosen: Callable[[pa.Table], pa.Table]) -> History:
        return History(chosen(pa.concat_tables(self._parts).sort_by("ts")), sorted(self._unread))


def _within(rows: pa.Table, days: Days) -> pa.Table:
    return rows.filter(pa.array(np.isin(rows["date"].to_numpy().astype("datetime64[D]"), days)))


def _runs(days: Days, every: Days) -> list[Days]:
    """Cut days into runs that follow one another in `every`."""
    if not days.size:
        return []
    return np.split(days, np.flatnonzero(np.diff(np.searchsorted(every, days)) > 1) + 1)


def _labels(days: Days, venue: str) -> tuple[Days, Days]:
    """Return the labels, KST, of each day's first and last minute."""
    if venue in HOURS:
        opens, closes = HOURS[venue]
        return days + opens, days + closes
    return krx.session_opens(days) + _KST, krx.session_closes(days) + _KST
