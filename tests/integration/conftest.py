"""A finished smoke run and a filled lake, shared by the tests that look at them, and a disk that is soon full."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import job


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, job.Ran]:
    """Run the smoke configuration once; return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("smoke")
    ran = job.run("run_optimized_pipeline.py", folder, *job.SMOKE)
    assert ran.status == 0, ran.err + ran.out[-3000:]
    return folder, ran


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a lake with job.FEW once for all processes that test side by side; return the folder of data and runs. Who
    changes the lake copies it first.
    """
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    folder, done = place / "filled", place / "filled.done"
    with (place / "filled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            ran = job.run("scripts/ingest.py", folder, *job.FEW, verb="run")
            assert ran.status == 0, ran.err
            done.touch()
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount 4 MB of memory as a disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"mounting a small file system needs root: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
