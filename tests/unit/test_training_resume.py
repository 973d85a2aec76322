"""Training that is killed anywhere goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from tests.fits import NETWORKS, TINY, assert_same_state, loop_of
from training.checkpoint import CheckpointError, before, load, save
from training.dataset import Dataset, prepare
from training.fit import Fit, fit_model
from training.model import load_model, state_digest
from training.resume import resume
from training.section import TrainSection
from training.splits import SplitSection
from training.task import train_all

SETTINGS: dict[str, Any] = {**TINY, "num_epochs": 3, "windows_per_epoch": 450, "dropout": 0.3, "patience": 0}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.fixture(scope="module")
def dataset(blocks: Path) -> Dataset:
    return prepare(blocks, SplitSection(), TrainSection(**SETTINGS), silent)


# Children of one process that has imported everything are killed one after another; the last one comes to the end.
# Each says when it begins to train a network, so that it is training, or writing a checkpoint, when it dies.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np, torch
from training.checkpoint import load
from training.gather import gather
from training.section import TrainSection
from training.splits import SplitSection
from training.task import train_all

features, out, train, longest, kills = sys.argv[1:]
gather(np.zeros((4, 1), np.float32), np.array([3]), np.empty((1, 4, 1), np.float32), normalise=False, threads=1)
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports for seconds
out, draw, found, died = Path(out), random.Random(3), [], 0
while True:
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        def emit(kind, /, **fields):
            if kind == "log" and "memory forecast" in fields["text"] and died < int(kills):
                os.write(tell, b"x")
        section = TrainSection.model_validate_json(train)
        result = train_all(Path(features), out, SplitSection(), section, "cpu", emit)
        print(json.dumps(result), flush=True)
        os._exit(0)
    os.close(tell)
    if died < int(kills):
        for _ in range(1 + died % 3):
            os.read(hear, 1)
        time.sleep(draw.uniform(0, float(longest)))
        os.kill(child, signal.SIGKILL)
    os.close(hear)
    if (status := os.waitpid(child, 0)[1]) != signal.SIGKILL:
        break
    died += 1
    for path in out.glob("fold-0/*/last*.pt"):
        value = load(path)  # whole, whenever the writer died
        found.append([value["epoch"], value["cursor"]])
print(json.dumps([died, found]))
sys.exit(status)
"""


@pytest.mark.parametrize(("checkpoint_s", "longest"), [(1e-9, 0.15), pytest.param(300.0, 0.1, marks=pytest.mark.slow)])
def test_a_training_killed_at_random_moments_ends_with_the_same_bits(
    blocks: Path, tmp_path: Path, root: Path, checkpoint_s: float, longest: float
) -> None:
    train = TrainSection(**SETTINGS, models=NETWORKS, checkpoint_s=checkpoint_s)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = train_all(blocks, tmp_path / "whole", SplitSection(), train.model_copy(update={"checkpoint_s": 1e9}), "cpu",
                      silent)  # fmt: skip
    words = [str(blocks), str(tmp_path / "killed"), train.model_dump_json(), str(longest), "10"]
    command = [sys.executable, "-c", KILLER, *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert ran.returncode == 0, ran.stderr
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    died, found = said[-1]
    assert died >= 2
    assert any(cursor for _, cursor in found) == (checkpoint_s < 1)
    assert said[0] == json.loads(json.dumps(whole))
    for name in NETWORKS:
        one, two = (tmp_path / d / "fold-0" / f"{name}-0" for d in ("whole", "killed"))
        assert_same_state(one / "last.pt", two / "last.pt")
        assert state_digest(load_model(one / "best.pt").model) == state_digest(load_model(two / "best.pt").model)


class Stop(Exception):
    pass


def stopped(dataset: Dataset, out: Path, train: TrainSection, after: int = 1) -> None:
    """Train up to the end of an epoch."""

    def on_epoch(epoch: int, figure: float) -> None:
        if epoch == after:
            raise Stop

    with pytest.raises(Stop):
        fit_model("lstm", dataset, train, "cpu", out=out, on_epoch=on_epoch)


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fit]:
    out = tmp_path_factory.mktemp("whole")
    return out, fit_model("lstm", dataset, TrainSection(**SETTINGS), "cpu", out=out)


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(
    dataset: Dataset, whole: tuple[Path, Fit], tmp_path: Path
) -> None:
    stopped(dataset, tmp_path, TrainSection(**SETTINGS))
    halve(tmp_path / "last.pt")
    emit = Recorder()
    again = fit_model("lstm", dataset, TrainSection(**SETTINGS), "cpu", emit, tmp_path)
    assert emit.said(f"lstm: expected a checkpoint of tensors at {tmp_path / 'last.pt'}")
    assert emit.said("lstm goes on in epoch 1 after 0 windows")
    for path in (tmp_path / "last.pt", before(tmp_path / "last.pt")):
        load(path)  # the damaged one has not taken the place of a good one
    assert again.summary() == whole[1].summary()
    assert_same_state(whole[0] / "last.pt", tmp_path / "last.pt")


