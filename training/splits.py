"""Training, validation and test rows by time, so that nothing learned has seen what it is measured on.

Shapes: N rows. Times are int64 microseconds UTC; a timestamp is the end of a bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from storage.section import Section, setting

TRAIN, VALID, TEST, GAP = 0, 1, 2, -1
NAMES = {"train": TRAIN, "valid": VALID, "test": TEST}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SplitError(Exception):
    """Boundaries that leave a part empty or let labels reach over them."""


class SplitSection(Section):
    """Where training ends and testing begins."""

    train_fraction: float = setting(
        0.7, "share of the distinct timestamps, the oldest, for training", unit="ratio", gt=0, lt=1
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
            raise ValueError("train_fraction + valid_fraction must stay below 1, so that a test is left")
        if (self.valid_start is None) != (self.test_start is None):
            raise ValueError("give both valid_start and test_start, or neither")
        if self.valid_start and self.test_start and self.valid_start >= self.test_start:
            raise ValueError(f"valid_start ({self.valid_start}) must lie before test_start ({self.test_start})")
        return self


@dataclass(frozen=True)
class Splits:
    """Hold the boundaries, microseconds UTC.

    train < train_end <= gap < valid_start <= valid < valid_end <= gap < test_start <= test
    """

    train_end: int
    valid_start: int
    valid_end: int
    test_start: int
    embargo: int

    def of(self, ts_N: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return TRAIN, VALID, TEST or GAP (N,) by the time at which each row's bar ended."""
        out_N = np.full(len(ts_N), GAP, np.int8)
        out_N[ts_N < self.train_end] = TRAIN
        out_N[(ts_N >= self.valid_start) & (ts_N < self.valid_end)] = VALID
        out_N[ts_N >= self.test_start] = TEST
        return out_N

    def purged(self, split_N: NDArray[np.int8], end_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which rows (N,) of training and validation have a label that ends when the next part has begun."""
        late_N: NDArray[np.bool_] = (split_N == TRAIN) & (end_N >= self.valid_start)
        late_N |= (split_N == VALID) & (end_N >= self.test_start)
        return late_N

    def to_json(self) -> dict[str, Any]:
        """Return the boundaries as microseconds and, for readers, as text."""
        times = {name: getattr(self, name) for name in ("train_end", "valid_start", "valid_end", "test_start")}
        text = {name: (_EPOCH + timedelta(microseconds=value)).isoformat() for name, value in times.items()}
        return {"boundaries_us": times, "boundaries": text, "embargo": self.embargo}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value["boundaries_us"], embargo=int(value["embargo"]))


def make_splits(ts_N: NDArray[np.int64], section: SplitSection, largest_horizon: int) -> Splits:
    """Choose boundaries over the distinct timestamps of rows (N,).

    SplitError when the embargo is shorter than `largest_horizon` bars or a part stays empty.
    """
    embargo = largest_horizon if section.embargo is None else section.embargo
    if embargo < largest_horizon:
        raise SplitError(
            f"expected split.embargo of at least {largest_horizon} bars, the longest label, got {embargo}; "
            "raise it or leave it unset, or shorten the labels"
        )
    stamps = np.unique(ts_N)
    n = len(stamps)
    if section.valid_start and section.test_start:
        valid, test = (
            int(np.searchsorted(stamps, microseconds(day))) for day in (section.valid_start, section.test_start)
        )
    else:
        valid, test = int(n * section.train_fraction), int(n * (section.train_fraction + section.valid_fraction))
    sizes = {"train": valid - embargo, "valid": test - valid - embargo, "test": n - test}
    empty = [name for name, size in sizes.items() if size < 1]
    if empty:
        span = f"from {_text(stamps[0])} to {_text(stamps[-1])}" if n else "none"
        raise SplitError(
            f"expected timestamps in every split, got none for {', '.join(empty)}: {n} timestamps ({span}), "
            f"validation from number {valid}, "
            f"test from number {test}, embargo {embargo}; ingest a longer history or move the boundaries of split.*"
        )
    return Splits(
        train_end=int(stamps[valid - embargo]),
        valid_start=int(stamps[valid]),
        valid_end=int(stamps[test - embargo]),
        test_start=int(stamps[test]),
        embargo=embargo,
    )


def microseconds(day: date) -> int:
    """Return midnight UTC of a day as microseconds."""
    return int((datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) / timedelta(microseconds=1))


def _text(stamp: np.int64) -> str:
    return (_EPOCH + timedelta(microseconds=int(stamp))).date().isoformat()
