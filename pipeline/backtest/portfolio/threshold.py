"""The score above which a time-series portfolio holds a symbol, fitted on validation sessions by the engine itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DECILES = tuple(q / 10 for q in range(1, 10))
FEW = 20  # sessions, and scores


class Threshold(NamedTuple):
    """Hold the score above which a symbol is held, and how it was found: the tried values and the equity that each
    would have ended with. below : the score below which a symbol is held short, None = no shorts.
    """

    value: float
    tried: tuple[tuple[float, int], ...]
    why: str
    below: float | None = None


def fit(score_TS: Floats, shorts: bool, outcome: Callable[[float, float], int]) -> Threshold:
    """Try the deciles of the validation scores and take the one that ends with the most money.

    score_TS : validation scores, which are known before the traded sessions begin; outcome(upper, lower) : the equity
    that the engine ends those sessions with, NaN = no short. With shorts the deciles from the median up are tried, each
    beside the one as far below the median. Ties take the higher threshold, which trades less. Fewer than 20 sessions or
    scores decide nothing: the threshold is then the median score, or 0 without any.
    """
    known = score_TS[np.isfinite(score_TS)]
    if len(score_TS) < FEW or known.size < FEW:
        middle = float(np.median(known)) if known.size else 0.0
        why = f"validation has {len(score_TS)} sessions and {known.size} scores, fewer than {FEW}: their median is used"
        return Threshold(middle, (), why, middle if shorts else None)
    cuts = np.quantile(known, DECILES)
    pairs = list(zip(cuts[4:], cuts[4::-1])) if shorts else [(cut, np.nan) for cut in cuts]
    tried = [(float(upper), float(lower), outcome(float(upper), float(lower))) for upper, lower in sorted(set(pairs))]
    upper, lower, _ = max(tried, key=lambda one: (one[2], one[0]))
    why = f"most money at the end of {len(score_TS)} validation sessions, of {len(tried)} values tried"
    return Threshold(upper, tuple((one[0], one[2]) for one in tried), why, lower if shorts else None)
