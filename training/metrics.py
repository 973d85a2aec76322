"""How good scores are: information coefficients by time, and what their mean is worth.

Shapes: N rows, S sections. A section is what is compared at once: one timestamp of a whole market, or a run of
timestamps where there are too few symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Sections:
    """Assign rows to sections.

    code_N : int64 in 0..S-1;  ts_S : int64, last timestamp of each section;  timestamps : how many a section pools
    """

    code_N: NDArray[np.int64]
    ts_S: NDArray[np.int64]
    timestamps: int

    def lags(self, horizon: int) -> int:
        """Return over how many later sections a label of `horizon` bars reaches."""
        return ceil(horizon / self.timestamps)


def make_sections(ts_N: NDArray[np.int64], min_names: int) -> Sections:
    """Cut rows (N,) in any order into sections of k consecutive timestamps.

    k = ceil(min_names / median rows a timestamp). With a market of at least `min_names` symbols k is 1. Where it is
    larger, coefficients compare rows of different times as well: they then measure timing, not only selection.
    """
    if len(ts_N) == 0:
        return Sections(np.empty(0, np.int64), np.empty(0, np.int64), 1)
    stamps, code_N, counts = np.unique(ts_N, return_inverse=True, return_counts=True)
    k = max(1, ceil(min_names / float(np.median(counts))))
    last = np.minimum(np.arange(k - 1, len(stamps) + k - 1, k), len(stamps) - 1)
    return Sections(code_N // k, stamps[last], k)


def average_ranks(values_N: Floats, code_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rank values (N,) from 1 within each code; equal values share the mean of their ranks. No NaN allowed."""
    order = np.lexsort((values_N, code_N))
    value, code = values_N[order], code_N[order]
    n = len(order)
    fresh = np.ones(n, np.bool_)
    fresh[1:] = code[1:] != code[:-1]
    group = np.cumsum(fresh) - 1
    begin = np.flatnonzero(fresh)
    differs = fresh.copy()
    differs[1:] |= value[1:] != value[:-1]
    tie = np.cumsum(differs) - 1
    first = np.flatnonzero(differs)
    last = np.append(first[1:], n) - 1
    ranks = np.empty(n)
    ranks[order] = 0.5 * (first + last)[tie] - begin[group] + 1.0
    return ranks


