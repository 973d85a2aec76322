"""Combinations of parameters: grids and rows, and what is no combination."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.backtest.single.samples import combinations_of, grid, one, samples
from pipeline.strategies import StrategyError, moving_average_cross, rsi_reversion, strategy_of, wm_pattern


def test_a_grid_has_every_combination_in_order_and_leaves_out_what_breaks_the_order_of_parameters() -> None:
    found = grid(moving_average_cross, {"fast": [20, 60], "slow": [40, 60, 80], "stop_atr": (1.5,)}).frame()
    assert list(zip(found["fast"], found["slow"])) == [(20, 40), (20, 60), (20, 80), (60, 80)]
    assert (found["stop_atr"] == 1.5).all()
    assert (found["atr"] == 14).all()
    assert found["fast"].dtype == np.int64


def test_a_value_that_is_given_twice_counts_once_and_one_alone_is_a_list() -> None:
    assert len(grid(rsi_reversion, {"rsi": [5, 5.0, 7], "low": 30})) == 2
    assert len(grid(rsi_reversion, {"rsi": np.array([5, 7]), "low": np.int64(30), "middle": range(50, 53)})) == 6
    assert len(grid(rsi_reversion, {})) == 1


def test_rows_come_as_a_frame_or_mappings_and_what_is_not_named_has_its_default() -> None:
    rows = [{"filter_timeframe": "1h", "stop_atr": 1.23}, {"filter_timeframe": "4h", "stop_atr": 2}]
    for given in (rows, pd.DataFrame(rows), combinations_of(wm_pattern, rows)):
        found = combinations_of(wm_pattern, given)
        assert found.values(0) == wm_pattern.defaults | rows[0]
        assert found.values(1)["filter_timeframe"] == "4h"
        pd.testing.assert_frame_equal(found.frame(), samples(wm_pattern, found.frame()).frame())
    assert one(wm_pattern, {}).values(0) == wm_pattern.defaults


def test_values_between_the_steps_are_combinations_too() -> None:
    stops = np.random.default_rng(3).uniform(1, 4, 50)
    assert samples(wm_pattern, pd.DataFrame({"stop_atr": stops})).columns()["stop_atr"].tolist() == stops.tolist()
    assert grid(wm_pattern, {"stop_atr": stops, "level": [33]}).columns()["stop_atr"].tolist() == stops.tolist()


BAD: dict[str, tuple[Any, str]] = {
    "above the range": ({"fast": [65]}, "expected a whole number of 5..60 by 5 for parameter 'fast', got 65"),
    "not whole": ({"fast": [5.5]}, "whole number .* got 5.5"),
    "not known": ({"fast": [float("nan")]}, "got nan"),
    "none": ({"fast": [None]}, "got None"),
    "text": ({"fast": ["5"]}, "got '5'"),
    "a list in a list": ({"fast": [[5, 10]]}, r"got \[5, 10\]"),
    "another name": ({"fats": [5]}, "did you mean 'fast'"),
    "no values": ({"fast": []}, "got an empty list; leave it out"),
    "no order": ({"fast": [60], "slow": [40]}, "expected combinations with fast < slow"),
    "row out of range": ([{"fast": 5}, {"fast": 1}], "got 1 in row 1"),
    "row with a list": ([{"fast": [5, 10]}], r"got \[5, 10\] in row 0"),
    "row of another name": (pd.DataFrame({"fats": [5]}), "did you mean 'fast'"),
    "row out of order": ([{"slow": 240}, {"fast": 60, "slow": 40}], "got fast 60, slow 40 in row 1"),
    "no rows": ([], "got none"),
    "nothing": (None, "expected combinations as lists of values by parameter, or as rows, got None"),
    "a number": (5, "got 5"),
    "a word": ("fast", "got 'fast'"),
    "of another strategy": (grid(rsi_reversion, {}), "expected samples of strategy 'moving_average_cross', got those"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_combination_is_refused(name: str) -> None:
    given, message = BAD[name]
    with pytest.raises(StrategyError, match=message):
        combinations_of(moving_average_cross, given)


def test_a_timeframe_that_is_no_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(
        StrategyError, match="expected one of 1h, 4h, 1d, 1w for parameter 'filter_timeframe', got '3h'"
    ):
        grid(wm_pattern, {"filter_timeframe": ["3h"]})


def test_more_combinations_than_fit_are_refused_before_they_are_made() -> None:
    ranges = {name: range(5, 31) for name in ("rsi", "atr")} | {
        "slow": range(30, 61),
        "signal": range(3, 21),
        "filter_ema": range(10, 201, 5),
        "fast": range(4, 21),
    }
    with pytest.raises(StrategyError, match=r"expected at most 50,000,000 .* got 250,.* GB for their parameters alone"):
        grid(wm_pattern, ranges)


def test_a_strategy_has_to_be_one() -> None:
    with pytest.raises(StrategyError, match="did you mean 'wm_pattern'"):
        strategy_of("wm_patern")
    with pytest.raises(StrategyError, match="expected a Strategy, got 'wm_pattern'; see strategy_of"):
        combinations_of("wm_pattern", {})  # type: ignore[arg-type]
