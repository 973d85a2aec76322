"""The triple barrier against its naive twin, by hand, and what bars after its end can change: nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.labels import LabelSection, Prices, make_labels, triple_barrier
from pipeline.recurrence import Series
from tests.naive import triple_barrier as naive

NAN = np.nan
Found = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
Bars = dict[str, Any]


def series(*lengths: int) -> Series:
    return Series(np.append(0, np.cumsum(lengths)[:-1]).astype(np.int64), np.array(lengths, np.int64))


def labelled(found: list[Bars], h: int, barriers: tuple[float, float]) -> Found:
    """Return (side, y, exit) of some series, the exit counted from the beginning of its own."""
    places = series(*(len(one["close"]) for one in found))
    prices = Prices(*(np.concatenate([one[name] for one in found]) for name in Prices._fields))
    volatility = np.concatenate([one["volatility"] for one in found])
    ended = np.array([one["delisted"] for one in found])
    side, y, exit = triple_barrier(prices, volatility, places, ended, h, barriers)
    return side, y, np.where(exit < 0, -1, exit - np.repeat(places.starts, places.lengths))


def drawn_bars(rng: np.random.Generator, n: int, *, wild: float, close_only: bool) -> Bars:
    """Draw a walk on a coarse grid, so that prices meet barriers exactly, gap over both and stand at limits."""
    close = np.clip(1024 + 64 * np.cumsum(rng.integers(-3, 4, n)), 64, None).astype(float)
    traded = close if close_only else np.clip(close + 64 * rng.integers(-2, 3, n), 64, None)
    high, low = np.maximum(close, traded), np.minimum(close, traded)
    if not close_only:
        high, low = high + 64 * rng.integers(0, 3, n), np.clip(low - 64 * rng.integers(0, 3, n), 32, None)

    def holes(values: Any, share: float) -> Any:
        return np.where(rng.random(n) < share * wild, NAN, values)

    traded = holes(traded, 0.3)
    if close_only:
        high = low = traded
    volatility = rng.choice([0.0, NAN, 0.0625, 0.125, 0.25, 1.0, rng.uniform(0.01, 0.3)], n)
    return {
        "buy": holes(traded, 0.3),
        "sell": holes(traded, 0.4),
        "traded": traded,
        "high": holes(high, 0.3),
        "low": holes(low, 0.3),
        "close": close,
        "volatility": volatility,
        "delisted": bool(rng.random() < 0.5),
    }


@st.composite
def market(draw: st.DrawFn) -> tuple[list[Bars], int, tuple[float, float]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wild, close_only = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.booleans())
    sizes = draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    found = [drawn_bars(rng, n, wild=wild, close_only=close_only) for n in sizes]
    multiple = st.sampled_from([0.5, 1.0, 2.0, 40.0])
    return found, draw(st.integers(1, 30)), (draw(multiple), draw(multiple))


@settings(max_examples=400, deadline=None)
@given(market())
def test_equals_its_naive_twin(drawn: tuple[list[Bars], int, tuple[float, float]]) -> None:
    found, h, barriers = drawn
    side, y, exit = labelled(found, h, barriers)
    twins = [naive(one, one["volatility"], h, *barriers, delisted=one["delisted"]) for one in found]
    expected = [np.concatenate(part) for part in zip(*twins)]
    np.testing.assert_array_equal(side, expected[0])
    np.testing.assert_array_equal(y, expected[1])
    np.testing.assert_array_equal(np.where(exit < 0, NAN, exit), expected[2])


@settings(max_examples=200, deadline=None)
@given(market(), st.integers(0, 24), st.integers(0, 2**32 - 1))
def test_bars_after_its_end_change_no_label(
    drawn: tuple[list[Bars], int, tuple[float, float]], last: int, seed: int
) -> None:
    """Cut off or other bars after row `last`: what was known by then stays, and nothing else is known then."""
    (one, *_), h, barriers = drawn
    n = len(one["close"])
    assume(n > 1)
    last = min(last, n - 2)
    before = labelled([one], h, barriers)
    known = (before[2] >= 0) & (before[2] <= last)
    assert (before[2] > np.arange(n))[before[2] >= 0].all(), "no label ends before it begins"
    other = drawn_bars(np.random.default_rng(seed), n, wild=1.0, close_only=False)
    columns = {name: values for name, values in one.items() if name != "delisted"}
    mixed = {name: np.append(values[: last + 1], other[name][last + 1 :]) for name, values in columns.items()}
    for then, now in zip(before, labelled([{**mixed, "delisted": one["delisted"]}], h, barriers)):
        np.testing.assert_array_equal(then[known], now[known])
    cut = labelled([{**{name: v[: last + 1] for name, v in columns.items()}, "delisted": False}], h, barriers)
    for then, now in zip(before, cut):
        np.testing.assert_array_equal(then[: last + 1][known[: last + 1]], now[known[: last + 1]])
    assert ((cut[2] >= 0) == known[: last + 1]).all()


def by_hand(h: int = 3, barriers: tuple[float, float] = (1.0, 1.0), **columns: list[float]) -> tuple[float, float, int]:
    """Return the label of row 0: bought at 100 in row 1, barriers at 120 and 80 unless they are others."""
    opened = np.array(columns["opened"], float)
    one: Bars = {name: np.array(columns.get(name, opened), float) for name in Prices._fields}
    one["volatility"] = np.full(opened.size, 0.2 / np.sqrt(h))
    one["delisted"] = bool(columns.get("delisted", [False])[0])
    side, y, exit = labelled([one], h, barriers)
    return side[0], round(y[0], 9), exit[0]


CASES: dict[str, tuple[dict[str, Any], tuple[float, float, int]]] = {
    "none: sold at the open of the horizon": (
        {"opened": [99, 100, 101, 102, 103, 200]},
        (0, 0.03, 4),
    ),
    "the upper within a bar": ({"opened": [99, 100, 101, 102, 103], "high": [99, 110, 120, 102, 103]}, (1, 0.2, 2)),
    "the lower within the bar of the entry": (
        {"opened": [99, 100, 101, 102, 103], "low": [99, 79, 101, 102, 103]},
        (-1, -0.2, 1),
    ),
    "both in one bar: the lower one first": (
        {"opened": [99, 100, 101, 102, 103], "low": [99, 100, 70, 102, 103], "high": [99, 100, 130, 102, 103]},
        (-1, -0.2, 2),
    ),
    "a gap is sold at the open": ({"opened": [99, 100, 60, 102, 103]}, (-1, -0.4, 2)),
    "a gap up above, though the bar falls below": (
        {"opened": [99, 100, 150, 102, 103], "low": [99, 100, 50, 102, 103]},
        (1, 0.5, 2),
    ),
    "a gap at the open of the horizon": ({"opened": [99, 100, 101, 102, 130]}, (1, 0.3, 4)),
    "the bar of the horizon counts by its open alone": (
        {"opened": [99, 100, 101, 102, 103], "low": [99, 100, 101, 102, 10]},
        (0, 0.03, 4),
    ),
    "the high of the decision's bar is past": (
        {"opened": [99, 100, 101, 102, 103], "high": [500, 100, 101, 102, 103]},
        (0, 0.03, 4),
    ),
    "a close without high and low": (
        {"opened": [99, 100, 101, 102, 103], "close": [99, 100, 125, 102, 103], "high": [NAN] * 5, "low": [NAN] * 5},
        (1, 0.2, 2),
    ),
    "locked at the lower limit: sold when it trades": (
        {"opened": [99, 100, 70, 49, 55, 60], "sell": [99, 100, NAN, NAN, 55, 60]},
        (-1, -0.45, 4),
    ),
    "the first touch stays, wherever it is sold": (
        {"opened": [99, 100, 70, 49, 155, 60], "sell": [99, 100, NAN, NAN, 155, 60]},
        (-1, 0.55, 4),
    ),
    "a halt over the horizon": ({"opened": [99, 100, NAN, NAN, NAN, 90], "close": [99] * 6}, (0, -0.1, 5)),
    "a halt that ends below": ({"opened": [99, 100, NAN, NAN, NAN, 40], "close": [99] * 6}, (-1, -0.6, 5)),
    "no trade, no touch": (
        {"opened": [99, 100, NAN, 102, 103], "low": [99, 100, 10, 102, 103], "close": [99, 100, 10, 102, 103]},
        (0, 0.03, 4),
    ),
    "delisted, left at the last close": (
        {"opened": [99, 100, 101], "close": [99, 100, 97], "delisted": [1]},
        (0, -0.03, 2),
    ),
    "delisted below": (
        {"opened": [99, 100, NAN], "close": [99, 100, 7], "delisted": [1]},
        (-1, -0.93, 2),
    ),
    "delisted after a touch at the limit": (
        {"opened": [99, 100, 70], "sell": [99, 100, NAN], "close": [99, 100, 110], "delisted": [1]},
        (-1, 0.1, 2),
    ),
    "not known yet": ({"opened": [99, 100, 101, 102]}, (NAN, NAN, -1)),
    "known before the horizon is there": ({"opened": [99, 100, 121, 102]}, (1, 0.21, 2)),
    "touched but not sold yet": ({"opened": [99, 100, 70], "sell": [99, 100, NAN]}, (NAN, NAN, -1)),
    "cannot be bought": ({"opened": [99, 100, 101, 102, 103], "buy": [99, NAN, 1, 1, 1]}, (NAN, NAN, -1)),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str) -> None:
    columns, expected = CASES[case]
    np.testing.assert_array_equal(by_hand(**columns), expected)


def test_each_barrier_has_its_own_multiple_and_none_is_nearer_than_it() -> None:
    opened = {"opened": [99.0, 100.0, 85.0, 119.0, 103.0]}
    assert by_hand(barriers=(0.5, 1.0), **opened) == (1, 0.19, 3)
    assert by_hand(barriers=(1.0, 0.5), **opened) == (-1, -0.15, 2)
    assert by_hand(barriers=(1.0, 40.0), **opened) == (0, 0.03, 4), "a price below zero is never touched"


def test_the_value_is_the_side_or_what_was_earned() -> None:
    price = np.array([99.0, 100.0, 60.0, 102.0, 103.0])
    prices, ended = Prices(*([price] * 6)), np.zeros(1, bool)
    volatility = np.full(5, 0.1)
    for value, expected in (("side", -1.0), ("return", -0.4)):
        section = LabelSection(horizons=(3,), kinds=("barrier",), barrier_value=value)  # type: ignore[arg-type]
        (y, exit) = make_labels(section, prices, volatility, series(5), ended)["y_3_barrier"]
        assert (round(y[0], 9), exit[0]) == (expected, 2)
