"""The app keys of one customer: each with a limit and a token of its own, and the choice of the one that goes next.

The broker counts calls by the key, so that three keys make three times the calls. A call takes the first key that may
start one and has its token; a key that waits for its token, or that the broker refuses, holds no call up while another
works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from storage.emit import Emit

from .errors import BARRED, KisError
from .limiter import Limiter
from .token import Credentials, TokenCache

REST_S = 60.0  # a key that got no token is left alone for as long while others work


@dataclass(eq=False)
class AppKey:
    """Hold one key; `barred` is the answer with which the broker refused it for good."""

    credentials: Credentials = field(repr=False)
    tokens: TokenCache = field(repr=False)
    limiter: Limiter | None = None
    barred: KisError | None = None
    asking: asyncio.Task[str] | None = field(default=None, repr=False)
    rests_until: float = 0.0


class Keys:
    """Grant starts of calls, in the order of asking, each with a key and its token."""

    def __init__(
        self, keys: Sequence[AppKey], emit: Emit, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.keys, self._emit, self._sleep = tuple(keys), emit, sleep
        self._turn = asyncio.Lock()
        self._last = 0

    async def start(self) -> tuple[AppKey, str]:
        """Wait for the first key that may start a call and return it with its token. Raises KisError when none is
        left."""
        async with self._turn:
            while True:
                waits, asking = [], []
                for key in self._in_turn():
                    if token := key.tokens.held():
                        wait = key.limiter.grant()[0] if key.limiter is not None else 0.0
                        if wait <= 0:
                            self._last = self.keys.index(key)
                            return key, token
                        waits.append(wait)
                    else:
                        key.asking = key.asking or asyncio.create_task(key.tokens.get())
                        asking.append(key)
                await self._until(min(waits, default=None), asking)

    def bar(self, key: AppKey, error: KisError) -> bool:
        """Leave out a key that the broker refuses whatever is asked; say whether others are left to go on with."""
        others = [other for other in self.keys if other is not key and other.barred is None]
        if error.code not in BARRED or not others:
            return False
        if key.barred is None:
            key.barred = error
            text = f"going on without the app key in {key.credentials.names[0]}: {error}"
            self._emit("log", level="warning", text=text)
        return True

    async def close(self) -> None:
        """End requests for tokens and let go of the limiters' files."""
        tasks = [key.asking for key in self.keys if key.asking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for key in self.keys:
            if key.limiter is not None:
                key.limiter.close()

    def _in_turn(self) -> list[AppKey]:
        """Return the keys to try: the one after the last first, so that all are used alike."""
        turned = [*self.keys[self._last + 1 :], *self.keys[: self._last + 1]]
        left = [key for key in turned if key.barred is None]
        return [key for key in left if key.rests_until <= time.monotonic()] or left

    async def _until(self, wait: float | None, asking: list[AppKey]) -> None:
        """Sleep until a key may start a call, or one of those that ask for a token has it or was refused."""
        tasks = [key.asking for key in asking if key.asking is not None]
        if not tasks:
            await self._sleep(wait or 0.0)
            return
        await asyncio.wait(tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        for key in asking:
            if key.asking is not None and key.asking.done():
                task, key.asking = key.asking, None
                error = task.exception()
                if isinstance(error, KisError):
                    self._without_token(key, error)
                elif error is not None:
                    raise error

    def _without_token(self, key: AppKey, error: KisError) -> None:
        if self.bar(key, error):
            return
        now = time.monotonic()
        left = [other for other in self.keys if other is not key and other.barred is None and other.rests_until <= now]
        if not left:
            for other in self.keys:
                other.rests_until = 0.0  # the next call tries them all again
            raise error
        key.rests_until = now + REST_S
        text = f"no token for the app key in {key.credentials.names[0]}, left alone for {REST_S:.0f} s: {error}"
        self._emit("log", level="warning", text=text)
