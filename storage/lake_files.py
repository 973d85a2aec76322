"""Parquet files of the lake: how they are encoded, and reading that never passes damaged bytes on.

Every page carries a checksum that readers verify, and a file's name ends in the checksum of all its bytes. Floats are
split into byte streams and stamps stored as differences, both then compressed: this halves the bytes of prices that are
whole won. Text is dictionary encoded in the file but has the type of text, so that a row group without the wanted
symbol is skipped.
"""

from __future__ import annotations

import re
import uuid
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .lake_log import File, LakeError, refused
from .merge import each
from .partitions import COLUMNS, Partition, Query, folder, in_file
from .schema import ENCODED, KEYS, SCHEMAS, TEXT

ROW_GROUP = 131_072
LEVEL = 1
REPAIR = "run `python scripts/ingest.py repair`, which takes it out and fetches its rows again"
EVERYTHING = Query(None, {})
_CRC = re.compile(r"-([0-9a-f]{8})-([0-9a-f]{8})\.parquet$")  # of the footer, of the whole file


class DamagedFile(LakeError):
    """A file of the lake is missing or does not hold what was written: `reason` says how that shows."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"expected the file {path} as it was written, but {reason}; {REPAIR}")
        self.reason = reason


def write(root: Path, table: str, partition: Partition, rows: pa.Table) -> File:
    """Write rows as one new file of a partition and return it; nobody sees it before it is committed.

    Its name ends in the crc32 of its footer and of all its bytes. Raises LakeError where the disk refuses, with nothing
    left behind.
    """
    names = in_file(table)
    schema = pa.schema([SCHEMAS[table].field(name) for name in names])
    encodings = {field.name: "BYTE_STREAM_SPLIT" for field in schema if pa.types.is_floating(field.type)}
    encodings |= {field.name: "DELTA_BINARY_PACKED" for field in schema if pa.types.is_timestamp(field.type)}
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.select(names),
        sink,
        compression="zstd",
        compression_level=LEVEL,
        row_group_size=ROW_GROUP,
        use_dictionary=[field.name for field in schema if pa.types.is_string(field.type)],
        column_encoding=encodings,
        write_page_checksum=True,
        store_schema=False,  # it would make text that is dictionary encoded here so for every reader
    )
    content = sink.getvalue()
    name = f"part-{uuid.uuid4().hex}-{_footer(pa.BufferReader(content)):08x}-{zlib.crc32(content):08x}.parquet"
    path = "/".join(part for part in (folder(table, partition), name) if part)
    try:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("wb") as file:
            file.write(content)
    except OSError as error:
        (root / path).unlink(missing_ok=True)
        raise refused(root, f"{rows.num_rows} rows of the table '{table}'", error) from error
    return File(path, partition, content.size, rows.num_rows)


def _footer(file: Any) -> int:
    """Return the crc32 of an open file's footer, which says where its columns are and what they range over."""
    file.seek(-8, 2)
    length = int.from_bytes(file.read(4), "little")
    file.seek(-8 - length, 2)
    return zlib.crc32(file.read())


def check(root: Path, file: File) -> None:
    """Raise DamagedFile where a file is missing or has another size than what was committed; takes microseconds."""
    try:
        size = (root / file.path).stat().st_size
    except OSError as error:
        raise DamagedFile(root / file.path, f"it cannot be opened ({error.strerror})") from error
    if size != file.size:
        raise DamagedFile(root / file.path, f"it has {size} bytes instead of {file.size}")


def examine(root: Path, table: str, file: File) -> str:
    """Read a whole file and return what is wrong with it, "" where it holds what was committed."""
    try:
        check(root, file)
        named = _CRC.search(file.path)
        if named and zlib.crc32((root / file.path).read_bytes()) != int(named[2], 16):
            return "its bytes have changed"
        parquet = pq.ParquetFile(root / file.path, page_checksum_verification=True)
        if strange := _strange(table, parquet.schema_arrow):
            return f"its columns are not those of the table: {', '.join(strange)}"
        rows = sum(batch.num_rows for batch in parquet.iter_batches())
    except DamagedFile as error:
        return error.reason
    except (OSError, pa.ArrowException) as error:
        return f"it cannot be read ({error})"
    return f"it has {rows} rows instead of {file.rows}" if file.rows not in (-1, rows) else ""


