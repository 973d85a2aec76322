"""Ctrl-C and SIGTERM end a run the same way, wherever the signal finds the program.

An exception that a signal raises inside a garbage collector's callback or a finaliser is printed and dropped. There the
signal is put off for a moment; it is remembered, too, and asked for between stages.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

LATER_S = 0.05


class Interrupted(BaseException):
    """The run was asked to end; `code` is the exit status that tells by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}; the same command goes on where it stopped")
        self.code = 128 + number


class Interrupts:
    """Turn SIGINT and SIGTERM into Interrupted while a block runs."""

    def __init__(self) -> None:
        self._asked = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        if _dropped_in(frame):
            threading.Timer(LATER_S, os.kill, (os.getpid(), number)).start()
            return
        raise Interrupted(number)

    def check(self) -> None:
        """Raise Interrupted when a signal came since the block began."""
        if self._asked:
            raise Interrupted(self._asked)


def _dropped_in(frame: FrameType | None) -> bool:
    """Say whether an exception raised here would be dropped."""
    while frame is not None:
        if frame.f_code.co_name in ("_gc_callback", "__del__"):
            return True
        frame = frame.f_back
    return False
