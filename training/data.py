"""Feature blocks -> one resident matrix -> batches of windows, without a Python object a sample.

Shapes: N rows of all symbols sorted by (symbol, ts), F features, W windows, B batch, L window length. A window is named
by the row at which it ends; a batch is a copy of the L rows up to and including each of those rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from storage.store import read_json

UNKNOWN_END = np.iinfo(np.int64).max
_CHUNK = 1 << 18


class DataError(Exception):
    """Input from which no model can be trained or scored."""


@dataclass(frozen=True)
class Columns:
    """Name what a feature stage offers and the label to learn; `largest_horizon` is over all its labels, in bars.

    folders : which folder of the stage holds each column; the files of all folders have the same names and rows.
    """

    interval: str
    features: tuple[str, ...]
    target: str
    end: str
    horizon: int
    largest_horizon: int
    folders: Mapping[str, str]


def read_columns(directory: Path, target: str = "auto") -> Columns:
    """Read `columns.json` of a feature stage; DataError when the label is not there or there is no feature."""
    where = Path(directory) / "columns.json"
    found = read_json(where)
    targets = {str(t["name"]): t for t in found["targets"]}
    names = tuple(str(f["name"]) for f in found["features"])
    if not names:
        raise DataError(f"expected at least one feature in {where}, got none; add features to the feature set")
    if not targets:
        raise DataError(f"expected at least one label in {where}, got none; add a horizon to the labels")
    name = next(iter(targets)) if target == "auto" else target
    if name not in targets:
        raise DataError(f"expected train.target to be one of {', '.join(targets)} ({where}), got '{target}'")
    chosen = targets[name]
    return Columns(
        interval=str(found["interval"]),
        features=names,
        target=name,
        end=str(chosen["end"]),
        horizon=int(chosen["horizon"]),
        largest_horizon=max(int(t["horizon"]) for t in targets.values()),
        folders={
            "ts": "blocks",
            **{str(f["name"]): str(f["in"]) for f in found["features"]},
            name: "targets",
            str(chosen["end"]): "targets",
            "member": str(found["member"]),
        },
    )


def check_columns(expected: Sequence[str], got: Sequence[str], where: Path) -> None:
    """Refuse features that are not, in this order, those of a model; DataError names the first difference."""
    if list(expected) == list(got):
        return
    missing = [name for name in expected if name not in got]
    extra = [name for name in got if name not in expected]
    if missing:
        detail = f"missing: {', '.join(missing)}"
    elif extra:
        detail = f"unknown to the checkpoint: {', '.join(extra)}"
    else:
        at = next(i for i, pair in enumerate(zip(expected, got)) if pair[0] != pair[1])
        detail = f"another order: column {at} is '{got[at]}', the checkpoint has '{expected[at]}' there"
    raise DataError(
        f"expected the {len(expected)} feature columns of the checkpoint, got {len(got)} from {where} ({detail}); "
        "predict with the feature set of the training run, or train again"
    )


@dataclass
class Panel:
    """Hold every row of a feature stage, sorted by (symbol, ts) whatever the layout of its blocks.

    symbol_N : int32, index into `symbols`;  ts_N : int64, end of bar, microseconds UTC
    x_NF : float32, NaN = not known;  y_N : float32, forward return, NaN = not known
    end_N : int64, time at which the label is known, microseconds UTC; UNKNOWN_END where there is none
    member_N : bool, belongs to the universe; other rows are the past of windows, never their end
    """

    symbols: tuple[str, ...]
    features: tuple[str, ...]
    symbol_N: NDArray[np.int32]
    ts_N: NDArray[np.int64]
    x_NF: NDArray[np.float32]
    y_N: NDArray[np.float32]
    end_N: NDArray[np.int64]
    member_N: NDArray[np.bool_]


@dataclass(frozen=True)
class _Segment:
    symbol: str
    path: Path
    start: int
    stop: int
    first: int


def read_panel(directory: Path, columns: Columns) -> Panel:
    """Read all blocks of a feature stage into one matrix; DataError when a block is missing, malformed or unsorted."""
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
        x_NF=np.empty((rows, len(columns.features)), np.float32),
        y_N=np.empty(rows, np.float32),
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
    names = pq.read_schema(path).names
    if "symbol" not in names:
        raise DataError(f"expected a column 'symbol' in {path}, got {', '.join(names)}")
    table = pq.read_table(path, columns=["symbol", "ts"])
    symbols, ts = table.column(0).combine_chunks(), table.column(1).cast(pa.int64()).to_numpy()
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
    tables, rows = {}, -1
    for folder in sorted(set(columns.folders.values())):
        file, wanted = path.parent.parent / folder / path.name, [n for n, at in columns.folders.items() if at == folder]
        if not file.exists():
            raise DataError(f"expected {file} beside {path}, got no such file; make the features again")
        missing = [name for name in wanted if name not in pq.read_schema(file).names]
        if missing:
            raise DataError(
                f"expected columns {', '.join(missing)} in {file}, which columns.json names; make the features again"
            )
        tables[folder] = pq.read_table(file, columns=wanted)
        if rows not in (-1, tables[folder].num_rows):
            raise DataError(f"expected {rows} rows in {file}, got {tables[folder].num_rows}; make the features again")
        rows = tables[folder].num_rows

    def copy(name: str, target: NDArray[Any], null: float | bool) -> None:
        column = tables[columns.folders[name]].column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
        values = pc.fill_null(column, pa.scalar(null, column.type)).to_numpy()
        if values.dtype.kind == "f":  # an infinite value is as unusable as none
            values = np.where(np.isfinite(values), values, np.nan)
        for segment, at in places:
            target[at : at + segment.stop - segment.start] = values[segment.start : segment.stop]

    copy("ts", panel.ts_N, 0)
    copy(columns.target, panel.y_N, np.nan)
    copy(columns.end, panel.end_N, UNKNOWN_END)
    copy("member", panel.member_N, False)
    for f, name in enumerate(columns.features):
        copy(name, panel.x_NF[:, f], np.nan)


def known(x_NF: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say for each row (N,) whether all features are finite, a chunk at a time."""
    out_N = np.empty(len(x_NF), np.bool_)
    for a in range(0, len(x_NF), _CHUNK):
        out_N[a : a + _CHUNK] = np.isfinite(x_NF[a : a + _CHUNK]).all(axis=1)
    return out_N


