"""The meta-optimiser: draw combinations evenly, narrow the ranges round the best, stop when nothing is gained.

Every combination is run over the sessions in which it is chosen (inside) and over those after them (outside), which
choose nothing. What was tried is counted, and the best is judged by it: see overfit.py and cscv.py.

Shapes: C combinations, P parameters, M blocks of sessions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.strategies.declare import Strategy, StrategyError
from storage.emit import Emit, silent

from .. import cscv, overfit
from .chunks import MEMORY, Span, Threads, evaluate
from .figures import FIGURES, Raw, sharpe
from .forecast import cores
from .halves import halves_of
from .instrument import Instrument, instruments_of
from .kept import Kept, asked_for
from .ranges import Ranges, codes
from .samples import Samples, check_counts, check_strategy
from .section import AccountSection, MetaSection
from .spread import Spread
from .trials import Counted, counted

Array = npt.NDArray[Any]
Evaluate = Callable[[Samples], Iterator[tuple[int, Array, list[Raw]]]]


class Iteration(NamedTuple):
    """Say what an iteration did: ranges it drew from, combinations, best score and mean score of the best quantile."""

    ranges: dict[str, Any]
    combinations: int
    best: float
    mean_best: float


class Found(NamedTuple):
    """Hold what a search found. samples, score_C : all that was tried, in order; inside, outside : by figure (C,),
    means over the symbols, NaN where none has one; order : the best of them first; numbers, reasons : of
    overfit.deflated and cscv.overfitting for the best; ranges : what is left of them; why : the search stopped; spans :
    first and last day inside and outside of each symbol; cut : first day of the outside; year : sessions of one; banned
    : share of the traded bars on which short sales that the account allows were banned.
    """

    samples: Samples
    score_C: Array
    inside: dict[str, Array]
    outside: dict[str, Array]
    order: Array
    iterations: tuple[Iteration, ...]
    ranges: Ranges
    numbers: dict[str, Any]
    reasons: dict[str, str]
    why: str
    spans: tuple[tuple[str, str, str, str], ...]
    cut: Any
    year: int
    banned: float


def optimize(
    bars: Any,
    strategy: Strategy,
    section: MetaSection | None = None,
    *,
    ranges: Mapping[str, Any] | None = None,
    account: AccountSection | None = None,
    first: Any = None,
    last: Any = None,
    earlier: int = 0,
    workers: int | None = None,
    memory: int = MEMORY,
    kept: str | Path | None = None,
    emit: Emit = silent,
    told: Callable[[Iteration], None] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    client: Any = None,
    **market: Any,
) -> Found:
    """Search the ranges of a strategy for combinations that earn over all symbols and periods at once.

    The score of a combination is the mean, over symbols and periods of the inside, of its yearly Sharpe ratio (0 where
    it did not trade). ranges : narrower ones for some parameters, see Ranges.whole. earlier : combinations that were
    tried on these bars before; they count. kept : a folder in which each iteration is kept; those that an interrupted
    search left there are taken where bars, settings, code and drawn combinations are the same, and run again else;
    emit hears which. told : hears of each iteration; progress : of combinations that are done. The same seed gives the
    same result on any number of workers, interrupted or not. Other arguments as for `sweep`. Raises StrategyError.
    """
    section, account = section or MetaSection(), account or AccountSection()
    check_strategy(strategy)
    if not isinstance(section, MetaSection):
        raise StrategyError(f"expected a MetaSection, got {section!r}; write MetaSection(samples=...)")
    check_counts(workers=workers, memory=memory)
    check_counts(0, earlier=earlier)
    found = instruments_of(bars, account, market)
    halves = halves_of(found, strategy, section, first, last)
    whole = now = Ranges.whole(strategy, ranges, found[0].interval)
    store = Kept(kept, asked_for(found, halves.spans, strategy, account, section), emit) if kept is not None else None
    known: set[bytes] = set()
    tries: list[Counted] = []
    steps: list[Iteration] = []
    why = f"{section.iterations} iterations were made"
    with _evaluation(client, found, halves.spans, strategy, account, workers or cores(), memory, progress) as evaluated:
        for number in range(section.iterations):
            drawn = now.draw(section.samples, section.seed + 1_000_003 * number, known)
            if not len(drawn):
                why = "every combination of the narrowed ranges was tried"
                break
            chosen = Samples(strategy, codes(strategy, drawn))
            taken = store.take(number, chosen.code_CP) if store else None
            if taken is not None:
                progress(2 * len(chosen) * len(found))  # inside and outside
            else:
                taken = counted(chosen, evaluated(chosen), halves.spans, account, section)
                if store:
                    store.put(number, taken)
            tries.append(taken)
            score = taken.score_C
            best = np.argsort(-score, kind="stable")[: max(1, int(len(score) * section.quantile))]
            best = best[np.isfinite(score[best])]  # the others traded too little to say anything
            mean = float(score[best].mean()) if best.size else -np.inf
            steps.append(Iteration(now.told(), len(drawn), float(score.max()), mean))
            if told is not None:
                told(steps[-1])
            if number and not _gained(steps, section.gain):
                why = f"the best {section.quantile:.0%} gained less than {section.gain:.0%} over the iteration before"
                break
            narrow = now.narrowed(drawn[best], whole) if best.size else now
            if narrow == now and len(drawn) < section.samples:
                why = "every combination of the ranges was tried"
                break
            now = narrow
    if not steps:
        raise StrategyError(
            f"expected combinations of strategy '{strategy.name}' in these ranges, got none; widen them"
        )
    code, score, moment = (np.concatenate(arrays) for arrays in list(zip(*tries))[:3])
    inside, outside = (dict(zip(FIGURES, np.concatenate(arrays, axis=1))) for arrays in list(zip(*tries))[3:])
    order = np.lexsort([*code.T[::-1], -score])
    numbers, reasons = _judged(score, moment, order[0], halves.spans, section.least_trades, earlier)
    return Found(
        Samples(strategy, code), score, inside, outside, order, tuple(steps), now, numbers, reasons, why,
        halves.days(found), halves.cut, halves.spans[0][0].year,
        halves.banned(found) if account.direction != "long" else 0.0,
    )  # fmt: skip


def _gained(steps: Sequence[Iteration], gain: float) -> bool:
    before, after = steps[-2].mean_best, steps[-1].mean_best
    return not np.isfinite(before) or after - before > gain * abs(before)


@contextlib.contextmanager
def _evaluation(
    client: Any,
    found: Sequence[Instrument],
    spans: Sequence[tuple[Span, Span]],
    strategy: Strategy,
    account: AccountSection,
    workers: int,
    memory: int,
    progress: Callable[[int], None],
) -> Iterator[Evaluate]:
    """Yield what runs combinations over all symbols, on a cluster or on threads of this process."""
    money = account.array()
    if client is not None:
        spread = Spread(client, found, spans, money, memory)
        yield lambda chosen: spread.evaluate(chosen, progress)
        return
    with Threads(strategy, workers) as runs:

        def here(chosen: Samples) -> Iterator[tuple[int, Array, list[Raw]]]:
            for symbol, (each, halves) in enumerate(zip(found, spans)):
                for pick, raws in evaluate(runs, each, chosen, halves, money, memory=memory, moved=progress):
                    yield symbol, pick, raws

        yield here


def _judged(
    score_C: Array, moment_CMK: Array, best: int, spans: Sequence[tuple[Span, Span]], least: int, earlier: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the numbers of overfit.deflated and cscv.overfitting for the best, and the reasons for those that are not
    known.
    """
    trials = len(score_C) + earlier
    if not np.isfinite(score_C[best]):
        reason = f"no combination made {least} trades inside"
        return {"trials": trials}, dict.fromkeys(("deflated_sharpe", "pbo"), reason)
    # Symbols move together: their sums are averaged, so that many of them are not taken for many years.
    count = np.rint(np.mean([inside.count_M for inside, _ in spans if inside.sessions], axis=0)).astype(np.int64)
    each = sharpe(moment_CMK[:, :, :2].sum(axis=1), int(count.sum()))
    known = each[np.isfinite(each)]
    variance = float(np.var(known, ddof=1)) if known.size > 1 else None
    sums = moment_CMK[best].sum(axis=0)
    numbers, reasons = overfit.deflated(int(count.sum()), sums.tolist(), trials, variance)
    if len(count) != cscv.BLOCKS:
        return numbers, reasons
    more, others, _ = cscv.overfitting(moment_CMK[:, :, :2], count)
    return {**numbers, **more}, {**reasons, **others}
