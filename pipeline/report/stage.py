"""The report stage: read what the others left, think about it, write three files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipeline.job import Job
from storage.section import digest_of
from storage.store import replacing, write_json

from .section import ReportSection

# What differs from run to run, or names what made it.
CLOCK = (
    *("generated", "made", "stages", "throughput", "provenance", "seconds", "samples_per_s"),
    *("step_p50_ms", "step_p95_ms", "wait_share", "peak_memory_mb", "peak_device_mb", "gpu_use"),
)


def report(job: Job, report: ReportSection) -> dict[str, Any]:
    """Write performance_report.json, performance_analysis.png and report.html.

    Inputs: "ingest", "features", "train", "predict", "backtest", and "tune" where it ran. Raises ReportError when one
    of them lacks a file. The digest covers the numbers without times and versions.
    """
    from .numbers import collect
    from .page import page
    from .picture import draw
    from .sources import read

    job.out.mkdir(parents=True, exist_ok=True)
    job.emit("progress", done=0, total=3, unit="files")
    sources = read(job.inputs)
    numbers = collect(sources, report, job.cluster.device, datetime.now(UTC))
    write_json(job.out / "performance_report.json", numbers)
    job.emit("progress", done=1, total=3, unit="files")
    with replacing(job.out / "performance_analysis.png") as temporary:
        draw(temporary, numbers, sources, report)
    job.emit("progress", done=2, total=3, unit="files")
    with replacing(job.out / "report.html") as temporary:
        temporary.write_text(page(numbers, sources, report), encoding="utf-8")
    job.emit("progress", done=3, total=3, unit="files")
    for finding in numbers["findings"]:
        job.emit("log", level="info", text=finding["text"])
    content = digest_of(_timeless(numbers))
    return {"content": content, "rows": len(numbers["findings"]), "verdict": numbers["verdict"]["key"]}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in CLOCK}
    return [_timeless(v) for v in value] if isinstance(value, list) else value
