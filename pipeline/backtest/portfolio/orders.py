"""What a session of the portfolio engine consists of, as plain functions that kernel.py compiles as its parts.

A position has signed shares: positive held, negative sold short. `fill` keeps the money; the others say which symbols
in which order. Shapes: S symbols, T sessions, N trades; prices KRW a share, rates 1e-7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..money import SHARE_GRACE, WON_GRACE, covered, fee, portion, won

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]

BUY, SELL, DELISTED, FRACTION, SHORT, COVER = 0, 1, 2, 3, 4, 5  # side
ENTRY, REBALANCE, EXIT, GONE, REST = 0, 1, 2, 3, 4  # reason
# account: money, value of shorts, equity at the last close, trades so far, symbols in `waiting`, 1 once shorts were
CASH, ASIDE, EQUITY, ROWS, WAITING, SHORTS = 0, 1, 2, 3, 4, 5  # wanted
TRADED, COMMISSION, TAX, BORROW = 0, 1, 2, 3  # flow


class Book(NamedTuple):
    """What is held and what is wanted.

    shares, target : (S,) int64, negative = short; basis : (S,) int64, what a long cost with commission, or what a short
    brought after costs; last : (S,) float64, last close on today's basis; account : (6,) int64; flow_TF : (T, 4) int64.
    The first account[WAITING] of `waiting` (by symbol) and of `queue` (best score first), (S,) int64, are the symbols
    of which something else is held than wanted; room : (S,) int64, shares that their orders may still take today.
    """

    shares: Longs
    target: Longs
    basis: Longs
    last: Floats
    room: Longs
    waiting: Longs
    queue: Longs
    account: Longs
    flow_TF: Longs


class Log(NamedTuple):
    """Trades so far: rows_NC : (N, 10) int64, see COLUMNS of kernel.py; price_N : (N,) float64."""

    rows_NC: Longs
    price_N: Floats


def record(
    t: int,
    s: int,
    side: int,
    quantity: int,
    price: float,
    value: int,
    commission: int,
    tax: int,
    reason: int,
    profit: int,
    book: Book,
    log: Log,
) -> None:
    """Write a trade."""
    n = book.account[ROWS]
    log.rows_NC[n, 0], log.rows_NC[n, 1], log.rows_NC[n, 2], log.rows_NC[n, 3] = t, s, side, quantity
    log.rows_NC[n, 4], log.rows_NC[n, 5], log.rows_NC[n, 6] = value, commission, tax
    log.rows_NC[n, 7], log.rows_NC[n, 8], log.rows_NC[n, 9] = reason, profit, book.shares[s]
    log.price_N[n] = price
    book.account[ROWS] += 1
    if quantity > 0:  # a fraction is nothing that was traded
        book.flow_TF[t, TRADED] += value
        book.flow_TF[t, COMMISSION] += commission
        book.flow_TF[t, TAX] += tax


def fill(
    t: int, s: int, side: int, quantity: int, price: float, rate: int, tax_rate: int, reason: int, book: Book, log: Log
) -> None:
    """Buy (quantity above zero) or sell, which opens a position or closes one, long or short; the tax is on sales."""
    held, size = book.shares[s], abs(quantity)
    value = won(size * price)
    commission = fee(value, rate)
    tax = fee(value, tax_rate) if quantity < 0 else 0
    spent = (value if quantity > 0 else -value) + commission + tax
    profit = 0
    if held * quantity < 0:
        part = portion(book.basis[s], size, abs(held))
        book.basis[s] -= part
        profit = (part if held < 0 else -part) - spent
        if held < 0:
            book.account[ASIDE] -= won(-held * book.last[s]) - won((-held - size) * book.last[s])
    else:
        book.basis[s] += abs(spent)
        if quantity < 0:
            book.account[ASIDE] += value
    book.shares[s] += quantity
    book.room[s] -= size
    book.account[CASH] -= spent
    record(t, s, side, size, price, value, commission, tax, reason, profit, book, log)


def pay_lenders(t: int, nights: int, rate: int, book: Book) -> None:
    """Charge every short, at its last close, for the nights since the last session; rate : 1e-7 a year."""
    for s in range(book.shares.size):
        if book.shares[s] < 0:
            cost = fee(won(-book.shares[s] * book.last[s]), rate * nights) // 365
            book.basis[s] -= cost
            book.account[CASH] -= cost
            book.flow_TF[t, BORROW] += cost


def act(t: int, factor_S: Floats, book: Book, log: Log) -> None:
    """Multiply shares by the factors of corporate actions; a long is paid for its fraction of a share, a short pays."""
    for s in range(factor_S.size):
        factor = factor_S[s]
        if factor == 1.0:
            continue
        held, before = abs(book.shares[s]), book.last[s]
        book.last[s] = before / factor
        wanted = math.floor(abs(book.target[s]) * factor + SHARE_GRACE)
        book.target[s] = wanted if book.target[s] > 0 else -wanted
        if held == 0:
            continue
        sign = 1 if book.shares[s] > 0 else -1
        whole = math.floor(held * factor + SHARE_GRACE)
        paid = math.floor(max(held * factor - whole, 0.0) * book.last[s] + WON_GRACE)
        profit = sign * (paid - book.basis[s]) if whole == 0 else 0
        book.basis[s] = 0 if whole == 0 else book.basis[s] - paid
        book.shares[s] = sign * whole
        book.account[CASH] += sign * paid
        if sign < 0:
            book.account[ASIDE] += won(whole * book.last[s]) - won(held * before)
        if paid > 0 or whole == 0:
            side = FRACTION if sign > 0 else COVER
            record(t, s, side, 0, book.last[s], paid, 0, 0, REST, profit, book, log)


def lessen(t: int, sign: int, price_S: Floats, tax_S: Longs, rate: int, book: Book, log: Log) -> None:
    """Sell what is long above what is wanted (sign 1), or buy back what is short beyond it (-1), for which all cash may
    be used.
    """
    for i in range(book.account[WAITING]):
        s = book.waiting[i]
        held, wanted = sign * book.shares[s], max(sign * book.target[s], 0)
        if held <= wanted or not price_S[s] > 0.0:
            continue
        quantity = min(held - wanted, book.room[s])
        if sign < 0 and quantity > 0:
            quantity = covered(quantity, book.account[CASH], price_S[s], rate)
        if quantity > 0:
            side, reason = SELL if sign > 0 else COVER, REBALANCE if wanted > 0 else EXIT
            fill(t, s, side, -sign * quantity, price_S[s], rate, tax_S[s], reason, book, log)


def extend(t: int, sign: int, price_S: Floats, tax_S: Longs, rate: int, book: Book, log: Log) -> None:
    """Buy what is wanted, the best score first, with cash that is not set aside (sign 1), or sell it short, the worst
    first, while shorts are worth no more than equity (-1).
    """
    many = book.account[WAITING]
    for i in range(many):
        s = book.queue[i] if sign > 0 else book.queue[many - 1 - i]
        held, wanted = sign * book.shares[s], sign * book.target[s]
        if wanted <= max(held, 0) or held < 0 or not price_S[s] > 0.0:
            continue
        quantity = min(wanted - held, book.room[s])
        if quantity > 0:
            free = (book.account[CASH] if sign > 0 else book.account[EQUITY]) - book.account[ASIDE]
            quantity = covered(quantity, free, price_S[s], rate if sign > 0 else 0)
        if quantity > 0:
            side, reason = BUY if sign > 0 else SHORT, ENTRY if held == 0 else REBALANCE
            fill(t, s, side, sign * quantity, price_S[s], rate, tax_S[s], reason, book, log)


def delist(t: int, tax_S: Longs, rate: int, delist_S: Longs, book: Book, log: Log) -> None:
    """Close what ends with this session at its last close."""
    for s in range(delist_S.size):
        if delist_S[s] == t:
            if book.shares[s] != 0:
                side = DELISTED if book.shares[s] > 0 else COVER
                fill(t, s, side, -book.shares[s], book.last[s], rate, tax_S[s], GONE, book, log)
            book.target[s] = 0


def value(book: Book) -> tuple[int, int, int]:
    """Bring equity up to the last closes and return the value of longs, of shorts and the number of both."""
    long, short, positions = 0, 0, 0
    for s in range(book.shares.size):
        held = book.shares[s]
        worth = won(abs(held) * book.last[s]) if held != 0 else 0
        long += worth if held > 0 else 0
        short += worth if held < 0 else 0
        positions += 1 if held != 0 else 0
    book.account[ASIDE] = short
    book.account[EQUITY] = book.account[CASH] + long - short
    return long, short, positions


def decide(t: int, weight_S: Floats, order_S: Ints, delist_S: Longs, book: Book) -> None:
    """Turn shares of equity into whole shares of symbols at their last closes; NaN = what was wanted stays wanted."""
    equity = float(book.account[EQUITY])
    for s in range(weight_S.size):
        weight = weight_S[s]
        if math.isnan(weight):
            continue
        wanted = 0
        if weight != 0.0 and delist_S[s] > t and book.last[s] > 0.0:
            wanted = math.floor(equity * abs(weight) / book.last[s] + SHARE_GRACE)
        book.target[s] = wanted if weight > 0.0 else -wanted
        if weight < 0.0:
            book.account[SHORTS] = 1
    line_up(order_S, book)


def leave(book: Book) -> None:
    """Want nothing any more."""
    i = 0
    for s in range(book.shares.size):
        book.target[s] = 0
        book.waiting[i], book.queue[i] = s, s
        i += 1 if book.shares[s] != 0 else 0
    book.account[WAITING] = i


def line_up(order_S: Ints, book: Book) -> None:
    """List anew of which symbols something else is held than wanted."""
    i, j = 0, 0
    for s in range(book.shares.size):
        book.waiting[i] = s
        i += 1 if book.target[s] != book.shares[s] else 0
        best = order_S[s]
        book.queue[j] = best
        j += 1 if book.target[best] != book.shares[best] else 0
    book.account[WAITING] = i


def let_go(book: Book) -> None:
    """Strike those from the lists of which now is held what is wanted."""
    i, j = 0, 0
    for n in range(book.account[WAITING]):
        s, best = book.waiting[n], book.queue[n]
        book.waiting[i], book.queue[j] = s, best
        i += 1 if book.target[s] != book.shares[s] else 0
        j += 1 if book.target[best] != book.shares[best] else 0
    book.account[WAITING] = i