def correlations(a_N: Floats, b_N: Floats, code_N: NDArray[np.int64], n_codes: int) -> NDArray[np.float64]:
    """Return Pearson's correlation (S,) within each code; NaN below 3 rows or where a or b is constant."""
    n_S = np.bincount(code_N, minlength=n_codes).astype(np.float64)

    def centred(values_N: Floats) -> NDArray[np.float64]:
        wide = values_N.astype(np.float64)
        mean_S = np.bincount(code_N, wide, n_codes) / np.maximum(n_S, 1)
        out: NDArray[np.float64] = wide - mean_S[code_N]
        return out

    a, b = centred(a_N), centred(b_N)
    ab, aa, bb = (np.bincount(code_N, v, n_codes) for v in (a * b, a * a, b * b))
    flat = (n_S < 3) | _constant(a_N, code_N, n_codes) | _constant(b_N, code_N, n_codes) | (aa <= 0) | (bb <= 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: NDArray[np.float64] = np.where(flat, np.nan, np.clip(ab / np.sqrt(aa) / np.sqrt(bb), -1.0, 1.0))
    return out


def _constant(values_N: Floats, code_N: NDArray[np.int64], n_codes: int) -> NDArray[np.bool_]:
    """Say exactly (sums of squares cannot) in which codes all values are the same."""
    some_S = np.zeros(n_codes, values_N.dtype)
    some_S[code_N] = values_N
    varied_S = np.zeros(n_codes, np.bool_)
    varied_S[code_N[values_N != some_S[code_N]]] = True
    return ~varied_S


@dataclass(frozen=True)
class Coefficients:
    """Hold, for each section, Pearson's and Spearman's correlation of scores and labels and the rows that had both."""

    ic_S: NDArray[np.float64]
    rank_ic_S: NDArray[np.float64]
    n_S: NDArray[np.int64]


def information_coefficients(score_N: Floats, y_N: Floats, sections: Sections) -> Coefficients:
    """Compare scores and labels (N,) within each section; rows in which one is NaN are left out.

    IC is Pearson's and rank IC Spearman's correlation with average ranks for ties (Grinold and Kahn, Active Portfolio
    Management).
    """
    ok = np.isfinite(score_N) & np.isfinite(y_N)
    score, y, code, n = score_N[ok], y_N[ok], sections.code_N[ok], len(sections.ts_S)
    return Coefficients(
        ic_S=correlations(score, y, code, n),
        rank_ic_S=correlations(average_ranks(score, code), average_ranks(y, code), code, n),
        n_S=np.bincount(code, minlength=n),
    )


def deciles(score_N: Floats, sections: Sections, parts: int = 10) -> NDArray[np.int64]:
    """Return the tenth (N,) of its section in which each score lies, 0 = the lowest; equal scores share one. A section
    of fewer rows than parts has none: -1. No NaN allowed.
    """
    n_N = np.bincount(sections.code_N, minlength=len(sections.ts_S))[sections.code_N]
    place_N = (average_ranks(score_N, sections.code_N) - 0.5) * parts / np.maximum(n_N, 1)
    return np.where(n_N >= parts, np.minimum(place_N.astype(np.int64), parts - 1), -1)


def decile_means(score_N: Floats, y_N: Floats, sections: Sections) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the mean label of each tenth of scores (10,), sections counting alike, NaN = none, and its rows (10,)."""
    tenth_N, y, code = _in_tenths(score_N, y_N, sections)
    size = len(sections.ts_S)
    key = code * 10 + tenth_N
    count = np.bincount(key, minlength=size * 10).reshape(size, 10)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_SD = np.bincount(key, y, size * 10).reshape(size, 10) / count
    known = np.isfinite(mean_SD)
    total = np.where(known, mean_SD, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / known.sum(axis=0), count.sum(axis=0)


def spread_by_section(score_N: Floats, y_N: Floats, sections: Sections) -> NDArray[np.float64]:
    """Return the mean label of the highest tenth of scores minus that of the lowest (S,), NaN where either is empty."""
    tenth_N, y, code = _in_tenths(score_N, y_N, sections)
    size = len(sections.ts_S)
    ends = []
    for tenth in (9, 0):
        mine = tenth_N == tenth
        with np.errstate(invalid="ignore", divide="ignore"):
            ends.append(np.bincount(code[mine], y[mine], size) / np.bincount(code[mine], minlength=size))
    return ends[0] - ends[1]


def _in_tenths(
    score_N: Floats, y_N: Floats, sections: Sections
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return tenth, label and section of the rows that have a score, a label and a tenth."""
    ok = np.isfinite(score_N) & np.isfinite(y_N)
    known = Sections(sections.code_N[ok], sections.ts_S, sections.timestamps)
    tenth = deciles(score_N[ok], known)
    inside = tenth >= 0
    return tenth[inside], y_N[ok][inside].astype(np.float64), known.code_N[inside]


def newey_west_t(values_S: Floats, lags: int) -> float:
    """Return the t statistic of the mean with autocorrelation up to `lags`; NaN below 3 values or without variance.

    variance = (g_0 + 2 sum_j (1 - j / (lags + 1)) g_j) / n with g_j the j-th autocovariance divided by n (Newey and
    West 1987, Bartlett weights). NaN values are left out first.
    """
    x = np.asarray(values_S, np.float64)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < 3 or np.ptp(x) == 0:
        return float("nan")
    d = x - x.mean()
    variance = float(d @ d) / n
    for j in range(1, min(lags, n - 1) + 1):
        variance += 2.0 * (1.0 - j / (lags + 1.0)) * float(d[j:] @ d[:-j]) / n
    return float(x.mean() / sqrt(variance / n)) if variance > 0 else float("nan")


def summary(coefficients: Coefficients, lags: int) -> dict[str, float | int | None]:
    """Sum up sections by the figures that reports show.

    icir = mean / deviation of the rank IC; t_newey_west is that of its mean; hit_rate = share of sections above zero.
    Figures that cannot be computed are None. n_days counts sections with a rank IC.
    """
    rank = coefficients.rank_ic_S[np.isfinite(coefficients.rank_ic_S)]
    ic = coefficients.ic_S[np.isfinite(coefficients.ic_S)]
    deviation = float(np.std(rank, ddof=1)) if len(rank) > 1 else 0.0
    figures = {
        "mean_ic": float(ic.mean()) if len(ic) else float("nan"),
        "mean_rank_ic": float(rank.mean()) if len(rank) else float("nan"),
        "icir": float(rank.mean()) / deviation if deviation > 0 else float("nan"),
        "t_newey_west": newey_west_t(rank, lags),
        "hit_rate": float((rank > 0).mean()) if len(rank) else float("nan"),
    }
    return {**{k: v if np.isfinite(v) else None for k, v in figures.items()}, "n_days": len(rank)}


def mean_rank_ic(score_N: Floats, y_N: Floats, sections: Sections) -> float:
    """Return the mean rank IC over sections; NaN when no section has one."""
    ok = np.isfinite(score_N) & np.isfinite(y_N)
    code = sections.code_N[ok]
    rank_S = correlations(average_ranks(score_N[ok], code), average_ranks(y_N[ok], code), code, len(sections.ts_S))
    rank_S = rank_S[np.isfinite(rank_S)]
    return float(rank_S.mean()) if len(rank_S) else float("nan")
