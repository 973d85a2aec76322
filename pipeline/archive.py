"""Answers of the broker as they came, kept so that bars can be made again without asking: after damage, or when a
mistake of our reading is found.

A table of the lake to which rows are only added; its oldest months are given up when it grows beyond its bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from storage.lake import Lake
from storage.schema import PAGES

from .coverage import by_symbol
from .kis.client import Answer
from .kis.columns import Days
from .kis.history import Asker
from .kis.layouts import TRS, Tr
from .kis.pages import History, of_pages

CODEC = "zstd"
_TRS = {tr.name: tr for tr in TRS}


@dataclass
class Recorder:
    """Ask on and, if asked to, keep what is heard: (name of the call, its parameters, the body, compressed)."""

    kis: Asker
    keep: bool
    heard: list[tuple[str, str, bytes]] = field(default_factory=list)

    async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
        """Return the page of a call."""
        answer = await self.kis.ask(tr, params, cont=cont)
        if not self.keep:
            return answer
        query = orjson.dumps(dict(params), option=orjson.OPT_SORT_KEYS).decode()
        self.heard.append((tr.name, query, pa.compress(answer.raw, codec=CODEC, asbytes=True)))
        return answer

    def pages(self, symbol: str, interval: str, venue: str) -> pa.Table:
        """Return what was heard as PAGES without source and ingested_at."""
        n = len(self.heard)
        columns = {
            "symbol": pa.repeat(symbol, n),
            "interval": pa.repeat(interval, n),
            "venue": pa.repeat(venue, n),
            "call": pa.array([call for call, _, _ in self.heard], pa.string()),
            "query": pa.array([query for _, query, _ in self.heard], pa.string()),
            "number": pa.array(range(n), pa.int32()),
            "body": pa.array([body for _, _, body in self.heard], pa.binary()),
        }
        return pa.table({name: columns[name] for name in PAGES.names if name in columns})


def histories(
    lake: Lake, symbols: Sequence[str], interval: str, days: Mapping[str, Days], *, source: str, venue: str
) -> Iterator[tuple[str, str, History]]:
    """Yield (symbol, name of the call, history of its `days`) made of kept pages alone; symbols without any are left
    out. Of a stamp that was fetched several times the first answer counts, as in the lake. Minutes of all fetches are
    one history: a minute's turnover is the difference of two totals. Raises LakeError, WireError.
    """
    kept = lake.read("pages", symbols=symbols, interval=interval, source=source, venue=venue)
    for symbol, own in by_symbol(kept).items():  # bodies stay compressed until it is their symbol's turn
        fetches: dict[str, dict[Any, list[dict[str, Any]]]] = {}
        for call, at, body in zip(*(own[name].to_pylist() for name in ("call", "ingested_at", "body"))):
            raw = pa.CompressedInputStream(pa.BufferReader(body), CODEC).read()
            fetches.setdefault(call, {}).setdefault(at, []).append(orjson.loads(raw))
        for call, pages in sorted(fetches.items()):
            fetched = [bodies for _, bodies in sorted(pages.items())]
            parts = [
                of_pages(_TRS[call], bodies, days[symbol], venue=venue, weekly=interval == "1w")
                for bodies in ([list(chain.from_iterable(fetched))] if interval == "1m" else fetched)
            ]
            unread = sorted({text for part in parts for text in part.unread})
            yield symbol, call, History(_first_said([part.rows for part in parts]), unread)


def _first_said(parts: Sequence[pa.Table]) -> pa.Table:
    seen: npt.NDArray[np.datetime64] = np.array([], "datetime64[us]")
    kept = []
    for rows in parts:
        ts = rows["ts"].to_numpy().astype("datetime64[us]")
        kept.append(rows.filter(pa.array(~np.isin(ts, seen))))
        seen = np.union1d(seen, ts)
    return pa.concat_tables(kept).sort_by("ts")
