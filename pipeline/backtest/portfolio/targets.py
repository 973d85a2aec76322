"""From scores to target weights, and from these to a ledger: what is wanted after which close, and what came of it.

Shapes: T sessions, S symbols, D decisions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..money import RATE
from ..section import FEW_SYMBOLS, BacktestSection
from . import selection
from .kernel import Bools, Ledger, simulate
from .market import Market
from .orders import Floats, Ints, Longs
from .schedule import decisions, due
from .threshold import Threshold, fit
from .weights import volatility, weigh


class Targets(NamedTuple):
    """Hold what is wanted after each close.

    weight_TS : (T, S) float64, shares of equity, negative = short, NaN = what was wanted stays wanted; order_TS : (T,
    S) int32, best score first, ties by symbol; decide_T : (T,) bool, sessions that end with a decision. Rows without a
    decision are zero.
    """

    weight_TS: Floats
    order_TS: Ints
    decide_T: Bools


def resolved_mode(section: BacktestSection, symbols: int) -> str:
    """Return the mode for a universe of that many symbols."""
    if section.mode != "auto":
        return section.mode
    return "time_series" if symbols < FEW_SYMBOLS else "top_k"


def sleeves(score_TS: Floats, known_S: Bools) -> Longs:
    """Return into how many parts equity is cut after each close, (T,): the symbols that had a score up to then, those
    known before the first session included.
    """
    seen_TS = known_S | np.logical_or.accumulate(np.isfinite(score_TS), axis=0)
    return np.asarray(np.maximum(seen_TS.sum(axis=1), 1), np.int64)


def wanted(
    market: Market,
    score_TS: Floats,
    section: BacktestSection,
    mode: str,
    *,
    upper: float = 0.0,
    lower: float = np.nan,
    sleeves_T: Longs | None = None,
) -> Targets:
    """Return what scores want of a market by a mode's rules (not auto); NaN = no score, not eligible.

    upper, lower, sleeves_T : for time_series, the scores above which a symbol is held and below which it is held short
    (NaN = no shorts), and `sleeves`; without these nobody was known before the first session. A row sees scores and
    closes up to its own session.
    """
    decide_T = decisions(score_TS, due(section.rebalance, market.ts_T, market.venue))
    rows_D = np.flatnonzero(decide_T)
    score_DS = score_TS[rows_D]
    order_DS = selection.ranked(score_DS)
    place_DS = selection.places(order_DS)
    shorts = section.direction == "long_short"
    if mode == "top_k":
        choice = selection.top_k(score_DS, place_DS, section.k, shorts)
    elif mode == "quantile":
        choice = selection.quantile(score_DS, place_DS, section.quantiles, section.quantiles_held, shorts)
    elif mode == "drop_out":
        alive_DS = rows_D[:, None] < market.delist_S
        choice = selection.drop_out(score_DS, alive_DS, section.k, section.drop, shorts)
    else:
        parts_T = sleeves(score_TS, np.zeros(score_TS.shape[1], bool)) if sleeves_T is None else sleeves_T
        choice = selection.beyond(score_DS, upper, lower, parts_T[rows_D])
    volatility_DS = score_DS
    if section.weights == "inverse_volatility":
        volatility_DS = volatility(market.past_VS, market.return_TS, rows_D, section.volatility_window)
    weight_TS, order_TS = np.zeros(score_TS.shape), np.zeros(score_TS.shape, np.int32)
    weight_TS[rows_D] = weigh(section.weights, choice, score_DS, place_DS, volatility_DS, section.max_weight)
    order_TS[rows_D] = order_DS
    return Targets(weight_TS, order_TS, decide_T)


def trade(market: Market, targets: Targets, section: BacktestSection) -> Ledger:
    """Run the engine over a market."""
    day_T = market.day_T.astype(np.int64)
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
        shortable_T=market.shortable_T,
        nights_T=np.diff(day_T, prepend=day_T[:1]),
        delist_S=market.delist_S,
        last_S=market.last_S,
        capital=section.capital,
        commission_rate=round(section.commission_bp * RATE / 10_000),
        borrow_rate=round(section.borrow_bp * RATE / 10_000),
    )


def fit_threshold(market: Market, score_TS: Floats, section: BacktestSection) -> Threshold:
    """Fit the threshold of a time-series portfolio with the same engine and costs, see `threshold.fit`.

    market, score_TS : the validation sessions, which end before the traded ones begin.
    """

    def outcome(upper: float, lower: float) -> int:
        targets = wanted(market, score_TS, section, "time_series", upper=upper, lower=lower)
        return int(trade(market, targets, section).equity_T[-1])

    return fit(score_TS, section.direction == "long_short", outcome)
