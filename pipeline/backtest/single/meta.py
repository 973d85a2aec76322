"""The meta-optimiser: draw combinations evenly, narrow the ranges round the best, stop when nothing is gained.

Every combination is run over the sessions in which it is chosen (inside) and over those after them (outside), which
choose nothing. What was tried is counted, and the best is judged by it: see overfit.py and cscv.py.

Shapes: C combinations, P parameters, I symbols, M blocks of sessions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.strategies.declare import Strategy, StrategyError

from .. import cscv, overfit
from ..metrics import sessions_a_year
from .chunks import MEMORY, Span, Threads, evaluate, span
from .figures import Raw, figures, sharpe
from .forecast import cores
from .instrument import Instrument, instruments_of
from .ranges import Ranges, codes
from .samples import Samples, check_strategy
from .section import AccountSection, MetaSection
from .spread import Spread

Array = npt.NDArray[Any]
Evaluate = Callable[[Samples], Iterator[tuple[int, Array, list[Raw]]]]


class Iteration(NamedTuple):
    """Say what an iteration did: ranges it drew from, combinations, best score and mean score of the best quantile."""

    ranges: dict[str, Any]
    combinations: int
    best: float
    mean_best: float


class Found(NamedTuple):
    """Hold what a search found. samples, score_C : all that was tried, in order; inside, outside : by figure (I, C);
    order : the best of them first; numbers, reasons : of overfit.deflated and cscv.overfitting for the best; ranges :
    what is left of them; why : the search stopped.
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
    year: int


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
    told: Callable[[Iteration], None] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    client: Any = None,
    **market: Any,
) -> Found:
    """Search the ranges of a strategy for combinations that earn over all symbols and periods at once.

    The score of a combination is the mean, over symbols and periods of the inside, of its yearly Sharpe ratio (0 where
    it did not trade). ranges : narrower ones for some parameters, see Ranges.whole. earlier : combinations that were
    tried on these bars before; they count. told : hears of each iteration; progress : of combinations that are done.
    The same seed gives the same result on any number of workers. Other arguments as for `sweep`. Raises StrategyError.
    """
    section, account = section or MetaSection(), account or AccountSection()
    check_strategy(strategy)
    found = instruments_of(bars, account, market)
    spans = _halves(found, strategy, section, first, last)
    whole = now = Ranges.whole(strategy, ranges, found[0].interval)
    known: set[bytes] = set()
    trials = _Trials(strategy, found, spans, account, section)
    steps: list[Iteration] = []
    why = f"{section.iterations} iterations were made"
    with _evaluation(client, found, spans, strategy, account, workers or cores(), memory, progress) as evaluated:
        for number in range(section.iterations):
            drawn = now.draw(section.samples, section.seed + 1_000_003 * number, known)
            if not len(drawn):
                why = "every combination of the narrowed ranges was tried"
                break
            score = trials.run(drawn, evaluated)
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
    return trials.found(tuple(steps), now, why, earlier)


def _gained(steps: Sequence[Iteration], gain: float) -> bool:
    before, after = steps[-2].mean_best, steps[-1].mean_best
    return not np.isfinite(before) or after - before > gain * abs(before)


def _halves(
    found: Sequence[Instrument], strategy: Strategy, section: MetaSection, first: Any, last: Any
) -> list[tuple[Span, Span]]:
    """Return the bars in which combinations are chosen and those after them, of each symbol; without a bar where it has
    no two.

    One day parts the halves of all symbols, and blocks begin on the same days: else what judges a symbol of long
    standing would be the time in which a younger one has chosen.
    """
    wholes, errors = {}, []
    for number, each in enumerate(found):
        try:
            wholes[number] = span(each, strategy, first, last)
        except StrategyError as error:
            errors.append(error)
    if not wholes:
        raise errors[0]
    days = np.unique(np.concatenate([found[k].day_T[over.start : over.stop] for k, over in wholes.items()]))
    cut = int(len(days) * section.inside)
    out = []
    for number, each in enumerate(found):
        halves = []
        for low, high in ((0, cut), (cut, len(days))):
            begin = max(int(np.searchsorted(each.day_T, days[min(low, len(days) - 1)])), strategy.lookback)
            end = int(np.searchsorted(each.day_T, days[high - 1], side="right")) if low < high else 0
            stop = end if number in wholes and end - begin > 1 else begin
            blocks = min(cscv.BLOCKS if low == 0 else 1, max(high - low, 1))
            block = np.zeros(len(each), np.int32)
            mine = each.day_T[begin:stop]
            block[begin:stop] = (np.searchsorted(days, mine) - low) * blocks // max(high - low, 1)
            last_bars = np.append(mine[1:] != mine[:-1], True) if mine.size else np.zeros(0, bool)
            count = np.bincount(block[begin:stop][last_bars], minlength=blocks)
            halves.append(Span(begin, stop, block, count, sessions_a_year(each.day_T)))
        out.append((halves[0], halves[1]))
    if any(not sum(halves[k].sessions for halves in out) for k in (0, 1)):
        raise StrategyError(
            f"expected sessions inside and outside, got {len(days)} of which {section.inside:.0%} are inside; widen "
            "the range of days"
        )
    return out


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


