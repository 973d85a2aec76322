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
from typing import Any

from pipeline import krx
from storage.emit import Emit

from .section import SimulatorSection
from .simulator.clock import moment

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "simulate_kis.py"
EVENING = time(20, 30)  # after every venue has closed
END_S = 5.0


class SimulatorError(Exception):
    """A simulator that does not start."""


@dataclass(frozen=True)
class Place:
    """Say where a running simulator answers, its delisted symbols, its time, and a folder that goes with it."""

    rest: str
    delisted: tuple[str, ...]
    now: datetime
    folder: Path


@contextlib.asynccontextmanager
async def simulator(section: SimulatorSection, end: date, emit: Emit) -> AsyncIterator[Place]:
    """Run a simulator while the block runs; its clock stands in the evening of `end` unless the section gives one.

    It ends with the block, whatever the reason, and with this process when that is killed. Raises SimulatorError with
    what the child said.
    """
    clock = section.clock or datetime.combine(end, EVENING, krx.KST).isoformat()
    words = ["--rest-port", section.port, "--seed", section.seed, "--symbols", section.symbols, "--with-parent"]
    words += ["--day-ends", section.day_ends, "--signal", section.signal, "--quota", section.quota, "--clock", clock]
    words += ["--faults", section.faults] if section.faults else []
    with tempfile.TemporaryDirectory(prefix="kis-simulator-") as folder:
        log = Path(folder) / "stderr"
        with log.open("wb") as errors:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SCRIPT),
                *map(str, words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=SCRIPT.parent.parent,
            )
        try:
            said = await _first_line(child, section.start_s, log)
            quota = f"{section.quota} calls/s" if section.quota else "any number of calls"
            text = f"KIS simulator at {said['rest']}, quota {quota}, clock {clock}, seed {section.seed}"
            emit("log", level="info", text=text)
            yield Place(said["rest"], tuple(said["delisted"]), moment(clock), Path(folder))
        finally:
            await _ended(child)


async def _first_line(child: asyncio.subprocess.Process, patience: float, log: Path) -> dict[str, Any]:
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), patience)
        found: dict[str, Any] = json.loads(line)
        return found
    except (TimeoutError, ValueError) as error:
        said = log.read_text(errors="replace").strip().splitlines()
        got = said[-1] if said else ("nothing" if isinstance(error, TimeoutError) else "no JSON object")
        raise SimulatorError(
            f"expected the KIS simulator to say within {patience:g} s where it listens, got: {got}; "
            "give another --kis.simulator.port (0 = any free) or run scripts/simulate_kis.py by hand"
        ) from None


async def _ended(child: asyncio.subprocess.Process) -> None:
    """End the child by SIGTERM and, when it does not listen, by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        await asyncio.wait_for(child.wait(), END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
