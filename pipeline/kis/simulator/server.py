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
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from pipeline import krx
from pipeline.kis import layouts
from pipeline.kis.layouts import MESSAGES, SUCCESS, TRS, Tr
from pipeline.kis.master import FILES, FOLDER
from pipeline.kis.simulator.charts import Asked, Charts, Rows
from pipeline.kis.simulator.faults import Faults, Mischief
from pipeline.kis.simulator.gate import Quota, Refused, Tokens
from pipeline.kis.simulator.indices import INDICES
from pipeline.kis.simulator.market import Market, UnknownSymbol
from pipeline.kis.simulator.quotes import Quotes

_BY_PATH = {tr.path: tr for tr in TRS}
_VENUES = frozenset({"J", "UN", "NX"})


class Invalid(Exception):
    """A call with a parameter that KIS refuses; the text is its msg1."""


@dataclass(frozen=True)
class Page:
    """The answer to one call: single objects by name, rendered rows by name, and what continuation needs."""

    objects: Mapping[str, Any] = field(default_factory=dict)
    rows: Rows | None = None
    array: str = ""
    more: bool | None = None
    code: str = SUCCESS


@dataclass(frozen=True)
class Options:
    """How the server behaves; times in seconds. `paper` refuses what KIS's paper server does not have."""

    quota: Quota = field(default_factory=lambda: Quota(200))
    tokens: Tokens = field(default_factory=Tokens)
    faults: Faults = field(default_factory=Faults)
    paper: bool = False


