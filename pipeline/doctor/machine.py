"""Cores, memory, disk, folders, clock and time zones of this machine."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from .finding import Finding, Status
from .packages import DISTRIBUTION

MEMORY_GB = (2.0, 6.0)  # below the first a run fails, below the second it may
DISK_GB = (1.0, 5.0)
RELEASED = datetime(2026, 11, 1, tzinfo=UTC)  # no right clock shows an earlier day
CALENDAR = Path(__file__).resolve().parent.parent / "krx_holidays.json"


def cpu() -> Finding:
    """Count the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _number(Path("/sys/fs/cgroup/cpu.max"), 0)
    period = _number(Path("/sys/fs/cgroup/cpu.max"), 1) or 100_000.0
    text = f"{cores} core(s)" + (f", limited to {quota / period:g} by the container" if quota else "")
    if cores < 2 or (quota and quota / period < 1.5):
        return Finding(
            "cpu", "warn", text, "give it two cores or more; with one the main job takes about twice as long"
        )
    return Finding("cpu", "ok", text)


def memory() -> Finding:
    """Compare the memory that is free now, also inside a container, with what a run needs."""
    free = _meminfo("MemAvailable") / 1e9
    limit, used = _number(Path("/sys/fs/cgroup/memory.max"), 0), _number(Path("/sys/fs/cgroup/memory.current"), 0)
    if limit:
        free = min(free, (limit - used) / 1e9)
    text = f"{free:.1f} GB free of {min(_meminfo('MemTotal') / 1e9, limit / 1e9 if limit else 1e9):.1f} GB"
    return _amount(
        "memory", free, MEMORY_GB, text, "end other programs, or use fewer symbols (--ingest.*) and cluster.threads"
    )


def disk(folder: Path) -> Finding:
    """Compare the space that is free where results go with what a run writes."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free / 1e9
    return _amount(
        "disk", free, DISK_GB, f"{free:.1f} GB free at {place}", "free some space, or set --run.data to another disk"
    )


def folders(data: Path, runs: Path, lake: Path) -> dict[str, Path]:
    """Return the folders that a run writes to, by the key that moves them."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    numba = Path(os.environ.get("NUMBA_CACHE_DIR") or home / DISTRIBUTION / "numba")
    return {
        "run.data": data,
        "run.runs": runs,
        "lake.path": lake,
        "NUMBA_CACHE_DIR": numba,
        "TMPDIR": Path(tempfile.gettempdir()),
    }


def writable(name: str, folder: Path) -> Finding:
    """Try to write a file in a folder, or in its nearest parent where it does not exist yet; nothing is left behind."""
    label, place = f"folder {name}", _existing(folder)
    option = f"--{name} DIR" if "." in name else f"the variable {name}"
    try:
        with tempfile.TemporaryFile(dir=place) as handle:
            handle.write(b"x")
    except OSError as error:
        # Without its usual folder compiled code goes to the temporary one, and the first run of each boot is slower.
        status: Status = "warn" if name == "NUMBA_CACHE_DIR" and "NUMBA_CACHE_DIR" not in os.environ else "fail"
        return Finding(
            label, status, f"{place} cannot be written: {error.strerror}", f"change its rights, or set {option}"
        )
    return Finding(label, "ok", f"{folder.absolute()} can be written")


def clock() -> Finding:
    """Check that the clock shows a possible day and goes forward as fast as the monotonic one; tokens and TLS depend on
    it.
    """
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.02)
    drift = (time.time() - wall) - (time.monotonic() - steady)
    now = datetime.fromtimestamp(wall, UTC)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if not RELEASED <= now < datetime(2100, 1, 1, tzinfo=UTC):
        return Finding("clock", "fail", f"{text} cannot be right", "set the clock (timedatectl set-ntp true)")
    if abs(drift) > 0.5:
        return Finding(
            "clock",
            "warn",
            f"{text}, jumped by {drift:.1f} s",
            "let one service set the clock (timedatectl set-ntp true)",
        )
    return Finding("clock", "ok", text)


def time_zones() -> Iterator[Finding]:
    """Check the time zone databases of Python and of Arrow, which reads the system's."""
    try:
        zoneinfo.ZoneInfo("Asia/Seoul")
    except zoneinfo.ZoneInfoNotFoundError:
        yield Finding("time zones", "fail", "Asia/Seoul is not known", "pip install tzdata")
        return
    if any((Path(folder) / "Asia" / "Seoul").exists() for folder in zoneinfo.TZPATH):
        yield Finding("time zones", "ok", "Asia/Seoul is known")
    else:
        yield Finding(
            "time zones",
            "warn",
            "the system has no zone files; files of other exchanges need them",
            "install the system package tzdata",
        )


def calendar() -> Finding:
    """Check that the table of KRX sessions reaches beyond today."""
    last = date.fromisoformat(json.loads(CALENDAR.read_text())["last"])
    left = (last - datetime.now(UTC).date()).days
    if left < 30:
        return Finding(
            "calendar",
            "fail" if left < 0 else "warn",
            f"KRX sessions are known to {last}",
            "run scripts/build_calendar.py, or update",
        )
    return Finding("calendar", "ok", f"KRX sessions are known to {last}")


def _amount(name: str, found: float, bounds: tuple[float, float], text: str, remedy: str) -> Finding:
    least, good = bounds
    if found >= good:
        return Finding(name, "ok", text)
    return Finding(name, "fail" if found < least else "warn", f"{text}, expected {good:g} GB", remedy)


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _meminfo(name: str) -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    return 0.0


def _number(file: Path, place: int) -> float:
    """Return one number of a control group's file; 0 = no limit or no such file."""
    try:
        return float(file.read_text().split()[place])
    except (OSError, ValueError, IndexError):
        return 0.0
