"""No label reaches from one split into the next: the ledger, done by brute force."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from training.splits import GAP, NAMES, TEST, TRAIN, VALID, SplitError, Splits, SplitSection, make_splits, microseconds


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, SplitSection]:
    """Draw rows of symbols that do not trade every day, with labels that end some own bars later."""
    days, horizon = draw(st.integers(30, 80)), draw(st.integers(1, 5))
    ts, ends = [], []
    for _ in range(draw(st.integers(1, 4))):
        traded = sorted(draw(st.sets(st.integers(0, days - 1), min_size=horizon + 3, max_size=days)))
        for i, day in enumerate(traded):
            ts.append(day)
            ends.append(traded[i + horizon + 1] if i + horizon + 1 < len(traded) else np.iinfo(np.int64).max)
    section = SplitSection(train_fraction=draw(st.floats(0.3, 0.6)), valid_fraction=draw(st.floats(0.15, 0.3)))
    return np.array(ts, np.int64), np.array(ends, np.int64), horizon, section


@given(ledgers())
def test_no_label_of_a_split_ends_in_a_later_one(ledger: tuple[np.ndarray, np.ndarray, int, SplitSection]) -> None:
    ts, ends, horizon, section = ledger
    try:
        splits = make_splits(ts, section, horizon)
    except SplitError:
        return
    split = splits.of(ts)
    purged = splits.purged(split, ends)
    stamps = sorted(set(ts.tolist()))
    first = {code: min(t for t, s in zip(ts.tolist(), split.tolist()) if s == code) for code in (VALID, TEST)}
    for row in range(len(ts)):
        if split[row] in (TRAIN, VALID):
            nxt = first[split[row] + 1]
            assert purged[row] == (ends[row] >= nxt)
            between = [s for s in stamps if ts[row] < s < nxt]
            assert len(between) >= splits.embargo >= horizon
        else:
            assert not purged[row]
        if split[row] == GAP:
            boundary = first[VALID] if ts[row] < first[VALID] else first[TEST]
            assert len([s for s in stamps if ts[row] <= s < boundary]) <= splits.embargo
    assert {TRAIN, VALID, TEST} <= set(split.tolist())


def test_fractions_are_of_distinct_timestamps() -> None:
    ts = np.repeat(np.arange(100), 7)
    splits = make_splits(ts, SplitSection(train_fraction=0.6, valid_fraction=0.2), 3)
    assert (splits.train_end, splits.valid_start, splits.valid_end, splits.test_start) == (57, 60, 77, 80)
    assert Splits.from_json(splits.to_json()) == splits


def test_days_set_the_boundaries() -> None:
    days = [datetime(2020, 1, d, 6, 30, tzinfo=UTC) for d in range(1, 31)]
    ts = np.array([int(d.timestamp()) * 1_000_000 for d in days])
    splits = make_splits(ts, SplitSection(valid_start=date(2020, 1, 15), test_start=date(2020, 1, 22)), 2)
    assert splits.valid_start == ts[14]
    assert splits.test_start == ts[21]
    assert splits.train_end == ts[12]
    assert microseconds(date(1970, 1, 2)) == 86_400_000_000


def test_an_embargo_shorter_than_the_longest_label_is_refused() -> None:
    with pytest.raises(SplitError, match="at least 5 bars, the longest label, got 4"):
        make_splits(np.arange(100), SplitSection(embargo=4), 5)
    assert make_splits(np.arange(100), SplitSection(embargo=9), 5).embargo == 9


@pytest.mark.parametrize(
    ("section", "named"),
    [
        (SplitSection(valid_start=date(1960, 1, 1), test_start=date(1970, 1, 1)), "train"),
        (SplitSection(valid_start=date(2050, 1, 1), test_start=date(2060, 1, 1)), "test"),
        (SplitSection(train_fraction=0.7, valid_fraction=0.02), "valid"),
    ],
)
def test_an_empty_split_is_named(section: SplitSection, named: str) -> None:
    with pytest.raises(SplitError, match=rf"got none for .*{named}.*embargo 5"):
        make_splits(np.arange(100), section, 5)


def test_no_rows_at_all_is_an_empty_split() -> None:
    with pytest.raises(SplitError, match="got none for train"):
        make_splits(np.empty(0, np.int64), SplitSection(), 5)


@pytest.mark.parametrize(
    "values",
    [
        {"train_fraction": 0.8, "valid_fraction": 0.2},
        {"valid_start": date(2020, 1, 1)},
        {"valid_start": date(2020, 2, 1), "test_start": date(2020, 1, 1)},
        {"embargo": -1},
        {"train_fraction": 0.0},
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SplitSection(**values)


def test_names_cover_the_codes() -> None:
    assert sorted(NAMES.values()) == [TRAIN, VALID, TEST]
