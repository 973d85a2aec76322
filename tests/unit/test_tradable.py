"""What can be bought and sold: the rules one by one, and that labels and backtest go by the same ones."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.backtest import BacktestSection
from pipeline.backtest.portfolio.market import load
from pipeline.features.section import FeatureSection
from pipeline.labels import LabelSection
from pipeline.receipt import Receipt
from pipeline.recurrence import Series
from pipeline.tradable import NEVER, Listing, bases, fills, listing, untraded, volume_since
from storage.schema import SYMBOLS
from tests.feature_stage import block_of, order_of
from tests.market import bars, ingested
from tests.stage_directories import World

KINDS = [("KOSPI", "stock"), ("KOSDAQ", "stock"), ("KONEX", "stock"), ("KOSPI", "etf"), ("KOSDAQ", "etn")]
ALL = Listing(tuple(m for m, _ in KINDS), tuple(k for _, k in KINDS), (None,) * len(KINDS))


def sides(day: str, base: float, price: float, who: int = 0) -> tuple[bool, bool]:
    """Say whether a price can be bought and sold."""
    found = fills(np.array([price]), np.array([base]), np.array([np.datetime64(day)]), np.array([who]), ALL)
    return bool(np.isfinite(found[0][0])), bool(np.isfinite(found[1][0]))


@pytest.mark.parametrize(
    ("day", "base", "price", "expected"),
    [
        ("2024-03-05", 50_000, 65_000, (False, True)),  # 30 %
        ("2024-03-05", 50_000, 64_900, (True, True)),  # a tick below, and ticks are kept: free to trade
        ("2024-03-05", 50_010, 64_900, (False, True)),  # a base on no tick: adjusted prices are rounded
        ("2024-03-05", 50_000, 64_910, (False, True)),
        ("2024-03-05", 50_010, 64_700, (True, True)),
        ("2024-03-05", 50_000, 35_000, (True, False)),
        ("2024-03-05", 50_000, 35_050, (True, True)),
        ("2024-03-05", 50_010, 35_050, (True, False)),
        ("2024-03-05", 50_000, 50_000, (True, True)),
        ("2015-06-12", 50_000, 57_500, (False, True)),  # 15 % until then
        ("2015-06-15", 50_000, 57_500, (True, True)),
        ("1997-12-26", 14_400, 15_500, (False, True)),  # 15,550 by our ticks, but 15,500 by those of then
        ("2024-03-05", np.nan, 65_000, (True, True)),  # a first day has no limits
        ("2024-03-05", 1, 1, (True, True)),  # the lowest price there is, which has not moved
        ("2024-03-05", 5, 6, (False, True)),
        ("2024-03-05", 50_000, np.nan, (False, False)),
    ],
)
def test_prices_at_the_limits(day: str, base: float, price: float, expected: tuple[bool, bool]) -> None:
    assert sides(day, base, price) == expected


def test_limits_are_those_of_the_market_and_the_kind() -> None:
    assert sides("2004-03-05", 50_000, 56_000, who=0) == (True, True)  # KOSPI: 15 %
    assert sides("2004-03-05", 50_000, 56_000, who=1) == (False, True)  # KOSDAQ: 12 %
    assert sides("2022-03-07", 10_010, 13_000, who=0) == (False, True)  # 13,000 cut to ticks of 50
    assert sides("2022-03-07", 10_010, 13_000, who=3) == (True, True)  # funds: ticks of 5, limit 13,010


@st.composite
def prices(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw prices at, near and far from limits in (T, S) matrices."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 12)), len(KINDS))
    day = np.datetime64("1994-01-04") + rng.integers(0, 12_000, (shape[0], 1))
    base = np.rint(np.exp(rng.uniform(0, np.log(900_000), shape)))
    base -= np.where(rng.random(shape) < 0.5, np.mod(base, krx.tick(base, day)), 0)
    base = np.where(rng.random(shape) < 0.1, np.nan, base)
    price = np.rint(base * rng.uniform(0.6, 1.4, shape))
    for s, (market, kind) in enumerate(KINDS):
        for limit in krx.limits(base[:, s], day[:, 0], kind, market):
            at = rng.random(shape[0]) < 0.4
            price[at, s] = (limit + rng.integers(-1, 2, shape[0]) * krx.tick(limit, day[:, 0], kind, market))[at]
    return np.where(price > 0, price, np.nan), base, day


@settings(max_examples=200, deadline=None)
@given(prices())
def test_rows_far_from_the_limits_are_rightly_passed_over(drawn: tuple[Any, ...]) -> None:
    """Every cell by itself, straight from the rule, equals the matrix and its rows."""
    price, base, day = drawn
    owner = np.arange(len(KINDS))
    buy, sell = fills(price, base, day, owner, ALL)
    for (t, s), p in np.ndenumerate(price):
        market, kind = KINDS[s]
        lower, upper = krx.limits(base[t, s], day[t, 0], kind, market)
        loose = any(np.mod(x, krx.tick(x, day[t, 0], kind, market)) for x in (p, base[t, s]))
        loose |= day[t, 0] < np.datetime64("2010-10-04")
        above, below = (krx.tick(limit, day[t, 0], kind, market) * loose for limit in (upper, lower))
        assert np.isfinite(buy[t, s]) == (np.isfinite(p) and not (p > base[t, s] and p >= upper - above))
        assert np.isfinite(sell[t, s]) == (np.isfinite(p) and not (p < base[t, s] and p <= lower + below))
    wide = [np.broadcast_to(x, price.shape).ravel() for x in (price, base, day, owner)]
    long = fills(*wide, ALL)
    np.testing.assert_array_equal(long[0], buy.ravel())
    np.testing.assert_array_equal(long[1], sell.ravel())
    slipped = fills(price, base, day, owner, ALL, slippage=0.001)
    np.testing.assert_array_equal(np.isnan(slipped[0]), np.isnan(buy))
    np.testing.assert_array_equal(np.isnan(slipped[1]), np.isnan(sell))


def test_an_exchange_without_limits_fills_every_price() -> None:
    buy, sell = fills(
        np.array([1.25, np.nan]), np.array([0.5, 1.0]), np.array(["2024-03-05"] * 2), np.zeros(2, int), None
    )
    assert buy.tolist()[0] == sell.tolist()[0] == 1.25 and np.isnan(buy[1]) and np.isnan(sell[1])


def test_the_base_price_follows_a_split_and_the_day() -> None:
    days = np.array(["2024-03-04", "2024-03-04", "2024-03-05", "2024-03-05"], "datetime64[D]")
    close = np.array([99_000.0, 100_000.0, 26_000.0, 26_000.0])  # five for one overnight: base 20,000
    before = bases(close, np.array([1.0, 1.0, 5.0, 5.0]), days, Series(np.array([0]), np.array([4])))
    np.testing.assert_array_equal(before, [np.nan, np.nan, 20_000, 20_000])
    buy, _ = fills(close, before, days, np.zeros(4, int), ALL)
    assert np.isfinite(buy).tolist() == [True, True, False, False]


def test_listing_reads_markets_and_kinds_in_one_way() -> None:
    rows = [
        {"symbol": "A", "market": "KOSDAQ GLOBAL", "kind": "stock", "delisted": date(2020, 5, 1)},
        {"symbol": "B", "market": "kospi", "kind": "ETF", "delisted": None},
        {"symbol": "C", "market": None, "kind": None, "delisted": None},
        {"symbol": "D", "market": "KONEX", "kind": "preferred", "delisted": None},
    ]
    found = listing(["A", "B", "C", "D", "E"], pa.Table.from_pylist(rows, SYMBOLS))
    assert found.markets == ("KOSDAQ", "KOSPI", "KOSPI", "KONEX", "KOSPI")
    assert found.kinds == ("stock", "etf", "stock", "stock", "stock")
    assert found.delisted == (date(2020, 5, 1), None, None, None, None)


def test_volume_counts_from_its_first_appearance_in_the_source(tmp_path: Path) -> None:
    frame = bars(["A", "B"], 60).to_pandas()
    frame.loc[frame.index % 60 < 45, "volume"] = 0.0  # nothing in the first two months
    frame.loc[50, "volume"] = 0.0
    frame.loc[51, "volume"] = np.nan
    table = pa.Table.from_pandas(frame, preserve_index=False)
    receipt = ingested(tmp_path, table)
    end = frame["ts"].astype("int64").to_numpy()
    assert volume_since(receipt, "1d") == end[45]
    volume = frame["volume"].to_numpy()
    assert np.flatnonzero(untraded(volume, end, receipt, "1d")).tolist() == [50]
    for n in (40, 47, 55):  # what comes later changes nothing before
        early = table.filter(pa.array(np.arange(120) % 60 < n))
        cut = ingested(tmp_path / str(n), early)
        mine = frame[frame.index % 60 < n]
        got = untraded(mine["volume"].to_numpy(), mine["ts"].astype("int64").to_numpy(), cut, "1d")
        assert mine.index[got].tolist() == ([50] if n > 50 else [])
    assert volume_since(ingested(tmp_path / "none", table.filter(pa.array(np.arange(120) % 60 < 40))), "1d") == NEVER


def wild(seed: int, sessions: int = 90) -> tuple[Any, Any, Any]:
    """Return closes, opens and volumes (T, S) that stand at limits often, with halts of every kind."""
    rng = np.random.default_rng(seed)
    days = World(["A"], np.ones((sessions, 1)), start="2015-05-11").days
    shape = (sessions, 4)
    close, opened, volume = np.full(shape, 20_000.0), np.full(shape, 20_000.0), np.full(shape, 1e6)
    for t in range(1, sessions):
        for s in range(4):
            base = close[t - 1, s]
            lower, upper = krx.limits(base, days[t], "stock", "KOSDAQ" if s == 1 else "KOSPI")
            inside = np.rint(base * rng.uniform(0.9, 1.1, 2))
            drift = [0.0, 0.3] if base < 5_000 else [0.3, 0.0] if base > 200_000 else [0.15, 0.15]
            rest = 1 - sum(drift)
            close[t, s], opened[t, s] = rng.choice([lower, upper, inside[0]], p=[*drift, rest]), inside[1]
            opened[t, s] = rng.choice([close[t, s], opened[t, s]])
            halt = rng.random()
            if halt < 0.1:
                close[t, s] = opened[t, s] = base
                volume[t, s] = 0
            elif halt < 0.15:
                close[t, s], opened[t, s] = base, np.nan
    return close, opened, volume


@pytest.mark.parametrize("close_only", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_labels_and_backtest_trade_at_the_same_prices(tmp_path: Path, seed: int, close_only: bool) -> None:
    """Every label, known or not, follows from the prices at which the backtest buys and sells."""
    close, opened, volume = wild(seed)
    world = World(["A", "B", "C", "D"], close, opened, volume, start="2015-05-11")
    world.facts = {"B": {"market": "KOSDAQ GLOBAL"}}
    close[40:, 2] /= 5
    opened[40:, 2] /= 5
    world.actions = [("C", str(world.days[40]), 5.0)]
    ingest = world.write(tmp_path)
    receipt = Receipt.load(ingest).model_copy(update={"close_only": close_only})
    order = order_of(tmp_path, FeatureSection(set="close"), labels=LabelSection(horizons=(1,)))
    table, _ = block_of(order, receipt, list(receipt.symbols))
    y_TS = table["y_1"].to_numpy().reshape(4, -1).T
    end_TS = table["y_1_end"].dt.tz_localize(None).to_numpy().reshape(4, -1).T
    exact = BacktestSection(slippage_bp=0.0)
    market = load(receipt, datetime(2015, 5, 11, tzinfo=UTC), None, exact)
    factor_TS = np.cumprod(market.factor_TS, axis=0)
    buy_TS, sell_TS = market.buy_TS * factor_TS, market.sell_TS * factor_TS
    assert np.isnan(market.buy_TS[np.isfinite(market.sell_TS)]).sum() > 10
    assert np.isnan(market.sell_TS[np.isfinite(market.buy_TS)]).sum() > 10
    for s in range(4):
        for t in range(len(y_TS) - 1):
            exits = [u for u in range(t + 2, len(y_TS)) if np.isfinite(sell_TS[u, s])]
            if np.isnan(buy_TS[t + 1, s]) or not exits:
                assert np.isnan(y_TS[t, s])
            else:
                assert y_TS[t, s] == pytest.approx(sell_TS[exits[0], s] / buy_TS[t + 1, s] - 1, rel=1e-5, abs=1e-6)
                assert end_TS[t, s] == market.ts_T[exits[0]]
