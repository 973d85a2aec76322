"""What a batch takes is told from small ones; a real shortage of memory is met by smaller parts of the same step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from tests.fits import TINY, validated
from training.dataset import Dataset, prepare
from training.fit import fit_model
from training.memory import Peak, heap, release, touched
from training.section import NetworkName, TrainSection
from training.splits import SplitSection

WIDE: dict[str, Any] = {
    **TINY,
    "window": 16,
    "hidden_size": 64,
    "batch_size": 1024,
    "num_epochs": 1,
    "windows_per_epoch": 0,
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.fixture(scope="module")
def dataset(blocks: Path) -> Dataset:
    return prepare(blocks, SplitSection(), TrainSection(**WIDE), silent)


# Everything that training needs once is loaded first; then the process may map only so many bytes more. Without oneDNN,
# which maps code for each new shape and would run short of room for that instead.
SHORTAGE = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from storage.emit import silent
from tests.fits import TINY, validated
from training.dataset import prepare
from training.fit import fit_model
from training.section import TrainSection
from training.splits import SplitSection
from training.trainer import TooLarge

torch.backends.mkldnn.enabled = False
features, name, section, more = sys.argv[1:]
train = TrainSection.model_validate_json(section)
data = prepare(Path(features), SplitSection(), train, silent)
few = {"batch_size": 16, "windows_per_epoch": 32, "hidden_size": 16, "num_epochs": 1}
fit_model(name, data, train.model_copy(update=few), "cpu")
said = []

def emit(kind, /, **fields):
    if kind == "log":
        said.append(fields["text"])

limit = None
if int(more):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + (int(more) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
try:
    fit = fit_model(name, data, train, "cpu", emit)
    found = {"losses": [row["train_loss"] for row in fit.history]}
    found["scores"] = validated(fit, data, train.window).tolist()
except TooLarge as error:
    found = {"error": str(error)}
print(json.dumps({"said": said, **found}))
"""


def limited(root: Path, features: Path, name: str, train: TrainSection, more: int) -> dict[str, Any]:
    """Train in a process that gets `more` MiB beyond what it has at the start; 0 = no limit."""
    words = [str(features), name, train.model_dump_json(), str(more)]
    command = [sys.executable, "-c", SHORTAGE, *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=200)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("name", "more"), [("lstm", 40), ("tcn", 60), ("transformer", 90)])
def test_a_shortage_of_memory_halves_the_parts_and_keeps_the_step(
    root: Path, blocks: Path, dataset: Dataset, name: NetworkName, more: int
) -> None:
    train = TrainSection(**WIDE)
    short = limited(root, blocks, name, train, more)
    emit = Recorder()
    fit = fit_model(name, dataset, train, "cpu", emit)
    told = [text for text in short["said"] if "out of memory" in text]
    assert told[0] == "out of memory: 512 windows at a time from now on, 2 times a step, which keeps its 1024"
    assert not emit.said("out of memory")
    assert short["losses"] == pytest.approx([row["train_loss"] for row in fit.history], rel=1e-5)
    np.testing.assert_allclose(short["scores"], validated(fit, dataset, 16), atol=1e-4)


@pytest.mark.parametrize("more", [60, 250])
def test_a_network_that_is_too_large_is_refused_with_advice(root: Path, blocks: Path, more: int) -> None:
    """Its weights take 100 MB: two copies do not fit, or gradients and moments do not."""
    train = TrainSection(**{**WIDE, "hidden_size": 1024, "batch_size": 4, "windows_per_epoch": 64})
    found = limited(root, blocks, "transformer", train, more)
    assert "expected 1 windows of 16 bars to fit into memory" in found["error"]
    assert "train.hidden_size" in found["error"] and "train.recompute" in found["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="pages are looked at on Linux")
def test_pages_that_were_never_written_take_no_memory() -> None:
    half, page = 32 << 20, 2 << 20  # the largest that the system may give at once
    release(torch.device("cpu"))  # a hole of the heap may serve
    values = torch.empty(2 * half, dtype=torch.uint8)
    assert touched(values.untyped_storage()) <= 2 * page
    values[:half] = 1
    assert touched(values.untyped_storage()) == pytest.approx(half, abs=2 * page)


def test_the_peak_counts_each_storage_once_while_it_lives() -> None:
    a = torch.zeros(1_000)
    with Peak() as peak:
        b = a + 1
        view = b.view(10, 100)
        c = b * 2
        del b
        d = c + 1  # b lives on in its view
        del view, c
        a.sqrt()
    del d
    assert peak.sizes == [4_000] * 4
    assert peak.most(peak.sizes) == 12_000
    assert peak.events == [0, 1, 2, ~0, ~1, 3, ~3, ~2]


def test_large_blocks_count_once_and_small_ones_with_the_holes_of_the_heap() -> None:
    """A storage of 1 MB that does not grow, one of 100 KB a window of which half is touched; both live together."""
    few, more = Peak(), Peak()
    for peak, windows in ((few, 16), (more, 64)):
        peak.events = [0, 1, ~0, ~1]
        peak.sizes = [1_000_000, 100_000 * windows]
        peak.touched = [1_000_000, 50_000 * windows]
    assert heap(few, more, 128) == pytest.approx(1.8 * (1_000_000 + 50_000 * 128))
    assert heap(few, more, 1_024) == pytest.approx(1.8 * 1_000_000 + 50_000 * 1_024)
