"""The client against the real simulator: tokens, limits, faults and what it says when it gives up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from pipeline.kis import client as client_module
from pipeline.kis.client import KisClient
from pipeline.kis.errors import KisError
from pipeline.kis.facts import stock_info
from pipeline.kis.layouts import DAILY, HOLIDAYS, MINUTES_PAST, STOCK_INFO
from pipeline.kis.master import FILES, parse_master, unzip_master
from pipeline.kis.section import KisSection
from pipeline.kis.token import CredentialsError
from pipeline.kis.wire import parse_daily
from storage.emit import silent

from .kis_server import server

T = TypeVar("T")
KEY, SECRET, ACCOUNT, TOKEN = "PS/echo+key=".ljust(36, "k"), "s/e+c=" * 30, "12345678-01", "eyJ.token/+.echoed"
DAY = {
    "FID_COND_MRKT_DIV_CODE": "J",
    "FID_INPUT_ISCD": "059250",
    "FID_INPUT_DATE_1": "20260101",
    "FID_INPUT_DATE_2": "20261030",
    "FID_PERIOD_DIV_CODE": "D",
    "FID_ORG_ADJ_PRC": "1",
}


def using(
    url: str, folder: Path, work: Callable[[KisClient], Awaitable[T]], *, emit: Any = silent, **section: Any
) -> T:
    async def run() -> T:
        given = {"environment": "simulator", "rest_url": url, "token_folder": str(folder), "calls_per_second": 0}
        async with KisClient(KisSection.model_validate(given | section), emit) as kis:
            return await work(kis)

    return asyncio.run(run())


def test_pages_master_and_continuation(tmp_path: Path) -> None:
    async def work(kis: KisClient) -> None:
        page = await kis.ask(DAILY, DAY)
        assert parse_daily(page.body).num_rows == 100 and not page.more
        first = await kis.ask(HOLIDAYS, {"BASS_DT": "20260901"})
        assert first.more and first.body["ctx_area_nk"].strip()
        listed = parse_master(unzip_master(await kis.master(f"{FILES['KOSPI']}.mst.zip")), "KOSPI")
        assert "059250" in listed["symbol"].to_pylist()
        gone = await stock_info(kis, "130330")
        assert str(gone["delisted"]) == "2025-01-17"
        assert kis.counts.calls == 5 and kis.counts.by_name["token"] == 1 and kis.counts.bytes > 10_000

    with server("--symbols", 20, "--quota", 0) as url:
        using(url, tmp_path, work)


def test_a_token_is_issued_once_kept_and_replaced_when_refused(tmp_path: Path) -> None:
    async def ask_often(kis: KisClient) -> int:
        await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(12)))
        return kis.counts.by_name["token"]

    with server("--symbols", 20, "--quota", 0, "--token-gap", 0) as url:
        assert using(url, tmp_path, ask_often) == 1
        assert using(url, tmp_path, ask_often) == 0, "the next process takes it from disk"
        (path,) = tmp_path.glob("*.token")
        path.write_text(json.dumps({"token": "revoked at night", "expires": time.time() + 80_000}))
        assert using(url, tmp_path, ask_often) == 1, "twelve refused calls, one new token"


def test_one_token_a_minute_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ISSUE_AGAIN_S", 0.6)
    said: list[str] = []

    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    def emit(kind: str, /, **fields: object) -> None:
        said.append(str(fields["text"]))

    with server("--symbols", 20, "--quota", 0, "--token-gap", 1.5) as url:
        using(url, tmp_path / "a", ask)
        using(url, tmp_path / "b", ask, emit=emit)
    assert said and all("one token a minute (EGW00133)" in text for text in said)


def test_the_quota_is_kept_and_a_smaller_one_learned(tmp_path: Path) -> None:
    async def ask(kis: KisClient) -> tuple[float, int]:
        await kis.ask(DAILY, DAY)
        began = time.monotonic()
        await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(60)))
        return time.monotonic() - began, kis.counts.refused

    with server("--symbols", 20, "--quota", 20, "--token-gap", 0) as url:
        seconds, refused = using(url, tmp_path / "a", ask, calls_per_second=20, max_workers=40)
        assert seconds >= 2 and refused <= 12, "the server, too, may be late at times"
        seconds, refused = using(url, tmp_path / "b", ask, calls_per_second=40, max_workers=40, retries=12)
        assert 2 <= seconds < 15 and refused > 0, "told a wrong rate, it is refused, slows down and loses nothing"


def test_what_paper_cannot_do_is_said_before_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPER_KIS_APP_KEY", "P" * 36)
    monkeypatch.setenv("PAPER_KIS_APP_SECRET", "S" * 180)

    async def ask(kis: KisClient) -> None:
        for tr in (MINUTES_PAST, STOCK_INFO):
            with pytest.raises(KisError, match="paper environment does not have") as caught:
                await kis.ask(tr, {})
            assert caught.value.code == "capability"
        assert kis.counts.calls == 0
        await kis.ask(DAILY, DAY)

    with server("--symbols", 20, "--paper") as url:
        using(url, tmp_path, ask, environment="paper")


def test_final_errors_are_not_repeated(tmp_path: Path) -> None:
    async def ask(kis: KisClient) -> None:
        with pytest.raises(KisError, match="OPSQ2001") as caught:
            await kis.ask(DAILY, DAY | {"FID_PERIOD_DIV_CODE": "X"})
        assert "059250" in str(caught.value) and kis.counts.repeated == 0
        with pytest.raises(KisError, match="HTTP 404"):
            await kis.master("absent.mst.zip")
        nothing = await kis.ask(STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": "999999"})
        assert "output" not in nothing.body

    with server("--symbols", 20, "--quota", 0) as url:
        using(url, tmp_path, ask)


def test_a_host_that_never_answers_is_given_up_with_advice(tmp_path: Path) -> None:
    said: list[str] = []

    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    def emit(kind: str, /, **fields: object) -> None:
        said.append(str(fields["text"]))

    with pytest.raises(KisError, match=r"5 times \[network\]; see whether KIS is reachable") as caught:
        using("http://127.0.0.1:9", tmp_path, ask, emit=emit, retries=4)
    assert caught.value.code == "network"
    assert len(said) == 1 and "still trying" in said[0]


@pytest.mark.parametrize("fault", ["reset", "html_500", "rejected"])
def test_faults_are_waited_out(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(f"seed: 5\n{fault}: 0.4\n")

    async def ask(kis: KisClient) -> int:
        pages = await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(20)))
        assert {parse_daily(page.body).num_rows for page in pages} == {100}
        return kis.counts.refused if fault == "rejected" else kis.counts.repeated

    with server("--symbols", 20, "--quota", 0, "--faults", path) as url:
        assert using(url, tmp_path, ask, retries=14) > 3


def test_answers_that_come_too_late_are_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("seed: 1\nslow: 0.3\nslow_seconds: 5\n")

    async def ask(kis: KisClient) -> int:
        await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(10)))
        return kis.counts.repeated

    with server("--symbols", 20, "--quota", 0, "--faults", path) as url:
        assert using(url, tmp_path, ask, timeout_s=0.8, retries=20) > 0


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, str], None]) -> Iterator[str]:
    """Run a server that hands each request, its headers and body as text, to `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            answer(self, "".join(f"{name}: {value} " for name, value in self.headers.items()) + body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def reply(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any], **headers: str) -> None:
    content = json.dumps(body).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("APP_KEY", KEY), ("APP_SECRET", SECRET), ("ACCOUNT_NUMBER", ACCOUNT)):
        monkeypatch.setenv(f"LIVE_KIS_{name}", value)


def echo(place: str) -> Callable[[BaseHTTPRequestHandler, str], None]:
    """Make an answer that refuses at `place` and repeats there everything it was sent, and the account."""

    def answer(handler: BaseHTTPRequestHandler, sent: str) -> None:
        text = f"{sent} {quote(sent, safe='')} {ACCOUNT} {ACCOUNT.replace('-', '')}"
        if handler.path == "/oauth2/tokenP" and place.startswith("quote"):
            reply(handler, 200, {"access_token": TOKEN, "expires_in": 86400})
        elif place == "token":
            reply(handler, 403, {"error_code": "EGW00103", "error_description": text})
        elif place == "token code":
            reply(handler, 403, {"error_code": text, "error_description": "x"})
        elif place == "quote again":
            reply(handler, 500, {"rt_cd": "1", "msg_cd": "EGW00002", "msg1": text})
        elif place == "quote":
            reply(handler, 200, {"rt_cd": "1", "msg_cd": "OPSQ2001", "msg1": text})
        else:  # no HTTP at all: what the library says of it repeats the line
            handler.wfile.write(f"HTTP/1.1 2x0 {text}\r\n\r\n".encode())
            handler.close_connection = True

    return answer


@pytest.mark.parametrize("place", ["token", "token code", "quote", "quote again", "quote broken"])
def test_a_server_that_echoes_leaks_nothing(tmp_path: Path, keys: None, place: str) -> None:
    said: list[str] = []

    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    def emit(kind: str, /, **fields: object) -> None:
        said.append(str(fields))

    with answering(echo(place)) as url, pytest.raises(KisError) as caught:
        using(url, tmp_path, ask, emit=emit, environment="live", retries=client_module.SPEAK_AFTER)
    shown = "".join([*said, str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)])
    assert ("***" in shown) == (place != "quote broken"), "what is no HTTP is not shown at all"
    assert ("still trying" in shown) == (place in ("quote again", "quote broken"))
    for secret in (KEY, SECRET, TOKEN, ACCOUNT, "12345678"):
        assert secret not in shown and quote(secret, safe="") not in shown


def test_keys_follow_no_redirect(tmp_path: Path, keys: None) -> None:
    came: list[str] = []

    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    def note(handler: BaseHTTPRequestHandler, sent: str) -> None:
        came.append(sent)
        reply(handler, 200, {"access_token": TOKEN, "expires_in": 86400})

    with answering(note) as elsewhere:

        def away(handler: BaseHTTPRequestHandler, sent: str) -> None:
            reply(handler, 307, {}, Location=elsewhere + handler.path)

        with answering(away) as url, pytest.raises(KisError, match="HTTP 307"):
            using(url, tmp_path, ask, environment="live", retries=1)
    assert came == []


@pytest.mark.parametrize(
    "token", [{}, {"expires_in": 1}, {"access_token": TOKEN}, {"access_token": "a\nb", "expires_in": 9}]
)
def test_a_token_that_cannot_be_one_is_said(tmp_path: Path, keys: None, token: dict[str, Any]) -> None:
    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    def answer(handler: BaseHTTPRequestHandler, sent: str) -> None:
        reply(handler, 200, {"x": 1} | token)

    with answering(answer) as url, pytest.raises(KisError, match="without a usable access_token"):
        using(url, tmp_path, ask, environment="live")


@pytest.mark.parametrize("limited", [0, 5])
def test_a_folder_of_tokens_that_cannot_be_made_is_named(tmp_path: Path, keys: None, limited: int) -> None:
    (tmp_path / "home").write_text("a file, as good as a folder that is read-only")

    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    with pytest.raises(CredentialsError, match=r"home/kis; set --kis\.token_folder"):
        using("http://127.0.0.1:9", tmp_path / "home" / "kis", ask, environment="live", calls_per_second=limited)
