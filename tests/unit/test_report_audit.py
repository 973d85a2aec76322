"""The audit in the report: its verdict, checks and findings; how to make one where there is none; a new one makes the
report anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import certificates
from pipeline.cluster import Cluster, ClusterSection
from pipeline.config import Config
from pipeline.receipt import Receipt
from pipeline.report import ReportSection, report
from pipeline.stages import STAGES, Runner
from storage.emit import silent
from storage.store import read_json, write_json
from tests.stage_directories import everything
from tests.unit.test_report import Page, job, traded

CODE = "c" * 32
FINDING = {
    "check": "C1", "column": "roc_5", "symbol": "005930", "ts": "2023-05-02 06:30:00+00:00", "whole": 0.5,
    "got": "nan", "what": "from the bars up to <then> alone", "values": 3, "trials": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leave the stages where the runner leaves them."""
    found = traded(everything(tmp_path_factory.mktemp("run"), sessions=300, count=12))
    folder = tmp_path_factory.mktemp("data")
    for name, path in found.items():
        shutil.copytree(path, folder / "stages" / name / "key")
    manifest = folder / "stages" / "features" / "key" / "manifest.json"
    config = Config()
    sections = {"features": config.features.keyed(), "universe": config.universe.keyed()}
    write_json(manifest, {**read_json(manifest), "made_of": {"sections": sections, "code": CODE}})
    return folder


def inputs(data: Path) -> dict[str, Path]:
    return {path.name: path / "key" for path in (data / "stages").iterdir()}


def certify(data: Path, verdict: str, *findings: dict[str, Any], made: str = "2026-01-02 09:00:00+0900") -> None:
    told = {"trials": 20, "refused": 0, "comparisons": 12_345, "measured": {}}
    reason = "kama_10: its warm-up needs a longer history" if verdict == "cannot judge" else ""
    certificate = {
        "about": "features",
        "made": made,
        "verdict": verdict,
        "columns": ["roc_5", "kama_10"],
        "bars": {
            "interval": "1d",
            "rows": 3600,
            "symbols": 12,
            "first": "2021-01-04 06:30",
            "last": "2022-03-02 06:30",
        },
        "asked": {"checks": ["C1", "C3"], "tries": 20, "seed": 0},
        "checks": {
            "C1": {**told, "verdict": "found" if findings else "clean", "reason": "", "findings": list(findings)},
            "C3": {**told, "verdict": verdict if reason else "clean", "reason": reason, "findings": []},
        },
    }
    receipt, config = Receipt.load(data / "stages" / "ingest" / "key"), Config()
    name = certificates.key(config.features.keyed(), config.universe.keyed(), receipt, CODE)
    certificates.write(data, name, certificate)


def reported(data: Path, out: Path, language: Any = "en") -> tuple[dict[str, Any], str]:
    report(job(out, inputs(data)), ReportSection(language=language))
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.text.count("None") == 0
    return read_json(out / "performance_report.json"), page.text


@pytest.mark.parametrize("language", ["en", "ko"])
def test_without_a_certificate_the_report_says_how_to_get_one(data: Path, tmp_path: Path, language: str) -> None:
    shutil.rmtree(data / certificates.FOLDER, ignore_errors=True)
    numbers, words = reported(data, tmp_path, language)
    assert numbers["certificates"]["features"] == {"verdict": "none", "command": "python scripts/audit.py features"}
    assert "python scripts/audit.py features" in words
    assert not [one for one in numbers["findings"] if one["key"] == "d.audit"]


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("verdict", ["clean", "found", "cannot judge"])
def test_verdict_checks_range_and_findings_are_shown(data: Path, tmp_path: Path, language: str, verdict: str) -> None:
    certify(data, verdict, *([FINDING] if verdict == "found" else []))
    numbers, words = reported(data, tmp_path, language)
    told = numbers["certificates"]["features"]
    assert told["verdict"] == verdict and told["bars"]["symbols"] == 12 and told["columns"] == 2
    assert told["checks"]["C1"]["comparisons"] == 12_345
    assert all(shown in words for shown in ("12,345", "3,600", "2021-01-04", "2022-03-02", "C1", "C3"))
    assert ("needs a longer history" in words) == (verdict == "cannot judge")
    doubts = [one["text"] for one in numbers["findings"] if one["key"] == "d.audit"]
    if verdict == "found":
        assert told["findings"] == [FINDING] and "from the bars up to <then> alone" in words
        assert "roc_5" in doubts[0] and "005930" in words
    else:
        assert told["findings"] == [] == doubts


def test_a_certificate_that_says_something_else_makes_the_report_anew(data: Path) -> None:
    def key() -> str:
        config = Config.model_validate({"run": {"data": str(data)}})
        runner = Runner(config, Cluster(ClusterSection(device="cpu")), silent)
        (stage,) = [one for one in STAGES if one.certified]
        found = {name: read_json(path / "manifest.json") | {"key": "key"} for name, path in inputs(data).items()}
        return runner._look(stage, found)[0]

    certify(data, "clean")
    first = key()
    certify(data, "clean", made="2026-01-03 09:00:00+0900")
    assert key() == first
    certify(data, "found", FINDING)
    assert key() != first
    shutil.rmtree(data / certificates.FOLDER)
    assert key() != first
