"""Ctrl-C and SIGTERM end a run the same way, wherever the signal finds the program.

An exception that a signal raises inside a finaliser or a callback from C (a garbage collector's, LLVM's object cache)
is dropped by Python. Such a signal is sent again a moment later; it is remembered, too, and asked for between stages.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

LATER_S = 0.05


class Interrupted(BaseException):
    """The run was asked to end; `code` is the exit status that tells by which signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}; the same command goes on from what is kept")
        self.number = number
        self.code = 128 + number


class Interrupts:
    """Turn SIGINT and SIGTERM into Interrupted while a block runs."""

    def __init__(self) -> None:
        self._asked = 0
        self._again: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._again:
            self._again.cancel()
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        raise Interrupted(number)

    def _dropped(self, what: UnraisableHookArgs) -> None:
        """Send a signal again whose exception Python drops; show any other exception as before."""
        if isinstance(what.exc_value, Interrupted):
            self._again = threading.Timer(LATER_S, os.kill, (os.getpid(), what.exc_value.number))
            self._again.start()
        else:
            self._hook(what)

    def check(self) -> None:
        """Raise Interrupted when a signal came since the block began."""
        if self._asked:
            raise Interrupted(self._asked)
