"""Never more calls in any second than the broker allows, for all processes of this host that use the same app key.

A provider counts the calls of a key, not of a process. So the last starts live in a small file that the processes
lock in turn; without a path they live in memory, by the same code. Time is the system's monotonic clock, which all
processes of a host share.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

SLOTS = 1024  # starts kept, hence the highest rate
MARGIN_S = (
    0.02  # the window is longer by this: the broker counts arrivals, and calls may catch up with one another on the way
)
CUT, SPREAD_S = 0.8, 0.5  # a refusal cuts the rate; refusals closer together than this belong to one cut
REGAIN = 0.02  # share that comes back with a window's worth of accepted calls
SLOWEST = 1 / 61  # calls a second below which cutting stops: the broker's own sample waits 61 s
_HEAD = struct.Struct(
    "<Qddd"
)  # starts so far, share of the rate that is allowed (0 = not set), time of the last cut, no start before
_TIME = struct.Struct("<d")
_BYTES = _HEAD.size + SLOTS * _TIME.size


class Limiter:
    """Grant starts so that no window of one second holds more than `rate` of them; below 1/s, no 1/rate seconds hold
    two.

    Call `rejected` when the broker says that there were too many all the same: the rate falls, for all processes,
    and comes back slowly with accepted calls. `rate` is in calls a second, at most 1024.
    """

    def __init__(
        self,
        rate: float,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not 0 < rate <= SLOTS:
            raise ValueError(
                f"expected kis.calls_per_second in (0, {SLOTS}], got {rate}; use 0 in the section for no limit"
            )
        self.rate, self._clock, self._sleep = float(rate), clock, sleep
        self._turn = asyncio.Lock()
        self._file = -1
        self._state: bytearray | mmap.mmap = bytearray(_BYTES)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._file).st_size < _BYTES:
                os.ftruncate(self._file, _BYTES)
            self._state = mmap.mmap(self._file, _BYTES)

    @classmethod
    def shared(cls, rate: float, folder: Path, key: str) -> Self:
        """Open the limiter that all processes of this host share for an app key; only a digest of the key is in the
        file's name."""
        return cls(rate, folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.calls")

    def close(self) -> None:
        if isinstance(self._state, mmap.mmap):
            self._state.close()
            os.close(self._file)
            self._state, self._file = bytearray(_BYTES), -1

    async def start(self) -> float:
        """Wait for the next start that the limit permits and return its time; callers of one process are served in
        order."""
        async with self._turn:
            while True:
                with self._locked() as now:
                    wait = self._wait(now)
                    if wait <= 0:
                        self._note(now)
                        return now
                await self._sleep(wait)

    def rejected(self) -> None:
        """Slow down: the broker refused a call as one too many."""
        with self._locked() as now:
            count, share, cut, _ = self._head(now)
            if now - cut >= SPREAD_S:
                share, cut = max(min(1.0, SLOWEST / self.rate), share * CUT), now
            _HEAD.pack_into(self._state, 0, count, share, cut, now + min(0.1, 1 / self.rate))

    def accepted(self) -> None:
        """Regain a little of what refusals took."""
        with self._locked() as now:
            count, share, cut, pause = self._head(now)
            if share < 1:
                grown = min(1.0, share + REGAIN / max(1.0, share * self.rate))
                _HEAD.pack_into(self._state, 0, count, grown, cut, pause)

    @property
    def allowed(self) -> float:
        """Calls a second granted now."""
        with self._locked() as now:
            return self._head(now)[1] * self.rate

    @contextmanager
    def _locked(self) -> Iterator[float]:
        if self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield self._clock()
        finally:
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _head(self, now: float) -> tuple[int, float, float, float]:
        """Read the shared numbers; what lies in the future was written before this host's last start and says
        nothing."""
        count, share, cut, pause = _HEAD.unpack_from(self._state)
        if not 0 < share <= 1 or cut > now:
            share, cut, pause = 1.0, -math.inf, -math.inf
        return count, share, cut, pause

    def _wait(self, now: float) -> float:
        count, share, _, pause = self._head(now)
        allowed = share * self.rate
        starts = max(1, math.floor(allowed))
        window = max(1.0, 1 / allowed) + MARGIN_S
        wait = pause - now if pause - now < 1 else 0.0
        if count >= starts:
            (earlier,) = _TIME.unpack_from(self._state, self._slot(count - starts))
            if earlier <= now:
                wait = max(wait, earlier + window - now)
        return wait

    def _note(self, now: float) -> None:
        count, share, cut, pause = self._head(now)
        _TIME.pack_into(self._state, self._slot(count), now)
        _HEAD.pack_into(self._state, 0, count + 1, share, cut, pause)

    @staticmethod
    def _slot(number: int) -> int:
        return _HEAD.size + (number % SLOTS) * _TIME.size
