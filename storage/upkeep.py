"""Keeping a lake sound: finding damaged files, taking them out, and removing files that only old versions name."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from . import lake_files
from .lake_log import LakeError, Log, LostRace
from .partitions import COLUMNS

MINIMUM_AGE = 3600.0  # s; no read or write of one table takes an hour, so none that goes on is disturbed
ATTEMPTS = 20


@dataclass(frozen=True)
class Damage:
    """Name a file that does not hold what was committed: its path inside the table's folder, its partition, why."""

    table: str
    file: str
    partition: dict[str, str]
    reason: str


def damaged(lake: Path, table: str) -> list[Damage]:
    """Read every file of a table's newest version and return those that are missing or wrong."""
    log = Log(lake, table)
    if not log.exists():
        return []
    out = []
    for file in log.latest().files:
        reason = lake_files.examine(log.folder, table, file)
        if reason and any(file.path == other.path for other in log.latest().files):  # not replaced meanwhile
            partition = dict(zip(COLUMNS.get(table, ()), file.partition, strict=True))
            out.append(Damage(table, file.path, partition, reason))
    return out


def discard(lake: Path, damage: Damage) -> None:
    """Take a damaged file out of the table's log and move it to the lake's folder `damaged`, if it is there at all.

    The rows of the file are gone from the table afterwards, nothing else is. A file that the newest version no longer
    has is left alone.
    """
    log = Log(lake, damage.table)
    for attempt in range(ATTEMPTS):
        version = log.latest()
        found = [file for file in version.files if file.path == damage.file]
        if not found:
            return
        try:
            log.commit(version, add=[], remove=found, read=[found[0].partition])
            break
        except LostRace:
            time.sleep(0.05 * (attempt + 1))
    else:
        raise LakeError(f"expected to take {damage.file} out of the table '{damage.table}' in {lake}, lost every race")
    source, aside = log.folder / damage.file, lake / "damaged" / damage.table / damage.file
    if source.exists():
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, aside)


def tidy(lake: Path, table: str, keep: Collection[int], days: float) -> int:
    """Delete files that no version needs and return how many.

    Needed are those of the newest version, of the versions in `keep` and of every version that was the newest one
    within the last `days` (one hour at least, so that readers and writers at work are not disturbed). Where the log
    does not tell which files a kept version has, nothing is deleted.
    """
    log = Log(lake, table)
    if not log.exists():
        return 0
    before = time.time() - max(days * 86400.0, MINIMUM_AGE)
    newest = log.latest()
    live = {file.path for file in newest.files}
    added, removed, first = _history(log.folder)
    kept = [number for number in keep if 0 <= number <= newest.number]
    if any(number < first for number in kept):
        return 0
    count = 0
    for path in sorted(log.folder.rglob("*.parquet")):
        name = path.relative_to(log.folder).as_posix()
        if name.startswith("_delta_log/") or name in live:
            continue
        if name in removed:
            gone, when = removed[name]
            if any(added.get(name, 0) <= number < gone for number in kept):
                continue
        elif (written := _written(path)) is not None and name not in added:  # left by a writer that was killed
            when = written
        else:
            continue
        if when >= before:
            continue
        path.unlink(missing_ok=True)
        count += 1
    return count


def shrink(lake: Path, table: str, size: float) -> int:
    """Take files out of a table, the first added first, until the others have `size` bytes at most; return how many.

    `tidy` deletes them when no kept version names them. A lost race leaves it to the next time.
    """
    log = Log(lake, table)
    if not log.exists():
        return 0
    version = log.latest()
    added, _, _ = _history(log.folder)
    held, gone = sum(file.size for file in version.files), []
    for file in sorted(version.files, key=lambda file: (added.get(file.path, 0), file.partition, file.path)):
        if held <= size:
            break
        gone.append(file)
        held -= file.size
    if gone:
        try:
            log.commit(version, add=[], remove=gone, read=sorted({file.partition for file in gone}))
        except LostRace:
            return 0
    return len(gone)


def _written(path: Path) -> float | None:
    """Return when a file was written (s), None where it is gone: another process tidies, or its write has failed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _history(folder: Path) -> tuple[dict[str, int], dict[str, tuple[int, float]], int]:
    """Return the version that added each file, the version and the time (s) that removed it, and the first version that
    the log still holds.
    """
    added: dict[str, int] = {}
    removed: dict[str, tuple[int, float]] = {}
    entries = sorted((folder / "_delta_log").glob("[0-9]*.json"))
    for entry in entries:
        number = int(entry.stem)
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                added[unquote(action["add"]["path"])] = number
            elif "remove" in action:
                stamp = action["remove"].get("deletionTimestamp")
                when = stamp / 1000 if stamp is not None else entry.stat().st_mtime
                removed[unquote(action["remove"]["path"])] = (number, when)
    return added, removed, int(entries[0].stem) if entries else 0
