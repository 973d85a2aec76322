"""Folds are those of skfolio and scikit-learn where the three mean the same.

Common ground: one row a timestamp, so that positions are times; labels purged by count, not by their ends. skfolio and
scikit-learn know no validation part: in walk_forward it lies, with the embargo before and after it, within their purged
gap; in kfold it and the test are the two test folds of a combination. They leave the end of a test fold whole, we take
the embargo off validation, so only tests are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from training.splits import TEST, TRAIN, VALID, SplitSection, make_folds

EMBARGO = 3


@pytest.fixture(scope="module")
def skfolio() -> Any:
    return pytest.importorskip("skfolio.model_selection", reason="make test-all installs it")


@pytest.fixture(scope="module")
def sklearn() -> Any:
    return pytest.importorskip("sklearn.model_selection", reason="make test-all installs it")


def forward(n: int, valid: int, test: int, **settings: int) -> list[tuple[list[int], list[int]]]:
    """Return training and test rows of the folds whose first validation and test begin at the given rows."""
    fractions = {"train_fraction": (valid + 0.5) / n, "valid_fraction": (test - valid) / n}
    section = SplitSection(kind="walk_forward", **fractions, **settings)
    ts = np.arange(n)
    folds = [fold.of(ts) for fold in make_folds(ts, section, EMBARGO, 0)]
    return [(np.flatnonzero(f == TRAIN).tolist(), np.flatnonzero(f == TEST).tolist()) for f in folds]


@given(
    n=st.integers(60, 150), valid=st.integers(10, 30), length=st.integers(5, 20), every=st.integers(1, 20),
    expanding=st.booleans(),
)  # fmt: skip
def test_walk_forward_is_skfolio_s(skfolio: Any, n: int, valid: int, length: int, every: int, expanding: bool) -> None:
    test, size = valid + length, valid - EMBARGO
    gap = EMBARGO + length  # ours: embargo, validation without its last embargo, embargo
    assume(length > EMBARGO)
    theirs = skfolio.WalkForward(
        test_size=every, train_size=size, purged_size=gap, expand_train=expanding, reduce_test=True
    )
    expected = [(a.tolist(), b.tolist()) for a, b in theirs.split(np.zeros((n, 2)))]
    assert forward(n, valid, test, refit_every=every, train_window=0 if expanding else size) == expected


@given(n=st.integers(60, 150), valid=st.integers(10, 30), length=st.integers(5, 20), folds=st.integers(2, 6))
def test_walk_forward_is_scikit_learn_s(sklearn: Any, n: int, valid: int, length: int, folds: int) -> None:
    test = valid + length
    assume(length > EMBARGO and (n - test) % folds == 0)  # its tests are all as long
    theirs = sklearn.TimeSeriesSplit(n_splits=folds, gap=EMBARGO + length, test_size=(n - test) // folds)
    expected = [(a.tolist(), b.tolist()) for a, b in theirs.split(np.zeros(n))]
    assert forward(n, valid, test, folds=folds) == expected


@given(folds=st.integers(3, 8), size=st.integers(20, 30), look_back=st.integers(0, 12))
def test_kfold_is_skfolio_s_with_two_neighbours_as_tests(skfolio: Any, folds: int, size: int, look_back: int) -> None:
    """Its purge goes before and after a test fold, its embargo after it alone: what exceeds the purge of the look-back.
    With the last part as validation and the first as the test, the two are neighbours in a circle.
    """
    n = folds * size
    ts = np.arange(n)
    theirs = skfolio.CombinatorialPurgedCV(
        n_folds=folds, n_test_folds=2, purged_size=EMBARGO, embargo_size=max(0, look_back - EMBARGO)
    )
    combined = {}
    for (train, tests), parts in zip(theirs.split(np.zeros((n, 2))), theirs.test_set_index):
        combined[tuple(sorted(parts.tolist()))] = train.tolist(), [test.tolist() for test in tests]
    for fold in make_folds(ts, SplitSection(kind="kfold", folds=folds), EMBARGO, look_back):
        pair = tuple(sorted((fold.number, (fold.number - 1) % folds)))
        train, tests = combined[pair]
        mine = fold.of(ts)
        assert np.flatnonzero(mine == TRAIN).tolist() == train
        assert np.flatnonzero(mine == TEST).tolist() == tests[pair.index(fold.number)]
        assert {*np.flatnonzero(mine == VALID).tolist()} <= {*tests[1 - pair.index(fold.number)]}
