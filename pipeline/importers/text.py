"""Read many small text files as one: bodies of one layout are joined and parsed by Arrow at once, and every row keeps
its file and line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from .layout import Layout
from .names import READ

PIECE_BYTES = 128 * 2**20  # a larger file is parsed in pieces of about this size
CELL = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Body:
    """Hold consecutive data lines of one file: UTF-8, each line ended; `first` is the number of the first (1-based)."""

    file: int
    first: int
    data: bytes
    lines: int


@dataclass(frozen=True)
class Raw:
    """Hold parsed rows: columns named by role (or by symbol in a wide file), where each came from, and lines that are
    no rows.
    """

    table: pa.Table
    file: npt.NDArray[np.int32]
    line: npt.NDArray[np.int64]
    lost: list[tuple[int, int, str, str]]  # file, line, reason, text


def bodies(file: int, data: bytes, skip: int) -> list[Body]:
    """Cut a file's text after `skip` lines into pieces that end with a line."""
    start = 0
    for _ in range(skip):
        start = data.index(b"\n", start) + 1 if b"\n" in data[start:] else len(data)
    end = len(data.rstrip(b"\n")) + 1
    body = data[start:end]
    if body and not body.endswith(b"\n"):
        body += b"\n"
    cuts = [0]
    while len(body) - cuts[-1] > PIECE_BYTES:
        cuts.append(body.index(b"\n", cuts[-1] + PIECE_BYTES - 1) + 1)
    out, first = [], skip + 1
    for a, b in pairwise([*cuts, len(body)]):
        piece = body[a:b] if len(cuts) > 1 else body
        lines = piece.count(b"\n")
        if lines:
            out.append(Body(file, first, piece, lines))
        first += lines
    return out


def parse(layout: Layout, parts: Sequence[Body]) -> Raw:
    """Parse bodies of one layout; rows with too few or too many cells and lines with an open quote are returned as
    lost.
    """
    data = parts[0].data if len(parts) == 1 else b"".join(p.data for p in parts)
    expected = sum(p.lines for p in parts)
    table, ragged = _arrow(layout, data)
    if table.num_rows + len(ragged) != expected:  # a quote that is not closed swallows the lines after it
        return _apart(layout, parts)
    line = np.concatenate([np.arange(p.first, p.first + p.lines) for p in parts])
    file = np.repeat(np.array([p.file for p in parts], np.int32), [p.lines for p in parts])
    lost = []
    if ragged:
        rows = np.array([number - 1 for number, _ in ragged])
        lost = [(int(file[r]), int(line[r]), "wrong_number_of_cells", text) for r, (_, text) in zip(rows, ragged)]
        file, line = np.delete(file, rows), np.delete(line, rows)
    return Raw(table, file, line, lost)


def joined(raws: Sequence[Raw]) -> Raw:
    """Put the rows of several parses of one layout together; a column that is text in one becomes text in all."""
    if len(raws) == 1:
        return raws[0]
    tables = [r.table for r in raws]
    for name in tables[0].column_names:
        if any(pa.types.is_string(t[name].type) for t in tables):
            tables = [t.set_column(t.column_names.index(name), name, t[name].cast(pa.string())) for t in tables]
    table = pa.concat_tables(tables, promote_options="permissive")
    lost = [row for r in raws for row in r.lost]
    return Raw(table, np.concatenate([r.file for r in raws]), np.concatenate([r.line for r in raws]), lost)


def _apart(layout: Layout, parts: Sequence[Body]) -> Raw:
    """Find the file and the lines with an open quote, and parse the others."""
    if len(parts) > 1:
        half = len(parts) // 2
        return joined([parse(layout, parts[:half]), parse(layout, parts[half:])])
    part = parts[0]
    lines = part.data.split(b"\n")
    odd = [i for i, text in enumerate(lines) if text.count(b'"') % 2] or list(range(part.lines))
    lost = [(part.file, part.first + i, "open_quote", lines[i].decode()) for i in odd]
    for i in odd:
        lines[i] = b""
    again = parse(layout, [Body(part.file, part.first, b"\n".join(lines), part.lines)])
    return Raw(again.table, again.file, again.line, lost + again.lost)


def _arrow(layout: Layout, data: bytes) -> tuple[pa.Table, list[tuple[int, str]]]:
    names = [f"column {i}" for i in range(layout.width)]
    wanted = {names[i]: role for role, i in layout.roles} | {names[i]: symbol for i, symbol in layout.wide}
    types: dict[str, pa.DataType] = {
        n: CELL for n, role in wanted.items() if role not in READ and role not in dict(layout.wide).values()
    }
    numeric = [n for n in wanted if n not in types]
    if b"0x" in data or b"0X" in data:  # Arrow would read 0x10 as a number
        types |= dict.fromkeys(numeric, pa.string())
    threads = True
    while True:
        ragged: list[tuple[int, str]] = []

        def skip(row: Any, ragged: list[tuple[int, str]] = ragged) -> str:
            ragged.append((row.number or 0, row.text))
            return "skip"

        table = pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(column_names=names, use_threads=threads, block_size=len(data) + 1),
            parse_options=pacsv.ParseOptions(
                delimiter=layout.delimiter, invalid_row_handler=skip, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=types, strings_can_be_null=True, include_columns=list(wanted)
            ),
        )
        odd = [n for n in numeric if n not in types and not _numeric(table.schema.field(n).type)]
        if odd:
            types |= dict.fromkeys(odd, pa.string())
        elif ragged and threads:
            threads = False  # only one thread can tell the numbers of the rows
        else:
            return table.rename_columns([wanted[n] for n in table.column_names]), ragged


def _numeric(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind) or pa.types.is_string(kind)
    )
