"""What is known about a block besides its rows: counts of each symbol, which tell who is left out and why.

facts : {"symbols": names, "counts": {what: one number a symbol}, "last": latest end of a bar in microseconds UTC,
"priced": bars with a price to fill at, "infinite": values that were stored as NaN}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..recurrence import Series

NAMED = 10


def counted(flag_N: Any, series: Series) -> Any:
    """Return for each symbol in how many of its rows the flag is set."""
    before = np.concatenate([[0], np.cumsum(flag_N)])
    return before[series.starts + series.lengths] - before[series.starts]


def some(of: Mapping[str, object]) -> str:
    """Name the first ten symbols with what is known about each."""
    more = f" and {len(of) - NAMED} more" if len(of) > NAMED else ""
    return ", ".join(f"{symbol} ({what})" for symbol, what in sorted(of.items())[:NAMED]) + more


def blank(counts: dict[str, int]) -> list[str]:
    """Return the columns of bars in which a symbol has no value at all; a volume of zero counts as none where all of
    its bars are halts for that reason.
    """
    none = {key.removeprefix("with ") for key, count in counts.items() if key.startswith("with ") and count == 0}
    return sorted(none | ({"volume"} if counts["halted"] == counts["rows"] else set()))


def added(facts: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the counts of each symbol over several facts."""
    out: dict[str, dict[str, int]] = {}
    for one in facts:
        keys, rows = list(one["counts"]), zip(*one["counts"].values())
        for name, counts in zip(one["symbols"], rows):
            known = out.setdefault(name, dict.fromkeys(keys, 0))
            for key, count in zip(keys, counts):
                known[key] += count
    return dict(sorted(out.items()))


def joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a block that is made of two parts."""
    symbols = added([a, b])
    return {
        "last": max(a["last"], b["last"]),
        "symbols": list(symbols),
        "counts": {key: [counts[key] for counts in symbols.values()] for key in a["counts"]},
        "priced": a["priced"] + b["priced"],
        "infinite": a["infinite"] + b["infinite"],
    }
