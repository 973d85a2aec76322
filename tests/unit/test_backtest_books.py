"""What is read out of a ledger: shares, positions, costs, exposures, capacity, factors, and the analysis of it all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backtest.analysis.analyse import analyse
from pipeline.backtest.analysis.capacity import capacity, equity_at_cap, impact_bp, unfilled, volatility
from pipeline.backtest.analysis.exposure import (
    benchmark_weights,
    concentration,
    exposure,
    market_values,
    sectors,
    size_quantiles,
)
from pipeline.backtest.analysis.study import study
from pipeline.backtest.portfolio import books
from pipeline.backtest.portfolio.benchmark import benchmark
from pipeline.backtest.portfolio.engine import _trades
from pipeline.backtest.portfolio.factors import CLASSIC, scores, trade_quantiles
from pipeline.backtest.portfolio.kernel import Ledger
from pipeline.backtest.portfolio.market import Market, load
from pipeline.backtest.portfolio.numbers import numbers_of
from pipeline.backtest.portfolio.positions import closed_positions
from pipeline.backtest.portfolio.targets import Targets, trade, wanted
from pipeline.backtest.section import BacktestError, BacktestSection
from pipeline.indicators import IndicatorError, compute
from pipeline.receipt import Receipt
from tests.stage_directories import World
from tests.unit.test_backtest_analysis import BEFORE, NAN, walk

T, S = 90, 40
SECTION = BacktestSection(mode="top_k", k=8, rebalance=5, capital=50_000_000)
BOTH = BacktestSection(mode="top_k", k=8, rebalance=5, capital=50_000_000, direction="long_short")


def receipt_of(folder: Path) -> Receipt:
    """A market with a split into fractions, halts, a delisting, sectors and shares."""
    close = walk(T, S, 1)
    opened = np.rint(np.vstack([close[:1], close[:-1]]) / 10) * 10
    volume = np.random.default_rng(2).lognormal(7, 1, (T, S)).round()
    close[50:, 1] = np.rint(close[50:, 1] / 13) * 10
    opened[50:, 1] = np.rint(opened[50:, 1] / 13) * 10
    volume[33:36, 2] = 0
    close[70:, 3] = NAN
    world = World([f"{i:05d}0" for i in range(S)], close, opened, volume)
    world.actions = [("000010", str(world.days[50]), 1.3)]
    facts: dict[str, dict[str, Any]] = {
        symbol: {"sector": ("banks", "ships", "chips")[i % 3], "shares": 1e6 * (i + 1)}
        for i, symbol in enumerate(world.symbols)
    }
    facts["000030"]["delisted"] = world.days[70].item()
    facts["000070"]["sector"] = ""
    world.facts = facts
    return Receipt.load(world.write(folder))


@pytest.fixture(scope="module")
def receipt(tmp_path_factory: pytest.TempPathFactory) -> Receipt:
    return receipt_of(tmp_path_factory.mktemp("books"))


@pytest.fixture(scope="module")
def market(receipt: Receipt) -> Market:
    return load(receipt, BEFORE, None, SECTION)


def score(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(T, S))


def run(market: Market, section: BacktestSection) -> tuple[Targets, Ledger]:
    targets = wanted(market, np.where(np.isfinite(market.print_TS), score(), NAN), section, "top_k")
    return targets, trade(market, targets, section)


@pytest.mark.parametrize("section", [SECTION, BOTH], ids=["long", "both"])
def test_shares_and_values_are_those_that_the_engine_kept(market: Market, section: BacktestSection) -> None:
    _, ledger = run(market, section)
    shares = books.held(ledger, market)
    value = books.values(shares, market)
    assert np.array_equal(np.abs(value).sum(axis=1), ledger.gross_T)
    assert np.array_equal(-np.minimum(value, 0).sum(axis=1), ledger.short_T)
    assert np.array_equal((shares != 0).sum(axis=1), ledger.positions_T)
    assert np.array_equal(ledger.cash_T + value.sum(axis=1), ledger.equity_T)
    assert (shares[:, 1] != 0).any()  # the symbol that split was held


@pytest.mark.parametrize("section", [SECTION, BOTH], ids=["long", "both"])
def test_positions_are_those_that_the_trades_tell(market: Market, section: BacktestSection) -> None:
    _, ledger = run(market, section)
    slow = closed_positions(_trades(ledger, market))
    fast = books.positions(ledger)
    at = {ts.item(): t for t, ts in enumerate(market.ts_T)}
    rows = [(p.symbol, at[p.opened.replace(tzinfo=None)], at[p.closed.replace(tzinfo=None)], p.profit) for p in slow]
    assert rows == [
        (market.symbols[s], a, b, profit) for s, a, b, profit in zip(fast.symbol, fast.opened, fast.closed, fast.profit)
    ]
    assert len(fast.open_P) == ledger.positions_T[-1]
    told = books.holding(fast)
    sessions = [b - a for _, a, b, _ in rows]
    assert told["closed"] == len(rows) and told["mean"] == pytest.approx(np.mean(sessions))
    assert told["quartiles"][1] == np.median(sessions)


def test_costs_and_numbers_explain_the_money(market: Market) -> None:
    _, ledger = run(market, BOTH)
    spent = books.costs(ledger, market, True)
    assert set(spent) == {"commission", "tax", "slippage", "borrow"} and all(v > 0 for v in spent.values())
    shares = books.cost_shares(spent, ledger, 252)
    assert shares["tax"]["bp_of_traded"] == pytest.approx(1e4 * spent["tax"] / ledger.traded_T.sum())
    assert shares["tax"]["a_year"] == pytest.approx(spent["tax"] / ledger.equity_T.mean() * 252 / T)
    found, _ = numbers_of(ledger, market, benchmark(market, BOTH.capital), shorts=True)
    assert found["costs"] == {**spent, "total": sum(spent.values())}
    assert found["closed_positions"] == len(books.positions(ledger).profit)


def test_exposures_add_up_and_groups_are_those_of_the_facts(receipt: Receipt, market: Market) -> None:
    _, ledger = run(market, BOTH)
    facts = receipt.opened.read("symbols", symbols=receipt.symbols, source=receipt.source)
    groups = sectors(facts, market)
    assert groups.names == ("banks", "chips", "ships")
    assert (groups.code_TS[:, 7] == -1).all() and (groups.code_TS[:, 4] == 2).all()
    value, equity = books.values(books.held(ledger, market), market), ledger.equity_T.astype(float)
    found = exposure(value, equity, groups, benchmark_weights(market, "equal"))
    assert found.net_TG.sum(axis=1) == pytest.approx((ledger.gross_T - 2 * ledger.short_T) / equity)
    assert (found.long_TG - found.short_TG).sum(axis=1) == pytest.approx(ledger.gross_T / equity)
    assert found.benchmark_TG.sum(axis=1) == pytest.approx(1.0)
    ships = np.array([i % 3 == 1 and i != 7 for i in range(S)])
    assert found.net_TG[:, 2] == pytest.approx(value[:, ships].sum(axis=1) / equity)
    assert found.benchmark_TG[-1, 2] == pytest.approx(ships.sum() / (S - 1))  # one is delisted


def test_sizes_are_quintiles_of_the_market_value(market: Market) -> None:
    value = market_values(market)
    assert value[-1, 5] == 6e6 * market.close_TS[-1, 5]
    assert value[10, 1] == pytest.approx(2e6 / 1.3 * market.close_TS[10, 1])  # told after the split
    code = size_quantiles(value).code_TS
    here = np.isfinite(value[20])
    assert np.bincount(code[20, here]).tolist() == [here.sum() // 5] * 5
    assert value[20, code[20] == 4].min() >= value[20, code[20] == 3].max()
    weights = benchmark_weights(market, "cap")
    assert weights[20] == pytest.approx(value[20] / value[20].sum())
    assert weights[80, 3] == 0.0
    unknown = size_quantiles(np.full((2, 5), NAN))
    assert (unknown.code_TS == -1).all()


def test_concentration_counts_equal_positions() -> None:
    assert concentration(np.array([[1.0, 1.0, -1.0, 1.0], [0, 0, 0, 0], [3, 1, 0, 0]])) == pytest.approx(
        [4.0, NAN, 1.6], nan_ok=True
    )


def test_capacity_is_where_the_mean_order_fills_its_room(market: Market) -> None:
    targets, ledger = run(market, SECTION)
    rows = ledger.trades_NC[books.ordered(ledger)]
    before = np.concatenate([ledger.equity_T[:1], ledger.equity_T[:-1]])
    shares = [row[books.SHARES] / market.room_TS[row[books.T_], row[books.S_]] / before[row[books.T_]] for row in rows]
    equity, n = equity_at_cap(ledger, market)
    assert n == len(rows) and equity == pytest.approx(1 / np.mean(shares))
    assert max(s * b for s, b in zip(shares, before[rows[:, books.T_]])) <= 1.0
    found = capacity(market, targets, SECTION, ledger)
    small, ten, hundred = found["scales"]
    assert found["equity"] == equity and small["capital"] == SECTION.capital
    assert small["unfilled"] < ten["unfilled"] < hundred["unfilled"] <= 1.0
    assert small["mean_participation"] < hundred["mean_participation"] <= SECTION.participation
    assert small["impact_bp"] < ten["impact_bp"]
    assert small == capacity(market, targets, SECTION, ledger, (1,))["scales"][0]


def test_what_more_money_cannot_buy(market: Market) -> None:
    """One symbol, all of equity: what is held at the end is what volumes let in."""
    weight = np.zeros((T, S))
    weight[0, 9] = 1.0
    decide = np.zeros(T, bool)
    decide[0] = True
    targets = Targets(weight, np.tile(np.arange(S, dtype=np.int32), (T, 1)), decide)
    section = SECTION.model_copy(update={"capital": 10**11})
    ledger = trade(market, targets, section)
    held = books.held(ledger, market)[-1, 9]
    asked = 10**11 // market.close_TS[0, 9]
    assert 0 < held < asked
    assert unfilled(market, targets, ledger) == pytest.approx(1 - held / asked)
    assert unfilled(market, targets._replace(decide_T=np.zeros(T, bool)), ledger) is None


def test_impact_is_the_square_root_law_and_volatility_sees_only_the_past(market: Market) -> None:
    assert impact_bp(np.array([100.0]), np.array([10_000.0]), np.array([0.02]))[0] == pytest.approx(20.0)
    found = volatility(market, 20)
    r = np.diff(np.log(market.close_TS[:, 5]))
    assert np.isnan(found[19, 5]) and found[20, 5] == pytest.approx(np.std(r[:20], ddof=1))
    assert found[60, 5] == pytest.approx(np.std(r[40:60], ddof=1))
    assert abs(found[55, 1]) < 0.05  # a split is no move


def test_scores_are_the_columns_of_the_library(receipt: Receipt, market: Market) -> None:
    found = scores(receipt, CLASSIC, market, threads=2)
    assert list(found) == ["roc_20", "rsi_14", "bollinger_percent_b_20_2", "macd_histogram_12_26_9_over_close"]
    assert all(x.shape == (T, S) and x.dtype == np.float32 for x in found.values())
    bars = receipt.bars("1d", symbols=["000050"]).to_pandas()
    alone = compute(bars, CLASSIC)
    for name, x in found.items():
        assert np.array_equal(x[:, 5], alone[name].to_numpy(), equal_nan=True)
    momentum = found["roc_20"]
    basis = np.cumprod(market.factor_TS[:, 1])
    close = market.close_TS[:, 1] * basis
    assert momentum[60, 1] == pytest.approx(close[60] / close[40] - 1, rel=1e-6)
    assert np.isnan(momentum[33:36, 2]).all()  # halted
    early = load(receipt, market.ts_T[30].item().replace(tzinfo=BEFORE.tzinfo), None, SECTION)
    late = scores(receipt, CLASSIC, early)
    assert np.array_equal(late["roc_20"], momentum[30:], equal_nan=True)  # read from the bars before as well
    with pytest.raises(BacktestError, match="own daily bars"):
        scores(receipt, [{"indicator": "rsi", "at": "1w"}], market)
    with pytest.raises(IndicatorError, match="known indicator"):
        scores(receipt, [{"indicator": "no"}], market)


def test_quantile_portfolios_hold_their_quantile_and_threads_change_nothing(market: Market) -> None:
    decide = np.zeros(T, bool)
    decide[::20] = True
    found = trade_quantiles(market, score(), decide, SECTION, parts=4, threads=1)
    again = trade_quantiles(market, score(), decide, SECTION, parts=4, threads=3)
    for one, other in zip(found, again):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))
    order = np.argsort(score()[0])
    held = books.held(found[0], market)[19]
    assert set(np.flatnonzero(held)) == set(order[:10])
    weights = books.values(books.held(found[3], market), market)[19] / found[3].equity_T[19]
    assert weights[order[30:]] == pytest.approx(0.1, abs=0.03)


def test_a_study_is_the_sum_of_its_parts(receipt: Receipt, market: Market) -> None:
    section = BacktestSection(rebalance="monthly", capital=50_000_000)
    found = study(receipt, CLASSIC[:2], section, BEFORE, parts=5, threads=2)
    assert len(found) == 2
    for one in found.values():
        assert len(one.portfolios) == 5 and len(one.returns["mean"]) == 5
        assert all(portfolio["sessions"] == T for portfolio in one.portfolios)
        assert one.returns["spread_t"] is None  # three months


def test_the_analysis_is_strict_json_and_says_what_it_cannot(receipt: Receipt, market: Market) -> None:
    targets, ledger = run(market, SECTION)
    facts = receipt.opened.read("symbols", symbols=receipt.symbols, source=receipt.source)
    known = np.where(np.isfinite(market.print_TS), score(), NAN)
    found, course = analyse(market, known, targets, ledger, SECTION, facts)
    json.dumps(found, allow_nan=False)
    assert set(found["exposure"]) == {"sector", "size"} and course.num_rows == T
    assert len(found["quantiles"]["mean"]) == 10 and found["span"] == 5
    assert found["decay"]["horizon"][0] == 1 and max(found["decay"]["horizon"]) <= T - 21
    assert found["exposure"]["sector"]["names"] == ["banks", "chips", "ships", ""]
    few = known.copy()
    few[:, 12:] = NAN
    none, course = analyse(market, few, targets, ledger, SECTION, facts.slice(0, 0))
    json.dumps(none, allow_nan=False)
    assert none["quantiles"] is None and none["decay"] is None and "q1" not in course.column_names
    assert "sector" not in none["exposure"] and "0%" in none["reasons"]["sector"]
    assert "needs 20 symbols" in none["reasons"]["quantiles"]
    assert not math.isnan(none["capacity"]["scales"][0]["unfilled"])
