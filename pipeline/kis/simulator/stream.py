"""The simulated KIS's WebSocket: sessions, subscriptions with their codes, PINGPONG, and trades and order books pushed
as the market's clock passes them.

Nobody waits for anybody: each client has a queue of its own, and one that does not read until its queue is full loses
its connection, as on KIS.
"""

import asyncio
import contextlib
import secrets
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import WSMsgType, web

from pipeline import krx
from pipeline.kis import control
from pipeline.kis.control import Refusal, Request
from pipeline.kis.records import Layout
from pipeline.kis.simulator.feed import TRS, Feed
from pipeline.kis.simulator.frames import render_frame
from pipeline.kis.simulator.gate import Approvals
from pipeline.kis.simulator.market import Market, UnknownSymbol

Second = Literal["refuse", "kick"]
_STEP_S = 0.05  # between two looks at the clock
_TOGETHER = 6  # records of a frame at most, the most that users have seen
_CLOSE_S = 0.5  # for a client to answer a close
_LONGEST = 65_536  # bytes of a client's message
_ENDED = (ConnectionResetError, ConnectionAbortedError)
Subject = tuple[str, str]  # TR id, symbol


@dataclass(frozen=True)
class StreamOptions:
    """How the WebSocket behaves; times in seconds.

    `second` says what happens to a second connection with the same app key: it is refused, or the first one is kicked;
    users have seen both.
    """

    approvals: Approvals = field(default_factory=Approvals)
    layout: Layout = "current"
    second: Second = "refuse"
    registrations: int = 41
    ping: float = 100.0
    backlog: int = 4096  # frames that may wait for one client


class _Session:
    """One connection: what it subscribed to and what waits to be sent."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, backlog: int) -> None:
        self.socket, self._transport = socket, transport
        self._waiting: asyncio.Queue[str | None] = asyncio.Queue(backlog)
        self.subjects: set[Subject] = set()
        self.app_key = ""
        self.asked = False  # a PINGPONG is not answered yet
        self.over = False
        self.iv = secrets.token_hex(8)
        self.key = "".join(secrets.choice(string.ascii_lowercase) for _ in range(32))

    def send(self, text: str) -> None:
        """Put a text in the queue; a full queue ends the connection at once."""
        if self.over:
            return
        try:
            self._waiting.put_nowait(text)
        except asyncio.QueueFull:
            self.over = True
            self._abort()

    def end(self) -> None:
        """Close the connection after what waits, or without it when the client does not read."""
        if not self.over:
            self.over = True
            with contextlib.suppress(asyncio.QueueFull):
                self._waiting.put_nowait(None)
            asyncio.get_running_loop().call_later(2 * _CLOSE_S, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Send what waits until the end."""
        with contextlib.suppress(*_ENDED):
            while (text := await self._waiting.get()) is not None:
                await self.socket.send_str(text)
            await self.socket.close()


