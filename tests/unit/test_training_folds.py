"""Training and prediction over several folds, seeds and labels: who scores which row, and how well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.emit import silent
from storage.store import read_json
from tests.feature_blocks import DAY_US, Recorder, edit, write_blocks
from tests.unit.test_training_predict import PREDICT, TRAIN, check_scores, folds_of, keys_of
from training import panel
from training.columns import DataError, read_columns
from training.panel import read_panel
from training.predict import predict_all
from training.section import TrainSection
from training.splits import TEST, VALID, SplitError, SplitSection
from training.task import train_all

RIDGE = TrainSection(window=4, models=("ridge",), threads=1)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.mark.parametrize("split", [
    SplitSection(kind="walk_forward", folds=4),
    SplitSection(kind="walk_forward", refit_every=5, train_window=60),
    SplitSection(kind="kfold", folds=5),
])  # fmt: skip
def test_each_row_is_scored_by_the_fold_whose_test_it_is(features: Path, tmp_path: Path, split: SplitSection) -> None:
    summary = train_all(features, tmp_path / "train", split, RIDGE, "cpu", silent)
    folds = folds_of(tmp_path / "train")
    assert summary["folds"] == len(folds) == len(summary["metrics"]["ridge"]["fits"]) > 3
    emit = Recorder()
    told = predict_all(features, tmp_path / "train", tmp_path, PREDICT, "cpu", emit)
    assert [e["done"] for e in emit.of("progress")][-1] == len(folds)
    table, panel = pq.read_table(tmp_path / "predictions.parquet"), read_panel(features, read_columns(features))
    keys, by_fold = keys_of(table), table.column("fold").to_numpy()
    assert keys == sorted(set(keys)) and told["rows"] == len(keys)
    tested = np.array(table.column("split").to_pylist()) == "test"
    ts = table.column("ts").cast(pa.int64()).to_numpy()
    for fold in folds:
        assert set(ts[tested & (by_fold == fold.number)]) == set(panel.ts_N[(fold.of(panel.ts_N) == TEST)]) - early(
            panel.ts_N, RIDGE.window + 3
        )
    if split.kind == "kfold":
        assert tested.all(), "there is no part before the first test"
        assert told["metrics"]["ridge"]["valid"]["mean_rank_ic"] is None
    else:
        first = folds[0]
        assert min(ts) == first.start(VALID) and set(by_fold[~tested]) == {0}
        assert set(ts) == {int(t) for t in panel.ts_N if t >= first.start(VALID)}, "without a hole"
    assert told["metrics"]["ridge"]["test"]["mean_rank_ic"] > 0.3
    check_scores(features, tmp_path / "train", tmp_path, ("ridge-0",), number=2)
    again = predict_all(features, tmp_path / "train", tmp_path, PREDICT, "cpu", silent)
    assert again["content"] == told["content"]


def spoil(features: Path, change: Any) -> None:
    """Rewrite the column y_2 and y_2_end, microseconds or NaN, by (day number N) -> (y N, end N)."""

    def changed(table: pa.Table) -> pa.Table:
        ts = table["ts"].cast(pa.int64()).to_numpy()
        day, y = np.searchsorted(np.unique(ts), ts), table["y_2"].to_numpy().copy()
        end = table["y_2_end"].cast(pa.int64()).to_numpy(zero_copy_only=False).copy()
        change(day, y, end)
        stamps = pa.array(np.nan_to_num(end).astype(np.int64), mask=np.isnan(end)).cast(pa.timestamp("us", tz="UTC"))
        for name, values in (("y_2", pa.array(y)), ("y_2_end", stamps)):
            table = table.set_column(table.column_names.index(name), name, values)
        return table

    edit(features, changed)


def late(day: np.ndarray, y: np.ndarray, end: np.ndarray) -> None:
    end[(day >= 40) & (day < 80)] += 60 * DAY_US


def unknown(day: np.ndarray, y: np.ndarray, end: np.ndarray) -> None:
    y[(day >= 80) & (day < 120)] = np.nan


@pytest.mark.parametrize(
    ("change", "window", "told"),
    [
        (late, 4, r"valid of fold 2: of 40 .* the embargo took 2 and the purge took 38; take fewer split\.folds, "),
        (unknown, 4, r"valid of fold 3: of 40 .* the embargo took 2 and unknown labels took 38; .*labels\.horizons"),
        (None, 37, r"valid of fold 1: of 40 .* the embargo took 2 and the warm-up took 38; .*shorten train\.window"),
        (None, 38, r"test of fold 0: of 40 .* boundaries the warm-up took 40; .*features that are known sooner"),
        (None, 40, r"train of fold 0: of 80 .* the embargo took 4 and the look-back took 37 and the warm-up took 39;"),
    ],
)  # fmt: skip
def test_an_impossible_fold_is_told_before_any_is_trained(tmp_path: Path, change: Any, window: int, told: str) -> None:
    """Four parts of 40 days; what is wrong with a later one is known before the first has been fitted."""
    features = write_blocks(tmp_path / "features", symbols=3, groups=1)
    if change:
        spoil(features, change)
    train = RIDGE.model_copy(update={"window": window})
    with pytest.raises(SplitError, match=rf"got none in {told}"):
        train_all(features, tmp_path / "train", SplitSection(kind="kfold", folds=4), train, "cpu", silent)
    assert not list((tmp_path / "train").rglob("*.pt"))


def alone(table: pa.Table) -> pa.Table:
    """Leave labels to one symbol from day 100 on."""
    ts, symbol = table["ts"].cast(pa.int64()).to_numpy(), np.array(table["symbol"].to_pylist())
    late = (ts >= np.unique(ts)[100]) & (symbol != "000000")
    y = np.where(late, np.float32(np.nan), table["y_2"].to_numpy())
    return table.set_column(table.column_names.index("y_2"), "y_2", pa.array(y))


def even(table: pa.Table) -> pa.Table:
    """Give all symbols the same label from day 100 on."""
    ts = table["ts"].cast(pa.int64()).to_numpy()
    y = np.where(ts >= np.unique(ts)[100], np.float32(0.5), table["y_2"].to_numpy())
    return table.set_column(table.column_names.index("y_2"), "y_2", pa.array(y))


@pytest.mark.parametrize(
    ("change", "train", "error", "told"),
    [
        (alone, {"target_kind": "rank"}, SplitError, r"valid of fold 2: .* moments with one symbol, .*took 2\d; "),
        (alone, {"target_kind": "return", "loss": "ic"}, DataError, r"for train\.loss ic, .* of fold 3; use mse"),
        (even, {"target_kind": "excess"}, DataError, r"targets that differ .* got 0 in all \d+ of y_2 \(excess\)"),
    ],
)
def test_targets_of_all_folds_are_made_before_any_is_trained(
    tmp_path: Path, change: Any, train: dict[str, Any], error: type[Exception], told: str
) -> None:
    """Four refits on 20 days each: the first has something to learn, a later one has not."""
    features = write_blocks(tmp_path / "features", symbols=3, groups=1)
    edit(features, change)
    split = SplitSection(kind="walk_forward", folds=4, train_window=20, train_fraction=0.5)
    asked, emit = TRAIN.model_copy(update={**train, "num_epochs": 1}), Recorder()
    with pytest.raises(error, match=told):
        train_all(features, tmp_path / "train", split, asked, "cpu", emit)
    assert not list((tmp_path / "train").rglob("*.pt")) and not emit.of("epoch")


def test_models_stand_in_the_order_asked_for_and_rows_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = write_blocks(tmp_path / "features", symbols=6, groups=2, days=120)
    train = TRAIN.model_copy(update={"models": ("tcn", "ridge", "lstm"), "num_epochs": 1, "windows_per_epoch": 64})
    read: list[Path] = []
    usual = panel._beside
    monkeypatch.setattr(panel, "_beside", lambda path, columns: read.append(path) or usual(path, columns))
    train_all(features, tmp_path / "train", SplitSection(kind="walk_forward", folds=3), train, "cpu", silent)
    assert len(read) == 2
    told = predict_all(features, tmp_path / "train", tmp_path, PREDICT, "cpu", silent)
    assert len(read) == 4 and told["models"] == ["tcn", "lstm", "ridge"]
    names = pq.read_schema(tmp_path / "predictions.parquet").names
    assert [name for name in names if name.startswith("score")] == ["score_tcn", "score_lstm", "score_ridge"]
    for number in range(3):
        check_scores(features, tmp_path / "train", tmp_path, ("tcn-0",), ("lstm-0",), ("ridge-0",), number=number)


def early(ts: np.ndarray, bars: int) -> set[int]:
    """Return the first timestamps, at which no window has ended: feature_1 is not known for 3 bars."""
    return set(np.unique(ts)[: bars - 1].tolist())


def test_a_label_that_ends_in_the_training_after_its_test_is_not_judged(features: Path, tmp_path: Path) -> None:
    train_all(features, tmp_path / "train", SplitSection(kind="kfold", folds=5), RIDGE, "cpu", silent)
    predict_all(features, tmp_path / "train", tmp_path, PREDICT, "cpu", silent)
    judged = pq.read_table(tmp_path / "ic.parquet").to_pandas()
    stamps = np.unique(read_panel(features, read_columns(features)).ts_N)
    first = folds_of(tmp_path / "train")[0]
    after = next(span for span in first.spans if span.start > first.start(TEST))
    last = judged.ts[(judged.n > 0)].astype("datetime64[us, UTC]").astype("int64")
    mine = stamps[(stamps >= first.start(TEST)) & (stamps < next(s.stop for s in first.spans if s.part == TEST))]
    reaching = [t for t in mine if stamps[np.searchsorted(stamps, t) + 3] >= after.start]
    assert not set(reaching) & set(last) and set(mine[10:]) - set(reaching) <= set(last)


def test_scores_are_the_mean_over_seeds_and_each_label_has_its_own(tmp_path: Path) -> None:
    features = write_blocks(tmp_path / "features", signal=0.1, noise=0.2, horizons=(2, 5))
    train = TRAIN.model_copy(update={"targets": ("y_2", "y_5"), "seeds": 2, "num_epochs": 2})
    summary = train_all(features, tmp_path / "train", SplitSection(), train, "cpu", silent)
    assert [fit["seed"] for fit in summary["metrics"]["lstm"]["fits"]] == [0, 1]
    assert len({fit["weights"] for fit in summary["metrics"]["lstm"]["fits"]}) == 2
    told = predict_all(features, tmp_path / "train", tmp_path, PREDICT, "cpu", silent)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert [name for name in table.column_names if name.startswith(("score", "y"))] == [
        "y", "y_5", "score_lstm", "score_lstm_y_5", "score_ridge", "score_ridge_y_5",
    ]  # fmt: skip
    check_scores(features, tmp_path / "train", tmp_path, ("lstm-0", "lstm-1"), ("ridge-0",))
    panel = read_panel(features, read_columns(features, ("y_2", "y_5")))
    late = panel.ts_N >= folds_of(tmp_path / "train")[0].start(VALID)
    assert np.array_equal(table["y"].to_numpy(), panel.y_NH[late, 0], equal_nan=True)
    assert np.array_equal(table["y_5"].to_numpy(), panel.y_NH[late, 1], equal_nan=True)
    assert told["models"] == ["lstm", "ridge"], "a score of another label is no model"
    assert read_json(tmp_path / "metrics.json")["horizon"] == 2
    assert not np.allclose(table["score_ridge"].to_numpy(), table["score_ridge_y_5"].to_numpy())


def test_few_symbols_are_judged_over_time(tmp_path: Path) -> None:
    features = write_blocks(tmp_path / "features", symbols=2, days=600, groups=1, signal=0.1, noise=0.2)
    train_all(features, tmp_path / "train", SplitSection(), TRAIN, "cpu", silent)
    assert read_json(tmp_path / "train" / "fold-0" / "columns.json")["target_kind"] == "return"
    metrics = predict_all(features, tmp_path / "train", tmp_path / "out", PREDICT, "cpu", silent)["metrics"]
    assert metrics["timestamps_per_section"]["test"] == 10
    assert metrics["lstm"]["test"]["mean_rank_ic"] > 0.2
