"""C12: a stage killed with SIGKILL at any moment and started again ends with the same content as an uninterrupted
one.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from . import job

STAGES = ["ingest", "features", "train", "predict", "backtest", "report"]


def killed(script: str, folder: Path, words: tuple[str, ...], stage: str, after_s: float) -> bool:
    """Start a script, kill its process `after_s` seconds into the stage; say whether it was killed before it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        job.command(script, folder, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env=job.environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            event = json.loads(line)
            if event["kind"] == "stage" and event["stage"] == stage:
                break
    time.sleep(after_s)
    alive = process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True) if alive else []
    process.kill()
    process.wait()
    process.stdout.close()
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left, f"processes outlive the killed one: {left}"
    return alive


def moments(finished: tuple[Path, job.Ran], tmp_path: Path, stage: str, count: int, seed: int) -> int:
    """Kill `stage` at random moments, finish it, compare its content; return how many kills hit it at work."""
    reference, _ = finished
    whole = job.manifests(reference)
    rng = random.Random(f"{stage}{seed}")
    hits = 0
    for n in range(count):
        folder = tmp_path / str(n)
        words = job.SMOKE
        if stage != "ingest":
            for name in STAGES[: STAGES.index(stage)]:
                target = folder / "data" / "stages" / name
                shutil.copytree(Path(whole[name]["directory"]).parent, target)
            words = (*words, "--lake.path", str(reference / "data" / "lake"))
        for _ in range(2 if n % 2 else 1):  # every other time twice in a row
            hits += killed(f"scripts/{stage}.py", folder, words, stage, rng.uniform(0, whole[stage]["seconds"]))
        ran = job.run(f"scripts/{stage}.py", folder, *words)
        assert ran.status == 0, ran.err + ran.out[-2000:]
        assert job.manifests(folder)[stage]["content"] == whole[stage]["content"]
        shutil.rmtree(folder)
    return hits


@pytest.mark.parametrize("stage", STAGES)
def test_killed_once(finished: tuple[Path, job.Ran], tmp_path: Path, stage: str) -> None:
    moments(finished, tmp_path, stage, 1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_ten_random_moments(finished: tuple[Path, job.Ran], tmp_path: Path, stage: str) -> None:
    hits = moments(finished, tmp_path, stage, 10, seed=2)
    assert hits >= 5, "the kills came too late to prove anything"
