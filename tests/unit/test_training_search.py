"""A search's settings are checked before anything runs, and where a study lives is said without its password."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from pydantic import ValidationError

from pipeline.config import ConfigError, load
from storage.emit import silent
from storage.studies import StudyAddress, StudyStorageError, _without_secret, open_storage
from tests.feature_blocks import write_blocks
from training.columns import DataError
from training.dataset import prepare
from training.search.objective import TrainingObjective, _dataset, _of_data
from training.search.study import make_pruner, make_sampler, seed_of, suggest
from training.section import Range, SearchSection, SpaceError, TrainSection
from training.splits import SplitSection


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learningrate": Range(low=0.1, high=0.2)}, "got 'learningrate'"),
        ({"seed": Range(low=0, high=9)}, "got 'seed'"),
        ({"learning_rate": Range(low=0.1, high=5.0)}, "within the bounds of train.learning_rate, got 5"),
        ({"target_kind": Range(choices=("rank", "banana"))}, "got banana"),
        ({"foo": Range(low=1, high=2)}, "got 'foo'"),
        ({"hidden_size": Range(low=1.5, high=8)}, "whole numbers for hidden_size, got 1.5, 8"),
        ({"hidden_size": Range(low=8, high=16, step=0.5)}, "whole numbers for hidden_size, got 8, 16, 0.5"),
        ({"hidden_size": Range(choices=(8, 8.5))}, "within the bounds of train.hidden_size, got 8.5"),
        ({"shuffle_labels": Range(low=0, high=1)}, "choices for shuffle_labels, which is no number"),
        ({"mixed_precision": Range(choices=("off", "auto"))}, "got auto"),
    ],
)
def test_a_space_that_does_not_fit_training_is_refused(space: dict[str, Range], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchSection(space=space)


@pytest.mark.parametrize(
    ("space", "possible"),
    [
        (
            {"hidden_size": Range(choices=(30, 32, 50))},
            "got 30, 50 with 4 heads; possible are 32 of them, multiples of 4",
        ),
        (
            {"heads": Range(choices=(4, 6))},
            "got 64 with 4, 6 heads; possible are multiples of 12: give these as choices",
        ),
        (
            {"hidden_size": Range(low=8, high=60, step=2)},
            "got 10, 14, .*… with 4 heads; possible are 8, 12, .*… of them",
        ),
        ({"hidden_size": Range(low=8, high=16), "heads": Range(choices=(1, 2))}, "got 9, 11, .* with 1, 2 heads"),
    ],
)
def test_widths_that_heads_do_not_divide_are_refused_at_once(space: dict[str, Range], possible: str) -> None:
    with pytest.raises(SpaceError, match=possible):
        SearchSection(model="transformer", space=space).check_widths(TrainSection())
    SearchSection(model="lstm", space=space).check_widths(TrainSection())
    SearchSection(model="transformer").check_widths(TrainSection())
    fits = {"hidden_size": Range(low=8, high=40, step=8), "heads": Range(choices=(2, 4, 8))}
    SearchSection(model="transformer", space=fits).check_widths(TrainSection(hidden_size=63))


def test_shuffled_labels_are_those_of_the_search_s_seed_and_not_the_trial_s(tmp_path: Path) -> None:
    features = write_blocks(tmp_path, symbols=6, days=60, features=3, groups=1)
    known: dict[bool, list[np.ndarray]] = {}
    for shuffled in (True, False):
        for seed in (0, 1):
            search = TrainSection(window=5, shuffle_labels=shuffled, seed=seed)
            for trial in (7, 8):
                kept = _of_data(search.model_copy(update={"seed": trial, "hidden_size": 8}), seed)
                data = _dataset(features, SplitSection(), kept)
            assert _dataset(features, SplitSection(), _of_data(search, seed)) is data, "trials share it"
            expected = prepare(features, SplitSection(), search, silent).target_NH
            assert np.array_equal(data.target_NH, expected, equal_nan=True)
            known.setdefault(shuffled, []).append(expected)
    assert not np.array_equal(*known[True], equal_nan=True) and np.array_equal(*known[False], equal_nan=True)


def test_a_space_is_read_before_anything_runs() -> None:
    words = ["--run.tune", "true", "--search.space", '{"foo":{"low":1,"high":2}}']
    with pytest.raises(ConfigError, match=r"search\.space: .*other than seed, .*, models, checkpoint_s, got 'foo'"):
        load(words, "test", "")


def test_the_values_of_a_name_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a file, the environment and the command line; names that are not given stay."""

    def space(*words: str) -> dict[str, Any]:
        found = load(list(words), "test", "")[0].search.space
        return {name: one.model_dump(exclude_defaults=True) for name, one in found.items()}

    usual, file = space(), tmp_path / "own.yaml"
    assert usual["hidden_size"] == {"choices": (32, 64, 128)}
    ends = {"low": 30.0, "high": 34.0}
    assert space("--search.space", '{"hidden_size": {"low": 30, "high": 34}}') == usual | {"hidden_size": ends}
    file.write_text("search: {space: {hidden_size: {low: 30, high: 34}, dropout: }}\n")
    assert space("--config", str(file)) == usual | {"hidden_size": ends}
    monkeypatch.setenv("PIPELINE__SEARCH__SPACE", '{"hidden_size": {"choices": [8]}}')
    assert space("--config", str(file)) == usual | {"hidden_size": {"choices": (8,)}}
    low = '{"hidden_size": {"low": 1, "high": 2}, "learning_rate": {"low": 0.1, "high": 0.2}}'
    assert space("--search.space", low) == usual | {
        "hidden_size": {"low": 1.0, "high": 2.0}, "learning_rate": {"low": 0.1, "high": 0.2}
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"hidden_size: expected either choices, or low and high, got low \(command"):
        space("--search.space", '{"hidden_size": {"low": 30}}')


