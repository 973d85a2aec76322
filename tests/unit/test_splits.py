"""No label and no window reaches from one part into another: the ledger, done by brute force."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import ConfigError, load
from training.splits import (
    GAP,
    NAMES,
    TEST,
    TRAIN,
    VALID,
    Fold,
    Span,
    SplitError,
    SplitSection,
    make_folds,
    microseconds,
)  # fmt: skip

NEVER = np.iinfo(np.int64).max


class Rows(NamedTuple):
    """Rows of symbols that do not trade every day: symbol, day, end of label and first day that features read."""

    symbol: np.ndarray
    ts: np.ndarray
    ends: np.ndarray
    since: np.ndarray
    horizon: int
    features: int
    window: int

    @property
    def look_back(self) -> int:
        return self.features + self.window - 1

    def reads(self, row: int) -> range:
        """Return the rows that the window ending at `row` and its features read."""
        first = int(np.searchsorted(self.symbol, self.symbol[row]))
        return range(max(first, row - self.look_back), row + 1)


@st.composite
def ledgers(draw: st.DrawFn) -> Rows:
    days, horizon, features = draw(st.integers(30, 90)), draw(st.integers(1, 5)), draw(st.integers(0, 20))
    symbol, ts, ends, since = [], [], [], []
    for s in range(draw(st.integers(1, 4))):
        traded = sorted(draw(st.sets(st.integers(0, days - 1), min_size=horizon + 3, max_size=days)))
        for i, day in enumerate(traded):
            symbol.append(s)
            ts.append(day)
            ends.append(traded[i + horizon + 1] if i + horizon + 1 < len(traded) else NEVER)
            since.append(traded[max(0, i - features)])
    arrays = [np.array(values, np.int64) for values in (symbol, ts, ends, since)]
    return Rows(*arrays, horizon, features, draw(st.integers(1, 5)))


@st.composite
def sections(draw: st.DrawFn) -> SplitSection:
    kind = draw(st.sampled_from(["holdout", "walk_forward", "kfold"]))
    if kind == "kfold":
        return SplitSection(kind=kind, folds=draw(st.integers(3, 6)))
    own: dict[str, int] = {}
    if kind == "walk_forward":
        refits = draw(st.one_of(st.integers(2, 6), st.none()))
        own = {"refit_every": draw(st.sampled_from([1, 3, 7]))} if refits is None else {"folds": refits}
        own["train_window"] = draw(st.sampled_from([0, 5, 20]))
    return SplitSection(
        kind=kind,
        **own,
        train_fraction=draw(st.floats(0.3, 0.6)),
        valid_fraction=draw(st.floats(0.15, 0.3)),
    )


def parts_of(fold: Fold, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of each row by its day alone, and the part that it is used in, as a dataset does."""
    by_day = fold.of(rows.ts)
    used = np.where(fold.looking_back(rows.ts, rows.since) | fold.purged(rows.ts, rows.ends), GAP, by_day)
    return by_day, used


@given(ledgers(), sections())
def test_nothing_reaches_from_one_part_into_another(rows: Rows, section: SplitSection) -> None:
    try:
        folds = make_folds(rows.ts, section, rows.horizon, rows.look_back)
    except SplitError:
        return
    stamps = sorted(set(rows.ts.tolist()))
    for fold in folds:
        by_day, used = parts_of(fold, rows)
        days = {code: {t for t, p in zip(rows.ts.tolist(), by_day.tolist()) if p == code} for code in NAMES.values()}
        assert all(days.values()) and not days[TRAIN] & days[VALID] and not (days[TRAIN] | days[VALID]) & days[TEST]
        reached = fold.looking_back(rows.ts, rows.since)
        for row in range(len(rows.ts)):
            day, part = rows.ts[row], by_day[row]
            others = {t for code, mine in days.items() if code != part for t in mine if part != GAP}
            reaches = any(day < t <= rows.ends[row] or (t > day and rows.ends[row] == NEVER) for t in others)
            if used[row] != GAP:
                assert not reaches, "a label that counts ends before another part begins"
            elif part != GAP and not reached[row]:
                assert rows.ends[row] >= min(t for t in others if t > day), "and none is purged without a reason"
            window = range(row - rows.window + 1, row + 1)
            inside = window.start >= 0 and all(by_day[i] == TRAIN and not reached[i] for i in window)
            if inside and rows.symbol[window.start] == rows.symbol[row]:
                assert not any(by_day[i] in (VALID, TEST) for i in rows.reads(row))
        for span, later in zip(fold.spans, fold.spans[1:]):
            between = len([t for t in stamps if span.stop <= t < later.start])
            if span.part == later.part:
                assert between == 0
            elif later.part == TRAIN:
                assert between == max(fold.embargo, rows.look_back)
            else:
                assert between == fold.embargo == rows.horizon
        assert Fold.from_json(fold.to_json()) == fold


