"""What an answer of KIS means: a page, ask again, ask more slowly, take a new token, or an error with a way out.

Codes, statuses and broken connections are judged here and nowhere else, so that the client is one loop over verdicts.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote, quote_plus

import orjson

from .layouts import CONTINUED, SUCCESS

Verdict = Literal["page", "again", "slower", "token", "wait", "error"]

NOTHING = frozenset({"KIOK0510", "KIOK0560", "KIER2620"})  # success without rows
SLOWER = frozenset({"EGW00201", "EGW00215"})  # too many calls a second: of this key; of all customers together
TOKEN = frozenset({"EGW00121", "EGW00122", "EGW00123"})
BARRED = frozenset({"EGW00103", "EGW00105", "EGW00206"})  # this app key, whatever is asked with it
ISSUED = "EGW00133"  # a token was issued less than a minute ago
AGAIN = frozenset({"EGW00001", "EGW00002", "EGW00202", "EGW00203", "EGW00204", "EGW00300", "EGW00301", "EGW00302"})
ADVICE = {
    "EGW00003": "ask KIS for access to this API",
    "EGW00004": "ask KIS for access to this API",
    "EGW00103": "check the app key ({key}) and that it belongs to this environment; KIS also says so of a locked key",
    "EGW00105": "check the app secret ({secret})",
    "EGW00201": "lower kis.calls_per_second or end other programs that use this key",
    "EGW00205": "report it: the client sent no bearer token",
    "EGW00206": "ask KIS for access to this API",
    "EGW00207": "register this host's address with KIS",
    "EGW00213": "this call exists only in the live environment; use --kis.environment live",
    "OPSQ0002": "report it: path and TR id do not belong together",
    "OPSQ2001": "report it: a query field is missing or not accepted",
}


class KisError(Exception):
    """KIS did not give what was asked for; `code` is its own code, or network, status, page, maintenance or
    capability."""

    def __init__(self, code: str, got: str, where: str, todo: str) -> None:
        super().__init__(code, got, where, todo)
        self.code, self.got, self.where, self.todo = code, got, where, todo

    def __str__(self) -> str:
        """Say what was expected, what came, where, and what to do."""
        return f"expected an answer to {self.where}, got {self.got} [{self.code}]; {self.todo}"


class Mask:
    """Replace secrets in what came from outside: a server or a proxy may repeat what it was sent.

    Every spelling that a secret takes on its way is known: as it is, in a URL, in a JSON string, in HTML, as Python
    shows it, and an account also without its dash or its last part.
    """

    def __init__(self, *secrets: str) -> None:
        self._known: list[str] = []
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Learn further secrets; empty ones are none."""
        if all(secret in self._known for secret in secrets if secret):
            return
        found = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
        self._known = sorted({*self._known, *found}, key=lambda text: (-len(text), text))  # a part never goes first

    def __call__(self, text: str) -> str:
        """Return the text with `***` for each secret."""
        for secret in self._known:
            text = text.replace(secret, "***")
        return text

    def raw(self, content: bytes) -> bytes:
        """Do the same to bytes, which are kept; those of a page hold no secret unless a server repeats what it got."""
        for secret in self._known:
            if (text := secret.encode()) in content:
                content = content.replace(text, b"***")
        return content


def _spellings(secret: str) -> Iterator[str]:
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), secret.replace("/", "\\/"))
    yield from (orjson.dumps(secret).decode()[1:-1], repr(secret)[1:-1], repr(secret.encode())[2:-1])
    yield from (html.escape(secret), html.escape(secret, quote=False))
    first, dash, last = secret.partition("-")
    if dash and (first + last).isdigit():
        yield from (first, first + last)


def judge(status: int, content: bytes, mask: Mask) -> tuple[Verdict, str, str, dict[str, Any]]:
    """Return (verdict, code, text, body) of an HTTP answer; the body is empty unless the verdict is "page".

    Code and text are masked: they end in messages, logs and manifests.

    KIS sends gateway errors with status 500 and JSON, refusals of /oauth2/* with 403 and other field names, business
    errors with 200, and pages of HTML with any 5xx during maintenance.
    """
    if 300 <= status < 400:
        return "error", "status", f"HTTP {status}, which sends elsewhere", {}
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        verdict: Verdict = "error" if 400 <= status < 500 and status not in (408, 429) else "again"
        kind = "maintenance" if status == 503 else "status" if status >= 400 else "page"
        return verdict, kind, f"HTTP {status} without JSON ({len(content)} bytes)", {}
    code = mask(str(body.get("error_code") or body.get("msg_cd") or "").strip())
    text = mask(str(body.get("error_description") or body.get("msg1") or "").strip())
    plain = "rt_cd" not in body and not code  # /oauth2/* answers have no envelope
    if code in NOTHING or (status < 400 and (code in (SUCCESS, CONTINUED) or body.get("rt_cd") == "0" or plain)):
        return "page", code, text, body
    for codes, verdict in ((SLOWER, "slower"), (TOKEN, "token"), ({ISSUED}, "wait"), (AGAIN, "again")):
        if code in codes:
            return verdict, code, text, {}
    return ("again" if status >= 500 and not code else "error"), code or "status", text or f"HTTP {status}", {}


def advice(code: str, key: str, secret: str) -> str:
    """Return what to do about a code; `key` and `secret` are the names of the variables that hold them."""
    return ADVICE.get(code, "see the list of codes in the KIS Developers portal").format(key=key, secret=secret)
