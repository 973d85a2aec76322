"""Ctrl-C, SIGTERM, a closed pipe, two runs at once, caching switched off: what a user does to a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from . import job


def start(folder: Path, script: str, *words: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        job.command(script, folder, *job.SMOKE, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=job.environment(),
        start_new_session=True,
    )


def signalled(folder: Path, number: int, stage: str, after_s: float, *words: str) -> tuple[int, str, Path]:
    """Send a signal to the whole process group, as a terminal does, some time into the last stage of a run."""
    process = start(folder, f"scripts/{stage}.py", *words)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "stage" and event["stage"] == stage and event["state"] == "started":
            break
    time.sleep(after_s)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err, sorted((folder / "runs").iterdir())[-1]


@pytest.mark.parametrize(
    ("number", "stage", "after_s", "code"),
    [
        (signal.SIGINT, "ingest", 0.5, 130),
        (signal.SIGTERM, "train", 0.3, 143),
        pytest.param(signal.SIGINT, "features", 0.1, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "train", 0.5, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "report", 0.3, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_run_with_a_sentence_and_it_goes_on(
    finished: tuple[Path, job.Ran], tmp_path: Path, number: int, stage: str, after_s: float, code: int
) -> None:
    for again in range(4):  # on a fast moment the stage is over before the signal comes: then earlier, anew
        tmp_path = tmp_path / str(again)
        tmp_path.mkdir()
        words = job.before(stage, finished[0], tmp_path)
        status, err, folder = signalled(tmp_path, number, stage, after_s / 2**again, *words)
        if status != 0:
            break
    assert status == code, err
    assert "the same command goes on from what is kept" in err
    assert "Traceback" not in err
    assert json.loads((folder / "manifest.json").read_text())["state"] == "failed"
    ran = job.run(f"scripts/{stage}.py", tmp_path, *job.SMOKE, *words)
    assert ran.status == 0, ran.err
    assert job.manifests(tmp_path)[stage]["content"] == job.manifests(finished[0])[stage]["content"]


@pytest.mark.parametrize(
    "script", ["scripts/features.py", pytest.param("run_optimized_pipeline.py", marks=pytest.mark.slow)]
)
def test_two_runs_at_once_share_the_work_and_not_the_run_folder(tmp_path: Path, script: str) -> None:
    both = [start(tmp_path, script), start(tmp_path, script)]
    outs = [p.communicate(timeout=170) for p in both]
    assert [p.returncode for p in both] == [0, 0], outs
    assert len(list((tmp_path / "runs").iterdir())) == 2
    begun = [json.loads(x) for out, _ in outs for x in out.splitlines()]
    stages = [e["stage"] for e in begun if e["kind"] == "stage" and e["state"] == "started"]
    assert sorted(stages) == sorted(set(stages)), "a stage was made twice"


def test_without_the_cache_every_stage_is_made_anew(finished: tuple[Path, job.Ran], tmp_path: Path) -> None:
    reference, _ = finished
    words = (*job.before("train", reference, tmp_path), "--run.cache_enabled", "false")
    before = job.manifests(reference)
    ran = job.run("scripts/features.py", tmp_path, *job.SMOKE, *words)
    assert ran.states == {"ingest": "done", "features": "done"}, ran.err
    made = job.manifests(tmp_path)["features"]
    assert made["content"] == before["features"]["content"]
    assert made["computed"] == made["blocks"], "the blocks of the earlier result were taken"


def test_a_reader_that_goes_away_is_no_error(finished: tuple[Path, job.Ran]) -> None:
    folder, _ = finished
    command = job.command("run_optimized_pipeline.py", folder, *job.SMOKE, "--dry-run")
    line = " ".join(f"'{w}'" for w in command) + " | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, env=job.environment())
    assert done.stdout.startswith("ingest")
    assert "Error" not in done.stderr
