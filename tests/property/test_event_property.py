"""The event loop against a brute-force twin to the won, and what holds whatever the market and the strategy do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backtest.single import event
from pipeline.backtest.single.event import TRADE
from tests.event_cases import OPTIONS, UNWRITTEN, Case, Outcome, outcome, outcomes, random_case, scripted
from tests.naive.event_bars import bars_of
from tests.naive.event_book import Run
from tests.naive.events import Trader, drawdown

WILD = {"step": 1.0, "size": 1.0, "stops": 0.0, "stay": 0.85}  # where a short can lose everything
AWAY = (event.DELISTED, event.FRACTION)  # closed without an order


def drawn(seed: int, **fixed: Any) -> Case:
    """Draw length, options and market from one seed."""
    rng = np.random.default_rng(seed)
    options = {name: values[rng.integers(len(values))] for name, values in OPTIONS.items()}
    return random_case(rng, int(rng.integers(1, 31)), options | fixed)


@st.composite
def cases(draw: st.DrawFn, **fixed: Any) -> Case:
    """Draw halts, locked sides, tight room, actions, delistings, gaps, ticks, taxes, an account and a script."""
    options = {name: fixed[name] if name in fixed else draw(st.sampled_from(OPTIONS[name])) for name in OPTIONS}
    T = draw(st.integers(1, 30))
    return random_case(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), T, options)


def twin(case: Case) -> Run:
    return Trader(case, scripted).trade()


def rows(result: Outcome) -> list[dict[str, int]]:
    return [dict(zip(TRADE, row)) for row in result.trades]


def moments(run: Run, blocks: int) -> Any:
    """Sum the powers of the sessions' returns by block."""
    out = np.zeros((blocks, event.MOMENTS))
    for block, r in run.sessions:
        out[block] += [r, r**2, r**3, r**4]
    return out


def assert_same(result: Outcome, run: Run, case: Case) -> None:
    """Compare everything that the event loop reports, amounts to the won."""
    assert result.trades == run.trades
    assert result.prices == run.prices
    if result.equity_T.size:
        done = case.start + len(run.equity)
        assert result.equity_T[case.start : done].tolist() == run.equity
        assert (result.equity_T[: case.start] == UNWRITTEN).all()
        assert (result.equity_T[done:] == UNWRITTEN).all()
    profits = [row["profit"] for row in rows(result)]
    assert result.book == {
        "trades": len(run.trades),
        "wins": sum(p > 0 for p in profits),
        "gained": sum(p for p in profits if p > 0),
        "lost": -sum(p for p in profits if p < 0),
        "commission": run.commission,
        "tax": run.tax,
        "borrow": run.borrow,
        "held": run.held_bars,
        "equity": run.equity[-1],
    }
    assert result.worst == pytest.approx(drawdown(int(case.account[event.CAPITAL]), run.equity), rel=1e-12)
    assert result.moment_MC == pytest.approx(moments(run, case.blocks), rel=1e-9, abs=1e-15)


@settings(max_examples=500, deadline=None)
@given(cases())
def test_event_loop_equals_oracle(case: Case) -> None:
    """Trades, prices, equity, costs, drawdown and moments agree, to the won."""
    run = twin(case)
    assert_same(outcome(case), run, case)
    if case.trigger >= 0:
        assert_same(outcome(case, skip=True), run, case)


@settings(max_examples=100, deadline=None)
@given(cases(), st.booleans())
def test_same_bits_without_the_compiler(case: Case, skip: bool) -> None:
    """The compiled loop is the plain Python loop."""
    skip = skip and case.trigger >= 0
    one, two = outcome(case, skip=skip), outcome(case, plain=True, skip=skip)
    assert one[:3] == two[:3]
    assert one.worst == two.worst
    assert one.moment_MC.tobytes() == two.moment_MC.tobytes()
    assert one.equity_T.tobytes() == two.equity_T.tobytes()


