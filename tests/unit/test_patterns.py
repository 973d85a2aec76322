"""Double bottoms and tops of the MACD histogram: which swings make one, when it is known, what each limit does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.indicators import Spec, compute
from tests.naive.patterns import Swing, swings
from tests.walks import Array, Bars, coarse, frame, walk

FAST = {"fast": 3, "slow": 7, "signal": 3}  # weights 1/2, 1/4, 1/2
SERIES = {"walk": walk(3_000, 1), "ticks": coarse(walk(3_000, 2, step=0.004), 100.0)}


def of(bars: Bars, tolerance: float = 0.1, apart: int = 0) -> Array:
    return column(bars, Spec(indicator="macd_double", params=FAST | {"tolerance": tolerance, "apart": apart}))


def histogram(bars: Bars) -> Array:
    return column(bars, Spec(indicator="macd", params=FAST, outputs=("macd_histogram",)))


def column(bars: Bars, spec: Spec) -> Array:
    return compute(frame({"A": bars}), [spec], dtype=np.float64).to_numpy()[:, 0].copy()


def prices(wanted: list[float]) -> Bars:
    """Return closes whose MACD histogram with FAST takes these values, to the bit if they are short in binary, after
    the bars on which it becomes known. They begin at 0, where sums are exact.
    """
    close = np.zeros(9)
    for value in wanted:
        at_0, at_1 = (histogram({"close": np.append(close, last)})[-1] for last in (0.0, 1.0))
        close = np.append(close, (value - at_0) / (at_1 - at_0))  # it is linear in the last close
    assert histogram({"close": close})[9:].tolist() == wanted
    return {"close": close}


def drawn(wanted: list[float], tolerance: float, apart: int = 0) -> list[float]:
    return list(of(prices(wanted), tolerance, apart)[9:])


W = [-1.0, -3.0, -2.0, 1.0, 2.0, -1.0, -3.25, -1.0, 0.5, 1.0, 3.0]


@pytest.mark.parametrize("side", [1, -1])
def test_a_pattern_is_known_when_its_second_swing_has_ended(side: int) -> None:
    """The second trough is 3.25 deep beside 3; the first bar above 0 after it, and no other, completes the W."""
    found = drawn([side * value for value in W], tolerance=0.1)
    assert found == [0.0] * 8 + [side] + [0.0] * 2


@pytest.mark.parametrize(
    "tolerance, apart, found",
    [(0.08, 0, 0), (0.09, 0, 1), (1.0, 0, 1), (0.1, 4, 0), (0.1, 5, 1), (0.1, 1_000, 1)],
)
def test_limits_of_depth_and_distance(tolerance: float, apart: int, found: int) -> None:
    """The troughs are 3 and 3.25 deep, 8.3 % more, and 5 bars apart."""
    assert drawn(W, tolerance, apart)[8] == found


def test_a_second_swing_may_be_any_shallower_and_is_the_first_of_the_next_pattern() -> None:
    assert drawn([-3.0, 1.0, -0.5, 0.5, -0.25, 0.75, -2.0, 1.0], tolerance=0.0) == [0, 0, 0, 1, -1, 1, 0, 0]
    assert drawn([-3.0, 1.0, 0.0, -0.5, 0.0, -0.75, 0.0, 2.0], tolerance=0.0) == [0] * 7 + [1], "0 ends no swing"


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("tolerance, apart", [(0.0, 0), (0.1, 0), (0.5, 12), (1.0, 3)])
def test_patterns_are_those_of_the_histogram_to_the_bit(name: str, tolerance: float, apart: int) -> None:
    """Read off the column of `macd` of the same parameters, swing by swing."""
    bars = SERIES[name]
    values, found = histogram(bars), of(bars, tolerance, apart)
    known = np.isfinite(values)
    np.testing.assert_array_equal(np.isfinite(found), known)
    values[~known] = 0.0
    expected, runs = np.zeros(len(values)), swings(values)
    for one, _, two, after in zip(runs, runs[1:], runs[2:], runs[3:]):
        alike = abs(two.extreme) <= (1.0 + tolerance) * abs(one.extreme)
        if alike and (apart == 0 or two.place - one.place <= apart):
            expected[begin(values, two, after)] = -two.side
    np.testing.assert_array_equal(found[known], expected[known])
    assert (found == 1).sum() > 5 and (found == -1).sum() > 5


def begin(values: Array, before: Swing, after: Swing) -> int:
    """Return the first bar of a swing: the first on its side after the extreme of the one before."""
    return before.place + int(np.argmax(values[before.place :] * after.side > 0))


def test_wider_limits_find_all_that_narrower_ones_find() -> None:
    for bars in SERIES.values():
        found = [of(bars, tolerance, apart) for tolerance, apart in ((0.0, 8), (0.0, 20), (0.3, 20), (0.3, 0), (1, 0))]
        for narrow, wide in itertools.pairwise(found):
            marked = np.nan_to_num(narrow) != 0
            assert (wide[marked] == narrow[marked]).all() and (np.nan_to_num(wide) != 0).sum() > marked.sum()
