"""The promise of the limiter: no second with more starts than allowed, whatever the schedule, in one process and in
several."""

import asyncio
import multiprocessing
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kis.limiter import MARGIN_S, Limiter


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


@given(
    rate=st.one_of(st.integers(1, 40).map(float), st.floats(0.2, 30)),
    gaps=st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.3, 0.9999, 1.0, 2.5]), min_size=1, max_size=120),
    late=st.lists(st.floats(0, 0.4), max_size=5),
    refused=st.sets(st.integers(0, 119), max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_no_second_holds_more_starts_than_allowed(
    rate: float, gaps: list[float], late: list[float], refused: set[int]
) -> None:
    fake = FakeTime(late)
    limiter = Limiter(rate, clock=fake.clock, sleep=fake.sleep)

    async def run() -> list[float]:
        starts = []
        for i, gap in enumerate(gaps):
            fake.now += gap
            starts.append(await limiter.start())
            (limiter.rejected if i in refused else limiter.accepted)()
        return starts

    starts = asyncio.run(run())
    assert most_in_a_window(starts) <= max(1, int(rate))
    if rate < 1:
        assert all(b - a >= 1 / rate for a, b in pairwise(starts))


@given(rate=st.integers(2, 50), calls=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_full_rate_is_used(rate: int, calls: int) -> None:
    fake = FakeTime([])
    limiter = Limiter(rate, clock=fake.clock, sleep=fake.sleep)

    async def run() -> list[float]:
        return [await limiter.start() for _ in range(calls)]

    starts = asyncio.run(run())
    assert starts[-1] - starts[0] <= ((calls - 1) // rate) * (1 + MARGIN_S) + 1e-6


def test_refusals_slow_down_and_accepted_calls_bring_the_rate_back() -> None:
    fake = FakeTime([])
    limiter = Limiter(20, clock=fake.clock, sleep=fake.sleep)

    async def run() -> None:
        await limiter.start()
        limiter.rejected()
        limiter.rejected()  # in the same half second: one event, one cut
        assert limiter.allowed == pytest.approx(16)
        for _ in range(40):
            fake.now += 1
            limiter.rejected()
        assert limiter.allowed == pytest.approx(1 / 61)
        before = fake.now
        await limiter.start()
        await limiter.start()
        assert fake.now - before >= 61
        for _ in range(2000):
            await limiter.start()
            limiter.accepted()
        assert limiter.allowed == pytest.approx(20)

    asyncio.run(run())


def _worker(path: Path, rate: float, calls: int, ready: object, queue: object) -> None:
    async def run() -> list[float]:
        limiter = Limiter(rate, path)
        out = await asyncio.gather(*(limiter.start() for _ in range(calls)))
        limiter.close()
        return list(out)

    ready.wait()  # type: ignore[attr-defined]
    queue.put(asyncio.run(run()))  # type: ignore[attr-defined]


def test_processes_share_one_limit_by_the_real_clock(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    ready, queue = spawn.Barrier(3), spawn.Queue()
    workers = [spawn.Process(target=_worker, args=(tmp_path / "k.calls", 10.0, 9, ready, queue)) for _ in range(3)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    starts = sorted(t for _ in workers for t in queue.get(timeout=30))
    for worker in workers:
        worker.join()
    assert len(starts) == 27
    assert most_in_a_window(starts) <= 10
    assert starts[-1] - began < 4, "27 calls at 10/s need two full windows, not more"
    assert (tmp_path / "k.calls").stat().st_mode & 0o777 == 0o600


def test_what_an_earlier_boot_left_in_the_file_is_ignored(tmp_path: Path) -> None:
    later = FakeTime([])
    later.now = 1e9  # before the restart the clock was far ahead
    first = Limiter(2, tmp_path / "k", clock=later.clock, sleep=later.sleep)
    asyncio.run(first.start())
    first.rejected()
    first.close()
    fake = FakeTime([])
    second = Limiter(2, tmp_path / "k", clock=fake.clock, sleep=fake.sleep)
    assert asyncio.run(second.start()) == 1000.0
    assert second.allowed == 2
    second.close()


@pytest.mark.parametrize("rate", [0, -1, 5000, float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="calls_per_second"):
        Limiter(rate)
