"""The portfolio engine: one loop over sessions that keeps cash and shares to the won.

Everything that needs a calendar, a tick table or a tax law arrives as a matrix, so the loop holds nothing but the order
of events; orders.py says what happens in each of them. The rules are written out in docs/order-semantics.md.

Shapes: T sessions, S symbols, N trades.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.recurrence.compile import compiled

from .orders import (
    CASH,
    EQUITY,
    ROWS,
    SHORTS,
    WAITING,
    Book,
    Floats,
    Ints,
    Log,
    Longs,
    act,
    decide,
    delist,
    extend,
    leave,
    lessen,
    let_go,
    pay_lenders,
    value,
)

Bools = npt.NDArray[np.bool_]

MOST = 4  # rows of a symbol in one session
COLUMNS = ("t", "s", "side", "shares", "value", "commission", "tax", "reason", "realised", "left")


class Ledger(NamedTuple):
    """What the engine leaves: one row a session, one row a trade; money in KRW.

    equity_T, cash_T, gross_T, short_T : (T,) int64 after the close, the value of all positions and of the shorts among
    them: equity = cash + gross - 2 x short. traded_T, commission_T, tax_T, borrow_T : (T,) int64 during the session;
    positions_T : (T,) int64; trades_NC : (N, 10) int64, see COLUMNS; price_N : (N,) float64 KRW a share.
    """

    equity_T: Longs
    cash_T: Longs
    gross_T: Longs
    short_T: Longs
    traded_T: Longs
    commission_T: Longs
    tax_T: Longs
    borrow_T: Longs
    positions_T: Longs
    trades_NC: Longs
    price_N: Floats


def _trade(
    buy_TS: Floats,
    sell_TS: Floats,
    room_TS: Longs,
    close_TS: Floats,
    factor_TS: Floats,
    tax_TS: Longs,
    weight_TS: Floats,
    order_TS: Ints,
    decide_T: Bools,
    shortable_T: Bools,
    nights_T: Longs,
    delist_S: Longs,
    commission_rate: int,
    borrow_rate: int,
    last_S: Floats,
    book_BS: Longs,
    account: Longs,
    flow_TF: Longs,
    day_TC: Longs,
    rows_NC: Longs,
    price_N: Floats,
    first: int,
) -> Any:
    """Loop over the sessions from `first`: borrowing, corporate actions, sells, buy-backs, short sales, buys,
    delistings, valuation, decision for the next session. Return the session for which the log has no room.
    """
    T, S = close_TS.shape
    log = Log(rows_NC, price_N)
    book = Book(book_BS[0], book_BS[1], book_BS[2], last_S, book_BS[3], book_BS[4], book_BS[5], account, flow_TF)
    ends_T = np.zeros(T, np.bool_)
    for s in range(S):
        if 0 <= delist_S[s] < T:
            ends_T[delist_S[s]] = True
    for t in range(first, T):
        if account[ROWS] + MOST * S > price_N.size:
            return t
        if account[SHORTS] > 0:
            pay_lenders(t, nights_T[t], borrow_rate, book)
        actions = 0
        for s in range(S):
            actions += 1 if factor_TS[t, s] != 1.0 else 0
        if actions > 0:
            act(t, factor_TS[t], book, log)
        if account[WAITING] > 0:
            for i in range(account[WAITING]):
                book.room[book.waiting[i]] = room_TS[t, book.waiting[i]]
            lessen(t, 1, sell_TS[t], tax_TS[t], commission_rate, book, log)
            if account[SHORTS] > 0:
                lessen(t, -1, buy_TS[t], tax_TS[t], commission_rate, book, log)
                if shortable_T[t]:
                    extend(t, -1, sell_TS[t], tax_TS[t], commission_rate, book, log)
            extend(t, 1, buy_TS[t], tax_TS[t], commission_rate, book, log)
        for s in range(S):
            last_S[s] = close_TS[t, s] if close_TS[t, s] > 0.0 else last_S[s]
        if ends_T[t]:
            delist(t, tax_TS[t], commission_rate, delist_S, book, log)
        long, short, positions = value(book)
        day_TC[t, 0], day_TC[t, 1] = account[EQUITY], account[CASH]
        day_TC[t, 2], day_TC[t, 3], day_TC[t, 4] = long + short, short, positions
        if account[EQUITY] <= 0:  # ruined: everything is closed, nothing is decided
            leave(book)
        elif decide_T[t]:
            decide(t, weight_TS[t], order_TS[t], delist_S, book)
        else:
            let_go(book)
    return T


_TYPES = (
    "int64(float64[:,::1], float64[:,::1], int64[:,::1], float64[:,::1], float64[:,::1], int64[:,::1], "
    "float64[:,::1], int32[:,::1], boolean[::1], boolean[::1], int64[::1], int64[::1], int64, int64, float64[::1], "
    "int64[:,::1], int64[::1], int64[:,::1], int64[:,::1], int64[:,::1], float64[::1], int64)"
)


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
    shortable_T: Bools,
    nights_T: Longs,
    delist_S: Longs,
    last_S: Floats,
    capital: int,
    commission_rate: int,
    borrow_rate: int,
) -> Ledger:
    """Trade target weights through the sessions and return the ledger, the same bits on every run.

    buy_TS, sell_TS : (T, S) float64 KRW, the price at which an order of session t fills; NaN = cannot be traded on
    that side. room_TS : (T, S) int64, most shares that orders may take. close_TS : (T, S) float64 raw KRW, NaN = no bar
    (the last one is carried). factor_TS : (T, S) float64, shares after / shares before on the session of a corporate
    action, else 1. tax_TS : (T, S) int64, sale tax in 1e-7. weight_TS : (T, S) float64, shares of equity wanted after
    the close of t, read where decide_T is true; negative = short, NaN = leave what is wanted. order_TS : (T, S) int32,
    the symbols in the order in which they buy, and backwards in which they are sold short. shortable_T : (T,) bool,
    sessions in which a short may be opened. nights_T : (T,) int64, calendar days since the session before. delist_S :
    (S,) int64, session whose close ends the symbol, >= T for never. last_S : (S,) float64 KRW, last close before the
    first session or NaN. Rates in 1e-7, that of borrowing a year.

    A decision at t sees closes up to and including t and fills from t + 1 on.
    """
    matrices = (buy_TS, sell_TS, room_TS, close_TS, factor_TS, tax_TS, weight_TS, order_TS)
    rows, columns = (decide_T, shortable_T, nights_T), (delist_S, last_S)
    shapes = {m.shape for m in matrices} | {(len(row), len(column)) for row in rows for column in columns}
    if len(shapes) != 1:
        raise ValueError(f"expected one (sessions, symbols) shape for all inputs of the engine, got {sorted(shapes)}")
    arrays = [np.ascontiguousarray(array) for array in (*matrices, *rows, delist_S)]
    T, S = close_TS.shape
    account = np.array([capital, 0, capital, 0, 0, 0], np.int64)
    day_TC, flow_TF = np.zeros((T, 5), np.int64), np.zeros((T, 4), np.int64)
    state = last_S.copy(), np.zeros((6, S), np.int64), account, flow_TF, day_TC
    log, t = _log(MOST * S + np.count_nonzero(weight_TS[decide_T])), 0
    loop = compiled(_trade, _TYPES, alias=True, inline=True)
    while (t := loop(*arrays, commission_rate, borrow_rate, *state, *log, t)) < T:
        n = account[ROWS]
        old, log = log, _log(MOST * S + 2 * n)
        log.rows_NC[:n], log.price_N[:n] = old.rows_NC[:n], old.price_N[:n]
    equity_T, cash_T, gross_T, short_T, positions_T = np.ascontiguousarray(day_TC.T)
    traded_T, commission_T, tax_T, borrow_T = np.ascontiguousarray(flow_TF.T)
    money = (equity_T, cash_T, gross_T, short_T, traded_T, commission_T, tax_T, borrow_T)
    return Ledger(*money, positions_T, log.rows_NC[: account[ROWS]], log.price_N[: account[ROWS]])


def _log(size: int) -> Log:
    """Return room for trades, as NumPy asks for it, in large pages: with small ones the loop takes twice as long."""
    return Log(np.empty((size, len(COLUMNS)), np.int64), np.empty(size))
