"""Operators within one moment: each against a slow twin, and what no operator may see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import runs
from pipeline.cross_section import Chain, CrossSection, CrossSectionError, Operator, apply, label, parse
from storage.section import Section, setting

CHAINS: list[list[Any]] = [
    ["rank"],
    ["zscore"],
    ["winsorise"],
    [{"winsorise": 0.2}],
    [{"neutralise": ["sector"]}],
    [{"neutralise": ["size"]}],
    [{"neutralise": ["sector", "size"]}],
    [{"winsorise": 0.1}, {"neutralise": ["sector", "size"]}, "zscore"],
    [{"neutralise": "size"}, "rank"],
]


class Rows:
    """Hold rows of a random market in random order; ties, gaps, lone rows and unknown sectors and sizes are common."""

    def __init__(self, seed: int, moments: int = 6, symbols: int = 12) -> None:
        rng = np.random.default_rng(seed)
        ts, symbol = np.divmod(np.arange(moments * symbols), symbols)
        keep = rng.permutation(ts.size)[: int(rng.integers(1, ts.size + 1))]
        self.ts, self.symbol, n = ts[keep] * 7, symbol[keep], keep.size
        self.x = np.where(rng.random(n) < 0.5, np.round(rng.normal(size=n)), 1e3 * rng.normal(size=n))
        self.x[rng.random(n) < 0.1] = np.nan
        self.x[rng.random(n) < 0.03] = np.inf
        self.member = rng.random(n) < 0.8
        self.sector = rng.integers(-1, 4, n)
        self.size = np.exp(rng.normal(25, 2, n))
        self.size[rng.random(n) < 0.1] = rng.choice([0.0, -1.0, np.nan])

    def take(self, rows: Any) -> Rows:
        out = object.__new__(Rows)
        out.__dict__ = {name: column[rows] for name, column in self.__dict__.items()}
        return out

    def section(self) -> CrossSection:
        return CrossSection(self.ts, self.symbol, self.member, sector_N=self.sector, size_N=self.size)

    def after(self, chain: list[Any]) -> np.ndarray:
        return apply(parse(chain), self.x, self.section())


def twin(operator: Operator, x: np.ndarray, sector: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Apply one operator to the rows of one moment, all of which take part."""
    n = x.size
    if operator.name == "rank":
        return np.array([((x < one).sum() + (x <= one).sum()) / 2 / n for one in x])
    if operator.name == "zscore":
        return np.zeros(n) if (x == x[0]).all() else (x - x.mean()) / x.std()
    if operator.name == "winsorise":
        return np.clip(x, np.quantile(x, operator.limit), np.quantile(x, 1 - operator.limit))
    columns = [sector == code for code in np.unique(sector)] if "sector" in operator.by else [np.ones(n)]
    if "size" in operator.by:
        columns.append(np.log(size) - np.log(size).mean())
    X = np.stack(columns, axis=1).astype(float)
    return x - X @ np.linalg.lstsq(X, x, rcond=1e-10)[0]


def slow(rows: Rows, chain: list[Any]) -> np.ndarray:
    out = np.where(rows.member & np.isfinite(rows.x), rows.x, np.nan)
    for operator in parse(chain):
        known = np.isfinite(out)
        if "size" in operator.by:
            known &= np.nan_to_num(rows.size) > 0
        after = np.full(out.size, np.nan)
        for ts in np.unique(rows.ts):
            at = np.flatnonzero(known & (rows.ts == ts))
            if at.size:
                after[at] = twin(operator, out[at], rows.sector[at], rows.size[at])
        out = after
    return out


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: label(parse(chain)))
def test_chains_equal_their_slow_twins(chain: list[Any]) -> None:
    # A residual that is zero but for rounding has no z-score or rank that two ways of computing agree on.
    exact = chain[-1] in ("zscore", "rank") and len(chain) > 1
    for seed in range(3 if exact else 40):
        rows = Rows(seed, symbols=200 if exact else 12)
        np.testing.assert_allclose(rows.after(chain), slow(rows, chain), rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), chain=st.sampled_from(CHAINS))
def test_row_order_and_other_moments_change_no_bit(seed: int, chain: list[Any]) -> None:
    rows, rng = Rows(seed), np.random.default_rng(seed)
    expected = rows.after(chain)
    order = rng.permutation(rows.ts.size)
    np.testing.assert_array_equal(rows.take(order).after(chain), expected[order])
    past = np.flatnonzero(rows.ts <= rng.choice(rows.ts))  # the rows as they were known at a moment
    np.testing.assert_array_equal(rows.take(past).after(chain), expected[past])
    alone = np.flatnonzero(rows.ts == rng.choice(rows.ts))
    np.testing.assert_array_equal(rows.take(alone).after(chain), expected[alone])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), chain=st.sampled_from(CHAINS))
def test_what_takes_no_part_changes_no_bit(seed: int, chain: list[Any]) -> None:
    rows = Rows(seed)
    expected = rows.after(chain)
    part = rows.member & np.isfinite(rows.x)
    assert np.isnan(expected[~part]).all()
    np.testing.assert_array_equal(rows.take(part).after(chain), expected[part])
    rows.x[~rows.member] = 1e9
    np.testing.assert_array_equal(rows.after(chain), expected)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: label(parse(chain)))
