"""What holds for any search: bounds, order, scale, mirrored splits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.backtest.cscv import cscv, overfitting
from pipeline.backtest.overfit import deflated, expected_maximum, moments, probabilistic_sharpe
from tests.searches import block_sums, powers

QUICK = settings(max_examples=60, deadline=None)
RETURN = st.floats(-0.3, 0.3).map(lambda x: round(x, 4))
STEPS = st.sampled_from([-0.02, -0.01, 0.0, 0.0, 0.01, 0.02])  # many ties and idle stretches
RECORDS = st.lists(RETURN, min_size=2, max_size=200).map(np.array)


def searches(trials: int = 12) -> Any:
    return arrays.arrays(np.float64, (48, trials), elements=STEPS)


@QUICK
@given(RECORDS)
def test_a_probability_is_one_and_the_spread_is_no_less_than_zero(r: Any) -> None:
    found = moments(len(r), powers(r))
    if math.isnan(found.sharpe):
        assert np.ptp(r) < 1e-4 * np.abs(r).max(initial=1e-300) + 1e-12
        return
    assert found.spread > -1e-6 * (1 + found.sharpe**2)
    chances = [probabilistic_sharpe(found, b) for b in (-0.5, 0.0, 0.1, 0.5)]
    assert math.isnan(chances[0]) or (chances == sorted(chances, reverse=True) and 0 <= chances[-1] <= chances[0] <= 1)


@QUICK
@given(RECORDS, st.floats(0.01, 100))
def test_leverage_changes_nothing(r: Any, scale: float) -> None:
    one, other = moments(len(r), powers(r)), moments(len(r), powers(r * scale))
    assert one.sharpe == pytest.approx(other.sharpe, rel=1e-5, nan_ok=True)
    assert one.kurtosis == pytest.approx(other.kurtosis, rel=1e-4, nan_ok=True)


@QUICK
@given(st.integers(10, 10**9), st.integers(10, 10**9), st.floats(0, 1))
def test_more_trials_leave_less(one: int, other: int, variance: float) -> None:
    assert (one <= other) == (expected_maximum(one, 1.0) <= expected_maximum(other, 1.0))
    sums = powers(np.random.default_rng(1).normal(0.001, 0.01, 250))
    few, many = (deflated(250, sums, n, variance)[0]["deflated_sharpe"] for n in sorted((one, other)))
    assert many <= few


@QUICK
@given(searches(), st.permutations(range(12)))
def test_order_of_combinations_and_time_reversed_halves(r_TC: Any, order: list[int]) -> None:
    sums, counts = block_sums(r_TC, 6)
    found, again = cscv(sums, counts), cscv(sums[order], counts)
    for name in ("rank", "inside", "outside"):
        assert np.array_equal(getattr(found, name), getattr(again, name))
    back = cscv(np.ascontiguousarray(sums[:, ::-1]), counts)  # blocks in reverse: the same splits in another order
    assert sorted(back.inside) == pytest.approx(sorted(found.inside), rel=1e-6, abs=1e-9)


@QUICK
@given(searches())
def test_numbers_are_within_their_bounds(r_TC: Any) -> None:
    values, reasons, found = overfitting(*block_sums(r_TC, 6))
    assert found is not None and values.keys() >= reasons.keys()
    assert ((found.rank >= 1 / 13) & (found.rank <= 12 / 13)).all()
    assert values["pbo"] == np.mean(found.logit <= 1e-15)
    for name in ("pbo", "mean_rank", "loss", "dominates"):
        assert 0 <= values[name] <= 1
    assert np.isfinite(found.inside).all() and np.isfinite(found.outside).all()


@QUICK
@given(searches())
def test_twins_of_all_change_the_rank_of_nobody(r_TC: Any) -> None:
    """Each combination twice: rank / (C + 1) of the mean rank moves by less than one place."""
    one = cscv(*block_sums(r_TC, 6))
    two = cscv(*block_sums(np.repeat(r_TC, 2, axis=1), 6))
    assert np.allclose(two.inside, one.inside, rtol=0, atol=0)
    assert np.allclose(two.rank * 25, 2 * one.rank * 13 - 0.5)
