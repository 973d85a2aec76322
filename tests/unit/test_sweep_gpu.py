"""Sweeps on a GPU: every strategy gives the bits of the CPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster import gpu_count
from pipeline.strategies import StrategyError, moving_average_cross


@pytest.mark.gpu
def test_every_strategy_has_the_bits_of_the_cpu(root: Path) -> None:
    if gpu_count() == 0:
        pytest.skip("needs a GPU: NVML reports none")
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("needs numba-cuda: it is not installed")
    command = [sys.executable, "-m", "tests.gpu.sweep", "parity"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_without_a_gpu_it_says_so() -> None:
    if gpu_count():
        pytest.skip("there is a GPU")
    from pipeline.backtest.single.lanes import Lanes

    with pytest.raises(StrategyError, match="expected a GPU because executor is 'gpu', got none"):
        Lanes(moving_average_cross, 1).__enter__()


def test_workers_of_a_cluster_are_not_a_gpu() -> None:
    from pipeline.backtest.single.sweep import sweep
    from tests.gpu.sweep import market

    with pytest.raises(StrategyError, match="executor 'thread' with a client"):
        sweep([market(50)], moving_average_cross, {}, executor="gpu", client=object())