@given(st.integers(20, 200), sections(), st.integers(1, 4), st.integers(0, 9))
def test_tests_cover_their_range_once(n: int, section: SplitSection, horizon: int, look_back: int) -> None:
    ts = np.arange(n) * 10
    try:
        folds = make_folds(np.repeat(ts, 3), section, horizon, look_back)
    except SplitError:
        return
    assert [fold.number for fold in folds] == list(range(len(folds)))
    tested = [t for fold in folds for t in ts[fold.of(ts) == TEST].tolist()]
    first = 0 if section.kind == "kfold" else min(tested)
    assert tested == [t for t in ts.tolist() if t >= first], "in the order of the folds, without a hole or overlap"
    if section.kind == "kfold":
        assert len(folds) == section.folds
    else:
        assert first == ts[int(n * (section.train_fraction + section.valid_fraction))]
    if section.kind == "walk_forward":
        sizes = [int((fold.of(ts) == TEST).sum()) for fold in folds]
        if section.refit_every:
            assert set(sizes[:-1]) <= {section.refit_every} and sizes[-1] <= section.refit_every
        else:
            assert len(folds) == min(section.folds, len(tested)) and max(sizes) - min(sizes) <= 1
        for fold in folds:
            train = ts[fold.of(ts) == TRAIN]
            assert len(train) == section.train_window or (len(train) <= (section.train_window or n) and train[0] == 0)
            assert train[-1] < fold.start(VALID) < fold.start(TEST)
    elif section.kind == "holdout":
        assert len(folds) == 1


def test_fractions_are_of_distinct_timestamps() -> None:
    ts = np.repeat(np.arange(100), 7)
    (fold,) = make_folds(ts, SplitSection(train_fraction=0.6, valid_fraction=0.2), 3, 0)
    assert fold.spans == ((TRAIN, 0, 57), (VALID, 60, 77), (TEST, 80, 100))


def test_days_set_the_boundaries() -> None:
    days = [datetime(2020, 1, d, 6, 30, tzinfo=UTC) for d in range(1, 31)]
    ts = np.array([int(d.timestamp()) * 1_000_000 for d in days])
    given_days = {"valid_start": date(2020, 1, 15), "test_start": date(2020, 1, 22)}
    (fold,) = make_folds(ts, SplitSection(**given_days), 2, 0)
    assert (fold.start(VALID), fold.start(TEST), fold.spans[0].stop) == (ts[14], ts[21], ts[12])
    later = make_folds(ts, SplitSection(kind="walk_forward", refit_every=4, **given_days), 2, 0)
    assert [fold.start(TEST) for fold in later] == [ts[21], ts[25], ts[29]]
    assert [fold.start(VALID) for fold in later] == [ts[14], ts[18], ts[22]], "validation moves along"
    assert microseconds(date(1970, 1, 2)) == 86_400_000_000
    assert fold.to_json()["spans"][2]["from"] == "2020-01-22"


def test_a_label_that_ends_beyond_the_next_part_of_training_is_purged() -> None:
    """A suspension may carry a label over a whole span of training into validation."""
    fold = Fold(0, (Span(TRAIN, 0, 10), Span(TRAIN, 10, 20), Span(VALID, 22, 30), Span(TEST, 32, 40)), 2)
    ends = np.array([19, 21, 22, 35, NEVER])
    assert fold.purged(np.full(5, 3), ends).tolist() == [False, False, True, True, True]
    assert not fold.purged(np.full(5, 35), ends).any(), "nothing follows the test"


def test_a_training_row_whose_features_read_the_test_is_left_out() -> None:
    fold = Fold(0, (Span(VALID, 0, 8), Span(TEST, 10, 20), Span(TRAIN, 25, 40)), 2)
    ts, since = np.array([15, 22, 26, 26, 39, 26]), np.array([9, 9, 19, 20, 5, 26])
    assert fold.looking_back(ts, since).tolist() == [False, False, True, False, True, False]