class Server:
    """The handlers behind one market."""

    def __init__(self, market: Market, options: Options | None = None) -> None:
        self.market, self.options = market, options or Options()
        self.charts = Charts(market)
        self.quotes = Quotes(market, self.charts)
        self._mischief = Mischief(self.options.faults)
        self._pages: dict[str, Callable[[Tr, Mapping[str, str], str], Page]] = {
            layouts.PRICE.path: self._price,
            layouts.DAILY_PRICE.path: self._daily_price,
            layouts.DAILY.path: self._daily,
            layouts.MINUTES_TODAY.path: self._minutes_today,
            layouts.MINUTES_PAST.path: self._minutes_past,
            layouts.INDEX_DAILY.path: self._index,
            layouts.INVESTORS.path: self._investors,
            layouts.HOLIDAYS.path: self._holidays,
            layouts.STOCK_INFO.path: self._stock_info,
        }
        self._posts: dict[str, Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Any]]] = {
            "/oauth2/tokenP": self._token,
            "/oauth2/revokeP": self._revoke,
            "/oauth2/Approval": self._approval,
            "/uapi/hashkey": self._hashkey,
        }

    def application(self) -> web.Application:
        """Return the application; every path goes to one handler."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        while "//" in path:
            path = path.replace("//", "/")
        if request.method == "POST":
            return await self._post(path, request)
        tr = _BY_PATH.get(path)
        if tr is not None and request.method == "GET":
            return await self._quotation(tr, request)
        market = next((name for name, file in FILES.items() if path == f"{FOLDER}{file}.mst.zip"), None)
        if market is not None:
            return web.Response(body=self.quotes.master(market), content_type="application/zip")
        return web.Response(status=404, text="Not Found")

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
        return dict(self.options.tokens.issue(_text(body, "appkey"), _text(body, "appsecret")))

    def _revoke(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        self.options.tokens.know(_text(body, "appkey"), _text(body, "appsecret"))
        self.options.tokens.revoke(_text(body, "token"))
        return {"code": 200, "message": "접근토큰 폐기에 성공하였습니다"}

    def _approval(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        _grant(body)
        self.options.tokens.know(_text(body, "appkey"), _text(body, "secretkey"))
        return {"approval_key": str(uuid.uuid4())}

    def _hashkey(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        self.options.tokens.know(headers.get("appkey", ""), headers.get("appsecret", ""))
        return {"BODY": body, "HASH": hashlib.sha256(orjson.dumps(body)).hexdigest()}

    async def _quotation(self, tr: Tr, request: web.Request) -> web.Response:
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
                text = "<html><body><h1>500 Internal Server Error</h1></body></html>"
                return web.Response(status=500, text=text, content_type="text/html")
        try:
            if dice.happens("rejected") or not self.options.quota.admit(app_key):
                raise Refused("EGW00201")
            self.options.tokens.check(headers.get("authorization", ""), app_key, headers.get("appsecret", ""))
            tr_id = headers.get("tr_id", "")
            if tr_id != tr.tr_id:
                raise Refused("OPSQ0002")
            if self.options.paper and not tr.paper:
                raise Refused("EGW00213")
            query = {name.upper(): value for name, value in request.query.items()}
            missing = next((name for name in tr.params if name not in query), None)
            if missing is not None:
                raise Invalid(f"ERROR INPUT FIELD NOT FOUND [{missing}]")
            page = self._pages[tr.path](tr, query, headers.get("tr_cont", ""))
        except Refused as error:
            rt_cd, status, text = MESSAGES[error.code]
            return self._answer(tr, request, _envelope(rt_cd, error.code, text), status=status)
        except Invalid as error:
            return self._answer(tr, request, _envelope("2", "OPSQ2001", str(error)))
        return self._answer(tr, request, self._body(page), cont="" if page.more is None else "M" if page.more else "D")

    def _body(self, page: Page) -> bytes:
        rt_cd, _, text = MESSAGES[page.code]
        parts = [b'"%s":%s' % (name.encode(), orjson.dumps(value)) for name, value in page.objects.items()]
        if page.rows is not None:
            rows = page.rows if self._mischief.idle else self._mischief.spoil(page.rows)
            parts.append(b'"%s":[%s]' % (page.array.encode(), b",".join(rows)))
        return (
            b"{%s,%s" % (b",".join(parts), _envelope(rt_cd, page.code, text)[1:])
            if parts
            else _envelope(rt_cd, page.code, text)
        )

    def _answer(self, tr: Tr, request: web.Request, body: bytes, *, status: int = 200, cont: str = "") -> web.Response:
        uid = request.headers.get("gt_uid") or secrets.token_hex(16)
        return _json(body, status=status, headers={"tr_id": tr.tr_id, "tr_cont": cont, "gt_uid": uid})

    def _price(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        _venue(query)
        return Page(objects={"output": self.quotes.price(query["FID_INPUT_ISCD"])})

    def _daily_price(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        venue = _venue(query)
        asked = Asked(
            query["FID_INPUT_ISCD"], krx.FIRST, krx.LAST, _period(query, "DWM"), _flag(query, "FID_ORG_ADJ_PRC") == 1
        )
        return Page(rows=_or_empty(lambda: self.charts.latest_prices(asked, tr.max_rows), venue), array="output")

    def _daily(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        venue = _venue(query)
        start, end = (np.datetime64(_day(query, f"FID_INPUT_DATE_{side}"), "D") for side in (1, 2))
        asked = Asked(query["FID_INPUT_ISCD"], start, end, _period(query, "DWMY"), _flag(query, "FID_ORG_ADJ_PRC") == 0)
        rows = _or_empty(lambda: self.charts.daily(asked, tr.max_rows), venue)
        return Page({"output1": self.quotes.summary(asked.symbol, tr.summary_fields)}, rows, tr.array)

    def _minutes_today(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        venue, symbol = _venue(query), query["FID_INPUT_ISCD"]
        until, past = _hour(query), query["FID_PW_DATA_INCU_YN"] == "Y"
        if until == 0:  # clients send 000000 for "the latest"
            now = self.market.now().astimezone(krx.KST)
            until = now.hour * 3600 + now.minute * 60
        rows = _or_empty(lambda: self.charts.minutes_today(symbol, until, past=past, most=tr.max_rows), venue)
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields)}, rows, tr.array)

    def _minutes_past(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        venue, symbol = _venue(query), query["FID_INPUT_ISCD"]
        day = _day(query, "FID_INPUT_DATE_1")
        until, past = _hour(query), query["FID_PW_DATA_INCU_YN"] == "Y"
        rows = _or_empty(lambda: self.charts.minutes_past(symbol, day, until, past=past, most=tr.max_rows), venue)
        return Page({"output1": self.quotes.summary(symbol, tr.summary_fields)}, rows, tr.array)

    def _index(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        code = query["FID_INPUT_ISCD"]
        if query["FID_COND_MRKT_DIV_CODE"] != "U" or code not in INDICES:
            raise Invalid("ERROR : INPUT INVALID_CHECK_MRKT_DIV_CODE")
        start, end = (np.datetime64(_day(query, f"FID_INPUT_DATE_{side}"), "D") for side in (1, 2))
        rows, columns = self.charts.index(code, start, end, _period(query, "DWMY"), tr.max_rows)
        return Page({"output1": self.quotes.index_summary(code, columns)}, rows or [b"{}"], tr.array)

    def _investors(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        venue = _venue(query)
        return Page(
            rows=_or_empty(lambda: self.charts.investors(query["FID_INPUT_ISCD"], tr.max_rows), venue), array=tr.array
        )

    def _holidays(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        name = "CTX_AREA_NK" if cont == "N" and query["CTX_AREA_NK"].strip() else "BASS_DT"
        start = _day(query, name)
        if not krx.FIRST.item() <= start <= krx.LAST.item():
            raise Invalid("ERROR : INPUT INVALID_CHECK_BASS_DT")
        rows, following = self.quotes.holidays(start)
        context = {
            "ctx_area_nk": f"{following:%Y%m%d}".ljust(20) if following else " " * 20,
            "ctx_area_fk": query["BASS_DT"].ljust(20),
        }
        code = layouts.CONTINUED if following else SUCCESS
        return Page(context, [orjson.dumps(row) for row in rows], tr.array, following is not None, code)

    def _stock_info(self, tr: Tr, query: Mapping[str, str], cont: str) -> Page:
        try:
            return Page(objects={"output": self.quotes.stock_info(query["PDNO"])})
        except UnknownSymbol:
            return Page(code="KIER2620")


async def serve(server: Server, listener: socket.socket, ready: Callable[[str, int], None]) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT; `ready` is called with host and port once calls are taken."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    runner = web.AppRunner(server.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    ready(*listener.getsockname()[:2])
    await stop.wait()
    await runner.cleanup()


def _json(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


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


def _or_empty(rows: Callable[[], Rows], venue: str) -> Rows:
    """Return the rows, or one empty object where there are none; the market trades on KRX only, so that NXT has
    none."""
    try:
        return (rows() if venue != "NX" else []) or [b"{}"]
    except UnknownSymbol:
        return [b"{}"]


def _venue(query: Mapping[str, str]) -> str:
    venue = query["FID_COND_MRKT_DIV_CODE"]
    if venue not in _VENUES:
        raise Invalid("ERROR : INPUT INVALID_CHECK_MRKT_DIV_CODE")
    return venue


def _period(query: Mapping[str, str], known: str) -> str:
    period = query["FID_PERIOD_DIV_CODE"]
    if len(period) != 1 or period not in known:
        raise Invalid("ERROR : INPUT INVALID_CHECK_PERIOD_DIV_CODE")
    return period


def _flag(query: Mapping[str, str], name: str) -> int:
    text = query[name].strip() or "0"
    if not (text.isascii() and text.isdigit()):
        raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name.removeprefix('FID_')}")
    return int(text)  # clients pad it with zeros


def _day(query: Mapping[str, str], name: str) -> date:
    text = query[name].strip()
    if len(text) == 8 and text.isascii() and text.isdigit():
        if text < "19000101":  # clients ask from 00000101 for "all there is"
            return date(1900, 1, 1)
        try:
            return datetime.strptime(text, "%Y%m%d").date()
        except ValueError:
            pass
    raise Invalid(f"ERROR : INPUT INVALID_CHECK_{name.removeprefix('FID_')}")


def _hour(query: Mapping[str, str]) -> int:
    text = query["FID_INPUT_HOUR_1"].strip() or "000000"
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        raise Invalid("ERROR : INPUT INVALID_CHECK_INPUT_HOUR_1")
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + int(text[4:])
