"""From parsed columns to bars: whose bar it is, when it ended, which numbers it has, and which rows cannot say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import TS

from . import cells
from .cells import NO_ZONE, Bools, Floats, Longs, Stamps
from .layout import Layout
from .names import MARKETS, NUMBERS, PRICES, READ, code_in, index_in
from .section import BAR_COLUMNS, ImportSection
from .stamps import Ints, numbers_of

Said = tuple[Ints, list[str]]  # a text column: codes (-1 = empty) into distinct texts
SAID = ("name", "market", "section", "sector", "shares")
REASONS = ("", "not_a_date", "unknown_symbol", "not_a_number", "columns_out_of_order", "unknown_interval")


@dataclass
class Symbols:
    """Give each symbol a number, one for all files of a load, and count codes that had lost their leading zeros."""

    market: str
    names: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    padded: int = 0

    def number(self, symbol: str) -> int:
        if symbol not in self.numbers:
            self.numbers[symbol] = len(self.names)
            self.names.append(symbol)
        return self.numbers[symbol]

    def of_cell(self, text: str | None) -> int:
        """Return the number of the symbol that a cell names, -1 where it names none."""
        text = (text or "").strip()
        if self.market != "KRX":
            return self.number(text) if text else -1
        text = text.removesuffix(".0")
        if text.isdigit() and len(text) < 6:
            self.padded += 1
            text = text.zfill(6)
        index = index_in(text)
        code = index[0] if index else code_in(text.upper())
        return self.number(code) if code else -1


@dataclass
class Rows:
    """Hold N rows as columns. symbol and said: codes; wall: as written, NaT = unreadable; offset: see cells.Times."""

    file: Ints
    line: Longs
    symbol: Ints
    wall: Stamps
    offset: Longs
    timed: Bools
    wrong: Bools  # a cell that is neither empty nor a number
    empty: Bools  # nothing in it at all
    values: dict[str, Floats]
    said: dict[str, Said]
    basis: set[str]

    def __len__(self) -> int:
        return len(self.file)


def of_table(
    table: pa.Table,
    layout: Layout,
    file: Ints,
    line: Longs,
    symbols: Symbols,
    owner: Callable[[int], int],
    section: ImportSection,
) -> Rows:
    """Read the columns of a table laid out as `layout` says; `owner` gives the symbol of a file that has no column of
    codes.
    """
    wall, offset, timed, dated = _stamps(table, section)
    n = table.num_rows
    if layout.kind == "wide":
        return _melted(
            table, layout, file, line, symbols, Rows(file, line, file, wall, offset, timed, dated, dated, {}, {}, set())
        )
    values, wrong, filled = {}, np.zeros(n, bool), np.zeros(n, bool)
    for name in READ:
        if name in table.column_names:
            values[name], odd = cells.numbers(table[name])
            wrong |= odd & (name != "change")  # a bar is none the worse for an arrow beside its change
            filled |= odd | ~np.isnan(values[name])
        elif name in NUMBERS:
            values[name] = np.full(n, np.nan)
    if "code" in table.column_names:
        codes, texts = said(table["code"])
        known = np.array([*(symbols.of_cell(t) for t in texts), -1], np.int32)
        symbol = known[codes]
    else:
        owners = np.full(int(file.max()) + 1 if n else 0, -1, np.int32)
        for f in numbers_of(file).tolist():
            owners[f] = owner(f)
        symbol = owners[file]
    told = {name: said(table[name]) for name in SAID if name in table.column_names}
    rows = Rows(file, line, symbol, wall, offset, timed, wrong, ~dated & ~filled, values, told, set())
    return _of_basis(rows, table, section)


def said(column: pa.ChunkedArray) -> Said:
    """Return a column as codes into its distinct texts; -1 where it is empty."""
    encoded = _encoded(column)
    texts = encoded.dictionary.cast(pa.string()).to_pylist()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return codes, texts


def together(parts: Sequence[Rows]) -> Rows:
    """Put rows of several layouts together."""
    if len(parts) == 1:
        return parts[0]
    plain = [f.name for f in fields(Rows) if f.name not in ("values", "said", "basis")]
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in plain}
    present = [name for name in READ if any(name in p.values for p in parts)]
    unknown = {name: [p.values.get(name, np.full(len(p), np.nan)) for p in parts] for name in present}
    values = {name: np.concatenate(found) for name, found in unknown.items()}
    told = {}
    for name in SAID:
        if any(name in p.said for p in parts):
            codes: list[Ints] = []
            texts: list[str] = []
            for p in parts:
                code, text = p.said.get(name, (np.full(len(p), -1, np.int32), []))
                codes.append(np.where(code < 0, -1, code + len(texts)).astype(np.int32))
                texts += text
            told[name] = (np.concatenate(codes), texts)
    return Rows(**columns, values=values, said=told, basis=set().union(*(p.basis for p in parts)))


def taken(rows: Rows, chosen: Bools) -> Rows:
    """Return some of the rows."""
    if chosen.all():
        return rows
    plain = {f.name: getattr(rows, f.name)[chosen] for f in fields(Rows) if f.name not in ("values", "said", "basis")}
    values = {name: value[chosen] for name, value in rows.values.items()}
    told = {name: (code[chosen], text) for name, (code, text) in rows.said.items()}
    return Rows(**plain, values=values, said=told, basis=rows.basis)


def bars(
    rows: Rows, ts: Longs, symbols: Symbols, interval: str, section: ImportSection, files: Sequence[str]
) -> pa.Table:
    """Return the rows as quality.check takes them: BARS without source and ingested_at, file, line and an empty row.

    Where the files tell the change from the day before there is a column base too: the price that it was counted from.
    """
    values = _unscaled(rows, symbols, section.price_scale) if section.price_scale else rows.values
    same = np.zeros(len(rows), np.int32)
    columns = {
        "symbol": _decoded(rows.symbol, symbols.names),
        "venue": _decoded(same, [section.venue]),
        "interval": _decoded(same, [interval]),
        "ts": pa.array(ts).cast(TS),
        **{name: pa.array(values[name]) for name in NUMBERS},
        "turnover": pa.array(values["turnover"], from_pandas=True),
    }
    ordered = {name: columns[name] for name in BAR_COLUMNS.names}
    if "change" in values:
        ordered["base"] = pa.array(values["close"] - values["change"])
    unread = pa.nulls(len(rows), pa.string())  # the text of a row is looked up only for those that end in quarantine
    return pa.table({**ordered, "file": _decoded(rows.file, files), "line": pa.array(rows.line), "row": unread})


def other_markets(rows: Rows, wanted: Sequence[str]) -> Bools:
    """Return the rows of markets that are not wanted; one that does not say its market is wanted."""
    out = np.zeros(len(rows), bool)
    if wanted and "market" in rows.said:
        codes, texts = rows.said["market"]
        names = [MARKETS.get(text.strip(), text.strip()).upper() for text in texts]
        chosen = [any(name == w or name.startswith(f"{w} ") for w in map(str.upper, wanted)) for name in names]
        out = ~np.array([*chosen, True], bool)[codes]
    return out


def _unscaled(rows: Rows, symbols: Symbols, scale: Mapping[str, float]) -> dict[str, Floats]:
    """Divide prices, and the changes between them, by their symbol's scale."""
    by_symbol = np.array([scale.get(name, scale.get("*", 1.0)) for name in symbols.names])
    divisor = by_symbol[rows.symbol]
    return {name: value / divisor if name in (*PRICES, "change") else value for name, value in rows.values.items()}


