"""Which symbols have bars to trade in some days."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from pipeline.strategies.declare import Strategy, StrategyError

from .chunks import Span, span
from .instrument import Instrument

NAMED = 5  # symbols that a warning names


def present(
    found: Sequence[Instrument], strategy: Strategy, first: Any, last: Any
) -> tuple[list[Instrument], list[Span]]:
    """Return the instruments with at least two bars to trade in the days, and the span of each, see `span`.

    One warning names the others: symbols are listed and delisted within any range of days. Raises StrategyError where
    none is left.
    """
    there: list[Instrument] = []
    spans: list[Span] = []
    absent: list[tuple[str, StrategyError]] = []
    for each in found:
        try:
            spans.append(span(each, strategy, first, last))
        except StrategyError as error:
            absent.append((each.symbol, error))
        else:
            there.append(each)
    if not there:
        raise absent[0][1]
    if absent:
        named = ", ".join(symbol for symbol, _ in absent[:NAMED])
        more = f" and {len(absent) - NAMED:,} more" if len(absent) > NAMED else ""
        warnings.warn(
            f"{len(absent):,} of {len(found):,} symbols are left out, which have fewer than two bars to trade in these "
            f"days: {named}{more}; widen the range of days or drop them",
            stacklevel=3,
        )
    return there, spans
