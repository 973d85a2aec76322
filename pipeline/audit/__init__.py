"""Checks C1–C6 of any function from bars to columns: does it see what it may see, and say the same however it is run.

    C1  truncation   the history up to t, all symbols cut at the same moment, says up to t what the whole says
    C2  poison       neither do rows after t that are missing, huge or shuffled change anything up to t
    C3  warm-up      after its declared number of bars a column no longer depends on where the history began
    C4  chunks       fed in random pieces with carried state, it says what it says about the whole
    C5  backends     other backends and types say the same with the same NaN; rows in disorder are refused by all
    C6  partitions   groups of symbols apart, other names and so another order, more threads: the same

The auditor knows nothing of what it checks: it calls the function, compares, and shares no code with it. What a check
cannot judge (nothing known in the range, a history that is too short, a backend that is not there) it calls so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from storage.emit import Emit, silent

from .backends import backends
from .case import Act, AuditError, Backend, Case, Promises, Values, Warmup
from .causality import poison, truncation
from .history import chunks, warmup
from .partitions import partitions
from .result import Audit, Finding, Outcome

__all__ = [
    "CHECKS", "Audit", "AuditError", "Backend", "Finding", "Outcome", "Promises", "Values", "Warmup", "audit", "chosen",
    "held",
]  # fmt: skip

Subject = TypeVar("Subject")
Check = Callable[[Subject, Outcome, np.random.Generator, int], list[Act]]
"""Plans the trials of a subject; each adds what it shows to the outcome."""

CHECKS: dict[str, Check[Case]] = {
    "C1": truncation,
    "C2": poison,
    "C3": warmup,
    "C4": chunks,
    "C5": backends,
    "C6": partitions,
}
NO_PROMISES = Promises()


def chosen(checks: Sequence[str], tries: int, known: Sequence[str] = tuple(CHECKS)) -> list[str]:
    """Return the checks that are asked for in their order; AuditError for others and for nothing to do."""
    unknown = [name for name in checks if name not in known]
    if unknown or not checks or tries < 1:
        raise AuditError(
            f"expected checks among {', '.join(known)} and at least one try, got {', '.join(checks) or 'none'} and "
            f"{tries}"
        )
    return [name for name in known if name in checks]


def audit(
    values: Values,
    bars: Any,
    *,
    promises: Promises = NO_PROMISES,
    checks: Sequence[str] = tuple(CHECKS),
    tries: int = 20,
    seed: int = 0,
    emit: Emit = silent,
) -> Audit:
    """Hold a function of bars to the checks over all symbols at once; the same seed tries the same.

    values : from a pandas frame of bars to a frame of numeric columns, row for row; NaN = not known. bars : symbol, ts
    and whatever the function reads, sorted by (symbol, ts), one row each. Errors of the function on all of the bars are
    its own and raised; one on altered bars counts as a trial that was refused. Raises AuditError.
    """
    names = chosen(checks, tries)
    case = Case(values, bars, promises)
    outcomes = [Outcome(name, reasons=dict(case.blank)) for name in names]
    return Audit(held(case, CHECKS, outcomes, tries=tries, seed=seed, emit=emit), case.digest())


def held(
    subject: Subject, checks: Mapping[str, Check[Subject]], outcomes: Sequence[Outcome], *, tries: int, seed: int,
    emit: Emit,
) -> tuple[Outcome, ...]:  # fmt: skip
    """Hold a subject to the checks of these outcomes and return them filled."""
    # A check draws the same numbers whichever others are asked for.
    planned = [
        (outcome, act)
        for outcome in outcomes
        for act in checks[outcome.check](subject, outcome, np.random.default_rng([seed, int(outcome.check[1:])]), tries)
    ]
    for done, (outcome, act) in enumerate(planned):
        emit("progress", done=done, total=len(planned), unit="trials", check=outcome.check)
        outcome.trials += 1
        act()
    emit("progress", done=len(planned), total=len(planned), unit="trials")
    return tuple(outcomes)
