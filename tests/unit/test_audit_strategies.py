"""`audit.py strategies` on a small lake: exit states, a certificate, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit import command
from pipeline.strategies import ALL
from tests.leaks import next_close, still

from .test_audit_command import SYMBOLS, _nothing_from_outside, data

__all__ = ["_nothing_from_outside"]
QUICK = ("--tries", "3", "--draws", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data(tmp_path_factory.mktemp("audit"))


def audited(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command in this process; return its status and the certificate of its run, if it left one."""
    before = set((home / "runs").glob("*"))
    status = command.main(["strategies", *words, "--run.data", str(home / "data"), "--run.runs", str(home / "runs")])
    found = [path / command.FILE for path in set((home / "runs").glob("*")) - before]
    return status, json.loads(found[0].read_text()) if found and found[0].exists() else {}


@pytest.mark.slow
def test_clean_strategies_get_a_certificate_that_comes_out_the_same_again(home: Path) -> None:
    status, one = audited(home, "moving_average_cross", "rsi_reversion", *QUICK)
    assert (
        status == 0
        and one["verdict"] == "clean"
        and list(one["strategies"])
        == [
            "moving_average_cross",
            "rsi_reversion",
        ]
    )
    for told in one["strategies"].values():
        assert set(told["checks"]) == {"C1", "C2"} and told["verdict"] == "clean"
        assert all(check["measured"]["combinations"] == 4 for check in told["checks"].values())
    assert one["bars"] == {"interval": "1d", "rows": one["bars"]["rows"], "symbols": list(SYMBOLS)}
    status, two = audited(home, "moving_average_cross", "rsi_reversion", *QUICK)
    assert {**two, "made": one["made"]} == one
    _, less = audited(home, "moving_average_cross", *QUICK, "--checks", "C2", "--symbols", SYMBOLS[1])
    assert set(less["strategies"]["moving_average_cross"]["checks"]) == {"C2"}
    assert less["bars"]["symbols"] == [SYMBOLS[1]]


def test_a_step_that_looks_ahead_ends_with_status_1_and_its_place(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.strategies.ALL", (next_close,))
    status, told = audited(home, "next_close", *QUICK)
    assert status == 1 and told["verdict"] == "found"
    finding = told["strategies"]["next_close"]["checks"]["C1"]["findings"][0]
    assert finding["column"].endswith(" want") and finding["symbol"] in SYMBOLS and finding["whole"] != finding["got"]
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    lines = [event["text"] for event in events if "finding" in event]
    assert lines[0].startswith(f"C1 {finding['column']} of {finding['symbol']} at {finding['ts']}: ")


def test_what_cannot_be_judged_has_its_own_status(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.strategies.ALL", (*ALL, still))
    status, told = audited(home, "still", *QUICK)
    assert status == 3 and told["verdict"] == "cannot judge"
    assert "none of 4 combinations wants a side" in told["strategies"]["still"]["checks"]["C1"]["reason"]
    status, told = audited(home, "wm_pattern", *QUICK, "--optimize.interval", "1mo")
    assert status == 3 and "1mo" in told["strategies"]["wm_pattern"]["checks"]["C1"]["reason"]


BAD = {
    "did you mean 'wm_pattern'": ("wm_patern",),
    "checks among C1, C2": ("--checks", "C3"),
    "'000004'; did you mean": ("--symbols", "000004"),
    "at least one of --draws": ("--draws", "0"),
    "set --optimize.interval": ("--optimize.interval", "15m"),
    "argument --tries: invalid int value: 'many'": ("--tries", "many"),
    "run ingest.py first": ("--run.data", "elsewhere"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_a_sentence(home: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*BAD[message], "--run.runs", str(home / "none")]
    if "--run.data" not in words:
        words += ["--run.data", str(home / "data")]
    assert command.main(["strategies", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (home / "none").exists()
