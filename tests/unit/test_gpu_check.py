"""What scripts/gpu_check.py runs on a GPU, at tiny sizes on the CUDA simulator: it gives the measures that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.strategies import ALL
from scripts.gpu_check import PARTS


def test_the_files_of_its_tests_are_there(root: Path) -> None:
    named = [word for part in PARTS for word in part.command if word.startswith("tests/")]
    assert named and all((root / path).exists() for path in named)


@pytest.mark.slow
def test_the_speed_of_indicators_is_measured(root: Path) -> None:
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.gpu.indicators", "speed", "--tiny"]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    targets = json.loads((root / "docs" / "benchmarks" / "targets.json").read_text())
    wanted = {one["name"] for one in targets if one["name"].startswith("gpu.indicators")}
    assert len(wanted) == 4 and wanted <= said.keys()
    assert all(said[name]["value"] > 0 for name in wanted)
    assert said["gpu.indicators_copy_share_cudf"]["launches"] > 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["speed", "parity"])
def test_sweeps_are_measured(root: Path, part: str) -> None:
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.gpu.sweep", part, "--tiny"]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said = {line["name"]: line for line in lines}
    if part == "speed":
        assert said["gpu.sweep_combos_per_s"]["value"] > 0 and said["gpu.sweep_wins_from"]["value"] > 0
        assert {f"gpu.sweep_combos_per_s_{size}" for size in (1_000, 100_000, 10_000_000)} <= said.keys()
    else:
        assert len(said) == len(ALL) and all(line["value"] == 0 for line in said.values())
