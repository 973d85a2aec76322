"""A search on a real cluster: the budget is exact, whoever is killed."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from optuna.trial import TrialState

from pipeline.cluster import Cluster, ClusterSection
from pipeline.job import Job
from pipeline.learn.train import train
from pipeline.learn.tune import tune
from storage.emit import silent
from storage.studies import StudyAddress, open_storage
from tests.clients import killed_client
from tests.feature_blocks import Recorder, write_blocks
from tests.search_objectives import Logged, broken, no_number
from training.model import load_model
from training.search.study import Search, SearchError, identity, seed_of, void
from training.section import Range, SearchSection, SpaceError, TrainSection
from training.splits import SplitSection

SPACE = {"learning_rate": Range(low=1e-4, high=1e-1, log=True)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(ClusterSection(device="cpu", threads=2)) as cluster:
        yield cluster


def section(**values: Any) -> SearchSection:
    return SearchSection(**{"n_trials": 8, "space": SPACE, "pruner": "none", **values})


def search(cluster: Cluster, path: Path, objective: Any, emit: Any = silent, **values: Any) -> optuna.Study:
    return Search(cluster.client(), StudyAddress(str(path)), "s", section(**values), objective, emit).run()


def log_of(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def complete(study: optuna.Study, n: int) -> list[optuna.trial.FrozenTrial]:
    """Check what must hold of every finished study, and return its trials that count."""
    trials = study.get_trials(deepcopy=False)
    assert all(t.state.is_finished() for t in trials)
    counted = [t for t in trials if not void(t)]
    assert len(counted) == n
    assert len({identity(t)[0] for t in counted}) == n, "a slot finished twice"
    for t in trials:  # a client killed while it drew parameters leaves fewer of them
        assert trials[identity(t)[0]].params.items() <= t.params.items(), "a retry ran with other parameters"
        assert t.params or void(t)
    return counted


def test_trials_run_at_once_with_streams_of_their_own(cluster: Cluster, tmp_path: Path) -> None:
    emit = Recorder()
    study = search(cluster, tmp_path / "j", Logged(tmp_path / "log", 0.1), emit, n_trials=10)
    counted = complete(study, 10)
    assert len({t.params["learning_rate"] for t in counted}) == 10
    lines = log_of(tmp_path / "log")
    assert len(lines) == 20
    assert {int(line[2]) for line in lines} == {seed_of(0, t.number, 1) for t in counted}
    running = [1 if line[0] == "start" else -1 for line in lines]
    assert max(sum(running[:i]) for i in range(21)) == 2
    assert emit.of("progress")[-1]["done"] == 10
    assert all(len(t.intermediate_values) == 3 for t in counted)
    assert "owner" in study.user_attrs


def test_a_finished_study_is_found_again_and_a_larger_budget_adds_trials(cluster: Cluster, tmp_path: Path) -> None:
    first = search(cluster, tmp_path / "j", Logged(tmp_path / "log"), n_trials=4).get_trials()
    assert search(cluster, tmp_path / "j", Logged(tmp_path / "log"), n_trials=4).get_trials() == first
    more = search(cluster, tmp_path / "j", Logged(tmp_path / "log"), n_trials=6)
    assert complete(more, 6)[:4] == first
    assert len(log_of(tmp_path / "log")) == 12


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_poor_trials_are_pruned_by_their_reports(cluster: Cluster, tmp_path: Path, pruner: str) -> None:
    objective = Logged(tmp_path / "log", 0.1, steps=8)  # long enough for the client to tell what is complete
    study = search(cluster, tmp_path / "j", objective, n_trials=16, pruner=pruner, sampler="random")
    counted = complete(study, 16)
    pruned = [t for t in counted if t.state == TrialState.PRUNED]
    done = [t for t in counted if t.state == TrialState.COMPLETE]
    assert pruned
    assert done
    assert all(0 < len(t.intermediate_values) < 8 for t in pruned)
    assert study.best_value == max(t.value for t in done if t.value is not None)
    ends = sum(line[0] == "end" for line in log_of(tmp_path / "log"))
    assert ends == len(done)


def test_a_trial_whose_worker_is_killed_runs_again_with_the_same_parameters(cluster: Cluster, tmp_path: Path) -> None:
    objective = Logged(tmp_path / "log", 0.3)
    killed: list[int] = []

    def kill(kind: str, /, **fields: Any) -> None:
        if kind == "trial" and fields["number"] == 2 and not killed:
            pid = int(log_of(tmp_path / "log")[-1][3])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    study = search(cluster, tmp_path / "j", objective, kill)
    counted = complete(study, 8)
    assert all(t.state == TrialState.COMPLETE for t in counted)
    lost = [t for t in study.get_trials(deepcopy=False) if void(t)]
    assert lost
    assert all(t.state == TrialState.FAIL and t.user_attrs["void"] == "lost" for t in lost)
    retries = [t for t in counted if identity(t)[1] == 1]
    assert {identity(t)[0] for t in retries} == {t.number for t in lost}
    lines = log_of(tmp_path / "log")
    ended = {line[2] for line in lines if line[0] == "end"}  # some perhaps twice: the first result died with the worker
    assert ended == {str(seed_of(0, identity(t)[0], 1)) for t in counted}
    started = [line[1] for line in lines if line[0] == "start"]
    assert len(set(started)) == len(started), "one trial was executed twice"


CLIENT = """
import sys
from pathlib import Path
from pipeline.cluster import Cluster, ClusterSection
from storage.studies import StudyAddress
from tests.search_objectives import Logged
from training.model import load_model
from training.section import SearchSection
from training.search.study import Search

