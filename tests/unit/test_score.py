"""A window scores the same alone, among others and in a prediction; a window with a hole has no score."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from storage.emit import silent
from storage.store import StoreError, read_json, write_json
from tests.feature_blocks import read_blocks, write_blocks
from tests.trained_stage import write_trained
from training.columns import DataError
from training.model import load_model
from training.predict import predict_all
from training.score import Scorer
from training.section import PredictSection, TrainSection
from training.splits import SplitSection
from training.task import train_all

NETWORKS = ("lstm", "tcn", "transformer")
SMALL = TrainSection(models=(*NETWORKS,), window=6, hidden_size=8, seeds=2)
NEAR = 1e-6  # what Scorer.score promises


@pytest.mark.parametrize("normalise", ["none", "window"])
def test_the_score_of_a_window_is_that_of_prediction(tmp_path: Path, normalise: str) -> None:
    features = write_blocks(tmp_path / "features", days=120, symbols=12, signal=0.1)
    (tmp_path / "train").mkdir()
    (tmp_path / "out").mkdir()
    train = TrainSection(
        models=(*NETWORKS, "trees"), window=4, hidden_size=8, num_epochs=1, windows_per_epoch=500, batch_size=64,
        threads=1, seeds=2, min_names=5, normalise=normalise,
    )  # fmt: skip
    split = SplitSection(kind="walk_forward", folds=2)
    train_all(features, tmp_path / "train", split, train, "cpu", silent)
    predict_all(features, tmp_path / "train", tmp_path / "out", PredictSection(min_names=5), "cpu", silent)
    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    last = table.filter(pc.equal(table["fold"], 1)).to_pydict()
    rows = read_blocks(features)
    for name in (*NETWORKS, "trees", "ridge"):
        scorer = Scorer(tmp_path / "train", name)
        x_NF = np.stack([rows[f].to_numpy() for f in scorer.features], axis=1)
        at = {key: i for i, key in enumerate(zip(rows["symbol"].to_pylist(), rows["ts"].to_pylist()))}
        ends = [at[key] for key in zip(last["symbol"], last["ts"])]
        windows = np.stack([x_NF[end - scorer.window + 1 : end + 1] for end in ends])
        expected = np.array(last[f"score_{name}"], np.float32)
        assert len(set(expected.tolist())) > 10
        assert np.abs(scorer.score(windows) - expected).max() <= NEAR * max(1.0, np.abs(expected).max())
        alone = np.concatenate([scorer.score(windows[i : i + 1]) for i in range(0, len(ends), 37)])
        assert np.abs(alone - expected[::37]).max() <= NEAR * max(1.0, np.abs(expected).max())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained(tmp_path_factory.mktemp("train"), SMALL, folds=2)


def windows_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, SMALL.window, 5), np.float32)


def test_it_is_the_mean_over_seeds_of_the_last_fold(trained: Path) -> None:
    x_SLF = windows_of(9)
    scorer = Scorer(trained, "lstm")
    scaled = x_SLF.copy().reshape(-1, 5)
    scorer.scaler.apply(scaled)
    x_BLF = torch.from_numpy(scaled.reshape(x_SLF.shape))
    each = [
        load_model(trained / "fold-1" / f"lstm-{seed}" / "best.pt").model(x_BLF).detach().numpy() for seed in (0, 1)
    ]
    assert np.abs(each[0] - each[1]).max() > 1e-3
    assert np.allclose(scorer.score(x_SLF), np.mean(each, axis=0)[:, 0], atol=NEAR)


@pytest.mark.parametrize("name", [*NETWORKS, "ridge"])
@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_a_missing_feature_is_no_score_and_nobody_else_s_affair(trained: Path, name: str, hole: float) -> None:
    scorer, x_SLF = Scorer(trained, name), windows_of(5)
    whole = scorer.score(x_SLF)
    x_SLF[2, 0, 3] = hole
    before = x_SLF.copy()
    found = scorer.score(x_SLF)
    assert np.isnan(found[2])
    assert np.allclose(np.delete(found, 2), np.delete(whole, 2), atol=NEAR)
    assert np.array_equal(x_SLF, before, equal_nan=True)
    assert np.isnan(scorer.score(x_SLF[2:3])).all()
    assert scorer.score(x_SLF[:0]).shape == (0,)


def test_several_labels_are_several_columns(tmp_path: Path) -> None:
    trained = write_trained(tmp_path, SMALL, targets=("y_2", "y_5"))
    scorer = Scorer(trained, "tcn")
    assert scorer.targets == ("y_2", "y_5")
    assert scorer.score(windows_of(3)).shape == (3, 2)


def test_many_windows_take_no_more_memory_at_once(trained: Path) -> None:
    scorer, few, many = Scorer(trained, "transformer"), windows_of(2_000), windows_of(8_000)

    def peak(windows: np.ndarray) -> int:
        tracemalloc.start()
        scorer.score(windows)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(few)
    assert peak(many) < peak(few) + 6_000 * 4 * 2  # the scores themselves


def test_other_windows_are_refused(trained: Path) -> None:
    scorer = Scorer(trained, "lstm")
    with pytest.raises(DataError, match=r"expected windows \(S, 6, 5\) of feature_0, .*got \(2, 5, 5\)"):
        scorer.score(windows_of(2)[:, 1:])
    with pytest.raises(DataError, match=r"expected a model among .*, got 'forest'"):
        Scorer(trained, "forest")


def of_another_training(place: Path) -> None:
    write_json(place / "columns.json", {**read_json(place / "columns.json"), "features": ["feature_0"]})


def without_models(place: Path) -> None:
    for path in place.glob("*/best.pt"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [(of_another_training, StoreError, "one set of features"), (without_models, DataError, "expected a model in")],
)
def test_a_damaged_stage_is_named(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    trained = write_trained(tmp_path, SMALL)
    damage(trained / "fold-0")
    with pytest.raises(error, match=message):
        Scorer(trained, "lstm")
