"""Targets against their naive twin, and what an entry or an exit that does not fill does to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.labels import LabelSection, Prices, forward_returns, make_labels
from pipeline.recurrence import Series
from tests.naive import forward_returns as naive

NEVER = np.zeros(1, bool)


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


@settings(max_examples=100, deadline=None)
@given(market(), st.integers(0, 24), st.integers(0, 2**32 - 1))
def test_bars_after_its_end_change_no_label(drawn: tuple[list[dict[str, Any]], int], last: int, seed: int) -> None:
    """Cut off or other bars after row `last`: what was known by then stays, and nothing else is known then."""
    (one, *_), h = drawn
    n, rng = len(one["close"]), np.random.default_rng(seed)
    assume(n > 1)
    last = min(last, n - 2)

    def labelled(delisted: bool, *columns: Any) -> tuple[Any, Any]:
        return forward_returns(*columns, series(len(columns[0])), np.array([delisted]), h)

    before = [one[name] for name in ("buy", "sell", "close")]
    y, exit = labelled(one["delisted"], *before)
    known = (exit >= 0) & (exit <= last)
    assert (exit > np.arange(n))[exit >= 0].all(), "no label ends before it begins"
    after = labelled(one["delisted"], *(np.append(v[: last + 1], rng.uniform(1, 2, n - last - 1)) for v in before))
    assert (after[0][known] == y[known]).all() and (after[1][known] == exit[known]).all()
    cut = labelled(False, *(v[: last + 1] for v in before))
    assert ((cut[1] >= 0) == known[: last + 1]).all()


def test_the_return_over_the_volatility_of_its_bars() -> None:
    opened = np.array([100.0, 110.0, 121.0, 133.0, 150.0, 160.0])
    volatility = np.array([0.02, np.nan, 0.0, np.inf, 0.02, 0.02])
    prices = Prices(*([opened] * 6))
    made = make_labels(LabelSection(horizons=(1, 4), kinds=("vol", "return")), prices, volatility, series(6), NEVER)
    assert list(made) == ["y_1_vol", "y_1", "y_4_vol", "y_4"]
    nan = np.nan
    np.testing.assert_allclose(made["y_4_vol"][0], [(160 / 110 - 1) / (0.02 * 2), nan, nan, nan, nan, nan])
    np.testing.assert_allclose(made["y_1_vol"][0], [(121 / 110 - 1) / 0.02, nan, nan, nan, nan, nan])
    assert made["y_1_vol"][1].tolist() == [2, -1, -1, -1, -1, -1], "what is not known has no end"
    assert made["y_1"][1].tolist() == [2, 3, 4, 5, -1, -1]


def test_every_target_says_what_it_is() -> None:
    section = LabelSection(horizons=(1, 20), kinds=("return", "vol", "barrier"))
    assert [t["name"] for t in section.targets()] == [
        "y_1",
        "y_1_vol",
        "y_1_barrier",
        "y_20",
        "y_20_vol",
        "y_20_barrier",
    ]
    assert section.targets()[0] == {"name": "y_1", "kind": "return", "horizon": 1, "end": "y_1_end"}
    assert section.targets()[5] == {"name": "y_20_barrier", "kind": "barrier", "horizon": 20, "end": "y_20_barrier_end"}
    assert LabelSection().targets() == [{"name": "y_5", "kind": "return", "horizon": 5, "end": "y_5_end"}]
    assert section.reads == ("high", "low") and LabelSection(kinds=("vol",)).reads == ()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"horizons": wrong} for wrong in ((), (0,), (2, 2), (1001,))),
        *({"kinds": wrong} for wrong in ((), ("vol", "vol"), ("excess",))),
        *({"barriers": wrong} for wrong in ((1.0,), (1.0, 0.0), (-1.0, 1.0), (np.inf, 1.0), (np.nan, 1.0))),
        {"volatility_window": 1},
        {"barrier_value": "sign"},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LabelSection.model_validate(wrong)
