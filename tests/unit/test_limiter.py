"""The limiter by the real clock in several processes, with files that somebody damaged, and with refusals."""

import asyncio
import math
import multiprocessing
import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kis.limiter import MARGIN_S, SPREAD, Limiter
from tests.starts import FakeTime, most_in_a_window


@given(rate=st.integers(2, 50), calls=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_full_rate_is_used(rate: int, calls: int) -> None:
    fake = FakeTime([])
    limiter = Limiter(rate, clock=fake.clock, sleep=fake.sleep)

    async def run() -> list[float]:
        return [await limiter.start() for _ in range(calls)]

    starts = asyncio.run(run())
    assert starts[-1] - starts[0] <= ((calls - 1) // rate + SPREAD) * (1 + MARGIN_S) + 1e-6


def test_refusals_slow_down_and_accepted_calls_bring_the_rate_back() -> None:
    fake = FakeTime([])
    limiter = Limiter(20, clock=fake.clock, sleep=fake.sleep)

    async def run() -> None:
        await limiter.start()
        limiter.rejected()
        assert limiter.allowed == 20, "once is no limit"
        fake.now += 4
        limiter.rejected()
        assert limiter.allowed == 20
        fake.now += 3.9
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


def _worker(path: Path, rate: float, calls: int, ready: Any, log: Path) -> None:
    async def run() -> None:
        limiter = Limiter(rate, path)
        for _ in range(calls):
            start = await limiter.start()
            with log.open("a") as file:
                file.write(f"{start!r}\n")
        limiter.close()

    ready.wait()
    asyncio.run(run())


def _starts(log: Path) -> list[float]:
    """Read what a worker wrote; the last line of one that was killed may be cut."""
    return [float(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("killed", [False, True])
def test_processes_share_one_limit_by_the_real_clock(tmp_path: Path, killed: bool) -> None:
    fork = multiprocessing.get_context("fork")
    ready, logs = fork.Barrier(3), [tmp_path / f"{number}.log" for number in range(3)]
    workers = [fork.Process(target=_worker, args=(tmp_path / "k.calls", 20.0, 20, ready, log)) for log in logs]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    if killed:
        while not logs[0].exists() or len(_starts(logs[0])) < 5:
            time.sleep(0.005)
        workers[0].kill()
    for worker in workers:
        worker.join(30)
    found = [_starts(log) for log in logs]
    assert [len(one) for one in found[1:]] == [20, 20], "nobody waits for the dead"
    assert 5 <= len(found[0]) < 20 if killed else len(found[0]) == 20
    starts = sorted(start for one in found for start in one)
    assert most_in_a_window(starts) <= 20
    assert starts[-1] - began < 5, "60 calls at 20/s need three windows, not more"
    assert (tmp_path / "k.calls").stat().st_mode & 0o777 == 0o600


NAN = float("nan")
HEAD = struct.Struct("<8sQddd")


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"\0" * 20,
        b"\xff" * 9000,
        HEAD.pack(b"calls 2\n", 2**64 - 1, 1.0, 0.0, 0.0),
        HEAD.pack(b"calls 2\n", 40, NAN, 0.0, 0.0),
        HEAD.pack(b"calls 1\n", 40, 1.0, 0.0, 0.0),
    ],
)
def test_a_file_that_tells_nothing_is_begun_again_after_a_window(tmp_path: Path, content: bytes) -> None:
    fake, path = FakeTime([]), tmp_path / "k"
    path.write_bytes(content)
    limiter = Limiter(5, path, clock=fake.clock, sleep=fake.sleep)

    async def run() -> list[float]:
        return [await limiter.start() for _ in range(12)]

    starts = asyncio.run(run())
    assert 1001 <= starts[0] <= 1001.1, "somebody may have called just before"
    assert most_in_a_window(starts) <= 5 and starts[-1] < 1004.1
    assert limiter.allowed == 5
    limiter.close()


@pytest.mark.parametrize("size", [0, 30, 40, 100])
def test_a_file_cut_or_removed_under_a_running_limiter_is_no_harm(tmp_path: Path, size: int) -> None:
    fake, path = FakeTime([]), tmp_path / "k"
    limiter = Limiter(4, path, clock=fake.clock, sleep=fake.sleep)

    async def run() -> list[float]:
        out = [await limiter.start() for _ in range(6)]
        os.truncate(path, size)
        out += [await limiter.start() for _ in range(6)]
        path.unlink()
        return out + [await limiter.start() for _ in range(6)]

    starts = asyncio.run(run())
    assert starts == sorted(starts) and starts[-1] < 1008
    other = Limiter(4, path, clock=fake.clock, sleep=fake.sleep)  # finds the same file as the first
    before = fake.now
    asyncio.run(other.start())
    assert fake.now > before, "the first has just started four"
    limiter.close()
    other.close()


@pytest.mark.parametrize("numbers", [(7, 1.0, NAN, NAN), (7, 1.0, 1e18, 1e18), (7, 1.0, -math.inf, math.inf)])
def test_times_that_cannot_be_hold_nobody_up(tmp_path: Path, numbers: tuple[Any, ...]) -> None:
    fake, path = FakeTime([]), tmp_path / "k"
    path.write_bytes(HEAD.pack(b"calls 2\n", *numbers) + struct.pack("<d", NAN) * 1024)
    limiter = Limiter(3, path, clock=fake.clock, sleep=fake.sleep)
    assert asyncio.run(limiter.start()) == 1000.0
    for _ in range(2):
        fake.now += 1
        limiter.rejected()
    assert limiter.allowed == pytest.approx(2.4), "refusals still slow it down"
    limiter.close()


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
