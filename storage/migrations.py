"""The layout's version of a lake, and the steps that bring an older lake up to it.

`lake.json` beside the tables holds the number. A lake without that file but with tables is of version 1. Steps only
add: a file of an older layout is read as it is, with nulls for the columns that it does not have.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

from .lake_log import LakeError, Log, refused
from .schema import SCHEMAS

LAYOUT = 2
NAME = "lake.json"


def check(lake: Path) -> int:
    """Return the version of a lake's layout, LAYOUT where there is no lake yet. Raises LakeError for a newer one."""
    text = _text(lake)
    if text is None and any(Log(lake, table).exists() for table in SCHEMAS):
        text = _text(lake)  # written before the first table, perhaps a moment ago
        if text is None:
            return 1
    if text is None:
        return LAYOUT
    try:
        found = int(json.loads(text)["schema"])
    except (ValueError, TypeError, KeyError) as error:
        raise LakeError(
            f'expected {{"schema": n}} in {lake / NAME}, got {text[:80]!r}; write {{"schema": {LAYOUT}}} into it if '
            "this version of the program has written the lake"
        ) from error
    if found > LAYOUT:
        raise LakeError(
            f"expected a lake of layout {LAYOUT} or older at {lake}, got {found}: a newer version of this program has "
            "written it; update the program, or set --lake.path to another folder"
        )
    return found


def _text(lake: Path) -> str | None:
    try:
        return (lake / NAME).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LakeError(f"expected to read {lake / NAME}, got: {error}; give this user access to the lake") from error


def prepare(lake: Path) -> None:
    """Bring a lake to the newest layout before it is written to; several processes may do so at once."""
    found = check(lake)
    if found == LAYOUT and (lake / NAME).exists():
        return
    for version in range(found, LAYOUT):
        STEPS[version](lake)
    try:
        lake.mkdir(parents=True, exist_ok=True)
        draft = lake / f".{NAME}-{uuid.uuid4().hex}"
        draft.write_text(json.dumps({"schema": LAYOUT}) + "\n")
        draft.replace(lake / NAME)
    except OSError as error:
        raise refused(lake, f"its layout's version ({NAME})", error) from error


def _complete(lake: Path) -> None:
    """1 to 2: tables get the columns that they lack, and their logs are kept for as long as kept runs name versions."""
    for table in SCHEMAS:
        log = Log(lake, table)
        if log.exists():
            log.upgrade()


STEPS: dict[int, Callable[[Path], None]] = {1: _complete}  # from each version to the next
