"""Models come from their seed, see the past alone, and leave nothing behind but their file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import write_blocks
from tests.fits import NETWORKS, SHORT
from training.dataset import Dataset, prepare
from training.fit import fit_model
from training.model import build, load_model, save_model, state_digest
from training.model.network import Network
from training.model.ridge import Ridge
from training.model.tcn import TCN
from training.model.trees import Trees
from training.section import ModelName, NetworkName, TrainSection
from training.splits import SplitSection

TRAIN = TrainSection(window=6, hidden_size=8, heads=2, layers=2)


def network(name: NetworkName, dropout: float = 0.0, seed: int = 7, heads: int = 2) -> Network:
    built: Network = build(name, {"n_features": 3, "n_heads": heads, **TRAIN.shape(name)}, dropout, seed)
    return built


def windows(count: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 6, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    features = write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)
    return prepare(features, SplitSection(), TrainSection(**SHORT), silent)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_built_from_their_seed_alone(name: NetworkName) -> None:
    torch.manual_seed(5)
    one = network(name)
    torch.manual_seed(6)
    assert state_digest(one) == state_digest(network(name))
    assert state_digest(one) != state_digest(network(name, seed=8))
    before = torch.get_rng_state()
    one.train()
    one.dropout = 0.5
    one(windows())
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator was used"


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_comes_from_the_generator_of_the_network_and_not_in_evaluation(name: NetworkName) -> None:
    model = network(name, dropout=0.5)
    model.eval()
    assert torch.equal(model(windows()), model(windows()))
    model.train()
    model.random.manual_seed(1)
    first = model(windows())
    assert not torch.equal(first, model(windows()))
    torch.manual_seed(99)
    model.random.manual_seed(1)
    assert torch.equal(first, model(windows()))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_score_depends_on_its_own_window_and_on_every_bar_of_it(name: NetworkName) -> None:
    model, x_BLF = network(name).eval(), windows()
    score_BH = model(x_BLF)
    assert score_BH.shape == (5, 2)
    for bar in range(6):
        other = x_BLF.clone()
        other[2, bar] += 1.0
        moved = (model(other) - score_BH).abs().amax(dim=1).detach()
        assert float(moved[2]) > 1e-5
        assert float(moved[[0, 1, 3, 4]].max()) == 0.0


def test_no_state_of_a_tcn_sees_later_bars() -> None:
    model, x_BLF = network("tcn"), windows()
    assert isinstance(model, TCN)
    reached = []
    for bar in range(6):
        other = x_BLF.clone()
        other[:, bar] += 1.0
        a, b = (model.inlet(x).transpose(1, 2) for x in (x_BLF, other))
        for layer in model.layers:
            a, b = layer(a, None), layer(b, None)
            assert torch.equal(a[:, :, :bar], b[:, :, :bar])
        reached.append(int((a != b).any(dim=(0, 1)).sum()))
    assert reached == [6, 5, 4, 3, 2, 1], "each state sees itself and, over two layers of kernel 3, six bars back"


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("name", NETWORKS)
def test_recomputing_gives_the_same_bits(name: NetworkName, dropout: float) -> None:
    found = []
    for recompute in (False, True):
        model = network(name, dropout=dropout).train()
        model.recompute = recompute
        loss = model(windows(64)).square().sum()
        loss.backward()
        gradients = [p.grad for p in model.parameters()]
        found.append((loss.detach(), gradients, model.random.get_state()))
    (loss, gradients, state), (again, gradients_again, state_again) = found
    assert torch.equal(loss, again)
    assert torch.equal(state, state_again)
    for one, two in zip(gradients, gradients_again, strict=True):
        assert one is not None
        assert two is not None
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputing_does_not_change_a_training(dataset: Dataset, name: NetworkName) -> None:
    train = TrainSection(**SHORT, dropout=0.3, layers=2)
    plain, again = (
        fit_model(name, dataset, train.model_copy(update={"recompute": asked}), "cpu") for asked in (False, True)
    )
    assert state_digest(plain.model) == state_digest(again.model)


@pytest.mark.parametrize("name", ["ridge", "trees", *NETWORKS])
def test_a_model_comes_back_from_its_file(dataset: Dataset, tmp_path: Path, name: ModelName) -> None:
    train = TrainSection(**SHORT, normalise="window", max_gap_days=9)
    model = fit_model(name, dataset, train, "cpu").model.eval()
    save_model(tmp_path / "x.pt", name, model, train)
    loaded = load_model(tmp_path / "x.pt")
    assert (loaded.window, loaded.normalise, loaded.max_gap_days) == (4, name in NETWORKS, 9)
    assert loaded.model.shape() == model.shape()  # type: ignore[operator]
    assert state_digest(loaded.model) == state_digest(model)
    x_BLF = torch.from_numpy(np.random.default_rng(1).standard_normal((7, 4, 5)).astype(np.float32))
    with torch.no_grad():
        assert torch.equal(loaded.model(x_BLF), model(x_BLF))


def test_ridge_equals_the_textbook_for_each_head() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((500, 4)).astype(np.float32) + 2, random.standard_normal((500, 2)).astype(np.float32)
    rows = np.arange(0, 500, 2)
    y[rows[:40], 1] = np.nan
    model = Ridge(4, 2).fit(x, y, rows, rows[:0], TrainSection(ridge_penalty=0.3))
    for h, used in ((0, rows), (1, rows[40:])):
        wide = np.hstack([x[used].astype(np.float64), np.ones((len(used), 1))])
        penalty = np.diag([0.3 * len(used)] * 4 + [0.0])
        expected = np.linalg.solve(wide.T @ wide + penalty, wide.T @ y[used, h])
        np.testing.assert_allclose(model.weight[:, h].numpy(), expected[:4], rtol=1e-5)
        np.testing.assert_allclose(float(model.bias[h]), expected[4], rtol=1e-4)


def forest_data() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.standard_normal((4000, 4)).astype(np.float32)
    y = (x[:, :2] + random.standard_normal((4000, 2))).astype(np.float32)
    return x, y


def test_trees_are_the_same_bits_whatever_the_threads_and_leave_out_unknown_labels() -> None:
    pytest.importorskip("lightgbm")
    x, y = forest_data()
    rows, judged = np.arange(3000), np.arange(3000, 4000)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            found.append(state_digest(Trees(4, 2).fit(x, y, rows, judged, TrainSection())))
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1
    assert state_digest(Trees(4, 2).fit(x, y, rows, judged, TrainSection(seed=1))) != found[0]
    y[::3, 1] = np.nan
    known, known_judged = (part[np.isfinite(y[part, 1])] for part in (rows, judged))
    both = Trees(4, 2).fit(x, y, rows, judged, TrainSection())
    alone = Trees(4, 1).fit(x, y[:, 1:], known, known_judged, TrainSection())
    x_BLF = torch.from_numpy(x[:50, None])
    assert torch.equal(both(x_BLF)[:, 1], alone(x_BLF)[:, 0])
    assert np.corrcoef(both(torch.from_numpy(x[:, None]))[:, 0].numpy(), x[:, 0])[0, 1] > 0.9


WITHOUT = """
import sys
from pathlib import Path
sys.modules["lightgbm"] = None  # what an import finds where it is not installed
from storage.emit import silent
from training.columns import DataError
from training.section import TrainSection
from training.splits import SplitSection
from training.task import train_all
try:
    section = TrainSection(models=("lstm", "trees"))
    train_all(Path(sys.argv[1]), Path(sys.argv[2]), SplitSection(), section, "cpu", silent)
except DataError as error:
    print(error)
"""


def test_without_lightgbm_the_command_that_installs_it_is_said_first(root: Path, tmp_path: Path) -> None:
    features, out = write_blocks(tmp_path / "features"), tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", WITHOUT, str(features), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert "pip install -e '.[trees]'" in ran.stdout
    assert not list(out.iterdir())


def test_a_transformer_has_a_place_for_every_bar_of_its_window() -> None:
    model = network("transformer")
    assert model.shape()["window"] == 6
    with pytest.raises(ValueError, match=r"multiple of train\.heads, got 9 and 2"):
        TrainSection(models=("transformer",), hidden_size=9, heads=2)
    backwards = windows().flip(1)
    assert not torch.allclose(model.eval()(backwards), model(windows()), atol=1e-4)
