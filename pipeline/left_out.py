"""Which symbols take no part in the features because a column of their bars is empty.

A file without highs, or with a blank volume, is read like any other. What cannot be computed from it is NaN, so the
symbol would be missing from every sample without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .indicators.frame import array_of, on_host
from .recurrence import Series

NAMED = 10


def counted(flag_N: Any, series: Series) -> Any:
    """Return for each symbol in how many of its rows the flag is set."""
    before = np.concatenate([[0], np.cumsum(flag_N)])
    return before[series.starts + series.lengths] - before[series.starts]


def empty_columns(
    bars: Any, halted_N: Any, read: Sequence[str], series: Series, names: Sequence[str]
) -> dict[str, list[str]]:
    """Return the symbols that have no value at all in columns of bars that are read, and these columns.

    A volume of zero counts as none where all bars of the symbol are halts for that reason.
    """
    none = {c: counted(np.isfinite(on_host(array_of(bars[c]))), series) == 0 for c in read}
    none["volume"] = none.get("volume", False) | (counted(halted_N, series) == series.lengths)
    found = {symbol: sorted(c for c, flag_S in none.items() if flag_S[s]) for s, symbol in enumerate(names)}
    return {symbol: columns for symbol, columns in found.items() if columns}


def some(of: Mapping[str, object]) -> str:
    """Name the first ten symbols with what is known about each."""
    more = f" and {len(of) - NAMED} more" if len(of) > NAMED else ""
    return ", ".join(f"{symbol} ({what})" for symbol, what in sorted(of.items())[:NAMED]) + more
