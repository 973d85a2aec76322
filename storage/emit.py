"""How work tells what it does: one callable, so that lower floors need to know neither logs nor progress bars."""

from __future__ import annotations

from typing import Protocol


class Emit(Protocol):
    """Report an event: `emit("progress", done=3, total=8, unit="groups")`, `emit("epoch", loss=…)`, `emit("log",
    level="info", text="…")`.
    """

    def __call__(self, kind: str, /, **fields: object) -> None: ...


def silent(kind: str, /, **fields: object) -> None:
    """Drop every event."""
