"""App keys and access tokens: found by the names of environment variables, kept out of everything else, issued once.

The broker sends the customer a message for every token and refuses a second issue within a minute, so a token lives
on disk (mode 0600) until shortly before it expires, and one process of the host at a time may ask for a new one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

KEY_LENGTH, SECRET_LENGTH = 36, 180
MARGIN_S = 600.0  # a token is given up this long before it expires: a long run must not lose it between two calls
SHORT = 0.1  # but never more than this share of its life: a token of minutes would be asked for again at every call
POLL_S = 0.05


class CredentialsError(Exception):
    """Keys that are missing or cannot be keys; the message names variables and lengths, never their values."""


@dataclass(frozen=True)
class Credentials:
    """Hold an app key, its secret and the account number, shown and pickled as nothing; `names` are the variables that
    the first two came from."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    account: str = field(default="", repr=False)
    names: tuple[str, str] = ("", "")

    def __reduce__(self) -> Never:
        raise TypeError(
            "expected credentials to stay in the process that calls the broker, got a request to pickle them"
        )

    @classmethod
    def from_environment(
        cls, key: str, secret: str, account: str, environment: Mapping[str, str] = os.environ
    ) -> Credentials:
        """Read the variables of these names; CredentialsError says which is missing or malformed."""
        values = {name: environment.get(name, "").strip() for name in (key, secret, account)}
        for name, length in ((key, KEY_LENGTH), (secret, SECRET_LENGTH)):
            text = values[name]
            if not text:
                raise CredentialsError(
                    f"expected the app key and secret of KIS in the environment, got no {name}; "
                    "set it in the environment or in .env, or use --kis.environment simulator"
                )
            if len(text) != length or not (text.isascii() and text.isprintable()) or " " in text:
                raise CredentialsError(
                    f"expected {length} characters without blanks in {name}, got {len(text)} (not shown); "
                    "copy it again from the KIS Developers page"
                )
        digits = values[account].replace("-", "")
        if digits and not (digits.isdigit() and len(digits) in (8, 10)):
            raise CredentialsError(
                f"expected 8 or 10 digits in {account}, got something else (not shown); copy it again, with or without "
                "its dash"
            )
        return cls(values[key], values[secret], values[account], (key, secret))

    @classmethod
    def all_from_environment(
        cls, key: str, secret: str, account: str, environment: Mapping[str, str] = os.environ
    ) -> tuple[Credentials, ...]:
        """Read these variables and those with the suffixes _2, _3, … that have an app key; CredentialsError as above,
        and for a key that comes twice."""
        further = re.compile(rf"{re.escape(key)}(_(?:[2-9]|[1-9][0-9]+))")
        matches = [further.fullmatch(name) for name, value in environment.items() if value.strip()]
        suffixes = sorted((match[1] for match in matches if match), key=lambda suffix: int(suffix[1:]))
        found: dict[str, Credentials] = {}
        for end in ("", *suffixes):
            one = cls.from_environment(key + end, secret + end, account + end, environment)
            if one.key in found:
                raise CredentialsError(
                    f"expected another app key in {key}{end}, got that of {found[one.key].names[0]}; the broker counts "
                    "calls by the key, so that it would not help: remove one"
                )
            found[one.key] = one
        return tuple(found.values())


@dataclass(frozen=True)
class Token:
    """Hold an access token, the moment by this host's clock, in seconds since 1970, at which it expires, and how long
    before that it is given up."""

    text: str = field(repr=False)
    expires: float
    margin: float = MARGIN_S

    @classmethod
    def lasting(cls, text: str, life: float, now: float) -> Token:
        """Count `life` from `now`: what the broker's clock says is not asked, the two need not agree."""
        return cls(text, now + life, min(MARGIN_S, SHORT * life))

    def usable(self, now: float) -> bool:
        return now < self.expires - self.margin


@contextmanager
def folder_of_tokens(folder: Path) -> Iterator[None]:
    """Name the folder and the key that moves it when the block cannot write there."""
    try:
        yield
    except OSError as error:
        raise CredentialsError(
            f"expected a writable folder for access tokens, got '{error.strerror}' at {folder}; set --kis.token_folder"
        ) from error


class TokenCache:
    """Give the token of one app key at one host: from memory, else from disk, else from `issue`, one issue at a
    time."""

    def __init__(
        self,
        folder: Path,
        host: str,
        key: str,
        issue: Callable[[], Awaitable[Token]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = folder / f"{hashlib.sha256(f'{host} {key}'.encode()).hexdigest()[:16]}.token"
        self._issue, self._clock = issue, clock
        self._turn = asyncio.Lock()
        self._token: Token | None = None

    def held(self) -> str:
        """Return the token in memory, empty when there is none that has not expired."""
        return self._token.text if self._token is not None and self._token.usable(self._clock()) else ""

    async def get(self) -> str:
        """Return a token that has not expired."""
        return self.held() or await self.renew("")

    async def renew(self, refused: str) -> str:
        """Return a token other than `refused`; of many that ask at once, in all processes, one issues it and the
        others take it over."""
        async with self._turn:
            if self._token is not None and self._fits(self._token, refused):
                return self._token.text
            async with self._alone():
                found = self._read()
                if found is None or not self._fits(found, refused):
                    found = await self._issue()
                    self._write(found)
            self._token = found
            return found.text

    def _fits(self, token: Token, refused: str) -> bool:
        return token.text != refused and token.usable(self._clock())

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the host's lock on this token; waiting is polling, so that a cancelled wait leaves no lock behind."""
        with folder_of_tokens(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(POLL_S)
            yield
        finally:
            os.close(handle)

    def _read(self) -> Token | None:
        try:
            if self._path.stat().st_mode & 0o077:
                self._path.chmod(0o600)
            found = json.loads(self._path.read_text())
            return Token(str(found["token"]), float(found["expires"]), float(found.get("margin", MARGIN_S)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # absent, or not written by this program: a new token replaces it

    def _write(self, token: Token) -> None:
        temporary = self._path.with_suffix(".new")
        with folder_of_tokens(self._path.parent):
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump({"token": token.text, "expires": token.expires, "margin": token.margin}, file)
            temporary.replace(self._path)