def test_an_embargo_shorter_than_the_longest_label_is_refused() -> None:
    with pytest.raises(SplitError, match="at least 5 bars, the longest label, got 4"):
        make_folds(np.arange(100), SplitSection(embargo=4), 5, 0)
    assert make_folds(np.arange(100), SplitSection(embargo=9), 5, 0)[0].embargo == 9


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            SplitSection(valid_start=date(1960, 1, 1), test_start=date(1970, 1, 1)),
            r"train of fold 0: of 0 between its boundaries \(.*set a later split\.valid_start,",
        ),
        (
            SplitSection(valid_start=date(2050, 1, 1), test_start=date(2060, 1, 1)),
            r"valid of fold 0: of 0 .*split\.test_start further apart",
        ),
        (
            SplitSection(valid_start=date(1970, 1, 1), test_start=date(2060, 1, 1)),
            r"train of fold 0: of 0 .*set a later split\.valid_start",
        ),
        (
            SplitSection(train_fraction=0.7, valid_fraction=0.02),
            r"valid of fold 0: of 2 between its boundaries the embargo took 2 \(.*raise split\.valid_fraction, shorten "
            r"the labels \(labels\.horizons\), lower split\.embargo, or ingest",
        ),
        (
            SplitSection(kind="kfold", folds=3),
            r"train of fold 0: of 33 between its boundaries the embargo took 10 and the look-back took 23 \(.*"
            r"take fewer split\.folds, .*shorten train\.window",
        ),
        (
            SplitSection(kind="walk_forward", train_fraction=0.05),
            r"train of fold 0: of 5 .* the embargo took 5 \(.*raise split\.train_fraction",
        ),
        (
            SplitSection(kind="walk_forward", train_fraction=0.05, train_window=1),
            r"train of fold 0: of 5 .* the embargo took 5 \(.*raise split\.train_window",
        ),
    ],
)
def test_an_empty_part_is_named_with_what_took_it(section: SplitSection, told: str) -> None:
    with pytest.raises(SplitError, match=rf"got none in {told}") as caught:
        make_folds(np.arange(100), section, 5, 60)
    assert "(100 timestamps from 1970-01-01 to 1970-01-01, embargo 5, look-back 60)" in str(caught.value)


def test_no_rows_at_all_is_an_empty_part() -> None:
    for kind in ("holdout", "walk_forward", "kfold"):
        with pytest.raises(SplitError, match="got none in train of fold 0: of 0"):
            make_folds(np.empty(0, np.int64), SplitSection(kind=kind), 5, 0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"folds": 8}, r"split\.folds for walk_forward or kfold alone, got 8 for holdout, .*leave it at 5"),
        ({"train_window": 9}, r"split\.train_window for walk_forward alone, got 9 for holdout"),
        (
            {"kind": "kfold", "train_fraction": 0.6},
            r"split\.train_fraction for holdout or walk_forward alone, got 0\.6 for kfold, .*leave it at 0\.7",
        ),
        ({"kind": "kfold", "valid_fraction": 0.2}, r"split\.valid_fraction .*got 0\.2 for kfold"),
        (
            {"kind": "kfold", "valid_start": date(2020, 1, 1), "test_start": date(2020, 2, 1)},
            r"split\.valid_start .*got 2020-01-01 for kfold, .*leave it unset",
        ),
        (
            {"kind": "walk_forward", "refit_every": 5, "folds": 4},
            r"split\.folds for walk_forward or kfold alone without split\.refit_every, got 4",
        ),
        (
            {"train_fraction": 0.6, "valid_start": date(2020, 1, 1), "test_start": date(2020, 2, 1)},
            r"split\.train_fraction for .* without split\.valid_start, got 0\.6 for holdout",
        ),
    ],
)
def test_a_setting_without_an_effect_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=f"expected {told}"):
        SplitSection(**values)
    SplitSection(kind="kfold", folds=8, embargo=9)
    SplitSection(kind="walk_forward", folds=8, train_window=9, train_fraction=0.6, valid_fraction=0.2)


def test_a_command_line_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^split: expected split\.folds for walk_forward or kfold alone, got 9"):
        load(["--split.folds", "9"], "test", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--split.valid_start", "2026-01-01"],
            "expected both split.valid_start and split.test_start or neither, got split.valid_start 2026-01-01 alone; "
            "give split.test_start as well",
        ),
        (
            ["--split.valid_start", "2026-02-01", "--split.test_start", "2026-01-01"],
            "expected split.valid_start before split.test_start, got 2026-02-01 and 2026-01-01; set a later "
            "split.test_start",
        ),
        (
            ["--split.train_fraction", "0.9"],
            "expected split.train_fraction + split.valid_fraction below 1, so that a test is left, got 0.9 + 0.15; "
            "lower one of them",
        ),
    ],
)
def test_boundaries_that_cannot_be_are_told_alone(words: list[str], told: str) -> None:
    """Without the section's other values, nor a file that the given ones are not from."""
    with pytest.raises(ConfigError) as caught:
        load(words, "test", "")
    assert str(caught.value) == f"split: {told}"


@pytest.mark.parametrize(
    "values",
    [
        {"train_fraction": 0.8, "valid_fraction": 0.2},
        {"valid_start": date(2020, 1, 1)},
        {"valid_start": date(2020, 2, 1), "test_start": date(2020, 1, 1)},
        {"embargo": -1},
        {"train_fraction": 0.0},
        {"kind": "kfold", "folds": 2},
        {"kind": "kfold", "valid_start": date(2020, 1, 1), "test_start": date(2020, 2, 1)},
        {"kind": "walk_forward", "folds": 1},
        {"refit_every": 20},
        {"kind": "kfold", "train_window": 250},
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SplitSection(**values)


def test_names_cover_the_codes() -> None:
    assert sorted(NAMES.values()) == [TRAIN, VALID, TEST]
