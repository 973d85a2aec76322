"""A simulator process for tests that need to say how it behaves, and the stage as a function or as a process to be
killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cluster import Cluster, ClusterSection
from pipeline.ingest import IngestSection, ingest
from pipeline.job import Job
from pipeline.kis.section import KisSection
from pipeline.receipt import Receipt
from storage.lake import LakeSection

ROOT = Path(__file__).resolve().parents[2]
CLOCK = "2026-10-30T20:30:00+09:00"
SMALL: dict[str, Any] = {
    "end": "2026-10-30",
    "start": "2024-05-02",
    "count": 40,
    "minute_symbols": 3,
    "minute_days": 3,
    "source": "simulated",
    "indices": [],
}
MARKET: dict[str, Any] = {"symbols": 20, "quota": 0}


FAULTS = {
    **dict.fromkeys(("reset", "html_500"), 0.05),
    **dict.fromkeys(("rejected", "cut", "truncated"), 0.03),
    **dict.fromkeys(("expired", "revoked"), 0.02),
    **dict.fromkeys(("repeated", "missing"), 0.1),
    **dict.fromkeys(("reordered", "duplicated", "empty", "extra"), 0.3),
}


def mixed_faults(folder: Path, seed: int, **change: float) -> Path:
    """Write the rates of FAULTS, some of them changed, as a file of faults; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"faults-{seed}.yaml"
    path.write_text(json.dumps({"seed": seed, **FAULTS, **change}))
    return path


@contextmanager
def server(*words: object, clock: str = CLOCK) -> Iterator[str]:
    """Run scripts/simulate_kis.py and yield its address."""
    command = [sys.executable, str(ROOT / "scripts" / "simulate_kis.py"), "--with-parent", "--clock", clock]
    process = subprocess.Popen([*command, *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["rest"]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@dataclass
class Stage:
    """Run the ingest stage in a folder of its own and keep what it said."""

    folder: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    kis: dict[str, Any] = field(default_factory=dict)
    ingest: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def receipt(self) -> Receipt:
        return Receipt.load(self.out)

    @property
    def logs(self) -> str:
        return "\n".join(str(event["text"]) for event in self.events if event["kind"] == "log")

    def sections(self) -> tuple[KisSection, IngestSection]:
        kis = {"environment": "simulator", "token_folder": str(self.folder / "tokens"), "simulator": MARKET} | self.kis
        return KisSection.model_validate(kis), IngestSection.model_validate(SMALL | self.ingest)

    def emit(self, kind: str, /, **fields: object) -> None:
        self.events.append({"kind": kind, **fields})

    def run(self) -> dict[str, Any]:
        self.out.mkdir(parents=True, exist_ok=True)
        job = Job(self.out, {}, Cluster(ClusterSection(device="cpu")), self.emit)
        return ingest(job, LakeSection(path=str(self.lake)), *self.sections())

    def process(self) -> subprocess.Popen[bytes]:
        """Start the same as a process of its own, to be killed."""
        kis, ingest = (section.model_dump(mode="json") for section in self.sections())
        text = json.dumps({"folder": str(self.folder), "kis": kis, "ingest": ingest})
        return subprocess.Popen([sys.executable, "-m", __name__, text], cwd=ROOT, start_new_session=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Stage(Path(given["folder"]), kis=given["kis"], ingest=given["ingest"]).run()
