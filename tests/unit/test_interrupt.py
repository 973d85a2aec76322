"""A signal is not lost, even where the exception that it raises would be dropped."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from pipeline.interrupt import Interrupted, Interrupts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_with_its_exit_status(number: int, code: int) -> None:
    with Interrupts(), pytest.raises(Interrupted) as error:
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert error.value.code == code


def _in_finaliser() -> None:
    class Late:
        def __del__(self) -> None:
            _signalled()

    del_me = [Late()]
    del_me.clear()


def _in_callback() -> None:
    """As LLVM's object cache calls back while a kernel is compiled."""
    ctypes.CFUNCTYPE(None)(_signalled)()


def _signalled() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass


@pytest.mark.parametrize("dropping", [_in_finaliser, _in_callback])
def test_a_signal_whose_exception_is_dropped_comes_a_moment_later(
    dropping: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with Interrupts() as interrupts:
        dropping()
        with pytest.raises(Interrupted):
            time.sleep(2)
        with pytest.raises(Interrupted):
            interrupts.check()
    assert "Exception ignored" not in capfd.readouterr().err


def test_other_dropped_exceptions_are_shown_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: shown.append(what.exc_value))
    with Interrupts():
        ctypes.CFUNCTYPE(None)(lambda: 1 / 0)()
    assert [type(error) for error in shown] == [ZeroDivisionError]


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before
