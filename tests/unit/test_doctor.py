"""The doctor: every fault is named with what to do, secrets are not shown, and it runs where nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.config import Config, load
from pipeline.doctor import gpu, machine, packages
from pipeline.doctor.finding import Finding

SECRET = "PSdoctorTestSecret0123456789"


def _run(root: Path, *words: str, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, str(root / "scripts" / "doctor.py"), *words],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def test_script_reports_this_machine_quickly_and_shows_no_secret(root: Path) -> None:
    start = time.perf_counter()
    done = _run(root, LIVE_KIS_APP_KEY=SECRET, LIVE_KIS_APP_SECRET=SECRET, REDIS_URL=f"redis://:{SECRET}@host")
    assert time.perf_counter() - start < 5  # 0.2 s on an idle machine
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    for name in (
        "python",
        "packages",
        "cpu",
        "memory",
        "disk",
        "NUMBA_CACHE_DIR",
        "gpu",
        "clock",
        "time zones",
        "calendar",
    ):
        assert name in done.stdout
    lines = {line.split()[2]: line for line in done.stdout.splitlines() if " key " in line}
    assert lines["LIVE_KIS_APP_KEY"].split()[-1] == "set" and "not set" in lines["LIVE_KIS_ACCOUNT_NUMBER"]


def test_script_runs_where_nothing_is_installed(root: Path) -> None:
    done = _run(root, python=("-I", "-S"))
    assert done.returncode == 1
    assert "FAIL  packages" in done.stdout and "make run" in done.stdout and "Traceback" not in done.stderr


def test_script_fails_on_a_folder_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = _run(root, NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert done.returncode == 1 and "FAIL  folder NUMBA_CACHE_DIR" in done.stdout
    assert "-> " in next(line for line in done.stdout.splitlines() if line.startswith("FAIL"))


def test_every_finding_that_is_not_ok_says_what_to_do() -> None:
    for finding in doctor.run_checks():
        assert finding.text and (finding.status == "ok" or finding.what_to_do)


def test_folder_is_tried_where_its_nearest_parent_is_and_nothing_stays(tmp_path: Path) -> None:
    assert machine.writable("run.data", tmp_path / "a" / "b").status == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    found = machine.writable("run.data", tmp_path / "file" / "b")
    assert found.status == "fail" and "--run.data DIR" in found.what_to_do


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        ("numpy >=1", "ok", ""),
        ("numpy >=99", "warn", "is outside >=99"),
        ("no-such-package-anywhere >=1", "fail", "not installed"),
        ('no-such-package-anywhere ; python_version < "3"', "warn", ""),
    ],
)
def test_packages_are_compared_with_their_bounds(line: str, status: str, text: str) -> None:
    found = packages.installed([line])
    assert found[-1].status == status and text in found[-1].text
    assert status == "ok" or found[-1].what_to_do


def test_requirements_are_those_of_setup_cfg(root: Path) -> None:
    core, extra = packages.requirements(""), packages.requirements("gpu")
    assert any(line.startswith("numpy") for line in core) and not any("cudf" in line for line in core)
    assert any(line.startswith("cudf-cu13") for line in extra) and all("#" not in line for line in core + extra)
    assert packages.installed(core)[0].status == "ok"


def test_requirements_without_setup_cfg_are_those_of_the_installation(root: Path, tmp_path: Path) -> None:
    copied = tmp_path / "pipeline"
    shutil.copytree(root / "pipeline" / "doctor", copied / "doctor", ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "__init__.py").touch()
    code = "from pipeline.doctor.packages import *; print(ROOT); print(requirements(''), requirements('gpu'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == str(tmp_path) and "numpy" in second and "cudf-cu13" in second and "extra" not in second


GPU = {
    "gpus": [{"name": "H200", "gb": 150.0}],
    "driver": "580.1",
    "cuda_driver": 13000,
    "torch": {"version": "2.13.0", "cuda": "13.0", "available": True},
    "cupy": {"version": "14.2.0", "cuda": 13000},
    "cudf": {"version": "26.10.2", "sum": 3},
    "dask_cuda": {"version": "26.10.0"},
}


def _judged(device: gpu.Device, **changes: object) -> dict[str, Finding]:
    return {finding.name: finding for finding in gpu.judge_gpu({**GPU, **changes}, device)}


def test_gpu_whose_parts_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = _judged("gpu")
    assert all(f.status != "fail" for f in _judged("auto").values())
    assert [found[name].status for name in ("gpu", "gpu torch", "gpu cupy", "gpu cudf", "gpu dask_cuda")] == ["ok"] * 5
    assert "H200 150 GB" in found["gpu"].text and "CUDA up to 13.0" in found["gpu"].text


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        ({"torch": {"version": "2.13.0+cpu", "cuda": None, "available": False}}, "gpu torch", "build for CPUs"),
        ({"torch": {"version": "2.13.0", "cuda": "13.0", "available": False}}, "gpu torch", "sees no GPU"),
        ({"cuda_driver": 12040}, "gpu torch", "needs CUDA 13, the driver has 12"),
        ({"cuda_driver": 12040}, "gpu cupy", "needs CUDA 13, the driver has 12"),
        ({"cudf": None, "cudf_error": "ModuleNotFoundError: No module named 'cudf'"}, "gpu cudf", "No module named"),
    ],
)
def test_gpu_whose_parts_do_not_fit(changes: dict[str, object], name: str, text: str) -> None:
    wanted, maybe = _judged("gpu", **changes)[name], _judged("auto", **changes)[name]
    assert (wanted.status, maybe.status) == ("fail", "warn") and text in wanted.text and wanted.what_to_do


def test_no_gpu_is_a_fault_only_where_one_is_asked_for() -> None:
    assert gpu.judge_gpu({}, "auto")[0].status == "ok"
    for device, status in (("gpu", "fail"), ("auto", "warn")):
        found = gpu.judge_gpu({"driver_error": "NVMLError_LibraryNotFound"}, device)[0]  # type: ignore[arg-type]
        assert found.status == status and "LibraryNotFound" in found.text and "cluster.device" in found.what_to_do
    assert gpu.gpus("cpu")[0].text.startswith("not asked")


def test_hidden_gpus_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    found = _judged("gpu", visible=0, torch={"version": "2.13.0", "cuda": "13.0", "available": False})
    assert found["gpu visible"].status == "fail" and "is '7'" in found["gpu visible"].text
    assert list(found) == ["gpu", "gpu visible"], "a library that sees nothing then is no second fault"
    assert _judged("auto", visible=0)["gpu visible"].status == "warn"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    two = _judged("gpu", visible=1, gpus=[*GPU["gpus"]] * 2)  # type: ignore[misc]
    assert two["gpu visible"].status == "ok" and two["gpu visible"].text.startswith("1 of 2")
    assert "gpu visible" not in _judged("gpu", visible=1)


def _configured(*words: str) -> Config:
    return load(list(words), "test", "")[0]


def test_a_precision_that_the_device_does_not_have_is_a_fault() -> None:
    fp16 = ("--cluster.device", "cpu", "--train.mixed_precision", "fp16")
    drawn = ("--cluster.device", "cpu", "--search.space", '{"mixed_precision":{"choices":["off","fp16"]}}')

    def status(*words: str, trains: bool = True) -> str:
        return {f.name: f.status for f in doctor.run_checks(_configured(*words), trains=trains)}.get(
            "precision", "none"
        )

    assert status(*fp16) == "fail" and status(*fp16, trains=False) == "none"
    assert status("--cluster.device", "cpu") == "ok"
    assert status(*drawn, "--run.tune", "true") == "fail" and status(*drawn) == "ok"


def test_the_folder_of_tokens_is_tried_where_a_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    folder = ("--cluster.device", "cpu", "--kis.token_folder", str(tmp_path / "file" / "kis"))

    def found(*words: str) -> Finding | None:
        findings = {f.name: f for f in doctor.run_checks(_configured(*folder, *words))}
        return findings.get("folder kis.token_folder")

    live = found("--kis.environment", "live")
    assert live is not None and live.status == "fail" and "--kis.token_folder DIR" in live.what_to_do
    assert found("--kis.environment", "simulator") is None
    assert found("--kis.environment", "live", "--ingest.path", str(tmp_path)) is None


def test_probe_answers_without_a_gpu_and_leaves_this_process_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", gpu.PROBE, str(packages.ROOT)], capture_output=True, text=True, timeout=120, check=True
    )
    assert '"gpus": [' in done.stdout
    assert "cupy" not in sys.modules and "cudf" not in sys.modules


def test_keys_are_needed_only_by_the_broker() -> None:
    found = {f.name: f for f in doctor.keys({"LIVE_KIS_APP_KEY": SECRET}, ("LIVE_KIS_APP_KEY", "LIVE_KIS_APP_SECRET"))}
    assert found["key LIVE_KIS_APP_KEY"].status == "ok" and found["key LIVE_KIS_APP_SECRET"].status == "fail"
    assert ".env" in found["key LIVE_KIS_APP_SECRET"].what_to_do and SECRET not in repr(found)
    assert all(f.status == "ok" for f in doctor.keys({}, ()))


def test_clock_zones_and_calendar_of_this_machine() -> None:
    assert machine.clock().status == "ok" and machine.calendar().status == "ok"
    assert [f.status for f in machine.time_zones()] == ["ok"]


def test_clock_that_is_years_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 10 * 365 * 86_400)
    found = machine.clock()
    assert found.status == "fail" and "cannot be right" in found.text
