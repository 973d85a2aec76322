"""The KIS-compatible REST server: envelopes, errors, headers, paging and limits around the pages of the simulated
market.

One aiohttp application with one route, because paths come with doubled slashes and every refusal has KIS's shape.
Standard headers are Title-Case and tr_id, tr_cont, gt_uid lower case: clients in the wild depend on both.
"""

import asyncio
import hashlib
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import orjson
from aiohttp import web

from pipeline.kis import quotations
from pipeline.kis.layouts import MESSAGES, Tr
from pipeline.kis.master import FILES, FOLDER, MasterMarket
from pipeline.kis.simulator.faults import Faults, Mischief
from pipeline.kis.simulator.gate import Approvals, Quota, Refused, Tokens
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.overseas_pages import OverseasPages
from pipeline.kis.simulator.pages import Invalid, Page, Pages

_BY_PATH = {tr.path: tr for tr in quotations.ALL}
_DOWN = "<html><body><h1>503 Service Unavailable</h1></body></html>"
_BROKEN = "<html><body><h1>500 Internal Server Error</h1></body></html>"


@dataclass(frozen=True)
class Options:
    """How the server behaves; times in seconds. `paper` refuses what KIS's paper server does not have."""

    quota: Quota = field(default_factory=lambda: Quota(200))
    tokens: Tokens = field(default_factory=Tokens)
    faults: Faults = field(default_factory=Faults)
    paper: bool = False
    approvals: Approvals = field(default_factory=Approvals)