@settings(max_examples=300, deadline=None)
@given(cases(triggered=True, halt=0.0, locked=0.0, tight=0.0, bad=0.0, stay=0.2, stops=0.9), st.data())
def test_bars_left_out_change_nothing(case: Case, data: st.DataObject) -> None:
    """Skipping to the next bar that wakes the strategy gives the same result, also of a part of the bars."""
    case = part_of(case, data)
    assert_same(outcome(case, skip=True), twin(case), case)


def part_of(case: Case, data: st.DataObject) -> Case:
    start = data.draw(st.integers(0, case.stop - 1))
    return replace(case, start=start, stop=data.draw(st.integers(start + 1, case.stop)))


@settings(max_examples=200, deadline=None)
@given(cases(), st.data())
def test_a_part_of_the_bars_stands_alone(case: Case, data: st.DataObject) -> None:
    """A range of bars is traded as if there were no others."""
    case = part_of(case, data)
    assert_same(outcome(case), twin(case), case)


@settings(max_examples=50, deadline=None)
@given(cases(), st.data())
def test_order_of_combinations_changes_nothing(case: Case, data: st.DataObject) -> None:
    """Each combination of a batch has the result that it has alone, at any place."""
    turn = [replace(case, p=np.array([float(k)])) for k in (1, 2, 3)]
    for k in (1, 2, 3):  # other columns for stop, target, start and trail
        turn.append(replace(case, at=np.concatenate([case.at[:1], np.roll(case.at[1:5], k), case.at[5:]])))
    batch = data.draw(st.permutations(turn))
    for alone, among in zip(map(outcome, batch), outcomes(batch)):
        assert among.book == alone.book
        assert among.worst == alone.worst
        assert among.moment_MC.tobytes() == alone.moment_MC.tobytes()


@settings(max_examples=200, deadline=None)
@given(cases())
def test_trades_explain_the_money(case: Case) -> None:
    """Profits of the trades and of what is held are the change of equity; their costs are all costs."""
    result, held = outcome(case), twin(case).position
    total = {name: sum(row[name] for row in rows(result)) for name in TRADE}
    last = float(case.price_TC[case.stop - 1, 3])
    open_profit = 0 if held is None else held.side * (event.won(held.shares * last) - held.basis)
    assert result.book["equity"] == int(case.account[event.CAPITAL]) + total["profit"] + open_profit
    assert result.book["commission"] == total["commission"] + (held.commission if held else 0)
    assert result.book["tax"] == total["tax"] + (held.tax if held else 0)
    assert result.book["borrow"] == total["borrow"]
    assert result.book["gained"] - result.book["lost"] == total["profit"]
    rest: Counter[int] = Counter()  # of each position: its parts are rounded, their sum is not
    for row in rows(result):
        assert row["entry"] <= row["exit"]
        gain = row["side"] * (row["proceeds"] - row["value"])
        rest[row["entry"]] += row["profit"] - (gain - row["commission"] - row["tax"] - row["borrow"])
    if held is None and not (case.flag_T & event.ACTION).any():
        assert set(rest.values()) <= {0}


