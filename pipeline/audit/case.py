"""A function under audit: its bars, what it makes of all of them, what it promises, and the one way to compare.

Shapes: R rows of bars, C columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.schema import content_digest

from .result import Finding, Outcome

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]
Values = Callable[[Any], Any]
Act = Callable[[], None]
"""One trial; it adds what it shows to the outcome of its check."""


class AuditError(ValueError):
    """Bars or a function that cannot be audited as asked."""


class Warmup(NamedTuple):
    """After so many `bars`, or what else `unit` names, a column no longer depends on where the history began, within
    `tolerance` of its symbol's largest value; infinite = it always does.
    """

    bars: float
    tolerance: float
    unit: str = "bars"


class Backend(NamedTuple):
    """Another way to the same columns but those of `leave`, which it does not make itself. The whole is rounded to the
    backend's type; beyond that a value may deviate by `tolerance` of its symbol's largest.
    """

    values: Values
    tolerance: float = 0.0
    leave: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Promises:
    """What a function says about itself beyond causality; what it leaves out is not judged.

    inputs : columns of bars without which a row is no bar and counts for no warm-up; none = every row is a bar.
    noise : by column, the deviation that C1, C2, C4 and C6 allow, of the symbol's largest value; none = not one bit.
    counted : by unit of a warm-up, the function from bars to how many of them each row brings, (R,); bars need none.
    across : columns that see all symbols at a moment, so that groups of symbols apart may differ (C6) and pieces of
    single symbols cannot make them (C4). reordered : by column, the deviation that another order of symbols allows
    (C6), where noise does not. carried : given all symbols, returns a function that is fed chunks of bars in the order
    of time and keeps its state (C4). schedules : the same function with other threads or workers (C6). unavailable :
    backends that are not here, and why.
    """

    inputs: tuple[str, ...] = ()
    noise: Mapping[str, float] = field(default_factory=dict)
    warmups: Mapping[str, Warmup] = field(default_factory=dict)
    counted: Mapping[str, Callable[[Any], Longs]] = field(default_factory=dict)
    across: frozenset[str] = frozenset()
    reordered: Mapping[str, float] = field(default_factory=dict)
    carried: Callable[[Sequence[str]], Values] | None = None
    backends: Mapping[str, Backend] = field(default_factory=dict)
    schedules: Mapping[str, Values] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)


class Case:
    """Hold the bars and what the function makes of all of them."""

    def __init__(self, values: Values, bars: Any, promises: Promises) -> None:
        self.values, self.promises = values, promises
        self.bars = bars.reset_index(drop=True)
        if not len(self.bars):
            raise AuditError("expected bars to audit, got none; choose a range and symbols that have some")
        codes = self.bars["symbol"].factorize()[0]
        self.ts: Longs = self.bars["ts"].astype("int64").to_numpy()
        self.starts: Longs = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
        self.lengths: Longs = np.diff(np.append(self.starts, len(self.bars)))
        self.symbols = [str(name) for name in self.bars["symbol"].iloc[self.starts]]
        self._check_order()
        made = values(self.bars)
        self.columns = [str(name) for name in made.columns]
        self._check_shape(made, len(self.bars))
        self.whole_RC = self.array(made)
        numeric = self.bars.select_dtypes("number").columns
        self.inputs = [name for name in numeric if name not in ("symbol", "ts")]

    @cached_property
    def moments(self) -> Longs:
        """All moments from the first on at which anything is known."""
        known = np.zeros(len(self.bars), bool)
        for c in range(len(self.columns)):
            known |= np.isfinite(self.whole_RC[:, c])
        stamps = np.unique(self.ts)
        return stamps[stamps >= self.ts[known].min()] if known.any() else stamps[:0]

    @cached_property
    def largest_SC(self) -> Floats:
        """The largest absolute value of each column over all bars of each symbol."""
        out = np.empty((self.starts.size, len(self.columns)))
        for c in range(len(self.columns)):
            values = np.abs(self.whole_RC[:, c])
            out[:, c] = np.maximum.reduceat(np.where(np.isfinite(values), values, 0.0), self.starts)
        return out

    def largest(self, column: int, rows: Any) -> Floats:
        """Return the largest absolute value of a column for the symbol of each of these rows."""
        return np.asarray(np.repeat(self.largest_SC[:, column], self.lengths)[rows])

    @cached_property
    def blank(self) -> dict[str, str]:
        """Say of which columns nothing is known: an audit of them would be of nothing but NaN."""
        known = [bool(np.isfinite(self.whole_RC[:, c]).any()) for c in range(len(self.columns))]
        return {name: "has no value in this range" for name, some in zip(self.columns, known) if not some}

    def digest(self) -> str:
        """Name the content of what the function makes of all bars."""
        stamps = {"symbol": pa.array(self.bars["symbol"]).cast(pa.string()), "ts": pa.array(self.ts)}
        values = {name: self.whole_RC[:, c].copy() for c, name in enumerate(self.columns)}
        return content_digest(pa.table({**stamps, **values}))

    def stamp(self, moment: int) -> str:
        return self.at(int(np.flatnonzero(self.ts == moment)[0]))

    def at(self, row: int) -> str:
        return str(self.bars["ts"].iloc[row])

    def symbol(self, row: int) -> str:
        return self.symbols[int(np.searchsorted(self.starts, row, side="right")) - 1]

    def drawn(self, rng: np.random.Generator, tries: int) -> list[int]:
        """Draw moments that have something known up to them and rows after them, one from each part of the range."""
        return spread(self.moments[:-1], rng, tries)

    def made(self, outcome: Outcome, bars: Any, values: Values) -> Any | None:
        """Return the frame that a function makes of altered bars; None where it refuses them, which is noted."""
        try:
            with np.errstate(all="ignore"):
                made = values(bars)
            self._check_shape(made, len(bars))
        except Exception as error:
            outcome.refused.append(f"{type(error).__name__}: {error}")
            return None
        return made

    def called(self, outcome: Outcome, bars: Any, values: Values | None = None) -> Floats | None:
        """Return what the function, or another one, makes of altered bars as (rows, C); None where it refuses them."""
        made = self.made(outcome, bars, values or self.values)
        return None if made is None else self.array(made)

    @staticmethod
    def array(made: Any) -> Floats:
        """Return a frame of columns as float64; a null becomes NaN."""
        return np.asarray(made.to_numpy(dtype=np.float64, na_value=np.nan))

    def compare(
        self,
        outcome: Outcome,
        what: str,
        rows: Any,
        got_NC: Floats,
        *,
        tolerance: float | None = None,
        noise: Mapping[str, float] | None = None,
        whole_NC: Floats | None = None,
        leave: frozenset[str] = frozenset(),
    ) -> None:
        """Add a finding for every column in which a trial differs from the whole at `rows`; NaN must meet NaN.

        tolerance : of the symbol's largest value; None = by column, what `noise` says, or else what it promises.
        whole_NC : other values to compare with. leave : columns that are not compared.
        """
        for c, name in enumerate(self.columns):
            if name in leave:
                continue
            whole, got = self.whole_RC[rows, c] if whole_NC is None else whole_NC[:, c], got_NC[:, c]
            allowed = (self.promises.noise if noise is None else noise).get(name, 0.0)
            allowed = allowed if tolerance is None else tolerance
            wrong = different(whole, got, allowed * self.largest(c, rows) if allowed else 0.0)
            outcome.comparisons += whole.size
            if wrong.any():
                at = np.flatnonzero(wrong)
                at = at[int(np.argmin(self.ts[rows][at]))]  # the earliest; rows are sorted by symbol
                outcome.add(self.finding(outcome, what, rows, int(at), c, whole, got, int(wrong.sum())))

    def finding(
        self, outcome: Outcome, what: str, rows: Any, at: int, column: int, whole: Floats, got: Floats, values: int
    ) -> Finding:
        row = int(np.arange(len(self.bars))[rows][at])
        place = (self.columns[column], self.symbol(row), self.at(row))
        return Finding(outcome.check, *place, float(whole[at]), float(got[at]), what, values)

    def _check_shape(self, made: Any, rows: int) -> None:
        names = [str(name) for name in made.columns]
        if len(made) != rows or names != self.columns:
            raise AuditError(
                f"expected {rows} rows of the columns {self.columns} from the function under audit, got {len(made)} "
                f"rows of {names}; it must give a row for each bar and the same columns for any bars"
            )

    def _check_order(self) -> None:
        begins = np.zeros(len(self.bars), bool)
        begins[self.starts] = True
        wrong = np.flatnonzero((self.ts[1:] <= self.ts[:-1]) & ~begins[1:]) + 1
        unsorted = [row for row, name, before in zip(self.starts[1:], self.symbols[1:], self.symbols) if name <= before]
        for row in sorted([*unsorted, *wrong.tolist()])[:1]:
            raise AuditError(
                f"expected bars sorted by (symbol, ts) and each once, got {self.symbol(row)} at {self.at(row)} after "
                f"{self.symbol(row - 1)} at {self.at(row - 1)} in row {row}; sort them"
            )


def spread(moments: Longs, rng: np.random.Generator, tries: int) -> list[int]:
    """Draw one from each of `tries` parts of sorted moments, each once."""
    if not moments.size:
        return []
    edges = np.linspace(0, moments.size, tries + 1)
    places = {int(rng.integers(int(a), max(int(b), int(a) + 1))) for a, b in pairwise(edges)}
    return [int(moments[min(i, moments.size - 1)]) for i in sorted(places)]


def different(a: Floats, b: Floats, allowed: Floats | float) -> Bools:
    """Say where two columns differ by more than is allowed; NaN equals NaN and nothing else, an infinity itself."""
    with np.errstate(invalid="ignore"):
        near = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.isfinite(a) & np.isfinite(b) & (np.abs(a - b) <= allowed))
    return np.asarray(~near)
