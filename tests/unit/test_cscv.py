"""Splits of the past into two halves: the paper's procedure written out, ffn, ties, flat and missing returns, noise."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest

from pipeline.backtest import BacktestError
from pipeline.backtest.cscv import cscv, overfitting
from tests.searches import FFN, Floats, Known, block_sums, search

KEYS = {"pbo", "mean_rank", "mean_inside", "mean_outside", "slope", "intercept", "loss", "dominates"}


def ratios(returns_TC: Floats) -> Floats:
    """Zero where returns do not vary."""
    flat = np.ptp(returns_TC, axis=0) == 0
    return np.where(flat, 0.0, returns_TC.mean(0) / np.where(flat, 1.0, returns_TC.std(0, ddof=1)))


def written_out(returns_TC: Floats, blocks: int) -> tuple[list[float], list[float], list[float]]:
    """The paper's section 2.2 over full return matrices; what is equal is averaged."""
    parts = np.split(returns_TC, blocks)
    ranks, inside, outside = [], [], []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        one = ratios(np.concatenate([parts[b] for b in chosen]))
        other = ratios(np.concatenate([parts[b] for b in range(blocks) if b not in chosen]))
        winners = np.flatnonzero(np.isclose(one, one.max(), rtol=1e-9, atol=1e-12))
        alike = np.isclose(other[:, None], other[winners], rtol=1e-9, atol=1e-12)
        below = (other[:, None] < other[winners]) & ~alike
        ranks.append(float(np.mean(below.sum(0) + (alike.sum(0) + 1) / 2)) / (len(one) + 1))
        inside.append(float(one.max()))
        outside.append(float(other[winners].mean()))
    return ranks, inside, outside


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("blocks", [6, 8])
def test_it_is_the_paper_s_procedure(seed: int, blocks: int) -> None:
    r_TC = search(seed, 10 * blocks, 12, 0.004, tail=True)
    if seed > 1:
        r_TC[:, 3] = r_TC[:, 4]  # twins
        r_TC[: 5 * blocks, 5:9] = 0  # no trade for half of the time
        r_TC[:, 9] = 0
    ranks, inside, outside = written_out(r_TC, blocks)
    sums, counts = block_sums(r_TC, blocks)
    found = cscv(sums, counts)
    assert found.rank.tolist() == ranks
    assert found.inside == pytest.approx(inside, rel=1e-9) and found.outside == pytest.approx(outside, rel=1e-9)
    values, reasons, splits = overfitting(sums, counts)
    assert splits is not None and not reasons
    slope, intercept = np.polyfit(inside, outside, 1)
    assert values == pytest.approx(
        {
            "blocks": blocks, "splits": math.comb(blocks, blocks // 2), "combinations": 12, "left_out": 0,
            "pbo": np.mean(np.array(ranks) <= 0.5), "mean_rank": np.mean(ranks), "mean_inside": np.mean(inside),
            "mean_outside": np.mean(outside), "slope": slope, "intercept": intercept,
            "loss": np.mean(np.array(outside) < 0), "dominates": values["dominates"],
        },
        rel=1e-8,
    )  # fmt: skip


@pytest.mark.parametrize("known", FFN, ids=lambda k: str(k.made[0]))
def test_it_is_ffn_s(known: Known) -> None:
    for blocks, (pbo, rank, logits) in known.blocks.items():
        values, _, splits = overfitting(*block_sums(search(*known.made), blocks))
        assert splits is not None
        got = values["pbo"], values["mean_rank"], float(splits.logit.sum())
        assert got == pytest.approx((pbo, rank, logits), rel=1e-9)


def test_counts_of_blocks_may_differ() -> None:
    r_TC = search(2, 100, 10)
    ends = [9, 30, 41, 60, 85, 100]
    cut = [r_TC[a:b] for a, b in itertools.pairwise([0, *ends])]
    sums = np.stack([np.stack([c.sum(0), (c**2).sum(0)], -1) for c in cut], 1)
    found = cscv(sums, np.array([len(c) for c in cut]))
    for i, chosen in enumerate(itertools.combinations(range(6), 3)):
        one = ratios(np.concatenate([cut[b] for b in chosen]))
        assert found.inside[i] == pytest.approx(one.max(), rel=1e-9)


def test_noise_has_a_half_and_a_planted_strategy_almost_nothing() -> None:
    noise = [overfitting(*block_sums(search(seed, 256, 50), 10))[0] for seed in range(60)]
    for name in ("pbo", "mean_rank"):
        got = [v[name] for v in noise]
        assert np.mean(got) == pytest.approx(0.5, abs=3 * np.std(got) / math.sqrt(len(got)))
    assert np.mean([v["mean_inside"] for v in noise]) > 0.15, "the best in its own half always looks well"
    assert np.mean([v["dominates"] for v in noise]) < 0.5
    skill = [overfitting(*block_sums(search(seed, 1000, 50, 0.0025), 10))[0] for seed in range(10)]
    assert max(v["pbo"] for v in skill) < 0.05
    assert max(v["loss"] for v in skill) < 0.05
    assert min(v["dominates"] for v in skill) == 1


def test_what_cannot_be_told_apart_counts_as_the_median() -> None:
    sums, counts = block_sums(np.zeros((200, 20)), 8)
    values, reasons, _ = overfitting(sums, counts)
    assert values["pbo"] == 1 and values["mean_rank"] == 0.5 and values["loss"] == 0
    assert reasons == dict.fromkeys(("slope", "intercept"), "the best is equally good in every half")


def test_returns_that_are_all_alike_count_as_zero_and_win_nothing() -> None:
    r_TC = search(6, 160, 20)
    r_TC[:, 5] = 0.0123  # sums of it differ from n r^2 by rounding alone
    found = cscv(*block_sums(r_TC, 8))
    assert found.inside.max() < 2 and (found.inside > 0).all()


def test_a_combination_without_finite_sums_is_left_out_and_counted() -> None:
    r_TC = search(4, 160, 20)
    sums, counts = block_sums(r_TC, 8)
    broken = sums.copy()
    broken[3, 2, 0], broken[7, 5, 1] = np.nan, np.inf
    values, _, _ = overfitting(broken, counts)
    assert (values["combinations"], values["left_out"]) == (18, 2)
    rest, _, _ = overfitting(np.delete(sums, [3, 7], axis=0), counts)
    assert {k: values[k] for k in KEYS} == {k: rest[k] for k in KEYS}


@pytest.mark.parametrize(
    ("sessions", "trials", "blocks", "reason"),
    [(160, 9, 8, "needs at least 10 combinations with finite returns, got 9"),
     (36, 20, 6, "needs at least 20 returns in each half, got 18")],
)  # fmt: skip
def test_too_little_is_a_reason_and_no_number(sessions: int, trials: int, blocks: int, reason: str) -> None:
    values, reasons, splits = overfitting(*block_sums(search(1, sessions, trials), blocks))
    assert splits is None and {k for k, v in values.items() if v is None} == KEYS == reasons.keys()
    assert set(reasons.values()) == {reason}


@pytest.mark.parametrize(
    ("sums", "counts", "said"),
    [
        (np.zeros((20, 8)), np.full(8, 10), r"expected sums \(C, B, 2\)"),
        (np.zeros((20, 8, 2)), np.full(6, 10), r"expected sums \(C, B, 2\)"),
        (np.zeros((20, 7, 2)), np.full(7, 10), "expected an even number of blocks from 6 to 20, .* got 7"),
        (np.zeros((20, 4, 2)), np.full(4, 10), "got 4"),
        (np.zeros((20, 22, 2)), np.full(22, 10), "got 22"),
        (np.zeros((20, 8, 2)), np.full(8, -1), "with counts from -1"),
    ],
)
def test_shapes_that_do_not_belong_together_are_an_error(sums: Any, counts: Any, said: str) -> None:
    with pytest.raises(BacktestError, match=said):
        overfitting(sums, counts)


def test_the_order_of_combinations_changes_no_bit() -> None:
    r_TC = search(8, 320, 30)
    r_TC[:, 10:15] = r_TC[:, [4]]
    r_TC[:160, 20:25] = 0
    sums, counts = block_sums(r_TC, 8)
    order = np.random.default_rng(0).permutation(30)
    one, other = overfitting(sums, counts)[0], overfitting(sums[order], counts)[0]
    assert one == other


def test_a_thousand_combinations_in_sixteen_blocks_take_no_second_or_two() -> None:
    sums, counts = block_sums(search(1, 480, 1000), 16)
    start = time.perf_counter()
    values, _, _ = overfitting(sums, counts)
    assert values["splits"] == 12_870 and time.perf_counter() - start < 5
