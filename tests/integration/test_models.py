"""The registry as a user works with it: a run's model is promoted, predicted with, pinned and rolled back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.models import main

from . import job

REGISTRY = ("--predict.model", "registry")


@pytest.fixture(scope="module")
def folder(finished: tuple[Path, job.Ran], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the finished stages and runs over the same lake."""
    out = tmp_path_factory.mktemp("models")
    shutil.copytree(finished[0] / "data" / "stages", out / "data" / "stages")
    shutil.copytree(finished[0] / "runs", out / "runs")
    return out


def models(folder: Path, verb: str, *words: str) -> job.Ran:
    return job.call("scripts/models.py", folder, *words, verb=verb)


def promoted(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Promote the LSTM of what is named."""
    places = ("--run.data", str(folder / "data"), "--run.runs", str(folder / "runs"))
    assert main(["promote", name, "--model", "lstm", "--json", *places]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def told(ran: job.Ran) -> dict[str, Any]:
    assert ran.status == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_a_promoted_model_takes_the_place_of_training(folder: Path, finished: tuple[Path, job.Ran]) -> None:
    lake = ("--lake.path", str(finished[0] / "data" / "lake"))
    run = sorted((folder / "runs").iterdir())[-1]
    before = json.loads((run / "manifest.json").read_text())["stages"]
    listed = told(models(folder, "list", "--json"))
    assert set(listed["stages"][before["train"]["key"]]["valid_rank_ic"]) == {"lstm", "ridge"}
    assert listed["models"] == listed["history"] == []
    empty = job.call("scripts/predict.py", folder, *job.SMOKE, *lake, *REGISTRY)
    assert empty.status == 2
    assert "choose one: python scripts/models.py promote" in empty.err

    one = told(models(folder, "promote", "--json", "--model", "lstm", "--why", "first"))
    assert (one["stage"], one["model"], one["why"]) == (before["train"]["key"], "lstm", "first")
    again = job.call("scripts/predict.py", folder, *job.SMOKE, *lake, *REGISTRY, "--dry-run")
    states = {line.split()[0]: line.split()[1:3] for line in again.out.splitlines()}
    assert states["train"] == ["reuse", one["digest"]]
    assert states["features"][0] == "reuse"
    done = job.run("run_optimized_pipeline.py", folder, *job.SMOKE, *lake, *REGISTRY)
    assert done.status == 0, done.err + done.out[-2000:]
    after = json.loads((done.folder / "manifest.json").read_text())["stages"]
    assert after["train"]["key"] == one["digest"]
    assert after["predict"]["trained"] == f"models/{one['digest']}"
    assert before["predict"]["trained"] == f"train/{before['train']['key']}"
    assert after["predict"]["content"] == before["predict"]["content"], "the same model scores the same"
    assert after["predict"]["key"] != before["predict"]["key"]
    assert json.loads((done.folder / "performance_report.json").read_text())["training"]["lstm"]


def test_pinned_rolled_back_and_shown(
    folder: Path, finished: tuple[Path, job.Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    run = sorted((folder / "runs").iterdir())[0]
    first = told(models(folder, "promote", "--json", "--model", "lstm"))
    second = told(models(folder, "promote", "--json", "--model", "ridge", "--why", "a run"))
    shown = told(models(folder, "show", "--json"))
    assert (shown["digest"], shown["in_use"], shown["whole"]) == (second["digest"], True, True)
    lake = ("--lake.path", str(finished[0] / "data" / "lake"))
    assert job.call("scripts/backtest.py", folder, *job.SMOKE, *lake, *REGISTRY).status == 0
    key = job.manifests(folder)["backtest"]["key"]
    traded = json.loads((folder / "data" / "stages" / "backtest" / key / "metrics.json").read_text())["model"]
    assert traded == "ridge", "the model in use, whatever its kind"
    assert told(models(folder, "pin", "--json"))["action"] == "pin"
    refused = models(folder, "promote", "--model", "lstm")
    assert (refused.status, refused.out) == (2, "")
    assert "which is pinned" in refused.err
    assert told(models(folder, "pin", "--off", "--json"))["action"] == "unpin"
    assert told(models(folder, "rollback", "--json"))["digest"] == first["digest"]
    text = models(folder, "list").out
    assert f"{first['digest']}  lstm  in use" in text
    assert f"{second['digest']}  ridge\n" in text
    assert "validation rank IC: lstm" in text
    for name in (run.name, str(run), first["stage"][:8], first["digest"][:8]):
        assert promoted(folder, name, capsys)["digest"] == first["digest"]


def test_bad_input_is_a_sentence_and_status_2(folder: Path) -> None:
    for verb, words, message in (
        ("frobnicate", (), "expected list, promote, pin, rollback, show, got 'frobnicate'"),
        ("promote", ("--model", "forest"), "got 'forest'"),
        ("promote", ("--run.data", str(folder / "nothing")), "expected a finished train stage"),
        ("show", ("--run.data", str(folder / "nothing")), "expected a model in use"),
    ):
        ran = models(folder, verb, *words)
        assert ran.status == 2
        assert message in ran.err
        assert "Traceback" not in ran.err
