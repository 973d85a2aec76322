"""Targets against their naive twin, and what an entry or an exit that does not fill does to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.labels import LabelSection, forward_returns
from pipeline.recurrence import Series
from tests.naive import forward_returns as naive


def series(*lengths: int) -> Series:
    return Series(np.append(0, np.cumsum(lengths)[:-1]).astype(np.int64), np.array(lengths, np.int64))


@st.composite
def market(draw: st.DrawFn) -> tuple[list[dict[str, Any]], int]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 25))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        price = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.3, 1.0])), np.nan, rng.uniform(900, 1100, n))
        buy, sell = (np.where(rng.random(n) < 0.1, np.nan, price) for _ in range(2))
        found.append(
            {"buy": buy, "sell": sell, "close": rng.uniform(900, 1100, n), "delisted": bool(rng.random() < 0.5)}
        )
    return found, draw(st.integers(1, 12))


@settings(max_examples=200, deadline=None)
@given(market())
def test_equals_its_naive_twin(drawn: tuple[list[dict[str, Any]], int]) -> None:
    found, h = drawn
    places = series(*(len(one["close"]) for one in found))
    buy, sell, close = (np.concatenate([one[name] for one in found]) for name in ("buy", "sell", "close"))
    y, exit = forward_returns(buy, sell, close, places, np.array([one["delisted"] for one in found]), h)
    expected, ends = [], []
    for one, start in zip(found, places.starts):
        rows = np.arange(start, start + len(one["close"]), dtype=np.float64)
        value, end = naive(one, rows, h, delisted=one["delisted"])
        expected.append(value)
        ends.append(end)
    np.testing.assert_array_equal(y, np.concatenate(expected))
    np.testing.assert_array_equal(np.where(exit < 0, np.nan, exit), np.concatenate(ends))


def test_bought_at_the_next_open_and_sold_h_opens_later() -> None:
    opened = np.array([100.0, 110.0, 121.0, 133.0, 150.0])
    y, exit = forward_returns(opened, opened, opened + 1, series(5), np.array([False]), 2)
    np.testing.assert_allclose(y, [133 / 110 - 1, 150 / 121 - 1, np.nan, np.nan, np.nan])
    assert exit.tolist() == [3, 4, -1, -1, -1]


def test_a_delisted_symbol_is_left_at_its_last_close() -> None:
    opened, close = np.array([100.0, 110.0, 50.0]), np.array([105.0, 60.0, 7.0])
    y, exit = forward_returns(opened, opened, close, series(3), np.array([True]), 5)
    np.testing.assert_allclose(y, [7 / 110 - 1, 7 / 50 - 1, np.nan])
    assert exit.tolist() == [2, 2, -1]


def test_a_halt_delays_the_exit_and_forbids_the_entry() -> None:
    opened = np.array([100.0, 110.0, np.nan, np.nan, 90.0, 95.0])
    y, exit = forward_returns(opened, opened, np.full(6, 100.0), series(6), np.array([False]), 1)
    np.testing.assert_allclose(y, [90 / 110 - 1, np.nan, np.nan, 95 / 90 - 1, np.nan, np.nan])
    assert exit.tolist() == [4, -1, -1, 5, -1, -1]


def test_no_symbol_leaks_into_the_next() -> None:
    opened = np.array([100.0, 110.0, 900.0, 990.0, 1089.0])
    y, _ = forward_returns(opened, opened, opened, series(2, 3), np.zeros(2, bool), 1)
    np.testing.assert_allclose(y, [np.nan, np.nan, 0.1, np.nan, np.nan])


def test_what_cannot_be_sold_is_held_until_it_can() -> None:
    price = np.array([100.0, 110.0, 77.0, 54.0, 50.0])
    sell = np.array([100.0, 110.0, np.nan, np.nan, 50.0])  # two sessions at the lower limit
    y, exit = forward_returns(price, sell, price, series(5), np.array([False]), 1)
    np.testing.assert_allclose(y, [50 / 110 - 1, 50 / 77 - 1, 50 / 54 - 1, np.nan, np.nan])
    assert exit.tolist() == [4, 4, 4, -1, -1]


def test_what_cannot_be_bought_has_no_label() -> None:
    price = np.array([100.0, 130.0, 169.0, 150.0, 140.0])
    buy = np.array([100.0, np.nan, np.nan, 150.0, 140.0])
    y, _ = forward_returns(buy, price, price, series(5), np.array([False]), 1)
    np.testing.assert_allclose(y, [np.nan, np.nan, 140 / 150 - 1, np.nan, np.nan])


def test_horizons_are_checked() -> None:
    assert LabelSection(horizons=(1, 20)).targets()[1] == {"name": "y_20", "horizon": 20, "end": "y_20_end"}
    for wrong in ((), (0,), (2, 2), (1001,)):
        with pytest.raises(ValidationError):
            LabelSection(horizons=wrong)
