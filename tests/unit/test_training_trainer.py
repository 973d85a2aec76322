"""Models find what is planted and nothing else; training goes on after a kill as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from training.data import Resident, known, window_ends
from training.dataset import Dataset, prepare
from training.metrics import make_sections, mean_rank_ic
from training.model import CheckpointError, build, load, load_model, save, state_digest
from training.model.ridge import Ridge
from training.precision import BF16_UNITS, PrecisionError
from training.section import ModelName, TrainSection
from training.splits import TEST, TRAIN, SplitSection
from training.task import train_all
from training.trainer import Fit, Loop, TrainingDiverged, choose_precision, fit_model, scores, torch_threads

TINY: dict[str, Any] = {
    "window": 4,
    "hidden_size": 8,
    "num_epochs": 4,
    "windows_per_epoch": 2000,
    "batch_size": 64,
    "learning_rate": 1e-2,
    "threads": 1,
}
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.fixture(scope="module")
def dataset(blocks: Path) -> Dataset:
    return prepare(blocks, SplitSection(), TrainSection(**TINY), silent)


def test_ic_of(fit: Fit, data: Dataset, window: int = 4) -> float:
    """Return the mean rank IC on the test rows."""
    ends = window_ends(data.panel, known(data.panel.x_NF), window)
    ends = ends[(data.split_N[ends] == TEST) & np.isfinite(data.panel.y_N[ends])]
    found = scores(fit.model, Resident(data.panel.x_NF, window, "cpu"), ends)
    return mean_rank_ic(found, data.panel.y_N[ends], make_sections(data.panel.ts_N[ends], 10))


test_ic_of.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["ridge", "lstm"])
@pytest.mark.parametrize("kind", ["rank", "excess", "return"])
def test_a_planted_signal_is_found(blocks: Path, name: ModelName, kind: Any) -> None:
    train = TrainSection(**TINY, target_kind=kind)
    data = prepare(blocks, SplitSection(), train, silent)
    fit = fit_model(name, data, train, "cpu")
    attainable = 0.1 / np.hypot(0.1, 0.2)  # correlation of feature_3 and the label
    assert test_ic_of(fit, data) > 0.7 * attainable
    assert fit.best["valid_rank_ic"] > 0.7 * attainable


@pytest.mark.parametrize("name", ["ridge", "lstm"])
def test_shuffled_labels_teach_nothing(tmp_path: Path, name: ModelName) -> None:
    found = []
    for seed in range(10):
        features = write_blocks(tmp_path / str(seed), days=100, signal=0.1, noise=0.2, seed=seed)
        train = TrainSection(**{**TINY, "num_epochs": 2, "windows_per_epoch": 1000}, seed=seed, shuffle_labels=True)
        data = prepare(features, SplitSection(), train, silent)
        found.append(test_ic_of(fit_model(name, data, train, "cpu"), data))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert np.std(found) > 0.001


def test_ridge_equals_the_textbook() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((500, 4)).astype(np.float32) + 2, random.standard_normal(500).astype(np.float32)
    rows = np.arange(0, 500, 2)
    model = Ridge(4).fit(x, y, rows, 0.3)
    wide = np.hstack([x[rows].astype(np.float64), np.ones((250, 1))])
    penalty = np.diag([0.3 * 250] * 4 + [0.0])
    expected = np.linalg.solve(wide.T @ wide + penalty, wide.T @ y[rows])
    np.testing.assert_allclose(model.weight.numpy(), expected[:4], rtol=1e-5)
    np.testing.assert_allclose(float(model.bias), expected[4], rtol=1e-4)


def test_the_same_seed_gives_the_same_bits_and_another_one_others(dataset: Dataset) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 2})
    torch.manual_seed(1)
    one = fit_model("lstm", dataset, train, "cpu")
    torch.manual_seed(2)
    two = fit_model("lstm", dataset, train, "cpu")
    other = fit_model("lstm", dataset, train.model_copy(update={"seed": 1}), "cpu")
    assert state_digest(one.model) == state_digest(two.model)
    assert state_digest(one.model) != state_digest(other.model)


def test_the_layout_of_blocks_does_not_change_a_result(tmp_path: Path, blocks: Path, dataset: Dataset) -> None:
    moved = write_blocks(tmp_path, signal=0.1, noise=0.2, groups=5, layout=2)
    train = TrainSection(**{**TINY, "num_epochs": 2})
    there = prepare(moved, SplitSection(), train, silent)
    for name in ("lstm", "ridge"):
        here = fit_model(name, dataset, train, "cpu")
        assert state_digest(fit_model(name, there, train, "cpu").model) == state_digest(here.model)


def test_accumulated_batches_equal_one_large_batch(dataset: Dataset) -> None:
    common = {**TINY, "num_epochs": 1, "dropout": 0.0, "mixed_precision": "off", "windows_per_epoch": 1100}
    large = fit_model("lstm", dataset, TrainSection(**{**common, "batch_size": 256}), "cpu")
    small = fit_model(
        "lstm", dataset, TrainSection(**{**common, "batch_size": 64}, gradient_accumulation_steps=4), "cpu"
    )
    other = fit_model("lstm", dataset, TrainSection(**{**common, "batch_size": 64}), "cpu")
    assert small.history[0]["train_loss"] == pytest.approx(large.history[0]["train_loss"], rel=1e-5)
    one, two, three = (
        torch.cat([p.detach().flatten() for p in fit.model.parameters()]) for fit in (large, small, other)
    )
    assert float((one - two).abs().max()) < 1e-4
    assert float((one - three).abs().max()) > 1e-2


def test_the_mean_of_a_batch_of_any_size_weighs_windows_alike(dataset: Dataset) -> None:
    """1100 windows in batches of 256 leave one of 76: its windows must not count more than others."""
    train = TrainSection(
        **{
            **TINY,
            "num_epochs": 1,
            "dropout": 0.0,
            "windows_per_epoch": 1100,
            "learning_rate": 1e-12,
            "mixed_precision": "off",
        }
    )
    loop = Loop(dataset, train.model_copy(update={"batch_size": 256}), "cpu", silent, None)
    before = {k: v.clone() for k, v in loop.model.state_dict().items()}
    loss = loop._train_epoch()
    loop.model.load_state_dict(before)
    order = np.random.default_rng([train.seed, 0]).permutation(loop.ends_W)[:1100]
    errors = (scores(loop.model, loop.resident, order) - dataset.target_N[order]) ** 2
    assert loss == pytest.approx(float(errors.mean()), rel=1e-5)


def test_each_epoch_draws_other_windows_and_none_twice(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []
    real = Resident.batch

    def batch(self: Resident, end_B: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            drawn[-1].extend(end_B.tolist())
        return real(self, end_B)

    monkeypatch.setattr(Resident, "batch", batch)
    for seed in (0, 1):
        loop = Loop(dataset, TrainSection(**{**TINY, "windows_per_epoch": 500}, seed=seed), "cpu", silent, None)
        for loop.epoch in range(3):
            drawn.append([])
            loop._train_epoch()
    assert all(len(set(d)) == len(d) == 500 for d in drawn)
    assert len({tuple(d) for d in drawn}) == 6
    assert len(set().union(*drawn)) > 1500
    assert set().union(*drawn) <= set(loop.ends_W.tolist())


def test_training_stops_when_validation_does_not_improve(dataset: Dataset) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 40, "learning_rate": 0.3, "windows_per_epoch": 200}, patience=2)
    fit = fit_model("lstm", dataset, train, "cpu")
    assert len(fit.history) < 40
    assert len(fit.history) == fit.best_epoch + 1 + 2
    assert fit.best["valid_rank_ic"] == max(row["valid_rank_ic"] for row in fit.history)
    by_loss = fit_model("lstm", dataset, train.model_copy(update={"early_stopping": "loss"}), "cpu")
    assert by_loss.best["valid_loss"] == min(row["valid_loss"] for row in by_loss.history)


def test_the_best_epoch_is_what_is_kept(dataset: Dataset, tmp_path: Path) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 6, "learning_rate": 0.1}, patience=0)
    fit = fit_model("lstm", dataset, train, "cpu", out=tmp_path)
    loop = Loop(dataset, train, "cpu", silent, None)
    found = scores(fit.model, loop.resident, loop.judge.ends_W)
    assert loop.judge(found)[1] == fit.best["valid_rank_ic"]
    model, window = load_model(tmp_path / "best.pt")
    assert window == 4
    assert state_digest(model) == state_digest(fit.model)


def test_events_tell_epochs_and_progress(dataset: Dataset) -> None:
    emit = Recorder()
    fit_model("lstm", dataset, TrainSection(**{**TINY, "num_epochs": 2}), "cpu", emit)
    epochs = emit.of("epoch")
    assert [e["epoch"] for e in epochs] == [0, 1]
    assert {"model", "train_loss", "valid_loss", "valid_rank_ic", "samples_per_s", "seconds"} <= epochs[0].keys()
    last = emit.of("progress")[-1]
    assert last["done"] == last["total"] == 4000


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(dataset: Dataset, tmp_path: Path) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 3})
    loop = Loop(dataset, train, "cpu", silent, tmp_path)

    def poison(epoch: int, figure: float) -> None:
        if epoch == 0:
            with torch.no_grad():
                loop.model.head.bias.fill_(float("nan"))

    with pytest.raises(
        TrainingDiverged,
        match=r"step 0 of epoch 1 is not; the last good epoch is kept in "
        ".*learning_rate",
    ):
        loop.run(poison)
    model, _ = load_model(tmp_path / "best.pt")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert load(tmp_path / "last.pt")["epoch"] == 1


KILLED = """
import sys, time
from pathlib import Path
from training.section import TrainSection
from training.splits import SplitSection
from training.task import train_all

