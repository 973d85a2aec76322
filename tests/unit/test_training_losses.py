"""Losses against slow twins, and their gradients against finite differences."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.losses import loss_of

NAMES: tuple[Any, ...] = ("mse", "huber", "bce", "ic", "rank")
EPS = 1e-6


def naive(name: str, score: NDArray[np.float64], target: NDArray[np.float64], moment: NDArray[np.int64]) -> float:
    """Return a loss of one head, window by window and pair by pair."""
    known = np.isfinite(target)
    total = 0.0
    if name in ("mse", "huber", "bce"):
        for s, y in zip(score[known], target[known]):
            away = abs(s - y)
            chance = 1 / (1 + exp(-s))
            total += {
                "mse": away**2,
                "huber": 0.5 * away**2 if away <= 1 else away - 0.5,
                "bce": -log(chance if y > 0 else 1 - chance),
            }[name]
        return total
    for m in np.unique(moment):
        s, y = score[known & (moment == m)], target[known & (moment == m)]
        n = len(s)
        if name == "ic":
            a, b = s - s.mean() if n else s, y - y.mean() if n else y
            total += n * (1 - (a @ b) / np.sqrt((a @ a + EPS) * (b @ b + EPS)))
        else:
            pairs = [(i, j) for i in range(n) for j in range(n) if y[i] > y[j]]
            total += n * sum(log(1 + exp(s[j] - s[i])) for i, j in pairs) / max(len(pairs), 1)
    return total


def batch(draw: int, size: int = 40, heads: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores, targets with ties and NaN, and moments of 1 to a dozen windows, float64."""
    random = np.random.default_rng(draw)
    score = random.standard_normal((size, heads))
    target = np.round(random.standard_normal((size, heads)), 1)
    target[random.random((size, heads)) < 0.2] = np.nan
    moment = random.choice([5, 6, 7, 900, 10**15], size, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    moment[0] = 3  # alone in its moment
    return torch.from_numpy(score), torch.from_numpy(target), torch.from_numpy(moment)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_equals_its_slow_twin(name: Any) -> None:
    for draw in range(10):
        score, target, moment = batch(draw)
        expected = np.mean([naive(name, score[:, h].numpy(), target[:, h].numpy(), moment.numpy()) for h in (0, 1)])
        assert float(loss_of(name)(score, target, moment)) == pytest.approx(expected, rel=1e-9)
        half = loss_of(name)(score.float(), target.float(), moment)
        assert half.dtype == torch.float32
        assert float(half) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: Any) -> None:
    score, target, moment = batch(0, size=24)
    assert torch.autograd.gradcheck(lambda s: loss_of(name)(s, target, moment), score.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_windows_without_a_target_count_as_nothing(name: Any) -> None:
    score, target, moment = batch(1, heads=1)
    known = torch.isfinite(target[:, 0])
    score.requires_grad_()
    loss = loss_of(name)(score, target, moment)
    loss.backward()
    assert score.grad is not None
    assert torch.equal(score.grad[~known], torch.zeros_like(score.grad[~known]))
    alone = loss_of(name)(score[known], target[known], moment[known])
    assert float(loss.detach()) == pytest.approx(float(alone.detach()), rel=1e-12)
    nothing = loss_of(name)(score, torch.full_like(target, torch.nan), moment)
    assert float(nothing.detach()) == 0.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["constant scores", "constant targets", "one window a moment", "one window", "huge"])
def test_degenerate_batches_have_a_finite_loss_and_gradient(name: Any, case: str) -> None:
    score, target, moment = (values.float() if values.is_floating_point() else values for values in batch(2, 12, 1))
    if case == "constant scores":
        score = torch.full_like(score, 0.3)
    elif case == "constant targets":
        target = torch.where(torch.isfinite(target), 1.0, target)
    elif case == "one window a moment":
        moment = torch.arange(12)
    elif case == "one window":
        score, target, moment = score[1:2], torch.ones(1, 1), moment[1:2]
    else:
        score = score * 1e4
    score.requires_grad_()
    loss = loss_of(name)(score, target, moment)
    loss.backward()
    assert torch.isfinite(loss)
    assert score.grad is not None
    assert torch.isfinite(score.grad).all()
    if name == "ic" and case in ("constant scores", "constant targets", "one window a moment"):
        assert float(loss.detach()) == pytest.approx(float(torch.isfinite(target).sum()), rel=1e-4)
    if name == "rank" and case in ("constant targets", "one window a moment", "one window"):
        assert float(loss.detach()) == 0.0


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["mse", "huber", "bce"]), st.lists(st.integers(1, 39), max_size=5), st.integers(0, 99))
def test_parts_of_a_batch_add_up_to_the_whole(name: Any, edges: list[int], draw: int) -> None:
    score, target, moment = batch(draw)
    edges = sorted({0, 40, *edges})
    parts = [loss_of(name)(score[a:b], target[a:b], moment[a:b]) for a, b in pairwise(edges)]
    assert float(sum(parts)) == pytest.approx(float(loss_of(name)(score, target, moment)), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_windows_does_not_matter(name: Any, draw: int, random: Any) -> None:
    score, target, moment = batch(draw)
    order = list(range(40))
    random.shuffle(order)
    moved = loss_of(name)(score[order], target[order], moment[order])
    assert float(moved) == pytest.approx(float(loss_of(name)(score, target, moment)), rel=1e-12)


def test_losses_that_compare_look_within_a_moment_only() -> None:
    for name in NAMES:
        score, target, moment = batch(4)
        late = (moment == 6).unsqueeze(1)
        shift = loss_of(name)(torch.where(late, score + 7.0, score), target, moment)
        same = float(shift) == pytest.approx(float(loss_of(name)(score, target, moment)), rel=1e-9)
        assert same == loss_of(name).compares == (name in ("ic", "rank"))
