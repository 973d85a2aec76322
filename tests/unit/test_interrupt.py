"""A signal is not lost, even where the exception that it raises would be dropped."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pipeline.interrupt import Interrupted, Interrupts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_raises_with_its_exit_status(number: int, code: int) -> None:
    with Interrupts(), pytest.raises(Interrupted) as error:
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert error.value.code == code


def test_a_signal_inside_a_finaliser_comes_a_moment_later(capfd: pytest.CaptureFixture[str]) -> None:
    class Late:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass

    with Interrupts() as interrupts:
        del_me = [Late()]
        del_me.clear()
        with pytest.raises(Interrupted):
            time.sleep(2)
        with pytest.raises(Interrupted):
            interrupts.check()
    assert "Exception ignored" not in capfd.readouterr().err


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
