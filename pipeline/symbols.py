"""Which symbols there are and were, and which of them a run takes.

The broker's master files name only what is listed today. A universe made of them alone would hold no company that
failed, so delisted symbols come from wherever they are known: the configuration, earlier runs, the simulator.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from storage.lake import Lake
from storage.schema import SYMBOLS

from .kis.client import KisClient
from .kis.columns import WireError
from .kis.errors import KisError
from .kis.facts import stock_info
from .kis.master import FILES, MASTER_ROWS, MasterMarket, parse_master, unzip_master

FACTS = tuple(name for name in SYMBOLS.names if name not in ("as_of", "source", "ingested_at"))


class SymbolError(Exception):
    """Symbols that the broker does not know, or none that fit."""


@dataclass(frozen=True)
class Directory:
    """Hold one row a symbol: the fields of schema.SYMBOLS but as_of, source and ingested_at, plus market_cap (KRW)."""

    rows: dict[str, dict[str, Any]]

    def table(self) -> pa.Table:
        """Return all rows as columns, sorted by symbol."""
        schema = pa.schema([SYMBOLS.field(name) for name in FACTS])
        return pa.Table.from_pylist([self.rows[symbol] for symbol in sorted(self.rows)], schema)

    def pick(self, start: date, end: date, *, kinds: Sequence[str], count: int, largest: bool) -> list[str]:
        """Return up to `count` symbols of these kinds that were listed on some day of start..end, in order of their
        code.

        largest=True takes those with the highest market value of today, a choice that knows the future of the range.
        """
        found = [s for s in sorted(self.rows) if self.rows[s]["kind"] in kinds and self.listed(s, start, end)]
        if largest:
            found.sort(key=lambda s: -self._value(s))
        return found[:count]

    def listed(self, symbol: str, start: date, end: date) -> bool:
        """Say whether a symbol was listed on some day of start..end, as far as its dates are known."""
        row = self.rows[symbol]
        return not (row["listed"] and row["listed"] > end) and not (row["delisted"] and row["delisted"] <= start)

    def alive(self, symbols: Iterable[str]) -> list[str]:
        """Return those that are not delisted, the highest market value first."""
        found = [s for s in symbols if self.rows[s]["delisted"] is None]
        return sorted(found, key=lambda s: (-self._value(s), s))

    def _value(self, symbol: str) -> float:
        value = self.rows[symbol]["market_cap"]
        return 0.0 if value is None or value != value else float(value)


async def directory(
    kis: KisClient,
    lake: Lake,
    source: str,
    *,
    markets: Sequence[MasterMarket],
    asked: Iterable[str],
    gone: Iterable[str],
) -> Directory:
    """Read the master files and ask about each symbol that they do not hold.

    `asked` are symbols that must exist: SymbolError names those that do not. `gone` are further symbols that may be
    delisted; to them come those that the lake knows of this source from earlier runs.
    """
    rows = {row["symbol"]: row for market in markets for row in (await _master(kis, market)).to_pylist()}
    before = lake.read("symbols", source=source).to_pylist()  # sorted by (symbol, as_of): the latest wins
    stocks = [row for row in before if row["kind"] != "index"]
    known = {row["symbol"]: {**{name: row[name] for name in FACTS}, "market_cap": None} for row in stocks}
    settled = {symbol for symbol, row in known.items() if row["delisted"]}  # nothing more can happen to these
    absent = sorted({*asked, *gone, *known} - rows.keys() - settled)
    answers = await asyncio.gather(*(_ask(kis, symbol) for symbol in absent))
    rows |= {symbol: known[symbol] for symbol in settled - rows.keys()}
    rows |= {symbol: found for symbol, answer in zip(absent, answers) if (found := answer or known.get(symbol))}
    unknown = sorted(set(asked) - rows.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], rows, 3)
        raise SymbolError(
            f"expected symbols that the broker knows in ingest.symbols, got {', '.join(unknown[:10])}"
            + (f"; did you mean {' or '.join(near)}?" if near else "; correct or remove them")
        )
    return Directory({symbol: {**dict.fromkeys((*FACTS, "market_cap")), **row} for symbol, row in rows.items()})


async def _master(kis: KisClient, market: MasterMarket) -> pa.Table:
    found = parse_master(unzip_master(await kis.master(f"{FILES[market]}.mst.zip")), market)
    return found.select([name for name in MASTER_ROWS.names if name in (*FACTS, "market_cap")])


async def _ask(kis: KisClient, symbol: str) -> dict[str, Any] | None:
    """Return what the broker says about a symbol that is not in its master files; None when it says nothing."""
    try:
        found = await stock_info(kis, symbol)
    except WireError:
        return None  # an answer without the object that describes a stock
    except KisError as error:
        if error.code == "capability":
            return None
        raise
    return {**found, "symbol": symbol} if found["name"] or found["listed"] else None
