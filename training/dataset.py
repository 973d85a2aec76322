"""From a feature stage to what a trainer needs: scaled rows, targets, and the windows of each split.

Shapes: N rows, F features, W windows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.emit import Emit
from storage.section import digest_of

from .data import Columns, DataError, Panel, known, read_columns, read_panel, window_ends
from .scaler import Scaler
from .section import TrainSection
from .splits import GAP, NAMES, TEST, TRAIN, VALID, SplitError, Splits, SplitSection, make_splits
from .targets import Kind, choose_kind, shuffle, transform


@dataclass
class Dataset:
    """Hold one panel ready for training; nothing in it changes afterwards, so trials may share it.

    panel.x_NF is scaled. target_N float32: what is learned; NaN outside training and validation, where the label is not
    known or where it was purged. known_N: all features finite. counts: rows for each split and reason.
    """

    columns: Columns
    panel: Panel
    scaler: Scaler
    splits: Splits
    kind: Kind
    split_N: NDArray[np.int8]
    target_N: NDArray[np.float32]
    known_N: NDArray[np.bool_]
    counts: dict[str, int]

    def windows(self, split: int, length: int) -> NDArray[np.int64]:
        """Return the rows (W,) that end a window of a split and have a target; SplitError when there is none."""
        ends_W = window_ends(self.panel, self.known_N, length)
        keep_W: NDArray[np.bool_] = (self.split_N[ends_W] == split) & np.isfinite(self.target_N[ends_W])
        ends_W = ends_W[keep_W]
        if ends_W.size == 0:
            name = next(k for k, v in NAMES.items() if v == split)
            raise SplitError(
                f"expected windows of {length} complete bars with a known label in the {name} split, got none "
                f"(rows: {self.counts}); ingest a longer history, shorten train.window or move the boundaries of "
                "split.*"
            )
        return ends_W

    def columns_json(self) -> dict[str, Any]:
        """Return what a later stage must find again: the features offered and used, and the label."""
        return {
            "interval": self.columns.interval,
            "offered": list(self.columns.features),
            "features": list(self.panel.features),
            "target": self.columns.target,
            "end": self.columns.end,
            "horizon": self.columns.horizon,
            "target_kind": self.kind,
        }

    def splits_json(self) -> dict[str, Any]:
        return {**self.splits.to_json(), "rows": self.counts}

    def fingerprint(self, train: TrainSection) -> str:
        """Name everything on which a fit depends: settings, columns, boundaries, scaled rows and targets."""
        sums = [
            zlib.crc32(np.ascontiguousarray(a).data)
            for a in (self.panel.x_NF, self.target_N, self.panel.ts_N, self.known_N)
        ]
        return digest_of([train.keyed(), self.columns_json(), self.splits_json(), self.scaler.to_json(), sums])


def prepare(directory: Path, split: SplitSection, train: TrainSection, emit: Emit) -> Dataset:
    """Read a feature stage, split it by time, fit the scaler on training rows only and make targets.

    Columns without a finite value in training rows are dropped and named in the log. Infinite features count as NaN; a
    window needs every feature of every bar. DataError or SplitError when nothing is left to learn from.
    """
    columns = read_columns(directory, train.target)
    panel = read_panel(directory, columns)
    splits = make_splits(panel.ts_N, split, columns.largest_horizon)
    split_N = splits.of(panel.ts_N)
    drop_empty(panel, split_N == TRAIN, emit)
    known_N = known(panel.x_NF)
    purged_N = splits.purged(split_N, panel.end_N) & np.isfinite(panel.y_N)
    y_N = np.where(((split_N == TRAIN) | (split_N == VALID)) & ~purged_N, panel.y_N, np.float32(np.nan))
    _check_labels(panel, y_N, split_N, columns)
    scaler = Scaler.fit(panel.x_NF, split_N == TRAIN, panel.features, train.scaler, train.clip)
    scaler.apply(panel.x_NF)
    kind = choose_kind(train.target_kind, panel.ts_N[(split_N == TRAIN) & np.isfinite(y_N)])
    target_N = transform(kind, y_N, panel.ts_N, split_N == TRAIN)
    if train.shuffle_labels:
        shuffle(target_N, [split_N == TRAIN, split_N == VALID], train.seed)
    counts = {name: int((split_N == code).sum()) for name, code in NAMES.items()}
    counts |= {"embargo": int((split_N == GAP).sum()), "purged": int(purged_N.sum())}
    emit(
        "log",
        level="info",
        text=f"{len(panel.symbols)} symbols, {len(panel.ts_N):,} rows, {len(panel.features)} features, label "
        f"{columns.target} ({kind}"
        f"{', shuffled' if train.shuffle_labels else ''}); rows by split: {counts}",
    )
    return Dataset(columns, panel, scaler, splits, kind, split_N, target_N, known_N, counts)


def drop_empty(panel: Panel, fit_N: NDArray[np.bool_], emit: Emit) -> None:
    """Drop features without a finite value in the rows `fit_N`, naming them in the log; DataError when none is left."""
    keep_F: NDArray[np.bool_] = np.asarray(np.isfinite(panel.x_NF[fit_N]).any(axis=0))
    if keep_F.all():
        return
    gone = [name for name, keep in zip(panel.features, keep_F) if not keep]
    if not keep_F.any():
        raise DataError(
            f"expected at least one feature with a value in the training rows, got only NaN in all {len(gone)} "
            f"({', '.join(gone)}); "
            "ingest a longer history or choose features with a shorter warm-up"
        )
    emit("log", level="warning", text=f"features without any value in the training rows are dropped: {', '.join(gone)}")
    panel.features = tuple(name for name, keep in zip(panel.features, keep_F) if keep)
    panel.x_NF = np.ascontiguousarray(panel.x_NF[:, keep_F])


def _check_labels(panel: Panel, y_N: NDArray[np.float32], split_N: NDArray[np.int8], columns: Columns) -> None:
    for name, code in (("train", TRAIN), ("valid", VALID)):
        rows = split_N == code
        if not np.isfinite(y_N[rows]).any():
            before = int(np.isfinite(panel.y_N[rows]).sum())
            raise DataError(
                f"expected known labels {columns.target} in the {name} split, got {int(rows.sum())} rows of which "
                f"{before} have a label and "
                "none is left after purging; shorten the label's horizon, ingest a longer history or move the "
                "boundaries of split.*"
            )


__all__ = ["GAP", "TEST", "TRAIN", "VALID", "Dataset", "drop_empty", "prepare"]
