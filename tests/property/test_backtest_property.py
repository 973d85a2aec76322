"""The engine against a slow, obvious twin to the won, and the identities that hold whatever the market does."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from math import floor, isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backtest import kernel
from pipeline.backtest.kernel import COLUMNS, RATE, Ledger, simulate

Case = dict[str, Any]
PRICES = ("buy_TS", "sell_TS", "close_TS")
FACTORS = (2.0, 5.0, 0.2, 0.1, 1.5, 10 / 3, 0.7)


def _tuples(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [(*map(int, row), float(price)) for row, price in zip(ledger.trades_NC, ledger.price_N)]


def _exact(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1000)


def oracle(case: Case) -> tuple[list[int], list[int], list[tuple[Any, ...]]]:
    """Keep the books in whole numbers and fractions, one symbol and one event at a time: equity, cash and trades."""
    T, S = case["close_TS"].shape
    cash = case["capital"]
    held = dict.fromkeys(range(S), 0)
    wanted = dict.fromkeys(range(S), 0)
    spent = dict.fromkeys(range(S), 0)
    last: dict[int, Any] = {s: None if isnan(case["last_S"][s]) else _exact(case["last_S"][s]) for s in range(S)}
    queue = list(range(S))
    equity_T, cash_T, trades = [], [], []

    def whole_won(amount: Fraction) -> int:
        return floor(amount + Fraction(1, 2))

    def part(value: int, rate: int) -> int:
        return int(value) * int(rate) // RATE

    def cost_of(shares: int, price: Fraction) -> int:
        value = whole_won(shares * price)
        return value + part(value, case["commission_rate"])

    for t in range(T):
        for s in range(S):
            factor = _exact(case["factor_TS"][t, s])
            if factor == 1:
                continue
            if last[s] is not None:
                last[s] /= factor
            wanted[s] = floor(wanted[s] * factor)
            if held[s]:
                whole = floor(held[s] * factor)
                paid = floor((held[s] * factor - whole) * last[s])
                cash += paid
                held[s] = whole
                profit = 0
                spent[s] -= paid
                if whole == 0:
                    profit, spent[s] = -spent[s], 0
                if paid or whole == 0:
                    trades.append((t, s, 3, 0, paid, 0, 0, 4, profit, whole, float(last[s])))
        for s in range(S):
            price = case["sell_TS"][t, s]
            n = min(held[s] - wanted[s], int(case["room_TS"][t, s]))
            if n > 0 and not isnan(price):
                value = whole_won(n * _exact(price))
                commission, tax = part(value, case["commission_rate"]), part(value, case["tax_TS"][t, s])
                basis = floor(Fraction(spent[s] * n, held[s]))
                held[s] -= n
                spent[s] -= basis
                cash += value - commission - tax
                reason = 1 if wanted[s] else 2
                trades.append(
                    (t, s, 1, n, value, commission, tax, reason, value - commission - tax - basis, held[s], price)
                )
        for s in queue:
            price = case["buy_TS"][t, s]
            n = min(wanted[s] - held[s], int(case["room_TS"][t, s]))
            if n > 0 and not isnan(price):
                exact = _exact(price)
                n = bisect_right(range(n + 1), cash, key=lambda m, p=exact: cost_of(m, p)) - 1
                if n > 0:
                    value = whole_won(n * exact)
                    reason = 1 if held[s] else 0
                    cash -= cost_of(n, exact)
                    spent[s] += cost_of(n, exact)
                    held[s] += n
                    trades.append(
                        (t, s, 0, n, value, part(value, case["commission_rate"]), 0, reason, 0, held[s], price)
                    )
        for s in range(S):
            if not isnan(case["close_TS"][t, s]):
                last[s] = _exact(case["close_TS"][t, s])
            if case["delist_S"][s] == t:
                if held[s]:
                    value = whole_won(held[s] * last[s])
                    commission, tax = part(value, case["commission_rate"]), part(value, case["tax_TS"][t, s])
                    cash += value - commission - tax
                    profit = value - commission - tax - spent[s]
                    trades.append((t, s, 2, held[s], value, commission, tax, 3, profit, 0, float(last[s])))
                held[s] = wanted[s] = spent[s] = 0
        equity = cash + sum(whole_won(held[s] * last[s]) for s in range(S) if held[s])
        equity_T.append(equity)
        cash_T.append(cash)
        if case["decide_T"][t]:
            queue = [int(s) for s in case["order_TS"][t]]
            for s in range(S):
                share = _exact(case["weight_TS"][t, s])
                gone = case["delist_S"][s] <= t or last[s] is None
                wanted[s] = 0 if gone or share <= 0 else floor(equity * share / last[s])
    return equity_T, cash_T, trades


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
        "delist_S": np.where(rng.random(S) < rate["delist"], rng.integers(0, T, S), 10**6),
        "last_S": np.where(rng.random(S) < 0.5, close_TS[0], np.nan),
        "capital": draw(st.sampled_from((100_000, 3_333_333, 100_000_000))),
        "commission_rate": draw(st.sampled_from((0, 1_500, 14_053, 100_000))),
    }


@settings(max_examples=400, deadline=None)
@given(markets())
def test_engine_equals_oracle(case: Case) -> None:
    """Trades, cash and tax agree to the won, bar by bar."""
    ledger = simulate(**case)
    equity, cash, trades = oracle(case)
    assert [t[:-1] for t in _tuples(ledger)] == [t[:-1] for t in trades]
    assert [t[-1] for t in _tuples(ledger)] == pytest.approx([t[-1] for t in trades], rel=1e-12)
    assert ledger.cash_T.tolist() == cash
    assert ledger.equity_T.tolist() == equity


@settings(max_examples=150, deadline=None)
@given(markets())
def test_nothing_impossible_happens(case: Case) -> None:
    """Cash and shares never go below zero; nothing fills on a halt, at a locked limit or above the room."""
    ledger = simulate(**case)
    assert (ledger.cash_T >= 0).all()
    assert (ledger.gross_T >= 0).all()
    for row, price in zip(ledger.trades_NC, ledger.price_N):
        trade = dict(zip(COLUMNS, row.tolist()))
        t, s = trade["t"], trade["s"]
        assert trade["left"] >= 0
        assert price > 0
        if trade["side"] in (kernel.BUY, kernel.SELL):
            side = case["buy_TS"] if trade["side"] == kernel.BUY else case["sell_TS"]
            assert price == side[t, s]
            assert 0 < trade["shares"] <= case["room_TS"][t, s]
        assert t <= case["delist_S"][s]
    order = [
        (t, {kernel.FRACTION: 0, kernel.SELL: 1, kernel.BUY: 2, kernel.DELISTED: 3}[side])
        for t, side in ledger.trades_NC[:, [0, 2]]
    ]
    assert order == sorted(order)  # within a session: actions, sells, buys, delistings


@settings(max_examples=150, deadline=None)
@given(markets())
def test_trades_explain_cash(case: Case) -> None:
    """Replaying the trades gives the cash, the costs and the profit of every session."""
    ledger = simulate(**case)
    column = dict(zip(COLUMNS, ledger.trades_NC.T))
    sign = np.where(column["side"] == kernel.BUY, -1, 1)
    flow = sign * column["value"] - column["commission"] - column["tax"]
    T = len(ledger.cash_T)
    per_session = np.zeros(T, np.int64)
    np.add.at(per_session, column["t"], flow)
    assert (case["capital"] + np.cumsum(per_session) == ledger.cash_T).all()
    assert (ledger.equity_T == ledger.cash_T + ledger.gross_T).all()
    for name, total_T in (("commission", ledger.commission_T), ("tax", ledger.tax_T)):
        again = np.zeros(T, np.int64)
        np.add.at(again, column["t"], column[name])
        assert (again == total_T).all()
    if ledger.positions_T[-1] == 0:  # all is sold: what was realised is what was gained
        assert case["capital"] + column["realised"].sum() == ledger.cash_T[-1]


@settings(max_examples=100, deadline=None)
@given(markets(flat=True))
def test_money_is_conserved_when_prices_stand_still(case: Case) -> None:
    """Cash + holdings + costs is the capital after every session, to the won."""
    ledger = simulate(**case)
    costs = np.cumsum(ledger.commission_T + ledger.tax_T)
    assert (ledger.cash_T + ledger.gross_T + costs == case["capital"]).all()


@settings(max_examples=100, deadline=None)
@given(markets(), st.data())
def test_the_future_changes_nothing_before_it(case: Case, data: st.DataObject) -> None:
    """Cutting or poisoning the sessions after t leaves everything up to t as it was."""
    full = simulate(**case)
    t = data.draw(st.integers(1, len(case["decide_T"])))
    cut = {k: v[:t] if k.endswith(("_TS", "_T")) else v for k, v in case.items()}
    poisoned = {k: v.copy() if k.endswith(("_TS", "_T")) else v for k, v in case.items()}
    for name in PRICES:
        poisoned[name][t:] *= 7.0
    poisoned["weight_TS"][t:] = 0.0
    poisoned["factor_TS"][t:] = 3.0
    for other in (simulate(**cut), simulate(**poisoned)):
        assert (other.equity_T[:t] == full.equity_T[:t]).all()
        assert (other.cash_T[:t] == full.cash_T[:t]).all()
        before = [row for row in _tuples(full) if row[0] < t]
        assert [row for row in _tuples(other) if row[0] < t] == before


@settings(max_examples=30, deadline=None)
@given(markets())
def test_same_bits_every_time_and_without_the_compiler(case: Case) -> None:
    """The compiled engine is the plain Python loop, and runs twice alike."""
    one, two = simulate(**case), simulate(**case)
    plain = Ledger(*kernel._simulate(**case))
    for a, b, c in zip(one, two, plain):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_commission_is_exact_for_the_largest_amounts() -> None:
    """value * rate would overflow 64 bits; the split multiplication does not."""
    for value in (0, 1, 9_999_999, 10_000_001, 9 * 10**18):
        assert kernel.fee(value, 23_000) == value * 23_000 // RATE
