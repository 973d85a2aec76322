"""Processes and clusters that run combinations: the same figures, and what is left when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from pipeline.backtest import sweep
from pipeline.strategies import StrategyError, moving_average_cross
from tests.sweep_bars import COSTS, walk

BARS = walk(6_000)
GRID = {"fast": [5, 10, 15, 20], "slow": [40, 60, 80, 100], "stop_atr": [0.5 * k for k in range(13)]}
LONG = {"fast": range(5, 45, 5), "slow": range(60, 241, 20)}
MANY = GRID | LONG | {"trail_atr": [0.5 * k for k in range(13)], "trail_start_atr": [0.5 * k for k in range(9)]}
ROOT = Path(__file__).parents[2]
SHARED = Path("/dev/shm")


def swept(grid: Any = None, **more: Any) -> pd.DataFrame:
    return sweep(BARS, moving_average_cross, grid or GRID, account=COSTS, venue="24h", **more)


def blocks() -> set[str]:
    return {path.name for path in SHARED.glob("psm_*")} if SHARED.is_dir() else set()


def workers() -> list[psutil.Process]:
    """Return the processes that run combinations: leaves below the fork server."""
    return [p for p in psutil.Process().children(recursive=True) if p.parent().pid != os.getpid() and not p.children()]


def test_processes_give_what_threads_give() -> None:
    before = blocks()
    expected = swept()
    for more in ({"workers": 1}, {"workers": 3, "memory": 200_000}):
        pd.testing.assert_frame_equal(swept(executor="process", **more), expected, check_exact=True)
    assert blocks() == before
    assert not workers()


def test_a_process_that_is_killed_is_a_sentence_and_leaves_nothing() -> None:
    before, killed = blocks(), []

    def progress(done: int, total: int) -> None:
        if done and not killed:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(StrategyError, match=r"expected process \d+ to finish .* ended with code -9.*executor='thread'"):
        swept(MANY, executor="process", workers=2, progress=progress)
    assert blocks() == before
    assert not workers()
    assert len(swept(executor="process", workers=2)) == 208


def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.integration.test_sweep_executors import StrategyError, swept\n"
        "try:\n    swept(executor='process', workers=2)\n"
        "except StrategyError as error:\n    print('told', error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert "told expected process" in ran.stdout and "__main__" in ran.stdout


def test_who_interrupts_processes_leaves_nothing() -> None:
    before = blocks()

    def progress(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(MANY, executor="process", workers=2, progress=progress)
    assert blocks() == before
    assert not workers()


def test_ctrl_c_in_a_terminal_ends_all_processes_without_their_tracebacks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import signal\n"
        "from tests.integration.test_sweep_executors import MANY, swept\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        swept(MANY, executor='process', workers=2, progress=lambda done, total: print(done, flush=True))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
    )
    before = blocks()
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) > 0:
            break
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.endswith("interrupted\n"), err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
    assert blocks() == before


@pytest.fixture(scope="module")
def cluster() -> Any:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as made,
        Client(made) as client,
    ):
        yield client


def test_a_cluster_gives_what_threads_give(cluster: Any) -> None:
    bars = pd.concat([BARS.assign(symbol="A"), walk(6_000, seed=5).assign(symbol="B")], ignore_index=True)
    more: dict[str, Any] = {"account": COSTS, "venue": "24h"}
    told: list[tuple[int, int]] = []
    found = sweep(
        bars,
        moving_average_cross,
        GRID,
        client=cluster,
        progress=lambda done, total: told.append((done, total)),
        **more,
    )
    pd.testing.assert_frame_equal(found, sweep(bars, moving_average_cross, GRID, **more), check_exact=True)
    assert told[-1] == (416, 416)


def test_a_cluster_leaves_out_what_threads_leave_out(cluster: Any) -> None:
    bars = pd.concat([walk(96, seed=5).assign(symbol="A"), BARS.assign(symbol="B")], ignore_index=True)
    more: dict[str, Any] = {"account": COSTS, "venue": "24h", "first": "2025-01-10"}
    with pytest.warns(UserWarning, match="1 of 2 symbols are left out, .*: A;"):
        found = sweep(bars, moving_average_cross, GRID, client=cluster, **more)
    alone = sweep(bars[bars["symbol"] == "B"], moving_average_cross, GRID, **more)
    pd.testing.assert_frame_equal(found, alone, check_exact=True)


def test_a_worker_of_a_cluster_that_is_killed_takes_nothing_along(cluster: Any) -> None:
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if not killed:
            killed.extend(cluster.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    rows = MANY | {"trail_start_atr": [1.0]}
    pd.testing.assert_frame_equal(swept(rows, client=cluster, progress=progress), swept(rows), check_exact=True)
    deadline = time.monotonic() + 30
    while len(cluster.nthreads()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)


def test_what_is_wrong_on_a_cluster_is_the_same_sentence(cluster: Any) -> None:
    with pytest.raises(StrategyError, match="at least two bars"):
        swept(client=cluster, first="2030-01-01")
