"""Ctrl-C and SIGTERM end a run the same way, also when the exception that a signal raises is lost on its way.

Python raises KeyboardInterrupt wherever it happens to be; inside a garbage collector's callback, for one, it is
printed and dropped.
So the signal is remembered, too, and asked for between stages.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Self


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
        raise Interrupted(number)

    def check(self) -> None:
        """Raise Interrupted when a signal came since the block began."""
        if self._asked:
            raise Interrupted(self._asked)
