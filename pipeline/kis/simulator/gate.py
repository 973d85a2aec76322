"""Who may call the simulated KIS, and how often: access tokens with KIS's rules of issue, and the quota of calls a
second."""

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pipeline import krx

Window = Literal["sliding", "fixed"]


@dataclass
class Quota:
    """At most `calls` in one second for each app key; 0 is no limit. Calls that are refused do not count.

    "sliding": any one second; "fixed": each second of the clock. Which of the two KIS uses is not known.
    """

    calls: int
    window: Window = "sliding"
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, deque[float]] = field(default_factory=dict)

    def admit(self, key: str) -> bool:
        """Count a call and say whether it is inside the quota."""
        if not self.calls:
            return True
        now, seen = self.clock(), self._seen.setdefault(key, deque())
        oldest = now - 1.0 if self.window == "sliding" else float(int(now)) - 1e-9
        while seen and seen[0] <= oldest:
            seen.popleft()
        if len(seen) >= self.calls:
            return False
        seen.append(now)
        return True


class Refused(Exception):
    """A call that the gate turns away; `code` is a key of layouts.MESSAGES."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class _Token:
    text: str
    app_key: str
    issued: float


@dataclass
class Tokens:
    """Access tokens: one for each app key, given again from `gap` to `same` seconds after its issue, refused before,
    new after.

    Any app key is taken; its secret is whatever came with it first. Times are real, whatever the market's clock says,
    since clients compare them with their own.
    """

    gap: float = 60.0
    same: float = 6 * 3600.0
    life: float = 24 * 3600.0
    clock: Callable[[], float] = time.time
    _by_key: dict[str, _Token] = field(default_factory=dict)
    _by_text: dict[str, _Token] = field(default_factory=dict)
    _secrets: dict[str, str] = field(default_factory=dict)

    def know(self, app_key: str, secret: str) -> None:
        """Check an app key with its secret. Raises Refused."""
        for value, code in ((app_key, "EGW00102"), (secret, "EGW00104")):
            if not value:
                raise Refused(code)
        if self._secrets.setdefault(app_key, secret) != secret:
            raise Refused("EGW00105")

    def issue(self, app_key: str, secret: str) -> dict[str, str | int]:
        """Answer tokenP. Raises Refused."""
        self.know(app_key, secret)
        now, token = self.clock(), self._by_key.get(app_key)
        if token is not None and now - token.issued < self.gap:
            raise Refused("EGW00133")
        if token is None or now - token.issued >= min(self.same, self.life):
            token = _Token(f"SIM.{hashlib.sha256(uuid.uuid4().bytes).hexdigest()}.{uuid.uuid4().hex}", app_key, now)
            self._by_key[app_key] = self._by_text[token.text] = token
        left = int(token.issued + self.life - now)
        ends = datetime.fromtimestamp(now, krx.KST) + timedelta(seconds=left)
        return {
            "access_token": token.text,
            "access_token_token_expired": f"{ends:%Y-%m-%d %H:%M:%S}",
            "token_type": "Bearer",
            "expires_in": left,
        }

    def revoke(self, text: str) -> None:
        """Forget a token. Raises Refused when there is none such."""
        token = self._by_text.pop(text, None)
        if token is None:
            raise Refused("EGW00121")
        self._by_key.pop(token.app_key, None)

    def expire(self, text: str) -> None:
        """Let a token be over from now on; the next one is issued at once."""
        token = self._by_text[text]
        token.issued = self.clock() - self.life
        self._by_key.pop(token.app_key, None)

    def check(self, authorization: str, app_key: str, secret: str) -> None:
        """Check the headers of a call. Raises Refused."""
        scheme, _, text = authorization.partition(" ")
        if not authorization:
            raise Refused("EGW00122")
        if scheme != "Bearer":
            raise Refused("EGW00205")
        token = self._by_text.get(text.strip())
        if token is None:
            raise Refused("EGW00121")
        if self.clock() >= token.issued + self.life:
            raise Refused("EGW00123")
        if token.app_key != app_key:
            raise Refused("EGW00103")
        self.know(app_key, secret)


@dataclass
class Approvals:
    """Keys that open a WebSocket: a new one for each call, older ones stay good for a day, since clients in the wild
    take a fresh one before every subscription."""

    life: float = 24 * 3600.0
    clock: Callable[[], float] = time.time
    _issued: dict[str, tuple[str, float]] = field(default_factory=dict)

    def issue(self, app_key: str) -> str:
        """Return a new key of an app key."""
        key = str(uuid.uuid4())
        self._issued[key] = (app_key, self.clock())
        return key

    def owner(self, key: str) -> str | None:
        """Return the app key of a key, or None when it is not known or too old."""
        app_key, issued = self._issued.get(key, ("", -self.life))
        return app_key if self.clock() < issued + self.life and app_key else None
