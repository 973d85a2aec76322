"""Read a group of files into rows, and remember how each row was written, for the few that end in quarantine."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import dataset

from . import layout as layouts
from . import rows, text
from .files import BadFile, Entry, as_text, require_sound_size
from .layout import Layout
from .names import NUMBERS
from .rows import Rows
from .section import QUARANTINE_COLUMNS, ImportSection

SHOWN = 400  # characters of a row that are kept
CANDLES = Layout("bars", tuple(sorted((role, i) for i, role in enumerate(("date", *NUMBERS[:5])))), 6)
CANDLE_START, CANDLE_END, CANDLE_BETWEEN = (re.compile(p) for p in (rb"\[\s*\[", rb"\]\s*\]\s*$", rb"\]\s*,\s*\["))
Lost = tuple[int, int, str, str]  # file, line, reason, text
Opened = tuple[pa.Schema, int, Callable[[list[str]], pa.Table]]  # columns, rows, and how to read some columns


class Group:
    """Hold what was read of some files; a file's number is its place in the load, `lost` are those of no use."""

    def __init__(self, section: ImportSection) -> None:
        self.section = section
        self.files = 0
        self.listings: list[pa.Table] = []
        self.lost: list[Lost] = []
        self.bases: set[str] = set()  # values of the column 'source', also of rows that are not taken
        self._bodies: dict[Layout, list[text.Body]] = defaultdict(list)
        self._by_file: dict[int, list[text.Body]] = {}
        self._tables: dict[int, tuple[Layout, pa.Table]] = {}
        self._lines: dict[tuple[int, int], list[bytes]] = {}

    def read(self, number: int, entry: Entry, *, owned: bool) -> None:
        """Read one file; one that cannot be used is noted. `owned` says that its name tells the symbol of its rows."""
        self.files += 1
        try:
            if entry.columnar:
                self._add_table(number, *columnar(entry, self.section), owned)
            elif entry.candles:
                self._add_bodies(number, CANDLES, candles(number, entry.read(), self.section), owned)
            else:
                self._add_text(number, entry.read(), owned)
        except BadFile as bad:
            self.refuse(number, bad)

    def refuse(self, number: int, bad: BadFile) -> None:
        """Note a file of no use."""
        self.lost.append((number, bad.line, bad.reason, bad.text))

    def rows(self, symbols: rows.Symbols, owner: Callable[[int], int]) -> Rows | None:
        """Return the rows of all files, those of one layout parsed together; None where there are none."""
        parts = []
        for layout, bodies in self._bodies.items():
            raw = text.parse(layout, bodies)
            self.lost += raw.lost
            parts.append(rows.of_table(raw.table, layout, raw.file, raw.line, symbols, owner, self.section))
        for number, (layout, table) in self._tables.items():
            file, line = np.full(table.num_rows, number, np.int32), np.arange(1, table.num_rows + 1)
            parts.append(rows.of_table(table, layout, file, line, symbols, owner, self.section))
        self.bases.update(*(part.basis for part in parts))
        parts = [part for part in parts if len(part)]
        return rows.together(parts) if parts else None

    def written(self, number: int, line: int) -> str:
        """Return how a row was written: the line of a text file, the cells of a Parquet row."""
        if number in self._tables:
            row = self._tables[number][1].slice(line - 1, 1).to_pylist()[0]
            return " ".join(f"{name}={value}" for name, value in row.items())[:SHOWN]
        for body in self._by_file[number]:
            if body.first <= line < body.first + body.lines:
                key = (number, body.first)
                if key not in self._lines:
                    self._lines[key] = body.data.split(b"\n")
                return self._lines[key][line - body.first].decode()[:SHOWN]
        return ""

    def quarantine(
        self, found: Rows | None, fault: npt.NDArray[np.int8], names: Sequence[str], symbol: Callable[[int], str | None]
    ) -> pa.Table:
        """Return rows with a fault, and what was lost before, as QUARANTINE without source and ingested_at.

        `symbol` tells what a symbol's number stands for.
        """
        out: list[tuple[str | None, int, int, str, str]] = [(None, *lost) for lost in self.lost]
        if found is not None:
            for i in np.flatnonzero(fault):
                place = int(found.file[i]), int(found.line[i])
                out.append((symbol(int(found.symbol[i])), *place, rows.REASONS[fault[i]], self.written(*place)))
        columns = {
            "file": [names[row[1]] for row in out],
            "line": [row[2] for row in out],
            "symbol": [row[0] for row in out],
            "interval": [self.section.interval or None] * len(out),
            "ts": [None] * len(out),
            "reason": [row[3] for row in out],
            "row": [row[4][:SHOWN] for row in out],
        }
        return pa.table({f.name: pa.array(columns[f.name], f.type) for f in QUARANTINE_COLUMNS})

    def _add_text(self, number: int, data: bytes, owned: bool) -> None:
        data, unreadable = as_text(data)
        self.lost += [(number, line, "undecodable", shown) for line, shown in unreadable]
        start = data[: layouts.HEAD_BYTES].split(b"\n", layouts.HEAD_LINES)
        head = [line.decode(errors="ignore") for line in start[: layouts.HEAD_LINES]]
        layout, skip = layouts.of_text(head, self.section)
        bodies = text.bodies(number, data, skip)
        if not bodies:
            raise BadFile("empty_file", "expected rows of bars, got a header only; download it again or take it out")
        if layout.kind == "listing":
            self.listings.append(text.parse(layout, bodies).table)
        else:
            self._add_bodies(number, layout, bodies, owned)

    def _add_bodies(self, number: int, layout: Layout, bodies: list[text.Body], owned: bool) -> None:
        _require_symbol(layout, owned)
        self._bodies[layout] += bodies
        self._by_file[number] = bodies

    def _add_table(self, number: int, layout: Layout, table: pa.Table, owned: bool) -> None:
        if layout.kind == "listing":
            self.listings.append(table)
        else:
            _require_symbol(layout, owned)
            self._tables[number] = layout, table


