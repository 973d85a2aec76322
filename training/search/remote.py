"""What runs away from the client: beside the storage on the scheduler, and around one trial on a worker.

Optuna's DaskStorage keeps one storage on the scheduler and lets workers call it there. Three things are added to it:
its calls run on threads, so that a slow storage does not hold up the scheduler; a report and the pruner's answer are
one round trip; and a task claims its trial before it runs, so that a task that Dask silently runs again, because its
worker died, does not run the trial twice.
"""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import Any

import optuna
from distributed import Scheduler
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna_integration.dask import DaskStorage
from optuna_integration.dask.dask import _register_with_scheduler

from storage.studies import StudyAddress, open_storage

_THREADS = 4
_EXTENSION = "search"


@dataclass(frozen=True)
class Outcome:
    """Say how a trial ended: complete with a value, pruned, failed, or lost (somebody else has it)."""

    state: str
    value: float | None = None


Objective = Callable[["Handle"], float]


def install(
    dask_scheduler: Scheduler, address: StudyAddress, name: str, study_name: str, pruner: optuna.pruners.BasePruner
) -> None:
    """Open the storage on the scheduler under `name` and add the handlers `optuna_report` and `optuna_claim`."""
    _register_with_scheduler(dask_scheduler, open_storage(address), name)
    studies = dask_scheduler.extensions.setdefault(_EXTENSION, {})
    storage = dask_scheduler.extensions["optuna"].storages[name]
    sampler = optuna.samplers.RandomSampler()
    studies[name] = (optuna.load_study(study_name=study_name, storage=storage, sampler=sampler, pruner=pruner), set())
    if "optuna_claim" in dask_scheduler.handlers:
        return
    pool = ThreadPoolExecutor(_THREADS, "study-storage")

    def report(comm: Any, storage_name: str, trial_id: int, step: int, value: float) -> bool:
        study = studies[storage_name][0]
        study._storage.set_trial_intermediate_value(trial_id, step, value)
        return bool(study.pruner.prune(study, study._storage.get_trial(trial_id)))

    def claim(comm: Any, storage_name: str, key: str) -> bool:
        claimed = studies[storage_name][1]
        fresh = key not in claimed
        claimed.add(key)
        return fresh

    dask_scheduler.handlers["optuna_report"] = report
    for key, handler in list(dask_scheduler.handlers.items()):
        if key.startswith("optuna_"):
            dask_scheduler.handlers[key] = _on_threads(handler, pool)
    dask_scheduler.handlers["optuna_claim"] = (
        claim  # memory only, so it stays on the scheduler's loop, which also makes it atomic
    )


def _on_threads(handler: Callable[..., Any], pool: ThreadPoolExecutor) -> Callable[..., Any]:
    async def call(comm: Any, **arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, functools.partial(handler, comm, **arguments))

    return call


def uninstall(dask_scheduler: Scheduler, name: str) -> None:
    """Drop a study's storage and claims, which a long-lived scheduler would keep for ever."""
    dask_scheduler.extensions[_EXTENSION].pop(name, None)
    dask_scheduler.extensions["optuna"].storages.pop(name, None)


def remote_storage(name: str) -> DaskStorage:
    """Return the worker's or client's view of the storage that `install` opened under `name`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return DaskStorage(name=name, register=False)


@dataclass(frozen=True)
class Handle:
    """Give an objective its parameters, its seed and a way to report."""

    storage_name: str
    trial_id: int
    params: dict[str, Any]
    seed: int

    def report(self, value: float, step: int) -> None:
        """Store the value of a step, from 1, unless it is NaN; raise TrialPruned when the pruner says stop."""
        if not isfinite(value):
            return
        client = remote_storage(self.storage_name).client
        call = client.scheduler.optuna_report
        if client.sync(
            call, storage_name=self.storage_name, trial_id=self.trial_id, step=int(step), value=float(value)
        ):
            raise optuna.TrialPruned


def run_trial(objective: Objective, handle: Handle, key: str) -> Outcome:
    """Run one trial on a worker unless its key was claimed before; an objective that is no number has failed."""
    client = remote_storage(handle.storage_name).client
    if not client.sync(client.scheduler.optuna_claim, storage_name=handle.storage_name, key=key):
        return Outcome("lost")
    try:
        value = objective(handle)
    except optuna.TrialPruned:
        return Outcome("pruned")
    except UpdateFinishedTrialError:
        return Outcome("lost")
    return Outcome("complete", value) if isfinite(value) else Outcome("failed")
