"""The KIS client: one asyncio process that asks within the limits, again where that is safe, and explains the rest.

It knows hosts, tokens, limits and codes and returns the bodies of pages; `wire.py` makes rows of them, `history.py`
whole histories.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isfinite
from pathlib import Path
from typing import Any, Self

import aiohttp

from storage.emit import Emit

from .errors import KisError, Mask, Verdict, advice, judge
from .keys import AppKey, Keys
from .layouts import Tr
from .limiter import Limiter
from .section import HOSTS, loopback
from .section import KisSection as KisSection
from .token import Credentials, Token, TokenCache, folder_of_tokens

AGENT = "krx-research-pipeline/0.1"  # the broker's gateway is said to reset connections of libraries' own agents
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
REFUSED_PAUSE_S = 0.5  # at most, after "too many calls": it is the limiter that slows down
ISSUE_AGAIN_S, ISSUE_TRIES = 61.0, 3  # one token a minute
MAINTENANCE_PAUSE_S, MAINTENANCE_LONGEST_S = 2.0, 60.0  # a page of maintenance stands for minutes
SPEAK_AFTER = 4  # retries of one call before the log says so
SHORTEST_LIFE_S = 60.0  # a token that lives less long would be asked for again and again
RENEWALS = 3  # of the token within one call: others may have revoked it meanwhile; a fourth refusal is no accident
SKEW_S = 120.0  # a host whose clock is further off is told so
MAINTENANCE = "see whether KIS is reachable from here; it is down for maintenance between 05:30 and 07:00 KST"


@dataclass
class Counts:
    """What was sent and what came of it."""

    calls: int = 0  # HTTP requests, repeated ones included
    refused: int = 0  # by the rate limit
    repeated: int = 0  # after faults
    bytes: int = 0
    by_name: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Answer:
    """Hold a page, whether the header `tr_cont` announces more, and the bytes as they came."""

    body: Mapping[str, Any]
    more: bool
    raw: bytes = field(default=b"", repr=False)


class KisClient:
    """Ask one KIS server: `async with KisClient(section, emit) as kis: await kis.ask(DAILY, …)`.

    `rest` and `master` are addresses that go before those of the section (an embedded simulator's). `folder` keeps
    tokens and the count of calls that all processes of the host share.
    """

    def __init__(self, section: KisSection, emit: Emit, *, rest: str = "", master: str = "", folder: str = "") -> None:
        host = HOSTS[section.environment]
        self.counts = Counts()
        self._section, self._emit = section, emit
        self._rest = (rest or section.rest_url or host.rest).rstrip("/")
        here = f"{self._rest}/common/master"  # a server of this host stands in for all of the broker's
        self._master = (
            master or section.master_url or (here if not host.master or loopback(self._rest) else host.master)
        ).rstrip("/")
        found = section.credentials()
        self._mask = Mask(*(text for one in found for text in (one.key, one.secret, one.account)))
        self._folder = Path(folder or section.token_folder).expanduser()
        self._keys = Keys([self._app_key(one) for one in found], emit)
        self._skew_told = False
        self._flights = asyncio.Semaphore(section.max_workers)

    def _app_key(self, found: Credentials) -> AppKey:
        async def issue() -> Token:
            return await self._issue(key)

        key = AppKey(found, TokenCache(self._folder, self._rest, found.key, issue))
        return key

    async def __aenter__(self) -> Self:
        if self._section.rate:
            with folder_of_tokens(self._folder):
                for key in self._keys.keys:
                    name = self._rest + key.credentials.key
                    key.limiter = Limiter.shared(self._section.rate, self._folder, name)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._section.max_workers),
            timeout=aiohttp.ClientTimeout(total=self._section.timeout_s),
            headers={"User-Agent": AGENT},
        )
        # aiohttp would repeat a GET on a connection that was reset, past the limiter; it has no public option for it.
        self._session._retry_connection = False
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._keys.close()
        await self._session.close()

    async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
        """Make one quotation call and return its page; faults that pass are waited out. Raises KisError."""
        what = " ".join([tr.name, *(params[k] for k in ("FID_INPUT_ISCD", "PDNO") if k in params)])
        if self._section.environment == "paper" and not tr.paper:
            raise KisError(
                "capability",
                "a call that the paper environment does not have",
                what,
                "use --kis.environment live, or leave out what needs it (minute bars: --ingest.minute_symbols 0)",
            )
        query = {name: params.get(name, "") for name in tr.params}
        renewed: Counter[AppKey] = Counter()
        failed = 0
        while True:
            async with self._flights:
                key, token = await self._keys.start()
                self._mask.add(token)
                headers = {
                    "content-type": "application/json; charset=utf-8",
                    "authorization": f"Bearer {token}",
                    "appkey": key.credentials.key,
                    "appsecret": key.credentials.secret,
                    "tr_id": tr.tr_id,
                    "custtype": "P",
                    "tr_cont": cont,
                }
                reply = await self._once("GET", self._rest + tr.path, tr.name, headers=headers, params=query)
            verdict, code, text, body = self._judged(reply)
            if verdict == "page":
                if key.limiter is not None:
                    key.limiter.accepted()
                return Answer(body, reply.cont in ("F", "M"), self._mask.raw(reply.content))
            if verdict == "token" and renewed[key] < RENEWALS:
                renewed[key] += 1
                await self._renew(key, token)
                continue
            if verdict == "error" and self._keys.bar(key, self._refusal(code, text, what, 0, key.credentials)):
                continue
            failed = await self._pause_or_raise(verdict, code, text, what, failed, key)

    async def master(self, name: str) -> bytes:
        """Download a symbol master file, such as "kospi_code.mst.zip"; no key goes with it. Raises KisError."""
        failed = 0
        while True:
            async with self._flights:
                reply = await self._once("GET", f"{self._master}/{name}", "master")
            if reply.status == 200 and reply.content.startswith(b"PK"):
                return reply.content
            verdict: Verdict = "error" if 400 <= reply.status < 500 else "again"
            code, text = "network", reply.fault
            if reply.status:
                code, text = "maintenance" if reply.status == 503 else "status", f"HTTP {reply.status}, not a zip file"
            failed = await self._pause_or_raise(verdict, code, text, f"the symbol master {self._master}/{name}", failed)

    async def _renew(self, key: AppKey, refused: str) -> None:
        """Replace a token that the broker refused. Raises KisError, unless other keys can go on without this one."""
        try:
            await key.tokens.renew(refused)
        except KisError as error:
            if not self._keys.bar(key, error):
                raise

    async def _issue(self, key: AppKey) -> Token:
        """Ask for a new access token. Raises KisError."""
        mine = key.credentials
        body = {"grant_type": "client_credentials", "appkey": mine.key, "appsecret": mine.secret}
        failed = waited = 0
        while True:
            if key.limiter is not None:
                await key.limiter.start()
            reply = await self._once("POST", f"{self._rest}/oauth2/tokenP", "token", json=body)
            verdict, code, text, found = self._judged(reply)
            if verdict == "page" and (token := _token(found)) is not None:
                return token
            if verdict == "wait" and waited < ISSUE_TRIES:
                waited += 1
                self._log("warning", f"KIS gives one token a minute ({code}); asking again in {ISSUE_AGAIN_S:.0f} s")
                await asyncio.sleep(ISSUE_AGAIN_S)
                continue
            if verdict == "page":
                verdict, code, text = "error", "page", "an answer without a usable access_token and expires_in"
            failed = await self._pause_or_raise(verdict, code, text, "the request for an access token", failed, key)

    async def _once(self, method: str, url: str, name: str, **request: Any) -> _Reply:
        self.counts.calls += 1
        self.counts.by_name[name] += 1
        try:
            # The broker sends nobody elsewhere; a redirect would take the key there.
            async with self._session.request(method, url, allow_redirects=name == "master", **request) as response:
                content = await response.read()
                self.counts.bytes += len(content)
                self._tell_skew(response.headers.get("Date", ""))
                return _Reply(response.status, content, response.headers.get("tr_cont", "").strip())
        except aiohttp.ClientResponseError as error:  # its text is what came, escaped over and over: no mask knows it
            return _Reply(0, b"", "", f"{type(error).__name__}, an answer that is no HTTP")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Reply(0, b"", "", self._mask(f"{type(error).__name__} {error}".strip()))

    def _tell_skew(self, date: str) -> None:
        """Say once when this host's clock is far from the server's: `today` and closed days go by it, tokens do not."""
        if self._skew_told or not date:
            return
        try:
            off = time.time() - parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        if abs(off) > SKEW_S:
            self._skew_told = True
            where = f"{abs(off) / 60:.0f} minutes {'ahead of' if off > 0 else 'behind'} that of {self._rest}"
            self._log("warning", f"the clock of this host is {where}; set it: it decides which days have closed")

    def _judged(self, reply: _Reply) -> tuple[Verdict, str, str, dict[str, Any]]:
        if not reply.status:
            return "again", "network", reply.fault, {}
        return judge(reply.status, reply.content, self._mask)

    async def _pause_or_raise(
        self, verdict: Verdict, code: str, text: str, what: str, failed: int, key: AppKey | None = None
    ) -> int:
        """Wait longer with each failure of a call, or give it up; return how often it has failed now."""
        if verdict == "slower":
            self.counts.refused += 1
            if key is not None and key.limiter is not None:
                key.limiter.rejected()
        elif verdict == "again":
            self.counts.repeated += 1
        if verdict not in ("slower", "again") or failed >= self._section.retries:
            raise self._refusal(code, text, what, failed, key.credentials if key is not None else None)
        if failed + 1 == SPEAK_AFTER:
            self._log("warning", f"{what}: {text} [{code}], asked {SPEAK_AFTER} times so far, still trying")
        first, longest = FIRST_PAUSE_S, REFUSED_PAUSE_S if verdict == "slower" else LONGEST_PAUSE_S
        if code == "maintenance":
            first, longest = MAINTENANCE_PAUSE_S, MAINTENANCE_LONGEST_S
        await asyncio.sleep(min(longest, first * 2**failed) * random.uniform(0.5, 1.0))
        return failed + 1

    def _refusal(self, code: str, text: str, what: str, failed: int, mine: Credentials | None) -> KisError:
        names = mine.names if mine is not None else self._section.variables()[:2]
        todo = MAINTENANCE if code in ("network", "page", "status", "maintenance") else advice(code, *names)
        where = what if mine is None else f"{what} at {self._rest}"  # the symbol master names its own host
        return KisError(code, f"{text}, {failed + 1} times" if failed else text, where, todo)

    def _log(self, level: str, text: str) -> None:
        self._emit("log", level=level, text=text)


@dataclass(frozen=True)
class _Reply:
    """Hold what came over the wire; status 0 = nothing, `fault` says why."""

    status: int
    content: bytes = field(repr=False)
    cont: str
    fault: str = ""


def _token(body: Mapping[str, Any]) -> Token | None:
    """Read an answer to the request for a token; None when it cannot be one, as it could not go into a header."""
    text = body.get("access_token")
    try:
        life = float(body["expires_in"])
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(text, str) or not text.strip() or not text.isascii() or not text.isprintable():
        return None
    return Token.lasting(text, life, time.time()) if isfinite(life) and life >= SHORTEST_LIFE_S else None
