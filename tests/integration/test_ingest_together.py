"""Two ingests at once on one data folder, and a disk that is full in the middle of one: nothing lost, nothing twice."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from storage.lake import Lake

from . import job
from .kis_server import CLOCK, server
from .recorder import Recorder, recorded

TABLES = ("bars", "actions", "flows", "coverage", "quarantine")
QUOTA = 60
ASKED = {
    "source": "simulated",
    "end": "2026-10-30",
    "start": "2025-08-01",
    "count": "6",
    "indices": '["0001"]',
    "minute_symbols": "0",
    "investors": "true",
    "chunk_size": "300",
}


def words(folder: Path, url: str = "", **change: Any) -> list[str]:
    """Return options of a run; one without an address starts a simulator of its own."""
    where = ["--kis.rest_url", url, "--kis.calls_per_second", str(QUOTA)] if url else []
    market = ["--kis.simulator.clock", CLOCK, "--kis.simulator.symbols", "20", "--kis.simulator.quota", "0"]
    asked = [word for name, value in (ASKED | change).items() for word in (f"--ingest.{name}", str(value))]
    return ["--kis.environment", "simulator", "--kis.token_folder", str(folder / "tokens"), *where, *market, *asked]


def started(folder: Path, given: list[str]) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    command = job.command("scripts/ingest.py", folder, *given, verb="run")
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=job.environment(), stdout=pipe, stderr=pipe, text=True)


def together(folder: Path, *given: list[str]) -> list[job.Ran]:
    """Start a run for each list of options at the same time and wait for all."""
    running = [started(folder, each) for each in given]
    said = [process.communicate(timeout=200) for process in running]
    return [job.Ran(p.returncode, out, err, folder / "runs") for p, (out, err) in zip(running, said)]


def content(lake: Path) -> dict[str, str]:
    return {table: Lake(lake).digest(table) for table in TABLES}


def test_the_same_request_twice_at_once_is_fetched_once(tmp_path: Path) -> None:
    recorder, alone = Recorder(), Recorder()
    with server("--symbols", 20, "--quota", QUOTA, "--token-gap", 0) as url:
        with recorded(url, alone) as through:
            once = job.call("scripts/ingest.py", tmp_path / "once", *words(tmp_path / "once", through), verb="run")
        with recorded(url, recorder) as through:
            given = words(tmp_path / "two", through)
            two = together(tmp_path / "two", given, given)
    assert [ran.status for ran in (once, *two)] == [0, 0, 0], once.err + two[0].err + two[1].err
    assert content(tmp_path / "two" / "data" / "lake") == content(tmp_path / "once" / "data" / "lake")
    two_s, its = (len(one.calls) - one.answers(b"EGW00201") for one in (recorder, alone))  # refused is asked again
    assert two_s == its > 30, "the second waits for the first and takes what it made"


def test_different_requests_at_once_make_one_lake(tmp_path: Path) -> None:
    """Overlapping dates and symbols under one name and one app key: the union is complete and the quota is theirs."""
    recorder = Recorder()
    with server("--symbols", 20, "--quota", QUOTA, "--token-gap", 0) as url, recorded(url, recorder) as through:
        early = {"end": "2026-03-31", "investors": "false", "chunk_size": "1"}
        late = {"start": "2025-11-03", "chunk_size": "1", "weekly": "true"}
        given = [words(tmp_path / "two", through, **change) for change in (early, late)]
        both = together(tmp_path / "two", *given)
        assert [ran.status for ran in both] == [0, 0], both[0].err + both[1].err
        refused = recorder.answers(b"EGW00201")
        for options in (words(tmp_path / "one", through, **change) for change in (early, late)):
            ran = job.call("scripts/ingest.py", tmp_path / "one", *options, verb="run")
            assert ran.status == 0, ran.err
        assert content(tmp_path / "two" / "data" / "lake") == content(tmp_path / "one" / "data" / "lake")
        for options in given:
            plan = job.call("scripts/ingest.py", tmp_path / "two", *options, "--json", verb="plan")
            assert plan.status == 0 and plan.lines[-1]["calls"] == 0, "nothing that was fetched is forgotten"
    assert refused <= 2 and len(recorder.calls) > 50


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing(disk: Path, tmp_path: Path) -> None:
    """The same command, with a little more room each time, ends with the content of one run."""
    once, small = tmp_path / "once", tmp_path / "small"
    ran = job.call("scripts/ingest.py", once, *words(once), verb="run")
    assert ran.status == 0, ran.err
    failures, held = [], []
    for size in range(100, 3000, 80):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
        ran = job.run("scripts/ingest.py", small, *words(small), "--lake.path", str(disk / "lake"), verb="run")
        if ran.status == 0:
            break
        assert ran.status == 2 and "Traceback" not in ran.err, ran.err
        assert "No space left" in ran.err, ran.err
        failures.append(ran.err)
        held.append(Lake(disk / "lake").read("coverage").num_rows)
        assert Lake(disk / "lake").damaged() == []
    assert ran.status == 0 and content(disk / "lake") == content(once / "data" / "lake")
    assert len(failures) >= 2 and max(held) > 0 and held == sorted(held), "it failed before and in the middle"
