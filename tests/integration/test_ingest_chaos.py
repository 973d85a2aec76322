"""C12 for market data: ingest, evening appends and repair, killed with SIGKILL at random moments while the broker plays
faults, end with the content of a run that nobody disturbed; who reads meanwhile sees whole rows only.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from storage.lake import Lake
from storage.schema import KEYS

from . import job
from .kis_server import MARKET, Stage, mixed_faults

TABLES = ("bars", "actions", "symbols", "flows", "sessions", "quarantine", "coverage")
ASKED: dict[str, Any] = {"indices": ["0001"], "weekly": True, "investors": True, "chunk_size": 700}
Start = Callable[[], "subprocess.Popen[bytes]"]


def evening(folder: Path, day: str, seed: int = 0, **ingest: Any) -> Stage:
    """Return the stage of the evening of a day; with a seed the broker plays faults and is asked slowly."""
    market, slow = MARKET | {"clock": f"{day}T20:30:00+09:00"}, {}
    if seed:
        path = mixed_faults(folder, seed, rejected=0.002)  # every refusal slows the limiter
        market, slow = market | {"faults": str(path)}, {"calls_per_second": 120}
    return Stage(folder, kis={"simulator": market, **slow}, ingest={"end": day, **ASKED, **ingest})


def content(lake: Path) -> dict[str, str]:
    return {table: Lake(lake).digest(table) for table in TABLES}


def look(path: Path) -> None:
    """Read what there is now: every key once, every bar whole, and no day called answered whose rows are not there."""
    lake = Lake(path)
    told = lake.read("coverage", columns=["symbol", "interval", "rows"])
    bars = lake.read("bars")
    tables = {"coverage": lake.read("coverage"), "bars": bars, "actions": lake.read("actions")}
    for name, rows in tables.items():
        assert rows.group_by(list(KEYS[name])).aggregate([]).num_rows == rows.num_rows, f"{name}: a key twice"
    assert bars["close"].null_count == 0 and not pc.any(pc.is_nan(bars["close"])).as_py()
    held = {(s, i): n for s, i, n in zip(*_counted(bars).to_pydict().values())}
    for (symbol, interval), rows in _sums(told).items():
        if interval != "flows":
            assert rows <= held.get((symbol, interval), 0), f"{symbol} {interval}: answered, but the rows are not there"


def _counted(bars: pa.Table) -> pa.Table:
    counted = bars.group_by(["symbol", "interval"]).aggregate([([], "count_all")])
    return counted.select(["symbol", "interval", "count_all"])


def _sums(told: pa.Table) -> dict[tuple[str, str], int]:
    out: dict[tuple[str, str], int] = {}
    for row in told.to_pylist():
        key = (row["symbol"], row["interval"])
        out[key] = out.get(key, 0) + row["rows"]
    return out


def killed(start: Start, lake: Path, after_s: float) -> int | None:
    """Start a process, read along, kill it after so many seconds; return its exit status where it ended before."""
    process = start()
    until = time.monotonic() + after_s
    while process.poll() is None and time.monotonic() < until:
        look(lake)
        time.sleep(min(0.02, max(0.0, until - time.monotonic())))
    ended = process.poll()
    family = psutil.Process(process.pid).children(recursive=True) if ended is None else []
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left, f"processes outlive the killed one: {left}"
    look(lake)
    return ended


def until_done(stage: Stage, rng: random.Random, longest_s: float, most: int) -> int:
    """Kill a stage up to `most` times, then let it end; return how often it was killed."""
    for kills in range(most):
        ended = killed(stage.process, stage.lake, rng.uniform(0.5, longest_s))
        if ended is not None:
            assert ended == 0
            return kills
    assert stage.process().wait(120) == 0
    return most


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """One undisturbed run without faults; the others have to end with its content."""
    stage = evening(tmp_path_factory.mktemp("clean"), "2026-10-30")
    stage.run()
    return stage


def survived(
    at: Callable[[int], Stage], whole: dict[str, str], *, seed: int, longest_s: float, most: int, moments: int
) -> None:
    """Kill the stages at(seed + 1), at(seed + 2), ... up to `most` times each until `moments` kills came while they
    worked; each has to end with the content `whole`."""
    rng, kills = random.Random(seed), 0
    for trial in range(seed + 1, seed + 3 * moments + 3):
        stage = at(trial)
        kills += until_done(stage, rng, longest_s, min(most, moments - kills))
        assert content(stage.lake) == whole, f"trial {trial} ends with other content"
        shutil.rmtree(stage.folder)
        if kills >= moments:
            return
    raise AssertionError(f"only {kills} of {moments} kills came while it worked: this proves nothing")


SLOW = pytest.mark.slow


@SLOW
@pytest.mark.parametrize(("seed", "moments"), [(0, 1), *((n, 10) for n in (100, 200, 300, 400, 500))])
def test_killed_under_faults(clean: Stage, tmp_path: Path, seed: int, moments: int) -> None:
    """Fifty kills and one; in the quick suite kills and faults meet in the evening below."""

    def at(trial: int) -> Stage:
        return evening(tmp_path / str(trial), "2026-10-30", seed=trial)

    survived(at, content(clean.lake), seed=seed, longest_s=5.0, most=4, moments=moments)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A lake as it was some evenings before, and its content after an undisturbed `--since last`."""
    folder = tmp_path_factory.mktemp("before")
    stage = evening(folder / "old", "2026-10-27")
    stage.run()
    shutil.copytree(stage.lake, folder / "new" / "lake")
    undisturbed = evening(folder / "new", "2026-10-30", since="last")
    undisturbed.run()
    return stage.lake, content(undisturbed.lake)


