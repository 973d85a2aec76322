"""Predictions are those of the kept models on the rows after training, and their figures add up."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from storage.emit import silent
from storage.store import StoreError, read_json, write_json
from tests.feature_blocks import edit, write_blocks
from training.columns import DataError, read_columns
from training.metrics import decile_means, make_sections, newey_west_t, spread_by_section
from training.model import load_model
from training.panel import Panel, read_panel
from training.predict import predict_all
from training.scaler import Scaler
from training.section import PredictSection, TrainSection
from training.splits import TEST, VALID, Fold, SplitSection
from training.task import train_all

TRAIN = TrainSection(
    window=4, hidden_size=8, num_epochs=3, windows_per_epoch=2000, batch_size=64, learning_rate=1e-2, threads=1
)
PREDICT = PredictSection(threads=1, batch_size=100)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a feature stage and a train stage."""
    root = tmp_path_factory.mktemp("stages")
    features = write_blocks(root / "features", signal=0.1, noise=0.2)
    train_all(features, root / "train", SplitSection(), TRAIN, "cpu", silent)
    return features, root / "train"


@pytest.fixture(scope="module")
def predicted(stages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predict")
    predict_all(*stages, out, PREDICT, "cpu", silent)
    return out


def keys_of(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table.column("symbol").to_pylist(), table.column("ts").cast(pa.int64()).to_pylist()))


def folds_of(trained: Path) -> list[Fold]:
    return [Fold.from_json(value) for value in read_json(trained / "folds.json")]


def scaled(features: Path, place: Path, labels: tuple[str, ...] = ()) -> Panel:
    panel = read_panel(features, read_columns(features, labels))
    Scaler.read(place / "scaler.json").apply(panel.x_NF)
    return panel


def check_scores(features: Path, trained: Path, out: Path, *models: tuple[str, ...], number: int = 0) -> None:
    """Compare scores of a sample of rows of a fold with the mean of models that are loaded and fed one by one; the
    first label's score has no suffix.
    """
    read = pq.read_table(out / "predictions.parquet")
    table = read.to_pandas().assign(us=read.column("ts").cast(pa.int64()).to_numpy())
    place = trained / f"fold-{number}"
    panel, targets = scaled(features, place), read_json(place / "columns.json")["targets"]
    for files in models:
        loaded = [load_model(place / file / "best.pt") for file in files]
        assert len({one.window for one in loaded}) == 1
        for _, row in table[table.fold == number].sample(15, random_state=0).iterrows():
            mine = panel.symbol_N == panel.symbols.index(row.symbol)
            end = np.flatnonzero(mine & (panel.ts_N == row.us))[0]
            x = torch.from_numpy(np.array(panel.x_NF[end - loaded[0].window + 1 : end + 1][None]))
            with torch.inference_mode():
                expected = torch.stack([one.model(x)[0] for one in loaded]).mean(dim=0)
            for h, target in enumerate(targets):
                name = f"score_{files[0].rpartition('-')[0]}" + (f"_{target}" if h else "")
                assert float(expected[h]) == pytest.approx(row[name], abs=1e-5)


def test_the_train_stage_leaves_what_was_agreed(stages: tuple[Path, Path]) -> None:
    names = {str(p.relative_to(stages[1])) for p in stages[1].rglob("*") if p.is_file()}
    fold = {"lstm-0/best.pt", "ridge-0/best.pt", "scaler.json", "columns.json"}
    needed = {f"fold-0/{name}" for name in fold} | {"folds.json", "metrics.json", "history.parquet"}
    assert needed <= names
    assert {Path(name).name for name in names - needed} <= {"last.pt", "last-before.pt"}, "to go on from"
    history = pq.read_table(stages[1] / "history.parquet").to_pylist()
    assert [(r["model"], r["epoch"]) for r in history] == [("ridge", 0), ("lstm", 0), ("lstm", 1), ("lstm", 2)]
    assert read_json(stages[1] / "folds.json")[0]["rows"]["test"] > 0


def test_predictions_have_the_agreed_columns_and_rows(stages: tuple[Path, Path], predicted: Path) -> None:
    table = pq.read_table(predicted / "predictions.parquet")
    expected = {
        "symbol": pa.string(),
        "ts": pa.timestamp("us", tz="UTC"),
        "fold": pa.int32(),
        "split": pa.string(),
        "y": pa.float32(),
        "score_lstm": pa.float32(),
        "score_ridge": pa.float32(),
    }
    assert {f.name: f.type for f in table.schema} == expected
    keys = keys_of(table)
    assert keys == sorted(set(keys))
    (fold,) = folds_of(stages[1])
    panel = read_panel(stages[0], read_columns(stages[0]))
    late = panel.ts_N >= fold.start(VALID)
    assert keys == list(zip([panel.symbols[i] for i in panel.symbol_N[late]], panel.ts_N[late].tolist()))
    assert table.column("split").to_pylist() == ["test" if ts >= fold.start(TEST) else "valid" for _, ts in keys]
    assert np.array_equal(table.column("y").to_numpy(), panel.y_NH[late, 0], equal_nan=True)
    assert np.isnan(table.column("y").to_numpy()).any()
    assert np.isfinite(table.column("score_lstm").to_numpy()).all()


