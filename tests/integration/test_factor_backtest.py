"""A factor backtest from the command line: no model is trained, and the report is whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

from . import job

FACTOR = ("--backtest.scores", '{"indicator": "roc", "params": {"n": 20}}', "--backtest.rebalance", "monthly")


def test_a_factor_is_traded_and_reported_without_a_model(filled: Path, tmp_path: Path) -> None:
    words = (*job.FEW, "--lake.path", str(filled / "data" / "lake"), *FACTOR)
    plan = job.call("scripts/report.py", tmp_path, *words, "--dry-run")
    assert [line.split()[0] for line in plan.out.splitlines()] == ["ingest", "backtest", "report"]
    ran = job.run("scripts/report.py", tmp_path, *words)
    assert ran.status == 0, ran.err
    assert ran.states == {"ingest": "done", "backtest": "done", "report": "done"}
    numbers = json.loads((ran.folder / "performance_report.json").read_text())
    assert numbers["backtest"]["model"] == "roc_20" and numbers["backtest"]["split"] == "all"
    assert numbers["backtest"]["rebalance"] == "monthly" and numbers["backtest"]["metrics"]["trades"] > 0
    said = next(e["text"] for e in ran.events if e["kind"] == "log" and "analysis.json" in e["text"])
    assert (Path(re.split(r": ", said)[1]) / "analysis.json").exists()


def test_scores_that_cannot_be_are_one_sentence(tmp_path: Path) -> None:
    ran = job.call("scripts/backtest.py", tmp_path, *job.FEW, "--backtest.scores", '{"indicator": "macd"}')
    assert ran.status == 2 and ran.err.count("\n") == 1
    assert "expected one column to trade, got 3 of indicator 'macd'" in ran.err
