"""An exported network takes raw windows, any number of them, and gives the scores of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from tests.trained_stage import write_trained
from training.export import export_all
from training.predict import predict_all
from training.quantise import PredictError
from training.score import Scorer
from training.section import NetworkName, PredictSection, TrainSection
from training.splits import SplitSection
from training.task import train_all

NEAR = 1e-5


@pytest.mark.parametrize(("names", "normalise"), [(("lstm",), "none"), (("tcn", "transformer"), "window")])
def test_exported_networks_score_raw_windows(tmp_path: Path, names: tuple[NetworkName, ...], normalise: Any) -> None:
    train = TrainSection(models=names, window=6, hidden_size=8, seeds=2, normalise=normalise)
    trained = write_trained(tmp_path / "train", train, targets=("y_2", "y_5"))
    far = export_all(trained, tmp_path)
    assert set(far) == set(names)
    assert {path.name for path in tmp_path.glob("*.pt2")} == {f"{name}.pt2" for name in names}
    x_SLF = 3 * np.random.default_rng(1).standard_normal((33, 6, 5), np.float32)
    x_SLF[3, :, 2] = 0.7  # a feature that does not move in its window
    for name in names:
        program = torch.export.load(tmp_path / f"{name}.pt2").module()
        expected = Scorer(trained, name).score(x_SLF)
        assert expected.std() > 1e-3
        for count in (1, 2, 33):
            got = program(torch.from_numpy(x_SLF[:count])).detach().numpy()
            assert np.abs(got - expected[:count]).max() <= NEAR


def test_a_program_of_another_model_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = write_trained(tmp_path / "train", TrainSection(models=("tcn",), window=6, hidden_size=8))
    monkeypatch.setattr(Scorer, "score", lambda self, x_SLF: x_SLF[:, 0, 0])
    with pytest.raises(PredictError, match=r"tcn.pt2 to give the scores of the model .* got a difference of \d"):
        export_all(trained, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_prediction_leaves_programs_where_asked(tmp_path: Path) -> None:
    features = write_blocks(tmp_path / "features", days=90, symbols=8)
    for name in ("train", "plain", "out"):
        (tmp_path / name).mkdir()
    train = TrainSection(models=("tcn",), window=4, hidden_size=8, num_epochs=1, windows_per_epoch=200, min_names=5)
    train_all(features, tmp_path / "train", SplitSection(), train, "cpu", silent)
    plain = predict_all(features, tmp_path / "train", tmp_path / "plain", PredictSection(), "cpu", silent)
    emit = Recorder()
    found = predict_all(features, tmp_path / "train", tmp_path / "out", PredictSection(export=True), "cpu", emit)
    assert not list((tmp_path / "plain").glob("*.pt2"))
    assert (tmp_path / "out" / "tcn.pt2").stat().st_size > 1000
    assert not (tmp_path / "out" / "ridge.pt2").exists()
    assert emit.said("tcn.pt2")
    assert found["content"] == plain["content"]
    code = (  # a program of torch alone
        "import sys, torch\n"
        "found = torch.export.load(sys.argv[1]).module()(torch.ones(2, 4, 5))\n"
        "assert not {'training', 'storage', 'pipeline'} & {name.split('.')[0] for name in sys.modules}\n"
        "print(repr(found[0, 0].item()))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out" / "tcn.pt2")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    expected = Scorer(tmp_path / "train", "tcn").score(np.ones((1, 4, 5), np.float32))[0]
    assert float(done.stdout) == pytest.approx(float(expected), abs=NEAR)
