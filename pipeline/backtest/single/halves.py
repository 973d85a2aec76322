"""The days in which combinations are chosen and those that judge them, the same for all symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.strategies.declare import Strategy, StrategyError

from .. import cscv
from ..metrics import sessions_a_year
from .chunks import Span, span
from .event import NO_SHORT
from .instrument import Instrument
from .section import MetaSection


class Halves(NamedTuple):
    """Hold the bars of each symbol in which combinations are chosen (inside) and those after them (outside), without a
    bar where it has no two; cut : the first day of the outside.
    """

    spans: list[tuple[Span, Span]]
    cut: Any

    def days(self, found: Sequence[Instrument]) -> tuple[tuple[str, str, str, str], ...]:
        """Return the first and the last day inside and outside of each symbol; empty where it has no sessions."""
        return tuple((*_days(each, a), *_days(each, b)) for each, (a, b) in zip(found, self.spans))

    def banned(self, found: Sequence[Instrument]) -> float:
        """Return the share of the traded bars, of all symbols, on which nobody might sell short."""
        flags = [each.flag_T[over.start : over.stop] for each, both in zip(found, self.spans) for over in both]
        return float(np.mean((np.concatenate(flags) & NO_SHORT) > 0))


def halves_of(found: Sequence[Instrument], strategy: Strategy, section: MetaSection, first: Any, last: Any) -> Halves:
    """Cut the days first..last of all symbols in two.

    One day parts the halves of all symbols, and blocks begin on the same days: else what judges a symbol of long
    standing would be the time in which a younger one has chosen. Raises StrategyError where a half has no session.
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
    return Halves(out, days[cut])


def _days(each: Instrument, over: Span) -> tuple[str, str]:
    return (str(each.day_T[over.start]), str(each.day_T[over.stop - 1])) if over.sessions else ("", "")
