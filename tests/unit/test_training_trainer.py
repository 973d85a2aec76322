"""Models find what is planted and nothing else, and a step is what its settings say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from tests.fits import NETWORKS, SHORT, TINY, loop_of, test_rank_ic, validated
from training.checkpoint import load
from training.dataset import Dataset, prepare
from training.fit import fit_model
from training.judge import scores
from training.model import load_model, state_digest
from training.section import ModelName, NetworkName, TrainSection
from training.splits import TRAIN, VALID, SplitSection
from training.task import train_all
from training.trainer import TrainingDiverged
from training.windows import Windows

ATTAINABLE = 0.1 / np.hypot(0.1, 0.2)  # correlation of feature_3 and the label
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.fixture(scope="module")
def dataset(blocks: Path) -> Dataset:
    return prepare(blocks, SplitSection(), TrainSection(**TINY), silent)


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((n, "rank") for n in ("ridge", *NETWORKS)), *((n, k) for n in ("ridge", "lstm") for k in ("excess", "return"))],
)
def test_a_planted_signal_is_found(blocks: Path, name: ModelName, kind: Any) -> None:
    train = TrainSection(**TINY, target_kind=kind)
    data = prepare(blocks, SplitSection(), train, silent)
    fit = fit_model(name, data, train, "cpu")
    assert test_rank_ic(fit, data) > 0.7 * ATTAINABLE
    assert fit.best["valid_rank_ic"] > 0.7 * ATTAINABLE


@pytest.mark.parametrize(("loss", "share"), [("huber", 0.7), ("ic", 0.7), ("rank", 0.7), ("bce", 0.6)])
def test_every_loss_finds_the_planted_signal(dataset: Dataset, loss: Any, share: float) -> None:
    """The sign of a target, which is all that bce sees, tells less than the target."""
    fit = fit_model("tcn", dataset, TrainSection(**TINY, loss=loss), "cpu")
    assert test_rank_ic(fit, dataset) > share * ATTAINABLE


@pytest.mark.parametrize("name", ["ridge", *NETWORKS])
def test_shuffled_labels_teach_nothing(tmp_path: Path, name: ModelName) -> None:
    found = []
    for seed in range(10):
        features = write_blocks(tmp_path / str(seed), days=100, signal=0.1, noise=0.2, seed=seed)
        train = TrainSection(**SHORT, seed=seed, shuffle_labels=True)
        data = prepare(features, SplitSection(), train, silent)
        found.append(test_rank_ic(fit_model(name, data, train, "cpu"), data))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert np.std(found) > 0.001


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(dataset: Dataset, name: NetworkName) -> None:
    train = TrainSection(**SHORT, dropout=0.2)
    torch.manual_seed(1)
    one = fit_model(name, dataset, train, "cpu")
    torch.manual_seed(2)
    two = fit_model(name, dataset, train, "cpu")
    other = fit_model(name, dataset, train.model_copy(update={"seed": 1}), "cpu")
    assert state_digest(one.model) == state_digest(two.model)
    assert state_digest(one.model) != state_digest(other.model)


def test_the_layout_of_blocks_does_not_change_a_result(tmp_path: Path, dataset: Dataset) -> None:
    moved = write_blocks(tmp_path, signal=0.1, noise=0.2, groups=5, layout=2)
    train = TrainSection(**SHORT)
    there = prepare(moved, SplitSection(), train, silent)
    names: tuple[ModelName, ...] = ("ridge", "trees", *NETWORKS)
    for name in names:
        here = fit_model(name, dataset, train, "cpu")
        assert state_digest(fit_model(name, there, train, "cpu").model) == state_digest(here.model)


@pytest.mark.parametrize("name", NETWORKS)
def test_accumulated_batches_equal_one_large_batch(dataset: Dataset, name: NetworkName) -> None:
    common = {**TINY, "num_epochs": 1, "dropout": 0.0, "windows_per_epoch": 1100}
    large = fit_model(name, dataset, TrainSection(**{**common, "batch_size": 256}), "cpu")
    small = fit_model(name, dataset, TrainSection(**common, gradient_accumulation_steps=4), "cpu")
    other = fit_model(name, dataset, TrainSection(**common), "cpu")
    assert small.history[0]["train_loss"] == pytest.approx(large.history[0]["train_loss"], rel=1e-5)
    one, two, three = (validated(fit, dataset) for fit in (large, small, other))
    np.testing.assert_allclose(one, two, atol=2e-4)
    assert float(np.abs(one - three).max()) > 1e-2


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_of_parts_add_up_to_those_of_the_batch(dataset: Dataset, name: NetworkName) -> None:
    def gradients(size: int, parts: int) -> dict[str, torch.Tensor]:
        settings = {**TINY, "dropout": 0.0, "batch_size": size, "gradient_accumulation_steps": parts}
        loop = loop_of(name, dataset, TrainSection(**settings))
        (step,) = loop.plan.steps(loop.plan.order(0)[:256], loop.micro)
        assert [len(part) for part in step.parts] == [size] * parts
        loop._gradients(loop.windows.batches(step.parts), parts, step.weight / step.windows)
        return {name: weights.grad for name, weights in loop.model.named_parameters() if weights.grad is not None}

    whole, summed = gradients(256, 1), gradients(64, 4)
    assert whole.keys() == summed.keys()
    most = max(float(one.abs().max()) for one in whole.values())
    assert most > 1e-3
    for key, one in whole.items():
        torch.testing.assert_close(summed[key], one, rtol=1e-4, atol=1e-6 * most)


def test_the_mean_of_a_batch_of_any_size_weighs_windows_alike(dataset: Dataset) -> None:
    """1100 windows in batches of 256 leave one of 76: its windows must not count more than others."""
    small = {"num_epochs": 1, "windows_per_epoch": 1100, "batch_size": 256, "learning_rate": 1e-12}
    train = TrainSection(**{**TINY, **small}, dropout=0.0)
    loop = loop_of("lstm", dataset, train)
    before = {k: v.clone() for k, v in loop.model.state_dict().items()}
    loss = loop._one_epoch()["train_loss"]
    loop.model.load_state_dict(before)
    order = np.random.default_rng([train.seed, 0]).permutation(loop.plan.ends_W)[:1100]
    errors = (scores(loop.model, loop.windows, order) - dataset.target_NH[order]) ** 2
    assert loss == pytest.approx(float(errors.mean()), rel=1e-5)


def test_training_stops_when_validation_does_not_improve(dataset: Dataset) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 40, "learning_rate": 0.3, "windows_per_epoch": 200}, patience=2)
    fit = fit_model("lstm", dataset, train, "cpu")
    assert len(fit.history) < 40
    assert len(fit.history) == fit.best_epoch + 1 + 2
    assert fit.best["valid_rank_ic"] == max(row["valid_rank_ic"] for row in fit.history)
    by_loss = fit_model("lstm", dataset, train.model_copy(update={"early_stopping": "loss"}), "cpu")
    assert by_loss.best["valid_loss"] == min(row["valid_loss"] for row in by_loss.history)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_best_epoch_is_what_is_kept(dataset: Dataset, tmp_path: Path, name: NetworkName) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 6, "learning_rate": 0.1}, patience=0)
    fit = fit_model(name, dataset, train, "cpu", out=tmp_path)
    loop = loop_of(name, dataset, train)
    assert loop.judge(scores(fit.model, loop.windows, loop.judge.ends_W))[1] == fit.best["valid_rank_ic"]
    loaded = load_model(tmp_path / "best.pt")
    assert (loaded.window, loaded.normalise) == (4, False)
    assert state_digest(loaded.model) == state_digest(fit.model)


def test_events_tell_epochs_and_progress(dataset: Dataset) -> None:
    emit = Recorder()
    fit_model("lstm", dataset, TrainSection(**{**TINY, "num_epochs": 2}), "cpu", emit)
    epochs = emit.of("epoch")
    assert [e["epoch"] for e in epochs] == [0, 1]
    assert {"model", "train_loss", "valid_loss", "valid_rank_ic"} <= epochs[0].keys()
    assert all(e["samples_per_s"] == pytest.approx(2000 / e["seconds"], rel=0.5) for e in epochs)
    assert emit.said("memory forecast:")
    last = emit.of("progress")[-1]
    assert last["done"] == last["total"] == 4000


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(dataset: Dataset, tmp_path: Path) -> None:
    loop = loop_of("lstm", dataset, TrainSection(**{**TINY, "num_epochs": 3}), tmp_path)
    head: Any = loop.model.head

    def poison(epoch: int, figure: float) -> None:
        with torch.no_grad():
            head.bias.fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match=r"step 1 of epoch 1 is not; the last good .*learning_rate"):
        loop.run(poison)
    assert all(torch.isfinite(p).all() for p in load_model(tmp_path / "best.pt").model.parameters())
    last = load(tmp_path / "last.pt")
    assert (last["epoch"], last["cursor"]) == (1, 0)
    assert all(torch.isfinite(values).all() for values in last["weights"].values())


def test_weights_that_are_no_numbers_are_never_kept(dataset: Dataset, tmp_path: Path) -> None:
    """A gradient can be NaN while the loss is not: only the next step would show it."""
    loop = loop_of("lstm", dataset, TrainSection(**TINY, checkpoint_s=1e-9), tmp_path)
    head: Any = loop.model.head
    head.bias.register_hook(lambda gradient: gradient * (np.nan if loop.cursor == 320 else 1.0))
    with pytest.raises(TrainingDiverged, match="the weights after step 6 of epoch 0 are not"):
        loop.run()
    last = load(tmp_path / "last.pt")
    assert last["cursor"] == 320
    assert all(torch.isfinite(values).all() for values in last["weights"].values())


def test_labels_that_only_one_head_misses_count_as_nothing(tmp_path: Path) -> None:
    """The second label ends later: its last rows are not known while those of the first are."""
    features = write_blocks(tmp_path, horizons=(2, 5), signal=0.1, noise=0.05, days=120)
    train = TrainSection(**TINY, targets=("y_2", "y_5"))
    data = prepare(features, SplitSection(), train, silent)
    ends_W = data.windows(TRAIN, train)
    data.target_NH[ends_W[::2], 1] = np.nan
    names: tuple[ModelName, ...] = ("ridge", *NETWORKS)
    for name in names:
        fit = fit_model(name, data, train, "cpu")
        judged = scores(fit.model, Windows(data.panel.x_NF, 4, "cpu"), ends_W)
        assert judged.shape == (len(ends_W), 2)
        assert all(np.corrcoef(judged[:, h], data.panel.x_NF[ends_W, 3])[0, 1] > 0.9 for h in (0, 1))


def test_seeds_give_networks_of_their_own(blocks: Path, tmp_path: Path) -> None:
    train = TrainSection(**SHORT, seeds=2, seed=5, models=("tcn",))
    told = train_all(blocks, tmp_path, SplitSection(), train, "cpu", silent)
    assert [fit["seed"] for fit in told["metrics"]["tcn"]["fits"]] == [5, 6]
    weights = [load_model(tmp_path / "fold-0" / f"tcn-{seed}" / "best.pt").model for seed in (5, 6)]
    assert [state_digest(model) for model in weights] == [fit["weights"] for fit in told["metrics"]["tcn"]["fits"]]
    assert state_digest(weights[0]) != state_digest(weights[1])
    (tmp_path / "alone").mkdir()
    alone = train_all(
        blocks, tmp_path / "alone", SplitSection(), train.model_copy(update={"seed": 6, "seeds": 1}), "cpu", silent
    )
    assert alone["metrics"]["tcn"]["fits"][0]["weights"] == state_digest(weights[1])


@pytest.mark.parametrize("precision", [pytest.param(p, marks=needs_gpu) for p in ("off", "auto", "bf16", "fp16")])
def test_a_gpu_finds_the_planted_signal(dataset: Dataset, precision: Any, tmp_path: Path) -> None:
    train = TrainSection(**{**TINY, "mixed_precision": precision})
    fit = fit_model("lstm", dataset, train, "gpu", out=tmp_path)
    assert fit.best["valid_rank_ic"] > 0.3
    assert fit_model("lstm", dataset, train, "gpu", out=tmp_path).history == fit.history


def test_a_validation_without_rank_ic_is_said_and_ends_by_patience(dataset: Dataset) -> None:
    flat = replace(dataset, target_NH=np.where((dataset.split_N == VALID)[:, None], 1.0, dataset.target_NH))
    emit = Recorder()
    train = TrainSection(**{**TINY, "num_epochs": 6, "windows_per_epoch": 200}, patience=2)
    fit = fit_model("lstm", flat, train, "cpu", emit)
    assert emit.said("the validation has no rank IC")
    assert (fit.best_epoch, len(fit.history)) == (0, 3)