class Stream:
    """The WebSocket of one market."""

    def __init__(self, market: Market, options: StreamOptions | None = None) -> None:
        self.market, self.options = market, options or StreamOptions()
        self._feed = Feed(market, self.options.layout)
        self._sessions: set[_Session] = set()
        self._readers: dict[Subject, set[_Session]] = {}
        self._shown = market.instant()

    def application(self) -> web.Application:
        """Return the application; a WebSocket may be opened on any path."""
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._connect)
        app.cleanup_ctx.append(self._pumping)
        app.on_shutdown.append(self._shut)
        return app

    async def _pumping(self, app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._pump())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _shut(self, app: web.Application) -> None:
        self._end()

    def _end(self) -> None:
        for session in self._sessions:
            session.end()

    async def _pump(self) -> None:
        while True:
            await asyncio.sleep(_STEP_S)
            try:
                self._push()
            except Exception as error:  # clients see the end of their connections, the operator sees why
                asyncio.get_running_loop().call_exception_handler({"message": "the feed failed", "exception": error})
                self._end()

    def _push(self) -> None:
        """Send what happened since the last time to those who listen."""
        since, self._shown = self._shown, self.market.instant()
        if self._shown <= since:
            return
        frames = []
        for (tr_id, symbol), readers in self._readers.items():
            records = self._feed.records(tr_id, symbol, since, self._shown)
            for at in range(0, len(records), _TOGETHER):
                part = records[at : at + _TOGETHER]
                frames.append((part[0][0], render_frame(tr_id, [text for _, text in part]), readers))
        frames.sort(key=lambda frame: frame[0])
        for _, text, readers in frames:
            for session in readers:
                session.send(text)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False, compress=False, timeout=_CLOSE_S, max_msg_size=_LONGEST)
        await socket.prepare(request)
        session = _Session(socket, request.transport, self.options.backlog)
        self._sessions.add(session)
        tasks = [asyncio.create_task(session.write()), asyncio.create_task(self._keep_alive(session))]
        try:
            async for message in socket:
                if message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    session.asked = False
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and not session.over:
                    self._hear(session, message.data)
        except _ENDED:
            pass  # the client went away while it was answered
        finally:
            session.over = True
            self._forget(session)
            for task in tasks:
                task.cancel()
        return socket

    async def _keep_alive(self, session: _Session) -> None:
        while not session.over:
            await asyncio.sleep(self.options.ping)
            if session.asked:
                session.end()
                return
            session.asked = True
            session.send(control.render_ping(self.market.now().astimezone(krx.KST)))

    def _forget(self, session: _Session) -> None:
        self._sessions.discard(session)
        for subject in list(session.subjects):
            self._leave(session, subject)

    def _leave(self, session: _Session, subject: Subject) -> None:
        session.subjects.discard(subject)
        self._readers[subject].discard(session)
        if not self._readers[subject]:
            del self._readers[subject]

    def _hear(self, session: _Session, text: str | bytes) -> None:
        """Take a message of a client and answer it."""
        try:
            request = control.parse_request(text)
            if request is None:
                session.asked = False
                return
            code, tr_id, tr_key = self._registered(session, request), request.tr_id, request.tr_key
        except Refusal as refusal:
            code, tr_id, tr_key = refusal.code, refusal.tr_id, refusal.tr_key
        session.send(control.render_ack(code, tr_id, tr_key, session.iv, session.key))
        if code == control.IN_USE:
            session.end()

    def _registered(self, session: _Session, request: Request) -> str:
        """Subscribe or unsubscribe and return the code of the answer. Raises Refusal."""
        self._admit(session, request.approval_key)
        subject = (request.tr_id, request.tr_key)
        if request.tr_id not in TRS:
            raise Refusal(control.BAD_TR_ID, *subject)
        try:
            self.market.listing(request.tr_key)
        except UnknownSymbol:
            raise Refusal(control.BAD_TR_KEY, *subject) from None
        if not request.subscribe:
            if subject not in session.subjects:
                return control.NOT_FOUND
            self._leave(session, subject)
            return control.UNSUBSCRIBED
        if subject in session.subjects:
            return control.ALREADY
        if len(session.subjects) >= self.options.registrations:
            return control.TOO_MANY
        self._push()  # what happened before is for the others
        session.subjects.add(subject)
        self._readers.setdefault(subject, set()).add(session)
        return control.SUBSCRIBED

    def _admit(self, session: _Session, approval_key: str) -> None:
        """Give an app key its one session. Raises Refusal."""
        app_key = self.options.approvals.owner(approval_key)
        if app_key is None:
            raise Refusal(control.NO_APPROVAL)
        if session.app_key == app_key:
            return
        for other in [one for one in self._sessions if one.app_key == app_key and not one.over]:
            if self.options.second == "refuse":
                raise Refusal(control.IN_USE, "(null)")
            self._forget(other)
            other.end()
        session.app_key = app_key
