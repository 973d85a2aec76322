"""The client's side of a search: it asks and tells, workers run. Killed anywhere, it goes on under the same name.

A trial belongs to a slot, the number of its first attempt. A trial whose worker died is put back with the same
parameters and marked void; the budget counts trials that finished and are not void, and seeds depend on the slot alone.
One client runs a study at a time.
"""

from __future__ import annotations

import socket
import warnings
from typing import Any
from uuid import uuid4

import numpy as np
import optuna
import psutil
from distributed import Client, Future, KilledWorker, as_completed
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from storage.emit import Emit
from storage.studies import StudyAddress, open_storage

from ..section import Range, SearchSection, is_whole
from .remote import Handle, Objective, Outcome, install, run_trial, uninstall

Asked = tuple[int, int, int, dict[str, Any]]  # trial id, number, slot, parameters


class SearchError(Exception):
    """A search that cannot go on."""


def seed_of(seed: int, slot: int, stream: int) -> int:
    """Return a seed of its own for each slot: one for the sampler (stream 0), one for the trial (stream 1)."""
    return int(np.random.SeedSequence([seed, slot, stream]).generate_state(1)[0])


def make_sampler(section: SearchSection, slot: int) -> optuna.samplers.BaseSampler:
    """Build the sampler anew for a slot: what it knows is in the trials, so no state has to survive a restart."""
    seed = seed_of(section.seed, slot, 0)
    if section.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)


def make_pruner(section: SearchSection) -> optuna.pruners.BasePruner:
    """Build the pruner; its steps are epochs from 1."""
    if section.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    if section.pruner == "asha":
        # one epoch's rank IC says little: asked at 3, 6, 12 … epochs, half of the trials go on
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=3, reduction_factor=2)
    return optuna.pruners.NopPruner()