if __name__ == "__main__":
    def emit(kind, /, **fields):
        if kind == "progress":
            print(fields["done"], flush=True)
    with Cluster(ClusterSection(device="cpu", threads=2)) as cluster:
        section = SearchSection.model_validate_json(sys.argv[3])
        Search(cluster.client(), StudyAddress(sys.argv[1]), "s", section, Logged(Path(sys.argv[2]), 0.3), emit).run()
"""


def test_a_killed_client_goes_on_and_a_living_one_is_not_disturbed(cluster: Cluster, tmp_path: Path) -> None:
    refused: list[str] = []

    def intrude(line: str, pid: int) -> None:
        if line == "1":
            with pytest.raises(SearchError, match=f"no other client .*:{pid}:"):
                search(cluster, tmp_path / "j", Logged(tmp_path / "log"))
            refused.append(line)

    words = (tmp_path / "j", tmp_path / "log", section().model_dump_json())
    killed_client(CLIENT, tmp_path, *words, last="3", each=intrude)
    assert refused == ["1"]
    study = search(cluster, tmp_path / "j", Logged(tmp_path / "log"))
    counted = complete(study, 8)
    assert any(void(t) for t in study.get_trials(deepcopy=False))
    ended = [line[2] for line in log_of(tmp_path / "log") if line[0] == "end"]
    assert {str(seed_of(0, identity(t)[0], 1)) for t in counted} == set(ended)


def test_a_trial_that_is_no_number_or_raises_fails_within_the_budget(cluster: Cluster, tmp_path: Path) -> None:
    emit = Recorder()
    study = search(cluster, tmp_path / "a", broken, emit, n_trials=3)
    assert [t.state for t in complete(study, 3)] == [TrialState.FAIL] * 3
    assert emit.said("the disk is gone")
    study = search(cluster, tmp_path / "b", no_number, n_trials=3)
    assert [t.state for t in complete(study, 3)] == [TrialState.FAIL] * 3


def test_a_locked_storage_does_not_hold_up_the_scheduler(cluster: Cluster, tmp_path: Path) -> None:
    client, journal = cluster.client(), tmp_path / "j"
    thread = threading.Thread(target=search, args=(cluster, journal, Logged(tmp_path / "log", 0.2, 10)), daemon=True)
    thread.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    lock = journal.with_name("j.lock").open("ab")
    fcntl.flock(lock, fcntl.LOCK_EX)
    longest, started = 0.0, time.monotonic()
    while time.monotonic() - started < 1.0:
        before = time.perf_counter()
        client.run_on_scheduler(_nothing)
        longest = max(longest, time.perf_counter() - before)
        time.sleep(0.02)
    reports = sum(
        len(t.intermediate_values)
        for t in optuna.load_study(study_name="s", storage=open_storage(StudyAddress(str(journal)))).trials
    )
    time.sleep(0.3)
    again = sum(
        len(t.intermediate_values)
        for t in optuna.load_study(study_name="s", storage=open_storage(StudyAddress(str(journal)))).trials
    )
    assert reports == again, "the lock did not hold"
    lock.close()
    thread.join(60)
    assert not thread.is_alive()
    assert longest < 0.5


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blocks(tmp_path_factory.mktemp("features"), days=100, signal=0.1, noise=0.2)


TRAIN = TrainSection(window=4, hidden_size=8, num_epochs=3, windows_per_epoch=500, batch_size=64, threads=2)


def run_stage(cluster: Cluster, features: Path, out: Path, found: SearchSection, emit: Any = silent) -> dict[str, Any]:
    return tune(Job(out, {"features": features}, cluster, emit), SplitSection(), TRAIN, found)


def test_the_stage_searches_and_leaves_the_best_as_configuration(
    cluster: Cluster, features: Path, tmp_path: Path
) -> None:
    found = SearchSection(
        n_trials=6,
        trials_per_worker=2,
        space={**SPACE, "hidden_size": Range(choices=(4, 8)), "window": Range(low=2, high=6, step=2)},
    )
    result = run_stage(cluster, features, tmp_path, found)
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert len(rows) == result["rows"] == 6
    assert {r["state"] for r in rows} <= {"COMPLETE", "PRUNED"}
    assert len({r["params"] for r in rows}) == 6
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())["train"]
    assert best == result["best"]["params"]
    assert TrainSection(**{**TRAIN.model_dump(), **best}).window in (2, 4, 6)
    assert result["best"]["value"] == max(r["value"] for r in rows if r["state"] == "COMPLETE") > 0.2
    assert run_stage(cluster, features, tmp_path, found)["content"] == result["content"]
    emit = Recorder()
    (tmp_path / "train").mkdir()
    job = Job(tmp_path / "train", {"features": features, "tune": tmp_path}, cluster, emit)
    train(job, SplitSection(), TRAIN.model_copy(update={"models": ("lstm",)}))
    assert emit.said(f"settings of the search: {best}")
    loaded = load_model(tmp_path / "train" / "fold-0" / "lstm-0" / "best.pt")
    model: Any = loaded.model
    assert (loaded.window, model.shape()["hidden_size"]) == (best["window"], best["hidden_size"])


def test_the_stage_says_when_nothing_can_be_trained(cluster: Cluster, features: Path, tmp_path: Path) -> None:
    found = SearchSection(n_trials=2, space={"window": Range(choices=(99,))})
    emit = Recorder()
    with pytest.raises(SearchError, match=r"at least one complete trial, got \{'FAIL': 2\}"):
        run_stage(cluster, features, tmp_path, found, emit)
    assert emit.said("99 complete bars")


def test_widths_that_no_trial_can_have_are_told_before_the_first(
    cluster: Cluster, features: Path, tmp_path: Path
) -> None:
    found = SearchSection(model="transformer", n_trials=2, space={"hidden_size": Range(choices=(8, 10))})
    with pytest.raises(SpaceError, match=r"got 10 with 4 heads; possible are 8 of them"):
        run_stage(cluster, features, tmp_path, found)
    assert not list(tmp_path.iterdir())


def test_the_url_of_a_database_travels_in_no_task(
    cluster: Cluster, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE_URL", f"sqlite:///{tmp_path}/hunter2.db")
    seen: list[bytes] = []

    def look(kind: str, /, **fields: Any) -> None:
        if kind == "trial":
            seen.extend(cluster.client().run_on_scheduler(_tasks))
        assert "hunter2" not in repr(fields)

    found = SearchSection(n_trials=4, space=SPACE, study_name="by-url")
    run_stage(cluster, features, tmp_path, found, look)
    assert seen
    assert any(b"run_trial" in task for task in seen)
    assert not any(b"hunter2" in task for task in seen)
    assert not (tmp_path / "study.journal").exists()
    study = optuna.load_study(study_name="by-url", storage=f"sqlite:///{tmp_path}/hunter2.db")
    assert len(study.trials) == 4


def _nothing(dask_scheduler: Any) -> None:
    pass


def _tasks(dask_scheduler: Any) -> list[bytes]:
    return [pickle.dumps(task.run_spec) for task in dask_scheduler.tasks.values() if task.key.startswith("tune")]


def test_handlers_that_a_search_relies_on_are_there(cluster: Cluster, tmp_path: Path) -> None:
    """Names inside optuna-integration that are no public promise."""
    search(cluster, tmp_path / "j", Logged(tmp_path / "log"), n_trials=1)
    handlers = cluster.client().run_on_scheduler(lambda dask_scheduler: sorted(dask_scheduler.handlers))
    assert {"optuna_report", "optuna_claim", "optuna_get_trial", "optuna_set_trial_intermediate_value"} <= set(handlers)
    left = cluster.client().run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.extensions["optuna"].storages))
    assert left == 0, "storages of finished studies stay on the scheduler"
