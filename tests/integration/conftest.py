"""One finished smoke run, shared by the tests that look at it."""

from __future__ import annotations

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
