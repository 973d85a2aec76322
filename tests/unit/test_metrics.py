"""Metrics equal slow and obvious twins, and say nothing where nothing can be said."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import (
    average_ranks,
    correlations,
    decile_means,
    deciles,
    information_coefficients,
    make_sections,
    mean_rank_ic,
    newey_west_t,
    spread_by_section,
    summary,
)


def naive_ranks(values: list[float]) -> list[float]:
    """Count the smaller values and half of the equal ones."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def naive_correlation(a: list[float], b: list[float]) -> float:
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return float("nan")
    return float(np.corrcoef(np.asarray(a, np.float64), np.asarray(b, np.float64))[0, 1])


def naive_newey_west(values: list[float], lags: int) -> float:
    n = len(values)
    mean = sum(values) / n
    total = 0.0
    for i in range(n):
        for j in range(n):
            weight = max(0.0, 1.0 - abs(i - j) / (lags + 1))
            total += weight * (values[i] - mean) * (values[j] - mean)
    return mean / sqrt(total / n / n) if total > 0 else float("nan")


rows = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-3, 3).map(float), st.integers(-50, 50).map(lambda v: v / 7)),
    min_size=1,
    max_size=60,
)


@given(rows)
def test_ranks_and_correlations_equal_their_twins(data: list[tuple[int, float, float]]) -> None:
    code = np.array([d[0] for d in data], np.int64)
    a, b = np.array([d[1] for d in data]), np.array([d[2] for d in data])
    ranks, found = average_ranks(a, code), correlations(a, b, code, 5)
    for c in range(5):
        mine = code == c
        assert ranks[mine].tolist() == naive_ranks(a[mine].tolist())
        np.testing.assert_allclose(found[c], naive_correlation(a[mine].tolist(), b[mine].tolist()), atol=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=40), st.integers(0, 12))
def test_newey_west_equals_its_twin(values: list[float], lags: int) -> None:
    if np.ptp(values) < 1e-6:
        return
    # Beyond n - 1 lags there is no autocovariance, but the weights still change; both sides use the lags asked for.
    expected = naive_newey_west(values, lags)
    if not isnan(expected) and abs(expected) < 1e6:
        assert newey_west_t(np.array(values), lags) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_newey_west_without_lags_is_the_plain_t_and_overlap_lowers_it() -> None:
    random = np.random.default_rng(0)
    white = 0.1 + random.standard_normal(500)
    plain = white.mean() / (white.std() / sqrt(500))
    assert newey_west_t(white, 0) == pytest.approx(plain)
    overlapping = np.convolve(white, np.ones(5) / 5, mode="valid")
    naive = overlapping.mean() / (overlapping.std() / sqrt(len(overlapping)))
    assert newey_west_t(overlapping, 5) < 0.7 * naive
    assert newey_west_t(overlapping, 5) == pytest.approx(plain, rel=0.35)


def test_undefined_figures_are_none_and_not_zero() -> None:
    sections = make_sections(np.repeat(np.arange(4), 5), 5)
    flat = information_coefficients(np.zeros(20, np.float32), np.arange(20, dtype=np.float32), sections)
    assert np.isnan(flat.rank_ic_S).all()
    assert summary(flat, 2) == {
        "mean_ic": None,
        "mean_rank_ic": None,
        "icir": None,
        "t_newey_west": None,
        "hit_rate": None,
        "n_days": 0,
    }
    assert isnan(newey_west_t(np.array([0.1, 0.1, 0.1]), 2))
    assert isnan(mean_rank_ic(np.zeros(20, np.float32), np.arange(20, dtype=np.float32), sections))


def test_rows_without_a_label_or_a_score_do_not_count() -> None:
    random = np.random.default_rng(1)
    score, y = random.standard_normal(60), random.standard_normal(60)
    stamps = np.repeat(np.arange(3), 20)
    sections = make_sections(stamps, 5)
    y[::7], score[::11] = np.nan, np.nan
    ok = np.isfinite(y) & np.isfinite(score)
    found = information_coefficients(score, y, sections)
    for s in range(3):
        mine = ok & (stamps == s)
        assert found.n_S[s] == mine.sum()
        assert found.ic_S[s] == pytest.approx(naive_correlation(score[mine].tolist(), y[mine].tolist()))
        ranks = naive_ranks(score[mine].tolist()), naive_ranks(y[mine].tolist())
        assert found.rank_ic_S[s] == pytest.approx(naive_correlation(*ranks))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(3, 20))
