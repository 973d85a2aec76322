"""Checks of the scores of trained models, as prediction wrote them: what it does is done again with other rows.

    C1  truncation  the rows up to t alone, all symbols cut at the same moment, give up to t what all rows give
    C2  poison      neither do rows after t that are missing, huge or shuffled change a score up to t
    C6  alone       one symbol's rows alone give what was written: operators across symbols make columns, models do not
    C7  fit         no model scores what its training knew of, and its scaler is that of its training's rows

C1 and C2 score the same windows in the same batches from all rows and from altered ones, where not one bit may differ
on a CPU, and hold both to what was written. That came from other batches, whose size decides in which order sums are
taken: it may deviate by `bound` of the largest score that the model wrote in the fold.

Shapes: N rows of the panel, S rows that are compared, C scores, M of them written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from training.panel import UNKNOWN_END, Panel
from training.scaler import Scaler
from training.splits import TRAIN, Fold

from . import Check
from .case import Act, Bools, Floats, Longs, different, spread
from .causality import HUGE, POISONS
from .ledger import text
from .rescored import Ready, Rescored
from .result import Finding, Outcome


class Trained:
    """What is held to the checks: prediction done again, and how its models were trained.

    kind : of the split, train : the settings of training, both none where they are not known or where the models were
    trained on other rows. missing : why nothing can be scored here, empty = it can.
    """

    def __init__(self, again: Rescored, kind: str = "", train: dict[str, Any] | None = None, missing: str = "") -> None:
        self.again, self.kind, self.train, self.missing = again, kind, train, missing
        section, device = again.sources.section, again.sources.device
        self.bound = bound(section.precision, device)
        self.rounding = 0.0 if device == "cpu" else self.bound

    def folds(self, outcome: Outcome) -> list[Fold]:
        """Return the folds that have scores; say of the others that nothing can be judged."""
        if self.missing:
            outcome.reasons["scores"] = self.missing
            return []
        empty = [fold.number for fold in self.again.folds if not self.again.written[fold.number].rows.size]
        outcome.reasons |= {f"fold {number}": "has no scores of these symbols" for number in empty}
        return [fold for fold in self.again.folds if fold.number not in empty]

    def moments(self, fold: Fold) -> Longs:
        """Return when the fold's scores were written and rows followed, sorted."""
        ts_N = self.again.panel.ts_N
        stamps = np.unique(ts_N[self.again.written[fold.number].rows])
        return np.asarray(stamps[stamps < ts_N.max()])

    def compare(
        self,
        outcome: Outcome,
        names: Sequence[str],
        rows_S: Longs,
        pair: tuple[Floats, Floats],
        allowed_C: Floats,
        what: str,
    ) -> None:
        """Add a finding for every score that differs by more than is allowed; no score must meet no score."""
        panel = self.again.panel
        for c, name in enumerate(names):
            whole, got = (one_SC[:, c] for one_SC in pair)
            outcome.comparisons += int((np.isfinite(whole) | np.isfinite(got)).sum())
            wrong = np.flatnonzero(different(whole, got, allowed_C[c]))
            if wrong.size:
                at = wrong[np.argmin(panel.ts_N[rows_S[wrong]])]
                row = rows_S[at]
                place = panel.symbols[panel.symbol_N[row]], text(panel.ts_N[row])
                numbers = float(whole[at]), float(got[at])
                outcome.add(Finding(outcome.check, name, *place, *numbers, what, wrong.size))

    def hold(self, outcome: Outcome, ready: Ready, rows_S: Longs, altered: Panel, at_S: Longs, what: str) -> None:
        """Score rows from all rows, and from altered ones where they are the rows `at_S`; compare both with each other
        and with what was written.
        """
        again, names = self.again, self.again.scores_of(ready)
        whole_SC = again.scored(ready, ready.panel, rows_S)
        got_SC = again.scored(ready, again.seen(ready.learned, altered), at_S)
        where = f"fold {ready.fold.number}"
        self.compare(outcome, names, rows_S, (whole_SC, got_SC), self.rounding * largest(whole_SC), f"{what}, {where}")
        self.written(outcome, ready, rows_S, whole_SC, f"scored again in other batches, {where}")

    def written(self, outcome: Outcome, ready: Ready, rows_S: Longs, got_SC: Floats, what: str) -> None:
        """Compare scores with what was written."""
        again, wrote = self.again, self.again.written[ready.fold.number]
        place = again.scores_of(ready)
        got_SM = got_SC[:, [place.index(name) for name in again.names]]
        pair = wrote.at(rows_S), got_SM
        self.compare(outcome, again.names, rows_S, pair, self.bound * largest(wrote.scores), what)


