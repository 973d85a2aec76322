"""Run the project's commands as a user does: real processes, a data folder of their own."""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ("--config", str(ROOT / "configs" / "smoke.yaml"), "--ingest.end", "2026-10-30")

STAGES = ("ingest", "features", "train", "predict", "backtest", "report")

FEW = (
    *("--kis.simulator.clock", "2026-10-30", "--kis.simulator.symbols", "20", "--kis.simulator.quota", "0"),
    *("--ingest.end", "2026-10-30", "--ingest.start", "2025-11-03", "--ingest.count", "8"),
    *("--ingest.minute_symbols", "2", "--ingest.minute_days", "3", "--ingest.investors", "true"),
)


@dataclass(frozen=True)
class Ran:
    """What a command left: status, output, the events among it, its run folder."""

    status: int
    out: str
    err: str
    runs: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        return [e for line in self.out.splitlines() if line.startswith("{") and "kind" in (e := json.loads(line))]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What a verb said with --json: the objects without a kind."""
        found = [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]
        return [line for line in found if "kind" not in line]

    @property
    def states(self) -> dict[str, str]:
        """Stage -> 'done' or 'reused'."""
        return {e["stage"]: e["state"] for e in self.events if e["kind"] == "stage" and e["state"] != "started"}

    @property
    def folder(self) -> Path:
        return sorted(self.runs.iterdir())[-1]


def command(script: str, folder: Path, *words: str, root: Path = ROOT, verb: str = "") -> list[str]:
    return [
        sys.executable,
        str(root / script),
        *([verb] if verb else []),
        "--run.data",
        str(folder / "data"),
        "--run.runs",
        str(folder / "runs"),
        *words,
    ]


def environment(**more: str) -> dict[str, str]:
    """The environment without keys that would send a test to the broker."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LIVE_KIS", "PAPER_KIS", "PIPELINE__"))}
    return {**clean, **more}


def run(
    script: str, folder: Path, *words: str, root: Path = ROOT, timeout: float = 170, verb: str = "", **more: str
) -> Ran:
    """Run a script to its end in an empty working directory (so that no .env is found)."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command(script, folder, *words, root=root, verb=verb),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        env=environment(**more),
    )
    return Ran(done.returncode, done.stdout, done.stderr, folder / "runs")


def call(script: str, folder: Path, *words: str, verb: str = "", **more: str) -> Ran:
    """Do in this process what `run` does in one of its own, without the seconds that its start takes."""
    folder.mkdir(parents=True, exist_ok=True)
    _, *argv = command(script, folder, *words, verb=verb)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", argv)
        for name in os.environ.keys() - environment().keys():
            patch.delenv(name)
        for name, value in more.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(argv[0], run_name="__main__")
    return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue(), folder / "runs")


def before(stage: str, made: Path, folder: Path) -> tuple[str, ...]:
    """Copy the stages before one from a finished folder; return the options of a run that goes on from them."""
    for name in STAGES[: STAGES.index(stage)]:
        shutil.copytree(made / "data" / "stages" / name, folder / "data" / "stages" / name)
    return () if stage == "ingest" else ("--lake.path", str(made / "data" / "lake"))


def manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the latest manifest of each stage in a data folder."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "data" / "stages").glob("*/*/manifest.json"), key=lambda p: p.stat().st_mtime):
        found[path.parent.parent.name] = {**json.loads(path.read_text()), "directory": str(path.parent)}
    return found
