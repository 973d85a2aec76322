"""Which days of which symbol a source has been asked for and has answered in full: why a killed run goes on where it
stopped, why an evening asks for one day, and how a day without a trade is told from a day that was never asked for.

A table of the lake, written after the rows that it speaks of. It is believed only as far as the lake still holds as
many rows as it names; what the lake has lost is fetched again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby, pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa

from storage.lake import Lake
from storage.schema import COVERAGE

from . import krx
from .days import runs
from .kis.columns import Days

LOCK = ".coverage.lock"  # in the lake: spans are joined to those that are there, so one process at a time writes them
TABLES = {"flows": "flows"}  # by interval; every other interval is one of the table of bars


@dataclass(frozen=True)
class Span:
    """Say that all sessions from `first` to `last` were answered, and how many rows came of them."""

    first: np.datetime64
    last: np.datetime64
    rows: int


class Coverage:
    """Keep the spans of one source at one venue."""

    def __init__(self, lake: Lake, source: str, venue: str) -> None:
        self._lake, self.source, self.venue = lake, source, venue
        self._spans = self._read()

    def __bool__(self) -> bool:
        """Say whether anything is covered."""
        return bool(self._spans)

    def spans(self, interval: str, symbol: str) -> list[Span]:
        """Return the spans of a symbol, oldest first, none touching another."""
        return [span for span in self._spans.get((interval, symbol), []) if span.first <= span.last]

    def first(self, interval: str, symbol: str) -> np.datetime64:
        """Return the first day that was ever asked for of one of `symbols`."""
        return self._spans[interval, symbol][0].first

    def symbols(self, interval: str) -> list[str]:
        """Return the symbols that were ever asked for, also those of which nothing is covered any more."""
        return sorted(symbol for kind, symbol in self._spans if kind == interval)

    def days(self, interval: str, symbol: str) -> Days:
        """Return the sessions that are covered, oldest first."""
        parts = [krx.sessions(span.first, span.last) for span in self.spans(interval, symbol)]
        return np.concatenate([np.array([], "datetime64[D]"), *parts])

    def covered(self, interval: str, symbol: str, days: Days) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Say which of the days are covered."""
        out = np.zeros(len(days), bool)
        for span in self.spans(interval, symbol):
            out |= (days >= span.first) & (days <= span.last)
        return out

    def add(self, interval: str, answered: Iterable[tuple[str, Span]], but: Mapping[str, Days] | None = None) -> None:
        """Write down what the source has answered, after its rows were committed; spans that touch become one. `but`:
        days among them, by symbol, of which it left rows out, so that they are asked for again."""
        new = list(answered)
        names = sorted({symbol for symbol, _ in new})
        with self._alone(interval, names):
            for symbol, span in new:
                self._spans[interval, symbol] = self._joined(interval, symbol, span)
            self._take_out(interval, but or {})
            self._write(interval, names)

    def forget(self, interval: str, lost: Mapping[str, Days]) -> None:
        """Take days of symbols out, so that they are asked for again."""
        names = sorted(lost)
        with self._alone(interval, names):
            self._take_out(interval, lost)
            self._write(interval, names)

    def rebuild(self) -> None:
        """Write down anew, where the table was lost, what can be seen: sessions with bars follow one another. Days that
        were answered without a row are asked for again."""
        bars = self._lake.read("bars", columns=["symbol", "interval", "ts"], source=self.source, venue=self.venue)
        days = days_of(bars)
        table = bars.drop_columns(["ts"]).append_column("day", pa.array(days))
        counted = table.group_by(["interval", "symbol", "day"]).aggregate([([], "count_all")]).sort_by("day")
        own: dict[tuple[str, str], list[tuple[np.datetime64, int]]] = {}
        for row in zip(*(counted[name].to_pylist() for name in ("interval", "symbol", "day", "count_all"))):
            own.setdefault((row[0], row[1]), []).append((np.datetime64(row[2], "D"), row[3]))
        for (interval, symbol), held in own.items():
            every = np.array([day for day, _ in held], "datetime64[D]")
            rows = np.array([count for _, count in held])
            self._spans[interval, symbol] = [
                Span(run[0], run[-1], int(rows[(every >= run[0]) & (every <= run[-1])].sum()))
                for run in runs(every, krx.sessions(every[0], every[-1]))
            ]
        for interval in sorted({kind for kind, _ in own}):
            self._write(interval, self.symbols(interval))

    def distrust(self) -> dict[tuple[str, str], int]:
        """Forget the days that were answered and of which the lake has no rows any more, where it holds fewer rows of a
        symbol than are written down; return how many it misses. Of minutes, all days: a part of a day may be gone."""
        lost = self.lost()
        for interval in sorted({kind for kind, _ in lost}):
            names = [symbol for kind, symbol in lost if kind == interval]
            table = TABLES.get(interval, "bars")
            rows = self._lake.read(table, columns=["symbol", "ts"], symbols=names, **self._where(interval))
            held = {name: days_of(own) for name, own in by_symbol(rows).items()}
            gone = {}
            for name in names:
                days = self.days(interval, name)
                without = np.setdiff1d(days, held.get(name, days[:0]))
                gone[name] = without if without.size and interval != "1m" else days
            self.forget(interval, gone)
        return lost

    def lost(self) -> dict[tuple[str, str], int]:
        """Return of how many rows that are written down the lake has fewer, by interval and symbol."""
        lost: dict[tuple[str, str], int] = {}
        for interval in sorted({kind for kind, _ in self._spans}):
            held = self._lake.counts(TABLES.get(interval, "bars"), **self._where(interval))
            for symbol in self.symbols(interval):
                missing = sum(span.rows for span in self.spans(interval, symbol)) - held.get(symbol, 0)
                if missing > 0:
                    lost[interval, symbol] = missing
        return lost

    @contextmanager
    def _alone(self, interval: str, symbols: list[str]) -> Iterator[None]:
        """Let no other process of this host change spans while the block does; see first what others have written."""
        self._lake.path.mkdir(parents=True, exist_ok=True)
        with (self._lake.path / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._read(interval, symbols)
            for symbol in symbols:
                self._spans[interval, symbol] = known.get((interval, symbol), [])
            yield

    def _take_out(self, interval: str, lost: Mapping[str, Days]) -> None:
        for symbol, days in lost.items():
            parts = [krx.sessions(span.first, span.last) for span in self.spans(interval, symbol)]
            kept = [(run[0], run[-1]) for own in parts for run in runs(np.setdiff1d(own, days), own)]
            self._keep(interval, symbol, [Span(a, b, self._count(interval, symbol, a, b)) for a, b in kept])

    def _keep(self, interval: str, symbol: str, spans: list[Span]) -> None:
        """Leave these spans of a symbol, or an empty one where none is left: that it was asked for is not forgotten."""
        held = self._spans.get((interval, symbol))
        if not spans and held:
            spans = [Span(held[0].first, held[0].first - 1, 0)]
        self._spans[interval, symbol] = spans

    def _joined(self, interval: str, symbol: str, new: Span) -> list[Span]:
        kept: list[Span] = []
        touching = [new]
        for span in self.spans(interval, symbol):
            far = span.last < new.first and krx.sessions(span.last, new.first)[1:-1].size
            far = far or (span.first > new.last and krx.sessions(new.last, span.first)[1:-1].size)
            (kept if far else touching).append(span)
        first, last = min(span.first for span in touching), max(span.last for span in touching)
        overlapping = any(span.first <= new.last and new.first <= span.last for span in touching[1:])
        overlapping |= interval == "1w" and len(touching) > 1  # both may hold the week in which they meet
        rows = sum(span.rows for span in touching)
        kept.append(Span(first, last, self._count(interval, symbol, first, last) if overlapping else rows))
        return sorted(kept, key=lambda span: span.first)

    def _count(self, interval: str, symbol: str, first: np.datetime64, last: np.datetime64) -> int:
        found = self._lake.read(
            TABLES.get(interval, "bars"),
            columns=["ts"],
            symbols=[symbol],
            start=_moment(first),
            end=_moment(last + np.timedelta64(1, "D")),
            **self._where(interval),
        )
        return int(found.num_rows)

    def _where(self, interval: str) -> dict[str, Any]:
        bars = {} if interval in TABLES else {"venue": self.venue, "interval": interval}
        return {"source": self.source, **bars}

    def _read(self, interval: str = "", symbols: Iterable[str] | None = None) -> dict[tuple[str, str], list[Span]]:
        equal: dict[str, Any] = {"interval": interval} if interval else {}
        found = self._lake.read("coverage", symbols=symbols, source=self.source, venue=self.venue, **equal)
        rows = zip(*(found[name].to_pylist() for name in ("interval", "symbol", "first", "last", "rows")))
        return {
            key: [Span(np.datetime64(a, "D"), np.datetime64(b, "D"), n) for *_, a, b, n in group]
            for key, group in groupby(sorted(rows), lambda row: (row[0], row[1]))
        }

    def _write(self, interval: str, symbols: list[str]) -> None:
        if not symbols:
            return
        now = datetime.now(UTC)
        rows = [
            {
                "symbol": symbol,
                "interval": interval,
                "venue": self.venue,
                "source": self.source,
                "first": _day(span.first),
                "last": _day(span.last),
                "rows": span.rows,
                "ingested_at": now,
            }
            for symbol in symbols
            for span in self._spans[interval, symbol]
        ]
        table = pa.Table.from_pylist(rows, COVERAGE)
        equal = {"interval": interval, "venue": self.venue, "source": self.source}
        self._lake.replace("coverage", table, symbols=symbols, **equal)


def by_symbol(table: pa.Table) -> dict[str, pa.Table]:
    """Cut a table that is sorted by symbol into one table a symbol, without copying."""
    if not table.num_rows:
        return {}
    names = table["symbol"].combine_chunks().dictionary_encode()
    place = names.indices.to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(place)]
    return {names.dictionary[int(place[a])].as_py(): table.slice(a, b - a) for a, b in pairwise(cuts)}


def days_of(rows: pa.Table) -> Days:
    """Return the KST day of each row; a stamp is an end, so that midnight belongs to the day before."""
    ends: Days = rows["ts"].to_numpy() + np.timedelta64(9, "h")
    return (ends - np.timedelta64(1, "us")).astype("datetime64[D]")


def _day(day: np.datetime64) -> date:
    return cast(date, day.item())


def _moment(day: np.datetime64) -> datetime:
    """Return the beginning of a KST day; a stamp is an end, so that a bar of the day before may carry it."""
    return datetime.combine(_day(day), datetime.min.time(), krx.KST)
