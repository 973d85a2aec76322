"""The simulator's WebSocket as a process of its own, spoken to over real sockets."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.kis import layouts, wire
from pipeline.kis.control import Control, parse_control, render_request
from pipeline.kis.frames import Frame, parse_book, parse_frame, parse_trades
from pipeline.kis.records import ORDER_BOOK, TRADE
from pipeline.kis.simulator.market import Market

from . import caller

DAY = date(2026, 11, 20)
SYMBOLS = [item.symbol for item in Market(7, 40).listings if item.delisted is None and item.listed.year < 2026]
A, B = SYMBOLS[:2]
Socket = aiohttp.ClientWebSocketResponse


def simulator(*options: object) -> AbstractContextManager[tuple[dict[str, Any], subprocess.Popen[str]]]:
    return caller.simulator("--symbols", 40, "--quota", 0, "--token-gap", 0, *options)


@pytest.fixture(scope="module")
def standing() -> Iterator[dict[str, Any]]:
    with simulator("--clock", "2026-11-20T10:00") as (addresses, _):
        yield addresses


@dataclass
class Client:
    """One WebSocket with the approval key that opens it."""

    socket: Socket
    key: str
    frames: list[Frame] = field(default_factory=list)

    async def ask(self, tr_id: str, symbol: str, *, subscribe: bool = True, key: str | None = None) -> Control:
        await self.socket.send_str(render_request(self.key if key is None else key, tr_id, symbol, subscribe=subscribe))
        return await self.ack()

    async def raw(self, text: str | bytes) -> Control:
        await (self.socket.send_str(text) if isinstance(text, str) else self.socket.send_bytes(text))
        return await self.ack()

    async def ack(self) -> Control:
        """Return the next control message; data that comes before it is kept."""
        while True:
            text = await self.socket.receive_str(timeout=5)
            if text.startswith("{"):
                return parse_control(text)
            self.frames.append(parse_frame(text))

    async def listen(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            try:
                self.frames.append(parse_frame(await self.socket.receive_str(timeout=left)))
            except TimeoutError:
                return

    def trades(self) -> pa.Table:
        return parse_trades(*(frame for frame in self.frames if frame.tr_id == TRADE))


async def approval(session: aiohttp.ClientSession, rest: str, app_key: str) -> str:
    body = {"grant_type": "client_credentials", "appkey": app_key, "secretkey": "secret"}
    async with session.post(f"{rest}/oauth2/Approval", json=body) as response:
        return str((await response.json())["approval_key"])


@asynccontextmanager
async def client(addresses: dict[str, Any], app_key: str = "key", path: str = "/tryitout") -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(addresses["ws"] + path, autoping=False) as opened,
    ):
        yield Client(opened, await approval(session, addresses["rest"], app_key))


async def minute_chart(rest: str, symbol: str) -> pa.Table:
    """Return the last 30 minutes of today by the REST call of the same server."""
    async with aiohttp.ClientSession() as session:
        body = {"grant_type": "client_credentials", "appkey": "rest", "appsecret": "secret"}
        token = (await (await session.post(f"{rest}/oauth2/tokenP", json=body)).json())["access_token"]
        headers = {"authorization": f"Bearer {token}", "appkey": "rest", "appsecret": "secret"}
        query = {"FID_ETC_CLS_CODE": "", "FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": symbol}
        query |= {"FID_INPUT_HOUR_1": "153000", "FID_PW_DATA_INCU_YN": "N"}
        tr = layouts.MINUTES_TODAY
        page = await session.get(rest + tr.path, params=query, headers=headers | {"tr_id": tr.tr_id})
        return wire.parse_minutes(await page.json(), tr)


@pytest.mark.parametrize("layout", ["legacy", "current"])
def test_trades_add_up_to_the_minute_chart_of_the_same_server(layout: str) -> None:
    symbols = SYMBOLS[:12]

    async def work(addresses: dict[str, Any]) -> None:
        async with client(addresses) as here:
            for symbol in symbols:
                assert (await here.ask(TRADE, symbol)).code == "OPSP0000"
                assert (await here.ask(ORDER_BOOK, symbol)).code == "OPSP0000"
            while here.trades()["phase"].to_pylist().count("21") < len(symbols):  # the closing auction
                await asyncio.wait_for(here.listen(0.5), 5)
            assert {frame.stride for frame in here.frames} == ({46, 59} if layout == "legacy" else {47, 63})
            assert 1 < max(frame.count for frame in here.frames) <= 6
            trades, seen = here.trades(), 0
            for symbol in symbols:
                own = trades.filter(pc.equal(trades["symbol"], symbol))
                seen += len(own)
                np.testing.assert_array_equal(
                    np.diff(own["cumulative_volume"].to_numpy()), own["volume"].to_numpy()[1:]
                )
                await compare(own, symbol, addresses["rest"])
            assert seen == len(trades) > 500
            books = parse_book(*(frame for frame in here.frames if frame.tr_id == ORDER_BOOK), day=DAY)
            assert 0.9 * len(trades) < len(books) <= len(trades)  # one after each trade, subscribed to a little later
            for row in books.to_pylist():
                assert row["asks"][0] > row["bids"][0] and row["total_ask_size"] == sum(row["ask_sizes"])

    with simulator("--clock", "2026-11-20T15:05:30", "--speed", "400", "--layout", layout) as (addresses, _):
        asyncio.run(asyncio.wait_for(work(addresses), 60))


async def compare(trades: pa.Table, symbol: str, rest: str) -> None:
    """Compare whole minutes and the closing auction with the REST chart."""
    chart = wire.minute_bars(await minute_chart(rest, symbol)).to_pylist()
    ts = trades["ts"].cast(pa.timestamp("us")).to_numpy()
    turnover = np.diff(trades["cumulative_turnover"].to_numpy(), prepend=np.nan)
    price, volume = trades["price"].to_numpy(), trades["volume"].to_numpy()
    compared = 0
    for bar in chart:
        end = np.datetime64(bar["ts"].replace(tzinfo=None), "us")
        closing = bar["ts"].strftime("%H%M") == "0630"
        start = end if closing else end - np.timedelta64(1, "m")
        inside = (ts >= start) & ((ts <= end) if closing else (ts < end))
        if start <= ts[0]:
            continue
        assert inside.any() and np.isfinite(turnover[inside]).all()
        assert price[inside][0] == bar["open"] and price[inside][-1] == bar["close"]
        assert price[inside].max() == bar["high"] and price[inside].min() == bar["low"]
        assert volume[inside].sum() == bar["volume"] and turnover[inside].sum() == bar["turnover"]
        compared += 1
    assert compared >= 3 and chart[-1]["ts"].strftime("%H%M") == "0630"


def test_codes_of_subscriptions(standing: dict[str, Any]) -> None:
    async def work() -> None:
        async with client(standing, path="/") as here:
            ack = await here.ask(TRADE, A)
            assert (ack.tr_id, ack.tr_key, ack.rt_cd, ack.code, ack.text) == (
                TRADE, A, "0", "OPSP0000", "SUBSCRIBE SUCCESS",
            )  # fmt: skip
            assert len(ack.iv) == 16 and len(ack.key) == 32 and ack.key.islower() and int(ack.iv, 16) >= 0
            assert (await here.ask(TRADE, A)).code == "OPSP0002"
            assert (await here.ask(TRADE, B, subscribe=False)).code == "OPSP0003"
            gone = await here.ask(TRADE, A, subscribe=False)
            assert gone.code == "OPSP0001" and gone.text.startswith("UNSUB") and gone.iv == ack.iv
            assert (await here.ask(TRADE, A)).code == "OPSP0000"
            assert (await here.ask("H0STXXX0", A)).code == "OPSP8991"
            assert (await here.ask(TRADE, "999999")).code == "OPSP8993"
            wrong = await here.ask(TRADE, A, key="nothing")
            assert (wrong.code, wrong.rt_cd, wrong.text) == ("OPSP0011", "1", "invalid approval : NOT FOUND")
            async with aiohttp.ClientSession() as session:  # clients take a fresh key before every message
                fresh = await approval(session, standing["rest"], "key")
            assert (await here.ask(TRADE, B, key=fresh)).code == "OPSP0000"
            assert (await here.ask(ORDER_BOOK, B)).code == "OPSP0000"

    asyncio.run(work())


def test_garbage_is_answered_and_the_connection_lives(standing: dict[str, Any]) -> None:
    asked = {
        "header": {"approval_key": "k", "custtype": "P", "tr_type": "1", "content-type": "utf-8"},
        "body": {"input": {"tr_id": TRADE, "tr_key": A}},
    }

    def changed(part: str, **fields: object) -> str:
        return json.dumps(asked | {part: asked[part] | fields})

    async def work() -> None:
        async with client(standing) as here:
            for text, code in (
                ("", "OPSP9990"),
                ("{", "OPSP9990"),
                (b"\xff\x00", "OPSP9990"),
                ("[1]", "OPSP9991"),
                ('"x"', "OPSP9991"),
                ("{}", "OPSP9992"),
                (changed("body", input=[]), "OPSP9992"),
                (changed("body", input={"tr_id": 1, "tr_key": A}), "OPSP9992"),
                (changed("header", tr_type="0"), "OPSP8997"),
                (changed("header", custtype="X"), "OPSP8998"),
                (changed("header", approval_key="?" * 2000), "OPSP0011"),
            ):
                ack = await here.raw(text)
                assert ack.code == code and ack.rt_cd in ("1", "9") and ack.iv and ack.key, text
            extra = changed("header", approval_key=here.key, personalseckey="1")
            assert (await here.raw(extra)).code == "OPSP0000"
            await here.socket.send_str("x" * 70_000)  # longer than any message
            assert (await here.socket.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    asyncio.run(work())


def test_the_42nd_registration_is_refused(standing: dict[str, Any]) -> None:
    subjects = [(tr_id, symbol) for symbol in SYMBOLS[:25] for tr_id in (TRADE, ORDER_BOOK)]

    async def work() -> None:
        async with client(standing) as here:
            codes = [(await here.ask(*subject)).code for subject in subjects[:43]]
            assert codes == ["OPSP0000"] * 41 + ["OPSP0008"] * 2
            assert (await here.ask(*subjects[0], subscribe=False)).code == "OPSP0001"
            assert (await here.ask(*subjects[45])).code == "OPSP0000"
            assert (await here.ask(*subjects[46])).code == "OPSP0008"

    asyncio.run(work())


def test_a_standing_clock_pushes_nothing_and_pings_are_answered(standing: dict[str, Any]) -> None:
    async def work() -> None:
        async with client(standing) as here:
            assert (await here.ask(TRADE, A)).code == "OPSP0000"
            await here.listen(0.4)
            assert here.frames == []
            await here.socket.ping(b"are you there")
            message = await here.socket.receive(timeout=5)
            assert message.type is aiohttp.WSMsgType.PONG and bytes(message.data) == b"are you there"

    asyncio.run(work())


def test_a_second_connection_is_refused_and_another_key_is_not(standing: dict[str, Any]) -> None:
    async def work() -> None:
        async with client(standing) as first, client(standing) as second, client(standing, "other") as third:
            assert (await first.ask(TRADE, A)).code == "OPSP0000"
            ack = await second.ask(TRADE, B)
            assert (ack.code, ack.rt_cd, ack.tr_id, ack.tr_key) == ("OPSP8996", "9", "(null)", "")
            assert (await second.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
            assert (await third.ask(TRADE, A)).code == "OPSP0000"
            assert (await first.ask(TRADE, B)).code == "OPSP0000"
        async with client(standing) as later:  # the place is free again
            assert (await later.ask(TRADE, A)).code == "OPSP0000"

    asyncio.run(work())


def test_a_second_connection_kicks_the_first() -> None:
    async def work(addresses: dict[str, Any]) -> None:
        async with client(addresses) as first, client(addresses) as second:
            assert (await first.ask(TRADE, A)).code == "OPSP0000"
            assert (await second.ask(TRADE, A)).code == "OPSP0000"
            assert (await first.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
            assert (await second.ask(TRADE, B)).code == "OPSP0000"

    with simulator("--clock", "2026-11-20T10:00", "--second-session", "kick") as (addresses, _):
        asyncio.run(work(addresses))


def test_who_does_not_answer_pingpong_is_closed() -> None:
    async def work(addresses: dict[str, Any]) -> None:
        async with (
            client(addresses, "silent") as silent,
            client(addresses, "echo") as echo,
            client(addresses, "pong") as pong,
        ):
            for _ in range(4):
                text = await echo.socket.receive_str(timeout=5)
                assert json.loads(text)["header"] == {"tr_id": "PINGPONG", "datetime": "20261120100000"}
                await echo.socket.send_str(text)
                await pong.socket.pong((await pong.socket.receive_str(timeout=5)).encode())
            assert json.loads(await silent.socket.receive_str(timeout=5))["header"]["tr_id"] == "PINGPONG"
            assert (await silent.socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
            assert (await pong.ask(TRADE, A)).code == (await echo.ask(TRADE, A)).code == "OPSP0000"

    with simulator("--clock", "2026-11-20T10:00", "--ping", "0.4") as (addresses, _):
        asyncio.run(work(addresses))


def _small_window(info: Any) -> socket.socket:
    made = socket.socket(info[0], info[1], info[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


def test_a_slow_reader_loses_its_connection_and_stalls_nobody() -> None:
    async def work(addresses: dict[str, Any], process: subprocess.Popen[str]) -> None:
        connector = aiohttp.TCPConnector(socket_factory=_small_window)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(addresses["ws"]) as opened,
            client(addresses, "fast") as fast,
        ):
            slow = Client(opened, await approval(session, addresses["rest"], "slow"))
            for symbol in SYMBOLS[:20]:
                for tr_id in (TRADE, ORDER_BOOK):
                    await opened.send_str(render_request(slow.key, tr_id, symbol))
            for symbol in SYMBOLS[:3]:
                assert (await fast.ask(TRADE, symbol)).code == "OPSP0000"
            while len(fast.trades()) < 6_000:  # half a session; the other's share of it is some 30 MB
                await fast.listen(0.5)
            trades = fast.trades()
            for symbol in SYMBOLS[:3]:
                own = trades.filter(pc.equal(trades["symbol"], symbol))
                total, volume = own["cumulative_volume"].to_numpy(), own["volume"].to_numpy()
                np.testing.assert_array_equal(np.diff(total), volume[1:])
            with pytest.raises((TypeError, ConnectionError, aiohttp.ClientError)):  # the end, after what was on its way
                for _ in range(100_000):
                    await opened.receive_str(timeout=5)
            assert (await fast.ask(TRADE, SYMBOLS[4])).code == "OPSP0000"
            assert process.poll() is None

    with simulator("--clock", "2026-11-20T09:10", "--speed", "2000") as (addresses, process):
        asyncio.run(asyncio.wait_for(work(addresses, process), 60))


def test_it_ends_cleanly_with_open_connections() -> None:
    async def work(addresses: dict[str, Any], process: subprocess.Popen[str]) -> None:
        async with client(addresses) as reading, client(addresses, "idle") as idle:
            assert (await reading.ask(TRADE, A)).code == (await idle.ask(TRADE, A)).code == "OPSP0000"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            while (await reading.socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert await asyncio.to_thread(process.wait, 5) == 0  # idle never answers the close
            assert time.monotonic() - began < 2.0

    with simulator("--clock", "2026-11-20T10:00", "--speed", "600") as (addresses, process):
        asyncio.run(work(addresses, process))
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_port_in_use_is_one_sentence(standing: dict[str, Any]) -> None:
    port = standing["ws"].rpartition(":")[2]
    for option in ("--ws-port", "--rest-port"):
        command = [sys.executable, str(caller.SCRIPT), "--symbols", "1", option, port]
        found = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert found.returncode == 2 and found.stdout == ""
        assert found.stderr.count("\n") == 1 and f"127.0.0.1:{port}" in found.stderr


def test_a_plain_request_gets_a_plain_refusal(standing: dict[str, Any]) -> None:
    async def work() -> None:
        async with aiohttp.ClientSession() as session:
            assert (await session.get(standing["ws"].replace("ws:", "http:") + "/tryitout")).status == 400

    asyncio.run(work())