@pytest.mark.parametrize("moments", [1, pytest.param(15, marks=SLOW)])
def test_an_evening_killed_under_faults(before: tuple[Path, dict[str, str]], tmp_path: Path, moments: int) -> None:
    old, whole = before

    def at(trial: int) -> Stage:
        stage = evening(tmp_path / str(trial), "2026-10-30", seed=trial, since="last", chunk_size=40)
        shutil.copytree(old, stage.lake)
        return stage

    survived(at, whole, seed=moments, longest_s=4.0, most=3, moments=moments)


@pytest.fixture
def damaged(filled: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a lake with damage in every table that bars are rebuilt from, and in the bars."""
    lake = tmp_path / "damaged" / "lake"
    shutil.copytree(filled / "data" / "lake", lake)
    for table, count in (("bars", 4), ("actions", 1), ("flows", 1), ("pages", 2)):
        files = sorted((lake / table).rglob("*.parquet"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
        for path in files[:count]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    yield lake


@SLOW
def test_a_repair_killed_again_and_again(filled: Path, damaged: Path, tmp_path: Path) -> None:
    moments = 20
    whole, kills, rng = content(filled / "data" / "lake"), 0, random.Random(moments)
    for trial in range(2 * moments):
        folder = tmp_path / str(trial)
        lake = folder / "data" / "lake"
        shutil.copytree(damaged, lake)
        command = job.command("scripts/ingest.py", folder, *job.FEW, verb="repair")
        for _ in range(3):
            process = subprocess.Popen(
                command, cwd=folder, env=job.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(rng.uniform(0.8, 4.0))
            kills += process.poll() is None
            process.kill()
            process.wait()
        ran = job.run("scripts/ingest.py", folder, *job.FEW, verb="repair")
        assert ran.status == 0 and ran.out.rstrip().endswith("clean"), ran.out + ran.err
        assert content(lake) == whole, f"trial {trial} ends with other content"
        shutil.rmtree(folder)
        if kills >= moments:
            return
    raise AssertionError(f"only {kills} of {moments} kills came while it worked: this proves nothing")
