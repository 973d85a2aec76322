"""The lake: Delta tables of bars, actions, symbols and quarantined rows, one sorted Parquet file a partition.

A write reads the partitions that it touches, adds its rows, drops duplicates, sorts and replaces them in one commit, so
it is idempotent and leaves no small files. Reading goes through `file_uris()` and plain Parquet: delta-rs' own table
readers abort the interpreter at exit now and then. This is the only file that knows cuDF.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake.exceptions import CommitFailedError, DeltaError

from .schema import KEYS, SCHEMAS, content_digest
from .section import Section, setting

Backend = Literal["pandas", "cudf"]
Encoding = Literal["BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"]
GROUPS = {"1d": 8, "1w": 8, "1mo": 8}  # daily and longer; everything else is intraday
INTRADAY_GROUPS = 16
ATTEMPTS = 12


class LakeError(Exception):
    """Something the lake cannot do: the message says expected, got, where, what to do."""


class LakeSection(Section):
    """Where the market data is kept."""

    path: str = setting("", "folder of the Delta tables; empty = lake/ in run.data", unit="path", runtime=True)


def group_of(symbol: str, interval: str) -> int:
    """Return the partition group of a symbol: crc32 of its UTF-8 text modulo the interval's number of groups."""
    return zlib.crc32(symbol.encode()) % GROUPS.get(interval, INTRADAY_GROUPS)


class Lake:
    """Read and write the tables under one folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, table: str, rows: pa.Table) -> int:
        """Add rows; a row with the key of an older one replaces it. Return how many rows are new or differ.

        Other writers may be at work: a lost race is tried again from fresh data, so no row is lost and none doubled.
        """
        if rows.num_rows == 0:
            return 0
        rows = _partitioned(table, rows.select(SCHEMAS[table].names).cast(SCHEMAS[table]))
        for attempt in range(ATTEMPTS):
            try:
                return self._replace(table, rows)
            except (CommitFailedError, DeltaError) as error:
                if attempt == ATTEMPTS - 1:
                    raise LakeError(
                        f"expected to commit {rows.num_rows} rows to table '{table}' in {self.path}, got: {error}; "
                        "another writer holds it or the disk is full"
                    ) from error
                time.sleep(random.uniform(0.02, 0.1) * (attempt + 1))
        raise AssertionError("unreachable")

    def _replace(self, table: str, rows: pa.Table) -> int:
        delta = self._table(table, create=True)
        names = _partition_columns(table)
        touched = rows.select(names).group_by(names).aggregate([]) if names else None
        old = self._rows(table, delta, touched)
        merged, changed = _merged(table, old, rows)
        if changed == 0:
            return 0
        properties = deltalake.WriterProperties(
            compression="ZSTD",
            max_row_group_size=131072,
            column_properties={
                name: deltalake.ColumnProperties(dictionary_enabled=False, encoding=encoding)
                for name, encoding in _encodings(table).items()
            },
        )
        deltalake.write_deltalake(
            delta,
            merged,
            mode="overwrite",
            predicate=_predicate(touched) if touched is not None else None,
            writer_properties=properties,
            target_file_size=1 << 40,
        )
        return changed

    def _rows(self, table: str, delta: deltalake.DeltaTable, touched: pa.Table | None) -> pa.Table:
        filters = None if touched is None else _any_of(touched)
        return _dataset(table, delta).to_table(filter=filters)

    def _table(self, table: str, *, create: bool = False) -> deltalake.DeltaTable:
        path = self.path / table
        if not deltalake.DeltaTable.is_deltatable(str(path)):
            if not create:
                raise LakeError(
                    f"expected the table '{table}' in the lake {self.path}, found none; run the ingest stage first"
                )
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                deltalake.DeltaTable.create(
                    str(path), schema=_with_partitions(table), partition_by=_partition_columns(table), mode="ignore"
                )
            except (OSError, DeltaError) as error:
                if not deltalake.DeltaTable.is_deltatable(str(path)):
                    raise LakeError(
                        f"expected a writable lake at {self.path}, got: {error}; set --lake.path to a writable folder"
                    ) from error
        return deltalake.DeltaTable(str(path))

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        symbols: Iterable[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        **equal: str,
    ) -> pa.Table:
        """Return rows sorted by the table's key; `start` and `end` are inclusive bounds on `ts` (aware datetimes).

        `equal` are exact matches such as source="kis", interval="1d". A table that does not exist yet is empty.
        """
        wanted = list(columns or SCHEMAS[table].names)
        if not deltalake.DeltaTable.is_deltatable(str(self.path / table)):
            return SCHEMAS[table].empty_table().select(wanted)
        condition: ds.Expression | None = None
        terms = [ds.field(k) == v for k, v in equal.items()]
        names = None if symbols is None else sorted(set(symbols))
        if names is not None:
            terms.append(ds.field("symbol").isin(pa.array(names, pa.string())))
            if table == "bars" and "interval" in equal:
                groups = sorted({group_of(s, equal["interval"]) for s in names})
                terms.append(ds.field("group").isin(pa.array(groups, pa.int32())))
        if start is not None:
            terms.append(ds.field("ts") >= pa.scalar(start, SCHEMAS["bars"].field("ts").type))
            if table == "bars":
                terms.append(ds.field("period") >= f"{start:%Y}")
        if end is not None:
            terms.append(ds.field("ts") <= pa.scalar(end, SCHEMAS["bars"].field("ts").type))
            if table == "bars":
                terms.append(ds.field("period") <= f"{end:%Y-%m}~")
        for term in terms:
            condition = term if condition is None else condition & term
        keys = KEYS[table]
        needed = wanted + [k for k in keys if k not in wanted]
        found = _dataset(table, self._table(table)).to_table(columns=needed, filter=condition)
        return found.sort_by([(k, "ascending") for k in keys]).select(wanted).combine_chunks()

    def frame(self, table: str, *, backend: Backend = "pandas", **query: Any) -> Any:
        """Return what `read` finds as a pandas or a cuDF frame; `symbol` is text in both."""
        found = self.read(table, **query)
        if backend == "cudf":
            import cudf  # here and nowhere else: importing it takes seconds and needs a driver

            return cudf.DataFrame.from_arrow(found)
        return found.to_pandas()

    def digest(self, table: str, **query: Any) -> str:
        """Return the content digest of what `read` finds."""
        return content_digest(self.read(table, **query), KEYS[table])

    def groups(self, interval: str, *, source: str, symbols: Iterable[str] | None = None) -> dict[int, list[str]]:
        """Return the symbols that have bars, by partition group, both sorted."""
        if symbols is None:
            found = self.read("bars", columns=["symbol"], interval=interval, source=source)
            symbols = pc.unique(found["symbol"]).to_pylist()
        out: dict[int, list[str]] = {}
        for symbol in sorted(set(symbols)):
            out.setdefault(group_of(symbol, interval), []).append(symbol)
        return dict(sorted(out.items()))

    def version(self, table: str) -> int:
        """Return the version of the table's log, -1 where there is no table."""
        if not deltalake.DeltaTable.is_deltatable(str(self.path / table)):
            return -1
        return self._table(table).version()


