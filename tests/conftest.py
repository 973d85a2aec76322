"""Fixtures shared by all tests, and what a test may not leave behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Let workers take the files in their order: whole jobs first. Files of few but long tests would come last, and
    the end of a run would wait for one of them.
    """
    config.option.loadscopereorder = False


@pytest.fixture(scope="session")
def market_data() -> Path:
    """Return the folder of real market data, or skip with the reason."""
    path = Path(os.environ.get("KRX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "krx_daily_raw").is_dir():
        pytest.skip(f"no real market data at {path}; set KRX_TEST_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT
