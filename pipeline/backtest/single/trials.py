"""What combinations came to over all symbols, added up symbol by symbol: memory grows with the combinations alone.

Shapes: C combinations, P parameters, F figures, M blocks of sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .chunks import Span
from .figures import FIGURES, Raw, figures, sharpe
from .samples import Samples
from .section import AccountSection, MetaSection

Array = npt.NDArray[Any]


class Counted(NamedTuple):
    """Hold what combinations came to, float64. code_CP : see Samples; score_C : -inf where they traded too little;
    moment_CMK : (C, M, 4) means, over the symbols with sessions inside, of their sums of powers; inside_FC, outside_FC
    : means of each of FIGURES over the symbols that have one, NaN where none has.
    """

    code_CP: Array
    score_C: Array
    moment_CMK: Array
    inside_FC: Array
    outside_FC: Array


def counted(
    chosen: Samples,
    parts: Iterable[tuple[int, Array, list[Raw]]],
    spans: Sequence[tuple[Span, Span]],
    account: AccountSection,
    section: MetaSection,
) -> Counted:
    """Add up what the symbols made of combinations. parts : (which symbol, which of the combinations, what was counted
    inside and outside), in any order; spans : inside and outside of each symbol.

    Symbols are added in their own order, on which the last bits depend: one that comes early waits for those before it.
    """
    sums = _Sums(spans, account, section)
    waiting: dict[int, list[tuple[Array, list[Raw]]]] = {}
    now = 0
    for symbol, pick, raws in parts:
        waiting.setdefault(symbol, []).append((pick, raws))
        while sum(len(some) for some, _ in waiting.get(now, ())) == len(chosen):
            sums.add(now, waiting.pop(now))
            now += 1
    return sums.counted(chosen.code_CP)


class _Mean:
    """Add up arrays and divide by how many there were, what is not finite left out."""

    def __init__(self) -> None:
        self._total: Any = 0.0
        self._count: Any = 0

    def add(self, values: Array) -> None:
        known = np.isfinite(values)
        self._total = self._total + np.where(known, values, 0.0)
        self._count = self._count + known

    def value(self) -> Array:
        return np.where(self._count > 0, self._total / np.maximum(self._count, 1), np.nan)


class _Sums:
    """Hold the sums over symbols of one set of combinations."""

    def __init__(self, spans: Sequence[tuple[Span, Span]], account: AccountSection, section: MetaSection) -> None:
        self.spans, self.capital, self.least = spans, account.capital, section.least_trades
        blocks = len(spans[0][0].count_M)
        self.periods = np.array_split(np.arange(blocks), min(section.periods, blocks))
        self.ratio, self.trades, self.moment = _Mean(), _Mean(), _Mean()
        self.halves = _Mean(), _Mean()

    def add(self, symbol: int, parts: list[tuple[Array, list[Raw]]]) -> None:
        """Add all combinations of a symbol, which come in parts."""
        back = np.argsort(np.concatenate([pick for pick, _ in parts]))
        raws = [Raw.joined([both[half] for _, both in parts], back) for half in (0, 1)]
        for mean, raw, over in zip(self.halves, raws, self.spans[symbol]):
            mean.add(_figures(raw, self.capital, over))
        inside, over = raws[0], self.spans[symbol][0]
        if not over.sessions:
            return
        for period in self.periods:
            if (sessions := int(over.count_M[period].sum())) >= 2:
                ratio = sharpe(inside.moment_CMK[:, period, :2].sum(axis=1), sessions) * np.sqrt(over.year)
                self.ratio.add(np.nan_to_num(ratio))
        self.trades.add(figures(inside, self.capital, 1, 2, over.year)["trades"])
        self.moment.add(inside.moment_CMK)

    def counted(self, code_CP: Array) -> Counted:
        score = np.where(self.trades.value() >= self.least, self.ratio.value(), -np.inf)
        return Counted(code_CP, score, self.moment.value(), *(half.value() for half in self.halves))


def _figures(raw: Raw, capital: int, over: Span) -> Array:
    """Return the figures of a half, (F, C); NaN where the symbol has no sessions."""
    out = figures(raw, capital, over.stop - over.start, over.sessions, over.year)
    table = np.stack([out[name] for name in FIGURES]).astype(np.float64)
    return table if over.sessions else np.full_like(table, np.nan)