def _dataset(table: str, delta: deltalake.DeltaTable) -> ds.Dataset:
    """Open the files of one version; the partition schema is given, because inference would turn "000030" into 30."""
    files = [unquote(urlparse(uri).path) if uri.startswith("file:") else unquote(uri) for uri in delta.file_uris()]
    schema = _with_partitions(table)
    if not files:
        return ds.dataset(schema.empty_table())
    columns = _partition_columns(table)
    part = ds.partitioning(pa.schema([schema.field(c) for c in columns]), flavor="hive") if columns else None
    root = str(Path(delta.table_uri.removeprefix("file://")))
    return ds.dataset(files, schema=schema, format="parquet", partitioning=part, partition_base_dir=root)


def _partition_columns(table: str) -> list[str]:
    return ["interval", "group", "period"] if table == "bars" else []


def _with_partitions(table: str) -> pa.Schema:
    schema = pa.schema(SCHEMAS[table])
    if table == "bars":
        schema = schema.append(pa.field("group", pa.int32())).append(pa.field("period", pa.string()))
    return schema


def _partitioned(table: str, rows: pa.Table) -> pa.Table:
    """Add `group` and `period`: the year for daily and longer bars, the month for intraday ones (both of the UTC
    stamp).
    """
    if table != "bars":
        return rows
    symbol = rows["symbol"].combine_chunks().dictionary_encode()
    interval = rows["interval"].combine_chunks().dictionary_encode()
    if len(interval.dictionary) == 0:
        return rows
    counts = np.array([GROUPS.get(i, INTRADAY_GROUPS) for i in interval.dictionary.to_pylist()])
    hashes = np.array([zlib.crc32(s.encode()) for s in symbol.dictionary.to_pylist()], dtype=np.int64)
    intervals = interval.indices.to_numpy(zero_copy_only=False)
    group = hashes[symbol.indices.to_numpy(zero_copy_only=False)] % counts[intervals]
    daily = np.array([i in GROUPS for i in interval.dictionary.to_pylist()])[intervals]
    months = rows["ts"].to_numpy().astype("datetime64[M]")
    unique, place = np.unique(months, return_inverse=True)
    month = np.array([str(m) for m in unique], dtype=object)[place]
    year = np.array([str(m)[:4] for m in unique], dtype=object)[place]
    period = np.where(daily, year, month)
    return rows.append_column("group", pa.array(group, pa.int32())).append_column(
        "period", pa.array(period, pa.string())
    )


