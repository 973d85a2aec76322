"""Starts of calls on a clock that tests move, and the most of them in any second."""

from __future__ import annotations


class FakeTime:
    """A clock that moves only when somebody sleeps, and then by a little more than asked, as real ones do."""

    def __init__(self, late: list[float]) -> None:
        self.now, self.late, self.slept = 1000.0, late or [0.0], 0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept += 1
        self.now += seconds + self.late[self.slept % len(self.late)]


def most_in_a_window(starts: list[float], window: float = 1.0) -> int:
    starts = sorted(starts)
    return max(sum(1 for other in starts[i:] if other - first < window) for i, first in enumerate(starts))
