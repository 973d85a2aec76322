"""C3 and C4: where the history begins, and the pieces in which it comes."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from .case import Act, Bools, Case, Floats, Longs, Warmup, different
from .result import Outcome

STARTS = 4  # later beginnings that C3 tries at most
CALLS = 400  # chunks that one trial of C4 makes at most
ROUNDING = 1e-12  # of a column's largest value over all symbols: what is left of a sum that should be zero


def warmup(case: Case, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C3: begin later; the last bar that still differs measures each column's warm-up, which must not pass the declared
    one.
    """
    stamps, warmups = np.unique(case.ts), case.promises.warmups
    asked: dict[str, Warmup] = {}
    for name in (name for name in case.columns if name not in case.blank):
        if name not in warmups and name in case.promises.across:
            outcome.measured[name] = {"declared": "that of what it is made of", "measured": "not asked"}
        elif name not in warmups:
            outcome.reasons[name] = "declares no warm-up"
        elif not np.isfinite(warmups[name].bars):
            outcome.measured[name] = {"declared": "never", "measured": "not asked"}
        else:
            asked[name], told = warmups[name], {"declared": int(warmups[name].bars), "unit": warmups[name].unit}
            outcome.measured[name] = {**told, "measured": 0, "longest": 0}
            outcome.reasons[name] = _short(warmups[name], 0)
    counts = {unit: _counted(case, unit) for unit in dict.fromkeys(one.unit for one in asked.values())}
    fit = [last for one in asked.values() if (last := _latest(case, stamps, counts[one.unit], 1.2 * one.bars)) > 0]
    late = max(1, min([stamps.size // 2, *fit]))
    edges = np.linspace(max(1, late // 2), late + 1, min(tries, STARTS) + 1).astype(int)
    firsts = sorted({int(rng.integers(a, max(b, a + 1))) for a, b in pairwise(edges)})

    def act(moment: int) -> None:
        rows = case.ts >= moment
        got = case.called(outcome, case.bars[rows].reset_index(drop=True))
        if got is None:
            return
        # Symbols without an earlier bar say nothing: their history is what it was.
        judged = _cut_short(case, rows)
        ages = {unit: _age(case, rows, count) for unit, count in counts.items()}
        for name, one in asked.items():
            c = case.columns.index(name)
            _judge(case, outcome, c, rows, got[:, c], ages[one.unit], judged, case.stamp(moment))

    return [partial(act, int(stamps[first])) for first in firsts if first < stamps.size]


def _counted(case: Case, unit: str) -> Longs:
    """Return how many of a unit each row of the bars brings."""
    if unit in case.promises.counted:
        return np.asarray(case.promises.counted[unit](case.bars), np.int64)
    bar = np.ones(len(case.bars), bool)
    for name in case.promises.inputs:
        bar &= np.isfinite(case.bars[name].to_numpy(dtype=np.float64, na_value=np.nan))
    return bar.astype(np.int64)


def _latest(case: Case, stamps: Longs, count: Longs, needed: float) -> int:
    """Return the place among `stamps` from which on some symbol still has more than is needed; 0 = none has."""
    left = np.cumsum(count[::-1])[::-1]
    ends = np.append(left, 0)[case.starts + case.lengths]
    enough = left - np.repeat(ends, case.lengths) > needed
    return int(np.searchsorted(stamps, case.ts[enough].max())) if enough.any() else 0


def _judge(
    case: Case, outcome: Outcome, c: int, rows: Bools, got: Floats, age: Longs, judged: Bools, since: str
) -> None:
    """Measure one column against a later beginning."""
    name, whole = case.columns[c], case.whole_RC[rows, c]
    promise = case.promises.warmups[name]
    declared, tolerance, unit = promise
    floor = ROUNDING * float(case.largest_SC[:, c].max(initial=0.0))
    off = judged & different(whole, got, np.maximum(tolerance * case.largest(c, rows), floor))
    outcome.comparisons += int(judged.sum())
    told = outcome.measured[name]
    told["measured"] = max(told["measured"], int(age[off].max(initial=0)))
    told["longest"] = max(told["longest"], int(age[judged].max(initial=0)))
    if told["longest"] > declared:
        outcome.reasons.pop(name, None)
    else:
        outcome.reasons[name] = _short(promise, told["longest"])
    wrong = off & (age > declared)
    if wrong.any():
        at = np.flatnonzero(wrong)
        at = at[int(np.argmin(case.ts[rows][at]))]
        later, warm = f"{age[at]} {unit} later", f"{declared:g} {unit}"
        what = f"from the bars since {since} alone, {later}, where the declared warm-up is {warm}"
        outcome.add(case.finding(outcome, what, rows, int(at), c, whole, got, int(wrong.sum())))


def _short(promise: Warmup, longest: int) -> str:
    return f"its warm-up of {promise.bars:g} {promise.unit} needs a longer history, a later beginning leaves {longest}"


def _cut_short(case: Case, rows: Bools) -> Bools:
    """Say for each row that is left whether its symbol lost earlier rows."""
    lost = np.add.reduceat(~rows, case.starts) > 0
    return np.asarray(np.repeat(lost, case.lengths)[rows])


def _age(case: Case, rows: Bools, count: Longs) -> Longs:
    """Count what each symbol's bars brought since the later beginning, this one included."""
    total = np.cumsum(count * rows)
    before = np.append(0, total)[case.starts]
    return np.asarray((total - np.repeat(before, case.lengths))[rows])


def chunks(case: Case, outcome: Outcome, rng: np.random.Generator, tries: int) -> list[Act]:
    """C4: feed chunks of random lengths, other ones for every symbol, to a function that carries its state."""
    make = case.promises.carried
    if make is None:
        outcome.reasons["chunks"] = "no function that carries its state was given"
        return []
    for name in (name for name in case.columns if name in case.promises.across):
        outcome.measured[name] = "not asked: it is made of whole moments"
    least = -(-2 * int(case.lengths.max()) // CALLS)
    steps = [max(least, longest) for longest in (1, 7, 64, 500)]

    def act(longest: int, seed: int) -> None:
        draw, fed = np.random.default_rng(seed), make(case.symbols)
        got = np.full(case.whole_RC.shape, np.nan)
        at = np.zeros_like(case.lengths)
        while (at < case.lengths).any():
            step = np.minimum(draw.integers(longest == 1, longest + 1, at.size), case.lengths - at)
            within = np.arange(step.sum()) - np.repeat(np.cumsum(step) - step, step)
            places = np.repeat(case.starts + at, step) + within
            part = case.called(outcome, case.bars.iloc[places].reset_index(drop=True), fed)
            if part is None:
                return
            got[places] = part
            at += step
        what = f"fed in chunks of up to {longest} bars"
        case.compare(outcome, what, slice(None), got, leave=case.promises.across)

    seeds = rng.integers(0, 2**63, min(tries, 2 * len(steps))).tolist()
    return [partial(act, steps[i % len(steps)], seed) for i, seed in enumerate(seeds)]
