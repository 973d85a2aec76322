"""On which sessions decisions are due (docs/order-semantics.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import krx, venues
from pipeline.backtest.portfolio.schedule import due
from tests.stage_directories import World

from .backtests import NAN, traded


def _due(rebalance: int | str, start: str, end: str, venue: str = "KRX") -> list[str]:
    days = venues.sessions(venue, start, end)
    return [str(day) for day in days[due(rebalance, venues.closes(venue, days), venue)]]


def test_a_number_counts_sessions_from_the_first() -> None:
    assert _due(3, "2024-02-01", "2024-02-14") == ["2024-02-01", "2024-02-06", "2024-02-13"]


def test_periods_end_with_their_last_session_by_the_calendar() -> None:
    """Thursday 8 February 2024 ends its week: Friday and Monday are holidays. 29 March ends a month and a quarter."""
    assert _due("weekly", "2024-02-01", "2024-02-16") == ["2024-02-02", "2024-02-08", "2024-02-16"]
    assert _due("monthly", "2024-01-02", "2024-04-30") == ["2024-01-31", "2024-02-29", "2024-03-29", "2024-04-30"]
    assert _due("quarterly", "2024-01-02", "2024-12-31") == ["2024-03-29", "2024-06-28", "2024-09-30", "2024-12-30"]


def test_the_end_of_the_data_is_the_end_of_no_period() -> None:
    assert _due("monthly", "2024-01-02", "2024-01-30") == []
    assert _due("weekly", "2024-02-05", "2024-02-07") == []


@pytest.mark.parametrize("period", ["weekly", "monthly", "quarterly"])
def test_what_is_due_does_not_depend_on_later_sessions(period: str) -> None:
    days = krx.sessions("2023-01-02", "2024-12-30")
    whole = due(period, krx.session_closes(days), "KRX")
    for n in range(1, len(days), 17):
        assert (due(period, krx.session_closes(days[:n]), "KRX") == whole[:n]).all()


def test_venues_that_never_close_end_their_months_at_midnight() -> None:
    assert _due("monthly", "2024-01-30", "2024-03-02", "BINANCE") == ["2024-01-31", "2024-02-29"]
    assert _due("weekly", "2024-01-01", "2024-01-12", "FX") == ["2024-01-05", "2024-01-12"]


def test_nothing_is_due_where_the_calendar_ends() -> None:
    days = krx.sessions(krx.LAST - 20, krx.LAST)
    assert not due("weekly", krx.session_closes(days), "KRX")[-1]


def test_a_monthly_portfolio_trades_on_the_first_session_of_the_next_month(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 24, start="2024-01-29")
    scores = np.where(np.arange(24)[:, None] < 10, [[2, 1]], [[1, 2]])
    result = traded(tmp_path, world, scores, rebalance="monthly")
    at = [(str(world.days[t]), symbol, side) for t, symbol, side, _, _ in result.did(world)]
    assert at == [("2024-02-01", "A", "buy"), ("2024-03-04", "A", "sell"), ("2024-03-04", "B", "buy")]


def test_a_period_that_ends_without_scores_decides_nothing(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 24, start="2024-01-29")
    scores = np.full((24, 2), 1.0)
    scores[2] = NAN  # 2024-01-31
    result = traded(tmp_path, world, scores, rebalance="monthly")
    assert str(world.days[result.did(world)[0][0]]) == "2024-03-04"
