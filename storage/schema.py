"""Arrow schemas of the lake's tables, with the unit of each column in its metadata, and the digest that names their
content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from .merge import sorted_rows

TS = pa.timestamp("us", tz="UTC")
TEXT = ("symbol", "venue", "interval", "source")  # few different values in many rows: these are dictionary encoded,
ENCODED = pa.dictionary(pa.int32(), pa.string())  # while they are on their way through the lake, as this


def _field(name: str, kind: pa.DataType, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit} if unit else None)


BARS = pa.schema(
    [
        _field("symbol", pa.string()),
        _field("venue", pa.string()),
        _field("interval", pa.string()),
        _field("ts", TS, "end of the bar, UTC"),
        _field("open", pa.float64(), "KRW, raw; NaN = not traded"),
        _field("high", pa.float64(), "KRW, raw; NaN = not traded"),
        _field("low", pa.float64(), "KRW, raw; NaN = not traded"),
        _field("close", pa.float64(), "KRW, raw"),
        _field("volume", pa.float64(), "shares"),
        _field("turnover", pa.float64(), "KRW; null = unknown to the source"),
        _field("source", pa.string()),
        _field("ingested_at", TS, "UTC"),
    ]
)
ACTIONS = pa.schema(
    [
        _field("symbol", pa.string()),
        _field("ex_date", pa.date32(), "first day on the new basis, KST"),
        _field("kind", pa.string()),
        _field("factor", pa.float64(), "previous close / base price"),
        _field("source", pa.string()),
        _field("ingested_at", TS, "UTC"),
    ]
)
SYMBOLS = pa.schema(
    [
        _field("symbol", pa.string()),
        _field("name", pa.string()),
        _field("market", pa.string()),
        _field("sector", pa.string()),
        _field("kind", pa.string()),
        _field("listed", pa.date32()),
        _field("delisted", pa.date32()),
        _field("shares", pa.float64(), "shares"),
        _field("halted", pa.bool_()),
        _field("administrative", pa.bool_()),
        _field("as_of", pa.date32()),
        _field("source", pa.string()),
        _field("ingested_at", TS, "UTC"),
    ]
)
QUARANTINE = pa.schema(
    [
        _field("source", pa.string()),
        _field("file", pa.string()),
        _field("line", pa.int64(), "1-based; -1 = unknown"),
        _field("symbol", pa.string()),
        _field("interval", pa.string()),
        _field("ts", TS, "end of the bar, UTC"),
        _field("reason", pa.string()),
        _field("row", pa.string(), "the text as it came"),
        _field("ingested_at", TS, "UTC"),
    ]
)
_WHO, _DID = ("persons", "foreign", "institutions"), ("net", "buy", "sell")
FLOWS = pa.schema(
    [_field("symbol", pa.string()), _field("ts", TS, "end of the session, UTC")]
    + [
        _field(f"{who}_{did}_{what}", pa.float64(), unit)
        for who in _WHO
        for did in _DID
        for what, unit in (("volume", "shares"), ("turnover", "KRW"))
    ]
    + [_field("source", pa.string()), _field("ingested_at", TS, "UTC")]
)
SESSIONS = pa.schema(
    [
        _field("venue", pa.string()),
        _field("date", pa.date32(), "calendar day, KST"),
        _field("open", pa.bool_()),
        _field("source", pa.string()),
        _field("ingested_at", TS, "UTC"),
    ]
)
COVERAGE = pa.schema(  # which days of what the source was asked for and has answered in full
    [
        _field("symbol", pa.string()),
        _field("interval", pa.string()),
        _field("venue", pa.string()),
        _field("source", pa.string()),
        _field("first", pa.date32(), "KST"),
        _field("last", pa.date32(), "KST"),
        _field("rows", pa.int64(), "rows that the lake held of these days when this was written"),
        _field("ingested_at", TS, "UTC"),
    ]
)
PAGES = pa.schema(  # answers as they came over the wire, closed days only
    [
        _field("symbol", pa.string()),
        _field("interval", pa.string()),
        _field("venue", pa.string()),
        _field("source", pa.string()),
        _field("call", pa.string(), "name of the call"),
        _field("query", pa.string(), "its parameters, JSON with sorted names"),
        _field("number", pa.int32(), "place among the calls that made one history"),
        _field("body", pa.binary()),
        _field("ingested_at", TS, "UTC"),
    ]
)
SCHEMAS = {
    "bars": BARS,
    "actions": ACTIONS,
    "symbols": SYMBOLS,
    "quarantine": QUARANTINE,
    "flows": FLOWS,
    "sessions": SESSIONS,
    "coverage": COVERAGE,
    "pages": PAGES,
}
KEYS: dict[str, tuple[str, ...]] = {
    "bars": ("symbol", "interval", "ts", "venue", "source"),
    "actions": ("symbol", "ex_date", "kind", "source"),
    "symbols": ("symbol", "as_of", "source"),
    "quarantine": ("source", "file", "line", "symbol", "interval", "ts", "reason"),
    "flows": ("symbol", "ts", "source"),
    "sessions": ("venue", "date", "source"),
    "coverage": ("symbol", "interval", "venue", "source", "first"),
    "pages": ("source", "venue", "interval", "symbol", "ingested_at", "number"),
}


def content_digest(table: pa.Table, keys: Sequence[str] = ()) -> str:
    """Return 32 hexadecimal digits that name the rows of a table.

    The same for any row order (rows are sorted by `keys` first), chunking, file layout and time of ingestion (the
    column `ingested_at` is left out). All NaN count as one; a null differs from NaN.
    """
    names = [n for n in table.column_names if n != "ingested_at"]
    table = sorted_rows(keys, table, names) if keys and table.num_rows > 1 else table.select(names)
    total = xxhash.xxh3_128()  # it names rows and guards nothing; several times as fast as SHA-256
    for name in sorted(names):
        column = table.column(name).combine_chunks()
        kind = column.type
        if isinstance(column, pa.ChunkedArray):  # an empty column stays chunked
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
        total.update(f"{name}:{kind}:{len(column)}:{column.null_count}".encode())
        if column.null_count:
            total.update(pc.is_null(column).cast(pa.uint8()).to_numpy(zero_copy_only=False))
        for part in _parts(column):
            total.update(part)
    return total.hexdigest()


def _parts(column: pa.Array) -> Iterator[Any]:
    """Yield buffers that name the values of a column: contiguous arrays, so that no byte is copied to be hashed."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _parts(column.cast(kind.value_type))
    elif pa.types.is_binary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raw = pa.types.is_binary(kind)
        whole = _filled(column, b"" if raw else "").cast(pa.large_binary() if raw else pa.large_string())
        yield (pc.binary_length if raw else pc.utf8_length)(whole).to_numpy(zero_copy_only=False).astype("int64")
        _, places, letters = whole.buffers()
        edges = np.frombuffer(places, np.int64)[[whole.offset, whole.offset + len(whole)]] if len(whole) else (0, 0)
        yield letters[int(edges[0]) : int(edges[1])] if letters else b""
    elif pa.types.is_floating(kind):
        values = _filled(column, 0.0).to_numpy(zero_copy_only=False) + 0.0  # -0.0 and 0.0 are one value; a fresh array
        values[values != values] = float("nan")
        yield values
    else:
        if pa.types.is_boolean(kind):
            column = column.cast(pa.uint8())
        elif pa.types.is_temporal(kind):
            column = column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())
        yield np.ascontiguousarray(_filled(column, 0).to_numpy(zero_copy_only=False))


def _filled(column: pa.Array, value: object) -> pa.Array:
    return pc.fill_null(column, value) if column.null_count else column
