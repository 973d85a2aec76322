"""The overlap ledger of one fold: what each part holds, what two parts share, and what they must not.

It asks the rows that are used, not the code that chose them: where windows end, when their labels are known, which bars
they and their features read. Shapes: N rows sorted by (symbol, ts), W windows, T timestamps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.splits import NAMES, TRAIN

from .result import Verdict

if TYPE_CHECKING:
    from training.dataset import Dataset

_EPOCH, _DAY_US = datetime(1970, 1, 1, tzinfo=UTC), 86_400_000_000
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """What a part holds: its first and last timestamps, on both sides of the test of kfold, their rows, the windows
    that are used, and how many rows, in it and in the gaps that belong to it, are left out for which reason.
    """

    part: str
    spans: tuple[tuple[str, str], ...]
    timestamps: int
    rows: int
    symbols: int
    windows: int
    left_out: dict[str, int]

    @property
    def reasons(self) -> str:
        told = [f"{name.replace('_', '-')} {count:,}" for name, count in self.left_out.items() if count]
        return f"{', '.join(told) or 'no'} rows"


@dataclass(frozen=True)
class Pair:
    """What the windows of `part` share with the days of `other`: labels = windows whose label reaches one of them,
    look_back = windows that read one of its bars, which validation and test may, dates = timestamps of both.
    """

    part: str
    other: str
    labels: int
    look_back: int
    dates: int


@dataclass(frozen=True)
class Problem:
    """What breaks a rule in `rows` rows, where it does so the most, and by how much."""

    what: str
    symbol: str
    ts: str
    by: float
    unit: str
    rows: int

    def __str__(self) -> str:
        return f"{self.what}: {self.symbol or 'all symbols'} at {self.ts} by {self.by:g} {self.unit} ({self.rows} rows)"


@dataclass
class Ledger:
    """The entries of one fold; `reasons` say what cannot be judged."""

    fold: int
    embargo: int
    scaler_rows: int
    parts: list[Part] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    found: list[Problem] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        return "found" if self.found else "cannot judge" if self.reasons else "clean"

    def summary(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}

    def lines(self) -> list[str]:
        """Return the ledger as text."""
        out = [f"fold {self.fold}: embargo {self.embargo} timestamps, scaler fitted on {self.scaler_rows:,} rows"]
        out += [
            f"  {p.part:<5}  {' and '.join(' to '.join(span) for span in p.spans)}: {p.timestamps:,} timestamps, "
            f"{p.rows:,} rows of {p.symbols:,} symbols, {p.windows:,} windows used; left out: {p.reasons}"
            for p in self.parts
        ]
        out += [
            f"  {p.part:<5} -> {p.other:<5}  labels that reach it {p.labels}, windows that read it {p.look_back}, "
            f"shared dates {p.dates}"
            for p in self.pairs
        ]
        out += [f"  found: {problem}" for problem in self.found]
        return out + [f"  cannot judge: {reason}" for reason in self.reasons]


def ledger(data: Dataset, windows: Mapping[int, Rows], scaled_N: NDArray[np.bool_], window: int) -> Ledger:
    """Write the ledger of one fold. windows : rows that end the used ones, by part; scaled_N : rows of the scaler.

    Found are: a label known on or after a day of another, later part; a label known before its own bar has ended; a
    window of training that reads a bar of validation or test; a timestamp of two parts; fewer timestamps between a part
    and the next one than the embargo; a row outside training among those of the scaler.
    """
    panel, fold = data.panel, data.fold
    ts_N, part_N = panel.ts_N, fold.of(panel.ts_N)
    out = Ledger(fold.number, fold.embargo, int(scaled_N.sum()))
    known_end_N = np.minimum(panel.end_N, ts_N.max() + _DAY_US)  # of one that never ends the excess is not told

    def found(what: str, rows: Rows, by: Rows) -> None:
        if rows.size:
            at = rows[np.argmax(by)]
            far = round(float(np.max(by)) / _DAY_US, 4)
            place = panel.symbols[panel.symbol_N[at]], text(ts_N[at])
            out.found.append(Problem(f"fold {fold.number}, {what}", *place, far, "days", len(rows)))

    bars = data.columns.look_back + window - 1
    days = {name: np.unique(ts_N[part_N == code]) for name, code in NAMES.items()}
    for name, code in NAMES.items():
        ends_W, rows = windows[code], np.flatnonzero(part_N == code)
        sizes = len(days[name]), len(rows), len(np.unique(panel.symbol_N[rows])), len(ends_W)
        out.parts.append(Part(name, _spans(data, code), *sizes, data.left.rows(code)))
        early = ends_W[panel.end_N[ends_W] <= ts_N[ends_W]]
        found(f"a label of {name} is known before its bar has ended", early, ts_N[early] - panel.end_N[early])
        for other, theirs_T in days.items():
            if other == name:
                continue
            at_W = np.searchsorted(theirs_T, ts_N[ends_W], side="right")
            next_W = np.append(theirs_T, np.iinfo(np.int64).max)[at_W]  # their first day after each window's own
            over = panel.end_N[ends_W] >= next_W
            reads = ends_W[_reads(panel.symbol_N, part_N == NAMES[other], ends_W, bars)]
            shared = np.isin(ts_N[ends_W], theirs_T)
            out.pairs.append(Pair(name, other, int(over.sum()), len(reads), len(np.unique(ts_N[ends_W[shared]]))))
            late = known_end_N[ends_W[over]] - next_W[over]
            found(f"a label of {name} is known when {other} has begun", ends_W[over], late)
            if code == TRAIN:
                last = theirs_T[np.maximum(np.searchsorted(theirs_T, ts_N[reads]) - 1, 0)]
                found(f"a window of train reads bars of {other}", reads, last - panel.since(bars)[reads])
            found(f"{name} and {other} share a timestamp", ends_W[shared], np.zeros(int(shared.sum()), np.int64))
    outside = np.flatnonzero(scaled_N & (part_N != TRAIN))
    found("the scaler was fitted on a row outside training", outside, np.zeros(len(outside), np.int64))
    stamps = np.unique(ts_N)
    for span, later in zip(fold.spans, fold.spans[1:]):
        between = int(((stamps >= span.stop) & (stamps < later.start)).sum())
        if span.part != later.part and between < fold.embargo:
            what = f"fold {fold.number}, {between} timestamps instead of {fold.embargo} before the next part"
            count = int((ts_N == later.start).sum())
            out.found.append(Problem(what, "", text(later.start), fold.embargo - between, "timestamps", count))
    return out


def _spans(data: Dataset, code: int) -> tuple[tuple[str, str], ...]:
    """Return the first and the last timestamp of each span of a part."""
    ts_N = data.panel.ts_N
    mine = [ts_N[(ts_N >= span.start) & (ts_N < span.stop)] for span in data.fold.spans if span.part == code]
    return tuple((text(ts.min()), text(ts.max())) for ts in mine)


def _reads(symbol_N: NDArray[np.int32], theirs_N: NDArray[np.bool_], ends_W: Rows, bars: int) -> NDArray[np.bool_]:
    """Say which windows (W,), with `bars` bars before their last one, hold a row of another part."""
    at = np.arange(len(symbol_N))
    fresh = np.append(True, symbol_N[1:] != symbol_N[:-1])
    first_W = np.maximum(ends_W - bars, np.maximum.accumulate(np.where(fresh, at, 0))[ends_W])
    sums = np.append(0, np.cumsum(theirs_N))
    out: NDArray[np.bool_] = sums[ends_W + 1] > sums[first_W]
    return out


def text(stamp: np.int64 | int) -> str:
    """Write microseconds UTC for readers."""
    return f"{_EPOCH + timedelta(microseconds=int(stamp)):%Y-%m-%d %H:%M}"
