"""Who the symbols are: names, markets and sectors from listings, from columns of the data files and from file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .cells import numbers
from .names import MARKETS, kind_of
from .rows import Rows, Symbols, said
from .section import SYMBOL_COLUMNS


def of_bars(
    symbol: Sequence[str],
    last: npt.NDArray[np.datetime64],
    names: Mapping[str, str],
    told: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """Return one SYMBOLS row for each symbol with bars, as of its last bar's day.

    names : symbol -> company from the file names; told : column -> symbol -> text from the data files.
    """
    given = {name: [told.get(name, {}).get(s) for s in symbol] for name in ("name", "market", "sector", "shares")}
    given["name"] = [told_name or names.get(s) for s, told_name in zip(symbol, given["name"])]
    return _table(list(symbol), last, given)


def last_said(rows: Rows, symbols: Symbols) -> dict[str, dict[str, str]]:
    """Return column -> symbol -> the last text that the rows say about it."""
    out: dict[str, dict[str, str]] = {}
    for name, (codes, texts) in rows.said.items():
        latest = np.full(len(symbols.names), -1, np.int32)
        known = (codes >= 0) & (rows.symbol >= 0)
        latest[rows.symbol[known]] = codes[known]  # of several rows the last one stays
        out[name] = {symbols.names[i]: texts[latest[i]] for i in np.flatnonzero(latest >= 0)}
    return out


def of_listings(tables: Sequence[pa.Table], market: str, day: np.datetime64) -> pa.Table:
    """Return the SYMBOLS rows of listing files as of `day`; a later file's row goes before an earlier one's."""
    symbols = Symbols(market)
    found: dict[str, dict[str, str | None]] = {}
    for table in tables:
        codes, texts = said(table["code"])
        columns = {
            name: table[name].to_pylist()
            for name in ("name", "market", "sector", "shares")
            if name in table.column_names
        }
        for i, code in enumerate(codes):
            number = symbols.of_cell(texts[code]) if code >= 0 else -1
            if number >= 0:
                found[symbols.names[number]] = {name: cells[i] for name, cells in columns.items()}
    given = {name: [row.get(name) for row in found.values()] for name in ("name", "market", "sector", "shares")}
    return _table(list(found), np.full(len(found), day), given)


def _table(symbol: list[str], day: npt.NDArray[np.datetime64], given: dict[str, list[str | None]]) -> pa.Table:
    n = len(symbol)
    shares, _ = numbers(
        pa.chunked_array([pa.array([None if s is None else str(s) for s in given["shares"]], pa.string())])
    )
    columns = {
        "symbol": symbol,
        "name": given["name"],
        "market": [None if m is None else MARKETS.get(m.strip(), m.strip()) for m in given["market"]],
        "sector": given["sector"],
        "kind": [kind_of(s) for s in symbol],
        "shares": pa.array(shares, from_pandas=True),
        "as_of": pa.array(day.astype("datetime64[D]")),
    }
    arrays = {
        f.name: pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in SYMBOL_COLUMNS
    }
    return pa.table(arrays)
