"""A profiled run: what it leaves, and that it makes the same as one that is not."""

from __future__ import annotations

import importlib.util
import json
import pstats
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from . import job

RUN = ["train", "predict", "backtest", "report"]
BOARD = importlib.util.find_spec("tensorboard") is not None


def test_stages_that_ran_have_their_profiles_and_make_the_same(finished: tuple[Path, job.Ran], tmp_path: Path) -> None:
    folder, _ = finished
    words = (*job.SMOKE, *job.before("train", folder, tmp_path))
    extra = ("--run.tensorboard", "true") if BOARD else ()
    ran = job.run("run_optimized_pipeline.py", tmp_path, *words, "--profile", *extra)
    assert ran.status == 0, ran.err
    assert ran.states == {"ingest": "reused", "features": "reused", **dict.fromkeys(RUN, "done")}

    made = ran.folder / "profile"
    names = {f"{stage}{end}" for stage in RUN for end in (".prof", ".txt", "-memory.txt")}
    assert {p.name for p in made.iterdir()} == names | {"train-trace.json", "train-ops.txt"}
    functions = {stage: called(made / f"{stage}.prof") for stage in RUN}
    assert {"on_workers", "train_all"} <= functions["train"], "the client's and the worker's"
    assert "predict_all" in functions["predict"] and "collect" in functions["report"]
    assert json.loads((made / "train-trace.json").read_text())["traceEvents"]
    assert len([e for e in ran.events if e["kind"] == "log" and "snakeviz" in e["text"]]) == len(RUN)

    before, after = job.manifests(folder), job.manifests(tmp_path)
    same = ("key", "content")
    assert {s: [after[s][n] for n in same] for s in RUN} == {s: [before[s][n] for n in same] for s in RUN}

    history = pq.read_table(Path(after["train"]["directory"]) / "history.parquet").to_pylist()
    networks = [row for row in history if row["model"] == "lstm"]
    assert all(0 < row["step_p50_ms"] <= row["step_p95_ms"] and 0 <= row["wait_share"] <= 1 for row in networks)
    assert all(row["peak_memory_mb"] > 50 for row in networks)
    shown = json.loads((ran.folder / "performance_report.json").read_text())["training"]
    assert shown["lstm"]["step_p50_ms"] > 0 and shown["ridge"]["step_p50_ms"] is None
    assert "Waiting for data" in (ran.folder / "report.html").read_text(encoding="utf-8")
    if BOARD:
        assert {p.name for p in (ran.folder / "tensorboard").iterdir()} == {"ridge-0-fold-0", "lstm-0-fold-0"}


def called(path: Path) -> set[str]:
    stats: Any = pstats.Stats(str(path))
    return {name for _, _, name in stats.stats}
