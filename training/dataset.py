"""From a feature stage to what a trainer needs: scaled rows, targets, and the windows of each split.

Shapes: N rows, F features, W windows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.emit import Emit
from storage.section import digest_of

from .columns import Columns, DataError, read_columns
from .learnable import check_labels, check_moments
from .left_out import LeftOut
from .panel import Panel, read_panel, read_stamps
from .remedies import nothing_left
from .scaler import Scaler
from .section import TrainSection
from .splits import NAMES, TRAIN, VALID, Fold, SplitError, SplitSection, make_folds
from .targets import Kind, check_targets, choose_kind, shuffle, transform
from .windows import window_ends

_CHUNK = 1 << 18


@dataclass
class Dataset:
    """Hold one fold ready for training; nothing in it changes afterwards, so trials may share it.

    panel.x_NF is scaled. split_N int8: what boundaries leave to each part. target_NH float32: what is learned; NaN
    outside training and validation, where the label is not known or where it was purged. known_N: all features finite.
    left: why rows are not used.
    """

    columns: Columns
    panel: Panel
    scaler: Scaler
    fold: Fold
    kind: Kind
    split_N: NDArray[np.int8]
    target_NH: NDArray[np.float32]
    known_N: NDArray[np.bool_]
    left: LeftOut

    @property
    def counts(self) -> dict[str, int]:
        """Return how many rows each part has, and how many are left out for each reason."""
        return self.left.counts()

    def windows(self, split: int, train: TrainSection) -> NDArray[np.int64]:
        """Return the rows (W,) that end a window of a split and have a target of the first label; SplitError when there
        is none. A window of the training part lies in it as a whole, one of another part may reach back before it, as
        it does in use.
        """
        complete_N = _complete(self.panel, self.known_N, self.split_N, train)
        ends_W = np.flatnonzero(complete_N & (self.split_N == split) & np.isfinite(self.target_NH[:, 0]))
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


class _Share(NamedTuple):
    """What a fold takes of the rows; all but the features has the name and the meaning that it has in Dataset."""

    fold: Fold
    features: tuple[str, ...]
    kind: Kind
    target_NH: NDArray[np.float32]
    known_N: NDArray[np.bool_]
    left: LeftOut


class Folds:
    """All folds of a feature stage, checked with their targets when it is read, before one of them is used; rows are
    read once.

    only : the number of the one fold that is wanted, whose dataset then takes the rows as they lie; otherwise each
    dataset has a scaled copy. scratch : folder for matrices that memory does not hold. DataError or SplitError when
    nothing is left to learn from in any fold.
    """

    def __init__(
        self,
        directory: Path,
        split: SplitSection,
        train: TrainSection,
        scratch: Path | None = None,
        only: int | None = None,
    ) -> None:
        self.split, self.train = split, train
        self.columns = read_columns(directory, train.targets)
        look_back = self.columns.look_back + train.window - 1
        self.folds = make_folds(read_stamps(directory), split, self.columns.largest_horizon, look_back)
        self.shared = only is None and len(self.folds) > 1
        self._scaled = False
        self.panel = read_panel(directory, self.columns, scratch, copies=1 + self.shared)
        self._since_N = self.panel.since(self.columns.look_back)
        self._filled_KF = self._filled()
        self._known: dict[tuple[str, ...], NDArray[np.bool_]] = {}
        for fold in self.folds:
            self._last = self._share(fold)

    def dataset(self, number: int, emit: Emit, scratch: Path | None = None) -> Dataset:
        """Return a fold with the scaler fitted on its training rows only; once where rows are not shared, since they
        are scaled in place: RuntimeError at a second call.

        Columns without a finite value in training rows are dropped and named in the log.
        """
        if self._scaled and not self.shared:
            raise RuntimeError(
                f"expected one call of Folds.dataset where one fold takes the rows as they lie, got another one for "
                f"fold {number}, whose rows are scaled already; keep the dataset or make new Folds"
            )
        self._scaled = True
        share = self._last if self._last.fold.number == number else self._share(self.folds[number])
        fold, features, kind, target_NH, known_N, left = share
        train, split_N = self.train, left.split_N
        if gone := [name for name in self.columns.features if name not in features]:
            text = f"features without any value in the training rows are dropped: {', '.join(gone)}"
            emit("log", level="warning", text=text)
        panel = self.panel.copy(features, scratch) if self.shared else self.panel
        panel.keep(features)
        scaler = Scaler.fit(panel.x_NF, split_N == TRAIN, features, train.scaler, train.clip)
        scaler.apply(panel.x_NF)
        emit(
            "log",
            level="info",
            text=f"fold {number}: {len(panel.symbols)} symbols, {len(panel.ts_N):,} rows, {len(features)} features, "
            f"labels {', '.join(self._labels)} ({kind}{', shuffled' if train.shuffle_labels else ''}); rows: "
            f"{left.counts()}",
        )
        return Dataset(self.columns, panel, scaler, fold, kind, split_N, target_NH, known_N, left)

    def _share(self, fold: Fold) -> _Share:
        """Choose the rows of a fold and make their targets; DataError or SplitError where a part has nothing to learn
        from or to score.
        """
        panel, train = self.panel, self.train
        left = LeftOut.of(fold, panel.ts_N, self._since_N)
        self._check(fold, left)
        split_N = left.split_N
        features = self._features(fold)
        known_N = self._known_of(features)
        left.judge(fold, panel, _complete(panel, known_N, split_N, train))
        self._check(fold, left)
        train_N = split_N == TRAIN
        learned_N = (train_N | (split_N == VALID)) & ~fold.purged(panel.ts_N, panel.end_N) & panel.member_N
        y_NH = np.where(learned_N[:, None], panel.y_NH, np.float32(np.nan))
        check_labels(panel, y_NH, split_N, self.columns.labels, fold.number)
        kind = choose_kind(train.target_kind, panel.ts_N[train_N & np.isfinite(y_NH[:, 0])])
        target_NH = np.stack([transform(kind, y_N, panel.ts_N, train_N) for y_N in y_NH.T], axis=1)
        left.without_target(target_NH[:, 0])
        self._check(fold, left)
        check_targets(target_NH[train_N], self._labels, kind)
        check_moments(panel.ts_N[left.used(TRAIN)], train.loss, train.models, fold.number)
        if train.shuffle_labels:
            for target_N in target_NH.T:
                shuffle(target_N, [train_N, split_N == VALID], train.seed)
        return _Share(fold, features, kind, target_NH, known_N, left)

    @property
    def _labels(self) -> list[str]:
        return [label.name for label in self.columns.labels]

    def _check(self, fold: Fold, left: LeftOut) -> None:
        if part := left.empty():
            raise SplitError(nothing_left(fold.number, part, *left.timestamps(NAMES[part]), self.split))

    def _filled(self) -> NDArray[np.bool_]:
        """Say which features have a finite value in the training rows of each fold (K, F), in one pass over them."""
        panel, out_KF = self.panel, np.zeros((len(self.folds), len(self.panel.features)), np.bool_)
        for a in range(0, len(panel.x_NF), _CHUNK):
            finite_NF = np.isfinite(panel.x_NF[a : a + _CHUNK])
            ts_N, since_N = panel.ts_N[a : a + _CHUNK], self._since_N[a : a + _CHUNK]
            for k, fold in enumerate(self.folds):
                out_KF[k] |= finite_NF[(fold.of(ts_N) == TRAIN) & ~fold.looking_back(ts_N, since_N)].any(axis=0)
        return out_KF

    def _features(self, fold: Fold) -> tuple[str, ...]:
        names = self.panel.features
        kept = tuple(name for name, filled in zip(names, self._filled_KF[fold.number]) if filled)
        if not kept:
            raise DataError(
                f"expected at least one feature with a value in the training rows of fold {fold.number}, got only NaN "
                f"in all {len(names)} ({', '.join(names)}); ingest a longer history or choose features with a shorter "
                "warm-up"
            )
        return kept

    def _known_of(self, features: tuple[str, ...]) -> NDArray[np.bool_]:
        """Say for each row (N,) whether all of these features are finite; kept for the folds that have the same."""
        if features not in self._known:
            used = [self.panel.features.index(name) for name in features]
            parts = (self.panel.x_NF[a : a + _CHUNK] for a in range(0, len(self.panel.x_NF), _CHUNK))
            self._known[features] = np.concatenate([np.isfinite(part)[:, used].all(axis=1) for part in parts])
        return self._known[features]


def prepare(
    directory: Path, split: SplitSection, train: TrainSection, emit: Emit, number: int = 0, scratch: Path | None = None
) -> Dataset:
    """Read a feature stage, check all its folds and return one of them, see Folds."""
    return Folds(directory, split, train, scratch, only=number).dataset(number, emit, scratch)


def _complete(
    panel: Panel, known_N: NDArray[np.bool_], split_N: NDArray[np.int8], train: TrainSection
) -> NDArray[np.bool_]:
    """Say which rows (N,) end a complete window, one of the training part inside it as a whole. DataError."""
    ends_W = window_ends(panel, known_N, train.window, train.max_gap_days)
    inside_N = np.concatenate([[0], np.cumsum(split_N == TRAIN)])
    whole_W = inside_N[ends_W + 1] - inside_N[ends_W + 1 - train.window] == train.window
    out_N = np.zeros(len(split_N), np.bool_)
    out_N[ends_W[whole_W | (split_N[ends_W] != TRAIN)]] = True
    return out_N