def bound(precision: str, device: str) -> float:
    """Return the deviation from other batches that is allowed, of the largest score.

    float32: 1e-5, where networks of 8 to 256 states showed 4e-7 on a CPU. bf16, fp16 and int4: five roundings of the
    type; float32 on a GPU likewise, whose products may be rounded to the 10 bits of fp16. int8: half a step
    between whole numbers, because what differs in its last digit may round to another one.
    """
    if precision in ("bf16", "int4"):
        return 2e-2
    if precision == "int8":
        return 4e-3
    return 2e-3 if precision == "fp16" or device == "gpu" else 1e-5


def largest(scores_SC: Floats) -> Floats:
    """Return the largest absolute score (C,), 0 where there is none."""
    return np.asarray(np.nan_to_num(np.abs(scores_SC), nan=0.0).max(axis=0, initial=0.0))


def truncation(case: Trained, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C1: cut all symbols at the same random moments."""

    def act(fold: Fold, moment: int) -> None:
        again = case.again
        early = np.flatnonzero(again.panel.ts_N <= moment)
        rows_S = again.near(fold, moment)
        altered = again.taken(again.panel, early)
        what = f"from the rows up to {text(moment)} alone"
        case.hold(outcome, again.ready(fold), rows_S, altered, np.searchsorted(early, rows_S), what)

    return [partial(act, fold, moment) for fold, moment in _drawn(case, outcome, rng, tries)]


def poison(case: Trained, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C2: leave the rows after random moments in their places and make what is in them missing, huge or shuffled."""

    def act(fold: Fold, moment: int, kind: str, seed: int) -> None:
        again = case.again
        altered = again.taken(again.panel, np.arange(len(again.panel.ts_N)))
        _poison(altered, again.panel.ts_N > moment, kind, np.random.default_rng(seed))
        rows_S = again.near(fold, moment)
        what = f"with {kind} rows after {text(moment)}"
        case.hold(outcome, again.ready(fold), rows_S, altered, rows_S, what)

    drawn = _drawn(case, outcome, rng, max(tries, len(POISONS)))
    seeds = rng.integers(0, 2**63, len(drawn)).tolist()
    kinds = [POISONS[i % len(POISONS)] for i in range(len(drawn))]
    return [partial(act, *place, kind, seed) for place, kind, seed in zip(drawn, kinds, seeds)]


def alone(case: Trained, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C6: leave one random symbol alone."""

    def act(fold: Fold, symbol: int) -> None:
        again, ready = case.again, case.again.ready(fold)
        mine = np.flatnonzero(again.panel.symbol_N == symbol)
        rows_S = again.near(fold, int(again.panel.ts_N.max()), symbol)
        panel = again.seen(ready.learned, again.taken(again.panel, mine))
        got_SC = again.scored(ready, panel, np.searchsorted(mine, rows_S))
        what = f"from the rows of {again.panel.symbols[symbol]} alone, fold {fold.number}"
        case.written(outcome, ready, rows_S, got_SC, what)

    folds, drawn = case.folds(outcome), []
    if len(np.unique(case.again.panel.symbol_N)) < 2:
        outcome.reasons["symbols"] = "there is but one"
        return []
    for fold in folds:
        there = np.unique(case.again.panel.symbol_N[case.again.written[fold.number].rows]).astype(np.int64)
        drawn += [partial(act, fold, symbol) for symbol in spread(there, rng, -(-tries // len(folds)))]
    return list(drawn)


def fit(case: Trained, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C7: look at each fold's rows and scaler."""
    return [partial(act, case, outcome, fold) for fold in case.again.folds for act in (_unseen, _scaler)]


CHECKS: dict[str, Check[Trained]] = {"C1": truncation, "C2": poison, "C6": alone, "C7": fit}


def _drawn(case: Trained, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[tuple[Fold, int]]:
    """Draw moments of all folds, at least one of each, that rows follow."""
    out: list[tuple[Fold, int]] = []
    folds = case.folds(outcome)
    for fold in folds:
        found = spread(case.moments(fold), rng, -(-tries // len(folds)))
        if not found:
            outcome.reasons[f"fold {fold.number}"] = "no row follows its scores"
        out += [(fold, moment) for moment in found]
    return out


def _poison(panel: Panel, late_N: Bools, kind: str, rng: np.random.Generator) -> None:
    late = np.flatnonzero(late_N)
    if kind == "shuffled":
        order = rng.permutation(late)
        for values in (panel.x_NF, panel.y_NH, panel.end_N, panel.member_N):
            values[late] = values[order]
        return
    panel.x_NF[late] = panel.y_NH[late] = {"missing": np.nan, "huge": HUGE}[kind]
    if kind == "missing":
        panel.end_N[late], panel.member_N[late] = UNKNOWN_END, False


def _unseen(case: Trained, outcome: Outcome, fold: Fold) -> None:
    """Find scores of rows of the training, or from before the last of its labels was known."""
    panel, rows = case.again.panel, case.again.written[fold.number].rows
    outcome.comparisons += len(rows)
    trained_N = (fold.of(panel.ts_N) == TRAIN) & ~fold.purged(panel.ts_N, panel.end_N)
    ends = panel.end_N[trained_N & np.isfinite(panel.y_NH).any(axis=1)]
    until = max([span.stop - 1 for span in fold.spans if span.part == TRAIN] + [int(ends.max(initial=0))])
    early = rows[panel.ts_N[rows] <= until]
    own = early[fold.of(panel.ts_N[early]) == TRAIN]
    if early.size and not own.size and case.kind == "kfold":
        outcome.reasons[f"fold {fold.number}"] = "kfold trains on both sides of its test: its models know what follows"
    elif early.size:
        row = (own if own.size else early)[0]
        what = f"a model whose training knew of all until {text(until)} scores it and {len(early) - 1} more rows"
        _tell(outcome, f"rows of fold {fold.number}", panel, row, f"{what}, fold {fold.number}")


def _scaler(case: Trained, outcome: Outcome, fold: Fold) -> None:
    """Find a scaler that was not fitted on the rows of its training."""
    again = case.again
    if case.train is None:
        outcome.reasons["scaler"] = "the rows of its training are not known to be these"
        return
    saved, panel = again.learned(fold).scaler, again.panel
    before = panel.since(again.columns.look_back)
    rows_N = (fold.of(panel.ts_N) == TRAIN) & ~fold.looking_back(panel.ts_N, before)
    mine = replace(panel)
    mine.keep(saved.features)
    fitted = Scaler.fit(mine.x_NF, rows_N, saved.features, case.train["scaler"], case.train["clip"])
    for what, one, other in (("center", saved.center_F, fitted.center_F), ("scale", saved.scale_F, fitted.scale_F)):
        outcome.comparisons += len(one)
        wrong = np.flatnonzero(~np.isclose(one, other, rtol=1e-6, atol=0.0))
        if wrong.size:
            name, numbers = saved.features[wrong[0]], (float(one[wrong[0]]), float(other[wrong[0]]))
            said = f"the {what} of {name} in the scaler of fold {fold.number} is {numbers[0]!r}, of its training's rows"
            last = np.flatnonzero(rows_N)[np.argmax(panel.ts_N[rows_N])]
            told = f"{said} {numbers[1]!r} ({wrong.size} features differ)"
            _tell(outcome, f"scaler of fold {fold.number}", panel, last, told)


def _tell(outcome: Outcome, key: str, panel: Panel, row: Any, what: str) -> None:
    """Keep one finding of a fold as a whole; the place is that of a row."""
    place = panel.symbols[panel.symbol_N[row]], text(panel.ts_N[row])
    outcome.found.setdefault(key, Finding(outcome.check, "", *place, np.nan, np.nan, what))
