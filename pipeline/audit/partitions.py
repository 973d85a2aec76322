"""C6: in how many parts, under which names and with how many threads changes nothing."""

from __future__ import annotations

from functools import partial

import numpy as np

from .case import Act, Case, Longs, Values
from .result import Outcome

GROUPS = (2, 3, 7)
NAMINGS = 2


def partitions(case: Case, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C6: random groups of symbols apart, symbols under each other's names, and the schedules that were given."""
    trials: list[Act] = []
    symbols = case.starts.size
    if symbols > 1:
        for k in GROUPS[:tries]:
            trials.append(partial(_grouped, case, outcome, rng.permutation(symbols) % min(k, symbols)))
        for _ in range(NAMINGS):
            trials.append(partial(_renamed, case, outcome, rng.permutation(symbols)))
    else:
        outcome.reasons["groups"] = "one symbol only: groups and the order of symbols cannot be varied"
    for name, values in case.promises.schedules.items():
        trials.append(partial(_scheduled, case, outcome, name, values))
    if not case.promises.schedules:
        outcome.reasons["schedules"] = "no way to run with other threads or workers was given"
    return trials


def _grouped(case: Case, outcome: Outcome, group: Longs) -> None:
    """Compute groups of symbols apart; columns that see the whole cross-section are left out."""
    got = np.full(case.whole_RC.shape, np.nan)
    of_row = np.repeat(group, case.lengths)
    for one in np.unique(group):
        rows = of_row == one
        part = case.called(outcome, case.bars[rows].reset_index(drop=True))
        if part is None:
            return
        got[rows] = part
    what = f"from its group of symbols alone ({group.max() + 1} groups)"
    case.compare(outcome, what, slice(None), got, leave=case.promises.across)


def _renamed(case: Case, outcome: Outcome, place: Longs) -> None:
    """Give symbol i the name, and so the place in the order, of symbol place[i]."""
    order = np.argsort(place)  # the symbols in the order of their new names
    rows = np.concatenate([np.arange(case.starts[i], case.starts[i] + case.lengths[i]) for i in order])
    bars = case.bars.iloc[rows].reset_index(drop=True)
    names = case.bars["symbol"].iloc[np.repeat(case.starts, case.lengths[order])]
    part = case.called(outcome, bars.assign(symbol=names.reset_index(drop=True)))
    if part is not None:
        got = np.empty_like(part)
        got[rows] = part
        noise = {**case.promises.noise, **case.promises.reordered}
        case.compare(outcome, "under another name, in another order of symbols", slice(None), got, noise=noise)


def _scheduled(case: Case, outcome: Outcome, name: str, values: Values) -> None:
    got = case.called(outcome, case.bars, values)
    if got is not None:
        case.compare(outcome, f"with {name}", slice(None), got)