def faults(rows: Rows) -> npt.NDArray[np.int8]:
    """Return for each row the index in REASONS of what keeps it from being a bar.

    When most rows of a file have a close or an open outside high and low, its columns are not in the order that was
    taken for granted, and none of its rows is trusted.
    """
    out = np.zeros(len(rows), np.int8)
    for reason, broken in ((3, rows.wrong), (2, rows.symbol < 0), (1, np.isnat(rows.wall))):
        out[broken] = reason
    open_, high, low, close = (rows.values[name] for name in PRICES)
    crossed = (high < low) | (close > high) | (close < low) | (open_ > high) | (open_ < low)
    if crossed.any():
        compared = np.bincount(rows.file, ~np.isnan(high) & ~np.isnan(low) & (high != 0))
        unordered = (np.bincount(rows.file, crossed & (high != 0)) > 0.5 * compared) & (compared >= 10)
        out[unordered[rows.file] & (out == 0)] = 4
    return out


def _decoded(codes: Ints, texts: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(texts), pa.string()))


def _stamps(table: pa.Table, section: ImportSection) -> tuple[Stamps, Longs, Bools, Bools]:
    """Return (wall, offset, has a time of day, has anything in the cell)."""
    encoded = _encoded(table["date"])
    found = cells.times(encoded.dictionary, section.date_format)
    codes = pc.fill_null(encoded.indices, len(found.wall)).to_numpy(zero_copy_only=False)
    blank = np.array([not str(t).strip() for t in encoded.dictionary.to_pylist()] + [True], bool)
    wall = np.append(found.wall, np.datetime64("NaT"))[codes]
    offset, timed = np.append(found.offset, NO_ZONE)[codes], np.append(found.timed, False)[codes]
    if "time" in table.column_names:
        moments = _encoded(table["time"])
        clock = np.append(cells.clock(moments.dictionary), -1)
        moment = clock[pc.fill_null(moments.indices, len(clock) - 1).to_numpy(zero_copy_only=False)]
        wall = np.where(moment < 0, np.datetime64("NaT"), wall + moment.astype("timedelta64[us]"))
        timed = moment > 0
    return wall, offset, timed, ~blank[codes]


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], column.type)
    return whole


def _of_basis(rows: Rows, table: pa.Table, section: ImportSection) -> Rows:
    """Note which adjustment bases the rows have, and keep the one that the section names."""
    if "source" not in table.column_names:
        return rows
    codes, texts = said(table["source"])
    rows.basis = {texts[c] for c in np.unique(codes) if c >= 0}
    if not section.basis:
        return rows
    wanted = np.array([*(t == section.basis for t in texts), False], bool)
    return taken(rows, wanted[codes])


def _melted(table: pa.Table, layout: Layout, file: Ints, line: Longs, symbols: Symbols, stamps: Rows) -> Rows:
    """Turn one column of closes a symbol into rows; an empty cell is no row."""
    parts = []
    for _, symbol in layout.wide:
        close, wrong = cells.numbers(table[symbol])
        at = np.flatnonzero(~np.isnan(close) | wrong)
        values = {name: np.full(len(at), np.nan) for name in NUMBERS} | {"close": close[at]}
        number = np.full(len(at), symbols.number(symbol), np.int32)
        no = np.zeros(len(at), bool)
        columns = (file[at], line[at], number, stamps.wall[at], stamps.offset[at], stamps.timed[at], wrong[at], no)
        parts.append(Rows(*columns, values, {}, set()))
    return together(parts)
