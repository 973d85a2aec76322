"""How long a score knows something: information coefficients by horizon, their half-life, how fast ranks change.

Shapes: T sessions, S symbols, H horizons.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.metrics import newey_west_t

from .forward import Paths
from .ordering import Matrix, coefficients, ranks
from .quantiles import WINDOWS

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

HORIZONS = tuple(range(1, 61))
SURE = 2.0  # |t| of the largest coefficient below which there is nothing that could decay
LIVES = np.geomspace(0.25, 500.0, 800)  # half-lives that are tried, sessions


class Decay(NamedTuple):
    """Hold one row a horizon, (H,): mean coefficients over sessions with one, the standard error of the mean rank IC
    and its t statistic (NaN where too few sessions), sessions.
    """

    horizon: Longs
    ic: Floats
    rank_ic: Floats
    standard_error: Floats
    t: Floats
    sessions: Longs


def decay(
    score_TS: Matrix, found: Paths, horizons: tuple[int, ...] = HORIZONS, *, threads: int = 1
) -> tuple[Decay, Floats]:
    """Return the mean ICs at each horizon, and the rank IC of each session, (H, T), NaN = none.

    Horizon h compares the score of session t with the return from the fill of t + 1 to that of t + 1 + h. Such returns
    overlap in h - 1 sessions, and so the standard error is that of Newey and West 1987 with lag h - 1; it is given from
    5 spans on that do not overlap.
    """
    horizon_H = np.array(horizons, np.int64)
    if not len(horizon_H) or horizon_H.min() < 1:
        raise ValueError(f"expected horizons of at least 1 session, got {horizons}")
    begin_H = np.ones_like(horizon_H)
    ic_HT, rank_HT, _ = coefficients(score_TS, *found, begin_H, begin_H + horizon_H, threads=threads)
    ic, rank, sessions = _mean(ic_HT), _mean(rank_HT), np.isfinite(rank_HT).sum(axis=1)
    t = np.array(
        [newey_west_t(row, h - 1) if n >= WINDOWS * h else np.nan for row, h, n in zip(rank_HT, horizons, sessions)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(np.isfinite(t) & (t != 0), rank / t, np.nan)
    return Decay(horizon_H, ic, rank, error, t, sessions), rank_HT


def half_life(found: Decay) -> float | None:
    """Return after how many sessions a score is worth half as much for one session's return; None where that is not to
    be seen: no coefficient with |t| of at least 2, or a best fit at the edge of what is tried.

    With coefficients a exp(-l k) of single sessions k = 0, 1, ... ahead, and returns of sessions that are alike and not
    correlated, the one over h sessions is a (1 - exp(-l h)) / ((1 - exp(-l)) sqrt(h)) (Qian, Hua and Sorensen,
    Quantitative Equity Portfolio Management, 2007). Fitted to the rank ICs by least squares over a and l.
    """
    ok = np.isfinite(found.rank_ic)
    t = found.t[np.isfinite(found.t)]
    if ok.sum() < 5 or not t.size or np.abs(t).max() < SURE:
        return None
    h, y = found.horizon[ok].astype(np.float64), found.rank_ic[ok]
    rate = np.log(2.0) / LIVES[:, None]
    shape = (1 - np.exp(-rate * h)) / ((1 - np.exp(-rate)) * np.sqrt(h))
    level = (shape @ y) / (shape * shape).sum(axis=1)
    error = ((y - level[:, None] * shape) ** 2).sum(axis=1)
    best = int(np.argmin(error))
    return float(LIVES[best]) if 0 < best < len(LIVES) - 1 else None


def rank_autocorrelation(score_TS: Matrix, lag: int, *, threads: int = 1) -> Floats:
    """Return the correlation of ranks with those `lag` sessions before, (T,), over symbols that have both; NaN = none.

    Near 1 = the order hardly changes, and following it costs little (alphalens, factor_rank_autocorrelation).
    """
    rank_TS = ranks(score_TS, threads=threads)
    out = np.full(len(rank_TS), np.nan)
    if not 0 < lag < len(out):
        return out
    now, before = rank_TS[lag:], rank_TS[:-lag]
    both = np.isfinite(now) & np.isfinite(before)
    n = both.sum(axis=1)
    size = np.maximum(n, 1)

    def centred(x: Floats) -> Floats:
        known = np.where(both, x, 0.0)
        return np.where(both, known - (known.sum(axis=1) / size)[:, None], 0.0)

    a, b = centred(now), centred(before)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    fit = (n >= 3) & (scale > 0)
    out[lag:][fit] = (a * b).sum(axis=1)[fit] / scale[fit]
    return out


def _mean(x_HT: Floats) -> Floats:
    known = np.isfinite(x_HT)
    n = known.sum(axis=1)
    return np.where(n > 0, np.where(known, x_HT, 0.0).sum(axis=1) / np.maximum(n, 1), np.nan)