def test_with_both_damaged_training_starts_again_and_says_so(
    dataset: Dataset, whole: tuple[Path, Fit], tmp_path: Path
) -> None:
    stopped(dataset, tmp_path, TrainSection(**SETTINGS))
    halve(tmp_path / "last.pt")
    before(tmp_path / "last.pt").write_bytes(b"")
    emit = Recorder()
    fit_model("lstm", dataset, TrainSection(**SETTINGS), "cpu", emit, tmp_path)
    assert emit.said("last.pt") and emit.said("last-before.pt")
    assert emit.said("lstm starts again: no checkpoint is left")
    assert_same_state(whole[0] / "last.pt", tmp_path / "last.pt")


def test_a_finished_training_is_found_again(dataset: Dataset, whole: tuple[Path, Fit]) -> None:
    emit = Recorder()
    again = fit_model("lstm", dataset, TrainSection(**SETTINGS), "cpu", emit, whole[0])
    assert not emit.of("epoch")
    assert again.history == whole[1].history
    assert state_digest(again.model) == state_digest(whole[1].model)


def test_a_best_epoch_whose_file_was_not_yet_written_is_written(dataset: Dataset, tmp_path: Path) -> None:
    """last.pt is written first: a kill in between must not leave the best weights of an earlier epoch."""
    train = TrainSection(**SETTINGS)
    stopped(dataset, tmp_path, train, after=0)
    early = (tmp_path / "best.pt").read_bytes()
    stopped(dataset, tmp_path, train, after=1)
    assert load(tmp_path / "last.pt")["best_epoch"] == 1
    (tmp_path / "best.pt").write_bytes(early)
    expected = load(tmp_path / "last.pt")["best_weights"]
    loop = loop_of("lstm", dataset, train, tmp_path)
    resume(loop)
    found = load_model(tmp_path / "best.pt").model.state_dict()
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_a_checkpoint_of_other_settings_is_not_continued(dataset: Dataset, tmp_path: Path) -> None:
    train = TrainSection(**SETTINGS)
    stopped(dataset, tmp_path, train)
    emit = Recorder()
    other = train.model_copy(update={"learning_rate": 0.002})
    again = fit_model("lstm", dataset, other, "cpu", emit, tmp_path)
    assert emit.said("is of other data or settings")
    assert state_digest(again.model) == state_digest(fit_model("lstm", dataset, other, "cpu").model)


def test_settings_that_change_no_result_do_not_hinder_resuming(
    dataset: Dataset, whole: tuple[Path, Fit], tmp_path: Path
) -> None:
    stopped(dataset, tmp_path, TrainSection(**SETTINGS, checkpoint_s=1.0))
    emit = Recorder()
    fit_model("lstm", dataset, TrainSection(**SETTINGS, checkpoint_s=2.0), "cpu", emit, tmp_path)
    assert emit.said("goes on in epoch 2")
    assert_same_state(whole[0] / "last.pt", tmp_path / "last.pt")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"version": 2, "evil": Evil()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="checkpoint of tensors"):
        load(tmp_path / "x.pt")
    save(tmp_path / "ok.pt", {"a": torch.ones(2), "b": [1, 2.5, "c"]})
    assert load(tmp_path / "ok.pt")["b"] == [1, 2.5, "c"]
    torch.save({"version": 99}, tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match="version 2"):
        load(tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        load(tmp_path / "gone.pt")


def test_damage_anywhere_is_a_checkpoint_error(whole: tuple[Path, Fit], tmp_path: Path) -> None:
    content = (whole[0] / "last.pt").read_bytes()
    draw, expected = random.Random(0), load(whole[0] / "last.pt")["weights"]
    for _ in range(60):
        cut = content[: draw.randrange(len(content))]
        (tmp_path / "x.pt").write_bytes(cut)
        with pytest.raises(CheckpointError):
            load(tmp_path / "x.pt")
    for _ in range(200):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 30))):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        (tmp_path / "x.pt").write_bytes(bytes(changed))
        try:
            found = load(tmp_path / "x.pt")
        except CheckpointError:
            continue
        assert all(torch.equal(found["weights"][k], expected[k]) for k in expected), "only padding may change unseen"