def _require_symbol(layout: Layout, owned: bool) -> None:
    if layout.kind == "bars" and not owned and not layout.has("code"):
        raise BadFile(
            "unknown_symbol",
            "expected a file named by its code (005930.csv) or a column of codes, got neither; rename the file, or for "
            "symbols of another exchange set ingest.files.market=other with its timezone and stamps",
        )


def candles(number: int, data: bytes, section: ImportSection) -> list[text.Body]:
    """Return the candles of a JSON file, [[start in ms UTC, open, high, low, close, volume], …], as lines of text."""
    if section.market == "KRX" or section.stamps != "start":
        raise BadFile(
            "unknown_stamps",
            "expected ingest.files to have market=other and stamps=start for candles in JSON, whose stamps are starts, "
            f"got market={section.market} and stamps={section.stamps}; take configs/freqtrade.yaml as an example",
        )
    inner = data.strip()
    if not CANDLE_START.match(inner):
        raise BadFile("not_candles", "expected a list of candles, got other JSON; take the file out of the folder")
    if not CANDLE_END.search(inner[-16:]):
        raise BadFile("broken_json", "expected a list of candles to its end, got a part of one; download it again")
    lines = CANDLE_BETWEEN.sub(b"\n", CANDLE_END.sub(b"", inner[inner.index(b"[", 1) + 1 :]).replace(b"\n", b" "))
    return text.bodies(number, lines + b"\n", 0)


def columnar(entry: Entry, section: ImportSection) -> tuple[Layout, pa.Table]:
    """Return the layout of a Parquet or Feather file and the columns that it needs, named by role or symbol."""
    data = entry.read()
    try:
        schema, rows, read = (_feather if entry.feather else _parquet)(data)
        names = schema.names
        layout = layouts.of_columns(names, section.columns)
        if layout is None:
            raise BadFile("missing_column", layouts.needed([], names))
        wanted = {names[i]: role for role, i in layout.roles} | {names[i]: symbol for i, symbol in layout.wide}
        nested = [name for name in wanted if pa.types.is_nested(schema.field(name).type)]
        if nested:
            raise BadFile("nested_column", f"expected plain columns, got lists or records in {', '.join(nested)}")
        require_sound_size(len(data), 8 * len(wanted) * rows)
        table = read(list(wanted))
    except (pa.ArrowException, OSError) as error:
        got = "text" if data[:64].isascii() and data.strip() else "other bytes or a part of one"
        raise BadFile(
            f"not_{'feather' if entry.feather else 'parquet'}",
            f"expected a whole file of its kind because of the ending {entry.ending}, got {got} ({error}); rename, "
            "copy or write it again",
        ) from error
    if table.num_rows == 0:
        raise BadFile("empty_file", "expected rows of bars, got a file without rows; take it out of the folder")
    return layout, table.rename_columns([wanted[name] for name in table.column_names])


def _parquet(data: bytes) -> Opened:
    file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)  # of pages that have one
    return file.schema_arrow, file.metadata.num_rows, lambda names: file.read(columns=names)


def _feather(data: bytes) -> Opened:
    file, fragment = pa.ipc.open_file(data), dataset.IpcFileFormat().make_fragment(pa.BufferReader(data))
    return file.schema, fragment.count_rows(), lambda names: file.read_all().select(names)
