"""Ranks, quantiles, forward returns and the decay of information, each beside an oracle made another way."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from pipeline.backtest.analysis import decay, quantiles
from pipeline.backtest.analysis.forward import Paths, forward_returns, paths
from pipeline.backtest.analysis.ordering import coefficients, ranks
from pipeline.backtest.portfolio.market import Market, load
from pipeline.backtest.section import BacktestSection
from pipeline.labels import forward_returns as labels_of
from pipeline.receipt import Receipt
from pipeline.recurrence import Series
from tests.stage_directories import World
from training.metrics import Sections, newey_west_t
from training.metrics import deciles as deciles_of_labels

NAN = math.nan
BEFORE = datetime(2000, 1, 1, tzinfo=UTC)


def market_of(world: World, tmp_path: Path, **settings: object) -> Market:
    receipt = Receipt.load(world.write(tmp_path))
    return load(receipt, BEFORE, None, BacktestSection.model_validate({"slippage_bp": 0.0} | settings))


def walk(T: int, S: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = np.clip(rng.normal(0, 0.02, (T, S)), -0.2, 0.2)
    return np.rint(10_000 * np.exp(np.cumsum(steps, axis=0)) / 10) * 10


@pytest.fixture(scope="module")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """A market with a split, halts, limits and a delisting."""
    T, S = 80, 30
    close = walk(T, S)
    opened = np.rint(np.vstack([close[:1], close[:-1]]) / 10) * 10
    volume = np.full((T, S), 1e6)
    close[40:, 2] = np.rint(close[40:, 2] / 50) * 10
    opened[40:, 2] = np.rint(opened[40:, 2] / 50) * 10
    volume[20:26, 4] = 0
    close[30, 5] = opened[30, 5] = np.floor(close[29, 5] * 0.7 / 10) * 10
    close[60:, 6] = NAN
    world = World([f"{i:05d}0" for i in range(S)], close, opened, volume)
    world.actions = [("000020", str(world.days[40]), 5.0)]
    world.facts = {"000060": {"delisted": world.days[60].item()}}
    return market_of(world, tmp_path_factory.mktemp("rough"))


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 40)),
        elements=st.sampled_from([NAN, math.inf, -0.0, 0.0, 1.0, -1.0, 2.5, 1e-30, -1e30]) | st.floats(-2, 2, width=32),
    )
)
def test_ranks_are_those_of_scipy(x: np.ndarray) -> None:
    expected = np.full(x.shape, NAN)
    for t, row in enumerate(x):
        known = np.isfinite(row)
        if known.any():
            expected[t, known] = stats.rankdata(row[known])
    assert np.array_equal(ranks(x), expected, equal_nan=True)
    assert np.array_equal(ranks(x, threads=3), expected, equal_nan=True)


def test_coefficients_are_those_of_scipy_over_what_is_known_of_both() -> None:
    rng = np.random.default_rng(1)
    T, S = 30, 50
    score = np.round(rng.normal(size=(T, S)), 1).astype(np.float32)  # ties
    entry, exit = np.exp(rng.normal(size=(T, S))), np.exp(rng.normal(size=(T, S)))
    for x in (score, entry, exit):
        x[rng.random((T, S)) < 0.1] = NAN
    score[3], exit[9, 2:] = 1.0, NAN
    begin, end = np.array([1, 2]), np.array([3, 7])
    ic, rank_ic, n = coefficients(score, entry, exit, begin, end, threads=2)
    for h in range(2):
        for t in range(T):
            if t + end[h] >= T:
                assert math.isnan(rank_ic[h, t])
                continue
            a, y = score[t], exit[t + end[h]] / entry[t + begin[h]] - 1
            both = np.isfinite(a) & np.isfinite(y)
            assert n[h, t] == both.sum()
            if both.sum() < 3 or np.ptp(a[both]) == 0:
                assert math.isnan(ic[h, t]) and math.isnan(rank_ic[h, t])
                continue
            assert rank_ic[h, t] == pytest.approx(stats.spearmanr(a[both], y[both])[0], abs=1e-12)
            assert ic[h, t] == pytest.approx(np.corrcoef(a[both], y[both])[0, 1], abs=1e-9)


@pytest.mark.parametrize("horizon", [1, 3, 20])
def test_forward_returns_are_the_labels(rough: Market, horizon: int) -> None:
    found = forward_returns(paths(rough), horizon)
    basis = np.cumprod(rough.factor_TS, axis=0)
    T = len(found)
    for s in range(found.shape[1]):
        # The labels read the rows of a symbol; a session without a bar is none of them.
        rows = np.flatnonzero(np.isfinite(rough.close_TS[:, s]))
        if len(rows) < T and rough.delist_S[s] >= T:
            continue
        price = (rough.print_TS * basis)[rows, s]
        buy = np.where(np.isfinite(rough.buy_TS[rows, s]), price, NAN)
        sell = np.where(np.isfinite(rough.sell_TS[rows, s]), price, NAN)
        series = Series(np.array([0]), np.array([len(rows)]))
        ended = np.array([rough.delist_S[s] < T])
        expected, _ = labels_of(buy, sell, (rough.close_TS * basis)[rows, s], series, ended, horizon)
        assert np.array_equal(np.isfinite(found[rows, s]), np.isfinite(expected)), rough.symbols[s]
        assert found[rows, s] == pytest.approx(expected, nan_ok=True, rel=1e-12)


def test_a_forward_return_begins_at_the_fill_and_not_at_the_close(tmp_path: Path) -> None:
    close = np.array([[1000.0], [1000.0], [1100.0], [1210.0], [1210.0]])
    opened = np.array([[1000.0], [1050.0], [1000.0], [1100.0], [1200.0]])
    found = forward_returns(paths(market_of(World(["000010"], close, opened), tmp_path)), 2)
    assert found[:, 0] == pytest.approx([1100 / 1050 - 1, 1200 / 1000 - 1, NAN, NAN, NAN], nan_ok=True)
    late = forward_returns(paths(market_of(World(["000010"], close, opened), tmp_path / "b")), 1, lag=1)
    assert late[0, 0] == pytest.approx(1100 / 1000 - 1)


def test_what_cannot_be_bought_or_sold_is_left_out_or_held_on(rough: Market) -> None:
    y = forward_returns(paths(rough), 1)
    assert np.isnan(y[19:25, 4]).all()  # halted at the next open
    carried = rough.print_TS[26, 4] / rough.print_TS[19, 4] - 1
    assert y[18, 4] == pytest.approx(carried)  # sold at the first open after the halt
    assert np.isfinite(y[58, 6]) or np.isnan(rough.buy_TS[59, 6])
    assert np.isnan(y[60:, 6]).all()
    assert np.isfinite(y[38, 2]) and abs(y[38, 2]) < 0.2  # the split is no loss of four fifths
    with pytest.raises(ValueError, match="at least 1 session"):
        forward_returns(paths(rough), 0)


def test_quantiles_are_the_cut_of_the_training_metrics() -> None:
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(size=(12, 57)), 1)
    x[rng.random(x.shape) < 0.2] = NAN
    x[4, 6:] = NAN  # fewer than ten
    found = quantiles.quantiles(x)
    for t, row in enumerate(x):
        known = np.isfinite(row)
        code = np.zeros(known.sum(), np.int64)
        expected = deciles_of_labels(row[known].astype(np.float32), Sections(code, np.zeros(1, np.int64), 1))
        assert np.array_equal(found[t, known], expected)
        assert (found[t, ~known] == -1).all()
    assert (found[4] == -1).all()
    with pytest.raises(ValueError, match="2 to 100"):
        quantiles.quantiles(x, 1)


def test_means_of_quantiles_are_those_of_pandas() -> None:
    rng = np.random.default_rng(4)
    place = quantiles.quantiles(rng.normal(size=(25, 60)), 5)
    y = rng.normal(0, 0.02, place.shape)
    y[rng.random(y.shape) < 0.1] = NAN
    found = quantiles.earned(place, y, 5)
    rows = pd.DataFrame({"t": np.repeat(np.arange(25), 60), "q": place.ravel(), "y": y.ravel()}).dropna()
    table = rows.groupby(["t", "q"])["y"].agg(["mean", "count"]).unstack()
    assert found.mean_TQ == pytest.approx(table["mean"].to_numpy())
    assert np.array_equal(found.n_TQ, table["count"].to_numpy())
    summary = quantiles.summary(found, 4)
    means = table["mean"].to_numpy()
    spread = means[:, 4] - means[:, 0]
    assert summary["spread"] == pytest.approx(spread.mean())
    assert summary["spread_t"] == pytest.approx(newey_west_t(spread, 3))
    assert summary["monotonicity"] == pytest.approx(stats.spearmanr(np.arange(5), found.mean_TQ.mean(axis=0))[0])
    assert quantiles.summary(found, 6)["spread_t"] is None  # fewer than five spans of six sessions
    assert quantiles.summary(found, 6, every=6)["spread_t"] == pytest.approx(newey_west_t(spread, 0))
    grown, spread_T = quantiles.curves(found)
    assert grown[-1] == pytest.approx(np.prod(1 + means, axis=0))
    assert spread_T[-1] == pytest.approx(np.prod(1 + spread))


def test_newey_west_of_a_spread_is_the_textbook_formula() -> None:
    x = np.random.default_rng(5).normal(0.1, 1, 60)
    x[1:] += 0.7 * x[:-1]
    d, n, lag = x - x.mean(), 60, 3
    variance = (
        sum((1 - abs(i - j) / (lag + 1)) * d[i] * d[j] for i in range(n) for j in range(n) if abs(i - j) <= lag) / n**2
    )
    mean = np.column_stack([np.zeros(60), x])
    found = quantiles.summary(quantiles.Earned(mean, np.ones((60, 2), np.int64)), lag + 1)
    assert found["spread_t"] == pytest.approx(x.mean() / math.sqrt(variance))


def test_names_that_move_between_quantiles() -> None:
    place = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 1]], np.int8)
    assert quantiles.name_turnover(place, 1, 2) == pytest.approx([0.25, 0.25])  # a half, then none
    assert quantiles.name_turnover(place, 2, 2) == pytest.approx([0.5, 0.5])


def test_scores_that_know_the_returns_are_found_and_their_half_life_is_right() -> None:
    """Scores follow x' = a x + noise, returns carry x: what scores know halves in ln(1/2) / ln(a) sessions."""
    rng = np.random.default_rng(6)
    T, S, a = 500, 200, 0.9
    x = rng.normal(size=(T, S))
    for t in range(1, T):
        x[t] = a * x[t - 1] + math.sqrt(1 - a * a) * rng.normal(size=S)
    moves = 0.02 * rng.normal(size=(T, S))
    moves[2:] += 0.002 * x[:-2]  # earned from the fill of t + 1 to that of t + 2
    price = np.exp(np.cumsum(moves, axis=0))
    found = Paths(price, price)
    curve, rank_HT = decay.decay(x, found, tuple(range(1, 41)), threads=2)
    y = forward_returns(found, 7)
    by_hand = [stats.spearmanr(x[t], y[t])[0] for t in range(T - 8)]
    assert curve.rank_ic[6] == pytest.approx(np.mean(by_hand), abs=1e-6)  # values are ranked as float32
    assert curve.t[6] == pytest.approx(newey_west_t(np.array(by_hand), 6), rel=1e-3)
    assert curve.standard_error[6] == pytest.approx(curve.rank_ic[6] / curve.t[6])
    assert curve.sessions[6] == T - 8 and np.isfinite(rank_HT[6]).sum() == T - 8
    life = decay.half_life(curve)
    assert life is not None and life == pytest.approx(math.log(0.5) / math.log(a), rel=0.4)
    noise, _ = decay.decay(rng.normal(size=(T, S)), found, (1, 2, 3, 5, 8), threads=2)
    assert decay.half_life(noise) is None or np.nanmax(np.abs(noise.t)) >= 2


def test_nothing_is_said_from_too_few_sessions() -> None:
    price = walk(30, 25).astype(np.float64)
    curve, _ = decay.decay(np.random.default_rng(7).normal(size=price.shape), Paths(price, price), (1, 10))
    assert np.isfinite(curve.t[0]) and math.isnan(curve.t[1])  # 19 sessions are no five spans of ten
    with pytest.raises(ValueError, match="at least 1 session"):
        decay.decay(price, Paths(price, price), (0, 1))


def test_rank_autocorrelation_is_that_of_pandas() -> None:
    rng = np.random.default_rng(8)
    x = np.cumsum(rng.normal(size=(20, 30)), axis=0)
    x[rng.random(x.shape) < 0.1] = NAN
    rank = pd.DataFrame(ranks(x))
    expected = rank.corrwith(rank.shift(3), axis=1).to_numpy()
    assert decay.rank_autocorrelation(x, 3)[3:] == pytest.approx(expected[3:])
    assert np.isnan(decay.rank_autocorrelation(x, 20)).all()
    assert decay.rank_autocorrelation(np.tile(np.arange(5.0), (4, 1)), 1)[1:] == pytest.approx(1.0)
