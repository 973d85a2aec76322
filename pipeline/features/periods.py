"""The calendar of blocks: years of daily and longer bars, months of minutes, as in the lake."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import pyarrow.compute as pc

from .. import krx, venues
from ..receipt import Receipt
from ..resample import MINUTES


class Period(NamedTuple):
    """Name a span of time; both stamps belong to it. since : from when on coarser bars belong to it too, because the
    spans before it have no bar of the finest.
    """

    name: str
    start: datetime
    end: datetime
    since: datetime | None = None


def periods(interval: str, first: date, last: date) -> list[Period]:
    """Return the periods, oldest first, of all bars that end on days from `first` to `last`, days of any zone."""
    months = interval in MINUTES
    begin, until = first - timedelta(days=1), last + timedelta(days=1)
    year, month = begin.year, begin.month if months else 1
    out = []
    while (year, month) <= (until.year, until.month):
        after = (year + 1, 1) if not months or month == 12 else (year, month + 1)
        start, end = datetime(year, month, 1, tzinfo=UTC), datetime(*after, 1, tzinfo=UTC)
        name = f"{year:04d}-{month:02d}" if months else f"{year:04d}"
        out.append(Period(name, start, end - timedelta(microseconds=1)))
        year, month = after
    return out


def whole(found: list[Period]) -> list[Period]:
    """Return one period of all of these, for what cannot go on from a state."""
    return [Period("all", found[0].start, found[-1].end)]


def clock(receipt: Receipt, interval: str) -> datetime:
    """Return the moment up to which a derived interval is complete: the end of the latest finer bar of any symbol, of
    daily ones the end of their day; so it is the same for every part of the symbols. The end of time for an interval
    that is not derived.
    """
    if interval in receipt.intervals:
        return datetime.max.replace(tzinfo=UTC)
    return _latest(receipt.model_dump_json(), receipt.finer(interval))


@lru_cache(maxsize=8)
def _latest(text: str, fine: str) -> datetime:
    # A receipt names its rows by their digest, so that the tasks of one process may share the answer.
    receipt = Receipt.model_validate_json(text)
    end = datetime.combine(receipt.end, time(), krx.KST)
    for start in (end - timedelta(days=7), None):  # a week answers nearly always
        latest = pc.max(receipt.bars(fine, columns=["ts"], start=start)["ts"]).as_py()
        if latest is not None:
            break
    else:
        return datetime.max.replace(tzinfo=UTC)
    if fine in MINUTES:
        return cast(datetime, latest)
    day = venues.days_of(receipt.venue, np.array([latest.replace(tzinfo=None)], "datetime64[us]"))
    close: datetime = venues.closes(receipt.venue, day)[0].item().replace(tzinfo=UTC)
    return max(cast(datetime, latest), close)
