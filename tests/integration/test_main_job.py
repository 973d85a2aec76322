"""The main job as a user runs it, from an empty folder to the report, and again."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
from distributed import LocalCluster

from . import job

STAGES = job.STAGES


def test_every_stage_ran_and_the_run_folder_is_complete(finished: tuple[Path, job.Ran]) -> None:
    _, ran = finished
    assert ran.states == dict.fromkeys(STAGES, "done")
    names = {p.name for p in ran.folder.iterdir()}
    assert names >= {
        "config.yaml", "manifest.json", "environment.json", "events.jsonl",
        "optimized_pipeline.log", "gpu_training.log",
        "performance_report.json", "performance_analysis.png", "report.html",
    }  # fmt: skip
    record = json.loads((ran.folder / "manifest.json").read_text())
    assert record["state"] == "done"
    assert all(record["stages"][s]["peak_memory_mb"] > 50 for s in STAGES)
    assert json.loads((ran.folder / "environment.json").read_text())["device"] in ("cpu", "gpu")
    assert re.fullmatch(r"\d{8}-\d{6}_smoke_[0-9a-f]{8}", ran.folder.name)
    assert (ran.folder / "performance_analysis.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_one_offline_file_with_the_numbers(finished: tuple[Path, job.Ran]) -> None:
    _, ran = finished
    html = (ran.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", html)
    assert "<svg" in html
    numbers = json.loads((ran.folder / "performance_report.json").read_text())
    assert numbers


def test_stages_show_up_under_their_names_and_the_dashboard_is_told(finished: tuple[Path, job.Ran]) -> None:
    _, ran = finished
    cluster = [e for e in ran.events if e["kind"] == "cluster"]
    assert len(cluster) == 1
    assert cluster[0]["dashboard"].startswith("http://127.0.0.1:")
    progress = {e["stage"] for e in ran.events if e["kind"] == "progress"}
    assert progress >= {"ingest", "features", "train"}


def test_again_everything_is_reused_and_no_cluster_started(finished: tuple[Path, job.Ran]) -> None:
    folder, first = finished
    again = job.run("run_optimized_pipeline.py", folder, *job.SMOKE)
    assert again.status == 0, again.err
    assert again.states == dict.fromkeys(STAGES, "reused")
    assert not [e for e in again.events if e["kind"] == "cluster"]
    assert (again.folder / "report.html").read_bytes() == (first.folder / "report.html").read_bytes()


def test_a_changed_worker_count_invalidates_nothing(finished: tuple[Path, job.Ran]) -> None:
    folder, _ = finished
    found = job.call(
        "run_optimized_pipeline.py", folder, *job.SMOKE, "--cluster.threads", "1", "--kis.max_workers", "3", "--dry-run"
    )
    assert {line.split()[1] for line in found.out.splitlines()} == {"reuse"}


def test_after_a_change_of_training_ingest_and_features_are_reused(finished: tuple[Path, job.Ran]) -> None:
    folder, _ = finished
    (before,) = (folder / "data" / "stages" / "train").glob("*/manifest.json")
    plan = job.call("run_optimized_pipeline.py", folder, *job.SMOKE, "--train.hidden_size", "8", "--dry-run")
    verbs = {line.split()[0]: line.split()[1] for line in plan.out.splitlines()}
    assert verbs == {
        "ingest": "reuse",
        "features": "reuse",
        "train": "run",
        "predict": "run",
        "backtest": "run",
        "report": "run",
    }
    assert re.search(r"train\.hidden_size 16 -> 8", plan.out)
    ran = job.run("scripts/train.py", folder, *job.SMOKE, "--train.hidden_size", "8")
    assert ran.states == {"ingest": "reused", "features": "reused", "train": "done"}, ran.err
    (made,) = set(before.parent.parent.glob("*/manifest.json")) - {before}
    shutil.rmtree(made.parent)  # others compare theirs with the one stage that is in the folder


def test_after_an_edit_of_a_kernel_features_are_not_reused(finished: tuple[Path, job.Ran], tmp_path: Path) -> None:
    folder, _ = finished
    for name in ("pipeline", "storage", "training", "configs", "scripts"):
        shutil.copytree(job.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(job.ROOT / "run_optimized_pipeline.py", tmp_path)
    shutil.copy2(job.ROOT / "setup.cfg", tmp_path)

    def verbs() -> dict[str, str]:
        plan = job.run(
            "run_optimized_pipeline.py", folder, *job.SMOKE, "--dry-run", root=tmp_path, PYTHONPATH=str(tmp_path)
        )
        assert plan.status == 0, plan.err
        return {line.split()[0]: line.split()[1] for line in plan.out.splitlines()}

    assert verbs() == dict.fromkeys(STAGES, "reuse")
    kernel = tmp_path / "pipeline" / "indicators" / "trend.py"
    kernel.write_text(kernel.read_text() + "\n# an edit\n")
    assert verbs() == {"ingest": "reuse", **dict.fromkeys(STAGES[1:], "run")}


def test_no_secret_reaches_log_manifest_or_report(finished: tuple[Path, job.Ran], tmp_path: Path) -> None:
    folder, _ = finished
    key, secret, account = "PSk3yk3yk3yk3yk3yk3yk3yk3yk3yk3yk3y9", "s3cr3ts3cr3t" * 15, "5012345601"
    ran = job.run(
        "run_optimized_pipeline.py", folder, *job.SMOKE, "--kis.environment", "simulator",
        LIVE_KIS_APP_KEY=key, LIVE_KIS_APP_SECRET=secret, LIVE_KIS_ACCOUNT_NUMBER=account, REDIS_URL="redis://:hushhush@localhost",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    said = ran.out + ran.err + "".join(p.read_text(errors="ignore") for p in ran.folder.iterdir() if p.suffix != ".png")
    for word in (key, secret, account, "hushhush"):
        assert word not in said


def test_a_run_that_fails_says_so_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = job.run("run_optimized_pipeline.py", tmp_path / "a", *job.SMOKE, "--run.data", str(tmp_path / "file" / "x"))
    assert ran.status == 2
    assert "Traceback" not in ran.err
    assert "cannot be written" in ran.err
    assert "--run.data" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--train.epoch", "3"), r"did you mean train\.num_epochs"),
        (
            ("--cluster.address", "tcp://127.0.0.1:9", "--cluster.timeout_s", "2"),
            r"expected a Dask scheduler at tcp://127\.0\.0\.1:9",
        ),
        (("--ingest.path", "/nowhere/at/all"), r"/nowhere/at/all"),
        (("--run.runs", "/proc/none"), r"expected a writable folder for runs"),
    ],
)
def test_bad_input_is_said_clearly(
    finished: tuple[Path, job.Ran], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ran = job.call("run_optimized_pipeline.py", tmp_path, *job.SMOKE, *words)
    assert ran.status == 2, ran.out[-2000:] + ran.err
    assert re.search(said, ran.err), ran.err
    assert "Traceback" not in ran.err


def test_a_port_in_use_is_said_clearly(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = job.call("scripts/ingest.py", tmp_path, *job.SMOKE, "--kis.simulator.port", port)
    assert ran.status == 2, ran.out[-2000:]
    assert port in ran.err
    assert "Traceback" not in ran.err


def test_a_gpu_that_is_not_there_is_said_clearly(tmp_path: Path) -> None:
    from pipeline.cluster import gpu_count

    if gpu_count():
        pytest.skip("this machine has a GPU")
    ran = job.call("run_optimized_pipeline.py", tmp_path, *job.SMOKE, "--cluster.device", "gpu")
    assert ran.status == 2
    assert "expected a GPU" in ran.err


def test_two_workers_of_another_scheduler_give_the_same_content(finished: tuple[Path, job.Ran], tmp_path: Path) -> None:
    first = sorted((finished[0] / "runs").iterdir())[0]
    ingested = job.before("features", finished[0], tmp_path)  # that stage has no tasks for workers
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        resources={"train": 1},
    ) as there:
        words = (*ingested, "--cluster.address", there.scheduler_address)
        ran = job.run("run_optimized_pipeline.py", tmp_path, *job.SMOKE, *words)
        assert ran.status == 0, ran.err + ran.out[-2000:]
        assert ran.states == {"ingest": "reused", **dict.fromkeys(STAGES[1:], "done")}
        assert len(there.workers) == 2, "the run ended a cluster that was not its own"
    one, two = (json.loads((r / "manifest.json").read_text())["stages"] for r in (first, ran.folder))
    assert {s: two[s]["content"] for s in STAGES} == {s: one[s]["content"] for s in STAGES}
