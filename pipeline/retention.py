"""What the lake gives up: files of replaced table versions and the oldest kept answers, within what is configured."""

from __future__ import annotations

from pathlib import Path

from storage.emit import Emit
from storage.lake import Lake, LakeSection

from .receipt import FILE, Receipt


def tidy(lake: Lake, section: LakeSection, results: Path, emit: Emit) -> None:
    """Remove what is older than the section allows; never a version that a kept receipt names.

    `results` is the folder that holds a folder with a receipt for each ingest that is kept. Raises LakeError.
    """
    keep: dict[str, set[int]] = {}
    for path in results.glob(f"*/{FILE}"):
        receipt = Receipt.load(path.parent)
        if receipt.lake == str(lake.path):
            for table, version in receipt.versions.items():
                keep.setdefault(table, set()).add(version)
    files = sum(lake.tidy(keep, section.keep_days).values())
    pages = lake.shrink("pages", section.archive_mb)
    if files or pages:
        text = f"removed {files} files of replaced table versions and {pages} of the oldest kept answers"
        emit("log", level="info", text=text)
