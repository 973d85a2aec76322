"""The stage that fits models, on a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.job import Job
from storage.emit import Emit
from training.precision import settled
from training.section import TrainSection
from training.splits import SplitSection

from . import BEST
from .worker import gathered, lost, on_worker, on_workers


def train(job: Job, split: SplitSection, train: TrainSection) -> dict[str, Any]:
    """Fit the models on the features of job.inputs["features"]; after a kill it goes on from the last epoch.

    Where job.inputs["tune"] is given, the best settings of that search take the place of those in `train`.
    """
    if "tune" in job.inputs:
        best = yaml.safe_load((job.inputs["tune"] / BEST).read_text(encoding="utf-8"))["train"]
        train = TrainSection(**{**train.model_dump(), **best})
        job.emit("log", level="info", text=f"settings of the search: {best}")
    asked, train = train.mixed_precision, settled(train, job.cluster.device)
    if asked == "auto":
        text = f"train.mixed_precision auto is {train.mixed_precision} on this {job.cluster.device}"
        job.emit("log", level="info", text=text)
    call = (job.inputs["features"], job.out, split, train, job.cluster.device)
    if train.ranks == 1:
        return on_worker(job, "train", _train, *call)
    workers, address = gathered(job.cluster.client(), train.ranks)
    calls = [(*call, rank, address) for rank in range(train.ranks)]
    return on_workers(job, "train", _train, calls, workers)


def _train(
    emit: Emit,
    features: Path,
    out: Path,
    split: SplitSection,
    train: TrainSection,
    device: str,
    rank: int = 0,
    address: str = "",
) -> dict[str, Any]:
    from training.parallel import RankLost, ranks
    from training.task import train_all

    try:
        with ranks(rank, train.ranks, address, device) as group:
            return train_all(features, out, split, train, device, emit, group)
    except RankLost as error:
        raise lost(train.ranks, f"the connection of rank {rank}: {error}") from error
