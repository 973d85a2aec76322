"""How long series are cut into pieces: nothing is lost or stored twice, and a warm-up is never too short."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.recurrence import Series
from pipeline.recurrence.pieces import SHORTEST, Cut, cut_series, cuts_of


def series_of(*lengths: int) -> Series:
    sizes = np.array(lengths, np.int64)
    return Series(np.cumsum(sizes) - sizes, sizes)


@pytest.mark.parametrize(("bars", "warmup"), [(0, 0), (10, 0), (10, 7), (7, 500), (33, 5), (1, 3)])
def test_every_bar_is_stored_once(bars: int, warmup: int) -> None:
    series = series_of(100, 1, 0, 37, 10, 11, 64)
    lane = cut_series(series, Cut((0,), bars, warmup))
    stored = np.zeros(int(series.lengths.sum()), int)
    for i in range(lane.series.size):
        stored[lane.starts[i] + lane.early[i] : lane.starts[i] + lane.lengths[i]] += 1
        assert lane.lengths[i] - lane.early[i] <= (bars or 100)
        assert lane.early[i] == min(warmup, lane.before[i] + lane.early[i])
        assert lane.starts[i] == series.starts[lane.series[i]] + lane.before[i]
    assert (stored == 1).all()
    assert sorted(lane.series[lane.last.astype(bool)]) == [0, 1, 3, 4, 5, 6]
    assert (np.diff(lane.lengths) <= 0).all()


def test_few_long_series_are_cut_and_many_are_not() -> None:
    long, wide = series_of(*[98_000] * 20), series_of(*[2_500] * 4_000)
    (cut,) = cuts_of([40.0] * 10, long, lanes=10_000)
    assert cut.bars == 1_960 and cut.warmup == 40
    assert abs(cut_series(long, cut).lengths.size * 10 - 10_000) < 500
    assert cuts_of([40.0] * 10, wide, lanes=10_000) == [Cut(tuple(range(10)), 0, 0)]
    assert cuts_of([40.0], series_of(500), lanes=10_000)[0].bars == 0
    assert cuts_of([1.0], long, lanes=10**9)[0].bars == SHORTEST
    assert cuts_of([1.0], long, lanes=0)[0].bars == 0


def test_a_warmup_is_never_longer_than_what_is_stored_unless_told() -> None:
    series = series_of(98_000, 5)
    cuts = cuts_of([20.0, 3_000.0, math.inf, 60_000.0, 300.0], series, lanes=500)
    assert cuts == [Cut((2, 3), 0, 0), Cut((1,), 8_192, 3_000), Cut((0, 4), 1_024, 300)]
    told = cuts_of([20.0, 3_000.0, math.inf, 30.0], series, lanes=0, pieces=98)
    assert told == [Cut((2,), 0, 0), Cut((0, 3), 1_000, 30), Cut((1,), 1_000, 3_000)]
    assert cuts_of([20.0, 3_000.0], series, lanes=10**9, pieces=1) == [Cut((0, 1), 0, 0)]