def test_sections_are_runs_of_timestamps_with_enough_rows(stamps: list[int], least: int) -> None:
    ts = np.array(stamps, np.int64)
    sections = make_sections(ts, least)
    counts = [stamps.count(s) for s in sorted(set(stamps))]
    assert sections.timestamps >= 1
    assert sections.timestamps * np.median(counts) >= least
    for s in range(len(sections.ts_S)):
        inside = ts[sections.code_N == s]
        assert 1 <= len(set(inside.tolist())) <= sections.timestamps
        assert inside.max() == sections.ts_S[s]
    assert (np.diff(sections.ts_S) > 0).all()
    assert (np.diff(sections.code_N[np.argsort(ts, kind="stable")]) >= 0).all()
    assert sections.lags(10) == -(-10 // sections.timestamps)


def test_a_market_is_one_section_a_timestamp_and_summary_adds_up() -> None:
    random = np.random.default_rng(2)
    ts = np.repeat(np.arange(40), 30)
    y = random.standard_normal(1200)
    score = y + 3 * random.standard_normal(1200)
    sections = make_sections(ts, 20)
    assert sections.timestamps == 1
    found = information_coefficients(score, y, sections)
    figures = summary(found, 3)
    assert figures["mean_rank_ic"] == pytest.approx(found.rank_ic_S.mean())
    assert figures["icir"] == pytest.approx(found.rank_ic_S.mean() / found.rank_ic_S.std(ddof=1))
    assert figures["hit_rate"] == (found.rank_ic_S > 0).mean()
    assert figures["n_days"] == 40
    assert figures["t_newey_west"] == pytest.approx(naive_newey_west(found.rank_ic_S.tolist(), 3))
    assert mean_rank_ic(score, y, sections) == figures["mean_rank_ic"]


sections_of = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-6, 6).map(float), st.integers(-50, 50).map(lambda v: v / 7)),
    min_size=1,
    max_size=120,
)


def naive_tenths(scores: list[float]) -> list[int]:
    """Cut the ordered scores into ten, ties by the mean of their places; fewer than ten have no tenths."""
    if len(scores) < 10:
        return [-1] * len(scores)
    return [min(9, int((rank - 0.5) * 10 / len(scores))) for rank in naive_ranks(scores)]


@given(sections_of, st.integers(0, 5))
def test_deciles_their_means_and_spread_equal_their_twins(data: list[tuple[int, float, float]], unknown: int) -> None:
    ts = np.array([d[0] for d in data], np.int64)
    score, y = np.array([d[1] for d in data], np.float32), np.array([d[2] for d in data], np.float32)
    sections = make_sections(ts, 1)
    size = len(sections.ts_S)
    tenth = deciles(score, sections)
    for s in range(size):
        assert tenth[sections.code_N == s].tolist() == naive_tenths(score[sections.code_N == s].tolist())
    y[:unknown] = np.nan  # they have no place among those with a label
    score[len(score) - unknown :: 2] = np.nan
    means: list[list[float]] = [[] for _ in range(10)]
    counts, spreads = [0] * 10, []
    for s in range(size):
        mine = (sections.code_N == s) & np.isfinite(y) & np.isfinite(score)
        tenths = np.array(naive_tenths(score[mine].tolist()), np.int64)
        found = [y[mine][tenths == d].astype(np.float64) for d in range(10)]
        for d, values in enumerate(found):
            counts[d] += len(values)
            means[d] += [values.mean()] if len(values) else []
        spreads.append(found[9].mean() - found[0].mean() if len(found[9]) and len(found[0]) else np.nan)
    mean_D, count_D = decile_means(score, y, sections)
    np.testing.assert_allclose(mean_D, [np.mean(m) if m else np.nan for m in means], atol=1e-9)
    assert count_D.tolist() == counts
    np.testing.assert_allclose(spread_by_section(score, y, sections), spreads, atol=1e-9)


def test_tenths_of_distinct_scores_are_equally_full() -> None:
    sections = make_sections(np.repeat(np.arange(3), 50), 10)
    score = np.random.default_rng(0).permutation(150).astype(np.float32)
    assert np.bincount(deciles(score, sections)).tolist() == [15] * 10
    assert np.bincount(deciles(score, sections, parts=3)).tolist() == [51, 48, 51]
    assert set(deciles(np.zeros(150, np.float32), sections).tolist()) == {5}, "nobody is better than anybody"
    mean_D, _ = decile_means(score, score, sections)
    assert (np.diff(mean_D) > 0).all()
    assert spread_by_section(score, score, sections).mean() == pytest.approx(mean_D[9] - mean_D[0])


def test_no_rows_have_no_figures() -> None:
    nothing = np.empty(0, np.float32)
    sections = make_sections(np.empty(0, np.int64), 20)
    mean_D, count_D = decile_means(nothing, nothing, sections)
    assert np.isnan(mean_D).all() and not count_D.any()
    assert len(spread_by_section(nothing, nothing, sections)) == 0
    assert summary(information_coefficients(nothing, nothing, sections), 2)["mean_rank_ic"] is None
