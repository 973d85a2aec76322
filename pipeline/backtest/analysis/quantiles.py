"""Quantiles of scores: what each earned, how far the best lies above the worst, how often names move between them.

A quantile is decided by the scores of a session alone; what could not be bought afterwards drops out of its mean, never
out of its members. Returns are those of forward.py: from the fill after the decision, before costs.

Shapes: T sessions, S symbols, Q quantiles (0 = the lowest scores).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.metrics import newey_west_t

from .ordering import Matrix, ranks

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Places = npt.NDArray[np.int8]

QUANTILES = 10
WINDOWS = 5  # spans without overlap below which no t statistic is given


class Earned(NamedTuple):
    """Hold what quantiles earned: mean_TQ : (T, Q) float64, equal weights, NaN = nobody; n_TQ : (T, Q) int64, names."""

    mean_TQ: Floats
    n_TQ: Longs

    @property
    def spread_T(self) -> Floats:
        """Return the mean of the highest quantile less that of the lowest, (T,)."""
        return np.asarray(self.mean_TQ[:, -1] - self.mean_TQ[:, 0], np.float64)


def quantiles(score_TS: Matrix, parts: int = QUANTILES, *, threads: int = 1) -> Places:
    """Return the quantile of each score within its session, (T, S) int8, -1 = no score or fewer scores than parts;
    equal scores share one. The same cut as training.metrics.deciles.
    """
    if not 2 <= parts <= 100:
        raise ValueError(f"expected 2 to 100 quantiles, got {parts}")
    rank_TS = ranks(score_TS, threads=threads)
    n_T = np.isfinite(rank_TS).sum(axis=1)
    with np.errstate(invalid="ignore"):
        place_TS = (rank_TS - 0.5) * parts / np.maximum(n_T, 1)[:, None]
    known_TS = np.isfinite(rank_TS) & (n_T >= parts)[:, None]
    return np.where(known_TS, np.minimum(np.where(known_TS, place_TS, 0.0), parts - 1), -1).astype(np.int8)


def earned(quantile_TS: Places, y_TS: Floats, parts: int = QUANTILES) -> Earned:
    """Return the mean return of each quantile in each session; y_TS : (T, S), NaN = not possible or not known."""
    T = len(quantile_TS)
    t, s = np.nonzero((quantile_TS >= 0) & np.isfinite(y_TS))
    key = t * parts + quantile_TS[t, s]
    n = np.bincount(key, minlength=T * parts).reshape(T, parts)
    total = np.bincount(key, y_TS[t, s], T * parts).reshape(T, parts)
    return Earned(np.where(n > 0, total / np.maximum(n, 1), np.nan), n)


def summary(found: Earned, horizon: int, *, every: int = 1) -> dict[str, Any]:
    """Return what the quantiles earned over `horizon` sessions: `mean` a quantile (sessions counting alike), the
    `spread` of best less worst with its t statistic, `monotonicity`, `sessions` with a spread. every : sessions from
    one row of `found` to the next.

    t : Newey and West 1987 with lag horizon / every - 1, since returns of h rows overlap h - 1 (Hansen and Hodrick
    1980).
    monotonicity : Spearman's correlation between the quantiles' numbers and their means; 1 = each earns more than the
    one below. None where it cannot be known: a t takes 5 spans that do not overlap.
    """
    known = np.isfinite(found.mean_TQ)
    count_Q = known.sum(axis=0)
    mean_Q = np.where(count_Q > 0, np.where(known, found.mean_TQ, 0.0).sum(axis=0) / np.maximum(count_Q, 1), np.nan)
    spread = found.spread_T[np.isfinite(found.spread_T)]
    rows = -(-horizon // every)
    t = newey_west_t(spread, rows - 1) if len(spread) >= WINDOWS * rows else np.nan
    return {
        "horizon": horizon,
        "mean": [_number(value) for value in mean_Q],
        "names": [_number(value) for value in found.n_TQ.mean(axis=0)],
        "spread": _number(spread.mean()) if len(spread) else None,
        "spread_t": _number(t),
        "monotonicity": _number(monotonicity(mean_Q)),
        "sessions": len(spread),
    }


def monotonicity(mean_Q: Floats) -> float:
    """Return Spearman's correlation between quantiles and their means; NaN where one is not known or all are equal."""
    if not np.isfinite(mean_Q).all() or np.ptp(mean_Q) == 0:
        return float("nan")
    scaled = (mean_Q - mean_Q.min()) / np.ptp(mean_Q)  # ranks compare float32
    rank_Q = ranks(scaled[None])[0]
    return float(np.corrcoef(np.arange(len(mean_Q)), rank_Q)[0, 1])


def curves(found: Earned) -> tuple[Floats, Floats]:
    """Return what one unit in each quantile grew to, (T, Q), and one long the best and short the worst, (T,), formed
    anew every session; `found` is over one session, and a session without a return leaves the value as it is.
    """

    def grown(returns: Floats) -> Floats:
        return np.asarray(np.cumprod(1.0 + np.nan_to_num(returns), axis=0), np.float64)

    return grown(found.mean_TQ), grown(found.spread_T)


def name_turnover(quantile_TS: Places, period: int, parts: int = QUANTILES) -> Floats:
    """Return the share of each quantile's names that were not in it `period` sessions before, mean over sessions, (Q,);
    NaN where no two sessions have names (alphalens.performance.quantile_turnover).
    """
    now, before = quantile_TS[period:], quantile_TS[:-period]
    out = np.full(parts, np.nan)
    for q in range(parts):
        mine = now == q
        size = mine.sum(axis=1)
        held = (size > 0) & (before == q).any(axis=1)
        if held.any():
            out[q] = np.mean((mine & (before != q)).sum(axis=1)[held] / size[held])
    return out


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
