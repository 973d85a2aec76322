"""How much money a strategy can take: orders beside what was traded, what more money could not buy, what it would move.

Shapes: T sessions, S symbols, N orders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..money import SHARE_GRACE
from ..portfolio.books import S_, SHARES, T_, VALUE, held, ordered
from ..portfolio.kernel import Ledger
from ..portfolio.market import UNLIMITED, Market
from ..portfolio.targets import Targets, trade
from ..section import BacktestSection

Floats = npt.NDArray[np.float64]

SCALES = (1, 10, 100)
WINDOW = 20  # sessions of the volatility in the impact
LEAST_ORDERS = 20


def capacity(
    market: Market, targets: Targets, section: BacktestSection, ledger: Ledger, scales: tuple[int, ...] = SCALES
) -> dict[str, Any]:
    """Return what the strategy could take.

    `equity` : KRW at which the mean order takes `backtest.participation` of its session's volume, None where volumes or
    orders are too few; `scales` : for each multiple of the capital, from a run of the engine with that much money: the
    share of the wanted value that was not held at the next decision, the mean participation of orders, and what they
    would move prices, in bp of the traded value and a year of equity.
    """
    volatility_TS = volatility(market)
    out = []
    for scale in scales:
        capital = section.capital * scale
        scaled = section.model_copy(update={"capital": capital})
        run = ledger if scale == 1 else trade(market, targets, scaled)
        out.append(
            {
                "scale": scale,
                "capital": capital,
                "unfilled": unfilled(market, targets, run),
                "total_return": float(run.equity_T[-1] / run.equity_T[0] - 1.0),
                **_moved(run, market, volatility_TS, section.participation),
            }
        )
    equity, orders = equity_at_cap(ledger, market)
    why = "" if equity is not None else f"needs {LEAST_ORDERS} orders in sessions with a known volume, got {orders}"
    return {"participation": section.participation, "equity": equity, "why": why, "scales": out}


def equity_at_cap(ledger: Ledger, market: Market) -> tuple[float | None, int]:
    """Return the equity at which the mean order takes the largest share of volume that an order may take, and how many
    orders tell it.

    An order of a strategy grows with equity: with room r (that share of the volume, shares), n shares ordered and
    equity E before the session, it is n / r of the room, n / (r E) a won of equity. The mean over orders reaches one at
    1 / mean(n / (r E)).
    """
    rows, room = _orders(ledger, market)
    before = np.concatenate([ledger.equity_T[:1], ledger.equity_T[:-1]]).astype(np.float64)[rows[:, T_]]
    known = (room > 0) & (before > 0)
    if known.sum() < LEAST_ORDERS:
        return None, int(known.sum())
    return float(1.0 / np.mean(rows[known, SHARES] / (room[known] * before[known]))), int(known.sum())


def unfilled(market: Market, targets: Targets, ledger: Ledger) -> float | None:
    """Return the share of the wanted value that was not held when the next decision came (after the last decision, at
    the end), at the closes of the decisions; None where nothing was wanted.
    """
    decided = np.flatnonzero(targets.decide_T)
    judged = np.append(decided[1:], len(market.ts_T) - 1)
    basis_TS, held_TS = np.cumprod(market.factor_TS, axis=0), held(ledger, market)
    target, since = np.zeros(held_TS.shape[1]), 0
    total = missing = 0.0
    for t, end in zip(decided.tolist(), judged.tolist()):
        close = market.carried_TS[t]
        alive = (market.delist_S > t) & (close > 0)
        weight = np.where(alive, targets.weight_TS[t], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            fresh = np.trunc(np.where(alive, ledger.equity_T[t] * weight / close, 0.0) + np.sign(weight) * SHARE_GRACE)
        target = np.where(np.isnan(weight), np.trunc(target * basis_TS[t] / basis_TS[since]), fresh)
        since = t
        got = held_TS[end] * basis_TS[t] / basis_TS[end]
        got = np.where(np.sign(got) == np.sign(target), np.abs(got), 0.0)
        judgeable = alive & (market.delist_S > end)  # what was paid out is no lack of volume
        total += float((np.abs(target) * close)[judgeable].sum())
        missing += float((np.maximum(np.abs(target) - got, 0.0) * close)[judgeable].sum())
    return missing / total if total > 0 else None


def volatility(market: Market, window: int = WINDOW) -> Floats:
    """Return the deviation of one session's log return over the last `window` returns up to each close, (T, S); NaN
    where fewer are known. Sees closes up to and including t.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.log(market.close_TS / market.base_TS)
    known = np.isfinite(r)
    x = np.where(known, r, 0.0)
    n, total, squares = (_rolling(of, window) for of in (known.astype(np.float64), x, x * x))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (squares - total * total / n) / (n - 1)
        return np.where(n >= window, np.sqrt(np.maximum(variance, 0.0)), np.nan)


def impact_bp(shares: Floats, volume: Floats, deviation: Floats) -> Floats:
    """Return what an order moves the price against itself, bp: 10^4 x deviation x sqrt(shares / volume).

    The square-root law with a factor of one: deviation of a session's return, shares ordered, the session's volume
    (Torre, BARRA Market Impact Model Handbook, 1997; Bouchaud, Farmer and Lillo, How Markets Slowly Digest Changes in
    Supply and Demand, 2009). The factor differs between markets and has not been fitted here.
    """
    return np.asarray(1e4 * deviation * np.sqrt(shares / volume), np.float64)


def _moved(ledger: Ledger, market: Market, volatility_TS: Floats, participation: float) -> dict[str, float | None]:
    """Return the mean participation of orders and their impact; None where volumes are not known."""
    rows, room = _orders(ledger, market)
    at = np.maximum(rows[:, T_] - 1, 0)  # as known when the order was decided
    deviation, volume = volatility_TS[at, rows[:, S_]], room / participation
    known = (room > 0) & np.isfinite(deviation)
    if known.sum() < LEAST_ORDERS:
        return {"mean_participation": None, "impact_bp": None, "impact_a_year": None}
    shares, value = rows[known, SHARES].astype(np.float64), rows[known, VALUE].astype(np.float64)
    moved = impact_bp(shares, volume[known], deviation[known])
    before = np.concatenate([ledger.equity_T[:1], ledger.equity_T[:-1]]).astype(np.float64)[rows[known, T_]]
    lost = np.divide(moved / 1e4 * value, before, out=np.zeros(len(value)), where=before > 0)
    years = max(len(market.ts_T), 1) / 252
    return {
        "mean_participation": float(np.mean(shares / volume[known])),
        "impact_bp": float((moved * value).sum() / value.sum()),
        "impact_a_year": float(lost.sum() / years),
    }


def _orders(ledger: Ledger, market: Market) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the trades that were orders, and the room that each had, shares; 0 = not known."""
    rows = ledger.trades_NC[ordered(ledger)]
    room = market.room_TS[rows[:, T_], rows[:, S_]]
    return rows, np.where(room < UNLIMITED, room, 0).astype(np.float64)


def _rolling(x_TS: Floats, window: int) -> Floats:
    """Return the sum of the last `window` values at each session, fewer at the beginning."""
    total = np.cumsum(x_TS, axis=0)
    total[window:] -= total[:-window].copy()
    return total
