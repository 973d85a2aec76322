"""Rows put in the order of their key: one table out of old and new rows, or out of the files of several partitions.

Keys are turned into integers that sort as they do, and rows are moved in whole blocks: what comes is nearly always
sorted symbol by symbol, so comparing text or copying row by row would be most of the work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_BLOCK = 64  # mean number of rows from which copying block by block beats row by row


def merged(keys: Sequence[str], old: pa.Table, new: pa.Table) -> tuple[pa.Table, int]:
    """Return old and new rows together, sorted, one a key, and how many differ from before.

    The last new row of a key wins; one that is equal to the old one but for `ingested_at` leaves the old one as it is.
    """
    if new.num_rows == 0:
        return old, 0
    both = pa.concat_tables([old, new.select(old.column_names)]).unify_dictionaries() if old.num_rows else new
    codes = _codes(keys, both)
    if old.num_rows == 0 and _ascending(codes):
        return new, new.num_rows
    order = _order(codes)
    first = np.ones(len(order), bool)
    first[1:] = _changes(codes, order)
    last = np.append(first[1:], True)
    chosen = order[last]
    head = order[np.flatnonzero(first)]  # the first row of each key: the old one where there is one
    rival = (chosen >= old.num_rows) & (head < old.num_rows)
    same = np.zeros(len(chosen), bool)
    names = [n for n in both.column_names if n != "ingested_at"]
    same[rival] = equal_rows(both.select(names), head[rival], chosen[rival])
    return gathered(both, np.where(same, head, chosen)), int(((chosen >= old.num_rows) & ~same).sum())


def sorted_rows(keys: Sequence[str], rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return these columns of the rows, sorted by key."""
    codes = _codes(keys, rows)
    rows = rows.select(list(columns))
    return rows if _ascending(codes) else gathered(rows, _order(codes))


def gathered(rows: pa.Table, order: Codes) -> pa.Table:
    """Return the rows at these places; where they come in blocks nothing is copied and the columns are chunked."""
    starts = np.flatnonzero(np.diff(order, prepend=-2) != 1)
    if len(order) == 0 or len(starts) * _BLOCK > len(order):
        return rows.take(pa.array(order))
    lengths = np.diff(starts, append=len(order))
    blocks = zip(order[starts].tolist(), lengths.tolist(), strict=True)
    return pa.concat_tables([rows.slice(start, length) for start, length in blocks])


def each(task: Any, items: Sequence[Any], parallel: bool = True) -> list[Any]:
    """Run a task for each item, on all cores where that pays; all have ended when it returns or raises."""
    if len(items) < 2 or not parallel:
        return [task(item) for item in items]
    with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
        return list(pool.map(task, items))


def equal_rows(table: pa.Table, a: Codes, b: Codes) -> Flags:
    """Compare rows a[i] and b[i] of a table; null equals null and NaN equals NaN."""
    out = np.ones(len(a), dtype=bool)
    if len(a) == 0:
        return out
    left, right = gathered(table, a), gathered(table, b)
    for name in table.column_names:
        x, y = _plain(left[name]), _plain(right[name])
        same = pc.fill_null(pc.equal(x, y), False)
        same = pc.or_(same, pc.and_(pc.is_null(x), pc.is_null(y)))
        if pa.types.is_floating(x.type):
            same = pc.or_(same, pc.and_(pc.fill_null(pc.is_nan(x), False), pc.fill_null(pc.is_nan(y), False)))
        out &= same.to_numpy()
    return out


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _ascending(codes: list[Codes]) -> bool:
    return len(codes) == 1 and bool((codes[0][1:] > codes[0][:-1]).all())


def _order(codes: list[Codes]) -> Codes:
    """Return the stable order of rows by their codes."""
    if len(codes) > 1:
        return np.lexsort(codes[::-1]).astype(np.int64)
    return np.argsort(codes[0], kind="stable").astype(np.int64)  # timsort: linear where a few sorted runs come together


def _changes(codes: list[Codes], order: Codes) -> Flags:
    """Say for each row but the first, in order, whether its key differs from that of the row before."""
    out = np.zeros(max(len(order) - 1, 0), bool)
    for code in codes:
        moved = code[order]
        out |= moved[1:] != moved[:-1]
    return out


def _codes(keys: Sequence[str], rows: pa.Table) -> list[Codes]:
    """Return numbers that sort as the key columns do, most significant first; as few as fit in 64 bits each."""
    out: list[Codes] = []
    room = 1  # how many different values the last of `out` may take
    for name in keys:
        code, count = _ranks(rows[name])
        if count == 1:
            continue
        if out and room * count < 1 << 62:
            out[-1] *= count
            out[-1] += code
            room *= count
        else:
            out.append(code)
            room = count
    return out or [np.zeros(rows.num_rows, np.int64)]


def _ranks(column: pa.ChunkedArray) -> tuple[Codes, int]:
    """Return numbers from 0 in the order of the values, nulls last, and how many there may be."""
    kind = column.type
    if len(column) == 0:
        return np.empty(0, np.int64), 1
    if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
        encoded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        encoded = pa.concat_arrays(encoded.unify_dictionaries().chunks)
        place = pc.sort_indices(encoded.dictionary).to_numpy()
        if len(place) == 1 and not encoded.null_count:
            return np.zeros(0, np.int64), 1
        rank = np.empty(len(place) + 1, np.int64)
        rank[place], rank[-1] = np.arange(len(place)), len(place)
        at = encoded.indices
        if encoded.null_count:
            at = pc.fill_null(at.cast(pa.int32()), len(place))
        return rank[at.to_numpy(zero_copy_only=False)], len(place) + 1
    values = (column.cast(pa.int32()) if pa.types.is_date32(kind) else column).cast(pa.int64())
    beyond = 0
    if column.null_count:
        known = pc.max(values).as_py()
        beyond = 0 if known is None else known + 1
        values = pc.fill_null(values, beyond)
    numbers = values.to_numpy()
    low = int(numbers.min())
    return numbers - low, int(numbers.max()) - low + 1
