"""The run's event log and what is drawn from it while it runs: progress bars on a terminal, JSON lines otherwise,
two log files.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY_S = 1.0  # at most one progress line a second and stage where there is no terminal
LEARNING = ("train", "tune", "predict")


class RunLog:
    """Take events (`emit`), keep them in `events.jsonl` and the log files, and show them.

    optimized_pipeline.log holds everything, gpu_training.log what train, tune and predict say. Safe to call from
    several threads.
    """

    def __init__(self, directory: Path, level: str = "INFO", *, terminal: bool | None = None) -> None:
        self.directory = directory
        self.stage = ""
        self._level = logging.getLevelNamesMapping()[level]
        self._lock = threading.Lock()
        self._events = (directory / "events.jsonl").open("ab")
        self._logs = {
            name: (directory / name).open("a", encoding="utf-8")
            for name in ("optimized_pipeline.log", "gpu_training.log")
        }
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, float]] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._events.close()
        for log in self._logs.values():
            log.close()

    def emit(self, kind: str, /, **fields: object) -> None:
        """Record one event of the current stage."""
        now = time.time()
        with self._lock:
            event = {"t": round(now, 3), "stage": self.stage, "kind": kind, **fields}
            if kind == "progress":
                event |= self._rate(now, fields)
                if not self._due(now, fields):
                    return
            line = orjson.dumps(event, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
            self._events.write(line + b"\n")
            self._events.flush()
            self._text(kind, event)
            self._show(kind, event, line)

    def _rate(self, now: float, fields: dict[str, object]) -> dict[str, Any]:
        done, total = float(str(fields.get("done", 0))), float(str(fields.get("total", 0)))
        start, first = self._begun.setdefault(self.stage, (now, done))
        rate = (done - first) / (now - start) if now > start and done > first else 0.0
        return {"rate": round(rate, 1), "eta_s": round((total - done) / rate, 1) if rate else None}

    def _due(self, now: float, fields: dict[str, object]) -> bool:
        gap = 0.1 if self._terminal else EVERY_S
        if now - self._last.get(self.stage, 0.0) < gap and fields.get("done") != fields.get("total"):
            return False
        self._last[self.stage] = now
        return True

    def _text(self, kind: str, event: dict[str, Any]) -> None:
        level = str(event.get("level", "debug" if kind == "progress" else "info")).upper()
        if logging.getLevelNamesMapping().get(level, logging.INFO) < self._level:
            return
        rest = {k: v for k, v in event.items() if k not in ("t", "stage", "kind", "level", "text")}
        words = str(event.get("text", kind)) + (
            " " + " ".join(f"{k}={_short(v)}" for k, v in rest.items()) if rest else ""
        )
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["t"]))
        line = f"{stamp} {level:<7} {event['stage'] or 'run'}: {words}\n"
        for name, log in self._logs.items():
            if name == "optimized_pipeline.log" or event["stage"] in LEARNING:
                log.write(line)
                log.flush()

    def _bar(self) -> TaskID:
        """Return the current stage's bar; its clock runs from the first call."""
        if self.stage not in self._tasks:
            self._tasks[self.stage] = self._bars.add_task(self.stage, total=None, unit="", rate="")
        return self._tasks[self.stage]

    def _show(self, kind: str, event: dict[str, Any], line: bytes) -> None:
        level = logging.getLevelNamesMapping().get(str(event.get("level", "info")).upper(), logging.INFO)
        if not self._terminal:
            if level >= self._level:
                sys.stdout.write(line.decode() + "\n")
                sys.stdout.flush()
            return
        if kind == "progress":
            unit, rate = str(event.get("unit", "")), event["rate"]
            task = self._bar()
            self._bars.update(
                task, completed=event["done"], total=event["total"], unit=unit, rate=f"{rate:,.0f}/s" if rate else ""
            )
        elif kind == "log" and level >= self._level:
            self._console.print(f"[dim]{self.stage or 'run'}[/dim] {event['text']}", highlight=False)
        elif kind == "stage" and event.get("state") == "started":
            self._bar()
        elif kind in ("stage", "epoch") and self._level <= logging.INFO:
            rest = " ".join(f"{k}={_short(v)}" for k, v in event.items() if k not in ("t", "stage", "kind"))
            self._console.print(f"[bold]{self.stage}[/bold] {rest}", highlight=False)


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
