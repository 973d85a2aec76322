"""C5: the same from other backends and in other types, on the bars as they are and on odd ones; disorder is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .case import Act, Backend, Case, Floats
from .result import Finding, Outcome

ODD = ("gaps", "constant", "zero", "denormal", "jumps")
DENORMAL = 1e-310
KINDS = ("as they are", "odd", "one")


def backends(case: Case, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C5: hold every backend that was given to the whole, and all of them to the refusal of rows in disorder."""
    given = case.promises.backends
    outcome.measured |= {name: f"not compared: {why}" for name, why in case.promises.unavailable.items()}
    if not given:
        outcome.reasons["backends"] = "no other backend was given"
    seed = int(rng.integers(0, 2**63))
    trials: list[Act] = []
    for name, backend in given.items():
        for kind in KINDS:
            trials.append(partial(_agree, case, outcome, name, backend, kind, seed))
    doubled = np.flatnonzero(case.lengths > 1)
    if not doubled.size:
        outcome.reasons["disorder"] = "no symbol has two bars"
        return trials
    row = int(case.starts[rng.choice(doubled)]) + 1
    for name, values in {"the function": case.values, **{n: b.values for n, b in given.items()}}.items():
        for what, order in (("unsorted", (row, row - 1)), ("doubled", (row - 1, row, row))):
            places = np.concatenate([np.arange(row - 1), order, np.arange(row + 1, len(case.bars))])
            trials.append(partial(_refused, case, outcome, name, values, what, places, row))
    return trials


def _agree(case: Case, outcome: Outcome, name: str, backend: Backend, kind: str, seed: int) -> None:
    """Compare one backend with the function on the bars, on odd ones or on the first bar alone; either both compute
    these or both refuse them.
    """
    bars = case.bars.iloc[:1] if kind == "one" else case.bars
    if kind == "odd":
        bars = _odd(case, np.random.default_rng(seed))
    what = f"from {name}" + ("" if kind == "as they are" else f" on {kind} bars")
    ours, why = case, ""
    try:
        with np.errstate(all="ignore"):
            ours = case if kind == "as they are" else Case(case.values, bars, case.promises)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    theirs = case.made(outcome, bars, backend.values)
    if bool(why) != (theirs is None):
        who, reason = ("the function", why) if why else (name, outcome.refused[-1])
        told = f"only {who} refused {kind} bars: {reason}"
        outcome.add(Finding(outcome.check, "", case.symbol(0), case.at(0), np.nan, np.nan, told))
    if why or theirs is None:
        return
    whole = ours.whole_RC.copy()
    for c, dtype in enumerate(theirs.dtypes):
        if dtype == np.float32:
            with np.errstate(over="ignore", under="ignore"):
                whole[:, c] = whole[:, c].astype(np.float32)
    ours.compare(
        outcome, what, slice(None), ours.array(theirs), tolerance=backend.tolerance, whole_NC=whole, leave=backend.leave
    )


def _odd(case: Case, rng: np.random.Generator) -> Any:
    """Return the bars with, symbol by symbol, runs without numbers, constants, zeros, denormals or wild jumps in the
    later half.
    """
    columns: dict[str, Floats] = {
        name: case.bars[name].to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        for name in case.promises.inputs or case.inputs
    }
    for i, (start, length) in enumerate(zip(case.starts, case.lengths)):
        half = slice(int(start + length // 2), int(start + length))
        kind = ODD[i % len(ODD)]
        size = half.stop - half.start
        gaps, jumps = rng.random(size) < 0.3, rng.choice([1e-9, 1.0, 1e12], size)
        for values in columns.values():
            old = values[half]
            values[half] = {
                "gaps": np.where(gaps, np.nan, old),
                "constant": old[:1],
                "zero": 0.0,
                "denormal": DENORMAL,
                "jumps": old * jumps,
            }[kind]
    return case.bars.assign(**columns)


def _refused(case: Case, outcome: Outcome, name: str, values: Any, what: str, places: Any, row: int) -> None:
    """Expect an error for rows in disorder."""
    outcome.comparisons += 1
    try:
        values(case.bars.iloc[places].reset_index(drop=True))
    except Exception:  # whatever a function raises, it has refused them
        return
    outcome.add(
        Finding(
            outcome.check, "", case.symbol(row), case.at(row), np.nan, np.nan, f"{what} rows were accepted by {name}"
        )
    )