def _merged(table: str, old: pa.Table, new: pa.Table) -> tuple[pa.Table, int]:
    """Return old and new rows together, one a key (the last new one wins), sorted, and how many differ from before."""
    keys = list(KEYS[table])
    names = [n for n in new.column_names if n not in ("ingested_at",)]
    both = pa.concat_tables([old.select(new.column_names), new]).combine_chunks()
    order = pc.sort_indices(
        both.append_column("_row", pa.array(np.arange(both.num_rows))),
        sort_keys=[(k, "ascending") for k in keys] + [("_row", "ascending")],
    )
    both = both.take(order)
    last = ~_equal_to_next(both, keys)
    merged = both.filter(pa.array(last))
    position = order.to_numpy(zero_copy_only=False)[last]
    fresh = position >= old.num_rows
    before = content_digest(old, keys) if old.num_rows else ""
    if old.num_rows == merged.num_rows and before == content_digest(merged, keys):
        return merged, 0
    # A row that replaces an identical one is no change: compare it with its predecessor of the same key.
    replaced = np.flatnonzero(last)[fresh]
    same = _equal_rows(both.select(names), replaced - 1, replaced)
    return merged, int(fresh.sum() - same.sum())


def _equal_to_next(table: pa.Table, names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    rows = np.arange(table.num_rows)
    out = np.zeros(table.num_rows, dtype=bool)
    if table.num_rows > 1:
        out[:-1] = _equal_rows(table.select(list(names)), rows[:-1], rows[1:])
    return out


def _equal_rows(table: pa.Table, a: Any, b: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Compare rows a[i] and b[i] of a table; null equals null and NaN equals NaN. A negative a[i] is unequal."""
    out = np.ones(len(a), dtype=bool)
    inside = np.asarray(a) >= 0
    left, right = pa.array(np.where(inside, a, 0)), pa.array(b)
    for name in table.column_names:
        x, y = table[name].take(left), table[name].take(right)
        same = pc.fill_null(pc.equal(x, y), False)
        same = pc.or_(same, pc.and_(pc.is_null(x), pc.is_null(y)))
        if pa.types.is_floating(x.type):
            same = pc.or_(same, pc.and_(pc.fill_null(pc.is_nan(x), False), pc.fill_null(pc.is_nan(y), False)))
        out &= same.to_numpy()
    return out & inside


def _any_of(touched: pa.Table) -> ds.Expression | None:
    condition: ds.Expression | None = None
    for row in touched.to_pylist():
        one = ds.scalar(True)
        for name, value in row.items():
            one = one & (ds.field(name) == value)
        condition = one if condition is None else condition | one
    return condition


def _predicate(touched: pa.Table) -> str:
    """Return the SQL predicate that names exactly the touched partitions."""
    rows = [
        "(" + " AND ".join(f'"{k}" = {v}' if isinstance(v, int) else f"\"{k}\" = '{v}'" for k, v in row.items()) + ")"
        for row in touched.to_pylist()
    ]
    return " OR ".join(rows)


def _encodings(table: str) -> dict[str, Encoding]:
    out: dict[str, Encoding] = {}
    for field in SCHEMAS[table]:
        if pa.types.is_floating(field.type):
            out[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_timestamp(field.type):
            out[field.name] = "DELTA_BINARY_PACKED"
    return out
