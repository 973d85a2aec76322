"""What could not be used of the files of a load: told as it is met, and counted for the case that nothing is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import quality
from storage.emit import Emit

TOLD = 5  # files named in a message


class Troubles:
    """Count quarantined rows by reason and keep the first."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._reasons: Counter[str] = Counter()
        self._first: list[str] = []

    def note(self, quarantined: pa.Table) -> None:
        """Count rows of QUARANTINE, and warn of files of no use."""
        self._reasons.update(quality.reasons(quarantined))
        whole = quarantined.filter(pc.equal(quarantined["line"], -1)).to_pylist()
        for row in [*whole, *quarantined.slice(0, TOLD).to_pylist()]:
            if len(self._first) < TOLD:
                where = row["file"] if row["line"] < 0 else f"{row['file']} line {row['line']}"
                self._first.append(f"{where}: {row['reason']}: {row['row']}")
        for row in whole:
            self._emit("log", level="warning", text=f"{row['file']} is not used: {row['row']}")

    def nothing(self, files: int, path: Path) -> str:
        """Say that there is nothing to use, and why."""
        counted = ", ".join(f"{reason} {n}" for reason, n in self._reasons.most_common()) or "no rows"
        return (
            f"expected bars in {files} file(s) under {path.absolute()}, "
            f"got none that can be used ({counted}). First troubles: {' | '.join(self._first) or 'none'}"
        )
