"""Training, validation and test rows by time, so that nothing learned has seen what it is measured on.

holdout: train, then validation, then test. walk_forward: the same again and again, each time with the next piece of
the test, as a model is refitted in use. kfold: every part of history is the test once, with training on both sides of
it; that tells how sure a result is, not what could have been earned.

A row of one part must not share information with a later or earlier part (Lopez de Prado, Advances in Financial
Machine Learning, ch. 7): rows whose label ends after the next part begins are purged; before each boundary `embargo`
timestamps are left out; and after validation or test, training begins only where neither labels nor the look-back of
features and windows reach into them. Boundaries are timestamps, so they hold for all symbols at once.

Shapes: N rows. Times are int64 microseconds UTC; a timestamp is the end of a bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from storage.section import Section, setting

from .remedies import nothing_left

TRAIN, VALID, TEST, GAP = 0, 1, 2, -1
NAMES = {"train": TRAIN, "valid": VALID, "test": TEST}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_KINDS = {  # of settings that some kinds do without
    "folds": ("walk_forward", "kfold"),
    **dict.fromkeys(("refit_every", "train_window"), ("walk_forward",)),
    **dict.fromkeys(("train_fraction", "valid_fraction", "valid_start", "test_start"), ("holdout", "walk_forward")),
}
_INSTEAD = {  # what takes the place of a setting
    "folds": "refit_every",
    "train_fraction": "valid_start",
    "valid_fraction": "test_start",
}


class SplitError(Exception):
    """Boundaries that leave a part empty or let labels reach over them."""


class SplitSection(Section):
    """Where training ends and testing begins."""

    kind: Literal["holdout", "walk_forward", "kfold"] = setting(
        "holdout",
        "one boundary; refits through the test, as in use; or each part of history as the test once, which looks ahead",
    )
    folds: int = setting(5, "refits of walk_forward, parts of kfold", ge=2, le=100)
    refit_every: int = setting(
        0, "walk_forward: timestamps from one refit to the next, instead of folds; 0 = folds", unit="bars", ge=0
    )
    train_window: int = setting(
        0, "walk_forward: timestamps of training at most (rolling); 0 = all before (expanding)", unit="bars", ge=0
    )
    train_fraction: float = setting(
        0.7, "share of the distinct timestamps, the oldest, for the first training", unit="ratio", gt=0, lt=1
    )
    valid_fraction: float = setting(
        0.15, "share that follows, for early stopping; the rest is the test", unit="ratio", gt=0, lt=1
    )
    valid_start: date | None = setting(
        None, "first day of validation instead of train_fraction; midnight UTC lies between Korean sessions"
    )
    test_start: date | None = setting(None, "first day of the test instead of valid_fraction")
    embargo: int | None = setting(
        None,
        "timestamps left out before each boundary, at least the longest label; unset = the longest label",
        unit="bars",
        ge=0,
    )

    @model_validator(mode="after")
    def _room_for_all(self) -> Self:
        if self.valid_start is None and self.test_start is None and self.train_fraction + self.valid_fraction >= 1:
            raise ValueError(
                "expected split.train_fraction + split.valid_fraction below 1, so that a test is left, got "
                f"{self.train_fraction:g} + {self.valid_fraction:g}; lower one of them"
            )
        if (self.valid_start is None) != (self.test_start is None):
            given, other = ("valid_start", "test_start") if self.valid_start else ("test_start", "valid_start")
            raise ValueError(
                f"expected both split.valid_start and split.test_start or neither, got split.{given} "
                f"{getattr(self, given)} alone; give split.{other} as well"
            )
        if self.valid_start and self.test_start and self.valid_start >= self.test_start:
            raise ValueError(
                f"expected split.valid_start before split.test_start, got {self.valid_start} and {self.test_start}; "
                "set a later split.test_start"
            )
        if self.kind == "kfold" and self.folds < 3:
            raise ValueError(f"expected split.folds of at least 3 for kfold (train, valid, test), got {self.folds}")
        return self

    @model_validator(mode="after")
    def _with_an_effect(self) -> Self:
        """Refuse what was given and changes nothing."""
        for name, kinds in _KINDS.items():
            value, default, instead = getattr(self, name), type(self).model_fields[name].default, _INSTEAD.get(name)
            beside = f" without split.{instead}" if instead and getattr(self, instead) else ""
            if value != default and (beside or self.kind not in kinds):
                raise ValueError(
                    f"expected split.{name} for {' or '.join(kinds)} alone{beside}, got {value} for {self.kind}, where "
                    f"it has no effect; leave it {'unset' if default is None else f'at {default}'}"
                )
        return self


class Span(NamedTuple):
    """Say which part the rows of a span of time belong to: start <= ts < stop, microseconds UTC."""

    part: int
    start: int
    stop: int


@dataclass(frozen=True)
class Fold:
    """Hold the spans of one training, in the order of time; what lies between them belongs to no part."""

    number: int
    spans: tuple[Span, ...]
    embargo: int

    def of(self, ts_N: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return TRAIN, VALID, TEST or GAP (N,) by the time at which each row's bar ended."""
        out_N = np.full(len(ts_N), GAP, np.int8)
        for span in self.spans:
            out_N[(ts_N >= span.start) & (ts_N < span.stop)] = span.part
        return out_N

    def purged(self, ts_N: NDArray[np.int64], end_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which rows (N,) of a part have a label that ends when a later, other part has begun."""
        out_N = np.zeros(len(ts_N), np.bool_)
        for i, span in enumerate(self.spans):
            others = [later.start for later in self.spans[i + 1 :] if later.part != span.part]
            if others:
                out_N |= (ts_N >= span.start) & (ts_N < span.stop) & (end_N >= min(others))
        return out_N

    def looking_back(self, ts_N: NDArray[np.int64], since_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which rows (N,) of the training part have features that read, from `since_N` on, bars of validation or
        test: those of a symbol that did not trade on every timestamp of the gap.
        """
        out_N = np.zeros(len(ts_N), np.bool_)
        for i, span in enumerate(self.spans):
            others = [before.stop for before in self.spans[:i] if before.part != TRAIN]
            if span.part == TRAIN and others:
                out_N |= (ts_N >= span.start) & (ts_N < span.stop) & (since_N < max(others))
        return out_N

    def start(self, part: int) -> int:
        """Return when a part begins for the first time."""
        return min(span.start for span in self.spans if span.part == part)

    def to_json(self) -> dict[str, Any]:
        """Return the spans as microseconds and, for readers, as text."""
        names = {code: name for name, code in NAMES.items()}
        spans = [
            {"part": names[s.part], "start_us": s.start, "stop_us": s.stop, "from": _text(s.start), "to": _text(s.stop)}
            for s in self.spans
        ]
        return {"fold": self.number, "spans": spans, "embargo": self.embargo}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        spans = tuple(Span(NAMES[s["part"]], int(s["start_us"]), int(s["stop_us"])) for s in value["spans"])
        return cls(int(value["fold"]), spans, int(value["embargo"]))


def make_folds(
    ts_N: NDArray[np.int64], section: SplitSection, largest_horizon: int, look_back: int
) -> tuple[Fold, ...]:
    """Choose boundaries over the distinct timestamps of rows (N,).

    largest_horizon : bars that the longest label reaches ahead; look_back : bars before its own that a window of
    features reads. SplitError when the embargo is shorter than the longest label or a part stays empty.
    """
    embargo = largest_horizon if section.embargo is None else section.embargo
    if embargo < largest_horizon:
        raise SplitError(
            f"expected split.embargo of at least {largest_horizon} bars, the longest label, got {embargo}; "
            "raise it or leave it unset, or shorten the labels"
        )
    stamps = np.unique(ts_N)
    if section.kind == "kfold":
        plans = _kfold(len(stamps), section.folds, embargo, look_back)
    else:
        plans = _forward(stamps, section, embargo)
    stops = np.append(stamps, stamps[-1] + 1 if len(stamps) else 0)
    detail = f"{len(stamps)} timestamps"
    if len(stamps):
        detail += f" from {_text(stamps[0])} to {_text(stamps[-1])}"
    folds = []
    for number, plan in enumerate(plans):
        for name, code in NAMES.items():
            mine = [piece for piece in plan if piece.part == code]
            if not any(piece.first < piece.last for piece in mine):
                planned = sum(piece.stop - piece.begin for piece in mine)
                sides = sum((piece.begin < piece.first) + (piece.last < piece.stop) for piece in mine)
                took = {"embargo": min(embargo * sides, planned), "look_back": max(planned - embargo * sides, 0)}
                more = f"{detail}, embargo {embargo}, look-back {look_back}"
                raise SplitError(nothing_left(number, name, planned, took, section, more))
        used = [piece for piece in plan if piece.first < piece.last]
        spans = tuple(Span(piece.part, int(stops[piece.first]), int(stops[piece.last])) for piece in used)
        folds.append(Fold(number, spans, embargo))
    return tuple(folds)


class Piece(NamedTuple):
    """Plan a span by the numbers of timestamps: those from begin to stop - 1, of which first to last - 1 are used."""

    part: int
    begin: int
    stop: int
    first: int
    last: int


def _forward(stamps: NDArray[np.int64], section: SplitSection, embargo: int) -> list[list[Piece]]:
    n = len(stamps)
    if section.valid_start and section.test_start:
        valid, test = (
            int(np.searchsorted(stamps, microseconds(day))) for day in (section.valid_start, section.test_start)
        )
    else:
        valid, test = int(n * section.train_fraction), int(n * (section.train_fraction + section.valid_fraction))
    starts = [test]
    if section.kind == "walk_forward" and n > test:
        every, folds = section.refit_every, min(section.folds, n - test)
        starts = list(range(test, n, every)) if every else [test + (n - test) * i // folds for i in range(folds)]
    plans = []
    for start, stop in zip(starts, [*starts[1:], n]):
        begin = start - (test - valid)
        first = max(0, begin - embargo - section.train_window) if section.train_window else 0
        plans.append(
            [
                Piece(TRAIN, first, begin, first, begin - embargo),
                Piece(VALID, begin, start, begin, start - embargo),
                Piece(TEST, start, stop, start, stop),
            ]
        )
    return plans


def _kfold(n: int, folds: int, embargo: int, look_back: int) -> list[list[Piece]]:
    """Take each part as the test and the one before it, in a circle, for validation."""
    edges = [n * i // folds for i in range(folds + 1)]
    plans = []
    for test in range(folds):
        parts = [TRAIN] * folds
        parts[test], parts[test - 1] = TEST, VALID
        plan = []
        for part, group in groupby(range(folds), parts.__getitem__):
            run = list(group)
            begin, stop = edges[run[0]], edges[run[-1] + 1]
            first = begin + max(embargo, look_back) if part == TRAIN and run[0] > 0 else begin  # out of sight
            last = stop - embargo if part != TEST and stop < n else stop
            plan.append(Piece(part, begin, stop, first, last))
        plans.append(plan)
    return plans


def microseconds(day: date) -> int:
    """Return midnight UTC of a day as microseconds."""
    return int((datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) / timedelta(microseconds=1))


def _text(stamp: np.int64 | int) -> str:
    return (_EPOCH + timedelta(microseconds=int(stamp))).date().isoformat()
