"""Which windows a training sees, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from storage.emit import silent
from tests.feature_blocks import write_blocks
from tests.fits import TINY, loop_of
from training.columns import DataError
from training.dataset import Dataset, prepare
from training.section import TrainSection
from training.splits import TEST, TRAIN, SplitSection
from training.windows import Windows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    features = write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)
    return prepare(features, SplitSection(), TrainSection(**TINY), silent)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[list[NDArray[np.int64]]]:
    """Return a list that gets the parts of every pass of training over the windows."""
    passes: list[list[NDArray[np.int64]]] = []
    real = Windows.batches

    def batches(self: Windows, parts: Sequence[NDArray[np.int64]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if torch.is_grad_enabled():
            passes.append(list(parts))
        return real(self, parts)

    monkeypatch.setattr(Windows, "batches", batches)
    return passes


def test_each_epoch_draws_other_windows_and_none_twice(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = recorded(monkeypatch)
    for seed in (0, 1):
        loop = loop_of("lstm", dataset, TrainSection(**{**TINY, "windows_per_epoch": 500, "num_epochs": 3}, seed=seed))
        loop.run()
    drawn = [np.concatenate(parts).tolist() for parts in passes]
    assert len(drawn) == 6
    assert all(len(set(d)) == len(d) == 500 for d in drawn)
    assert len({tuple(d) for d in drawn}) == 6
    assert len(set().union(*drawn)) > 1500
    assert set().union(*drawn) <= set(loop.plan.ends_W.tolist())


def test_a_loss_that_compares_gets_whole_moments(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = recorded(monkeypatch)
    loop = loop_of("lstm", dataset, TrainSection(**{**TINY, "num_epochs": 2, "windows_per_epoch": 0}, loss="ic"))
    loop.run()
    ts_N = dataset.panel.ts_N
    whole = dict(zip(*np.unique(ts_N[loop.plan.ends_W], return_counts=True)))
    for parts in passes:
        for part in parts:
            times, counts = np.unique(ts_N[part], return_counts=True)
            assert all(n == whole[t] for t, n in zip(times, counts))
            assert part is parts[-1] or loop.train.batch_size <= len(part) < loop.train.batch_size + max(whole.values())
        order = np.concatenate(parts)
        assert sorted(order.tolist()) == loop.plan.ends_W.tolist()
        assert np.count_nonzero(np.diff(ts_N[order])) == len(whole) - 1, "a moment comes in two pieces"
    assert passes[0][0].tolist() != passes[1][0].tolist()


def test_moments_larger_than_a_batch_stay_whole_and_accumulate(dataset: Dataset) -> None:
    """24 symbols and batches of 8: each part is one moment; an epoch that draws a few ends at the end of one."""
    settings = {**TINY, "batch_size": 8, "gradient_accumulation_steps": 3, "windows_per_epoch": 100}
    loop = loop_of("lstm", dataset, TrainSection(**settings, loss="rank"))
    order = loop.plan.order(0)
    whole = dict(zip(*np.unique(dataset.panel.ts_N[loop.plan.ends_W], return_counts=True)))
    steps = loop.plan.steps(order, loop.micro)
    assert 100 <= len(order) < 100 + max(whole.values()) and sum(step.windows for step in steps) == len(order)
    assert [len(step.parts) for step in steps[:-1]] == [3] * (len(steps) - 1)
    for part in (part for step in steps for part in step.parts):
        (moment,) = set(dataset.panel.ts_N[part].tolist())
        assert len(part) == whole[moment]


def test_a_loss_that_compares_needs_something_to_compare(tmp_path: Path) -> None:
    """A network with one symbol a moment does not; a baseline does not look at the loss."""
    write_blocks(tmp_path, symbols=1, groups=1)
    compares = TrainSection(**TINY, loss="ic")
    with pytest.raises(DataError, match=r"at least two symbols for train\.loss ic, .* of fold 0; use mse"):
        prepare(tmp_path, SplitSection(), compares, silent)
    prepare(tmp_path, SplitSection(), compares.model_copy(update={"models": ("ridge", "trees")}), silent)


def test_training_never_looks_at_the_test(dataset: Dataset) -> None:
    loop = loop_of("lstm", dataset, TrainSection(**TINY))
    assert set(dataset.split_N[loop.plan.ends_W].tolist()) == {TRAIN}
    seen = np.concatenate([loop.plan.ends_W, loop.judge.ends_W])
    assert not (dataset.split_N[seen] == TEST).any()
    assert dataset.panel.ts_N[seen].max() < dataset.fold.start(TEST)
