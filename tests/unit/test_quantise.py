"""Fewer bits give nearly the same scores, and the gate refuses them where they do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.emit import silent
from storage.store import read_json
from tests.feature_blocks import Recorder, write_blocks
from tests.trained_stage import write_trained
from training.metrics import make_sections
from training.precision import PrecisionError, check_scoring
from training.predict import predict_all
from training.quantise import PredictError, gate, quantised
from training.score import Learned
from training.section import PredictSection, TrainSection
from training.splits import SplitSection
from training.task import train_all

NETWORKS = ("lstm", "tcn", "transformer")
TRAIN = TrainSection(
    models=NETWORKS, window=4, hidden_size=16, num_epochs=2, windows_per_epoch=2000, batch_size=64, threads=1,
    learning_rate=1e-2, min_names=10,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.05), ("bf16", 0.05)])
def test_scores_are_nearly_the_same(tmp_path: Path, name: str, precision: str, bound: float) -> None:
    train = TrainSection(models=NETWORKS, window=20, hidden_size=32)
    exact = Learned.read(write_trained(tmp_path, train) / "fold-0").ensemble(name)
    other = quantised(exact, precision, CPU)
    x_BLF = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 20, 5), np.float32))
    with torch.inference_mode():
        expected, got = exact(x_BLF), other(x_BLF)
    assert got.dtype == torch.float32
    far = float((got - expected).std() / expected.std())
    assert 0 < far < bound
    weights = [value for value in exact.state_dict().values() if value.is_floating_point()]
    assert all(value.dtype == torch.float32 for value in weights), "the float32 model must stay what it was"


@pytest.mark.parametrize("name", NETWORKS)
def test_an_int8_score_depends_on_its_own_window_alone(tmp_path: Path, name: str) -> None:
    exact = Learned.read(write_trained(tmp_path, TrainSection(models=NETWORKS, window=20)) / "fold-0").ensemble(name)
    other = quantised(exact, "int8", CPU)
    x_BLF = torch.from_numpy(np.random.default_rng(1).standard_normal((64, 20, 5), np.float32))
    with torch.inference_mode():
        before = other(x_BLF)
        x_BLF[32:] *= 1e4
        torch.testing.assert_close(other(x_BLF)[:32], before[:32], rtol=0, atol=0)
        assert not torch.equal(other(x_BLF)[32:], before[32:])


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("stages")
    features = write_blocks(root / "features", signal=0.1, noise=0.2)
    (root / "train").mkdir()
    train_all(features, root / "train", SplitSection(kind="walk_forward", folds=2), TRAIN, "cpu", silent)
    return features, root / "train"


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_prediction_judges_each_fold_and_says_so(stages: tuple[Path, Path], tmp_path: Path, precision: Any) -> None:
    section, emit = PredictSection(precision=precision, max_ic_loss=0.05, min_names=10), Recorder()
    plain = predict_all(*stages, tmp_path, PredictSection(min_names=10), "cpu", silent)
    found = predict_all(*stages, tmp_path, section, "cpu", emit)
    assert "precision" not in plain["metrics"]
    told = read_json(tmp_path / "metrics.json")["precision"]
    assert (told["is"], told["max_ic_loss"]) == (precision, 0.05)
    assert [(one["fold"], one["model"]) for one in told["gates"]] == [(k, name) for k in (0, 1) for name in NETWORKS]
    for one in told["gates"]:
        assert one["float32"] > 0.2
        assert one["float32"] - one[precision] <= 0.05
        assert one["windows"] > 100
    first = told["gates"][0]
    assert first["float32"] == pytest.approx(plain["metrics"]["lstm"]["valid"]["mean_rank_ic"], abs=1e-6)
    whole = found["metrics"]["lstm"]["valid"]["mean_rank_ic"]  # scored in other batches
    assert first[precision] == pytest.approx(whole, abs=0.002)
    assert found["precision"] == precision
    assert emit.said("validation rank IC")
    assert found["content"] != plain["content"]
    assert found["metrics"]["ridge"] == plain["metrics"]["ridge"], "a baseline stays float32"


def test_a_prediction_that_loses_too_much_fails(stages: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        PredictError, match=r"expected (lstm|tcn|transformer) in .* to lose at most 0 .* got 0\.\d+ against 0\.\d+"
    ):
        for precision in ("int8", "bf16"):  # rounding costs the one or the other something
            predict_all(*stages, tmp_path, PredictSection(precision=precision, max_ic_loss=0), "cpu", silent)
    assert not (tmp_path / "predictions.parquet").exists()


def test_the_gate_is_at_its_bound() -> None:
    random = np.random.default_rng(0)
    y_W = random.standard_normal(400).astype(np.float32)
    exact = (y_W + random.standard_normal(400)).astype(np.float32)
    worse = (exact + 0.5 * random.standard_normal(400)).astype(np.float32)
    sections = make_sections(np.repeat(np.arange(20), 20), 10)
    told = gate("lstm", "int8", (exact, worse), y_W, sections, 1.0)
    lost = told["float32"] - told["int8"]
    assert lost > 0.005
    assert gate("lstm", "int8", (exact, worse), y_W, sections, lost + 1e-9) == told
    with pytest.raises(PredictError, match=f"{told['int8']:.4f} against {told['float32']:.4f}"):
        gate("lstm", "int8", (exact, worse), y_W, sections, lost - 1e-9)
    assert gate("lstm", "int8", (worse, exact), y_W, sections, 0.0)["int8"] == told["float32"], "a gain is no loss"
    with pytest.raises(PredictError, match="got nan against"):
        gate("lstm", "int8", (exact, np.zeros_like(exact)), y_W, sections, 1.0)


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("int4", "cpu", "expected a GPU because predict.precision is 'int4', got a CPU"),
        ("fp16", "cpu", "expected a GPU because predict.precision is 'fp16', got a CPU"),
        ("int8", "gpu", "expected a CPU because predict.precision is 'int8', got a GPU"),
    ],
)
def test_a_device_that_cannot_is_named(
    stages: tuple[Path, Path], tmp_path: Path, precision: Any, device: str, message: str
) -> None:
    section = PredictSection(precision=precision)
    with pytest.raises(PrecisionError, match=message):
        check_scoring(section, device)
    with pytest.raises(PrecisionError, match=message):
        predict_all(*stages, tmp_path, section, device, silent)


def test_a_missing_package_is_named_with_the_command() -> None:
    code = (
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torchao' else found(name, *rest)\n"
        "from training.precision import check_scoring\n"
        "from training.section import PredictSection\n"
        "check_scoring(PredictSection(precision='int4'), 'gpu')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install -e '.[quantise]'" in done.stderr
