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

SLOW = pytest.mark.slow


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


def moments(finished: tuple[Path, job.Ran], tmp_path: Path, stage: str, count: int, seed: int) -> None:
    """Kill `stage` at `count` random moments while it works, each time finish it and compare its content."""
    reference, _ = finished
    whole = job.manifests(reference)
    rng = random.Random(f"{stage}{seed}")
    hits, span = 0, float(whole[stage]["seconds"])
    for n in range(5 * count):
        folder = tmp_path / str(n)
        words = (*job.SMOKE, *job.before(stage, reference, folder))
        for _ in range(2 if n % 2 else 1):  # every other time twice in a row
            hit = killed(f"scripts/{stage}.py", folder, words, stage, rng.uniform(0, span))
            hits, span = hits + hit, span if hit else 0.7 * span  # the reference also compiled kernels, say
        ran = job.run(f"scripts/{stage}.py", folder, *words)
        assert ran.status == 0, ran.err + ran.out[-2000:]
        assert job.manifests(folder)[stage]["content"] == whole[stage]["content"]
        shutil.rmtree(folder)
        if hits >= count:
            return
    raise AssertionError(f"only {hits} of {count} kills came while {stage} worked: this proves nothing")


@pytest.mark.parametrize(
    "stage", [s if s in ("features", "backtest") else pytest.param(s, marks=SLOW) for s in job.STAGES]
)
def test_killed_once(finished: tuple[Path, job.Ran], tmp_path: Path, stage: str) -> None:
    moments(finished, tmp_path, stage, 1, seed=1)


@SLOW
@pytest.mark.parametrize("stage", job.STAGES)
def test_killed_at_ten_random_moments(finished: tuple[Path, job.Ran], tmp_path: Path, stage: str) -> None:
    moments(finished, tmp_path, stage, 10, seed=2)