def test_a_score_is_the_model_on_its_scaled_window(stages: tuple[Path, Path], predicted: Path) -> None:
    check_scores(*stages, predicted, ("lstm-0",), ("ridge-0",))


def test_metrics_are_those_of_the_rows(stages: tuple[Path, Path], predicted: Path) -> None:
    table = pq.read_table(predicted / "predictions.parquet").to_pandas()
    coefficients = pq.read_table(predicted / "ic.parquet").to_pandas()
    metrics = read_json(predicted / "metrics.json")
    test = table[(table.split == "test") & table.y.notna()]
    for name in ("lstm", "ridge"):
        naive = test.groupby("ts").apply(lambda g, c=f"score_{name}": g[c].corr(g.y, method="pearson"))
        ranks = test.groupby("ts").apply(lambda g, c=f"score_{name}": g[c].rank().corr(g.y.rank()))
        mine = coefficients[(coefficients.model == name) & (coefficients.split == "test") & (coefficients.n > 0)]
        np.testing.assert_allclose(mine.ic.to_numpy(), naive.to_numpy(), atol=1e-6)
        np.testing.assert_allclose(mine.rank_ic.to_numpy(), ranks.to_numpy(), atol=1e-6)
        figures = metrics[name]["test"]
        assert figures["mean_rank_ic"] == pytest.approx(ranks.mean())
        assert figures["mean_rank_ic"] > 0.3
        assert figures["t_newey_west"] == pytest.approx(newey_west_t(ranks.to_numpy(), 2))
        assert figures["hit_rate"] == pytest.approx((ranks > 0).mean())
        assert figures["n_days"] == len(ranks)
    assert metrics["horizon"] == 2


def test_deciles_and_spread_are_those_of_the_rows(stages: tuple[Path, Path], predicted: Path) -> None:
    table, (fold,) = pq.read_table(predicted / "predictions.parquet"), folds_of(stages[1])
    found = pq.read_table(predicted / "deciles.parquet").to_pandas()
    by_time = pq.read_table(predicted / "ic.parquet").to_pandas()
    assert len(found) == 2 * 2 * 10
    ts, y = table.column("ts").cast(pa.int64()).to_numpy(), table.column("y").to_numpy()
    panel = read_panel(stages[0], read_columns(stages[0]))
    ends = dict(zip(zip(panel.symbol_N.tolist(), panel.ts_N.tolist()), panel.end_N.tolist()))
    end = np.array([ends[panel.symbols.index(symbol), at] for symbol, at in keys_of(table)])
    for part, code in (("valid", VALID), ("test", TEST)):
        mine = (fold.of(ts) == code) & ~fold.purged(ts, end)
        sections = make_sections(ts[mine], PREDICT.min_names)
        for name in ("lstm", "ridge"):
            score = table.column(f"score_{name}").to_numpy()[mine]
            rows = found[(found.model == name) & (found.split == part)]
            mean_D, count_D = decile_means(score, y[mine], sections)
            assert rows.decile.tolist() == list(range(10)) and rows.n.tolist() == count_D.tolist()
            np.testing.assert_allclose(rows.y, mean_D)
            spread = spread_by_section(score, y[mine], sections)
            told = by_time[(by_time.model == name) & (by_time.split == part)].spread
            np.testing.assert_allclose(told, spread)
            figure = read_json(predicted / "metrics.json")[name][part]["decile_spread"]
            assert figure == pytest.approx(np.nanmean(spread)) and figure > 0.1, "the signal is 0.1 for each deviation"


def test_validation_metrics_leave_out_labels_that_end_in_the_test(stages: tuple[Path, Path], predicted: Path) -> None:
    (fold,) = folds_of(stages[1])
    coefficients = pq.read_table(predicted / "ic.parquet").to_pandas()
    valid = coefficients[coefficients.split == "valid"]
    stamps = valid[valid.n > 0].ts.astype("datetime64[us, UTC]").astype("int64")
    assert stamps.min() == fold.start(VALID)
    assert stamps.max() < next(span.stop for span in fold.spans if span.part == VALID)
    # training counted the same rows: one bar beyond the embargo still ends in the test
    trained = read_json(stages[1] / "metrics.json")["ridge"]["valid_rank_ic"]
    assert read_json(predicted / "metrics.json")["ridge"]["valid"]["mean_rank_ic"] == pytest.approx(trained, abs=1e-6)


