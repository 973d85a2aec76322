"""What ingest leaves behind: which bars there are, under which names, and the only way in which later stages find
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import Lake
from storage.schema import BARS, KEYS, content_digest
from storage.section import Section
from storage.store import read_json, write_json

from . import krx
from .resample import MINUTES, PERIODS, derive

FILE = "receipt.json"
LONGEST = {"1w": 7, "1mo": 31}  # days


class Receipt(Section):
    """Name one source's bars in a lake; the digests say what the rows were when it was written.

    symbols : what could be bought; indices : daily bars of these are there too, nothing that could be bought.
    """

    lake: str
    source: str
    venue: str
    market: str
    intervals: tuple[str, ...]
    symbols: tuple[str, ...]
    indices: tuple[str, ...] = ()
    start: date
    end: date
    close_only: bool
    rows: dict[str, int]
    digests: dict[str, str]
    versions: dict[str, int]
    quarantined: dict[str, int]

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read the receipt in an ingest directory."""
        return cls.model_validate(read_json(Path(directory) / FILE))

    def save(self, directory: str | Path) -> None:
        write_json(Path(directory) / FILE, self.model_dump(mode="json"))

    @cached_property
    def opened(self) -> Lake:
        return Lake(self.lake)

    def bars(
        self,
        interval: str,
        *,
        symbols: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        until: datetime | None = None,
    ) -> pa.Table:
        """Return raw bars sorted by (symbol, ts), only of this source, venue, range of days and these symbols.

        An interval that the lake does not hold is derived from a finer one; bars that are not complete are left out:
        those that end after `until`, by default the end of the latest finer bar that is read. Raises LakeError.
        """
        query = self._query(interval)
        query["symbols"] = self.symbols if symbols is None else symbols
        first = query["start"] if start is None else max(start, query["start"])
        query["end"] = query["end"] if end is None else min(end, query["end"])
        if interval in self.intervals:
            return self.opened.read("bars", columns=columns, **{**query, "start": first})
        # From the beginning of the longest bar that can hold the first moment: a part of a bar would be another bar.
        reach = timedelta(days=LONGEST.get(interval, 1))
        query |= {"interval": self.finer(interval), "start": max(first - reach, query["start"])}
        derived = derive(
            self.opened.read("bars", **query),
            interval,
            venue=self.venue,
            since=self.start,
            until=until,
            actions=self.actions(),
        )
        derived = derived.filter(pc.field("complete") & (pc.field("ts") >= first))
        return derived.select(list(columns or BARS.names))

    def finer(self, interval: str) -> str:
        """Return the interval from which another one is derived, empty where none is here."""
        fine = "1d" if interval in PERIODS else "1m" if interval in (*MINUTES, "1d") else ""
        return fine if fine in self.intervals else ""

    def groups(self, interval: str) -> dict[int, list[str]]:
        """Return this receipt's symbols by lake partition group."""
        return self.opened.groups(interval, source=self.source, symbols=self.symbols)

    def actions(self) -> pa.Table:
        """Return the corporate actions of this source and these symbols within the range, its first day excepted."""
        found = self.opened.read("actions", symbols=self.symbols, source=self.source)
        return found.filter((pc.field("ex_date") > self.start) & (pc.field("ex_date") <= self.end))

    def symbol_table(self) -> pa.Table:
        """Return one row a symbol: the latest that the source said about it."""
        found = self.opened.read("symbols", symbols=self.symbols, source=self.source)
        found = found.sort_by([("symbol", "ascending"), ("as_of", "ascending")])
        names = found["symbol"].to_pylist()
        last = [i + 1 == len(names) or names[i + 1] != name for i, name in enumerate(names)]
        return found.filter(pa.array(last, pa.bool_()))

    def current(self) -> bool:
        """Say whether the lake still holds what this receipt names; digests are compared only where a version moved."""
        for name, version in self.versions.items():
            if self.opened.version(name) == version:
                continue
            if name == "bars":
                fresh = {f"bars/{i}": self.opened.digest("bars", **self._query(i)) for i in self.intervals}
                fresh |= {"indices": self._digest("indices")} if self.indices else {}
            else:
                fresh = {name: self._digest(name)}
            if any(self.digests.get(k) != v for k, v in fresh.items()):
                return False
        return True

    def _digest(self, name: str) -> str:
        if name == "actions":
            return content_digest(self.actions(), KEYS[name])
        if name == "indices":
            return self.opened.digest("bars", **{**self._query("1d"), "symbols": self.indices})
        return self.opened.digest(name, symbols=self.symbols, source=self.source)

    def _query(self, interval: str) -> dict[str, Any]:
        # The lake may hold more of the source than was asked for. A stamp is an end: midnight ends the last day.
        start = datetime.combine(self.start, time(), krx.KST) + timedelta(microseconds=1)
        end = datetime.combine(self.end, time(), krx.KST) + timedelta(days=1)
        names = {"symbols": self.symbols, "source": self.source, "venue": self.venue, "interval": interval}
        return {**names, "start": start.astimezone(UTC), "end": end.astimezone(UTC)}


def take(lake: Lake, **known: object) -> Receipt:
    """Build a receipt for what `lake` holds now: rows, digests and versions are measured, the rest is given."""
    bare = Receipt.model_validate({**known, "lake": str(lake.path), "rows": {}, "digests": {}, "versions": {}})
    digests, rows, versions = {}, {}, {}
    for interval in bare.intervals:
        found = bare.bars(interval)
        rows[interval] = found.num_rows
        digests[f"bars/{interval}"] = content_digest(found)  # sorted by key already
    for name in ("actions", "symbols", *(["indices"] if bare.indices else [])):
        digests[name] = bare._digest(name)
    for name in ("bars", "actions", "symbols"):
        versions[name] = lake.version(name)
    return bare.model_copy(update={"rows": rows, "digests": digests, "versions": versions})
