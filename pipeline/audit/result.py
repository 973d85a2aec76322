"""What an audit found: the first difference of each column with both values, and a verdict a check."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from storage.emit import Emit

Verdict = Literal["clean", "found", "cannot judge"]


@dataclass
class Finding:
    """One column that broke a check: where it first differed, what the whole of the bars and what the trial gave.

    `values` differed in `trials` trials; the place and `what` are of the first of these. An empty column means the
    function as a whole.
    """

    check: str
    column: str
    symbol: str
    ts: str
    whole: float
    got: float
    what: str
    values: int = 1
    trials: int = 1

    def __str__(self) -> str:
        place = f"{self.check} {self.column or 'rows'} of {self.symbol} at {self.ts}: "
        if not self.column:
            return place + self.what
        return (
            f"{place}{self.whole!r} from all bars, {self.got!r} {self.what} "
            f"({self.values} values in {self.trials} trials differ)"
        )

    def summary(self) -> dict[str, Any]:
        return {**vars(self), "whole": _json(self.whole), "got": _json(self.got)}


@dataclass
class Outcome:
    """What one check came to. `reasons` say by column, or by part of the check, why it could not be judged."""

    check: str
    trials: int = 0
    comparisons: int = 0
    refused: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Finding] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        if self.found:
            return "found"
        return "cannot judge" if self.reasons or not self.comparisons else "clean"

    @property
    def reason(self) -> str:
        """Say why the check cannot be judged in full; empty where it can."""
        if not self.reasons and not self.comparisons:
            return f"every trial was refused: {self.refused[0]}" if self.refused else "there was nothing to compare"
        shown = [f"{name}: {why}" for name, why in list(self.reasons.items())[:5]]
        more = len(self.reasons) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")

    def add(self, finding: Finding) -> None:
        """Keep the first finding of a column and count the others."""
        first = self.found.setdefault(finding.column, finding)
        if first is not finding:
            first.values += finding.values
            first.trials += 1

    def __str__(self) -> str:
        refused = f", {len(self.refused)} refused" if self.refused else ""
        text = f"{self.check} {self.verdict}: {self.trials} trials{refused}, {self.comparisons} comparisons"
        return f"{text}; {self.reason}" if self.reason and self.verdict != "found" else text

    def summary(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "trials": self.trials,
            "refused": len(self.refused),
            "comparisons": self.comparisons,
            "measured": self.measured,
            "findings": [finding.summary() for finding in self.found.values()],
        }


@dataclass(frozen=True)
class Audit:
    """All outcomes; `digest` names what the function made of all bars."""

    outcomes: tuple[Outcome, ...]
    digest: str

    @property
    def verdict(self) -> Verdict:
        verdicts = [outcome.verdict for outcome in self.outcomes]
        return "found" if "found" in verdicts else "cannot judge" if "cannot judge" in verdicts else "clean"

    @property
    def findings(self) -> list[Finding]:
        return [finding for outcome in self.outcomes for finding in outcome.found.values()]

    def tell(self, emit: Emit, where: object) -> None:
        """Log each outcome, what it found, and the verdict with where the certificate lies."""
        for outcome in self.outcomes:
            level = {"clean": "info", "found": "error"}.get(outcome.verdict, "warning")
            emit("log", level=level, text=str(outcome), check=outcome.check, verdict=outcome.verdict)
            for finding in outcome.found.values():
                emit("log", level="error", text=str(finding), finding=finding.summary())
        emit("log", level="info", text=f"{self.verdict}: {where}", verdict=self.verdict)

    def summary(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "content": self.digest,
            "checks": {outcome.check: outcome.summary() for outcome in self.outcomes},
        }


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
