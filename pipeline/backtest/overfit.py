"""How much of a Sharpe ratio is left once it is known how short the record is, how its returns are spread and how many
combinations were tried before it was chosen.

Everything is in terms of one session: returns of a session, Sharpe ratio = mean / sd (ddof 1) of them, risk-free rate
zero. Sums of powers of the returns are enough, so that a search keeps five numbers a combination and no curves.

Shapes: T observations, C trials (combinations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from .cscv import FLAT
from .metrics import LEAST_FOR_YEAR, Sheet

Floats = npt.NDArray[np.float64]

LEAST = LEAST_FOR_YEAR  # returns below which skewness and kurtosis say nothing
LEAST_TRIALS = 10  # Sharpe ratios below which their variance says nothing
DRAWS = 1000  # of the best by chance: its mean is known to 0.02 standard deviations
CONFIDENCE = 0.95
# PBO at most 5 % is the paper's level; noise has 50 %, and single searches without any skill go down to 40 %.
PBO_LOW, PBO_HIGH = 0.05, 0.4
SIZE = 1 << 22  # numbers of a chunk of trials


@dataclass(frozen=True)
class Moments:
    """Describe n returns: Sharpe ratio of one session, skewness, kurtosis (3 = normal); NaN where they do not vary.

    Skewness g1 and kurtosis g2 are those of the sample (population formulas): kurtosis >= 1 + skewness^2 holds for
    them, which keeps the variance of the Sharpe ratio from becoming negative. Bias-corrected ones break it.
    """

    n: int
    sharpe: float
    skewness: float
    kurtosis: float

    @property
    def spread(self) -> float:
        """Return n - 1 times the variance of the Sharpe ratio: 1 - g1 SR + (g2 - 1) / 4 SR^2 (Mertens 2002)."""
        return 1 - self.skewness * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2


def moments(n: int, sums: Sequence[float]) -> Moments:
    """Return the moments of n returns from the sums of r, r^2, r^3 and r^4."""
    if n < 2:
        return Moments(n, math.nan, math.nan, math.nan)
    m1, m2, m3, m4 = (float(s) / n for s in sums)
    variance = m2 - m1 * m1
    if not variance > FLAT * m2:
        return Moments(n, math.nan, math.nan, math.nan)
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1 * m1 * m2 - 3 * m1**4
    return Moments(n, m1 / math.sqrt(variance * n / (n - 1)), third / variance**1.5, fourth / variance**2)


def probabilistic_sharpe(found: Moments, benchmark: float = 0.0) -> float:
    """Return P(true Sharpe ratio > benchmark) = Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g1 SR + (g2 - 1) / 4 SR^2)).

    Bailey and Lopez de Prado, "The Sharpe ratio efficient frontier" (Journal of Risk 15(2), 2012). NaN where returns do
    not vary, or take two values only, at which the ratio has no spread.
    """
    if not found.spread > FLAT:
        return math.nan
    return float(ndtr((found.sharpe - benchmark) * math.sqrt((found.n - 1) / found.spread)))


def minimum_track_record(found: Moments, benchmark: float = 0.0, confidence: float = CONFIDENCE) -> float:
    """Return the returns that it takes to say SR > benchmark: 1 + (1 - g1 SR + (g2 - 1) / 4 SR^2) (z / (SR - SR*))^2.

    The same paper. Infinite where SR <= SR*.
    """
    if found.sharpe <= benchmark:
        return math.inf
    return 1 + found.spread * float(ndtri(confidence) / (found.sharpe - benchmark)) ** 2


def expected_maximum(trials: float, variance: float) -> float:
    """Return the Sharpe ratio that the best of independent trials without skill is expected to have.

    sqrt(V) ((1 - g) Phi^-1(1 - 1 / N) + g Phi^-1(1 - 1 / (N e))), g = 0.5772...: Bailey and Lopez de Prado, "The
    deflated Sharpe ratio" (Journal of Portfolio Management 40(5), 2014); variance V of all trials' Sharpe ratios,
    their mean taken as zero. One trial: zero. A count between one and two is no less than zero.
    """
    if trials <= 1:
        return 0.0
    upper = -(1 - np.euler_gamma) * ndtri(1 / trials) - np.euler_gamma * ndtri(1 / (trials * math.e))
    return math.sqrt(variance) * max(float(upper), 0.0)


def independent_trials(returns_TC: npt.NDArray[np.floating[Any]], seed: int = 0) -> float:
    """Return how many independent trials have a best that stands out as far as the best of these is expected to.

    returns_TC : (T, C) returns, or sums of them over T blocks of sessions; T >= 60 and C >= 2. Columns that do not vary
    or are not finite are left out. NaN where too little is left. Takes T x C x 0.1 us.

    N solves sqrt(V) f(N) = E max(z_c - mean z) with z ~ normal(0, the trials' correlations), which is drawn as random
    sums of the standardised returns (DRAWS of them), V = E var(z) and f as in `expected_maximum`: what the best gains
    by chance, as in the reality check of White (Econometrica 68, 2000), in terms of that formula. Numbers from the
    correlations alone say too little or too much: the average correlation (the appendix of Bailey and Lopez de Prado
    2014) takes twins for different trials; participation ratios of eigenvalues and numbers of clusters take a fine grid
    for a few trials, though its best gains nearly as much as that of many.
    """
    x_TC = np.asarray(returns_TC)
    rows = len(x_TC)
    if rows < LEAST:
        return math.nan
    weights_DT = np.random.default_rng(seed).standard_normal((DRAWS, rows)) / math.sqrt(rows - 1)
    step, count = max(SIZE // max(rows, DRAWS), 1), 0
    best_D, sum_D, squares_D = np.full(DRAWS, -np.inf), np.zeros(DRAWS), np.zeros(DRAWS)
    for start in range(0, x_TC.shape[1], step):
        z_DK = weights_DT @ _standard(x_TC[:, start : start + step])
        count += z_DK.shape[1]
        best_D = np.maximum(best_D, z_DK.max(1, initial=-np.inf))
        sum_D, squares_D = sum_D + z_DK.sum(1), squares_D + (z_DK**2).sum(1)
    if count < 2:
        return math.nan
    variance = float(np.mean(squares_D - sum_D**2 / count)) / (count - 1)
    if variance <= FLAT:
        return 1.0  # all the same
    return _trials_for(float(np.mean(best_D - sum_D / count)) / math.sqrt(variance), count)


def _trials_for(best: float, most: float) -> float:
    """Return the number of trials, 1 to `most`, whose best is expected at `best` standard deviations."""
    low, high = 0.0, math.log(most)
    if best >= expected_maximum(most, 1.0):
        return float(most)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_maximum(math.exp(middle), 1.0) < best else (low, middle)
    return math.exp(high)


def _standard(returns_TK: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return columns less their means over their standard deviations, without those that do not vary."""
    x_TK = np.asarray(returns_TK, np.float64)
    x_TK = x_TK[:, np.isfinite(x_TK).all(0)]
    z_TK = x_TK - x_TK.mean(0)
    scale_K = np.sqrt((z_TK**2).sum(0) / (len(x_TK) - 1))
    keep_K = scale_K**2 > FLAT * (x_TK**2).mean(0)
    return np.asarray(z_TK[:, keep_K] / scale_K[keep_K], np.float64)


def deflated(
    n: int, sums: Sequence[float], trials: int, variance: float | None, independent: float | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what is left of the chosen trial's Sharpe ratio, and the reasons for numbers that are None.

    n, sums : its returns, as for `moments`. trials : ALL that were tried, those that failed, never traded or were
    thrown away among them. variance : of the Sharpe ratios (of one session) of all that have one; None = unknown; not
    needed for one trial. independent : see `independent_trials`.

    probabilistic_sharpe, minimum_track_record : against zero. expected_maximum, deflated_sharpe = probabilistic_sharpe
    against it: with every trial counted as independent, which never says too much. With _independent behind the name:
    with the effective number.
    """
    sheet = Sheet()
    found = moments(n, sums)
    sheet.values |= {"returns": n, "trials": trials}
    known = n >= LEAST and math.isfinite(found.sharpe)
    why = "returns do not vary" if n >= LEAST else f"needs at least {LEAST} returns, got {n}"
    for name in ("sharpe", "skewness", "kurtosis"):
        sheet.put(name, getattr(found, name) if known else None, why)
    two = why if not known else "returns take two values only"
    sheet.put("probabilistic_sharpe", probabilistic_sharpe(found) if known else None, two)
    length = minimum_track_record(found) if known else None
    sheet.put("minimum_track_record", length, why if not known else "the Sharpe ratio is not above zero")
    sheet.put("independent_trials", independent, "the correlations of the trials are not known")
    told = trials == 1 or (trials >= LEAST_TRIALS and variance is not None and math.isfinite(variance))
    few = f"needs the variance of at least {LEAST_TRIALS} Sharpe ratios, got {trials} trials and {variance} for it"
    for end, count in (("", float(trials)), ("_independent", sheet.values["independent_trials"])):
        hurdle = expected_maximum(count, variance or 0.0) if told and count is not None else None
        less = few if not told else sheet.reasons.get("independent_trials", "")
        sheet.put(f"expected_maximum{end}", hurdle, less)
        chance = probabilistic_sharpe(found, hurdle) if known and hurdle is not None else None
        sheet.put(f"deflated_sharpe{end}", chance, two if hurdle is not None else less)
    return sheet.values, sheet.reasons


def judgement(numbers: Mapping[str, Any], year: int = 252) -> list[tuple[str, dict[str, str]]]:
    """Return what the numbers of `deflated` and `overfitting`, in one mapping, mean: keys of the report's words with
    their values, the verdict first. Numbers that are None or absent are not spoken of. year : sessions of one.
    """
    chance, pbo = numbers.get("deflated_sharpe"), numbers.get("pbo")
    if chance is None or pbo is None:
        verdict = "unknown"
    elif chance >= CONFIDENCE and pbo <= PBO_LOW:
        verdict = "evidence"
    elif chance >= CONFIDENCE and pbo >= PBO_HIGH:
        verdict = "any"  # all of them earn: which one is chosen does not matter
    elif chance < 0.5 or pbo >= PBO_HIGH:
        verdict = "none"
    else:
        verdict = "weak"
    out: list[tuple[str, dict[str, str]]] = [(f"o.verdict.{verdict}", {})]
    sharpe, hurdle = numbers.get("sharpe"), numbers.get("expected_maximum")
    if sharpe is not None and hurdle is not None and numbers["trials"] > 1:
        scale = math.sqrt(year)
        said = {"trials": f"{numbers['trials']:,}", "sharpe": _signed(sharpe * scale), "best": _signed(hurdle * scale)}
        out.append(("o.trials.above" if sharpe > hurdle else "o.trials.below", said))
    if chance is not None:
        out.append(("o.deflated.clear" if chance >= CONFIDENCE else "o.deflated.unclear", {"chance": _percent(chance)}))
    needed = numbers.get("minimum_track_record")
    if needed is not None and needed > numbers["returns"]:
        out.append(("o.record.short", {"needed": f"{math.ceil(needed):,}", "returns": f"{numbers['returns']:,}"}))
    if pbo is not None:
        level = "low" if pbo <= PBO_LOW else "high" if pbo >= PBO_HIGH else "some"
        out.append((f"o.pbo.{level}", {"pbo": _percent(pbo), "splits": f"{numbers['splits']:,}"}))
        out.append(("o.loss", {"loss": _percent(numbers["loss"])}))
    slope = numbers.get("slope")
    if slope is not None and slope <= 0:
        out.append(("o.slope", {"slope": _signed(slope)}))
    return out


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
