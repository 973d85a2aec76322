"""C1 and C2: nothing that comes later changes what was said before."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .case import Act, Bools, Case
from .result import Outcome

POISONS = ("missing", "huge", "shuffled")
HUGE = 1e15


def truncation(case: Case, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C1: cut all symbols at the same random moments."""

    def act(moment: int) -> None:
        early = case.ts <= moment
        got = case.called(outcome, case.bars[early].reset_index(drop=True))
        if got is not None:
            case.compare(outcome, f"from the bars up to {case.stamp(moment)} alone", early, got)

    return [partial(act, moment) for moment in case.drawn(rng, tries)]


def poison(case: Case, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C2: leave the rows after random moments in their places and make their numbers missing, huge or shuffled."""

    def act(moment: int, kind: str, seed: int) -> None:
        early = case.ts <= moment
        got = case.called(outcome, _poisoned(case, ~early, kind, np.random.default_rng(seed)))
        if got is not None:
            case.compare(outcome, f"with {kind} rows after {case.stamp(moment)}", early, got[early])

    moments = case.drawn(rng, max(tries, len(POISONS)))
    seeds = rng.integers(0, 2**63, len(moments)).tolist()
    kinds = [POISONS[i % len(POISONS)] for i in range(len(moments))]
    return [partial(act, moment, kind, seed) for moment, kind, seed in zip(moments, kinds, seeds)]


def _poisoned(case: Case, late: Bools, kind: str, rng: np.random.Generator) -> Any:
    columns, order = {}, rng.permutation(np.flatnonzero(late))
    for name in case.inputs:
        values = case.bars[name].to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        values[late] = {"missing": np.nan, "huge": HUGE}.get(kind, values[order])
        columns[name] = values
    return case.bars.assign(**columns)
