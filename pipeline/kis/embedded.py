"""The simulator as a child of this process, for runs without a broker: started, asked where it is, and always ended.

The child is asked over real HTTP like any other server, so that nothing in the path of the data knows that it is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

from pipeline import krx
from storage.emit import Emit

from .section import SimulatorSection

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "simulate_kis.py"
EVENING = time(20, 30)  # after every venue has closed
END_S = 5.0


class SimulatorError(Exception):
    """A simulator that does not start."""


@dataclass(frozen=True)
class Place:
    """Say where a running simulator answers, which symbols it has delisted, its own day, and a folder that goes with it."""

    rest: str
    delisted: tuple[str, ...]
    today: date
    folder: Path


@contextlib.asynccontextmanager
async def simulator(section: SimulatorSection, end: date, emit: Emit) -> AsyncIterator[Place]:
    """Run a simulator whose clock stands in the evening of `end` (unless the section gives one) while the block runs.

    It ends when the block does, whatever the reason, and by itself when this process is killed: it watches its standard input.
    Raises SimulatorError with what the child said.
    """
    clock = section.clock or datetime.combine(end, EVENING, krx.KST).isoformat()
    words = ["--rest-port", section.port, "--ws-port", 0, "--seed", section.seed, "--symbols", section.symbols]
    words += ["--signal", section.signal, "--quota", section.quota, "--clock", clock, "--until-stdin-closes"]
    words += ["--faults", section.faults] if section.faults else []
    with tempfile.TemporaryDirectory(prefix="kis-simulator-") as folder:
        log = Path(folder) / "stderr"
        with log.open("wb") as errors:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SCRIPT),
                *map(str, words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=SCRIPT.parent.parent,
            )
        try:
            said = await _first_line(child, section.start_s, log)
            quota = f"{section.quota} calls/s" if section.quota else "any number of calls"
            emit("log", level="info", text=f"KIS simulator at {said['rest']}, quota {quota}, clock {clock}, seed {section.seed}")
            yield Place(said["rest"], tuple(said["delisted"]), datetime.fromisoformat(clock).astimezone(krx.KST).date(), Path(folder))
        finally:
            await _ended(child)