def suggest(trial: optuna.Trial, name: str, values: Range) -> None:
    if values.choices:
        trial.suggest_categorical(name, values.choices)
    elif values.low is not None and values.high is not None:
        if is_whole(name):
            trial.suggest_int(name, int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
        else:
            trial.suggest_float(name, values.low, values.high, log=values.log, step=values.step)


def void(trial: FrozenTrial) -> bool:
    return "void" in trial.user_attrs


def identity(trial: FrozenTrial | optuna.Trial) -> tuple[int, int]:
    """Return a trial's slot and attempt."""
    return int(trial.user_attrs.get("slot", trial.number)), int(trial.user_attrs.get("attempt", 0))


class Search:
    """Run trials on a cluster until the budget is spent."""

    def __init__(
        self, client: Client, address: StudyAddress, name: str, section: SearchSection, objective: Objective, emit: Emit
    ) -> None:
        self.client, self.section, self.objective, self.emit = client, section, objective, emit
        self.name = f"{name}-{uuid4().hex[:8]}"
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=open_storage(address), study_name=name, direction="maximize", load_if_exists=True
        )
        if self.study.directions != [optuna.study.StudyDirection.MAXIMIZE]:
            raise SearchError(
                f"expected one figure to maximise in the study '{name}' of {address}, got {self.study.directions}; "
                "choose another search.study_name"
            )
        me = psutil.Process()
        owner = f"{socket.gethostname()}:{me.pid}:{me.create_time():.2f}"
        other = str(self.study.user_attrs.get("owner", ""))
        if other != owner and _alive(other):
            raise SearchError(
                f"expected no other client on the study '{name}' of {address}, got {other}; wait for it or stop it"
            )
        self.study.set_user_attr("owner", owner)
        self.at_once = section.trials_per_worker or min((w["nthreads"] for w in self._workers()), default=1)
        client.run_on_scheduler(install, address=address, name=self.name, study_name=name, pruner=make_pruner(section))

    def run(self) -> optuna.Study:
        """Ask, submit and tell until `n_trials` have finished; SearchError when the scheduler is gone."""
        for trial in self._trials():
            if trial.state == TrialState.RUNNING:  # its client is gone, and with it the task
                self._retry(trial.number)
        running: dict[Any, int] = {}
        done = as_completed(with_results=True, raise_errors=False, loop=self.client.loop)
        while len(self._finished()) < self.section.n_trials:
            asked = self._ask(self._slots() - len(running))
            futures = [self._submit(*trial) for trial in asked]
            running |= {future.key: number for future, (_, number, *_) in zip(futures, asked)}
            done.update(futures)
            for future, result in done.next_batch(block=True):
                self._settle(running.pop(future.key), future, result)
            if self.client.status != "running":
                raise SearchError("the Dask scheduler is gone; run the same command again and the study goes on")
        self.study.set_user_attr("owner", "")
        self.client.run_on_scheduler(uninstall, name=self.name)
        return self.study

    def _slots(self) -> int:
        return max(1, sum(int(w["resources"]["train"]) * self.at_once for w in self._workers()))

    def _workers(self) -> list[dict[str, Any]]:
        """Return the workers that train."""
        return [w for w in self.client.scheduler_info(n_workers=-1)["workers"].values() if "train" in w["resources"]]

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _finished(self) -> list[FrozenTrial]:
        return [t for t in self._trials() if t.state.is_finished() and not void(t)]

    def _ask(self, room: int) -> list[Asked]:
        """Take up to `room` trials, those put back first, never more than the budget leaves."""
        out: list[Asked] = []
        while len(out) < room:
            live = [t for t in self._trials() if not void(t)]
            if len(live) >= self.section.n_trials and not any(t.state == TrialState.WAITING for t in live):
                break
            trial = self.study.ask()
            slot = identity(trial)[0]
            self.study.sampler = make_sampler(self.section, slot)
            for name, values in self.section.space.items():
                suggest(trial, name, values)
            out.append((trial._trial_id, trial.number, slot, trial.params))
        return out

    def _submit(self, trial_id: int, number: int, slot: int, params: dict[str, Any]) -> Future[Outcome]:
        key = f"tune-{self.name}-{number}"
        handle = Handle(self.name, trial_id, params, seed_of(self.section.seed, slot, 1))
        share = {"train": (1 - 1e-9) / self.at_once}  # so that rounding never keeps the last one out
        return self.client.submit(run_trial, self.objective, handle, key, key=key, resources=share, pure=False)

    def _settle(self, number: int, future: Future[Outcome], result: Any) -> None:
        if future.status == "finished" and result.state != "lost":
            states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
            self.study.tell(number, result.value, state=states[result.state])
        elif future.status == "error" and not isinstance(result[1], KilledWorker):
            self.emit("log", level="error", text=f"trial {number} failed: {result[1]!r}")
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self._retry(number)
        trial = self._trials()[number]
        self.emit(
            "trial", number=number, state=trial.state.name, value=trial.value, params=trial.params, void=void(trial)
        )
        self.emit("progress", done=len(self._finished()), total=self.section.n_trials, unit="trials")

    def _retry(self, number: int) -> None:
        """Put a lost trial back with the same parameters, then void it; a crash in between loses nothing."""
        trials = self._trials()
        slot, attempt = identity(trials[number])
        if attempt < self.section.retries:
            self.emit(
                "log",
                level="warning",
                text=f"trial {number} was lost; its parameters run again (attempt {attempt + 1})",
            )
            if not any(identity(t) == (slot, attempt + 1) for t in trials):
                self.study.enqueue_trial(trials[number].params, user_attrs={"slot": slot, "attempt": attempt + 1})
            self.study._storage.set_trial_user_attr(trials[number]._trial_id, "void", "lost")
        else:
            self.emit("log", level="error", text=f"trial {number} failed: it was lost {attempt + 1} times")
        self.study.tell(number, state=TrialState.FAIL)


def _alive(owner: str) -> bool:
    """Say whether the process `host:pid:start` runs here; one on another host is assumed to be gone."""
    if not owner or owner.rsplit(":", 2)[0] != socket.gethostname():
        return False
    _, pid, born = owner.rsplit(":", 2)
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == born
    except psutil.NoSuchProcess:
        return False
