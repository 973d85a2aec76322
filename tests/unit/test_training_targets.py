"""What is learned compares within a moment only, and a shuffled one teaches nothing."""

from __future__ import annotations

import numpy as np
import pytest

from training.targets import choose_kind, shuffle, transform


def test_targets_compare_within_a_timestamp_only() -> None:
    ts = np.repeat(np.arange(10), 20)
    y = np.random.default_rng(0).normal(0, 0.02, 200).astype(np.float32)
    y[3] = np.nan
    fit = ts < 6
    rank = transform("rank", y, ts, fit)
    assert np.isnan(rank[3])
    moved = transform("rank", np.where(ts == 4, 10 * y + 1, y).astype(np.float32), ts, fit)
    assert np.array_equal(rank, moved, equal_nan=True)
    for t in range(1, 10):
        mine = rank[ts == t]
        assert np.array_equal(np.argsort(mine), np.argsort(y[ts == t]))
        assert abs(mine.mean()) < 1e-6
        assert mine.std() == pytest.approx(1.0, abs=0.01)
    excess = transform("excess", y, ts, fit)
    np.testing.assert_allclose([np.nanmean(excess[ts == t]) for t in range(10)], 0, atol=1e-6)
    plain = transform("return", y, ts, fit)
    assert np.nanmean(plain[fit]) == pytest.approx(0, abs=1e-6)
    assert np.nanstd(plain[fit]) == pytest.approx(1, abs=0.02)
    later = y.copy()
    later[ts >= 6] *= 100
    assert np.array_equal(transform("return", later, ts, fit)[fit], plain[fit], equal_nan=True)
    assert choose_kind("auto", ts) == "rank"
    assert choose_kind("auto", np.arange(50)) == "return"
    assert choose_kind("excess", np.arange(50)) == "excess"


def test_shuffled_targets_keep_their_split_and_their_values() -> None:
    target = np.arange(100, dtype=np.float32)
    target[::9] = np.nan
    train, valid = np.arange(100) < 60, (np.arange(100) >= 60) & (np.arange(100) < 80)
    mixed = target.copy()
    shuffle(mixed, [train, valid], 3)
    for part in (train, valid):
        assert sorted(mixed[part & np.isfinite(mixed)].tolist()) == target[part & np.isfinite(target)].tolist()
    assert np.array_equal(mixed[80:], target[80:], equal_nan=True)
    assert np.array_equal(np.isnan(mixed), np.isnan(target))
    assert (mixed[train] != target[train]).sum() > 45
