"""A relay in front of a server that stamps when each call arrives: how a test sees the rate as the server sees it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

CALL = b"GET /uapi/"
CODES = (b"EGW00201", b"EGW00133")


@dataclass
class Recorder:
    """Hold when calls arrived (s) and how often the codes that are listened for came back."""

    calls: list[float] = field(default_factory=list)
    codes: Counter[bytes] = field(default_factory=Counter)

    def answers(self, code: bytes) -> int:
        return self.codes[code]

    def most_in(self, seconds: float) -> int:
        """Return the most calls in any window of so many seconds."""
        stamps = np.sort(self.calls)
        return int((np.searchsorted(stamps, stamps + seconds, side="left") - np.arange(len(stamps))).max())


@contextmanager
def recorded(url: str, recorder: Recorder) -> Iterator[str]:
    """Relay bytes to the server at `url` and back, from another port; yield the address. A connection that one side
    closes is closed on the other."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    ready, place = threading.Event(), list[int]()
    loop = asyncio.new_event_loop()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, calls: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                if calls:
                    recorder.calls += [time.monotonic()] * chunk.count(CALL)
                else:
                    recorder.codes.update({code: chunk.count(code) for code in CODES})
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, port)
        await asyncio.gather(forward(reader, there[1], calls=True), forward(there[0], writer, calls=False))

    async def serve(stop: asyncio.Event) -> None:
        async with await asyncio.start_server(relay, "127.0.0.1", 0) as listening:
            place.append(listening.sockets[0].getsockname()[1])
            ready.set()
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    try:
        assert ready.wait(10)
        yield f"http://127.0.0.1:{place[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
