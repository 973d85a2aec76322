"""Tasks on Dask workers, with what they tell on the way: how train and predict run."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from distributed import Client, Future, get_worker, wait

from pipeline.cluster import ClusterError
from pipeline.job import Job
from storage.emit import silent

_END = "end"
_LAST_WORDS_S = 2.0
_LOOK_S = 1.0  # between looks at whether named workers are still there


def on_worker(job: Job, name: str, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run work(emit, *arguments) on a worker with the resource `train`, forward its events, return its summary."""
    return on_workers(job, name, work, [arguments], [])


def on_workers(
    job: Job, name: str, work: Callable[..., dict[str, Any]], calls: list[tuple[Any, ...]], workers: list[str]
) -> dict[str, Any]:
    """Run one task for each call at once, each on its own worker where these are named; forward the events of
    the first and return its summary. An error of any, or a named worker that is gone (ClusterError), ends the others.
    """
    client = job.cluster.client()
    key = f"{name}-{uuid4().hex}"
    events: SimpleQueue[dict[str, Any]] = SimpleQueue()
    client.subscribe_topic(key, lambda event: events.put(event[1]))
    futures: list[Future[dict[str, Any]]] = [
        client.submit(
            _told if rank else job.measured(_told), work, "" if rank else key, call,
            key=f"{key}-{rank}" if rank else key, resources={"train": 1}, pure=False,
            workers=[workers[rank]] if workers else None, retries=0,
        )
        for rank, call in enumerate(calls)
    ]  # fmt: skip
    try:
        finished: float | None = None
        looked = time.monotonic()
        while finished is None or time.monotonic() - finished < _LAST_WORDS_S:
            try:
                event = events.get(timeout=0.1)
            except Empty:
                over = futures[0].done() or bool(_failed(futures))
                finished = finished or (time.monotonic() if over else None)
                if workers and not over and time.monotonic() - looked > _LOOK_S:
                    looked = time.monotonic()
                    _check_there(client, workers)
                continue
            if event["kind"] == _END:
                break  # the result follows at once; a worker that died first never gets here, and its task runs again
            job.emit(event["kind"], **event["fields"])
        if futures[0].status == "error" and workers:
            with contextlib.suppress(TimeoutError):
                wait(futures, timeout=_LAST_WORDS_S)  # its error may be no more than the echo of another's
        failed = sorted(_failed(futures), key=lambda future: isinstance(future.exception(), ClusterError))
        result: dict[str, Any] = (failed or futures)[0].result()
        return result
    finally:
        client.cancel([future for future in futures if not future.done()])
        client.unsubscribe_topic(key)


def _failed(futures: list[Future[dict[str, Any]]]) -> list[Future[dict[str, Any]]]:
    return [future for future in futures if future.status in ("error", "cancelled", "lost")]


def _check_there(client: Client, workers: list[str]) -> None:
    """Raise ClusterError when a worker is gone: its task would wait for it for ever."""
    found = client.scheduler_info(n_workers=-1)["workers"]
    for rank, address in enumerate(workers):
        if address not in found:
            raise lost(len(workers), f"rank {rank}, whose worker at {address} is gone")


def lost(count: int, what: str) -> ClusterError:
    """Return the error of ranks that cannot go on together."""
    return ClusterError(
        f"expected {count} workers to train together, lost {what}; see that they have enough memory and start the run "
        "again: it goes on from the last checkpoint"
    )


def gathered(client: Client, count: int) -> tuple[list[str], str]:
    """Return `count` workers that train and where they can meet, tcp://host:port of the first one. Raises ClusterError
    where there are fewer.
    """
    found = client.scheduler_info(n_workers=-1)["workers"]
    workers = sorted(address for address, worker in found.items() if "train" in worker["resources"])[:count]
    if len(workers) < count:
        raise ClusterError(
            f"expected {count} workers with the resource 'train' because train.ranks is {count}, got {len(workers)}; "
            f"start more, or --cluster.max_workers {count} for workers on this machine"
        )
    port = client.run(_free_port, workers=workers[:1])[workers[0]]
    return workers, f"tcp://{urlsplit(workers[0]).hostname}:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _told(work: Callable[..., dict[str, Any]], topic: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Run on a worker, sending events to the client under `topic`, none where that is empty."""
    if not topic:
        return work(silent, *arguments)
    worker = get_worker()

    def emit(kind: str, /, **fields: object) -> None:
        worker.log_event(topic, {"kind": kind, "fields": fields})

    try:
        return work(emit, *arguments)
    finally:
        emit(_END)
