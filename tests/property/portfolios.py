"""Markets for the portfolio engine, and its slow, obvious twin."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from math import floor, isnan
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pipeline.backtest.money import RATE

Case = dict[str, Any]
FACTORS = (2.0, 5.0, 0.2, 0.1, 1.5, 10 / 3, 0.7)


def _exact(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1000)


def oracle(case: Case) -> tuple[list[int], list[int], list[int], list[tuple[Any, ...]]]:
    """Keep the books in whole numbers and fractions, one symbol and one event at a time: equity, cash, borrowing cost
    and trades.
    """
    T, S = case["close_TS"].shape
    cash = equity = case["capital"]
    held = dict.fromkeys(range(S), 0)  # negative = short
    wanted = dict.fromkeys(range(S), 0)
    basis = dict.fromkeys(range(S), 0)  # what a long cost, what a short brought
    last: dict[int, Any] = {s: None if isnan(case["last_S"][s]) else _exact(case["last_S"][s]) for s in range(S)}
    queue = list(range(S))
    equity_T, cash_T, borrow_T, trades = [], [], [], []

    def whole_won(amount: Fraction) -> int:
        return floor(amount + Fraction(1, 2))

    def part(value: int, rate: int) -> int:
        return int(value) * int(rate) // RATE

    def most(limit: int, price: Fraction, rate: int, shares: int) -> int:
        """Return how many of so many shares a limit pays for."""

        def cost(n: int) -> int:
            return whole_won(n * price) + part(whole_won(n * price), rate)

        return max(bisect_right(range(shares + 1), limit, key=cost) - 1, 0)

    def worth(s: int) -> int:
        return whole_won(abs(held[s]) * last[s])

    for t in range(T):
        room = [int(n) for n in case["room_TS"][t]]
        fresh = 0  # value of what is sold short in this session
        tax = case["tax_TS"][t]
        rate = case["commission_rate"]
        borrow = 0
        for s in range(S):
            if held[s] < 0:
                cost = worth(s) * case["borrow_rate"] * int(case["nights_T"][t]) // (RATE * 365)
                borrow += cost
                basis[s] -= cost
        cash -= borrow

        for s in range(S):
            factor = _exact(case["factor_TS"][t, s])
            if factor == 1:
                continue
            if last[s] is not None:
                last[s] /= factor
            wanted[s] = floor(wanted[s] * factor) if wanted[s] > 0 else -floor(-wanted[s] * factor)
            if held[s]:
                side = 1 if held[s] > 0 else -1
                exact = abs(held[s]) * factor
                paid = floor((exact - floor(exact)) * last[s])
                cash += side * paid
                held[s] = side * floor(exact)
                profit = 0
                basis[s] -= paid
                if held[s] == 0:
                    profit, basis[s] = -side * basis[s], 0
                if paid or held[s] == 0:
                    trades.append((t, s, 3 if side > 0 else 5, 0, paid, 0, 0, 4, profit, held[s], float(last[s])))

        for s in range(S):  # sales of what is long
            price = case["sell_TS"][t, s]
            n = min(held[s] - max(wanted[s], 0), room[s])
            if n > 0 and not isnan(price):
                value = whole_won(n * _exact(price))
                costs = part(value, rate), part(value, tax[s])
                share = floor(Fraction(basis[s] * n, held[s]))
                held[s], basis[s], room[s], cash = held[s] - n, basis[s] - share, room[s] - n, cash + value - sum(costs)
                reason = 1 if wanted[s] > 0 else 2
                trades.append((t, s, 1, n, value, *costs, reason, value - sum(costs) - share, held[s], price))
        for s in range(S):  # buy-backs of what is short
            price = case["buy_TS"][t, s]
            n = min(-held[s] - max(-wanted[s], 0), room[s])
            if n > 0 and not isnan(price):
                n = most(cash, _exact(price), rate, n)
            if n > 0 and not isnan(price):
                value = whole_won(n * _exact(price))
                cost = part(value, rate)
                share = floor(Fraction(basis[s] * n, -held[s]))
                held[s], basis[s], room[s], cash = held[s] + n, basis[s] - share, room[s] - n, cash - value - cost
                reason = 1 if wanted[s] < 0 else 2
                trades.append((t, s, 5, n, value, cost, 0, reason, share - value - cost, held[s], price))
        new: dict[int, int] = {}
        for s in reversed(queue) if case["shortable_T"][t] else ():  # short sales
            price = case["sell_TS"][t, s]
            n = min(held[s] - wanted[s], room[s])
            if held[s] <= 0 and wanted[s] < 0 and n > 0 and not isnan(price):
                aside = fresh + sum(whole_won((-held[o] - new.get(o, 0)) * last[o]) for o in range(S) if held[o] < 0)
                n = most(equity - aside, _exact(price), 0, n)
                if n > 0:
                    value = whole_won(n * _exact(price))
                    costs = part(value, rate), part(value, tax[s])
                    reason = 1 if held[s] else 0
                    held[s], room[s], cash, fresh = held[s] - n, room[s] - n, cash + value - sum(costs), fresh + value
                    basis[s] += value - sum(costs)
                    new[s] = n
                    trades.append((t, s, 4, n, value, *costs, reason, 0, held[s], price))
        aside = fresh + sum(whole_won((-held[o] - new.get(o, 0)) * last[o]) for o in range(S) if held[o] < 0)
        for s in queue:  # purchases
            price = case["buy_TS"][t, s]
            n = min(wanted[s] - held[s], room[s])
            if held[s] >= 0 and wanted[s] > 0 and n > 0 and not isnan(price):
                n = most(cash - aside, _exact(price), rate, n)
                if n > 0:
                    value = whole_won(n * _exact(price))
                    cost = part(value, rate)
                    reason = 1 if held[s] else 0
                    held[s], basis[s], cash = held[s] + n, basis[s] + value + cost, cash - value - cost
                    trades.append((t, s, 0, n, value, cost, 0, reason, 0, held[s], price))

        for s in range(S):
            if not isnan(case["close_TS"][t, s]):
                last[s] = _exact(case["close_TS"][t, s])
            if case["delist_S"][s] == t:
                if held[s]:
                    value, cost = worth(s), part(worth(s), rate)
                    levy = part(value, tax[s]) if held[s] > 0 else 0
                    gain = value - cost - levy if held[s] > 0 else -value - cost
                    profit = gain - basis[s] if held[s] > 0 else gain + basis[s]
                    cash += gain
                    side = 2 if held[s] > 0 else 5
                    trades.append((t, s, side, abs(held[s]), value, cost, levy, 3, profit, 0, float(last[s])))
                held[s] = wanted[s] = basis[s] = 0
        equity = cash + sum(worth(s) if held[s] > 0 else -worth(s) for s in range(S) if held[s])
        equity_T.append(equity)
        cash_T.append(cash)
        borrow_T.append(borrow)
        if equity <= 0:
            wanted = dict.fromkeys(range(S), 0)
        elif case["decide_T"][t]:
            queue = [int(s) for s in case["order_TS"][t]]
            for s in range(S):
                if isnan(case["weight_TS"][t, s]):
                    continue
                share = _exact(case["weight_TS"][t, s])
                gone = case["delist_S"][s] <= t or last[s] is None
                size = 0 if gone else floor(equity * abs(share) / last[s])
                wanted[s] = size if share > 0 else -size
    return equity_T, cash_T, borrow_T, trades


@st.composite
def markets(draw: st.DrawFn, flat: bool = False) -> Case:
    """Draw a small market with halts, locked sides, tight volume, corporate actions, delistings, and decisions."""
    T, S = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rate = {
        name: draw(st.sampled_from((0.0, 0.1, 0.4))) for name in ("halt", "locked", "action", "delist", "tight", "idle")
    }
    shape = (T, S)
    level = rng.integers(50, 90_000, S)
    steps = np.ones(shape) if flat else rng.uniform(0.7, 1.3, shape)
    close_TS = np.maximum(np.rint(level * np.cumprod(steps, axis=0)), 1.0)
    open_TS = close_TS if flat else np.maximum(np.rint(close_TS * rng.uniform(0.9, 1.1, shape)), 1.0)
    if draw(st.booleans()) and not flat:  # prices of other markets are no whole numbers
        close_TS, open_TS = close_TS + 0.25, open_TS + 0.5
    halted = rng.random(shape) < rate["halt"]
    no_bar = halted & (rng.random(shape) < 0.5)
    buy_TS = np.where(halted | (rng.random(shape) < rate["locked"]), np.nan, open_TS)
    sell_TS = np.where(halted | (rng.random(shape) < rate["locked"]), np.nan, open_TS)
    factor_TS = np.ones(shape)
    if not flat:
        for s in np.flatnonzero(rng.random(S) < rate["action"] * 2):
            factor_TS[rng.integers(0, T, 2), s] = rng.choice(FACTORS, 2)
    k = draw(st.integers(1, S))
    score_TS = rng.integers(-3, 4, shape).astype(np.float64)
    order_TS = np.argsort(-score_TS, axis=1, kind="stable").astype(np.int32)
    weight_TS = np.zeros(shape)
    np.put_along_axis(weight_TS, order_TS[:, :k].astype(np.int64), 1.0 / k, axis=1)
    if draw(st.booleans()):  # the worst are sold short; where both sides meet it is the worst that counts
        short = draw(st.integers(1, S))
        np.put_along_axis(weight_TS, order_TS[:, S - short :].astype(np.int64), -1.0 / short, axis=1)
    weight_TS[rng.random(shape) < rate["idle"] / 4] = np.nan
    return {
        "buy_TS": buy_TS,
        "sell_TS": sell_TS,
        "room_TS": np.where(rng.random(shape) < rate["tight"], rng.integers(0, 200, shape), 10**9),
        "close_TS": np.where(no_bar, np.nan, close_TS),
        "factor_TS": factor_TS,
        "tax_TS": rng.choice([0, 15_000, 18_000, 30_000], shape).astype(np.int64),
        "weight_TS": weight_TS,
        "order_TS": order_TS,
        "decide_T": rng.random(T) >= rate["idle"],
        "shortable_T": rng.random(T) >= rate["idle"] / 2,
        "nights_T": rng.choice([0, 1, 1, 3, 10], T).astype(np.int64),
        "delist_S": np.where(rng.random(S) < rate["delist"], rng.integers(0, T, S), 10**6),
        "last_S": np.where(rng.random(S) < 0.5, close_TS[0], np.nan),
        "capital": draw(st.sampled_from((100_000, 3_333_333, 100_000_000))),
        "commission_rate": draw(st.sampled_from((0, 1_500, 14_053, 100_000))),
        "borrow_rate": draw(st.sampled_from((0, 250_000, 3_000_000))),
    }