@settings(max_examples=300, deadline=None)
@given(cases(actions=0))
def test_nothing_impossible_happens(case: Case) -> None:
    """No fill on a halt, at a locked limit, above the room or at a price that the bar does not explain."""
    result, held, bars = outcome(case), twin(case).position, bars_of(case)
    slippage = float(case.account[event.SLIPPAGE])
    filled: Counter[int] = Counter()
    entered: Counter[int] = Counter()
    for row, (entry, left) in zip(rows(result), result.prices):
        first, last, buys = bars[row["entry"]], bars[row["exit"]], row["side"] > 0
        assert not first.has(event.HALT)
        assert entry == first.slipped(first.open, slippage, up=buys)
        assert first.can_buy(first.open) if buys else first.can_sell(first.open) and not first.has(event.NO_SHORT)
        entered[row["entry"]] += row["shares"]
        if row["reason"] in AWAY:
            continue
        filled[row["exit"]] += row["shares"]
        assert not last.has(event.HALT)
        assert row["shares"] > 0
        if buys:
            assert last.slipped(last.low, slippage, up=False) <= left <= last.high
            assert last.can_sell(last.high)
        else:
            assert last.low <= left <= last.slipped(last.high, slippage, up=True)
            assert last.can_buy(last.low)
        if slippage == 0:
            assert last.can_sell(left) if buys else last.can_buy(left)
        if row["reason"] in (event.BY_SIGNAL, event.BY_TIME, event.BY_RUIN):
            assert row["exit"] > row["entry"]
            assert left == last.slipped(last.open, slippage, up=not buys)
    if held is not None:
        entered[held.opened] += held.shares
    for bar, shares in (filled + entered).items():
        assert shares <= bars[bar].room


@settings(max_examples=150, deadline=None)
@given(cases(sides=(1, 0)))
def test_cash_of_longs_is_never_negative(case: Case) -> None:
    """Who buys with cash alone owes nobody."""
    result, run = outcome(case), twin(case)
    assert result.trades == run.trades
    assert min(run.cash) >= 0
    assert min(run.equity) >= 0
    assert all(row["side"] == 1 for row in rows(result))


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1), st.data())
def test_the_future_changes_nothing_before_it(case: Case, seed: int, data: st.DataObject) -> None:
    """Other bars, rules and columns after t leave equity and trades up to t as they were; so does the end at t."""
    T = case.stop
    t = data.draw(st.integers(0, T - 1))
    other = replace(random_case(np.random.default_rng(seed), T, {n: v[-1] for n, v in OPTIONS.items()}), at=case.at)
    changed = replace(
        case, **{n: getattr(case, n).copy() for n in ("price_TC", "flag_T", "rule_TC", "fact_TC", "x_UT")}
    )
    for name in ("price_TC", "flag_T", "rule_TC", "fact_TC"):
        getattr(changed, name)[t + 1 :] = getattr(other, name)[t + 1 :]
    changed.x_UT[:, t + 1 :] = np.roll(case.x_UT, 3, axis=1)[:, t + 1 :]
    full = outcome(case)
    before = [trade for trade in full.trades if trade[1] <= t]
    for result in (outcome(changed), outcome(replace(case, stop=t + 1))):
        assert result.equity_T[: t + 1].tolist() == full.equity_T[: t + 1].tolist()
        assert [trade for trade in result.trades if trade[1] <= t] == before


def test_random_cases_reach_every_rule() -> None:
    """The properties above are not empty: each reason, partial fills, reversals, entries and exits of one bar occur."""
    seen: Counter[str] = Counter()
    for seed in range(1_500):
        case = drawn(seed, **(WILD if seed % 3 == 0 else {}))
        trades = rows(outcome(case))
        flags = case.flag_T
        for n, row in enumerate(trades):
            seen[event.REASONS[row["reason"]]] += 1
            seen["long" if row["side"] > 0 else "short"] += 1
            seen["within a bar"] += row["entry"] == row["exit"]
            seen["through an action"] += bool((flags[row["entry"] + 1 : row["exit"] + 1] & event.ACTION).any())
            seen["over a halt"] += bool((flags[row["entry"] : row["exit"]] & event.HALT).any())
            seen["borrowed"] += row["borrow"] > 0
            if n and trades[n - 1]["entry"] == row["entry"]:
                seen["in parts"] += 1
            if n and trades[n - 1]["exit"] == row["entry"] and trades[n - 1]["side"] != row["side"]:
                seen["reversed"] += 1
    wanted = {
        *event.REASONS,
        "long",
        "short",
        "within a bar",
        "through an action",
        "over a halt",
        "borrowed",
        "in parts",
    }
    assert {name: seen[name] for name in wanted | {"reversed"} if seen[name] < 5} == {}