def test_a_trial_with_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    """The dataset is shared by trials of any loss, so that each trial looks at its own."""
    features = write_blocks(tmp_path, symbols=1, days=60, features=3, groups=1)
    train = TrainSection(window=5, num_epochs=1, hidden_size=8, loss="rank")
    handle = SimpleNamespace(params={}, seed=0, report=lambda value, step: None)
    with pytest.raises(DataError, match=r"for train\.loss rank"):
        TrainingObjective(features, SplitSection(), train, "lstm", "cpu")(handle)  # type: ignore[arg-type]
    assert isinstance(TrainingObjective(features, SplitSection(), train, "ridge", "cpu")(handle), float)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"low": 1.0},
        {"low": 2.0, "high": 1.0},
        {"low": 0.0, "high": 1.0, "log": True},
        {"low": 1.0, "high": 2.0, "choices": (1, 2)},
        {"low": 1.0, "high": float("inf")},
    ],
)
def test_a_range_is_choices_or_two_ends(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Range(**values)


def test_the_default_space_fits_and_can_be_drawn() -> None:
    section = SearchSection()
    study = optuna.create_study(sampler=make_sampler(section, 0))
    trial = study.ask()
    for name, values in section.space.items():
        suggest(trial, name, values)
    assert TrainSection(**trial.params).hidden_size in (32, 64, 128)
    suggest(trial, "window", Range(low=10, high=40, step=10))
    assert trial.params["window"] in (10, 20, 30, 40)
    assert isinstance(trial.params["window"], int)


def test_settings_that_change_no_result_stay_out_of_keys() -> None:
    base = SearchSection().keyed()
    assert base == SearchSection(storage_url_env="X", trials_per_worker=4, retries=1).keyed()
    assert base != SearchSection(n_trials=3).keyed()
    assert base["space"]["learning_rate"]["log"] is True


def test_each_slot_has_streams_of_its_own() -> None:
    seeds = {seed_of(study, slot, stream) for study in range(3) for slot in range(50) for stream in range(2)}
    assert len(seeds) == 300
    assert seed_of(1, 2, 0) == seed_of(1, 2, 0)


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_sampler_built_again_draws_the_same(name: str) -> None:
    section = SearchSection(sampler=name)

    def draw() -> float:
        study = optuna.create_study(sampler=make_sampler(section, 3))
        return study.ask().suggest_float("x", 0, 1)

    assert draw() == draw()


def test_pruners_by_name() -> None:
    assert isinstance(make_pruner(SearchSection(pruner="median")), optuna.pruners.MedianPruner)
    assert isinstance(make_pruner(SearchSection(pruner="asha")), optuna.pruners.SuccessiveHalvingPruner)
    assert isinstance(make_pruner(SearchSection(pruner="none")), optuna.pruners.NopPruner)


@pytest.mark.parametrize("kind", ["journal path", "journal url", "sqlite"])
def test_a_study_is_found_again(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "study"
    if kind == "journal path":
        address = StudyAddress.choose(file, "NOT_SET_ANYWHERE")
    else:
        file.parent.mkdir()
        monkeypatch.setenv("STUDIES", f"{'journal' if kind == 'journal url' else 'sqlite'}:///{file}")
        address = StudyAddress.choose(tmp_path / "unused", "STUDIES")
    study = optuna.create_study(storage=open_storage(address), study_name="s", direction="maximize")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 0.5)
    again = optuna.load_study(study_name="s", storage=open_storage(address))
    assert again.best_value == 0.5
    assert file.exists()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/studies",
        "postgresql+psycopg://me:hunter2@127.0.0.1:1/studies",
        "mysql://me:hunter2@127.0.0.1/studies",
        "sqlite:////no/such/folder/study.db",
        "no_such_dialect://me:hunter2@x",
        "postgresql://localhost:hunter2",
        "postgresql:/hunter2",
    ],
)
def test_a_storage_that_does_not_open_is_named_without_its_secret(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIES", url)
    address = StudyAddress.choose(Path("unused"), "STUDIES")
    with pytest.raises(StudyStorageError, match="STUDIES") as caught:
        open_storage(address)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(address)
    assert caught.value.__cause__ is None


def test_a_driver_s_message_loses_the_password() -> None:
    url = "postgresql://me:hunter2@host/db"
    assert _without_secret(f"cannot connect with hunter2 to {url}\nmore", url) == "cannot connect with *** to ***"


def test_an_address_needs_its_variable_in_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIES", "sqlite:///x.db")
    address = StudyAddress.choose(Path("unused"), "STUDIES")
    monkeypatch.delenv("STUDIES")
    with pytest.raises(StudyStorageError, match="set it for the Dask scheduler as well"):
        open_storage(address)


def test_a_killed_holder_of_the_journal_s_lock_holds_nobody_up(tmp_path: Path, root: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from storage.studies import _KernelLock\n"
        "_KernelLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "j")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    started = time.monotonic()
    study = optuna.create_study(storage=open_storage(StudyAddress(str(tmp_path / "j"))), study_name="s")
    study.tell(study.ask(), 1.0)
    assert time.monotonic() - started < 5
