"""One figure of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """`value` is what the target is about; `ours` and `peer` are the two figures behind a ratio, peer None where
    there is none. `note` is said beside it and not in the JSON line.
    """

    name: str
    value: float
    ours: float
    peer: float | None = None
    note: str = ""