class Server:
    """The handlers behind one market."""

    def __init__(self, market: Market, options: Options | None = None) -> None:
        self.market, self.options = market, options or Options()
        self.pages = Pages(market, self.options.faults.rewriting, OverseasPages(market).handlers)
        self._mischief = Mischief(self.options.faults)
        self._making = {market: asyncio.Lock() for market in FILES}  # one master file of a kind at a time
        if self._skew:
            self.options.tokens.clock = self._time
        self._posts: dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Any]]] = {
            "/oauth2/tokenP": self._token,
            "/oauth2/revokeP": self._revoke,
            "/oauth2/Approval": self._approval,
            "/uapi/hashkey": self._hashkey,
        }

    @property
    def _skew(self) -> float:
        return self.options.faults.skew_seconds

    def _time(self) -> float:
        """Return the server's own time, which may be wrong; the market's is another."""
        return time.time() + self._skew

    async def _date(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(self._time(), usegmt=True)

    def application(self) -> web.Application:
        """Return the application; every path goes to one handler."""
        app = web.Application()
        if self._skew:
            app.on_response_prepare.append(self._date)
        app.on_shutdown.append(self._close)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        while "//" in path:
            path = path.replace("//", "/")
        if self.options.faults.closed_at(self.market.now()):
            return web.Response(status=503, text=_DOWN, content_type="text/html")
        if request.method == "POST":
            return await self._post(path, request)
        tr = _BY_PATH.get(path)
        if tr is not None and request.method == "GET":
            return await self._quotation(tr, request)
        market = next((name for name, file in FILES.items() if path == f"{FOLDER}{file}.mst.zip"), None)
        if market is not None:
            return web.Response(body=await self._master(market), content_type="application/zip")
        return web.Response(status=404, text="Not Found")

    async def _master(self, market: MasterMarket) -> bytes:
        async with self._making[market]:
            return await asyncio.to_thread(self.pages.quotes.master, market)

    async def _close(self, app: web.Application) -> None:
        self.pages.quotes.stopping.set()

    async def _post(self, path: str, request: web.Request) -> web.Response:
        answer = self._posts.get(path)
        if answer is None:
            return web.Response(status=404, text="Not Found")
        try:
            body = orjson.loads(await request.read())
            if not isinstance(body, dict):
                raise Refused("EGW00101")
            return _json(orjson.dumps(answer(body, request.headers)))
        except orjson.JSONDecodeError:
            refused = Refused("EGW00101")
        except Refused as error:
            refused = error
        _, status, text = MESSAGES[refused.code]
        return _json(orjson.dumps({"error_code": refused.code, "error_description": text}), status=status)

    def _token(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        _grant(body)
        if self._mischief.happens("token_refused"):
            raise Refused("EGW00133")
        return dict(self.options.tokens.issue(_text(body, "appkey"), _text(body, "appsecret")))

    def _revoke(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        self.options.tokens.know(_text(body, "appkey"), _text(body, "appsecret"))
        self.options.tokens.revoke(_text(body, "token"))
        return {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}

    def _approval(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        _grant(body)
        self.options.tokens.know(_text(body, "appkey"), _text(body, "secretkey"))
        return {"approval_key": self.options.approvals.issue(_text(body, "appkey"))}

    def _hashkey(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        self.options.tokens.know(headers.get("appkey", ""), headers.get("appsecret", ""))
        return {"BODY": body, "HASH": hashlib.sha256(orjson.dumps(body)).hexdigest()}

    async def _quotation(self, tr: Tr, request: web.Request) -> web.StreamResponse:
        headers, dice = request.headers, self._mischief
        app_key = headers.get("appkey", "")
        if not dice.idle:
            if dice.happens("slow"):
                await asyncio.sleep(dice.faults.slow_seconds)
            if dice.happens("reset"):
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            if dice.happens("html_500"):
                return web.Response(status=500, text=_BROKEN, content_type="text/html")
        try:
            if dice.happens("rejected") or not self.options.quota.admit(app_key):
                raise Refused("EGW00201")
            self._admit(headers.get("authorization", ""), app_key, headers.get("appsecret", ""))
            if headers.get("tr_id", "") != tr.tr_id:
                raise Refused("OPSQ0002")
            if self.options.paper and not tr.paper:
                raise Refused("EGW00213")
            query = {name.upper(): value for name, value in request.query.items()}
            page = self.pages.page(tr, query, headers.get("tr_cont", ""))
        except Refused as error:
            rt_cd, status, text = MESSAGES[error.code]
            return self._answer(tr, request, _envelope(rt_cd, error.code, text), status=status)
        except Invalid as error:
            return self._answer(tr, request, _envelope("2", "OPSQ2001", str(error)))
        rows = page.rows
        if rows is not None and not dice.idle:
            rows = dice.spoil(tr, query, rows)
        body = _body(page, rows)
        if dice.happens("truncated"):
            body = body[: len(body) // 2]
        answer = self._answer(tr, request, body, cont="" if page.more is None else "M" if page.more else "D")
        return await _half(request, answer, body) if dice.happens("cut") else answer

    def _admit(self, authorization: str, app_key: str, secret: str) -> None:
        """Check the headers of a call, in which a fault may take the token away. Raises Refused."""
        self.options.tokens.check(authorization, app_key, secret)
        if self._mischief.idle:
            return
        token = authorization.partition(" ")[2].strip()
        fault = self._mischief.takes(token)
        if fault is not None:
            (self.options.tokens.expire if fault == "expired" else self.options.tokens.revoke)(token)
            self.options.tokens.check(authorization, app_key, secret)

    def _answer(self, tr: Tr, request: web.Request, body: bytes, *, status: int = 200, cont: str = "") -> web.Response:
        uid = request.headers.get("gt_uid") or secrets.token_hex(16)
        return _json(body, status=status, headers={"tr_id": tr.tr_id, "tr_cont": cont, "gt_uid": uid})


async def serve(places: Sequence[tuple[web.Application, socket.socket]], ready: Callable[[], None]) -> None:
    """Serve applications on bound sockets until SIGTERM or SIGINT; `ready` is called once calls are taken."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    runners = []
    for application, listener in places:
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        runners.append(runner)
    ready()
    await stop.wait()
    await asyncio.gather(*(runner.cleanup() for runner in runners))


def _json(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def _body(page: Page, rows: list[bytes] | None) -> bytes:
    rt_cd, _, text = MESSAGES[page.code]
    parts = [b'"%s":%s' % (name.encode(), orjson.dumps(value)) for name, value in page.objects.items()]
    if rows is not None:
        parts.append(b'"%s":[%s]' % (page.array.encode(), b",".join(rows)))
    end = _envelope(rt_cd, page.code, text)
    return b"{%s,%s" % (b",".join(parts), end[1:]) if parts else end


async def _half(request: web.Request, answer: web.Response, body: bytes) -> web.StreamResponse:
    """Send the headers of an answer and half of its body, and close the connection."""
    half = web.StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


def _envelope(rt_cd: str, code: str, text: str) -> bytes:
    return orjson.dumps({"rt_cd": rt_cd, "msg_cd": code, "msg1": text})


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    return value if isinstance(value, str) else ""


def _grant(body: Mapping[str, Any]) -> None:
    if not body.get("grant_type"):
        raise Refused("EGW00115")
    if body["grant_type"] != "client_credentials":
        raise Refused("EGW00116")
