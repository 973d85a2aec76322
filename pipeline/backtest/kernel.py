"""The portfolio engine: one loop over sessions that keeps cash and shares to the won.

The only file of the backtest that knows Numba. Everything that needs a calendar, a tick table or a tax law arrives as
a matrix, so the loop holds nothing but the order of events. The rules are written out in docs/order-semantics.md.

Shapes: T sessions, S symbols, N trades.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.extending import register_jitable

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

RATE = 10_000_000  # rates are whole numbers of 1e-7, a thousandth of a basis point
SHARE_GRACE = 1e-9  # 3 * 0.1 / 0.1 is three shares
WON_GRACE = 1e-6  # n * price may lie a hair below a half or whole won

BUY, SELL, DELISTED, FRACTION = 0, 1, 2, 3  # side
ENTRY, REBALANCE, EXIT, GONE, REST = 0, 1, 2, 3, 4  # reason
COLUMNS = ("t", "s", "side", "shares", "value", "commission", "tax", "reason", "realised", "left")


class Ledger(NamedTuple):
    """What the engine leaves: one row a session, one row a trade; money in KRW.

    equity_T, cash_T, gross_T : (T,) int64 after the close; traded_T, commission_T, tax_T : (T,) int64 during the
    session; positions_T : (T,) int64; trades_NC : (N, 10) int64, see COLUMNS; price_N : (N,) float64 KRW a share.
    """

    equity_T: Longs
    cash_T: Longs
    gross_T: Longs
    traded_T: Longs
    commission_T: Longs
    tax_T: Longs
    positions_T: Longs
    trades_NC: Longs
    price_N: Floats


def won(amount: float) -> int:
    """Round to whole won, half up."""
    return math.floor(amount + 0.5 + WON_GRACE)


def fee(value: int, rate: int) -> int:
    """Return value * rate / RATE truncated to whole won, exact for any int64 value."""
    return (value // RATE) * rate + (value % RATE) * rate // RATE


def affordable(cash: int, price: float, rate: int) -> int:
    """Return the most shares whose value and commission `cash` pays for."""
    n = int((cash + 2) / (price * (1.0 + rate / RATE))) + 1
    while n > 0 and won(n * price) + fee(won(n * price), rate) > cash:
        n -= 1
    return n


for _function in (won, fee, affordable):
    register_jitable(_function)


def _simulate(
    buy_TS: Floats,
    sell_TS: Floats,
    room_TS: Longs,
    close_TS: Floats,
    factor_TS: Floats,
    tax_TS: Longs,
    weight_TS: Floats,
    order_TS: Ints,
    decide_T: Bools,
    delist_S: Longs,
    last_S: Floats,
    capital: int,
    commission_rate: int,
) -> Any:
    """Loop over the sessions: corporate actions, sells, buys, delistings, valuation, decision for the next session."""
    T, S = close_TS.shape
    equity_T, cash_T, gross_T = np.zeros(T, np.int64), np.zeros(T, np.int64), np.zeros(T, np.int64)
    traded_T, commission_T, tax_T = np.zeros(T, np.int64), np.zeros(T, np.int64), np.zeros(T, np.int64)
    positions_T = np.zeros(T, np.int64)
    trades_NC, price_N = np.empty((4 * S + 64, 10), np.int64), np.empty(4 * S + 64, np.float64)
    n = 0
    cash = capital
    last = last_S.copy()
    shares, target, basis = np.zeros(S, np.int64), np.zeros(S, np.int64), np.zeros(S, np.int64)
    order = np.arange(S)
    for t in range(T):
        if n + 4 * S > price_N.size:  # no session makes more than four rows a symbol
            more_NC, more_N = np.empty((2 * n + 4 * S, 10), np.int64), np.empty(2 * n + 4 * S, np.float64)
            more_NC[:n], more_N[:n] = trades_NC[:n], price_N[:n]
            trades_NC, price_N = more_NC, more_N

        for s in range(S):
            factor = factor_TS[t, s]
            if factor == 1.0:
                continue
            last[s] = last[s] / factor
            target[s] = math.floor(target[s] * factor + SHARE_GRACE)
            if shares[s] > 0:
                exact = shares[s] * factor
                whole = math.floor(exact + SHARE_GRACE)
                paid = math.floor(max(exact - whole, 0.0) * last[s] + WON_GRACE)
                realised = paid - basis[s] if whole == 0 else 0
                basis[s] = 0 if whole == 0 else basis[s] - paid
                shares[s] = whole
                cash += paid
                if paid > 0 or whole == 0:
                    trades_NC[n] = (t, s, FRACTION, 0, paid, 0, 0, REST, realised, whole)
                    price_N[n] = last[s]
                    n += 1

        for s in range(S):
            price = sell_TS[t, s]
            quantity = min(shares[s] - target[s], room_TS[t, s])
            if quantity <= 0 or not price > 0.0:
                continue
            value = won(quantity * price)
            commission, tax = fee(value, commission_rate), fee(value, tax_TS[t, s])
            cost = (basis[s] // shares[s]) * quantity + (basis[s] % shares[s]) * quantity // shares[s]
            basis[s] -= cost
            shares[s] -= quantity
            cash += value - commission - tax
            traded_T[t] += value
            commission_T[t] += commission
            tax_T[t] += tax
            reason = REBALANCE if target[s] > 0 else EXIT
            trades_NC[n] = (
                t,
                s,
                SELL,
                quantity,
                value,
                commission,
                tax,
                reason,
                value - commission - tax - cost,
                shares[s],
            )
            price_N[n] = price
            n += 1

        for i in range(S):
            s = order[i]
            price = buy_TS[t, s]
            quantity = min(target[s] - shares[s], room_TS[t, s])
            if quantity <= 0 or not price > 0.0:
                continue
            quantity = min(quantity, affordable(cash, price, commission_rate))
            if quantity <= 0:
                continue
            value = won(quantity * price)
            commission = fee(value, commission_rate)
            reason = REBALANCE if shares[s] > 0 else ENTRY
            basis[s] += value + commission
            shares[s] += quantity
            cash -= value + commission
            traded_T[t] += value
            commission_T[t] += commission
            trades_NC[n] = (t, s, BUY, quantity, value, commission, 0, reason, 0, shares[s])
            price_N[n] = price
            n += 1

        gross = 0
        for s in range(S):
            if close_TS[t, s] > 0.0:
                last[s] = close_TS[t, s]
            if delist_S[s] == t:
                if shares[s] > 0:
                    value = won(shares[s] * last[s])
                    commission, tax = fee(value, commission_rate), fee(value, tax_TS[t, s])
                    cash += value - commission - tax
                    traded_T[t] += value
                    commission_T[t] += commission
                    tax_T[t] += tax
                    trades_NC[n] = (
                        t,
                        s,
                        DELISTED,
                        shares[s],
                        value,
                        commission,
                        tax,
                        GONE,
                        value - commission - tax - basis[s],
                        0,
                    )
                    price_N[n] = last[s]
                    n += 1
                shares[s], target[s], basis[s] = 0, 0, 0
            if shares[s] > 0:
                gross += won(shares[s] * last[s])
                positions_T[t] += 1
        equity = cash + gross
        equity_T[t], cash_T[t], gross_T[t] = equity, cash, gross

        if decide_T[t]:
            for s in range(S):
                weight = weight_TS[t, s]
                alive = delist_S[s] > t and last[s] > 0.0
                target[s] = math.floor(equity * weight / last[s] + SHARE_GRACE) if alive and weight > 0.0 else 0
                order[s] = order_TS[t, s]
    return (
        equity_T,
        cash_T,
        gross_T,
        traded_T,
        commission_T,
        tax_T,
        positions_T,
        trades_NC[:n].copy(),
        price_N[:n].copy(),
    )


_TYPES = (
    "(float64[:,::1], float64[:,::1], int64[:,::1], float64[:,::1], float64[:,::1], int64[:,::1], float64[:,::1], "
    "int32[:,::1], boolean[::1], int64[::1], float64[::1], int64, int64)"
)
_compiled = njit(_TYPES, nogil=True, cache=True)(_simulate)


def simulate(
    *,
    buy_TS: Floats,
    sell_TS: Floats,
    room_TS: Longs,
    close_TS: Floats,
    factor_TS: Floats,
    tax_TS: Longs,
    weight_TS: Floats,
    order_TS: Ints,
    decide_T: Bools,
    delist_S: Longs,
    last_S: Floats,
    capital: int,
    commission_rate: int,
) -> Ledger:
    """Trade target weights through the sessions and return the ledger, the same bits on every run.

    buy_TS, sell_TS : (T, S) float64 KRW, the price at which an order of session t fills; NaN = cannot be traded on
    that side. room_TS : (T, S) int64, most shares an order may take. close_TS : (T, S) float64 raw KRW, NaN = no bar
    (the last one is carried). factor_TS : (T, S) float64, shares after / shares before on the session of a corporate
    action, else 1. tax_TS : (T, S) int64, sale tax in 1e-7. weight_TS : (T, S) float64, shares of equity wanted after
    the close of t, read where decide_T is true. order_TS : (T, S) int32, the symbols in the order in which they buy.
    delist_S : (S,) int64, session whose close ends the symbol, >= T for never. last_S : (S,) float64 KRW, last close
    before the first session or NaN.

    A decision at t sees closes up to and including t and fills from t + 1 on.
    """
    matrices = (buy_TS, sell_TS, room_TS, close_TS, factor_TS, tax_TS, weight_TS, order_TS)
    shapes = {m.shape for m in matrices} | {(len(decide_T), len(delist_S)), (len(decide_T), len(last_S))}
    if len(shapes) != 1:
        raise ValueError(f"expected one (sessions, symbols) shape for all inputs of the engine, got {sorted(shapes)}")
    flat = (decide_T, delist_S, last_S)
    return Ledger(
        *_compiled(*map(np.ascontiguousarray, matrices), *map(np.ascontiguousarray, flat), capital, commission_rate)
    )
