"""The engine against a slow, obvious twin to the won, and the identities that hold whatever the market does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backtest.money import RATE, affordable, covered, fee, portion
from pipeline.backtest.portfolio import kernel
from pipeline.backtest.portfolio.kernel import COLUMNS, Ledger, simulate
from pipeline.backtest.portfolio.orders import BUY, COVER, DELISTED, FRACTION, GONE, REST, SELL, SHORT

from .portfolios import Case, markets, oracle

PRICES = ("buy_TS", "sell_TS", "close_TS")


def _tuples(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [(*map(int, row), float(price)) for row, price in zip(ledger.trades_NC, ledger.price_N)]


def _sign(side: int) -> int:
    """Return 1 where a trade brings cash."""
    return -1 if side in (BUY, COVER) else 1


@settings(max_examples=400, deadline=None)
@given(markets())
def test_engine_equals_oracle(case: Case) -> None:
    """Trades, cash, borrowing and tax agree to the won, bar by bar."""
    ledger = simulate(**case)
    equity, cash, borrow, trades = oracle(case)
    assert [t[:-1] for t in _tuples(ledger)] == [t[:-1] for t in trades]
    assert [t[-1] for t in _tuples(ledger)] == pytest.approx([t[-1] for t in trades], rel=1e-12)
    assert ledger.cash_T.tolist() == cash
    assert ledger.borrow_T.tolist() == borrow
    assert ledger.equity_T.tolist() == equity


@settings(max_examples=150, deadline=None)
@given(markets())
def test_nothing_impossible_happens(case: Case) -> None:
    """No order takes cash below zero, none buys with what is set aside for shorts; nothing fills on a halt, at a locked
    limit or above the room, no short is opened in a ban.
    """
    ledger = simulate(**case)
    assert (ledger.gross_T >= ledger.short_T).all() and (ledger.short_T >= 0).all()
    if not (case["weight_TS"] < 0).any():
        assert (ledger.cash_T >= 0).all()
        assert not ledger.borrow_T.any() and not ledger.short_T.any()
    cash, at, used = case["capital"], -1, np.zeros(len(case["delist_S"]), np.int64)
    for row, price in zip(ledger.trades_NC, ledger.price_N):
        trade = dict(zip(COLUMNS, row.tolist()))
        t, s, side = trade["t"], trade["s"], trade["side"]
        while at < t:
            at += 1
            cash -= int(ledger.borrow_T[at])
            used[:] = 0
        cash += _sign(side) * trade["value"] - trade["commission"] - trade["tax"]
        assert price > 0
        assert t <= case["delist_S"][s]
        assert trade["left"] <= 0 if side in (SHORT, COVER) else trade["left"] >= 0
        assert trade["tax"] == 0 or side in (SELL, SHORT, DELISTED)
        if trade["reason"] < GONE:
            prices = case["buy_TS"] if side in (BUY, COVER) else case["sell_TS"]
            used[s] += trade["shares"]
            assert price == prices[t, s]
            assert trade["shares"] > 0 and used[s] <= case["room_TS"][t, s]
            assert cash >= 0 or side in (SELL, SHORT)
            assert side != SHORT or case["shortable_T"][t]
    kind = {FRACTION: 0, SELL: 1, COVER: 2, SHORT: 3, BUY: 4, DELISTED: 5}
    phase = [
        (t, {GONE: 5, REST: 0}.get(reason, kind[side])) for t, side, reason in ledger.trades_NC[:, [0, 2, 7]].tolist()
    ]
    assert phase == sorted(phase)  # within a session: actions, sells, buy-backs, short sales, buys, delistings


@settings(max_examples=150, deadline=None)
@given(markets())
def test_what_is_opened_is_covered(case: Case) -> None:
    """After a short sale shorts are worth at most the equity of the last close; after a purchase cash covers what is
    set aside for them (shorts at their last price, new ones at their fill).
    """
    ledger = simulate(**case)
    T = len(ledger.equity_T)
    for t in range(1, T):
        rows = ledger.trades_NC[ledger.trades_NC[:, 0] == t]
        sides = set(rows[:, 2].tolist())
        acted = (case["factor_TS"][t] != 1.0).any()
        gone = (case["delist_S"] == t).any()
        if SHORT in sides and COVER not in sides and not acted and not gone:
            fresh = rows[rows[:, 2] == SHORT, 4].sum()
            assert ledger.short_T[t - 1] + fresh <= ledger.equity_T[t - 1]
            if BUY in sides:
                assert ledger.cash_T[t] >= ledger.short_T[t - 1] + fresh
        elif BUY in sides and not sides & {SHORT, COVER} and not acted and not gone:
            assert ledger.cash_T[t] >= ledger.short_T[t - 1]


@settings(max_examples=150, deadline=None)
@given(markets())
def test_trades_explain_cash(case: Case) -> None:
    """Replaying the trades and what borrowing cost gives the cash, the costs and the profit of every session."""
    ledger = simulate(**case)
    column = dict(zip(COLUMNS, ledger.trades_NC.T))
    sign = np.array([_sign(side) for side in column["side"]], np.int64)
    flow = sign * column["value"] - column["commission"] - column["tax"]
    T = len(ledger.cash_T)
    per_session = -ledger.borrow_T
    np.add.at(per_session, column["t"], flow)
    assert (case["capital"] + np.cumsum(per_session) == ledger.cash_T).all()
    assert (ledger.equity_T == ledger.cash_T + ledger.gross_T - 2 * ledger.short_T).all()
    for name, total_T in (("commission", ledger.commission_T), ("tax", ledger.tax_T)):
        again = np.zeros(T, np.int64)
        np.add.at(again, column["t"], column[name])
        assert (again == total_T).all()
    if ledger.positions_T[-1] == 0:  # all is closed: what was realised is what was gained
        assert case["capital"] + column["realised"].sum() == ledger.cash_T[-1]


@settings(max_examples=100, deadline=None)
@given(markets(flat=True))
def test_money_is_conserved_when_prices_stand_still(case: Case) -> None:
    """Cash + longs - shorts + costs is the capital after every session, to the won."""
    ledger = simulate(**case)
    costs = np.cumsum(ledger.commission_T + ledger.tax_T + ledger.borrow_T)
    assert (ledger.cash_T + ledger.gross_T - 2 * ledger.short_T + costs == case["capital"]).all()


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "compiled", lambda function, *_, **__: function)
        plain = simulate(**case)
    for a, b, c in zip(one, two, plain):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_commission_is_exact_for_the_largest_amounts() -> None:
    """value * rate would overflow 64 bits; the split multiplication does not."""
    for value in (0, 1, 9_999_999, 10_000_001, 9 * 10**18):
        assert fee(value, 23_000) == value * 23_000 // RATE


@settings(max_examples=300, deadline=None)
@given(
    wanted=st.integers(1, 10**7),
    price=st.sampled_from((0.01, 0.25, 1.0, 999.5, 3_333_333.0)),
    rate=st.sampled_from((0, 1_500, 100_000)),
    near=st.integers(-3, 3),
)
def test_cash_covers_what_it_pays_for(wanted: int, price: float, rate: int, near: int) -> None:
    """The quick answer for cash that pays for everything is the slow one, also on the edge."""
    value = int(wanted * price + 0.5)
    for cash in (value + fee(value, rate) + near, value // 2, 10 * value + 10, near):
        assert covered(wanted, cash, price, rate) == min(wanted, affordable(cash, price, rate))


@settings(max_examples=300, deadline=None)
@given(st.integers(-(2**62), 2**62), st.integers(1, 2**40), st.data())
def test_a_portion_is_exact(amount: int, whole: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, whole))
    assert portion(amount, part, whole) == amount * part // whole


def test_the_log_grows_without_a_trace() -> None:
    """More trades than wishes: what little may be traded in a session makes a trade of each."""
    T, S = 200, 2
    price, none = np.full((T, S), 10.0), np.zeros((T, S))
    weight = none.copy()
    weight[0] = 0.5
    ledger = simulate(
        buy_TS=price,
        sell_TS=price,
        room_TS=np.ones((T, S), np.int64),
        close_TS=price,
        factor_TS=np.ones((T, S)),
        tax_TS=np.zeros((T, S), np.int64),
        weight_TS=weight,
        order_TS=np.tile(np.arange(S, dtype=np.int32), (T, 1)),
        decide_T=np.arange(T) == 0,
        shortable_T=np.ones(T, bool),
        nights_T=np.ones(T, np.int64),
        delist_S=np.full(S, T),
        last_S=np.full(S, np.nan),
        capital=10**6,
        commission_rate=0,
        borrow_rate=0,
    )
    assert ledger.trades_NC[:, COLUMNS.index("t")].tolist() == np.repeat(np.arange(1, T), S).tolist()
    assert ledger.trades_NC[:, COLUMNS.index("left")].tolist() == np.repeat(np.arange(1, T), S).tolist()
    assert (ledger.price_N == 10.0).all()
