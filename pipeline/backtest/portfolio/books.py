"""What a ledger says between its lines: shares held after each close, positions from opening to closing, costs by kind.

Shapes: T sessions, S symbols, P positions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..money import SHARE_GRACE, WON_GRACE
from .kernel import COLUMNS, Ledger
from .market import Market
from .orders import GONE

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

T_, S_, SHARES, VALUE, REASON, REALISED, LEFT = (
    COLUMNS.index(name) for name in ("t", "s", "shares", "value", "reason", "realised", "left")
)


class Positions(NamedTuple):
    """Hold closed positions in the order in which they ended, (P,) int64: symbol, session of the first and of the last
    trade, profit after costs in KRW. open_P : the session in which each position that is open at the end began.
    """

    symbol: Longs
    opened: Longs
    closed: Longs
    profit: Longs
    open_P: Longs


def held(ledger: Ledger, market: Market) -> Longs:
    """Return the shares held after each close, (T, S), negative = short."""
    out = np.zeros(market.close_TS.shape, np.int64)
    rows = ledger.trades_NC
    traded = np.zeros(out.shape, bool)
    traded[rows[:, T_], rows[:, S_]] = True
    out[rows[:, T_], rows[:, S_]] = rows[:, LEFT]  # of several trades in a session the last one stays
    acted = (market.factor_TS != 1.0).any(axis=1)
    for t in range(1, len(out)):
        before = out[t - 1]
        if acted[t]:
            exact = np.abs(before) * market.factor_TS[t]
            before = np.sign(before) * np.floor(exact + SHARE_GRACE).astype(np.int64)
        np.copyto(out[t], before, where=~traded[t])
    return out


def values(shares_TS: Longs, market: Market) -> Floats:
    """Return what is held after each close, (T, S) whole won, negative = short; as the ledger counts it."""
    last = np.where(shares_TS != 0, market.carried_TS, 0.0)
    return np.asarray(np.sign(shares_TS) * np.floor(np.abs(shares_TS) * last + 0.5 + WON_GRACE), np.float64)


def positions(ledger: Ledger) -> Positions:
    """Return the positions, each from no shares to no shares of a symbol."""
    rows = ledger.trades_NC
    number = rows[:, S_]
    number = number.astype(np.min_scalar_type(number.max(initial=0)))  # numbers of 16 bits are sorted by their digits
    order = np.argsort(number, kind="stable")
    symbol, session, left = (rows[order, c] for c in (S_, T_, LEFT))
    total = np.concatenate([[0], np.cumsum(rows[order, REALISED])])
    fresh = np.append(True, (symbol[1:] != symbol[:-1]) | (left[:-1] == 0))[: len(order)]
    first = np.flatnonzero(fresh)
    last = np.append(first[1:], len(order))[: len(first)] - 1
    done = left[last] == 0
    first, last, begun = first[done], last[done], session[first[~done]]
    ended = np.full(len(order), -1)
    ended[order[last]] = np.arange(len(last))
    turn = ended[ended >= 0]
    first, last = first[turn], last[turn]
    return Positions(symbol[last], session[first], session[last], total[last + 1] - total[first], begun)


def holding(found: Positions) -> dict[str, Any]:
    """Return how many sessions closed positions were held (mean, quartiles), and how many are still open."""
    sessions = found.closed - found.opened
    if not len(sessions):
        return {"closed": 0, "open": len(found.open_P), "mean": None, "quartiles": None}
    quartiles = np.quantile(sessions, (0.25, 0.5, 0.75))
    return {
        "closed": len(sessions),
        "open": len(found.open_P),
        "mean": float(sessions.mean()),
        "quartiles": [float(q) for q in quartiles],
    }


def ordered(ledger: Ledger) -> npt.NDArray[np.bool_]:
    """Return which trades were orders, (N,): not fractions that were paid, nor what a delisting closed."""
    return np.asarray(ledger.trades_NC[:, REASON] < GONE)


def costs(ledger: Ledger, market: Market, shorts: bool) -> dict[str, int]:
    """Return what trading cost, KRW by kind; of shorts also what borrowing cost. Slippage is the difference from the
    printed price, of orders alone.
    """
    rows, some = ledger.trades_NC, ordered(ledger)
    worse = np.abs(ledger.price_N - market.print_TS[rows[:, T_], rows[:, S_]])[some] * rows[some, SHARES]
    return {
        "commission": int(ledger.commission_T.sum()),
        "tax": int(ledger.tax_T.sum()),
        "slippage": int(np.rint(worse.sum())),
        **({"borrow": int(ledger.borrow_T.sum())} if shorts else {}),
    }


def cost_shares(spent: dict[str, int], ledger: Ledger, year: int) -> dict[str, dict[str, float]]:
    """Return each kind of cost in bp of what was traded and as a share of mean equity a year of `year` sessions."""
    traded, equity = float(ledger.traded_T.sum()), float(ledger.equity_T.mean())
    years = len(ledger.equity_T) / year
    return {
        kind: {
            "bp_of_traded": 1e4 * paid / traded if traded > 0 else 0.0,
            "a_year": paid / equity / years if equity > 0 else 0.0,
        }
        for kind, paid in spent.items()
    }
