"""The event loop of one instrument: orders, stops, targets and costs, bar by bar, money to the won.

Plain Python without a compiler: driver.py compiles the same function for a CPU, where threads share combinations, and
for a GPU, a thread a combination. A strategy's `step` becomes a part of it, see pipeline/strategies/. The rules are
written out in docs/order-semantics.md.

Shapes: T bars, U unique columns, R tick tables, K state, M blocks of sessions, N trades.
"""

from __future__ import annotations

from math import floor, inf, nan
from typing import Any

from ..money import affordable, fee, portion, won

STAY, LONG, SHORT, FLAT = 0, 1, -1, 2  # what a step wants
STOP, TARGET, TRAIL_START, TRAIL, BARS, WEIGHT = range(6)  # and of which entry: distances as its columns have prices
ORDER = 6
END, ACTION, HALT, LAST, NO_SHORT = 1, 2, 4, 8, 16  # flags of a bar
BUSY = END | ACTION | LAST  # something happens without a position too
ABOVE, BELOW, HIGHEST, LOWEST, FACTOR, UNIT = range(6)  # rule_TC
TAX, ROOM, DAY, TICKS, UNTIL = range(5)  # fact_TC
CAPITAL, COMMISSION, SLIPPAGE, SIZE, RISK, LONGS, SHORTS, BORROW = range(8)  # account_A
REASONS = ("signal", "stop", "target", "time", "ruin", "delisted", "fraction", "trailing stop")
BY_SIGNAL, BY_STOP, BY_TARGET, BY_TIME, BY_RUIN, DELISTED, FRACTION, BY_TRAIL = range(8)

OPENED, BASIS, VALUE, COMMISSIONS, TAXES = range(5)  # book_B of what is held
TRADED, WINS, GAINED, LOST, SPENT, TAXED, BORROWED, HELD, EQUITY = range(5, 14)  # and of the run
BOOK = 14
TRADE = ("entry", "exit", "side", "shares", "value", "proceeds", "commission", "tax", "borrow", "profit", "reason")
MOMENTS = 4

_GRACE = 1e-9


def ticked(tick_RBC: Any, table: int, price: float, up: bool) -> float:
    """Return the nearest price on a tick that is not below (up) or not above; the price itself without ticks."""
    tick = 0.0
    for b in range(tick_RBC.shape[1]):
        if price >= tick_RBC[table, b, 0]:
            tick = tick_RBC[table, b, 1]
    if tick <= 0.0:
        return price
    return -floor(-(price / tick - _GRACE)) * tick if up else floor(price / tick + _GRACE) * tick


def slipped(tick_RBC: Any, table: int, price: float, slippage: float, up: bool, bound: float) -> float:
    """Return what an order at the market pays (up) or gets: worse by the slippage, to a tick, not beyond the bound."""
    if slippage == 0.0:
        return price
    if up:
        return min(ticked(tick_RBC, table, price * (1.0 + slippage), True), bound)
    out = max(ticked(tick_RBC, table, price * (1.0 - slippage), False), bound)
    return out if out > 0.0 else price


def opened(book_B: Any, bar: int, side: int, shares: int, price: float, commission_rate: int, tax_rate: int) -> int:
    """Book an entry and return the change of cash."""
    value = won(shares * price)
    commission = fee(value, commission_rate)
    tax = fee(value, tax_rate) if side < 0 else 0
    book_B[OPENED], book_B[VALUE], book_B[COMMISSIONS], book_B[TAXES] = bar, value, commission, tax
    book_B[BASIS] = value + commission if side > 0 else value - commission - tax
    book_B[SPENT] += commission
    book_B[TAXED] += tax
    basis = int(book_B[BASIS])
    return -basis if side > 0 else basis


