"""One task on a Dask worker, with what it tells on the way: how train and predict run."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any
from uuid import uuid4

from distributed import get_worker

from pipeline.job import Job

_END = "end"
_LAST_WORDS_S = 2.0


def on_worker(job: Job, name: str, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
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


def _told(work: Callable[..., dict[str, Any]], topic: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Run on a worker, sending events to the client under `topic`."""
    worker = get_worker()

    def emit(kind: str, /, **fields: object) -> None:
        worker.log_event(topic, {"kind": kind, "fields": fields})

    try:
        return work(emit, *arguments)
    finally:
        emit(_END)
