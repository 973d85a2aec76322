"""The event log: whole JSON lines, levels, two log files, progress with rate, from several threads."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from pipeline.events import RunLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


def test_events_are_json_lines_in_file_and_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, terminal=False) as log:
        log.stage = "ingest"
        log.emit("log", level="info", text="삼성전자 begun")
        log.emit("progress", done=1, total=2, unit="rows")
        log.emit("progress", done=2, total=2, unit="rows")
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert shown == lines(tmp_path)
    assert [e["kind"] for e in shown] == ["log", "progress", "progress"]
    assert shown[0]["text"] == "삼성전자 begun"
    assert shown[2]["done"] == 2


def test_many_progress_events_become_few_lines_but_never_lose_the_last(tmp_path: Path) -> None:
    with RunLog(tmp_path, terminal=False) as log:
        log.stage = "features"
        for i in range(2001):
            log.emit("progress", done=i, total=2000, unit="rows")
    found = lines(tmp_path)
    assert len(found) < 20
    assert found[-1]["done"] == 2000
    assert found[-1]["rate"] > 0  # type: ignore[operator]


def test_levels_and_the_training_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, "WARNING", terminal=False) as log:
        log.stage = "train"
        log.emit("log", level="info", text="quiet")
        log.emit("log", level="warning", text="loud")
        log.stage = "ingest"
        log.emit("log", level="error", text="elsewhere")
    assert "quiet" not in (tmp_path / "optimized_pipeline.log").read_text()
    training = (tmp_path / "gpu_training.log").read_text()
    assert "loud" in training
    assert "elsewhere" not in training
    assert "quiet" not in capsys.readouterr().out


def test_threads_do_not_mix_lines(tmp_path: Path) -> None:
    with RunLog(tmp_path, terminal=False) as log:
        threads = [
            threading.Thread(target=lambda i=i: [log.emit("log", text=f"{i} " + "x" * 500) for _ in range(50)])
            for i in range(8)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(lines(tmp_path)) == 400


def test_on_a_terminal_bars_are_drawn_and_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, terminal=True) as log:
        log.stage = "features"
        log.emit("progress", done=8, total=8, unit="groups")
        log.emit("log", level="info", text="done")
    out = capsys.readouterr()
    assert out.out == ""
    assert "done" in out.err
