"""Never more calls in any second than the broker allows, for all processes of this host that use the same app key.

A provider counts the calls of a key, not of a process. So the last starts live in a small file that the processes
lock in turn; without a path they live in memory, by the same code. Time is the system's monotonic clock, which all
processes of a host share. A process that is killed leaves a file that is good; one that was cut or overwritten is
begun again after a pause as long as the window, since nobody knows what it held.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import math
import os
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

SLOTS = 1024  # starts kept, hence the highest rate
# The window is longer by this: the broker counts arrivals, and calls may catch up with one another on the way.
MARGIN_S = 0.04
# The starts of a second are spread over this share of it, in this many parts: when a whole burst is held up on its way
# and the next is not, the broker counts two in one second.
SPREAD, PARTS = 0.8, 16
# Refusals closer together than EVENT_S are one event. The broker says that it refuses a call now and then though there
# was room: an event by itself only waits, one that follows another within AGAIN_S (or two windows) cuts the rate.
CUT, EVENT_S, AGAIN_S = 0.8, 0.5, 4.0
REGAIN = 0.02  # share that comes back with a window's worth of accepted calls
SLOWEST = 1 / 61  # calls a second below which cutting stops: the broker's own sample waits 61 s
_MARK = b"calls 2\n"  # of files that this version wrote
_HEAD = struct.Struct(
    "<8sQddd"
)  # mark, starts so far, share of the rate allowed, time of the last refusal, no start before
_TIME = struct.Struct("<d")
_BYTES = _HEAD.size + SLOTS * _TIME.size


class Limiter:
    """Grant starts so that no window of one second holds more than `rate` of them; below 1/s, no 1/rate seconds hold
    two.

    Call `rejected` when the broker says that there were too many all the same: when it says so again and again the rate
    falls, for all processes, and comes back slowly with accepted calls. `rate` is in calls a second, at most 1024.
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
        self._path, self._file = path, -1
        self._memory = bytearray(_BYTES)
        self._open()

    @classmethod
    def shared(cls, rate: float, folder: Path, key: str) -> Self:
        """Open the limiter that all processes of this host share for an app key; only a digest of the key is in the
        file's name."""
        return cls(rate, folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.calls")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._path, self._file = None, -1

    async def start(self) -> float:
        """Wait for the next start that the limit permits and return its time; callers of one process are served in
        order."""
        async with self._turn:
            while True:
                wait, now = self.grant()
                if wait <= 0:
                    return now
                await self._sleep(wait)

    def grant(self) -> tuple[float, float]:
        """Take a start if the limit permits one now; return the seconds to wait for one (0 = it is taken) and the
        time."""
        with self._locked() as now:
            wait = self._wait(now)
            if wait <= 0:
                self._note(now)
            return max(0.0, wait), now

    def rejected(self) -> None:
        """Slow down: the broker refused a call as one too many."""
        with self._locked() as now:
            count, share, last, _ = self._head(now)
            if now - last >= EVENT_S:
                if now - last < max(AGAIN_S, 2 / (share * self.rate)):
                    share = max(min(1.0, SLOWEST / self.rate), share * CUT)
                last = now
            self._set_head(count, share, last, now + min(0.1, 1 / self.rate))

    def accepted(self) -> None:
        """Regain a little of what refusals took."""
        with self._locked() as now:
            count, share, last, pause = self._head(now)
            if share < 1:
                self._set_head(count, min(1.0, share + REGAIN / max(1.0, share * self.rate)), last, pause)

    @property
    def allowed(self) -> float:
        """Calls a second granted now."""
        with self._locked() as now:
            return self._head(now)[1] * self.rate

    def _open(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def _locked(self) -> Iterator[float]:
        """Hold the host's lock on the file; one that somebody has removed is made anew, as other processes would."""
        while self._file >= 0:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                break
            os.close(self._file)
            self._open()
        try:
            yield self._clock()
        finally:
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _get(self, layout: struct.Struct, at: int) -> tuple[Any, ...] | None:
        found = self._memory[at : at + layout.size] if self._file < 0 else os.pread(self._file, layout.size, at)
        return layout.unpack(found) if len(found) == layout.size else None

    def _put(self, content: bytes, at: int) -> None:
        if self._file < 0:
            self._memory[at : at + len(content)] = content
        else:
            os.pwrite(self._file, content, at)

    def _head(self, now: float) -> tuple[int, float, float, float]:
        """Read the shared numbers; a refusal in the future was made before this host's last start and says nothing."""
        mark, count, share, last, pause = self._get(_HEAD, 0) or (b"", 0, 0.0, 0.0, 0.0)
        if mark != _MARK or count > 1 << 62 or not 0 < share <= 1:
            fresh = os.fstat(self._file).st_size == 0 if self._file >= 0 else not any(self._memory)
            self._put(bytes(_BYTES), 0)
            unknown = now if fresh else now + max(1.0, 1 / self.rate) + MARGIN_S
            self._set_head(0, 1.0, -math.inf, unknown)
            return 0, 1.0, -math.inf, unknown
        if not last <= now:
            share, last, pause = 1.0, -math.inf, -math.inf
        return count, share, last, pause

    def _set_head(self, count: int, share: float, last: float, pause: float) -> None:
        self._put(_HEAD.pack(_MARK, count, share, last, pause), 0)

    def _wait(self, now: float) -> float:
        count, share, _, pause = self._head(now)
        allowed = share * self.rate
        starts = max(1, math.floor(allowed))
        window = max(1.0, 1 / allowed) + MARGIN_S
        wait = pause - now if pause - now <= window else 0.0
        part = max(1, starts // PARTS)
        for held, span in ((starts, window), (part, SPREAD * window * part / starts)):
            if count >= held:
                (earlier,) = self._get(_TIME, self._slot(count - held)) or (-math.inf,)
                if earlier <= now:
                    wait = max(wait, earlier + span - now)
        return wait

    def _note(self, now: float) -> None:
        count, share, last, pause = self._head(now)
        self._put(_TIME.pack(now), self._slot(count))  # before the count: a process killed here has taken nothing
        self._set_head(count + 1, share, last, pause)

    @staticmethod
    def _slot(number: int) -> int:
        return _HEAD.size + (number % SLOTS) * _TIME.size
