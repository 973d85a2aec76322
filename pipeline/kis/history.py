"""Whole histories of a symbol out of pages that go backwards from the newest row.

Chart calls have no cursor: the next page is asked for from just before the oldest row of the last one. Pages may
overlap, repeat rows, hold empty ones, be an older page once more or reach into earlier days, so nothing is concluded
from how many rows a page has. A page without anything new, or that begins before what was asked for, is asked for once
more before it is believed, and one that only says again what was said before is not believed at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import krx
from pipeline.days import runs

from .client import Answer
from .columns import Days
from .layouts import DAILY, INDEX_DAILY, INVESTORS, MINUTES_PAST, MINUTES_TODAY, Tr
from .pages import History, Page, Pages, of_days
from .quotations import INVESTORS_DAILY
from .wire import compact, minute_bars

MARKET_CODES = {"KRX": "J", "NXT": "NX", "UN": "UN"}
ASK = 2  # times that a page without anything new is asked for
TORN = 5  # times that a page is asked for where turnovers prove that it left minutes out
STALE = 10  # times in a row that a page that was seen before may come in the place of another
_KST, _MINUTE = np.timedelta64(9, "h"), np.timedelta64(1, "m")
Moved = Callable[[int], None]


class Asker(Protocol):
    """Whoever answers calls: a client, or one that keeps what it hears."""

    async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
        """Return the page of a call."""
        ...


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
    return await _charted(kis, params, Pages(DAILY, venue=venue, weekly=period == "W"), days, moved)


async def index(kis: Asker, code: str, days: Days, *, moved: Moved) -> History:
    """Fetch daily levels of an index (0001 KOSPI, 1001 KOSDAQ, 2001 KOSPI 200) as INDEX_ROWS, oldest first. Raises
    KisError."""
    params = {"FID_COND_MRKT_DIV_CODE": "U", "FID_INPUT_ISCD": code, "FID_PERIOD_DIV_CODE": "D"}
    return await _charted(kis, params, Pages(INDEX_DAILY), days, moved)


async def flows(kis: Asker, symbol: str, days: Days, *, venue: str, moved: Moved, latest: bool = False) -> History:
    """Fetch who bought and sold on sessions as INVESTOR_ROWS, oldest first, without days whose flows are not known yet.

    `latest`: by the one call that the paper environment has too, which knows the latest 30 sessions. Raises KisError.
    """
    tr = INVESTORS if latest else INVESTORS_DAILY
    params = {"FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue], "FID_INPUT_ISCD": symbol}
    pages = Pages(tr)
    if latest:
        while (await _ask(kis, params, pages)).new.size:  # asked again while days between its ends are lacking
            held = pages.rows["date"].to_numpy().astype("datetime64[D]")
            if np.isin(days[(days > held.min()) & (days < held.max())], held).all():
                break
        whole = pages.history(days)
    else:
        whole = await _charted(kis, params, pages, days, moved)
    return History(whole.rows.drop_null(), whole.unread)


async def _ask(kis: Asker, params: Mapping[str, str], pages: Pages, most: int = STALE) -> Page:
    """Ask for a page until it is another one than those that came before, or has no rows, at most so many times."""
    for _ in range(most):
        page = pages.add((await kis.ask(pages.tr, params)).body)
        if page.new.size or not page.stamps.size:
            break
    return page


def _span(pages: Pages, run: Days) -> dict[str, str]:
    """Return the parameters that ask for a run of days; which day names a week is the broker's choice."""
    first, last = run[:1], run[-1:]
    if pages.weekly:
        first = first - (first.astype(np.int64) + 3) % 7
    days = (last,) if pages.tr is INVESTORS_DAILY else (first, last)  # its one date is the end
    return {f"FID_INPUT_DATE_{number}": compact(day)[0] for number, day in enumerate(days, 1)}


async def _charted(kis: Asker, params: Mapping[str, str], pages: Pages, days: Days, moved: Moved) -> History:
    """Go back page by page from the newest day, and again to where a page had a hole."""
    every = pages.named(days)
    waiting = [(every, 0)] if every.size else []  # runs of days, newest last, and how often they brought nothing
    while waiting:
        run, asked = waiting.pop()
        page = await _ask(kis, {**params, **_span(pages, run)}, pages)
        here = _among(run, pages.named(page.new.astype("datetime64[D]")))
        moved(len(here))
        if not here.size:
            if asked + 1 < ASK:
                waiting.append((run, asked + 1))
            continue
        older = run[run < here[0]]
        missing = np.setdiff1d(run[run > here[0]], here, assume_unique=True)
        waiting += [(part, asked) for part in (older, *runs(missing, run)) if part.size]
    return pages.history(every)


