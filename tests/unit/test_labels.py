"""Targets against their naive twin, and the bars that nobody could have bought."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.labels import LabelSection, Listing, bases, forward_returns, listing, locked_up
from pipeline.recurrence import Series
from storage.schema import SYMBOLS
from tests.naive import forward_returns as naive


def series(*lengths: int) -> Series:
    return Series(np.append(0, np.cumsum(lengths)[:-1]).astype(np.int64), np.array(lengths, np.int64))


@st.composite
def market(draw: st.DrawFn) -> tuple[list[dict[str, Any]], int]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, 25))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        opened = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.3, 1.0])), np.nan, rng.uniform(900, 1100, n))
        close = rng.uniform(900, 1100, n)
        found.append(
            {"open": opened, "close": close, "locked": rng.random(n) < 0.1, "delisted": bool(rng.random() < 0.5)}
        )
    return found, draw(st.integers(1, 12))


@settings(max_examples=150, deadline=None)
@given(market(), st.booleans())
def test_equals_its_naive_twin(drawn: tuple[list[dict[str, Any]], int], close_only: bool) -> None:
    found, h = drawn
    places = series(*(len(one["close"]) for one in found))
    close, locked = (np.concatenate([one[name] for one in found]) for name in ("close", "locked"))
    price = close if close_only else np.concatenate([one["open"] for one in found])
    ended = np.array([one["delisted"] for one in found])
    y, exit = forward_returns(price, close, locked, places, ended, h)
    expected, ends = [], []
    for one, start in zip(found, places.starts):
        rows = np.arange(start, start + len(one["close"]), dtype=np.float64)
        value, end = naive(one, rows, h, delisted=one["delisted"], locked=one["locked"], close_only=close_only)
        expected.append(value)
        ends.append(end)
    np.testing.assert_array_equal(y, np.concatenate(expected))
    np.testing.assert_array_equal(np.where(exit < 0, np.nan, exit), np.concatenate(ends))


def test_bought_at_the_next_open_and_sold_h_opens_later() -> None:
    opened = np.array([100.0, 110.0, 121.0, 133.0, 150.0])
    y, exit = forward_returns(opened, opened + 1, np.zeros(5, bool), series(5), np.array([False]), 2)
    np.testing.assert_allclose(y, [133 / 110 - 1, 150 / 121 - 1, np.nan, np.nan, np.nan])
    assert exit.tolist() == [3, 4, -1, -1, -1]


def test_a_delisted_symbol_is_left_at_its_last_close() -> None:
    opened, close = np.array([100.0, 110.0, 50.0]), np.array([105.0, 60.0, 7.0])
    y, exit = forward_returns(opened, close, np.zeros(3, bool), series(3), np.array([True]), 5)
    np.testing.assert_allclose(y, [7 / 110 - 1, 7 / 50 - 1, np.nan])
    assert exit.tolist() == [2, 2, -1]


def test_a_halt_delays_the_exit_and_forbids_the_entry() -> None:
    opened = np.array([100.0, 110.0, np.nan, np.nan, 90.0, 95.0])
    y, exit = forward_returns(opened, np.full(6, 100.0), np.zeros(6, bool), series(6), np.array([False]), 1)
    np.testing.assert_allclose(y, [90 / 110 - 1, np.nan, np.nan, 95 / 90 - 1, np.nan, np.nan])
    assert exit.tolist() == [4, -1, -1, 5, -1, -1]


def test_no_symbol_leaks_into_the_next() -> None:
    opened = np.array([100.0, 110.0, 900.0, 990.0, 1089.0])
    y, _ = forward_returns(opened, opened, np.zeros(5, bool), series(2, 3), np.zeros(2, bool), 1)
    np.testing.assert_allclose(y, [np.nan, np.nan, 0.1, np.nan, np.nan])


ONE = Listing(["KOSPI"], ["stock"], np.array([False]))


@pytest.mark.parametrize(
    ("day", "base", "price", "locked"),
    [
        ("2024-03-05", 50_000, 65_000, True),  # 30 %
        ("2024-03-05", 50_000, 64_900, True),  # a tick below: a source that rounds
        ("2024-03-05", 50_000, 64_700, False),
        ("2024-03-05", 50_000, 60_000, False),  # one price all day, but free to move
        ("2024-03-05", 50_000, 35_000, False),  # the lower limit can be bought
        ("2015-06-12", 50_000, 57_500, True),  # 15 % until then
        ("2015-06-15", 50_000, 57_500, False),
    ],
)
def test_a_bar_locked_at_its_upper_limit(day: str, base: float, price: float, locked: bool) -> None:
    days = np.array([np.datetime64(day) - 1, np.datetime64(day)])
    close = np.array([base, price], np.float64)
    before = bases(close, np.ones(2), days, series(2))
    np.testing.assert_array_equal(before, [np.nan, base])
    assert locked_up(close, close, close, close, before, days, series(2), ONE).tolist() == [False, locked]
    moved = close - 1  # a low below the close: somebody sold cheaper
    assert not locked_up(close, close, moved, close, before, days, series(2), ONE).any()


def test_the_limit_follows_a_split_and_the_day() -> None:
    days = np.array(["2024-03-04", "2024-03-04", "2024-03-05", "2024-03-05"], "datetime64[D]")
    close = np.array([99_000.0, 100_000.0, 26_000.0, 26_000.0])  # five for one overnight: base 20,000
    factor = np.array([1.0, 1.0, 5.0, 5.0])
    before = bases(close, factor, days, series(4))
    np.testing.assert_array_equal(before, [np.nan, np.nan, 20_000, 20_000])
    assert locked_up(close, close, close, close, before, days, series(4), ONE).tolist() == [False, False, True, True]


def test_listing_knows_who_has_ended() -> None:
    rows = [
        {"symbol": "A", "market": "KOSDAQ", "kind": "stock", "delisted": date(2020, 5, 1)},
        {"symbol": "B", "market": "KOSPI", "kind": "etf", "delisted": date(2021, 5, 1)},
        {"symbol": "C", "market": None, "kind": None, "delisted": None},
    ]
    table = pa.Table.from_pylist(rows, SYMBOLS)
    found = listing(["A", "B", "C", "D"], table, date(2020, 12, 31))
    assert found.ended.tolist() == [True, False, False, False]
    assert found.markets == ["KOSDAQ", "KOSPI", "KOSPI", "KOSPI"] and found.kinds == ["stock", "etf", "stock", "stock"]


def test_horizons_are_checked() -> None:
    assert LabelSection(horizons=(1, 20)).targets()[1] == {"name": "y_20", "horizon": 20, "end": "y_20_end"}
    for wrong in ((), (0,), (2, 2), (1001,)):
        with pytest.raises(ValidationError):
            LabelSection(horizons=wrong)
