"""Which file of the lake a row belongs to: the partition columns of each table, their values, and what a query can
skip.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .schema import SCHEMAS

GROUPS = {"1d": 8, "1w": 8, "1mo": 8}  # daily and longer; everything else is intraday
INTRADAY_GROUPS = 16
FLOW_GROUPS = 8
COLUMNS: dict[str, tuple[str, ...]] = {
    "bars": ("interval", "group", "period"),
    "flows": ("group", "period"),
    "pages": ("period",),
}
TYPES = {"interval": pa.string(), "group": pa.int32(), "period": pa.string()}
_STAMP = {"bars": "ts", "flows": "ts", "pages": "ingested_at"}
Partition = tuple[str, ...]  # the values of a table's partition columns as the log writes them


@dataclass(frozen=True)
class Query:
    """Name rows of a table: all of these symbols (None = every one) where each column of `equal` has that value."""

    symbols: frozenset[str] | None
    equal: Mapping[str, str]


def group_of(symbol: str, interval: str) -> int:
    """Return the partition group of a symbol: crc32 of its UTF-8 text modulo the interval's number of groups."""
    return zlib.crc32(symbol.encode()) % GROUPS.get(interval, INTRADAY_GROUPS)


def schema_of(table: str) -> pa.Schema:
    """Return the columns of a table, those that only the folders' names hold at the end."""
    schema = pa.schema(SCHEMAS[table])
    for name in COLUMNS.get(table, ()):
        if name not in schema.names:
            schema = schema.append(pa.field(name, TYPES[name]))
    return schema


def in_file(table: str) -> list[str]:
    """Return the columns that the files themselves hold."""
    return [name for name in SCHEMAS[table].names if name not in COLUMNS.get(table, ())]


def folder(table: str, partition: Partition) -> str:
    """Return the folder of a partition inside its table's, "" for a table without partitions."""
    return "/".join(f"{name}={value}" for name, value in zip(COLUMNS.get(table, ()), partition, strict=True))


def may_hold(
    table: str, partition: Partition, query: Query, start: datetime | None = None, end: datetime | None = None
) -> bool:
    """Say whether a partition may hold rows of a query, with `ts` from `start` to `end`; False is certain."""
    values = dict(zip(COLUMNS.get(table, ()), partition, strict=True))
    if "period" in values and _STAMP[table] == "ts":
        period = values["period"]
        if start is not None and period < f"{start.astimezone(UTC):%Y-%m}"[: len(period)]:
            return False
        if end is not None and period > f"{end.astimezone(UTC):%Y-%m}"[: len(period)]:
            return False
    if any(values.get(name, value) != value for name, value in query.equal.items()):
        return False
    if query.symbols is None or "group" not in values:
        return True
    count = GROUPS.get(values["interval"], INTRADAY_GROUPS) if table == "bars" else FLOW_GROUPS
    return values["group"] in _groups(query.symbols, count)


@functools.lru_cache(maxsize=256)
def _groups(symbols: frozenset[str], count: int) -> frozenset[str]:
    return frozenset(str(zlib.crc32(symbol.encode()) % count) for symbol in symbols)


def split(table: str, rows: pa.Table) -> dict[Partition, pa.Table]:
    """Cut rows by partition, their order kept. The period is the year of daily and longer bars and of flows, the month
    of intraday bars and of pages (of the UTC stamp).
    """
    if table not in COLUMNS:
        return {(): rows}
    if rows.num_rows == 0:
        return {}
    codes, names = _codes(table, rows)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(starts) * 64 > len(codes):  # too many short runs to be kept as slices
        order = np.argsort(codes, kind="stable")
        rows, codes = rows.take(pa.array(order)), codes[order]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
    parts: dict[int, list[pa.Table]] = {}
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(codes)], strict=True):
        parts.setdefault(int(codes[start]), []).append(rows.slice(start, stop - start))
    return {names[code]: pa.concat_tables(slices) for code, slices in parts.items()}


def _codes(table: str, rows: pa.Table) -> tuple[npt.NDArray[np.int64], dict[int, Partition]]:
    """Return the number of each row's partition and the partitions by number."""
    stamps = rows[_STAMP[table]].to_numpy().astype("datetime64[us]").view(np.int64)
    months, periods = _periods(stamps)
    if table == "pages":
        return months, {i: (period,) for i, period in enumerate(periods)}
    hashes, symbols = _encoded(rows["symbol"])
    crc = np.array([zlib.crc32(s.encode()) for s in symbols], dtype=np.int64)
    if table == "bars":
        intervals, interval_names = _encoded(rows["interval"])
    else:
        intervals, interval_names = np.zeros(rows.num_rows, np.int64), ["1d"]
    codes = np.empty(rows.num_rows, np.int64)
    names: dict[int, Partition] = {}
    years = sorted({period[:4] for period in periods})
    year_of = np.array([years.index(period[:4]) for period in periods], dtype=np.int64)
    for number, interval in enumerate(interval_names):
        here = slice(None) if len(interval_names) == 1 else intervals == number
        daily = table == "flows" or interval in GROUPS
        count = FLOW_GROUPS if table == "flows" else GROUPS.get(interval, INTRADAY_GROUPS)
        spans = years if daily else periods
        place = year_of[months[here]] if daily else months[here]
        base = len(names)
        codes[here] = base + (crc % count)[hashes[here]] * len(spans) + place
        head = (interval,) if table == "bars" else ()
        names.update(
            {base + g * len(spans) + p: (*head, str(g), spans[p]) for g in range(count) for p in range(len(spans))}
        )
    return codes, names


def _periods(stamps: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the month of each stamp (µs, UTC) as a place in the list of months from the first to the last."""
    first, last = (np.datetime64(int(edge), "us").astype("datetime64[M]") for edge in (stamps.min(), stamps.max()))
    months = np.arange(first, last + 1)
    place = np.zeros(len(stamps), np.int64)
    if len(months) > 1:
        edges = months[1:].astype("datetime64[us]").view(np.int64)
        place = np.searchsorted(edges, stamps, side="right").astype(np.int64)
    return place, [str(month) for month in months]


def _encoded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = pa.concat_arrays(encoded.unify_dictionaries().chunks)
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()