async def minutes(kis: Asker, symbol: str, days: Days, *, venue: str, moved: Moved, today: bool = False) -> History:
    """Fetch the minute bars of whole days (consecutive sessions, oldest first): MINUTE_ROWS, turnover for cumulative.

    `moved` is told how many new rows a page brought. A day of which the broker has nothing is passed over. `today`: the
    one day is the broker's today, which the call for today's minutes answers, in the paper environment too. Days that
    are torn after all asking are among them: torn_days names them. Raises KisError.
    """
    tr = MINUTES_TODAY if today else MINUTES_PAST
    pages = Pages(tr)
    if not days.size:
        return pages.history(days)
    first, last = _labels(days, venue)
    day, asked = len(days) - 1, 0
    label = last[day]

    async def page(label: np.datetime64, *, sure: bool = False) -> Page:
        params = {
            "FID_COND_MRKT_DIV_CODE": MARKET_CODES[venue],
            "FID_INPUT_ISCD": symbol,
            "FID_INPUT_HOUR_1": np.datetime_as_string(label, unit="s")[11:].replace(":", ""),
            "FID_INPUT_DATE_1": compact(label.astype("datetime64[D]").reshape(1))[0],
            "FID_PW_DATA_INCU_YN": "N" if today else "Y",
        }
        return await _ask(kis, params, pages, 1 if sure else STALE)

    while day >= 0:
        told = await page(label, sure=asked > 0)  # a minute without a trade has no row, however often it is asked for
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
    while torn := [label for label in _torn(of_days(pages.rows, days), last) if tried[label] < TORN]:
        for label in torn:
            tried[label] += 1
            moved(len((await page(label, sure=True)).new))
    return pages.history(days)


def torn_days(bars: pa.Table) -> Days:
    """Return the days, KST, of minute bars of one symbol (date, ts, high, volume, turnover) whose turnover proves that
    minutes are lacking."""
    bars = bars.sort_by("ts")
    return cast(Days, np.unique(bars["date"].to_numpy().astype("datetime64[D]")[_lacks(bars)]))


def _lacks(bars: pa.Table) -> npt.NDArray[np.bool_]:
    """Say of each minute bar, oldest first, whether minutes before it are lacking: a minute that is gone leaves its
    turnover to the next, which is then more than its highest price times its shares."""
    ts, day = bars["ts"].to_numpy(), bars["date"].to_numpy()
    room = np.ones(len(ts), bool)  # the first minute of a day may have lost those before it
    room[1:] = (day[1:] != day[:-1]) | (np.diff(ts) > _MINUTE)
    high, volume, turnover = (bars[name].to_numpy() for name in ("high", "volume", "turnover"))
    return cast(npt.NDArray[np.bool_], room & (turnover > high * volume + 1.0))


def _torn(rows: pa.Table, closes: Days) -> list[np.datetime64]:
    """Return the labels, KST, up to which minutes may be lacking: before bars that prove it, and where a day ends
    before its close."""
    bars = minute_bars(rows)
    ts, day = bars["ts"].to_numpy() + _KST, bars["date"].to_numpy()
    if not len(ts):
        return []
    more = _lacks(bars)
    labels = ts[more] - np.where(np.isin(ts[more], closes), _MINUTE, 2 * _MINUTE)
    ends = np.append(day[1:] != day[:-1], True)  # the last minute of each day, which may be lacking, too
    within = np.minimum(np.searchsorted(closes, ts[ends]), len(closes) - 1)
    early = closes[within][ts[ends] < closes[within]]
    return list(np.unique(np.concatenate([labels, early])))


def _among(run: Days, days: Days) -> Days:
    """Return the days of a sorted run that are among others; np.isin would sort both."""
    at = np.minimum(np.searchsorted(run, days), len(run) - 1)
    found = np.zeros(len(run), bool)
    found[at[run[at] == days]] = True
    return run[found]


def _labels(days: Days, venue: str) -> tuple[Days, Days]:
    """Return the labels, KST, of each day's first and last minute."""
    opens, closes = krx.extended_hours(days)
    if venue == "KRX":  # whose chart ends with the closing auction
        opens, closes = krx.session_opens(days), krx.session_closes(days)
    return opens + _KST, closes + _KST
