"""A search finds nothing in random walks, and what was planted; with every cost, and with what follows as the judge."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from pipeline.backtest import AccountSection, MetaSection, optimize
from pipeline.strategies import Strategy, moving_average_cross, wm_pattern
from tests.leaks import next_close

LOG = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures
ACCOUNT = AccountSection(direction="both")
CERTAIN = 0.95  # deflated Sharpe ratio above which a search is said to have found something
STAY = 0.98  # share of bars after which the planted trend goes on: 50 bars on average


class Market(NamedTuple):
    """Which strategy is searched over how many bars, of which distance and spread of returns."""

    strategy: Strategy
    bars: int
    every: str
    spread: float


QUARTERS = Market(wm_pattern, 12_000, "15min", 0.002)
DAYS = Market(moving_average_cross, 2_500, "D", 0.015)


def walk(market: Market, seed: int, trend: float = 0.0) -> pd.DataFrame:
    """Return bars whose returns are independent with mean zero, plus `trend` standard deviations up or down, whichever
    holds now. Within a bar the price moves in steps, so that its high and low are what a walk of that spread makes.
    """
    rng = np.random.default_rng(seed)
    steps = 16
    turns = np.cumprod(np.where(rng.random(market.bars) < STAY, 1, -1))
    moves = rng.normal(0, market.spread / np.sqrt(steps), (market.bars, steps)) + np.outer(
        turns, np.full(steps, trend * market.spread / steps)
    )
    path = 50_000 * np.cumprod(1 + moves.ravel()).reshape(market.bars, steps)
    opened = np.append(50_000, path[:-1, -1])
    ts = pd.date_range("2015-01-01 00:15", periods=market.bars, freq=market.every).astype("datetime64[us]")
    high, low = np.maximum(path.max(1), opened), np.minimum(path.min(1), opened)
    return pd.DataFrame({"ts": ts, "open": opened, "high": high, "low": low, "close": path[:, -1], "volume": 1e9})


class Search(NamedTuple):
    """What a search says about its best: deflated Sharpe ratio, probability of overfitting, yearly Sharpe ratio of the
    best in the sessions after those in which it was chosen.
    """

    deflated: float
    pbo: float
    outside: float


def searched(market: Market, seed: int, samples: int, trend: float = 0.0, **more: Any) -> Search:
    section = MetaSection(samples=samples, iterations=3, seed=seed, gain=0.0)
    interval = "1d" if market.every == "D" else "15m"
    bars = walk(market, seed, trend)
    found = optimize(bars, market.strategy, section, account=ACCOUNT, venue="24h", interval=interval, **more)
    best = found.order[0]
    outside = float(np.nan_to_num(found.outside["sharpe"][best]))  # nothing traded: nothing earned
    return Search(found.numbers["deflated_sharpe"], found.numbers["pbo"], outside)


def columns(searches: list[Search]) -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(np.array(column, np.float64) for column in zip(*searches))


def above_zero(outside: npt.NDArray[np.float64]) -> bool:
    """Say whether the mean is above zero by more than two of its standard errors."""
    return bool(outside.mean() > 2 * outside.std(ddof=1) / np.sqrt(len(outside)))


@pytest.mark.parametrize("market", [QUARTERS, DAYS], ids=["quarters", "days"])
def test_three_random_walks_give_nothing(market: Market) -> None:
    deflated, _, outside = columns([searched(market, seed, 200) for seed in range(3)])
    assert (deflated > CERTAIN).sum() <= 1, deflated
    assert not above_zero(outside), outside


def test_a_look_ahead_shows_as_earnings_on_random_walks() -> None:
    leaky = DAYS._replace(strategy=next_close)
    deflated, _, outside = columns([searched(leaky, seed, 64) for seed in range(3)])
    assert above_zero(outside) and (deflated > CERTAIN).all(), (outside, deflated)


def test_a_planted_trend_is_found() -> None:
    deflated, pbo, outside = columns([searched(DAYS, seed, 200, trend=0.5) for seed in range(3)])
    assert (deflated > CERTAIN).all() and (pbo < 0.4).all() and above_zero(outside), (deflated, pbo, outside)


@pytest.mark.slow
@pytest.mark.parametrize("market", [QUARTERS, DAYS], ids=["quarters", "days"])
def test_twenty_random_walks_give_nothing(market: Market) -> None:
    deflated, pbo, outside = columns([searched(market, seed, 1_000) for seed in range(20)])
    _tell(market, deflated, pbo, outside)
    assert (deflated > CERTAIN).sum() <= 3, deflated
    assert not above_zero(outside), outside


@pytest.mark.slow
def test_a_planted_trend_is_found_in_twenty_markets() -> None:
    deflated, pbo, outside = columns([searched(DAYS, seed, 1_000, trend=0.5) for seed in range(20)])
    _tell(DAYS, deflated, pbo, outside)
    assert (deflated > CERTAIN).sum() >= 17, deflated
    assert np.median(pbo) < 0.1, pbo
    assert above_zero(outside) and (outside > 0).sum() >= 17, outside


def _tell(market: Market, *found: npt.NDArray[np.float64]) -> None:
    deflated, pbo, outside = found
    error = outside.std(ddof=1) / np.sqrt(len(outside))
    LOG.info(
        "%s: deflated Sharpe ratio above %.2f in %d of %d, median %.2f; median PBO %.2f; Sharpe ratio of the best "
        "outside %+.2f +- %.2f",
        market.strategy.name, CERTAIN, (deflated > CERTAIN).sum(), len(deflated), np.median(deflated), np.median(pbo),
        outside.mean(), error,
    )  # fmt: skip