def _strange(table: str, found: pa.Schema) -> list[str]:
    """Return the columns of a file that its table does not have so, and those of the key that the file lacks."""
    names, schema = in_file(table), SCHEMAS[table]
    kinds = {
        name: ENCODED if pa.types.is_dictionary(found.field(name).type) else schema.field(name).type
        for name in names
        if name in found.names
    }
    strange = [name for name in found.names if name not in names or found.field(name).type != kinds[name]]
    return strange + [name for name in KEYS[table] if name in names and name not in found.names]


def read(
    root: Path,
    table: str,
    files: Sequence[File],
    columns: Sequence[str],
    query: Query = EVERYTHING,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """Return the rows of a query file after file; columns of TEXT are dictionary encoded. Raises DamagedFile.

    `start` and `end` are inclusive bounds on `ts`. A column that a file of an older layout does not have is null.
    """

    def one(file: File) -> pa.Table:
        check(root, file)
        try:
            return _rows(root / file.path, table, file.partition, columns, query, start, end)
        except (OSError, pa.ArrowException):
            if reason := examine(root, table, file):
                raise DamagedFile(root / file.path, reason) from None
            raise

    parts = each(one, files)
    empty = pa.schema([field if field.name not in TEXT else pa.field(field.name, ENCODED) for field in SCHEMAS[table]])
    return pa.concat_tables([empty.empty_table().select(columns), *parts]).unify_dictionaries()


def _rows(
    path: Path,
    table: str,
    partition: Partition,
    columns: Sequence[str],
    query: Query,
    start: datetime | None,
    end: datetime | None,
) -> pa.Table:
    values = dict(zip(COLUMNS.get(table, ()), partition, strict=True))
    wanted = {name: {value} for name, value in query.equal.items() if name not in values}
    if query.symbols is not None:
        wanted["symbol"] = set(query.symbols)
    bounds = [
        None if edge is None else int(np.datetime64(edge.astimezone(UTC).replace(tzinfo=None), "us").astype(int))
        for edge in (start, end)
    ]
    if named := _CRC.search(path.name):
        with path.open("rb") as raw:
            if _footer(raw) != int(named[1], 16):
                raise pa.ArrowInvalid(f"the footer of {path} has changed")
    about = pq.read_metadata(path)
    places = {name: i for i, name in enumerate(about.schema.names)}
    text = [name for name in TEXT if name in places]
    stats = [_Ranges(about.row_group(i), places) for i in range(about.num_row_groups)]
    with pq.ParquetFile(path, metadata=about, read_dictionary=text, page_checksum_verification=True) as parquet:
        if strange := _strange(table, parquet.schema_arrow):
            raise pa.ArrowInvalid(f"columns of {path}: {strange}")
        groups = [i for i, ranges in enumerate(stats) if ranges.may_hold(wanted, bounds)]
        constant = {name: {stats[i].constant(name) for i in groups} for name in text}
        fixed = {name: found.pop() for name, found in constant.items() if len(found) == 1}
        values |= {name: text for name, text in fixed.items() if text is not None}
        filters = {name: found for name, found in wanted.items() if values.get(name) not in found}
        timed = ["ts"] if bounds != [None, None] else []
        needed = [name for name in dict.fromkeys([*columns, *filters, *timed]) if name in places and name not in values]
        found = parquet.read_row_groups(groups, columns=needed, use_threads=False)
        count = sum(stats[i].rows for i in groups)
    for name in (*columns, *filters):
        if name not in found.column_names:
            found = found.append_column(name, _repeated(table, name, values.get(name), count))
    mask: pa.ChunkedArray | None = None
    for name, texts in filters.items():
        mask = _both(mask, _is_in(found[name], texts))
    for bound, edge in zip(bounds, (pc.greater_equal, pc.less_equal), strict=True):
        if bound is not None:
            mask = _both(mask, edge(found["ts"], pa.scalar(bound, SCHEMAS[table].field("ts").type)))
    return (found if mask is None else found.filter(mask)).select(columns)


class _Ranges:
    """The smallest and largest values of a row group's columns, as far as the file tells."""

    def __init__(self, group: pq.RowGroupMetaData, places: Mapping[str, int]) -> None:
        self.rows = group.num_rows
        self._group, self._places = group, places

    def _edges(self, name: str) -> tuple[Any, Any] | None:
        found = self._group.column(self._places[name]).statistics if name in self._places else None
        if found is None or not found.has_min_max:
            return None
        return (found.min_raw, found.max_raw) if name == "ts" else (found.min, found.max)

    def constant(self, name: str) -> str | None:
        """Return the one text that a column holds in every row, None where that is not known."""
        found = self._group.column(self._places[name]).statistics
        if found is None or not found.has_min_max or not found.has_null_count or found.null_count:
            return None
        return str(found.min) if found.min == found.max else None

    def may_hold(self, wanted: Mapping[str, set[str]], bounds: Sequence[int | None]) -> bool:
        """Say whether the row group may hold a row that is wanted; False is certain."""
        for name, texts in wanted.items():
            edges = self._edges(name)
            if edges is not None and not any(edges[0] <= text <= edges[1] for text in texts):
                return False
        edges = self._edges("ts") if bounds != [None, None] else None
        if edges is None:
            return True
        first, last = bounds
        return (first is None or edges[1] >= first) and (last is None or edges[0] <= last)


def _repeated(table: str, name: str, value: str | None, count: int) -> pa.Array:
    """Return a column that holds one value in every row, or null."""
    kind = SCHEMAS[table].field(name).type
    if name not in TEXT:
        return pa.nulls(count, kind) if value is None else pa.repeat(pa.scalar(value, kind), count)
    indices = pa.array(np.zeros(count, np.int32), mask=None if value is not None else np.ones(count, bool))
    return pa.DictionaryArray.from_arrays(indices, pa.array([] if value is None else [value], pa.string()))


def _is_in(column: pa.ChunkedArray, texts: set[str]) -> pa.ChunkedArray:
    """Say for each row whether its text is one of these; a null is none of them."""
    names = pa.array(sorted(texts), pa.string())
    if not pa.types.is_dictionary(column.type):
        return pc.is_in(column, names)
    parts = []
    for chunk in column.chunks:
        known = np.append(pc.is_in(chunk.dictionary, names).to_numpy(zero_copy_only=False), False)
        at = pc.fill_null(chunk.indices, len(chunk.dictionary)) if chunk.null_count else chunk.indices
        parts.append(pa.array(known[at.to_numpy(zero_copy_only=False)]))
    return pa.chunked_array(parts, pa.bool_())


def matching(rows: pa.Table, query: Query) -> pa.ChunkedArray:
    """Say for each row whether it is one of a query's."""
    mask = pa.chunked_array([pa.repeat(True, rows.num_rows)])
    for name, value in query.equal.items():
        mask = _both(mask, _is_in(rows[name], {value}))
    return mask if query.symbols is None else _both(mask, _is_in(rows["symbol"], set(query.symbols)))


def _both(a: pa.ChunkedArray | None, b: pa.ChunkedArray) -> pa.ChunkedArray:
    return b if a is None else pc.and_(a, b)


def encoded(table: str, rows: pa.Table) -> pa.Table:
    """Return rows with the columns and types of a table, columns of TEXT dictionary encoded."""
    columns = []
    for field in SCHEMAS[table]:
        column = rows[field.name]
        if field.name in TEXT:
            columns.append(column.cast(pa.string()).dictionary_encode() if column.type != ENCODED else column)
        else:
            columns.append(column.cast(field.type))
    return pa.table(columns, names=SCHEMAS[table].names).unify_dictionaries()


def decoded(table: str, rows: pa.Table) -> pa.Table:
    """Return rows with the types of a table's schema."""
    fields = [SCHEMAS[table].field(name) for name in rows.column_names]
    return pa.table(
        each(lambda at: rows.column(at).cast(fields[at].type), range(len(fields)), rows.num_rows > 1_000_000),
        schema=pa.schema(fields),
    )
