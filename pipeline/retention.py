"""What the lake gives up: files of replaced table versions and the oldest kept answers, within what is configured."""

from __future__ import annotations

from pathlib import Path

from storage.emit import Emit
from storage.lake import Lake, LakeSection
from storage.section import digest_of
from storage.store import read_json, write_json

from .receipt import FILE, Receipt

FOLDER = "kept"  # in the lake: where the receipts are that name its versions, also those of other data folders


def tidy(lake: Lake, section: LakeSection, results: Path, emit: Emit) -> None:
    """Remove what is older than the section allows; never a version that a kept receipt names.

    `results` is the folder that holds a folder with a receipt for each ingest that is kept; data folders that share the
    lake are known from their own runs. Raises LakeError.
    """
    register = lake.path / FOLDER / f"{digest_of(str(results))[:16]}.json"
    write_json(register, {"results": str(results)})
    keep: dict[str, set[int]] = {}
    for known in register.parent.glob("*.json"):
        for path in Path(read_json(known)["results"]).glob(f"*/{FILE}"):
            for table, version in Receipt.load(path.parent).versions.items():
                keep.setdefault(table, set()).add(version)
    files = sum(lake.tidy(keep, section.keep_days).values())
    pages = lake.shrink("pages", section.archive_mb)
    if files or pages:
        text = f"removed {files} files of replaced table versions and {pages} of the oldest kept answers"
        emit("log", level="info", text=text)
