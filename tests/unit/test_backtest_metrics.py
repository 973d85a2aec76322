"""The numbers of a backtest against their definitions, and silence where the sample says nothing."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backtest import metrics
from pipeline.backtest.portfolio.positions import closed_positions

Floats = npt.NDArray[np.float64]


def weekdays(n: int, start: str = "2023-01-02") -> npt.NDArray[np.datetime64]:
    return np.busday_offset(np.datetime64(start), np.arange(n))


def curve(n: int, seed: int = 0, drift: float = 0.0005) -> Floats:
    moves = np.random.default_rng(seed).normal(drift, 0.01, n - 1)
    return np.asarray(1e8 * np.concatenate([[1.0], np.cumprod(1 + moves)]), np.float64)


def test_numbers_follow_their_definitions() -> None:
    equity, bench, days = curve(300, 1), curve(300, 2), weekdays(300)
    got, reasons = metrics.performance(equity, days, bench)
    r, b = pd.Series(equity).pct_change().dropna(), pd.Series(bench).pct_change().dropna()
    assert got["total_return"] == pytest.approx((1 + r).prod() - 1)
    assert got["annual_return"] == pytest.approx((1 + r).prod() ** (252 / 299) - 1)
    assert got["volatility"] == pytest.approx(r.std() * math.sqrt(252))
    assert got["sharpe"] == pytest.approx(r.mean() / r.std() * math.sqrt(252))
    assert got["sharpe_standard_error"] == pytest.approx(math.sqrt((1 + (r.mean() / r.std()) ** 2 / 2) / 299 * 252))
    assert got["sortino"] == pytest.approx(r.mean() / math.sqrt((r.clip(upper=0) ** 2).mean()) * math.sqrt(252))
    fall = pd.Series(equity) / pd.Series(equity).cummax() - 1
    assert got["max_drawdown"] == pytest.approx(fall.min())
    assert got["drawdown_trough"] == str(days[int(fall.idxmin())])
    assert got["drawdown_peak"] == str(days[int(pd.Series(equity)[: int(fall.idxmin()) + 1].idxmax())])
    assert got["calmar"] == pytest.approx(got["annual_return"] / -got["max_drawdown"])
    slope, intercept = np.polyfit(b, r, 1)
    assert got["beta"] == pytest.approx(slope)
    assert got["alpha"] == pytest.approx(intercept * 252)
    assert got["correlation"] == pytest.approx(r.corr(b))
    assert got["tracking_error"] == pytest.approx((r - b).std() * math.sqrt(252))
    assert got["information_ratio"] == pytest.approx((r - b).mean() / (r - b).std() * math.sqrt(252))
    assert got["excess_return"] == pytest.approx(got["total_return"] - got["benchmark_total_return"])
    assert set(reasons) <= {"drawdown_recovered"}


def test_the_sharpe_ratio_lies_within_its_standard_errors() -> None:
    """Over 400 curves of a known ratio the stated error is the scatter that is seen."""
    true = 0.0005 / 0.01 * math.sqrt(252)
    found = [metrics.performance(curve(500, seed), weekdays(500))[0] for seed in range(400)]
    z = [(f["sharpe"] - true) / f["sharpe_standard_error"] for f in found]
    assert abs(float(np.mean(z))) < 0.2
    assert 0.85 < float(np.std(z)) < 1.15


@pytest.mark.parametrize("n", [1, 2, 3, 19, 20, 21, 40, 60, 61])
def test_short_samples_give_reasons_instead_of_numbers(n: int) -> None:
    got, reasons = metrics.performance(curve(n), weekdays(n), curve(n, 3))
    assert (got["annual_return"] is None) == (n - 1 < 60)
    assert (got["sharpe"] is None) == (n - 1 < 20)
    assert (got["beta"] is None) == (n - 1 < 20)
    missing = {k for k, v in got.items() if v is None}
    assert missing <= set(reasons), "every missing number says why"
    if n <= 20:
        assert f"got {n - 1}" in reasons["sharpe"]


def test_a_flat_curve_has_no_ratios() -> None:
    flat = np.full(100, 1e8)
    got, reasons = metrics.performance(flat, weekdays(100), flat)
    assert (got["total_return"], got["volatility"], got["max_drawdown"]) == (0, 0, 0)
    for name in ("sharpe", "sortino", "calmar", "beta", "information_ratio", "correlation", "drawdown_peak"):
        assert got[name] is None
        assert reasons[name]


def test_a_curve_that_is_its_own_benchmark() -> None:
    equity = curve(100)
    got, reasons = metrics.performance(equity, weekdays(100), equity)
    assert got["beta"] == pytest.approx(1)
    assert got["alpha"] == pytest.approx(0, abs=1e-9)
    assert got["information_ratio"] is None
    assert "benchmark" in reasons["information_ratio"]


def test_drawdown_dates_and_recovery() -> None:
    equity = np.array([100.0, 120, 90, 100, 120, 119])
    got, reasons = metrics.performance(equity, weekdays(6))
    assert got["max_drawdown"] == -0.25
    dates = [got[f"drawdown_{name}"] for name in ("peak", "trough", "recovered")]
    assert dates == ["2023-01-03", "2023-01-04", "2023-01-06"]
    got, reasons = metrics.performance(equity[:4], weekdays(4))
    assert got["drawdown_recovered"] is None
    assert "not recovered" in reasons["drawdown_recovered"]


def test_markets_that_trade_at_weekends_have_longer_years() -> None:
    assert metrics.sessions_a_year(np.datetime64("2023-01-01") + np.arange(100)) == 365
    assert metrics.sessions_a_year(weekdays(100)) == 252


def test_a_ruined_curve_stays_finite() -> None:
    got, _ = metrics.performance(np.array([100.0, 50, 0, 0]), weekdays(4))
    assert got["total_return"] == -1
    assert got["worst_session"] == -1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.5, 1.5), min_size=1, max_size=80), st.integers(0, 9))
def test_nothing_absurd_comes_out(moves: list[float], seed: int) -> None:
    """Every number is finite or None, and JSON can hold it."""
    equity = np.maximum(1e8 * np.cumprod(moves), 1.0)
    n = len(equity)
    got, reasons = metrics.performance(equity, weekdays(n), curve(n, seed))
    again: dict[str, Any] = json.loads(json.dumps(got, allow_nan=False))
    assert all(v is not None or k in reasons for k, v in again.items())
    assert -1 <= got["max_drawdown"] <= 0


def test_trading_numbers_by_hand() -> None:
    equity = np.full(41, 1000.0)
    equity[20:] = 1100.0
    traded = np.zeros(41)
    traded[1], traded[20] = 1000.0, 500.0
    gross = np.full(41, 500.0)
    gross[0] = 0.0
    costs = {"commission": 10, "tax": 20, "slippage": 20}
    got, reasons = metrics.trading(equity, traded, gross, np.ones(41), costs, [5, -3, 7, 0], 9, 252)
    assert got["turnover_total"] == pytest.approx(0.5 + 0.25)
    assert got["turnover_a_year"] == pytest.approx(0.75 / 40 * 252)
    assert got["hit_rate"] == 0.5
    assert (got["mean_profit"], got["mean_loss"]) == (6, -1.5)
    assert got["costs"] == {"commission": 10, "tax": 20, "slippage": 20, "total": 50}
    assert got["costs_of_capital"] == 0.05
    assert got["costs_of_gross_profit"] == pytest.approx(50 / 150)
    assert got["return_before_costs"] == pytest.approx(0.15)
    assert got["exposure"] == pytest.approx((0.5 * 19 + 500 / 1100 * 21) / 40)
    assert not reasons


def test_no_trade_has_no_hit_rate() -> None:
    one = np.full(30, 1e6)
    got, reasons = metrics.trading(one, one * 0, one * 0, one * 0, {"commission": 0, "tax": 0}, [], 0, 252)
    assert got["hit_rate"] is None
    assert reasons["hit_rate"] == "no position was closed"
    assert got["costs_of_gross_profit"] is None
    assert got["turnover_total"] == 0


def test_months_chain_to_the_total() -> None:
    equity, days = curve(200, 4), weekdays(200)
    months = metrics.monthly(equity, days)
    assert [m[:2] for m in months[:2]] == [(2023, 1), (2023, 2)]
    assert math.prod(1 + m[2] for m in months) == pytest.approx(equity[-1] / equity[0])


def test_positions_run_from_nothing_to_nothing() -> None:
    def row(
        day: int, symbol: str, side: str, value: int, left: int, realised: int = 0, reason: str = ""
    ) -> dict[str, Any]:
        stamp = datetime(2023, 1, day, tzinfo=UTC)
        rest = {"left": left, "realised": realised, "reason": reason, "commission": 1}
        return {"ts": stamp, "symbol": symbol, "side": side, "value": value, **rest}

    rows = [
        row(1, "A", "buy", 100, 10),
        row(2, "B", "buy", 50, 5),
        row(3, "A", "buy", 20, 12),
        row(4, "A", "sell", 70, 6, 8, "rebalance"),
        row(5, "A", "sell", 80, 0, 15, "exit"),
        row(6, "A", "buy", 30, 3),
        row(7, "A", "delisted", 10, 0, -21, "delisted"),
    ]
    closed = closed_positions(pa.Table.from_pylist(rows))
    assert [(p.symbol, p.opened.day, p.closed.day, p.spent, p.profit, p.reason) for p in closed] == [
        ("A", 1, 5, 122, 23, "exit"),
        ("A", 6, 7, 31, -21, "delisted"),
    ]
