"""The stages train and predict on a real Dask worker, also when that worker or its client is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster import Cluster, ClusterSection
from pipeline.job import Job
from pipeline.learn.predict import predict
from pipeline.learn.train import train
from storage.emit import silent
from tests.clients import killed_client
from tests.feature_blocks import Recorder, write_blocks
from training.columns import DataError
from training.section import PredictSection, TrainSection
from training.splits import SplitSection

SECTION = TrainSection(
    window=4, hidden_size=16, num_epochs=8, windows_per_epoch=2000, batch_size=32, patience=0, dropout=0.2, threads=1
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(ClusterSection(device="cpu", threads=2)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, features: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what an undisturbed training leaves, with its folder and events."""
    out, emit = tmp_path_factory.mktemp("train"), Recorder()
    job = Job(out, {"features": features}, cluster, emit)
    return {"result": train(job, SplitSection(), SECTION), "out": out, "emit": emit}


def test_train_and_predict_leave_files_and_small_summaries(
    cluster: Cluster, features: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert whole["result"]["models"] == ["ridge", "lstm"]
    assert len(whole["result"]["content"]) == 32
    job = Job(tmp_path, {"features": features, "train": whole["out"]}, cluster, silent)
    result = predict(job, PredictSection())
    assert result["metrics"]["lstm"]["test"]["mean_rank_ic"] > 0.3
    tables = {"predictions.parquet", "ic.parquet", "deciles.parquet"}
    assert {p.name for p in tmp_path.iterdir()} == {*tables, "metrics.json"}


def test_events_of_the_worker_reach_the_client_in_order(whole: dict[str, Any]) -> None:
    emit: Recorder = whole["emit"]
    epochs = [f for f in emit.of("epoch") if f["model"] == "lstm"]
    assert [e["epoch"] for e in epochs] == list(range(8))
    assert all(e["samples_per_s"] > 0 for e in epochs)
    assert emit.of("progress")[-1]["done"] == 8 * 2000
    assert emit.said("lstm on cpu, 1 threads")
    assert emit.of("epoch")[0]["model"] == "ridge"
    assert [kind for kind, _ in emit.events[-2:]] == ["epoch", "progress"]


def test_an_error_on_the_worker_is_the_client_s(cluster: Cluster, features: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, {"features": features}, cluster, silent)
    with pytest.raises(DataError, match=r"train\.targets among y_2 .* got 'y_9'"):
        train(job, SplitSection(), SECTION.model_copy(update={"targets": ("y_9",)}))


def test_threads_of_the_worker_are_what_the_section_says(cluster: Cluster, features: Path, tmp_path: Path) -> None:
    emit = Recorder()
    job = Job(tmp_path, {"features": features}, cluster, emit)
    train(job, SplitSection(), SECTION.model_copy(update={"threads": 2, "num_epochs": 1}))
    assert emit.said("2 threads")
    assert cluster.client().submit(_torch_threads, pure=False).result() == 1  # what the nanny left


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def test_a_killed_worker_changes_nothing(
    cluster: Cluster, features: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    killed: list[int] = []

    def emit(kind: str, /, **fields: Any) -> None:
        if kind == "epoch" and fields["epoch"] == 3 and not killed:
            pid = next(iter(cluster.client().run(os.getpid).values()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    result = train(Job(tmp_path, {"features": features}, cluster, emit), SplitSection(), SECTION)
    assert killed
    assert result == whole["result"]


CLIENT = """
import sys
from pathlib import Path
from pipeline.cluster import Cluster, ClusterSection
from pipeline.job import Job
from pipeline.learn.train import train
from training.section import TrainSection
from training.splits import SplitSection

if __name__ == "__main__":
    def emit(kind, /, **fields):
        if kind == "epoch":
            print(fields["epoch"], flush=True)
    with Cluster(ClusterSection(device="cpu", threads=2)) as cluster:
        job = Job(Path(sys.argv[1]), {"features": Path(sys.argv[2])}, cluster, emit)
        train(job, SplitSection(), TrainSection.model_validate_json(sys.argv[3]))
"""


def test_a_killed_client_goes_on_where_it_was(
    cluster: Cluster, features: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "train"
    killed_client(CLIENT, tmp_path, out, features, SECTION.model_dump_json(), last="2")
    emit = Recorder()
    job = Job(out, {"features": features}, cluster, emit)
    result = train(job, SplitSection(), SECTION)
    assert emit.said("goes on in epoch")
    assert result == whole["result"]