def test_predicting_again_gives_the_same_content(stages: tuple[Path, Path], predicted: Path, tmp_path: Path) -> None:
    one = predict_all(*stages, tmp_path / "a", PREDICT, "cpu", silent)
    two = predict_all(*stages, tmp_path / "b", PREDICT, "cpu", silent)
    assert one["content"] == two["content"]
    assert one["rows"] == pq.read_metadata(predicted / "predictions.parquet").num_rows


def change_names(features: Path, names: list[str]) -> None:
    found = read_json(features / "columns.json")
    write_json(
        features / "columns.json", {**found, "features": [{"name": n, "unit": "", "in": "blocks"} for n in names]}
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([0, 1, 2, 4], "missing: feature_3"),
        ([1, 0, 2, 3, 4], "another order: column 0 is 'feature_1'"),
        ([0, 1, 2, 3, 4, 9], "unknown to the checkpoint: feature_9"),
    ],
)
def test_other_features_than_the_checkpoint_s_are_refused(
    stages: tuple[Path, Path], tmp_path: Path, names: list[int], message: str
) -> None:
    features = tmp_path / "features"
    shutil.copytree(stages[0], features)
    change_names(features, [f"feature_{i}" for i in names])
    with pytest.raises(DataError, match=message):
        predict_all(features, stages[1], tmp_path / "out", PREDICT, "cpu", silent)


def test_bars_features_and_labels_of_another_model_are_told_with_its_name(
    stages: tuple[Path, Path], tmp_path: Path
) -> None:
    features = tmp_path / "features"
    shutil.copytree(stages[0], features)
    columns, model = read_json(features / "columns.json"), f"{stages[1].parent.name}/{stages[1].name}"
    other = {"name": "y_9", "horizon": 9, "end": "y_2_end"}
    for change, told in (
        (
            {"targets": [other]},
            rf"labels y_2, which the model {model} .* got y_9 without y_2; set labels\.horizons and",
        ),
        ({"interval": "15m"}, rf"bars of 1d, which the model {model} .* got 15m; set features\.interval to 1d"),
        (
            {"features": columns["features"][1:]},
            rf"^model {model}: expected the 5 feature columns .*missing: feature_0",
        ),
    ):
        write_json(features / "columns.json", {**columns, **change})
        with pytest.raises(DataError, match=told):
            predict_all(features, stages[1], tmp_path / "out", PREDICT, "cpu", silent)


def test_a_column_dropped_in_training_is_not_needed(tmp_path: Path) -> None:
    features = write_blocks(tmp_path / "features", signal=0.1, noise=0.2, days=90)

    def empty(table: pa.Table) -> pa.Table:
        index = table.column_names.index("feature_0")
        return table.set_column(index, "feature_0", pa.array(np.full(table.num_rows, np.nan, np.float32)))

    edit(features, empty)
    train_all(features, tmp_path / "train", SplitSection(), TRAIN, "cpu", silent)
    result = predict_all(features, tmp_path / "train", tmp_path / "out", PREDICT, "cpu", silent)
    assert result["metrics"]["ridge"]["test"]["mean_rank_ic"] > 0.3


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda t: [p.unlink() for p in t.glob("*/best.pt")], DataError, "a model in"),
        (lambda t: (t / "scaler.json").write_text("{"), StoreError, r"scaler\.json"),
        (lambda t: (t / "scaler.json").write_text("{}"), StoreError, r"expected a scaler .* at .*scaler\.json"),
        (lambda t: (t / "columns.json").write_text("{}"), StoreError, "one set of features"),
        (lambda t: (t.parent / "folds.json").write_text("["), StoreError, r"folds\.json"),
        (
            lambda t: write_json(t / "columns.json", {**read_json(t / "columns.json"), "features": ["feature_0"]}),
            StoreError,
            "one set of features",
        ),
    ],
)
def test_a_damaged_train_stage_is_named(
    stages: tuple[Path, Path], tmp_path: Path, damage: Any, error: type[Exception], message: str
) -> None:
    shutil.copytree(stages[1], tmp_path / "train")
    damage(tmp_path / "train" / "fold-0")
    with pytest.raises(error, match=message):
        predict_all(stages[0], tmp_path / "train", tmp_path / "out", PREDICT, "cpu", silent)