def closed(
    book_B: Any,
    trade_NC: Any,
    price_NC: Any,
    bar: int,
    held: int,
    shares: int,
    prices: tuple[float, float],
    rates: tuple[int, int, int],
    days: int,
    reason: int,
) -> int:
    """Book the closing of `shares` of the `held` (negative = short) and return the change of cash.

    prices : of entry and exit; rates : commission, sale tax, borrowing for a year; days : calendar days since the
    entry.
    """
    side, whole = (1, held) if held > 0 else (-1, -held)
    value = won(shares * prices[1])
    commission = fee(value, rates[0])
    tax = fee(value, rates[1]) if side > 0 else 0
    entry = portion(book_B[VALUE], shares, whole)
    borrow = fee(entry, rates[2] * days // 365) if side < 0 else 0
    basis = portion(book_B[BASIS], shares, whole)
    cash = value - commission - tax if side > 0 else -value - commission - borrow
    profit = cash - basis if side > 0 else basis + cash
    book_B[SPENT] += commission
    book_B[TAXED] += tax
    book_B[BORROWED] += borrow
    entry_commission = portion(book_B[COMMISSIONS], shares, whole)
    entry_tax = portion(book_B[TAXES], shares, whole)
    book_B[BASIS] -= basis
    book_B[VALUE] -= entry
    book_B[COMMISSIONS] -= entry_commission
    book_B[TAXES] -= entry_tax
    row = (shares, entry, value, commission + entry_commission, tax + entry_tax, borrow, profit)
    recorded(book_B, trade_NC, price_NC, bar, side, row, prices, reason)
    return cash


def recorded(
    book_B: Any,
    trade_NC: Any,
    price_NC: Any,
    bar: int,
    side: int,
    row: tuple[int, int, int, int, int, int, int],
    prices: tuple[float, float],
    reason: int,
) -> None:
    """Count a trade, and write it down where there is room for it."""
    n, profit = book_B[TRADED], row[6]
    book_B[TRADED] += 1
    if profit > 0:
        book_B[WINS] += 1
        book_B[GAINED] += profit
    else:
        book_B[LOST] -= profit
    if n < trade_NC.shape[0]:
        trade_NC[n, 0], trade_NC[n, 1], trade_NC[n, 2] = book_B[OPENED], bar, side
        for c in range(7):
            trade_NC[n, 3 + c] = row[c]
        trade_NC[n, 10] = reason
        price_NC[n, 0], price_NC[n, 1] = prices[0], prices[1]


def step(i: int, x_UT: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Stand for the strategy's step, which the driver puts in its place; see pipeline/strategies/declare.py."""
    raise NotImplementedError


def trade(
    price_TC: Any,
    flag_T: Any,
    rule_TC: Any,
    fact_TC: Any,
    tick_RBC: Any,
    block_T: Any,
    x_UT: Any,
    at: Any,
    trigger: int,
    wake_T: Any,
    p: Any,
    account: Any,
    start: int,
    stop: int,
    order: Any,
    state: Any,
    book: Any,
    moment_MC: Any,
    equity_T: Any,
    trade_NC: Any,
    price_NC: Any,
) -> float:
    """Trade one combination through the bars [start, stop) and return its largest drawdown (share of the peak, >= 0);
    NaN, and nothing else, where the step wants something that is not known.

    price_TC : (T, 4) open, high, low, close of a share in units of money. flag_T : (T,) of END...NO_SHORT. rule_TC :
    (T, 6) and fact_TC : (T, 5), see ABOVE and TAX; ABOVE and BELOW are prices from which nobody sells and to which
    nobody buys, UNIT the money of a share in one price of the columns, UNTIL the last bar of a bar's session. tick_RBC
    : price from which a tick counts and the tick. block_T : block of a bar's session. x_UT : unique columns; at : those
    of this combination in the order of its strategy. trigger : the column that wakes the step, -1 = every bar does;
    wake_T : (T + 1,) the first bar from each on at which it is not zero, or no array: then no bar is left out, with the
    same results. p, account : parameters and account. order, state, book : (6,), (K,) and (14,) zeros, worked in; book
    holds the counts of the run afterwards. moment_MC : (M, 4) sums of the sessions' returns, their squares, cubes and
    fourth powers are added to it. equity_T : money after each close, or no array. trade_NC, price_NC : one row each
    closing fill (see TRADE) and its prices of entry and exit; what is beyond their length is only counted.

    The step sees bars up to and including i, and what it wants fills from the open of i + 1 on.
    """
    commission, slippage = int(account[COMMISSION]), account[SLIPPAGE]
    borrowing = int(account[BORROW])
    cash = int(account[CAPITAL])
    equity = mark = peak = cash
    held = 0  # shares, negative = short
    last = entry = cut = aim = best = 0.0  # prices: last close, entry, stop (0 = none), target (0 = none), best since
    trail_start = trail = 0.0
    bars = limit = 0
    trailed = ruined = False
    leaving = -1  # the reason of an exit that waits
    side, wanted = 0, 0  # of an entry that waits, and its shares
    cut_far = aim_far = start_far = trail_far = 0.0
    most = 0
    worst = 0.0
    i = start
    while i < stop:
        flag = flag_T[i]
        if held != 0 or side != 0 or flag & BUSY or i == stop - 1:
            if flag & ACTION:
                factor = rule_TC[i, FACTOR]
                last /= factor
                if held != 0:
                    exact = abs(held) * factor
                    whole = floor(exact + _GRACE)
                    paid = floor(max(exact - whole, 0.0) * last + 1e-6)
                    cash += paid if held > 0 else -paid
                    book[BASIS] -= paid
                    entry, cut, aim, best = entry / factor, cut / factor, aim / factor, best / factor
                    trail_start, trail = trail_start / factor, trail / factor
                    direction = 1 if held > 0 else -1
                    held = whole * direction
                    if whole == 0:
                        rest = book[BASIS] * direction
                        row = (0, book[VALUE], paid, book[COMMISSIONS], book[TAXES], 0, -rest)
                        recorded(book, trade_NC, price_NC, i, direction, row, (entry, last), FRACTION)
                        leaving = -1
                wanted = floor(wanted * factor + _GRACE)
                cut_far, aim_far, start_far, trail_far = (
                    cut_far / factor,
                    aim_far / factor,
                    start_far / factor,
                    trail_far / factor,
                )

            if not flag & HALT:
                opening, high, low = price_TC[i, 0], price_TC[i, 1], price_TC[i, 2]
                room = -1  # not looked up yet
                if leaving >= 0 or side != 0:
                    room = fact_TC[i, ROOM]
                    table = fact_TC[i, TICKS]
                    can_buy, can_sell = opening < rule_TC[i, ABOVE], opening > rule_TC[i, BELOW]
                    if leaving >= 0 and (can_sell if held > 0 else can_buy):
                        shares = min(abs(held), room)
                        if shares > 0:
                            bound = rule_TC[i, LOWEST] if held > 0 else rule_TC[i, HIGHEST]
                            price = slipped(tick_RBC, table, opening, slippage, held < 0, bound)
                            cash += closed(
                                book, trade_NC, price_NC, i, held, shares, (entry, price),
                                (commission, fact_TC[i, TAX], borrowing), fact_TC[i, DAY] - fact_TC[book[OPENED], DAY],
                                leaving,
                            )  # fmt: skip
                            held -= shares if held > 0 else -shares
                            room -= shares
                            leaving = -1 if held == 0 else leaving
                    if side != 0 and held == 0 and (can_buy if side > 0 else can_sell and not flag & NO_SHORT):
                        bound = rule_TC[i, HIGHEST] if side > 0 else rule_TC[i, LOWEST]
                        price = slipped(tick_RBC, table, opening, slippage, side > 0, bound)
                        rate = commission + (fact_TC[i, TAX] if side < 0 else 0)
                        shares = min(wanted, room, affordable(cash, price, rate))
                        if shares > 0:
                            cash += opened(book, i, side, shares, price, commission, fact_TC[i, TAX])
                            held, room = shares * side, room - shares
                            entry = best = price
                            cut = ticked(tick_RBC, table, price - side * cut_far, side < 0) if cut_far > 0.0 else 0.0
                            aim = ticked(tick_RBC, table, price + side * aim_far, side > 0) if aim_far > 0.0 else 0.0
                            trail_start, trail, limit, bars, trailed = start_far, trail_far, most, 0, False
                side = 0

                if held != 0:
                    raw, reason = 0.0, -1
                    if held > 0:
                        if low <= cut:
                            raw, reason = min(opening, cut), BY_STOP
                        if aim > 0.0 and high >= aim and (reason < 0 or (opening >= aim and opening > cut)):
                            raw, reason = max(opening, aim), BY_TARGET
                    elif (cut > 0.0 and high >= cut) or low <= aim:
                        if cut > 0.0 and high >= cut:
                            raw, reason = max(opening, cut), BY_STOP
                        if low <= aim and (reason < 0 or (opening <= aim and opening < cut)):
                            raw, reason = min(opening, aim), BY_TARGET
                    if reason >= 0:
                        room = fact_TC[i, ROOM] if room < 0 else room
                        shares = min(abs(held), room)
                        if reason == BY_STOP and trailed:
                            reason = BY_TRAIL
                        leaving = reason
                        if shares > 0 and (raw > rule_TC[i, BELOW] if held > 0 else raw < rule_TC[i, ABOVE]):
                            price = raw
                            if reason != BY_TARGET:
                                bound = rule_TC[i, LOWEST] if held > 0 else rule_TC[i, HIGHEST]
                                price = slipped(tick_RBC, fact_TC[i, TICKS], raw, slippage, held < 0, bound)
                            cash += closed(
                                book, trade_NC, price_NC, i, held, shares, (entry, price),
                                (commission, fact_TC[i, TAX], borrowing), fact_TC[i, DAY] - fact_TC[book[OPENED], DAY],
                                reason,
                            )  # fmt: skip
                            held -= shares if held > 0 else -shares
                            leaving = -1 if held == 0 else leaving
            side = 0

            last = price_TC[i, 3]
            if flag & LAST and held != 0:
                cash += closed(
                    book, trade_NC, price_NC, i, held, abs(held), (entry, last),
                    (commission, fact_TC[i, TAX], borrowing), fact_TC[i, DAY] - fact_TC[book[OPENED], DAY], DELISTED,
                )  # fmt: skip
                held, leaving = 0, -1
            if held == 0:
                equity = cash
            else:
                equity = cash + (won(held * last) if held > 0 else -won(-held * last))
                book[HELD] += 1
            if equity_T.shape[0] > 0:
                equity_T[i] = equity
            if equity > peak:
                peak = equity
            elif peak - equity > worst * peak:
                worst = (peak - equity) / peak
            if (flag & END or i == stop - 1) and equity != mark:
                if mark > 0:
                    settle(moment_MC, block_T[i], equity / mark - 1.0)
                mark = equity

            if held != 0 and not flag & HALT:
                bars += 1
                if held > 0:
                    best = max(best, price_TC[i, 1])
                    if trail > 0.0 and best - entry >= trail_start:
                        moved = ticked(tick_RBC, fact_TC[i, TICKS], best - trail, False)
                        if moved > cut:
                            cut, trailed = moved, True
                else:
                    best = min(best, price_TC[i, 2])
                    if trail > 0.0 and entry - best >= trail_start:
                        moved = ticked(tick_RBC, fact_TC[i, TICKS], best + trail, True)
                        if cut == 0.0 or moved < cut:
                            cut, trailed = moved, True
                if limit > 0 and bars >= limit and leaving < 0:
                    leaving = BY_TIME
            if equity <= 0:
                ruined = True
                if held != 0 and leaving < 0:
                    leaving = BY_RUIN
        else:  # nothing is held, wanted or to be counted
            last = price_TC[i, 3]
            if equity_T.shape[0] > 0:
                equity_T[i] = equity

        i += 1
        if i >= stop or flag & LAST:
            break
        if held == 0 and trigger >= 0 and state[0] == 0.0:
            if wake_T.shape[0] > 0:
                until = min(wake_T[i - 1], stop)
                if until >= i:  # nothing happens before it
                    if equity != mark and (fact_TC[i - 1, UNTIL] < until or until == stop):
                        if mark > 0:
                            settle(moment_MC, block_T[i - 1], equity / mark - 1.0)
                        mark = equity
                    i = until
                    continue
            elif not abs(x_UT[at[trigger], i - 1]) > 0.0:
                continue
        for k in range(ORDER):
            order[k] = 0.0
        order[WEIGHT] = 1.0
        now = 1 if held > 0 else (-1 if held < 0 else 0)
        want = step(i - 1, x_UT, at, p, order, state, now)
        if want in (STAY, now):
            continue
        if want not in (LONG, SHORT, FLAT):
            return nan
        if (want == LONG and account[LONGS] == 0.0) or (want == SHORT and account[SHORTS] == 0.0):
            want = FLAT
        if held != 0 and leaving < 0:
            leaving = BY_SIGNAL
        if want == FLAT or ruined:
            continue
        fine = True
        for k in range(ORDER):
            fine = fine and 0.0 <= order[k] < inf  # NaN is not
        if fine:
            unit = rule_TC[i - 1, UNIT]
            cut_far, aim_far = order[STOP] * unit, order[TARGET] * unit
            start_far, trail_far = order[TRAIL_START] * unit, order[TRAIL] * unit
            most = int(min(order[BARS], 1e9))
            money = equity * account[SIZE] * min(order[WEIGHT], 1.0)
            shares_wanted = money / last
            if account[RISK] > 0.0 and cut_far > 0.0:
                shares_wanted = min(shares_wanted, equity * account[RISK] / cut_far)
            wanted = floor(shares_wanted + _GRACE)
            side = want if wanted > 0 else 0
    book[EQUITY] = equity
    return worst


def settle(moment_MC: Any, block: int, r: float) -> None:
    """Add the return of a session to the sums of its block."""
    square = r * r
    moment_MC[block, 0] += r
    moment_MC[block, 1] += square
    moment_MC[block, 2] += square * r
    moment_MC[block, 3] += square * square
