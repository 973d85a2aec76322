"""The stages train, predict and tune: each hands its work to Dask workers and forwards what they tell.

Training code is imported where it runs, on the worker: importing torch takes longer than a whole run that reuses
everything.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

import pyarrow as pa
import yaml
from distributed import get_worker

from storage.emit import Emit
from storage.schema import content_digest
from storage.store import replacing, write_parquet
from training.section import PredictSection, SearchSection, TrainSection
from training.splits import SplitSection

from .job import Job

BEST = "best.yaml"
_END = "end"
_LAST_WORDS_S = 2.0


def train(job: Job, split: SplitSection, train: TrainSection) -> dict[str, Any]:
    """Fit the models on the features of job.inputs["features"]; after a kill it goes on from the last epoch.

    Where job.inputs["tune"] is given, the best settings of that search take the place of those in `train`.
    """
    if "tune" in job.inputs:
        best = yaml.safe_load((job.inputs["tune"] / BEST).read_text(encoding="utf-8"))["train"]
        train = TrainSection(**{**train.model_dump(), **best})
        job.emit("log", level="info", text=f"settings of the search: {best}")
    return _on_worker(job, "train", _train, job.inputs["features"], job.out, split, train, job.cluster.device)


def predict(job: Job, predict: PredictSection) -> dict[str, Any]:
    """Score validation and test windows with the models of job.inputs["train"]."""
    return _on_worker(
        job, "predict", _predict, job.inputs["features"], job.inputs["train"], job.out, predict, job.cluster.device
    )


def tune(job: Job, split: SplitSection, train: TrainSection, search: SearchSection) -> dict[str, Any]:
    """Search settings of training; leaves trials.parquet and best.yaml, which a next run takes with --config.

    A study is found again by its name: started once more it goes on where it was. ValueError when the space does not
    fit train.*.
    """
    from storage.studies import StudyAddress
    from training.search.objective import TrainingObjective
    from training.search.study import Search, SearchError

    search.check(train)
    address = StudyAddress.choose(job.out / "study.journal", search.storage_url_env)
    name = search.study_name or job.out.name
    job.emit("log", level="info", text=f"study '{name}' in {address}")
    objective = TrainingObjective(job.inputs["features"], split, train, search.model, job.cluster.device)
    study = Search(job.cluster.client(), address, name, search, objective, job.emit).run()
    table = _trials(study.get_trials(deepcopy=False))
    write_parquet(job.out / "trials.parquet", table)
    try:
        best = study.best_trial
    except ValueError as error:
        states = dict(Counter(table.column("state").to_pylist()))
        raise SearchError(f"expected at least one complete trial, got {states}; the log has their errors") from error
    with replacing(job.out / BEST) as temporary:
        temporary.write_text(yaml.safe_dump({"train": best.params}), encoding="utf-8")
    return {
        "content": content_digest(table, ("number",)),
        "rows": table.num_rows,
        "pruned": table.column("state").to_pylist().count("PRUNED"),
        "best": {"value": best.value, "params": best.params, "number": best.number},
    }


def _train(
    emit: Emit, features: Path, out: Path, split: SplitSection, train: TrainSection, device: str
) -> dict[str, Any]:
    from training.task import train_all

    return train_all(features, out, split, train, device, emit)


def _predict(
    emit: Emit, features: Path, trained: Path, out: Path, section: PredictSection, device: str
) -> dict[str, Any]:
    from training.predict import predict_all

    return predict_all(features, trained, out, section, device, emit)


def _told(work: Callable[..., dict[str, Any]], topic: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Run on a worker, sending events to the client under `topic`."""
    worker = get_worker()

    def emit(kind: str, /, **fields: object) -> None:
        worker.log_event(topic, {"kind": kind, "fields": fields})

    try:
        return work(emit, *arguments)
    finally:
        emit(_END)


def _on_worker(job: Job, name: str, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run one task on a worker with the resource `train`, forward its events, return its summary."""
    client = job.cluster.client()
    key = f"{name}-{uuid4().hex}"
    events: SimpleQueue[dict[str, Any]] = SimpleQueue()
    client.subscribe_topic(key, lambda event: events.put(event[1]))
    future = client.submit(_told, work, key, arguments, key=key, resources={"train": 1}, pure=False)
    try:
        finished: float | None = None
        while finished is None or time.monotonic() - finished < _LAST_WORDS_S:
            try:
                event = events.get(timeout=0.1)
            except Empty:
                finished = finished or (time.monotonic() if future.done() else None)
                continue
            if event["kind"] == _END:
                break  # the result follows at once; a worker that died first never gets here, and its task runs again
            job.emit(event["kind"], **event["fields"])
        result: dict[str, Any] = future.result()
        return result
    finally:
        if not future.done():
            future.cancel()
        client.unsubscribe_topic(key)


def _trials(trials: list[Any]) -> pa.Table:
    rows = [
        {
            "number": t.number,
            "slot": int(t.user_attrs.get("slot", t.number)),
            "attempt": int(t.user_attrs.get("attempt", 0)),
            "state": "VOID" if "void" in t.user_attrs else t.state.name,
            "value": t.value,
            "steps": len(t.intermediate_values),
            "params": yaml.safe_dump(t.params, default_flow_style=True).strip(),
        }
        for t in trials
    ]
    kinds = [
        ("number", pa.int64()),
        ("slot", pa.int64()),
        ("attempt", pa.int64()),
        ("state", pa.string()),
        ("value", pa.float64()),
    ]
    return pa.Table.from_pylist(rows, pa.schema([*kinds, ("steps", pa.int64()), ("params", pa.string())]))
