"""One network on several Dask workers: the same training, and a clear end when one of them is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.cluster import Cluster, ClusterError, ClusterSection
from pipeline.job import Job
from pipeline.learn.train import train
from storage.emit import silent
from tests.feature_blocks import Recorder, write_blocks
from tests.fits import TINY, assert_same_state
from training.checkpoint import load
from training.section import TrainSection
from training.splits import SplitSection

SECTION = TrainSection(**{**TINY, "num_epochs": 3}, models=("lstm",), dropout=0.0, min_names=10, patience=0)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), signal=0.1, noise=0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(ClusterSection(device="cpu", max_workers=2, threads=2)) as cluster:
        yield cluster


def run(cluster: Cluster, features: Path, out: Path, section: TrainSection, emit: Any = silent) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return train(Job(out, {"features": features}, cluster, emit), SplitSection(), section)


def curve(out: Path, column: str, model: str = "lstm") -> list[float]:
    return [row[column] for row in pq.read_table(out / "history.parquet").to_pylist() if row["model"] == model]


def of_ranks(count: int, **values: Any) -> TrainSection:
    return SECTION.model_copy(update={"ranks": count, **values})


@pytest.fixture(scope="module")
def whole(cluster: Cluster, features: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what an undisturbed training on two ranks leaves, with dropout."""
    out, emit = tmp_path_factory.mktemp("ranks"), Recorder()
    return {
        "result": run(cluster, features, out, of_ranks(2, dropout=0.3, num_epochs=6), emit),
        "out": out,
        "emit": emit,
    }


def test_two_ranks_learn_what_one_does(cluster: Cluster, features: Path, tmp_path: Path) -> None:
    """2000 windows in steps of 64 leave a last one of 16, and 1985 one of a single window: a rank has none then."""
    for windows in (2000, 1985):
        places = [tmp_path / f"{windows}-{ranks}" for ranks in (1, 2)]
        found = [
            run(cluster, features, out, of_ranks(ranks, windows_per_epoch=windows))
            for ranks, out in enumerate(places, 1)
        ]
        for figure in ("train_loss", "valid_loss", "learning_rate"):
            one, two = (curve(out, figure) for out in places)
            assert two == pytest.approx(one, rel=1e-6)
        one, two = (curve(out, "valid_rank_ic") for out in places)
        assert two == pytest.approx(one, abs=1e-4)
        assert found[0]["models"] == found[1]["models"]
        assert curve(places[0], "valid_rank_ic", "ridge") == curve(places[1], "valid_rank_ic", "ridge")


def test_only_the_first_rank_tells(whole: dict[str, Any]) -> None:
    epochs = [fields["epoch"] for fields in whole["emit"].of("epoch") if fields["model"] == "lstm"]
    assert epochs == list(range(6))


def pids(cluster: Cluster) -> list[int]:
    """Return the workers' processes in the order of their ranks."""
    return [pid for _, pid in sorted(cluster.client().run(os.getpid).items())]


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_lost_rank_ends_the_stage_at_once_and_the_next_run_goes_on(
    cluster: Cluster, features: Path, whole: dict[str, Any], tmp_path: Path, victim: int
) -> None:
    killed: list[float] = []

    def emit(kind: str, /, **fields: Any) -> None:
        if kind == "epoch" and fields["model"] == "lstm" and fields["epoch"] == 2 and not killed:
            os.kill(pids(cluster)[victim], signal.SIGKILL)
            killed.append(time.monotonic())

    section = of_ranks(2, dropout=0.3, num_epochs=6, checkpoint_s=0.01)
    with pytest.raises(ClusterError, match=r"expected 2 workers to train together, lost .*start the run again"):
        run(cluster, features, tmp_path, section, emit)
    assert time.monotonic() - killed[0] < 15
    assert load(tmp_path / "fold-0" / "lstm-0" / "last.pt")["epoch"] >= 3
    again = Recorder()
    cluster.client().wait_for_workers(2, timeout=30)
    result = run(cluster, features, tmp_path, section, again)
    assert again.said("goes on in epoch")
    assert result == whole["result"]
    assert_same_state(*(out / "fold-0" / "lstm-0" / "last.pt" for out in (whole["out"], tmp_path)))


def test_too_few_workers_are_told_how_to_become_more(cluster: Cluster, features: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"train\.ranks is 3, got 2; start more, or --cluster\.max_workers 3"):
        run(cluster, features, tmp_path, of_ranks(3))


@pytest.mark.parametrize("loss", ["ic", "rank"])
def test_losses_that_compare_want_one_rank(loss: str) -> None:
    with pytest.raises(ValidationError, match=rf"train\.ranks of 1 for train\.loss {loss}"):
        TrainSection(ranks=2, loss=loss)
