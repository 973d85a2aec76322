"""Feature blocks -> one matrix of rows, whatever the layout of the blocks.

Shapes: N rows of all symbols sorted by (symbol, ts), F features, H labels to learn.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .columns import Columns, DataError

UNKNOWN_END = np.iinfo(np.int64).max
_CHUNK = 1 << 18
_ROOM = 0.5  # share of the free memory that the matrix may take; a larger one goes to a memory-mapped file


@dataclass
class Panel:
    """Hold every row of a feature stage, sorted by (symbol, ts) whatever the layout of its blocks.

    symbol_N : int32, index into `symbols`;  ts_N : int64, end of bar, microseconds UTC
    x_NF : float32, NaN = not known, a memory-mapped file where memory does not hold it
    y_NH : float32, labels, NaN = not known
    end_N : int64, time at which the last of the row's labels is known, microseconds UTC; UNKNOWN_END where it has none,
        or one that does not say when
    member_N : bool, belongs to the universe; other rows are the past of windows, never their end
    """

    symbols: tuple[str, ...]
    features: tuple[str, ...]
    symbol_N: NDArray[np.int32]
    ts_N: NDArray[np.int64]
    x_NF: NDArray[np.float32]
    y_NH: NDArray[np.float32]
    end_N: NDArray[np.int64]
    member_N: NDArray[np.bool_]

    def since(self, bars: int) -> NDArray[np.int64]:
        """Return when the bar ended that lies `bars` before each row's own (N,), or its symbol's first one."""
        at_N = np.arange(len(self.ts_N), dtype=np.int64)
        fresh_N = np.append(True, self.symbol_N[1:] != self.symbol_N[:-1])[: len(at_N)]
        return self.ts_N[np.maximum(at_N - bars, np.maximum.accumulate(np.where(fresh_N, at_N, 0)))]

    def keep(self, features: Sequence[str]) -> None:
        """Leave out all features but these, in this order."""
        if tuple(features) != self.features:
            self.x_NF, self.features = self.copy(features, _folder(self.x_NF)).x_NF, tuple(features)

    def copy(self, features: Sequence[str], scratch: Path | None) -> Panel:
        """Return a panel of these features, in this order, in its own matrix (see `matrix`); the rest is shared."""
        used = [self.features.index(name) for name in features]
        x_NF = matrix(len(self.x_NF), len(used), scratch)
        for a in range(0, len(x_NF), _CHUNK):
            np.take(self.x_NF[a : a + _CHUNK], used, axis=1, out=x_NF[a : a + _CHUNK], mode="clip")  # raise buffers
        return replace(self, features=tuple(features), x_NF=x_NF)


def read_stamps(directory: Path) -> NDArray[np.int64]:
    """Return the distinct ends of bars of a feature stage, sorted, microseconds UTC."""
    paths = sorted((Path(directory) / "blocks").glob("*.parquet"))
    found = [np.unique(_numbers(_read(path, {"ts": TIME})["ts"], 0)) for path in paths]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


@dataclass(frozen=True)
class _Segment:
    symbol: str
    path: Path
    start: int
    stop: int
    first: int


def matrix(rows: int, width: int, folder: Path | None, copies: int = 1) -> NDArray[np.float32]:
    """Return a matrix of float32 to be filled, as a file in `folder` (None = in memory) where so many of them take more
    than half of the free memory. The file has no name any more: it is gone with the matrix, however the process ends.
    DataError when the disk has no room.
    """
    if folder is None or rows * width * 4 * copies < _ROOM * psutil.virtual_memory().available:
        return np.empty((rows, width), np.float32)
    size = rows * width * 4
    with tempfile.NamedTemporaryFile(prefix=".matrix-", dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk found only when a page is written ends the process
        except OSError as error:
            raise DataError(
                f"expected {size / 1e9:.1f} GB of room in {folder} for {rows:,} rows of {width} features, which memory "
                f"does not hold, got '{error.strerror}'; free some, or use fewer features or symbols"
            ) from error
        return np.memmap(file, np.float32, "r+", shape=(rows, width))


def _folder(values: NDArray[np.float32]) -> Path | None:
    return Path(str(values.filename)).parent if isinstance(values, np.memmap) else None


def read_panel(directory: Path, columns: Columns, scratch: Path | None = None, copies: int = 1) -> Panel:
    """Read all blocks of a feature stage into one matrix; DataError when a block is missing, malformed or unsorted.

    scratch : folder for a matrix that memory does not hold; copies : matrices of its size at once, see `matrix`.
    """
    paths = sorted((Path(directory) / "blocks").glob("*.parquet"))
    segments = sorted((s for path in paths for s in _segments(path)), key=lambda s: (s.symbol, s.first))
    rows = sum(s.stop - s.start for s in segments)
    if rows == 0:
        raise DataError(
            f"expected rows in {Path(directory) / 'blocks'}, got {len(paths)} files without any; check the ingest stage"
        )
    symbols = tuple(dict.fromkeys(s.symbol for s in segments))
    number = {symbol: i for i, symbol in enumerate(symbols)}
    lengths = [s.stop - s.start for s in segments]
    panel = Panel(
        symbols=symbols,
        features=columns.features,
        symbol_N=np.repeat(np.array([number[s.symbol] for s in segments], np.int32), lengths),
        ts_N=np.empty(rows, np.int64),
        x_NF=matrix(rows, len(columns.features), scratch, copies),
        y_NH=np.empty((rows, len(columns.labels)), np.float32),
        end_N=np.empty(rows, np.int64),
        member_N=np.empty(rows, np.bool_),
    )
    places: dict[Path, list[tuple[_Segment, int]]] = {path: [] for path in paths}
    for segment, at in zip(segments, np.cumsum([0, *lengths])):
        places[segment.path].append((segment, int(at)))
    for path in paths:
        _fill(panel, path, columns, places[path])
    step = np.diff(panel.ts_N)
    bad = np.flatnonzero((step <= 0) & (np.diff(panel.symbol_N) == 0))
    if bad.size:
        symbol = panel.symbols[panel.symbol_N[bad[0]]]
        raise DataError(
            f"expected bars sorted by time without repeats, got a step back in symbol {symbol}; make the features again"
        )
    return panel


def _segments(path: Path) -> list[_Segment]:
    table = _read(path, {"symbol": TEXT, "ts": TIME})
    symbols, ts = table["symbol"].combine_chunks(), _numbers(table["ts"], 0)
    if len(symbols) == 0:
        return []
    encoded = symbols if pa.types.is_dictionary(symbols.type) else pc.dictionary_encode(symbols)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])
    stops = np.concatenate([starts[1:], [len(codes)]])
    names_of = encoded.dictionary.to_pylist()
    if len(starts) != len(names_of):
        raise DataError(
            f"expected the rows of each symbol together in {path}, got {len(starts)} runs of {len(names_of)} symbols; "
            "make the features again"
        )
    return [_Segment(str(names_of[codes[a]]), path, int(a), int(b), int(ts[a])) for a, b in zip(starts, stops)]


def _fill(panel: Panel, path: Path, columns: Columns, places: list[tuple[_Segment, int]]) -> None:
    """Put the rows of one block, with what stands beside them, in their places."""
    found = _beside(path, columns)
    rows = len(found["ts"])

    def copy(values: NDArray[Any], target: NDArray[Any]) -> None:
        for segment, at in places:
            target[at : at + segment.stop - segment.start] = values[segment.start : segment.stop]

    def stacked(names: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((rows, len(names)), np.float32)
        for i, name in enumerate(names):
            out[:, i] = _numbers(found[name], np.nan)
        out[~np.isfinite(out)] = np.nan  # an infinite value is as unusable as none
        return out

    copy(_numbers(found["ts"], 0), panel.ts_N)
    copy(_numbers(found["member"], False), panel.member_N)
    copy(stacked(columns.features), panel.x_NF)
    y_NH = stacked([label.name for label in columns.labels])
    copy(y_NH, panel.y_NH)
    ends = np.full(rows, -1, np.int64)
    for h, label in enumerate(columns.labels):
        np.maximum(ends, _numbers(found[label.end], UNKNOWN_END), out=ends, where=np.isfinite(y_NH[:, h]))
    copy(np.where(ends < 0, UNKNOWN_END, ends), panel.end_N)


def _beside(path: Path, columns: Columns) -> dict[str, pa.ChunkedArray]:
    """Return the columns of a block by name, from all folders that hold some."""
    out: dict[str, pa.ChunkedArray] = {}
    kinds = {"ts": TIME, "member": TRUTH, **{label.end: TIME for label in columns.labels}}
    rows = -1
    for folder in sorted(set(columns.folders.values())):
        file, wanted = path.parent.parent / folder / path.name, [n for n, at in columns.folders.items() if at == folder]
        if not file.exists():
            raise DataError(f"expected {file} beside {path}, got no such file; make the features again")
        table = _read(file, {name: kinds.get(name, NUMBER) for name in wanted})
        if rows not in (-1, table.num_rows):
            raise DataError(f"expected {rows} rows in {file}, got {table.num_rows}; make the features again")
        rows = table.num_rows
        out |= {name: table.column(name) for name in wanted}
    return out


def _read(file: Path, wanted: Mapping[str, str]) -> pa.Table:
    """Read columns of a block, each of the kind that is named; DataError where one is missing or of another type."""
    try:
        found = pq.read_schema(file)
        missing = [name for name in wanted if name not in found.names]
        if missing:
            raise DataError(
                f"expected columns {', '.join(missing)} in {file}, got {', '.join(found.names)}; make the features "
                "again"
            )
        for name, kind in wanted.items():
            if not _KINDS[kind](found.field(name).type):
                raise DataError(
                    f"expected {kind} in column '{name}' of {file}, got {found.field(name).type}; make the features "
                    "again"
                )
        return pq.read_table(file, columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a Parquet file at {file}, got: {error}; make the features again") from error


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


TEXT, TIME, NUMBER, TRUTH = "text", "a timestamp", "floating-point numbers", "true or false"
_KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    TEXT: _is_text, TIME: pa.types.is_timestamp, NUMBER: pa.types.is_floating, TRUTH: pa.types.is_boolean,
}  # fmt: skip


def _numbers(column: pa.ChunkedArray, null: float | bool) -> NDArray[Any]:
    """Return a column as an array; times are int64 microseconds."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
    out: NDArray[Any] = pc.fill_null(column, pa.scalar(null, column.type)).to_numpy()
    return out
