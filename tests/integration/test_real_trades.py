"""Trades on real bars: the twin's to the won, and what a trader can recompute with the bars and a pencil alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import krx
from pipeline.backtest import instruments
from pipeline.backtest.single.chunks import MEMORY, chunks, span, task_of
from pipeline.backtest.single.event import REASONS
from pipeline.backtest.single.samples import one
from pipeline.strategies import ALL, Strategy, moving_average_cross
from tests.event_cases import Case
from tests.naive.averages import ema
from tests.naive.events import Trader
from tests.naive.momentum import rsi
from tests.naive.volatility import atr
from tests.real_markets import SPLIT, Array, Market, real_markets

AT_OPEN = ("signal", "time", "ruin")
MONEY = ("value", "proceeds", "commission", "tax", "borrow", "profit")


@pytest.fixture(scope="module")
def markets(market_data: Path) -> dict[str, Market]:
    return real_markets(market_data)


CASES = [(name, which, lively) for name in ("coin", "currency", "stock") for which in ALL for lively in (False, True)]
IDS = [f"{name}-{which.name}-{'lively' if lively else 'usual'}" for name, which, lively in CASES]
every = pytest.mark.parametrize(("name", "which", "lively"), CASES, ids=IDS)


def case_of(market: Market, which: Strategy, lively: bool) -> Case:
    (each,) = instruments(market.bars, market.account, **market.given)
    (chunk,) = chunks(each, one(which, market.values(which, lively)), MEMORY, 1)
    task = task_of(each, which, chunk, span(each, which), market.account.array())
    shared = {field.name: getattr(task, field.name) for field in fields(Case) if hasattr(task, field.name)}
    return Case(**shared, at=chunk.at_CJ[0], p=chunk.p_CP[0])


def units(values: Any, unit: float) -> list[int]:
    """Return amounts of money, or shares, as whole numbers of the smallest unit."""
    return [round(value / unit) for value in values]


@every
def test_trades_are_those_of_the_twin(markets: dict[str, Market], name: str, which: Strategy, lively: bool) -> None:
    market = markets[name]
    account, found = market.account, market.run(which, lively)
    twin = Trader(case_of(market, which, lively), which.step).trade()
    told = found.trades
    columns = [
        told["entry"], told["exit"], [1 if side == "long" else -1 for side in told["side"]],
        units(told["shares"], account.lot), *(units(told[money], account.unit) for money in MONEY),
        [REASONS.index(reason) for reason in told["reason"]],
    ]  # fmt: skip
    assert list(zip(*columns)) == twin.trades and len(twin.trades) > 2
    prices = [[price * account.unit / account.lot for price in pair] for pair in twin.prices]
    assert told[["entry_price", "exit_price"]].to_numpy() == pytest.approx(np.array(prices), rel=1e-15)
    assert units(found.equity["equity"], account.unit) == twin.equity
    assert len(twin.equity) == len(market.bars) - which.lookback


@every
def test_fills_are_prices_of_their_bars(markets: dict[str, Market], name: str, which: Strategy, lively: bool) -> None:
    """Entries at an open, exits at one or inside the bar; nothing on a halt, no short sale under a ban."""
    market = markets[name]
    bars, factor = market.bars, market.factor
    assert market.halted.sum() == (3 if market.korean else 0)
    for row in market.run(which, lively).trades.itertuples():
        first, last, buys = bars.iloc[row.entry], bars.iloc[row.exit], row.side == "long"
        entered = row.entry_price * factor[row.exit] / factor[row.entry]  # told in shares of the exit
        assert entered == pytest.approx(market.worse(first["open"], row.entry, buys), rel=1e-12)
        assert not market.halted[row.entry] and not market.halted[row.exit]
        if row.reason in AT_OPEN:
            assert row.exit > row.entry
            assert row.exit_price == pytest.approx(market.worse(last["open"], row.exit, not buys), rel=1e-12)
        elif row.reason == "target":
            assert last["low"] <= row.exit_price <= last["high"]
        else:
            edges = sorted(market.worse(last[end], row.exit, not buys) for end in ("open", "low" if buys else "high"))
            assert edges[0] * (1 - 1e-12) <= row.exit_price <= edges[1] * (1 + 1e-12)
        if market.korean and not buys:
            assert not np.datetime64("2020-03-16") <= market.day[row.entry] <= np.datetime64("2021-05-02")


@every
def test_stops_lie_where_the_declaration_says(
    markets: dict[str, Market], name: str, which: Strategy, lively: bool
) -> None:
    """No stop fills better than its level, none is passed over, and a trail follows the best price before the bar."""
    market, p = markets[name], markets[name].values(which, lively)
    traded = ~market.halted
    bars = {key: values[traded] for key, values in market.adjusted.items()}
    place = np.cumsum(traded) - 1
    reach = np.float32(atr(bars, p.get("atr", 14))["atr"])  # as the step sees it
    for row in market.run(which, lively).trades.itertuples():
        side, unit = 1 if row.side == "long" else -1, market.factor[row.exit]
        # Prices of a short with their signs turned: then more is better for both sides, and a stop lies below.
        opening, worst, best = (side * bars[key] for key in ("open", *(("low", "high")[::side])))
        entry, left = side * row.entry_price * unit, side * row.exit_price * unit
        far = float(reach[place[row.entry - 1]])
        near = 2 * market.tick(row.exit_price, row.exit) * unit + 2e-6 * abs(entry)
        level = entry - p["stop_atr"] * far if p["stop_atr"] > 0 else -math.inf
        begun, gone = place[row.entry], place[row.exit]
        for t in range(begun, gone + 1):
            if t > begun and p.get("trail_atr", 0) > 0:
                top = max(entry, best[begun:t].max())
                if top - entry >= p.get("trail_start_atr", 0) * far:
                    level = max(level, top - p["trail_atr"] * far)
            if t < gone or row.reason == "target":
                assert worst[t] > level - near, "passed over"
        if row.reason in ("stop", "trailing stop"):
            assert left <= level + near, "better than the stop"
            filled = market.worse(side * min(level, opening[gone]) / unit, row.exit, buys=side < 0)
            assert left == pytest.approx(side * filled * unit, abs=near)
        if row.reason == "target":
            assert left >= entry + p["target_atr"] * far - near


@every
def test_costs_and_money_by_hand(markets: dict[str, Market], name: str, which: Strategy, lively: bool) -> None:
    """Each amount follows from shares, prices and rates; equity without a position is capital and all profits."""
    market = markets[name]
    account, found = market.account, market.run(which, lively)
    broker, lender = (Fraction(str(bp)) / 10_000 for bp in (account.commission_bp, account.borrow_bp))
    taxes = krx.sale_tax(market.day) if market.korean else np.zeros(len(market.bars))
    trades = found.trades
    assert trades["entry"].is_unique, "no trade in parts"
    money = {key: units(trades[key], account.unit) for key in MONEY}
    for k, row in enumerate(trades.itertuples()):
        buys, value, proceeds = row.side == "long", money["value"][k], money["proceeds"][k]
        for amount, price in ((value, row.entry_price), (proceeds, row.exit_price)):
            assert amount == pytest.approx(row.shares * price / account.unit, abs=0.5 + 1e-6)
        assert money["commission"][k] == math.floor(broker * value) + math.floor(broker * proceeds)
        rate = Fraction(str(round(float(taxes[row.exit if buys else row.entry]), 6)))
        assert money["tax"][k] == math.floor(rate * (proceeds if buys else value))
        days = int((market.day[row.exit] - market.day[row.entry]).astype(int))
        assert money["borrow"][k] == pytest.approx(0 if buys else lender * value * days / 365, abs=1 + 1e-7 * value)
        costs = money["commission"][k] + money["tax"][k] + money["borrow"][k]
        assert money["profit"][k] == (proceeds - value) * (1 if buys else -1) - costs
    equity = np.array(units(found.equity["equity"], account.unit))
    flat = account.capital
    begun = which.lookback
    for k, (entry, left) in enumerate(zip(trades["entry"], trades["exit"])):
        assert (equity[begun - which.lookback : entry - which.lookback] == flat).all()
        flat, begun = flat + money["profit"][k], left
    held = round(found.figures["exposure"] * len(equity)) - int((trades["exit"] - trades["entry"]).sum())
    assert (equity[begun - which.lookback : len(equity) - held] == flat).all(), "what is held since then comes last"


@every
@pytest.mark.filterwarnings("ignore:.*columns are NaN throughout")
def test_later_bars_change_no_trade(markets: dict[str, Market], name: str, which: Strategy, lively: bool) -> None:
    market = markets[name]
    trades = market.run(which, lively).trades
    for left in trades["exit"].iloc[np.linspace(0, len(trades) - 1, 4).astype(int)].unique():
        known = market.run(which, lively, market.bars[: left + 1])
        pd.testing.assert_frame_equal(known.trades, trades[trades["exit"] <= left], check_exact=True)


def wanted(which: Strategy, p: Mapping[str, Any], bars: Mapping[str, Array], side: int) -> Array:
    """Say after which bars what a declaration asks of an entry holds, (T,), computed another way."""
    close = pd.Series(bars["close"])
    if which.name == "donchian_breakout":
        upper, lower = (pd.Series(bars[name]).shift().rolling(p["enter"]) for name in ("high", "low"))
        return np.asarray(close > upper.max() if side > 0 else close < lower.min())
    if which.name == "moving_average_cross":
        fast, slow = (ema(bars, p[name])["ema"] for name in ("fast", "slow"))
        value, level, near = pd.Series(fast - slow), 0.0, 1e-6 * close
    else:
        value, near = pd.Series(rsi(bars, p["rsi"])["rsi"]), 1e-4
        level = p["entry"] if which.name == "template" else p["low"] if side > 0 else 100 - p["low"]
    crossed = (side * (value.shift() - level) <= near) & (side * (value - level) > -near)
    if which.name == "rsi_reversion":
        crossed &= side * (close - close.rolling(p["trend"]).mean()) > 0
    return np.asarray(crossed)


@pytest.mark.parametrize("which", [which for which in ALL if which.name != "wm_pattern"], ids=lambda which: which.name)
@pytest.mark.parametrize("lively", [False, True])
@pytest.mark.parametrize("name", ["coin", "currency", "stock"])
def test_entries_follow_what_was_declared(markets: dict[str, Market], name: str, which: Strategy, lively: bool) -> None:
    market, p = markets[name], markets[name].values(which, lively)
    traded = ~market.halted
    bars = {key: values[traded] for key, values in market.adjusted.items()}
    trades = market.run(which, lively).trades
    decided = (np.cumsum(traded) - 1)[trades["entry"] - 1]
    for side, word in ((1, "long"), (-1, "short")):
        assert wanted(which, p, bars, side)[decided[trades["side"] == word]].all()


def test_a_position_is_held_through_a_split(markets: dict[str, Market]) -> None:
    market = markets["stock"]
    trades = market.run(moving_average_cross, lively=False).trades
    (row,) = trades[(trades["entry_ts"] < SPLIT) & (trades["exit_ts"] > SPLIT)].itertuples()
    opening = market.bars["open"].iloc[row.entry]
    assert opening > 2_000_000 and row.exit_price < 100_000
    assert row.shares % 50 == 0 and row.value == row.shares // 50 * market.worse(opening, row.entry, buys=True)
