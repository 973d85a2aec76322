"""The stage that scores windows with trained models, on a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.job import Job
from storage.emit import Emit
from training.section import PredictSection

from .worker import on_worker


def predict(job: Job, predict: PredictSection) -> dict[str, Any]:
    """Score validation and test windows with the models of job.inputs["train"]."""
    return on_worker(
        job, "predict", _predict, job.inputs["features"], job.inputs["train"], job.out, predict, job.cluster.device
    )


def _predict(
    emit: Emit, features: Path, trained: Path, out: Path, section: PredictSection, device: str
) -> dict[str, Any]:
    from training.predict import predict_all

    return predict_all(features, trained, out, section, device, emit)