class _Trials:
    """Run combinations over all symbols and remember what came out, so that everything that was tried is counted."""

    def __init__(
        self,
        strategy: Strategy,
        found: Sequence[Instrument],
        spans: Sequence[tuple[Span, Span]],
        account: AccountSection,
        section: MetaSection,
    ) -> None:
        self.strategy, self.instruments, self.spans = strategy, found, spans
        self.account, self.section = account, section
        self.blocks = len(spans[0][0].count_M)
        self.codes: list[Array] = []
        self.scores: list[Array] = []
        self.raws: list[list[tuple[Raw, Raw]]] = []

    def run(self, drawn_CP: Array, evaluated: Evaluate) -> Array:
        """Run combinations and return their scores, (C,); those that traded too little have -inf."""
        chosen = Samples(self.strategy, codes(self.strategy, drawn_CP))
        parts: list[list[tuple[Array, list[Raw]]]] = [[] for _ in self.instruments]
        for symbol, pick, raws in evaluated(chosen):
            parts[symbol].append((pick, raws))
        pairs = []
        for mine in parts:
            back = np.argsort(np.concatenate([pick for pick, _ in mine]))
            ins, outs = (Raw.joined([raws[k] for _, raws in mine], back) for k in (0, 1))
            pairs.append((ins, outs))
        score = self._score([ins for ins, _ in pairs])
        self.codes.append(chosen.code_CP)
        self.scores.append(score)
        self.raws.append(pairs)
        return score

    def _score(self, raws: Sequence[Raw]) -> Array:
        parts = np.array_split(np.arange(self.blocks), min(self.section.periods, self.blocks))
        ratios, trades = [], []
        for raw, (inside, _) in zip(raws, self.spans):
            if not inside.sessions:
                continue
            for part in parts:
                if inside.count_M[part].sum() < 2:
                    continue
                sums = raw.moment_CMK[:, part, :2].sum(axis=1)
                ratios.append(np.nan_to_num(sharpe(sums, int(inside.count_M[part].sum())) * np.sqrt(inside.year)))
            trades.append(figures(raw, self.account.capital, 1, 2, inside.year)["trades"])
        score = np.mean(ratios, axis=0)
        return np.where(np.mean(trades, axis=0) >= self.section.least_trades, score, -np.inf)

    def found(self, steps: tuple[Iteration, ...], ranges: Ranges, why: str, earlier: int) -> Found:
        """Put together what was tried, and judge the best by it."""
        score = np.concatenate(self.scores)
        code = np.concatenate(self.codes)
        raws = [
            tuple(Raw.joined([iteration[i][k] for iteration in self.raws]) for k in (0, 1))
            for i in range(len(self.instruments))
        ]
        halves = []
        for k in (0, 1):
            told = [_figures(pair[k], self.account.capital, over[k]) for pair, over in zip(raws, self.spans)]
            halves.append({name: np.stack([one[name] for one in told]) for name in told[0]})
        order = np.lexsort([*code.T[::-1], -score])
        days = tuple((*_days(x, a), *_days(x, b)) for x, (a, b) in zip(self.instruments, self.spans))
        samples, year = Samples(self.strategy, code), self.spans[0][0].year
        if not np.isfinite(score[order[0]]):
            reason = f"no combination made {self.section.least_trades} trades inside"
            return Found(
                samples, score, halves[0], halves[1], order, steps, ranges, {"trials": len(score) + earlier},
                dict.fromkeys(("deflated_sharpe", "pbo"), reason), why, days, year,
            )  # fmt: skip
        # Symbols move together: their sums are averaged, so that many of them are not taken for many years.
        there = [number for number, (inside, _) in enumerate(self.spans) if inside.sessions]
        moment = np.mean([raws[number][0].moment_CMK for number in there], axis=0)
        count = np.rint(np.mean([self.spans[number][0].count_M for number in there], axis=0)).astype(np.int64)
        each = sharpe(moment[:, :, :2].sum(axis=1), int(count.sum()))
        known = each[np.isfinite(each)]
        variance = float(np.var(known, ddof=1)) if known.size > 1 else None
        sums = moment[order[0]].sum(axis=0)
        numbers, reasons = overfit.deflated(int(count.sum()), sums.tolist(), len(score) + earlier, variance)
        more: dict[str, Any] = {}
        others: dict[str, str] = {}
        if len(count) == cscv.BLOCKS:
            more, others, _ = cscv.overfitting(moment[:, :, :2], count)
        return Found(
            samples, score, halves[0], halves[1], order, steps, ranges, {**numbers, **more},
            {**reasons, **others}, why, days, year,
        )  # fmt: skip


def _figures(raw: Raw, capital: int, over: Span) -> dict[str, Array]:
    """Return the figures of a half; NaN where the symbol has none."""
    out = figures(raw, capital, over.stop - over.start, over.sessions, over.year)
    return out if over.sessions else {name: np.full(len(values), np.nan) for name, values in out.items()}


def _days(each: Instrument, over: Span) -> tuple[str, str]:
    """Return the first and the last day of a half; empty where the symbol has none."""
    return (str(each.day_T[over.start]), str(each.day_T[over.stop - 1])) if over.sessions else ("", "")