def run_lengths(known_N: NDArray[np.bool_], symbol_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """Count the complete rows (N,) of the same symbol that end at each row without a break; 0 at an incomplete row."""
    at_N = np.arange(len(known_N), dtype=np.int64)
    fresh_N = np.ones(len(known_N), np.bool_)
    fresh_N[1:] = symbol_N[1:] != symbol_N[:-1]
    before_N = np.where(fresh_N, at_N - 1, -1)
    before_N[~known_N] = at_N[~known_N]
    return at_N - np.maximum.accumulate(before_N)


def window_ends(panel: Panel, known_N: NDArray[np.bool_], length: int) -> NDArray[np.int64]:
    """Return the rows (W,), members of the universe, that end `length` complete bars inside one symbol; DataError when
    there is none.
    """
    runs_N = run_lengths(known_N, panel.symbol_N)
    ends_W = np.flatnonzero((runs_N >= length) & panel.member_N)
    if ends_W.size == 0:
        best = int(np.argmax(runs_N))
        poor = np.argsort(np.isfinite(panel.x_NF).sum(axis=0))[:3]
        share = ", ".join(f"{panel.features[f]} ({np.isfinite(panel.x_NF[:, f]).mean():.0%} known)" for f in poor)
        raise DataError(
            f"expected a symbol with {length} complete bars in a row, got at most {int(runs_N[best])} "
            f"({panel.symbols[panel.symbol_N[best]]}); shorten train.window, ingest a longer history, or drop the "
            f"sparsest features: {share}"
        )
    return ends_W


def _copy_windows(x_NF: NDArray[np.float32], end_B: NDArray[np.int64], out_BLF: NDArray[np.float32]) -> None:
    for b in range(out_BLF.shape[0]):
        first = end_B[b] - out_BLF.shape[1] + 1
        for t in range(out_BLF.shape[1]):
            for f in range(out_BLF.shape[2]):
                out_BLF[b, t, f] = x_NF[first + t, f]


# Serial on purpose: trials may gather from several threads of a worker, and the copy is below 1 % of a training step on
# a CPU.
copy_windows = numba.njit(nogil=True, cache=True)(_copy_windows)


class Resident:
    """Keep a scaled matrix on one device and give batches of windows from it."""

    def __init__(self, x_NF: NDArray[np.float32], length: int, device: str) -> None:
        self.length = length
        self.device = torch.device("cuda" if device == "gpu" else "cpu")
        self.x_NF = on_device(torch.from_numpy(x_NF), self.device)
        self._back_L = torch.arange(1 - length, 1, device=self.device)

    @property
    def n_features(self) -> int:
        return int(self.x_NF.shape[1])

    def batch(self, end_B: torch.Tensor) -> torch.Tensor:
        """Return the windows (B, L, F) float32 that end at the rows (B,) int64, both on this device."""
        if self.device.type == "cpu":
            out_BLF = torch.empty((len(end_B), self.length, self.n_features), dtype=torch.float32)
            copy_windows(self.x_NF.numpy(), end_B.numpy(), out_BLF.numpy())
            return out_BLF
        rows = (end_B[:, None] + self._back_L[None, :]).reshape(-1)
        return self.x_NF.index_select(0, rows).view(len(end_B), self.length, self.n_features)


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a host tensor; to a GPU through pinned memory, so that the copy runs beside the host's work."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)
