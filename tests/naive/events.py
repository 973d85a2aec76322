"""One instrument bar by bar, one event at a time, from the written rules (docs/order-semantics.md): a brute-force twin.

Amounts and shares are whole numbers and fractions; prices are float64, as the rules have them. Shapes as in
pipeline/backtest/single/event.py, of which only the layout of the arguments is used here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from math import floor, isnan
from typing import Any

import numpy as np

from pipeline.backtest.single import event

from .event_bars import BILLIONTH, MILLIONTH, Bar, bars_of, fee, won
from .event_book import Order, Position, Run

Step = Callable[..., int]


class Trader:
    """The account, what it holds and what waits."""

    def __init__(self, case: Any, step: Step) -> None:
        self.case, self.step = case, step
        (self.capital, self.rate, self.slippage, self.size, self.risk, self.longs, self.shorts, self.borrow_rate) = (
            case.account.tolist()
        )
        self.cash = int(self.capital)
        self.rate, self.borrow_rate = int(self.rate), int(self.borrow_rate)
        self.bars = bars_of(case)
        self.state = np.zeros(16)
        self.position: Position | None = None
        self.exit: int | None = None  # the reason of one that waits
        self.entry: Order | None = None
        self.ruined = False
        self.last = 0.0
        self.room = 0
        self.run = Run()

    def action(self, i: int, bar: Bar) -> None:
        """0. A corporate action."""
        f, ratio = bar.factor, Fraction(bar.factor).limit_denominator(1_000)
        self.last /= f
        if self.position:
            p = self.position
            exact = p.shares * ratio
            whole = floor(exact)
            paid = floor((exact - whole) * Fraction(self.last) + MILLIONTH)
            self.cash += paid * p.side
            p.basis -= paid
            p.shares = whole
            p.entry, p.best, p.trail_start, p.trail = p.entry / f, p.best / f, p.trail_start / f, p.trail / f
            p.stop = None if p.stop is None else p.stop / f
            p.target = None if p.target is None else p.target / f
            if whole == 0:
                row = (p.opened, i, p.side, 0, p.value, paid, p.commission, p.tax, 0, -p.basis * p.side)
                self.record(row, event.FRACTION, (p.entry, self.last))
                self.position = self.exit = None
        if self.entry:
            e = self.entry
            e.shares = floor(e.shares * ratio)
            e.stop, e.target, e.trail_start, e.trail = e.stop / f, e.target / f, e.trail_start / f, e.trail / f

    def open(self, i: int, bar: Bar) -> None:
        """1. What waits, at the open."""
        if self.position and self.exit is not None:
            self.leave(i, bar, bar.open, self.exit, slips=True)
        if self.entry and not self.position:
            self.enter(i, bar, self.entry)

    def enter(self, i: int, bar: Bar, order: Order) -> None:
        buys = order.side > 0
        if not (bar.can_buy(bar.open) if buys else bar.can_sell(bar.open) and not bar.has(event.NO_SHORT)):
            return
        price = bar.slipped(bar.open, self.slippage, up=buys)
        rate = self.rate + (0 if buys else bar.tax)

        def cost(n: int) -> int:
            value = won(n * Fraction(price))
            return value + fee(value, rate)

        most = min(order.shares, self.room)
        shares = bisect_right(range(1, most + 1), self.cash, key=cost)
        if shares == 0:
            return
        value = won(shares * Fraction(price))
        commission, tax = fee(value, self.rate), 0 if buys else fee(value, bar.tax)
        basis = value + commission if buys else value - commission - tax
        self.cash -= basis * order.side
        self.room -= shares
        self.run.commission += commission
        self.run.tax += tax
        self.run.fills.append((i, shares))
        stop = bar.rounded(price - order.side * order.stop, up=not buys) if order.stop > 0 else None
        target = bar.rounded(price + order.side * order.target, up=buys) if order.target > 0 else None
        self.position = Position(
            order.side, shares, i, price, price, stop, target, order.trail_start, order.trail, order.bars,
            basis, value, commission, tax,
        )  # fmt: skip

    def leave(self, i: int, bar: Bar, raw: float, reason: int, slips: bool) -> None:
        """Close what can be closed at this price; the rest waits."""
        assert self.position
        self.exit = reason
        sells = self.position.side > 0
        shares = min(self.position.shares, self.room)
        if shares > 0 and (bar.can_sell(raw) if sells else bar.can_buy(raw)):
            price = bar.slipped(raw, self.slippage, up=not sells) if slips else raw
            self.room -= shares
            self.run.fills.append((i, shares))
            self.close_shares(i, bar, shares, price, reason)

    def close_shares(self, i: int, bar: Bar, shares: int, price: float, reason: int) -> None:
        p = self.position
        assert p
        value = won(shares * Fraction(price))
        commission, tax = fee(value, self.rate), fee(value, bar.tax) if p.side > 0 else 0
        basis, entry_value, entry_commission, entry_tax = (
            amount * shares // p.shares for amount in (p.basis, p.value, p.commission, p.tax)
        )
        days = bar.day - self.bars[p.opened].day
        borrow = fee(entry_value, self.borrow_rate * days // 365) if p.side < 0 else 0
        if p.side > 0:
            received = value - commission - tax
            profit = received - basis
        else:
            received = -(value + commission + borrow)
            profit = basis + received
        self.cash += received
        self.run.commission += commission
        self.run.tax += tax
        self.run.borrow += borrow
        p.basis -= basis
        p.value -= entry_value
        p.commission -= entry_commission
        p.tax -= entry_tax
        costs = (commission + entry_commission, tax + entry_tax, borrow)
        self.record((p.opened, i, p.side, shares, entry_value, value, *costs, profit), reason, (p.entry, price))
        p.shares -= shares
        if p.shares == 0:
            self.position = self.exit = None

    def record(self, row: tuple[int, ...], reason: int, prices: tuple[float, float]) -> None:
        self.run.trades.append((*row, reason))
        self.run.prices.append(prices)

    def inside(self, i: int, bar: Bar) -> None:
        """2. Stop and target inside the bar."""
        p = self.position
        if not p:
            return
        by_stop = event.BY_TRAIL if p.moved else event.BY_STOP
        worst, best = (bar.low, bar.high) if p.side > 0 else (bar.high, bar.low)
        if p.hits_stop(bar.open):
            self.leave(i, bar, bar.open, by_stop, slips=True)
        elif p.hits_target(bar.open):
            self.leave(i, bar, bar.open, event.BY_TARGET, slips=False)
        elif p.hits_stop(worst):
            assert p.stop is not None
            self.leave(i, bar, p.stop, by_stop, slips=True)
        elif p.hits_target(best):
            assert p.target is not None
            self.leave(i, bar, p.target, event.BY_TARGET, slips=False)

    def close(self, i: int, bar: Bar) -> int:
        """3. The close: valuation and delisting; returns the equity."""
        self.last = bar.close
        if bar.has(event.LAST):
            if self.position:
                self.close_shares(i, bar, self.position.shares, self.last, event.DELISTED)
            self.exit = self.entry = None
        p = self.position
        equity = self.cash + (p.side * won(p.shares * Fraction(self.last)) if p else 0)
        self.run.held_bars += p is not None
        self.run.cash.append(self.cash)
        self.run.equity.append(equity)
        return equity

    def after(self, bar: Bar, equity: int) -> None:
        """4. Trailing stop, time stop, ruin."""
        p = self.position
        if p and not bar.has(event.HALT):
            p.best = max(p.best, bar.high) if p.side > 0 else min(p.best, bar.low)
            if p.trail > 0 and (p.best - p.entry) * p.side >= p.trail_start:
                level = bar.rounded(p.best - p.side * p.trail, up=p.side < 0)
                if p.stop is None or (level - p.stop) * p.side > 0:
                    p.stop, p.moved = level, True
            p.held += 1
            if p.bars > 0 and p.held >= p.bars and self.exit is None:
                self.exit = event.BY_TIME
        if equity <= 0:
            self.ruined = True
            if p and self.exit is None:
                self.exit = event.BY_RUIN

    def wakes(self, i: int) -> bool:
        if self.case.trigger < 0 or self.state[0] != 0 or self.position or self.exit is not None:
            return True
        value = float(self.case.x_UT[self.case.at[self.case.trigger], i])
        return value != 0 and not isnan(value)

    def decide(self, i: int, bar: Bar, equity: int) -> None:
        """5. What the strategy wants from the next open on."""
        order = np.zeros(event.ORDER)
        order[event.WEIGHT] = 1.0
        side = self.position.side if self.position else 0
        want = self.step(i, self.case.x_UT, self.case.at, self.case.p, order, self.state, side)
        if want == event.STAY or want == side:
            return
        if (want == event.LONG and not self.longs) or (want == event.SHORT and not self.shorts):
            want = event.FLAT
        if self.position and self.exit is None:
            self.exit = event.BY_SIGNAL
        if want == event.FLAT or self.ruined or any(isnan(v) or v < 0 for v in order):
            return
        stop, target, trail_start, trail, bars, weight = map(float, order)
        money = equity * Fraction(self.size) * Fraction(min(weight, 1.0))
        shares = floor(money / Fraction(self.last) + BILLIONTH)
        if self.risk > 0 and stop > 0:
            shares = min(shares, floor(equity * Fraction(self.risk) / Fraction(stop * bar.unit) + BILLIONTH))
        if shares > 0:
            distances = (stop * bar.unit, target * bar.unit, trail_start * bar.unit, trail * bar.unit)
            self.entry = Order(want, shares, *distances, bars)

    def trade(self) -> Run:
        earlier = self.cash
        for i in range(self.case.start, self.case.stop):
            bar = self.bars[i]
            if bar.has(event.ACTION):
                self.action(i, bar)
            if not bar.has(event.HALT):
                self.room = bar.room
                self.open(i, bar)
                self.inside(i, bar)
            self.entry = None
            equity = self.close(i, bar)
            if bar.has(event.END) or i == self.case.stop - 1:
                self.run.sessions.append((bar.block, equity / earlier - 1.0 if earlier > 0 else 0.0))
                earlier = equity
            self.after(bar, equity)
            if bar.has(event.LAST):
                break
            if i < self.case.stop - 1 and self.wakes(i):
                self.decide(i, bar, equity)
        self.run.position = self.position
        return self.run


def drawdown(capital: int, equity: list[int]) -> float:
    """Return the largest loss from an earlier peak, a share of it."""
    worst, peak = 0.0, capital
    for value in equity:
        peak = max(peak, value)
        worst = max(worst, (peak - value) / peak)
    return worst