def test_a_large_section_gives_each_moment_what_it_gives_alone(chain: list[Any], monkeypatch: Any) -> None:
    rows = Rows(3, moments=40, symbols=3_000)  # long sums
    expected = rows.after(chain)
    monkeypatch.setattr(runs, "_CELLS", 10_000)  # a few moments a matrix
    np.testing.assert_array_equal(rows.after(chain), expected)
    for ts in np.unique(rows.ts)[::13]:
        alone = np.flatnonzero(rows.ts == ts)
        np.testing.assert_array_equal(rows.take(alone).after(chain), expected[alone])


def one_moment(x: list[float], chain: list[Any], **given: Any) -> list[float]:
    n = len(x)
    section = CrossSection(np.zeros(n, np.int64), np.arange(n), np.ones(n, bool), **given)
    return [float(value) for value in apply(parse(chain), np.array(x), section)]


def test_values_by_hand() -> None:
    nan = float("nan")
    assert one_moment([30, 10, 20, 20], ["rank"]) == [0.875, 0.125, 0.5, 0.5]
    assert one_moment([5.0], ["rank"]) == [0.5]
    assert one_moment([0.0, -0.0], ["rank"]) == [0.5, 0.5]
    assert one_moment([1, 3], ["zscore"]) == [-1, 1]
    assert one_moment([0.1] * 7, ["zscore"]) == [0] * 7
    assert one_moment([1e-200, 3e-200], ["zscore"]) == [-1, 1]  # whose squares are 0
    np.testing.assert_array_equal(one_moment([1, nan, 3], ["zscore"]), [-1, nan, 1])
    np.testing.assert_allclose(one_moment([0, 1, 2, 3, 100], [{"winsorise": 0.25}]), [1, 1, 2, 3, 3])
    sector = np.array([0, 0, 1, -1, -1])
    assert one_moment([1, 3, 9, 4, 6], [{"neutralise": ["sector"]}], sector_N=sector) == [-1, 1, 0, -1, 1]
    size = np.exp([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(one_moment([7, 9, 11, 13], [{"neutralise": ["size"]}], size_N=size), 0, atol=1e-12)
    assert one_moment([1, 3], [{"neutralise": ["size"]}], size_N=np.array([0.1, 0.1])) == [-1, 1]  # no slope


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rank_has_the_mean_one_half(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=501).astype(dtype)
    section = CrossSection(np.zeros(501, np.int64), np.arange(501), np.ones(501, bool))
    rank = apply(parse(["rank"]), x, section)
    assert rank.dtype == np.float64
    assert rank.mean() == pytest.approx(0.5) and rank.min() == 0.5 / 501 and rank.max() == 500.5 / 501


def test_nobody_takes_part() -> None:
    for n in (0, 3):
        section = CrossSection(np.arange(n), np.arange(n), np.zeros(n, bool))
        assert np.isnan(apply(parse(["winsorise", "rank"]), np.ones(n), section)).all()


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(CrossSectionError, match=r"symbol 4 twice at 9 .*drop the duplicates"):
        CrossSection(np.array([9, 9]), np.array([4, 4]), np.ones(2, bool))
    CrossSection(np.array([9, 9]), np.array([4, 4]), np.array([True, False]))
    with pytest.raises(CrossSectionError, match="expected 1 rows"):
        apply(parse(["rank"]), np.ones(2), CrossSection(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, bool)))
    for by in ("sector", "size"):
        with pytest.raises(CrossSectionError, match=rf"expected {by}s for .*give {by}_N"):
            one_moment([1, 2], [{"neutralise": by}])


class Asked(Section):
    cross: Chain = setting((), "operators")


def test_chains_are_written_as_they_are_read() -> None:
    chain = [{"winsorise": 0.02}, {"neutralise": ["size", "sector"]}, "zscore", "rank"]
    found = Asked.model_validate({"cross": chain})
    assert label(found.cross) == "winsorise_0.02_neutralise_sector_size_zscore_rank"
    assert found.keyed() == {"cross": [{"winsorise": 0.02}, {"neutralise": ["sector", "size"]}, "zscore", "rank"]}
    assert Asked.model_validate(found.model_dump(mode="json")) == found
    assert parse(["winsorise"]) == parse([{"winsorise": 0.01}]) == parse(parse(["winsorise"]))
    assert label(parse(["winsorise", "zscore"])) == "winsorise_zscore"
    with pytest.raises(ValidationError, match="did you mean 'zscore'"):
        Asked.model_validate({"cross": ["z_score"]})


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("rank", "expected a list of operators"),
        (["winsorize"], "did you mean 'winsorise'"),
        ([3], "expected an operator such as"),
        ([{"rank": 1, "zscore": 2}], "expected an operator such as"),
        ([{"rank": 2}], "expected no parameter for 'rank', got 2"),
        ([{"winsorise": 0.5}], "below 0.5 for 'winsorise', got 0.5"),
        ([{"winsorise": True}], "got True"),
        (["neutralise"], r"such as \{neutralise: \[sector, size\]\}, got None"),
        ([{"neutralise": ["sectr"]}], "did you mean 'sector'"),
        ([{"neutralise": []}], "name some"),
    ],
)
def test_chains_that_cannot_be_read(chain: Any, message: str) -> None:
    with pytest.raises(CrossSectionError, match=message):
        parse(chain)
