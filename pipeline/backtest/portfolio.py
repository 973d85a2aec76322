"""From scores to target weights: who is held after which close, and the threshold that a time-series portfolio holds
above.

Shapes: T sessions, S symbols.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .kernel import RATE, Bools, Floats, Ints, Ledger, Longs, simulate
from .market import Market
from .section import FEW_SYMBOLS, BacktestSection

DECILES = tuple(q / 10 for q in range(1, 10))


class Targets(NamedTuple):
    """Hold what is wanted after each close.

    weight_TS : (T, S) float64, shares of equity; order_TS : (T, S) int32, best score first, ties by symbol;
    decide_T : (T,) bool, sessions that end with a decision.
    """

    weight_TS: Floats
    order_TS: Ints
    decide_T: Bools


class Threshold(NamedTuple):
    """Hold the score above which a symbol is held, and how it was found: the tried value and the equity that it would
    have ended with.
    """

    value: float
    tried: tuple[tuple[float, int], ...]
    why: str


def resolved_mode(section: BacktestSection, symbols: int) -> str:
    """Return "top_k" or "time_series" for a universe of that many symbols."""
    if section.mode != "auto":
        return section.mode
    return "time_series" if symbols < FEW_SYMBOLS else "top_k"


def decisions(score_TS: Floats, every: int) -> Bools:
    """Return the sessions that end with a decision: every n-th from the first, unless it has no score or no session
    follows.
    """
    T = len(score_TS)
    decide_T = np.zeros(T, bool)
    decide_T[: T - 1 : every] = True
    decide_T[T - 1 :] = False
    return decide_T & np.isfinite(score_TS).any(axis=1)


def top_k(score_TS: Floats, k: int, every: int) -> Targets:
    """Want 1/k of equity in each of the k best scores; with fewer than k scores the rest stays cash. NaN = not
    eligible.
    """
    decide_T = decisions(score_TS, every)
    order_TS = _ranked(score_TS, decide_T)
    weight_TS = np.zeros_like(score_TS)
    for t in np.flatnonzero(decide_T):
        best = order_TS[t, :k]
        weight_TS[t, best] = np.where(np.isfinite(score_TS[t, best]), 1.0 / k, 0.0)
    return Targets(weight_TS, order_TS, decide_T)


def sleeves(score_TS: Floats, known_S: Bools) -> Longs:
    """Return into how many parts equity is cut after each close, (T,): the symbols that had a score up to then, those
    known before the first session included.
    """
    seen_TS = known_S | np.logical_or.accumulate(np.isfinite(score_TS), axis=0)
    return np.asarray(np.maximum(seen_TS.sum(axis=1), 1), np.int64)


def above(score_TS: Floats, threshold: float, sleeves_T: Longs, every: int) -> Targets:
    """Want one sleeve of equity in each symbol whose score is above the threshold. NaN = not held."""
    with np.errstate(invalid="ignore"):
        weight_TS = np.where(score_TS > threshold, 1.0 / sleeves_T[:, None], 0.0)
    decide_T = decisions(score_TS, every)
    return Targets(weight_TS, _ranked(score_TS, decide_T), decide_T)


def trade(market: Market, targets: Targets, section: BacktestSection) -> Ledger:
    """Run the engine over a market."""
    return simulate(
        buy_TS=market.buy_TS,
        sell_TS=market.sell_TS,
        room_TS=market.room_TS,
        close_TS=market.close_TS,
        factor_TS=market.factor_TS,
        tax_TS=market.tax_TS,
        weight_TS=targets.weight_TS,
        order_TS=targets.order_TS,
        decide_T=targets.decide_T,
        delist_S=market.delist_S,
        last_S=market.last_S,
        capital=section.capital,
        commission_rate=round(section.commission_bp * RATE / 10_000),
    )


def fit_threshold(market: Market, score_TS: Floats, section: BacktestSection) -> Threshold:
    """Try the deciles of the validation scores with the same engine and costs, and take the one that ends with the
    most money.

    market, score_TS : the validation sessions, which end before the traded ones begin. Ties take the higher
    threshold, which trades less. Fewer than 20 sessions or scores decide nothing: the threshold is then the median
    score, or 0 without any.
    """
    known = score_TS[np.isfinite(score_TS)]
    if len(score_TS) < 20 or known.size < 20:
        middle = float(np.median(known)) if known.size else 0.0
        return Threshold(
            middle,
            (),
            f"validation has {len(score_TS)} sessions and {known.size} scores, fewer than 20: their median is used",
        )
    tried = []
    sleeves_T = sleeves(score_TS, np.zeros(score_TS.shape[1], bool))
    for value in np.unique(np.quantile(known, DECILES)):
        ledger = trade(market, above(score_TS, float(value), sleeves_T, section.rebalance), section)
        tried.append((float(value), int(ledger.equity_T[-1])))
    best = max(tried, key=lambda pair: (pair[1], pair[0]))
    return Threshold(
        best[0],
        tuple(tried),
        f"most money at the end of {len(score_TS)} validation sessions, of {len(tried)} values tried",
    )


def benchmark(market: Market, capital: int) -> Floats:
    """Return what an equal-weight portfolio of all symbols is worth after each close, rebalanced daily, without costs.

    (T,) float64 KRW, `capital` after the first close. Returns are adjusted for corporate actions and carried over
    halts (zero); a symbol counts from its second close to its delisting.
    """
    price_TS, base_TS = market.carried_TS, market.base_TS
    alive_TS = np.arange(len(price_TS))[:, None] <= market.delist_S[None, :]
    known_TS = np.isfinite(base_TS) & np.isfinite(price_TS) & alive_TS
    with np.errstate(invalid="ignore", divide="ignore"):
        return_TS = np.where(known_TS, price_TS / base_TS - 1.0, 0.0)
    mean_T = return_TS.sum(axis=1) / np.maximum(known_TS.sum(axis=1), 1)
    mean_T[0] = 0.0
    return np.asarray(capital * np.cumprod(1.0 + mean_T), np.float64)


def _ranked(score_TS: Floats, decide_T: Bools) -> Ints:
    """Return, for sessions with a decision, symbols by falling score, ties by symbol, NaN last; zeros elsewhere."""
    out = np.zeros(score_TS.shape, np.int32)
    out[decide_T] = np.argsort(-score_TS[decide_T], axis=1, kind="stable")  # argsort puts NaN last
    return out
