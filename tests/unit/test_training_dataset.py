"""Nothing about validation and test reaches what is fitted, and what cannot be learned from is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.emit import silent
from storage.store import read_json, write_json, write_parquet
from tests.feature_blocks import Recorder, edit, write_blocks
from training import panel
from training.columns import DataError
from training.dataset import Dataset, Folds, prepare
from training.section import TrainSection
from training.splits import GAP, TEST, TRAIN, VALID, SplitError, SplitSection

SMALL = {"symbols": 6, "days": 60, "features": 3, "groups": 2}
FEATURES = ("feature_0", "feature_1", "feature_2")
FIVE = TrainSection(window=5)
KFOLD = SplitSection(kind="kfold", folds=4)


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def stamps(table: pa.Table) -> np.ndarray:
    return table.column("ts").cast(pa.int64()).to_numpy()


def poison(out: Path, days: Any, names: tuple[str, ...], value: float = 1e9) -> None:
    """Put a value into columns of all rows whose timestamp is among the days."""

    def change(table: pa.Table) -> pa.Table:
        for name in names:
            values = table.column(name).to_numpy().copy()
            values[np.isin(stamps(table), days)] = value
            table = set_column(table, name, values)
        return table

    edit(out, change)


def days_of(data: Dataset, *parts: int) -> np.ndarray:
    return np.unique(data.panel.ts_N[np.isin(data.split_N, parts)])


def same_fit(a: Dataset, b: Dataset) -> bool:
    return (
        a.scaler.to_json() == b.scaler.to_json()
        and a.kind == b.kind
        and np.array_equal(a.target_NH, b.target_NH, equal_nan=True)
        and all(np.array_equal(a.windows(part, FIVE), b.windows(part, FIVE)) for part in (TRAIN, VALID))
    )


@pytest.mark.parametrize(
    ("split", "number"),
    [(SplitSection(), 0), (SplitSection(kind="walk_forward", folds=3), 2), *((KFOLD, k) for k in range(4))],
)
@pytest.mark.parametrize("kind", ["rank", "return"])
def test_poisoned_test_rows_change_neither_scaler_nor_targets(
    tmp_path: Path, split: SplitSection, number: int, kind: str
) -> None:
    train = FIVE.model_copy(update={"target_kind": kind})
    clean = prepare(write_blocks(tmp_path, **SMALL), split, train, silent, number)
    poison(tmp_path, days_of(clean, TEST, GAP), (*FEATURES, "y_2"))
    poisoned = prepare(tmp_path, split, train, silent, number)
    assert same_fit(clean, poisoned)
    assert np.isnan(clean.target_NH[clean.split_N == TEST]).all()
    rows = np.flatnonzero(poisoned.split_N == TRAIN)
    assert np.array_equal(poisoned.panel.x_NF[rows], clean.panel.x_NF[rows], equal_nan=True)


def test_poisoned_validation_rows_do_not_change_the_scaler_either(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), FIVE, silent)
    poison(tmp_path, days_of(clean, VALID, TEST, GAP), ("feature_0",))
    assert prepare(tmp_path, SplitSection(), FIVE, silent).scaler.to_json() == clean.scaler.to_json()


@pytest.mark.parametrize("gap", [0.0, 15.0])
@pytest.mark.parametrize("number", range(4))
def test_a_window_of_training_lies_wholly_in_training(tmp_path: Path, number: int, gap: float) -> None:
    """Those of validation may reach back."""
    write_blocks(tmp_path, **SMALL)
    train = TrainSection(window=5, max_gap_days=gap)
    data = prepare(tmp_path, KFOLD, train, silent, number)
    kept = {part: data.windows(part, train).tolist() for part in (TRAIN, VALID)}
    for part, ends in kept.items():
        naive = []
        for end in range(4, len(data.split_N)):
            window = slice(end - 4, end + 1)
            whole = len(set(data.panel.symbol_N[window])) == 1 and data.known_N[window].all()
            inside = part == VALID or (data.split_N[window] == TRAIN).all()
            if whole and inside and data.split_N[end] == part and np.isfinite(data.target_NH[end, 0]):
                naive.append(end)
        assert ends == naive and ends
    assert any((data.split_N[end - 4 : end + 1] != VALID).any() for end in kept[VALID]) or number == 1


def test_training_begins_where_features_have_forgotten_the_test(tmp_path: Path) -> None:
    """A symbol that was suspended in the gap after the test reads the test from further on than its neighbours."""
    write_blocks(tmp_path, **SMALL)
    columns = read_json(tmp_path / "columns.json")
    features = [{**f, "ready": 4} for f in columns["features"]]
    write_json(tmp_path / "columns.json", {**columns, "features": features})
    whole = prepare(tmp_path, KFOLD, FIVE, silent)
    last_test = days_of(whole, TEST)[-1]
    begin = days_of(whole, TRAIN)[0]

    def suspend(table: pa.Table) -> pa.Table:
        gone = (stamps(table) > last_test) & (stamps(table) < begin)
        return table.filter(~(gone & (np.array(table.column("symbol").to_pylist()) == "000001")))

    edit(tmp_path, suspend)
    data = prepare(tmp_path, KFOLD, FIVE, silent)
    for symbol in range(6):
        mine = np.flatnonzero(data.panel.symbol_N == symbol)
        first = mine[data.split_N[mine] == TRAIN][0]
        expected = 3 if symbol == 1 else 0  # own bars beyond the day on which training begins
        assert (data.panel.ts_N[mine] >= begin).argmax() + expected == first - mine[0]
        assert data.panel.ts_N[first - 3] > last_test


def test_two_labels_are_learned_side_by_side(tmp_path: Path) -> None:
    """The first one decides which windows there are; a missing second one is NaN and nothing else."""
    write_blocks(tmp_path, **SMALL)
    columns = read_json(tmp_path / "columns.json")
    other = {"name": "y_9", "horizon": 2, "end": "y_2_end"}
    write_json(tmp_path / "columns.json", {**columns, "targets": [*columns["targets"], other]})

    def add(table: pa.Table) -> pa.Table:
        y = -table.column("y_2").to_numpy()
        y[::3] = np.nan
        return table.append_column("y_9", pa.array(y))

    for path in (tmp_path / "targets").glob("*"):
        write_parquet(path, add(pq.read_table(path)))
    one = prepare(tmp_path, SplitSection(), FIVE, silent)
    two = prepare(tmp_path, SplitSection(), FIVE.model_copy(update={"targets": ("y_2", "y_9")}), silent)
    assert two.target_NH.shape == (360, 2)
    assert np.array_equal(one.target_NH[:, 0], two.target_NH[:, 0], equal_nan=True)
    assert np.array_equal(one.windows(TRAIN, FIVE), two.windows(TRAIN, FIVE))
    both = np.isfinite(two.target_NH).all(axis=1)
    assert 0 < np.isnan(two.target_NH[np.isfinite(two.target_NH[:, 0]), 1]).mean() < 0.5
    assert np.corrcoef(two.target_NH[both].T)[0, 1] < -0.7
    assert two.columns_json()["targets"] == ["y_2", "y_9"] and two.columns.horizon == 2
    assert one.fingerprint(FIVE, "lstm") != two.fingerprint(FIVE, "lstm")


def test_targets_compare_members_of_the_universe_alone(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)

    def half(table: pa.Table) -> pa.Table:
        return set_column(table, "member", pa.array([int(s) % 2 == 0 for s in table["symbol"].to_pylist()]))

    edit(tmp_path, half)
    data = prepare(tmp_path, SplitSection(), TrainSection(window=5, target_kind="rank"), silent)
    known = np.isfinite(data.target_NH[:, 0])
    assert known.any() and data.panel.member_N[known].all()
    for moment in np.unique(data.panel.ts_N[known]):
        assert abs(data.target_NH[known & (data.panel.ts_N == moment), 0].mean()) < 1e-6


def test_targets_that_are_all_the_same_are_an_error(tmp_path: Path) -> None:
    write_blocks(tmp_path, **{**SMALL, "symbols": 1, "groups": 1})
    with pytest.raises(DataError, match=r"targets that differ .* got 0 in all \d+ of y_2 \(excess\)"):
        prepare(tmp_path, SplitSection(), TrainSection(window=5, target_kind="excess"), silent)


def test_shuffled_labels_are_said_and_permuted(tmp_path: Path) -> None:
    emit = Recorder()
    plain = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), FIVE, silent)
    mixed = prepare(tmp_path, SplitSection(), FIVE.model_copy(update={"shuffle_labels": True}), emit)
    assert emit.said("y_2 (return, shuffled)")
    for part in (TRAIN, VALID):
        rows = plain.split_N == part
        a, b = plain.target_NH[rows, 0], mixed.target_NH[rows, 0]
        assert np.array_equal(np.sort(a), np.sort(b), equal_nan=True) and not np.array_equal(a, b, equal_nan=True)


def test_columns_without_values_are_dropped_and_named(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    edit(tmp_path, lambda t: set_column(t, "feature_2", np.full(t.num_rows, np.nan, np.float32)))
    emit = Recorder()
    data = prepare(tmp_path, SplitSection(), FIVE, emit)
    assert data.panel.features == ("feature_0", "feature_1") and data.panel.x_NF.shape[1] == 2
    assert emit.said("dropped: feature_2")
    assert data.columns_json()["offered"] == list(FEATURES)


def test_a_column_known_only_after_training_is_dropped_as_well(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), FIVE, silent)
    poison(tmp_path, days_of(clean, TRAIN), ("feature_2",), np.nan)
    assert prepare(tmp_path, SplitSection(), FIVE, silent).panel.features == ("feature_0", "feature_1")


def test_only_empty_columns_are_an_error(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), FIVE, silent)
    poison(tmp_path, np.unique(clean.panel.ts_N), FEATURES, np.nan)
    with pytest.raises(DataError, match="only NaN in all 3"):
        prepare(tmp_path, SplitSection(), FIVE, silent)


def test_labels_that_are_all_unknown_are_an_error(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), FIVE, silent)
    poison(tmp_path, days_of(clean, VALID), ("y_2",), np.nan)
    with pytest.raises(
        SplitError, match=r"got none in valid of fold 0: of 9 .* the embargo took 2 and unknown labels t"
    ):
        prepare(tmp_path, SplitSection(), FIVE, silent)


def test_ranks_of_one_symbol_are_nothing_to_learn(tmp_path: Path) -> None:
    write_blocks(tmp_path, **{**SMALL, "symbols": 1, "groups": 1})
    told = r"got none in train of fold 0: .* moments with one symbol, .* took 3\d; .*set train\.target_kind to return,"
    with pytest.raises(SplitError, match=told) as caught:
        prepare(tmp_path, SplitSection(), TrainSection(window=5, target_kind="rank"), silent)
    said = str(caught.value)
    assert "unknown labels" not in said and said.count("shorten the labels (labels.horizons)") == 1
    assert said.index("set train.target_kind") < said.index("shorten"), "what took the most is mended first"


def test_rows_without_another_to_compare_with_are_counted_apart(tmp_path: Path) -> None:
    """A label that is known is not counted as unknown where its moment has no second one."""
    write_blocks(tmp_path, **SMALL)

    def alone(table: pa.Table) -> pa.Table:
        late = stamps(table) >= np.unique(stamps(table))[10]
        others = np.array(table.column("symbol").to_pylist()) != "000000"
        return set_column(table, "y_2", np.where((stamps(table) < np.unique(stamps(table))[20]) & late & others,
                                                 np.float32(np.nan), table.column("y_2").to_numpy()))  # fmt: skip

    edit(tmp_path, alone)
    ranks, returns = (
        prepare(tmp_path, SplitSection(), TrainSection(window=5, target_kind=kind), silent)
        for kind in ("rank", "return")
    )
    assert ranks.counts["one_symbol"] == 10 and returns.counts["one_symbol"] == 0
    assert ranks.counts["unlabelled"] == returns.counts["unlabelled"] >= 5 * 10
    for data in (ranks, returns):
        used = (data.left.part_N == TRAIN).sum() - sum(data.left.rows(TRAIN).values())
        assert used == len(data.windows(TRAIN, FIVE)) == data.left.used(TRAIN).sum()


def test_a_second_label_without_values_is_named(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL, horizons=(2, 3)), SplitSection(), FIVE, silent)
    poison(tmp_path, days_of(clean, VALID), ("y_3",), np.nan)
    both = FIVE.model_copy(update={"targets": ("y_2", "y_3")})
    with pytest.raises(DataError, match=r"known labels y_3 in valid of fold 0, got 36 rows of which 0 have a label"):
        prepare(tmp_path, SplitSection(), both, silent)


def test_a_window_longer_than_every_part_is_an_error(tmp_path: Path) -> None:
    data = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), TrainSection(), silent)
    with pytest.raises(DataError, match=r"58 complete bars in a row, got at most 57 .*feature_1 \(95% known\)"):
        data.windows(TRAIN, TrainSection(window=58))
    with pytest.raises(SplitError, match="in the train split, got none"):
        data.windows(TRAIN, TrainSection(window=50))


def test_a_label_that_ends_in_the_next_part_is_purged(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), FIVE, silent)
    valid_start = int(days_of(clean, VALID)[0])

    def delay(table: pa.Table) -> pa.Table:
        ends = table.column("y_2_end").cast(pa.int64()).to_pandas()
        halted = (table.column("symbol").to_pandas() == "000001") & np.isin(stamps(table), days_of(clean, TRAIN))
        late = pa.array(ends.where(~halted, valid_start), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        return table.set_column(table.column_names.index("y_2_end"), "y_2_end", late)

    edit(tmp_path, delay)
    data = prepare(tmp_path, SplitSection(), FIVE, silent)
    mine = data.panel.symbol_N == data.panel.symbols.index("000001")
    assert np.isnan(data.target_NH[mine & (data.split_N == TRAIN)]).all()
    assert data.counts["purged"] > clean.counts["purged"]
    assert not mine[data.windows(TRAIN, FIVE)].any()


def test_rows_left_out_are_counted_by_their_reason(tmp_path: Path) -> None:
    """60 days, labels of 2 bars, windows of 5 whose features read 3 bars more; the third of four parts is the test."""
    write_blocks(tmp_path, **SMALL, warmup=1)
    columns = read_json(tmp_path / "columns.json")
    write_json(tmp_path / "columns.json", {**columns, "features": [{**f, "ready": 4} for f in columns["features"]]})

    def leave(table: pa.Table) -> pa.Table:
        return set_column(table, "member", pa.array([name != "000005" for name in table["symbol"].to_pylist()]))

    edit(tmp_path, leave)
    data = prepare(tmp_path, KFOLD, FIVE, silent, 2)
    counts, train, valid = data.counts, data.left.rows(TRAIN), data.left.rows(VALID)
    parts = ("train", "valid", "test", "outside", "embargo", "look_back")
    assert sum(counts[name] for name in parts) == 360 == len(data.split_N)
    assert (counts["train"], counts["valid"], counts["test"]) == (6 * (13 + 8), 6 * 13, 6 * 15)
    assert (counts["outside"], counts["embargo"], counts["look_back"]) == (0, 6 * (2 + 2 + 2), 6 * 5)
    assert (train["embargo"], train["look_back"], valid["embargo"]) == (6 * 4, 6 * 5, 6 * 2)
    assert (train["not_member"], valid["not_member"]) == (13 + 8, 13)
    assert train["warm_up"] == 5 * (5 + 4), "the first bar is not known, and windows begin anew behind the test"
    assert (train["purged"], valid["purged"]) == (5 * 1, 5 * 1), "the last label before a boundary ends on it"
    assert (train["unlabelled"], valid["unlabelled"]) == (5 * 3, 0), "the last labels of history"
    for part, rows in ((TRAIN, train), (VALID, valid)):
        used = (data.left.part_N == part).sum() - sum(rows.values())
        assert used == len(data.windows(part, FIVE)) > 0
    rolling = SplitSection(kind="walk_forward", folds=2, train_window=20)
    assert prepare(tmp_path, rolling, FIVE, silent).counts["outside"] == 6 * (20 + 5), "before it, after the test"


def test_folds_read_the_rows_once_and_share_them_unscaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_blocks(tmp_path, **SMALL)
    walk = SplitSection(kind="walk_forward", folds=3)
    apart = [prepare(tmp_path, walk, FIVE, silent, number) for number in range(3)]
    read: list[Path] = []
    usual = panel._beside
    monkeypatch.setattr(panel, "_beside", lambda path, columns: read.append(path) or usual(path, columns))
    folds = Folds(tmp_path, walk, FIVE)
    for number in (2, 0, 1):
        data = folds.dataset(number, silent)
        assert same_fit(data, apart[number])
        assert np.array_equal(data.panel.x_NF, apart[number].panel.x_NF, equal_nan=True)
        assert not np.shares_memory(data.panel.x_NF, folds.panel.x_NF)
    assert len(read) == len(set(read)) == 2
    alone = Folds(tmp_path, SplitSection(), FIVE)
    assert np.shares_memory(alone.panel.x_NF, alone.dataset(0, silent).panel.x_NF), "one fold needs no copy"


@pytest.mark.parametrize(("split", "only"), [(SplitSection(), None), (KFOLD, 2)])
def test_rows_that_no_fold_shares_are_scaled_once(tmp_path: Path, split: SplitSection, only: int | None) -> None:
    write_blocks(tmp_path, **SMALL)
    folds, number = Folds(tmp_path, split, FIVE, only=only), only or 0
    once = folds.dataset(number, silent).panel.x_NF.copy()
    with pytest.raises(RuntimeError, match=rf"expected one call of Folds\.dataset .* for fold {number}"):
        folds.dataset(number, silent)
    assert np.array_equal(folds.panel.x_NF, once, equal_nan=True)


def test_shared_rows_give_the_same_fold_again(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    folds = Folds(tmp_path, KFOLD, FIVE.model_copy(update={"shuffle_labels": True}))
    one, two = folds.dataset(3, silent), folds.dataset(3, silent)
    assert same_fit(one, two) and np.array_equal(one.panel.x_NF, two.panel.x_NF, equal_nan=True)


def test_shared_rows_go_to_a_file_where_memory_holds_one_matrix_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blocks(tmp_path, **SMALL)
    walk, size = SplitSection(kind="walk_forward", folds=2), 360 * 3 * 4
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * size))
    folds = Folds(tmp_path, walk, FIVE, tmp_path)
    assert isinstance(folds.panel.x_NF, np.memmap)
    assert not isinstance(folds.dataset(1, silent, tmp_path).panel.x_NF, np.memmap)
    assert not isinstance(prepare(tmp_path, walk, FIVE, silent, 1, tmp_path).panel.x_NF, np.memmap)
