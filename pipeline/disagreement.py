"""What two sources of bars do not agree on, by reason: counts that add up over parts, and the worst by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["same", "differs", "cannot judge"]
Volume = Literal["inverse", "same", "other", "unknown"]


@dataclass(frozen=True)
class Basis:
    """A run of bars whose left closes are `ratio` times the right ones; `volume` says how volumes go with that."""

    symbol: str
    interval: str
    ratio: float
    first: str  # stamps, ISO, UTC
    last: str
    rows: int
    volume: Volume


@dataclass(frozen=True)
class Shift:
    """A symbol whose left closes are found `seconds` later on the right (negative: earlier), or `bars` bars later."""

    symbol: str
    interval: str
    seconds: float
    bars: int
    rows: int
    share: float


@dataclass
class Alone:
    """Rows that one source has and the other has not."""

    rows: int = 0  # of symbols that both have, between the other's first and last bar
    halted: int = 0  # of these, without a trade
    outside: int = 0  # of symbols that both have, before the other begins or after it ends
    symbols: Counter[str] = field(default_factory=Counter)  # rows by symbol
    missing: Counter[str] = field(default_factory=Counter)  # rows of symbols that the other does not have at all

    def add(self, other: Alone) -> None:
        self.rows, self.halted, self.outside = (
            self.rows + other.rows,
            self.halted + other.halted,
            self.outside + other.outside,
        )
        self.symbols.update(other.symbols)
        self.missing.update(other.missing)


@dataclass
class Disagreement:
    """What two sources do not agree on; results of parts that share no symbol add up."""

    limit: int = 20  # of everything that is listed by name
    rows: list[int] = field(default_factory=lambda: [0, 0])
    common: int = 0
    symbols: int = 0  # with common rows
    left: Alone = field(default_factory=Alone)
    right: Alone = field(default_factory=Alone)
    differing: dict[str, Counter[str]] = field(default_factory=dict)  # column -> reason -> rows
    by_symbol: Counter[str] = field(default_factory=Counter)  # rows with any difference
    known_by_one: Counter[str] = field(default_factory=Counter)  # column -> rows where the other source has no value
    examples: list[dict[str, Any]] = field(default_factory=list)  # what nothing explains comes first
    bases: list[Basis] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """Say whether the sources agree wherever both have to have a row; without a common row nobody knows."""
        if not self.common:
            return "cannot judge"
        alone = any(side.rows or side.missing for side in (self.left, self.right))
        return "differs" if alone or self.by_symbol else "same"

    @property
    def unexplained(self) -> int:
        """Values that differ for no reason known here."""
        return sum(reasons["unexplained"] for reasons in self.differing.values())

    def add(self, other: Disagreement) -> None:
        """Take over what was found in another part of the same two sources."""
        self.rows = [a + b for a, b in zip(self.rows, other.rows)]
        self.common, self.symbols = self.common + other.common, self.symbols + other.symbols
        self.left.add(other.left)
        self.right.add(other.right)
        for column, reasons in other.differing.items():
            self.differing.setdefault(column, Counter()).update(reasons)
        self.by_symbol.update(other.by_symbol)
        self.known_by_one.update(other.known_by_one)
        self.examples = first_of(self.examples + other.examples, self.limit)
        self.bases += other.bases
        self.shifts += other.shifts

    def summary(self) -> dict[str, Any]:
        """Return everything as JSON-able data, lists by name cut to `limit`."""

        def alone(side: Alone) -> dict[str, Any]:
            return {
                "rows": side.rows,
                "halted": side.halted,
                "outside": side.outside,
                "worst": side.symbols.most_common(self.limit),
                "symbols_missing": len(side.missing),
                "rows_missing": side.missing.total(),
                "missing": sorted(side.missing)[: self.limit],
            }

        return {
            "verdict": self.verdict,
            "rows": self.rows,
            "common": self.common,
            "symbols": self.symbols,
            "only_left": alone(self.left),
            "only_right": alone(self.right),
            "differing": {column: dict(sorted(reasons.items())) for column, reasons in self.differing.items()},
            "differing_symbols": len(self.by_symbol),
            "worst": self.by_symbol.most_common(self.limit),
            "known_by_one": dict(self.known_by_one),
            "unexplained": self.unexplained,
            "examples": self.examples,
            "bases": len(self.bases),
            "symbols_on_another_basis": len({(basis.symbol, basis.interval) for basis in self.bases}),
            "worst_bases": [asdict(basis) for basis in _worst(self.bases, self.limit)],
            "shifted_symbols": len(self.shifts),
            "shifts": [asdict(shift) for shift in self.shifts[: self.limit]],
        }

    def lines(self, left: str = "left", right: str = "right") -> Iterator[str]:
        """Yield what was found as sentences, the verdict first."""
        yield (
            f"{self.verdict}: {self.rows[0]} rows of {left}, {self.rows[1]} of {right}, {self.common} in common "
            f"({self.symbols} symbols)"
        )
        for name, other, side in ((left, right, self.left), (right, left, self.right)):
            if side.missing:
                some = ", ".join(sorted(side.missing)[: self.limit])
                yield f"only {name} has {len(side.missing)} symbols ({side.missing.total()} rows): {some}"
            if side.rows:
                worst = ", ".join(f"{symbol} {rows}" for symbol, rows in side.symbols.most_common(self.limit))
                yield f"only {name} has {side.rows} rows, {side.halted} of them without a trade: {worst}"
            if side.outside:
                yield f"{name} has {side.outside} rows before {other} begins or after it ends"
        for column, reasons in self.differing.items():
            told = ", ".join(f"{rows} {reason}" for reason, rows in reasons.most_common())
            yield f"{column} differs in {reasons.total()} rows: {told}"
        for basis in _worst(self.bases, self.limit):
            yield (
                f"{basis.symbol} {basis.interval}: {left} is {basis.ratio:.6g} x {right} from {basis.first} to "
                f"{basis.last} ({basis.rows} rows, volume {basis.volume})"
            )
        for shift in self.shifts[: self.limit]:
            far = f"{shift.bars} bars" if shift.bars else f"{shift.seconds:g} s"
            yield f"{shift.symbol} {shift.interval}: what {left} has is {far} later in {right} ({shift.share:.0%})"
        for one in self.examples:
            yield (
                f"{one['symbol']} {one['interval']} {one['ts']} {one['column']}: {one['left']} {one['right']} "
                f"({one['reason']})"
            )


def first_of(examples: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Return as many differences as may be listed, those that nothing explains first."""
    order = ("unexplained", "rounded", "shifted", "basis")
    return sorted(examples, key=lambda one: (order.index(one["reason"]), one["symbol"], one["ts"]))[:limit]


def _worst(bases: Sequence[Basis], limit: int) -> list[Basis]:
    return sorted(bases, key=lambda basis: (-abs(np.log(basis.ratio)), basis.symbol, basis.first))[:limit]