def emit(kind, /, **fields):
    if kind == "epoch":
        print(fields["model"], fields["epoch"], flush=True)

train = TrainSection.model_validate_json(sys.argv[3])
train_all(Path(sys.argv[1]), Path(sys.argv[2]), SplitSection(), train, "cpu", emit)
"""


def test_a_killed_training_ends_with_the_same_bits(blocks: Path, tmp_path: Path, root: Path) -> None:
    train = TrainSection(
        **{**TINY, "num_epochs": 6, "dropout": 0.3, "windows_per_epoch": 3000}, patience=0, models=("lstm",)
    )
    whole = train_all(blocks, tmp_path / "whole", SplitSection(), train, "cpu", silent)
    command = [sys.executable, "-c", KILLED, str(blocks), str(tmp_path / "killed"), train.model_dump_json()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split()[1] == "2":
            time.sleep(0.01)  # in the middle of the next epoch
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert load(tmp_path / "killed" / "lstm" / "last.pt")["epoch"] in (3, 4)
    emit = Recorder()
    resumed = train_all(blocks, tmp_path / "killed", SplitSection(), train, "cpu", emit)
    assert emit.said("goes on after epoch")
    assert resumed == whole
    one, two = (load(tmp_path / d / "lstm" / "last.pt") for d in ("whole", "killed"))
    for key in ("weights", "best_weights"):
        assert all(torch.equal(one[key][k], two[key][k]) for k in one[key])
    assert torch.equal(one["random"], two["random"])
    for a, b in zip(one["optimizer"]["state"].values(), two["optimizer"]["state"].values()):
        assert all(torch.equal(a[k], b[k]) for k in a)
    figures = [
        [{k: r[k] for k in ("train_loss", "valid_loss", "valid_rank_ic")} for r in v["history"]] for v in (one, two)
    ]
    assert figures[0] == figures[1]


def test_a_checkpoint_of_other_settings_is_not_continued(dataset: Dataset, tmp_path: Path) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 2})
    fit_model("lstm", dataset, train, "cpu", out=tmp_path)
    emit = Recorder()
    other = train.model_copy(update={"learning_rate": 0.002})
    again = fit_model("lstm", dataset, other, "cpu", emit, tmp_path)
    assert emit.said("is of other data or settings")
    assert state_digest(again.model) == state_digest(fit_model("lstm", dataset, other, "cpu").model)


def test_a_damaged_checkpoint_is_named_and_training_starts_again(dataset: Dataset, tmp_path: Path) -> None:
    train = TrainSection(**{**TINY, "num_epochs": 2})
    whole = fit_model("lstm", dataset, train, "cpu", out=tmp_path)
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    emit = Recorder()
    again = fit_model("lstm", dataset, train, "cpu", emit, tmp_path)
    assert emit.said("lstm starts again: expected a checkpoint of tensors at")
    assert state_digest(again.model) == state_digest(whole.model)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"version": 1, "evil": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="checkpoint of tensors"):
        load(tmp_path / "x.pt")
    save(tmp_path / "ok.pt", {"a": torch.ones(2), "b": [1, 2.5, "c"]})
    assert load(tmp_path / "ok.pt")["b"] == [1, 2.5, "c"]
    torch.save({"version": 99}, tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match="version 1"):
        load(tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        load(tmp_path / "gone.pt")


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1) as count:
        assert torch.get_num_threads() == count == before + 1
    assert torch.get_num_threads() == before
    with torch_threads(0) as count:
        assert count == len(os.sched_getaffinity(0))
    with pytest.raises(KeyError), torch_threads(before + 2):
        raise KeyError
    assert torch.get_num_threads() == before


def test_precision_is_chosen_by_hardware_and_said(dataset: Dataset) -> None:
    auto = TrainSection()
    asked = {name: auto.model_copy(update={"mixed_precision": name}) for name in ("off", "bf16", "fp16")}
    assert choose_precision(asked["off"], "cpu")[0] is None
    assert choose_precision(asked["bf16"], "cpu")[0] is torch.bfloat16
    with pytest.raises(PrecisionError, match=r"GPU because train\.mixed_precision is 'fp16'"):
        choose_precision(asked["fp16"], "cpu")
    native = any(torch.cpu.get_capabilities().get(n) for n in BF16_UNITS)
    chosen, reason = choose_precision(auto, "cpu")
    assert (chosen is torch.bfloat16) == native
    emit = Recorder()
    fit_model(
        "lstm",
        dataset,
        TrainSection(**{**TINY, "num_epochs": 1}),
        "cpu",
        emit,
    )
    assert emit.said(reason)


def test_half_precision_stays_near_float32(dataset: Dataset) -> None:
    full, half = (
        fit_model("lstm", dataset, TrainSection(**{**TINY, "num_epochs": 2}, mixed_precision=m), "cpu")
        for m in ("off", "bf16")
    )
    assert half.best["valid_rank_ic"] == pytest.approx(full.best["valid_rank_ic"], abs=0.03)
    assert half.history[-1]["train_loss"] == pytest.approx(full.history[-1]["train_loss"], rel=0.05)


@pytest.mark.parametrize("precision", [pytest.param(p, marks=needs_gpu) for p in ("off", "auto", "bf16", "fp16")])
def test_a_gpu_finds_the_planted_signal(dataset: Dataset, precision: Any, tmp_path: Path) -> None:
    train = TrainSection(**TINY, mixed_precision=precision)
    fit = fit_model("lstm", dataset, train, "gpu", out=tmp_path)
    assert fit.best["valid_rank_ic"] > 0.3
    again = fit_model("lstm", dataset, train, "gpu", out=tmp_path)
    assert again.history == fit.history


def test_models_are_built_from_their_seed_alone() -> None:
    torch.manual_seed(5)
    one = build("lstm", 3, 8, 0.1, 7)
    torch.manual_seed(6)
    assert state_digest(one) == state_digest(build("lstm", 3, 8, 0.1, 7))
    assert state_digest(one) != state_digest(build("lstm", 3, 8, 0.1, 8))
    x = torch.randn(5, 4, 3)
    one.eval()
    assert torch.equal(one(x), one(x))
    one.train()
    assert not torch.equal(one(x), one(x))


def test_training_never_looks_at_the_test(dataset: Dataset) -> None:
    loop = Loop(dataset, TrainSection(**TINY), "cpu", silent, None)
    assert set(dataset.split_N[loop.ends_W].tolist()) == {TRAIN}
    seen = np.concatenate([loop.ends_W, loop.judge.ends_W])
    assert not (dataset.split_N[seen] == TEST).any()
    assert dataset.panel.ts_N[seen].max() < dataset.splits.test_start
