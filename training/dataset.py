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

from .columns import Columns, DataError, read_columns
from .panel import Panel, read_panel
from .scaler import Scaler
from .section import TrainSection
from .splits import GAP, NAMES, TRAIN, VALID, Fold, SplitError, SplitSection, make_folds
from .targets import Kind, choose_kind, shuffle, transform
from .windows import known, window_ends

_CHUNK = 1 << 18


@dataclass
class Dataset:
    """Hold one fold ready for training; nothing in it changes afterwards, so trials may share it.

    panel.x_NF is scaled. target_NH float32: what is learned; NaN outside training and validation, where the label is
    not known or where it was purged. known_N: all features finite. counts: rows for each split and reason.
    """

    columns: Columns
    panel: Panel
    scaler: Scaler
    fold: Fold
    kind: Kind
    split_N: NDArray[np.int8]
    target_NH: NDArray[np.float32]
    known_N: NDArray[np.bool_]
    counts: dict[str, int]

    def windows(self, split: int, train: TrainSection) -> NDArray[np.int64]:
        """Return the rows (W,) that end a window of a split and have a target of the first label; SplitError when there
        is none. A window of the training part lies in it as a whole, one of another part may reach back before it, as
        it does in use.
        """
        ends_W = window_ends(self.panel, self.known_N, train.window, train.max_gap_days)
        keep_W: NDArray[np.bool_] = (self.split_N[ends_W] == split) & np.isfinite(self.target_NH[ends_W, 0])
        if split == TRAIN:
            inside_N = np.concatenate([[0], np.cumsum(self.split_N == TRAIN)])
            keep_W &= inside_N[ends_W + 1] - inside_N[ends_W + 1 - train.window] == train.window
        ends_W = ends_W[keep_W]
        if ends_W.size == 0:
            name = next(k for k, v in NAMES.items() if v == split)
            raise SplitError(
                f"expected windows of {train.window} complete bars with a known label in the {name} split, got none "
                f"(rows: {self.counts}); ingest a longer history, shorten train.window or move the boundaries of "
                "split.*"
            )
        return ends_W

    def columns_json(self) -> dict[str, Any]:
        """Return what a later stage must find again: the features offered and used, and the labels."""
        return {
            "interval": self.columns.interval,
            "offered": list(self.columns.features),
            "features": list(self.panel.features),
            "targets": [label.name for label in self.columns.labels],
            "horizon": self.columns.horizon,
            "target_kind": self.kind,
        }

    def fingerprint(self, train: TrainSection, name: str) -> str:
        """Name everything on which a fit depends: settings, columns, boundaries, scaled rows and targets."""
        sums = [_sum_of(a) for a in (self.panel.x_NF, self.target_NH, self.panel.ts_N, self.known_N)]
        parts = [name, train.keyed(), self.columns_json(), self.fold.to_json(), self.scaler.to_json(), sums]
        return digest_of(parts)


def _sum_of(values: NDArray[Any]) -> int:
    total = 0
    for a in range(0, len(values), _CHUNK):
        total = zlib.crc32(np.ascontiguousarray(values[a : a + _CHUNK]).data, total)
    return total


def prepare(
    directory: Path, split: SplitSection, train: TrainSection, emit: Emit, number: int = 0, scratch: Path | None = None
) -> Dataset:
    """Read a feature stage, take one fold of it, fit the scaler on its training rows only and make targets.

    Columns without a finite value in training rows are dropped and named in the log. Infinite features count as NaN; a
    window needs every feature of every bar. scratch : folder for a matrix that memory does not hold. DataError or
    SplitError when nothing is left to learn from.
    """
    columns = read_columns(directory, train.targets)
    panel = read_panel(directory, columns, scratch)
    fold = make_folds(panel.ts_N, split, columns.largest_horizon, columns.look_back + train.window - 1)[number]
    split_N = fold.of(panel.ts_N)
    split_N[fold.looking_back(panel.ts_N, panel.since(columns.look_back))] = GAP
    drop_empty(panel, split_N == TRAIN, emit)
    known_N = known(panel.x_NF)
    learned_N = (split_N == TRAIN) | (split_N == VALID)
    purged_N = fold.purged(panel.ts_N, panel.end_N) & learned_N
    y_NH = np.where((learned_N & ~purged_N & panel.member_N)[:, None], panel.y_NH, np.float32(np.nan))
    _check_labels(panel, y_NH, split_N, columns)
    scaler = Scaler.fit(panel.x_NF, split_N == TRAIN, panel.features, train.scaler, train.clip)
    scaler.apply(panel.x_NF)
    kind = choose_kind(train.target_kind, panel.ts_N[(split_N == TRAIN) & np.isfinite(y_NH[:, 0])])
    target_NH = np.stack(
        [transform(kind, y_NH[:, h], panel.ts_N, split_N == TRAIN) for h in range(y_NH.shape[1])], axis=1
    )
    _check_targets(target_NH[split_N == TRAIN], kind, columns)
    if train.shuffle_labels:
        for h in range(target_NH.shape[1]):
            shuffle(target_NH[:, h], [split_N == TRAIN, split_N == VALID], train.seed)
    counts = {name: int((split_N == code).sum()) for name, code in NAMES.items()}
    counts |= {"embargo": int((split_N == GAP).sum()), "purged": int((purged_N & np.isfinite(panel.y_NH[:, 0])).sum())}
    emit(
        "log",
        level="info",
        text=f"fold {number}: {len(panel.symbols)} symbols, {len(panel.ts_N):,} rows, {len(panel.features)} features, "
        f"labels {', '.join(label.name for label in columns.labels)} ({kind}"
        f"{', shuffled' if train.shuffle_labels else ''}); rows by split: {counts}",
    )
    return Dataset(columns, panel, scaler, fold, kind, split_N, target_NH, known_N, counts)


def drop_empty(panel: Panel, fit_N: NDArray[np.bool_], emit: Emit) -> None:
    """Drop features without a finite value in the rows `fit_N`, naming them in the log; DataError when none is left."""
    keep_F = np.zeros(len(panel.features), np.bool_)
    for a in range(0, len(panel.x_NF), _CHUNK):
        keep_F |= np.isfinite(panel.x_NF[a : a + _CHUNK][fit_N[a : a + _CHUNK]]).any(axis=0)
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
    panel.keep([name for name, keep in zip(panel.features, keep_F) if keep])


def _check_targets(target_NH: NDArray[np.float32], kind: Kind, columns: Columns) -> None:
    for h, label in enumerate(columns.labels):
        known = target_NH[np.isfinite(target_NH[:, h]), h]
        if known.size and known.min() == known.max():
            raise DataError(
                f"expected targets that differ among training rows, got {known[0]:g} in all {known.size} of "
                f"{label.name} ({kind}); choose another label or train.target_kind (return where moments have one "
                "symbol)"
            )


def _check_labels(panel: Panel, y_NH: NDArray[np.float32], split_N: NDArray[np.int8], columns: Columns) -> None:
    for name, code in (("train", TRAIN), ("valid", VALID)):
        rows = split_N == code
        for h, label in enumerate(columns.labels):
            if not np.isfinite(y_NH[rows, h]).any():
                before = int(np.isfinite(panel.y_NH[rows, h]).sum())
                raise DataError(
                    f"expected known labels {label.name} in the {name} split, got {int(rows.sum())} rows of which "
                    f"{before} have a label and none is left after purging; shorten the label's horizon, ingest a "
                    "longer history or move the boundaries of split.*"
                )
