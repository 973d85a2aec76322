"""What of an ingest is already in the lake, so that a killed run goes on where it stopped.

One line a unit of work (an interval of a symbol), written after the lake has committed its rows. Nothing is believed
for being written down: a unit counts as done only when the lake still holds rows of the digest that the journal
names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from storage.lake import Lake
from storage.schema import KEYS, SCHEMAS, content_digest
from storage.section import digest_of
from storage.store import replacing

FILE = ".journal.jsonl"  # a hidden name: no part of the stage's result


@dataclass(frozen=True)
class Unit:
    """Name one interval of one symbol, its rows and the digests of its bars and corporate actions."""

    interval: str
    symbol: str
    rows: int
    bars: str
    actions: str = ""
    quarantined: dict[str, int] = field(default_factory=dict)


class Journal:
    """Keep the units that were committed for one request to one lake; of another request's journal nothing is taken
    over.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
        """Open or begin the journal; `fresh` are facts of the run (its moment) that a continued run takes over from
        the first.
        """
        self._path = folder / FILE
        head, units = self._read()
        if head.get("request") != digest_of(request):
            head, units = {"request": digest_of(request), "facts": dict(fresh)}, []
        self.facts: dict[str, Any] = head["facts"]
        self.units = {(unit.interval, unit.symbol): unit for unit in units}
        with replacing(self._path) as temporary:  # without a torn last line
            temporary.write_bytes(_text([head, *map(asdict, self.units.values())]))

    def add(self, units: Iterable[Unit]) -> None:
        """Write down units whose rows the lake has committed."""
        units = list(units)
        with self._path.open("ab") as file:
            file.write(_text(map(asdict, units)))
            file.flush()
            os.fsync(file.fileno())
        self.units |= {(unit.interval, unit.symbol): unit for unit in units}

    def verify(self, lake: Lake, *, source: str, venue: str) -> None:
        """Forget every unit whose rows the lake does not hold as they were committed."""
        names = {symbol for _, symbol in self.units}
        actions = by_symbol(lake.read("actions", symbols=names, source=source)) if names else {}
        for interval in {interval for interval, _ in self.units}:
            wanted = [symbol for kind, symbol in self.units if kind == interval]
            found = by_symbol(lake.read("bars", symbols=wanted, source=source, venue=venue, interval=interval))
            for symbol in wanted:
                unit = self.units[interval, symbol]
                held = digest("bars", found.get(symbol))
                known = digest("actions", actions.get(symbol)) if unit.actions else ""
                if (held, known) != (unit.bars, unit.actions):
                    del self.units[interval, symbol]

    def _read(self) -> tuple[dict[str, Any], list[Unit]]:
        """Read up to the first line that is none: what follows a torn line was never acknowledged."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}, []
        head: dict[str, Any] = {}
        units: list[Unit] = []
        with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
            first = orjson.loads(lines[0]) if lines else {}
            head = {"request": first["request"], "facts": dict(first["facts"])}
            for line in lines[1:]:
                units.append(Unit(**orjson.loads(line)))
        return head, units


def remove(folder: Path) -> None:
    """Remove the journal of a run that is complete, so that a later one asks for everything anew."""
    (folder / FILE).unlink(missing_ok=True)


def by_symbol(table: pa.Table) -> dict[str, pa.Table]:
    """Cut a table that is sorted by symbol into one table a symbol, without copying."""
    if not table.num_rows:
        return {}
    names = table["symbol"].combine_chunks().dictionary_encode()
    place = names.indices.to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(place)]
    return {names.dictionary[int(place[a])].as_py(): table.slice(a, b - a) for a, b in pairwise(cuts)}


def digest(table: str, rows: pa.Table | None) -> str:
    """Name the rows of one symbol in a table of the lake; empty for none."""
    return content_digest(rows.select(SCHEMAS[table].names), KEYS[table]) if rows is not None and rows.num_rows else ""


def _text(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)
