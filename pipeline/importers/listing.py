"""Who the symbols are: names, markets and sectors from listings, from columns of the data files and from file names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import krx

from .cells import numbers
from .names import MARKETS, kind_of
from .rows import SAID, Rows, Symbols, said
from .section import SYMBOL_COLUMNS

Days = npt.NDArray[np.datetime64]
WATCHED = "관리종목"  # the exchange's name for issues under administration, here of the section that a stock is in


def of_bars(
    rows: Rows, day: Days, symbols: Symbols, last: Mapping[str, np.datetime64], names: Mapping[str, str]
) -> pa.Table:
    """Return the SYMBOLS rows of symbols with bars, sorted by symbol and day: one as of each day on which what the rows
    say about it changed, and one as of its last bar.

    day : (N,) day of each row. last : symbol -> day of its last bar. names : symbol -> company from the file names.
    """
    stands = _standing(rows, day, symbols) if rows.said else {}
    out: list[tuple[str, np.datetime64]] = []
    given: dict[str, list[str | None]] = {name: [] for name in SAID}
    for symbol in sorted(last):
        states = [one for one in stands.get(symbol, []) if one[0] <= last[symbol]]
        latest = states[-1][1] if states else {}
        for when, state in [*states, *([] if states and states[-1][0] == last[symbol] else [(last[symbol], latest)])]:
            out.append((symbol, when))
            for name in SAID:
                given[name].append(state.get(name))
            given["name"][-1] = given["name"][-1] or names.get(symbol)
    return _table([symbol for symbol, _ in out], np.array([when for _, when in out], "datetime64[D]"), given)


def with_ends(told: pa.Table, first: Days, last: Days) -> pa.Table:
    """Return SYMBOLS rows with the days of listing and delisting, for files that hold every symbol on every day.

    first, last : day of the first and the last bar of each row's symbol. A symbol that begins with the files was listed
    some time before, and one that is there at their end still is: null. Delisted is the first session without it.
    """
    n = told.num_rows
    listed = np.where(first > first.min(), first, np.datetime64("NaT")) if n else first
    delisted = np.full(n, np.datetime64("NaT"), "datetime64[D]")
    gone = np.flatnonzero(last < last.max()) if n else np.zeros(0, np.int64)
    if len(gone):
        sessions = krx.sessions(last[gone].min(), last.max())
        delisted[gone] = sessions[np.searchsorted(sessions, last[gone], side="right")]
    for name, days in (("listed", listed), ("delisted", delisted)):
        column = pa.array(days.astype("datetime64[D]"), pa.date32())
        told = told.set_column(told.column_names.index(name), SYMBOL_COLUMNS.field(name), column)
    return told


def _standing(rows: Rows, day: Days, symbols: Symbols) -> dict[str, list[tuple[np.datetime64, dict[str, str]]]]:
    """Return symbol -> (day, column -> text) for its first day and each day on which a text changed; an empty cell
    changes nothing.
    """
    order = np.lexsort((day, rows.symbol))
    owner, when = rows.symbol[order], day[order]
    new = np.append(True, owner[1:] != owner[:-1])[: len(owner)]
    starts = np.maximum.accumulate(np.where(new, np.arange(len(owner)), 0))
    held: dict[str, tuple[npt.NDArray[np.int32], list[str]]] = {}
    changed = new.copy()
    for name, (codes, texts) in rows.said.items():
        distinct = {text.strip(): i for i, text in reversed(list(enumerate(texts)))} | {"": -1}
        one = np.array([*(distinct[text.strip()] for text in texts), -1], np.int32)[codes[order]]
        one = one[np.maximum.accumulate(np.where(one >= 0, np.arange(len(one)), starts))]
        changed[1:] |= one[1:] != one[:-1]
        held[name] = one, texts
    out: dict[str, list[tuple[np.datetime64, dict[str, str]]]] = defaultdict(list)
    for i in np.flatnonzero(changed):
        state = {name: texts[codes[i]].strip() for name, (codes, texts) in held.items() if codes[i] >= 0}
        out[symbols.names[owner[i]]].append((when[i], state))
    return out


def of_listings(tables: Sequence[pa.Table], market: str, day: np.datetime64) -> pa.Table:
    """Return the SYMBOLS rows of listing files as of `day`; a later file's row goes before an earlier one's."""
    symbols = Symbols(market)
    found: dict[str, dict[str, str | None]] = {}
    for table in tables:
        codes, texts = said(table["code"])
        columns = {name: table[name].to_pylist() for name in SAID if name in table.column_names}
        for i, code in enumerate(codes):
            number = symbols.of_cell(texts[code]) if code >= 0 else -1
            if number >= 0:
                found[symbols.names[number]] = {name: cells[i] for name, cells in columns.items()}
    given = {name: [row.get(name) for row in found.values()] for name in SAID}
    return _table(list(found), np.full(len(found), day), given)


def _table(symbol: list[str], day: Days, given: dict[str, list[str | None]]) -> pa.Table:
    n = len(symbol)
    shares, _ = numbers(
        pa.chunked_array([pa.array([None if s is None else str(s) for s in given["shares"]], pa.string())])
    )
    sections = [text or "" for text in given["section"]]
    columns = {
        "symbol": symbol,
        "name": given["name"],
        "market": [None if m is None else MARKETS.get(m.strip(), m.strip()) for m in given["market"]],
        "sector": given["sector"],
        "kind": ["spac" if text.startswith("SPAC") else kind_of(s) for s, text in zip(symbol, sections)],
        "administrative": [text.startswith(WATCHED) if text else None for text in sections],
        "shares": pa.array(shares, from_pandas=True),
        "as_of": pa.array(day.astype("datetime64[D]")),
    }
    arrays = {
        f.name: pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in SYMBOL_COLUMNS
    }
    return pa.table(arrays)
