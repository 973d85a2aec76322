"""Several app keys against the real simulator, and hosts whose clocks, tokens and nights are not as one would like."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from pipeline.kis import client as client_module
from pipeline.kis.client import KisClient
from pipeline.kis.errors import KisError
from pipeline.kis.layouts import DAILY
from pipeline.kis.wire import parse_daily

from .kis_server import server
from .test_kis_client import DAY, TOKEN, answering, reply, using

PAGE = {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "", "output2": []}


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Set three app keys and return them."""
    keys = [f"PS{number}".ljust(36, "k") for number in (1, 2, 3)]
    for key, end in zip(keys, ("", "_2", "_3")):
        monkeypatch.setenv(f"LIVE_KIS_APP_KEY{end}", key)
        monkeypatch.setenv(f"LIVE_KIS_APP_SECRET{end}", key[:3].ljust(180, "s"))
    return keys


@pytest.fixture
def one(three: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Set one app key and return it."""
    for end in ("_2", "_3"):
        monkeypatch.delenv(f"LIVE_KIS_APP_KEY{end}")
    return three[0]


def heard(said: list[str]) -> Any:
    def emit(kind: str, /, **fields: object) -> None:
        said.append(str(fields["text"]))

    return emit


def test_three_keys_make_three_times_the_calls(tmp_path: Path, three: list[str]) -> None:
    async def ask(kis: KisClient) -> float:
        await kis.ask(DAILY, DAY)
        await asyncio.sleep(1.1)
        began = time.monotonic()
        pages = await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(240)))
        assert {parse_daily(page.body).num_rows for page in pages} == {100}
        assert kis.counts.refused == 0 and kis.counts.by_name["token"] == 3
        return time.monotonic() - began

    with server("--symbols", 20, "--quota", 20, "--token-gap", 0) as url:
        seconds = using(url, tmp_path, ask, environment="live", calls_per_second=19, max_workers=40)
    assert 4 <= seconds < 6, "240 calls by three keys at 19/s; one alone would take over 12 seconds"
    assert len(list(tmp_path.glob("*.calls"))) == len(list(tmp_path.glob("*.token"))) == 3


def test_a_refused_key_is_left_out_with_one_warning(tmp_path: Path, three: list[str]) -> None:
    said: list[str] = []

    async def ask(kis: KisClient) -> int:
        pages = await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(40)))
        assert {parse_daily(page.body).num_rows for page in pages} == {100}
        return kis.counts.by_name["token"]

    async def know(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    with server("--symbols", 20, "--quota", 0, "--token-gap", 0) as url:
        with pytest.MonkeyPatch.context() as other:
            other.setenv("LIVE_KIS_APP_KEY", three[1])  # the server knows the second key with another secret
            other.delenv("LIVE_KIS_APP_KEY_2")
            other.delenv("LIVE_KIS_APP_KEY_3")
            using(url, tmp_path / "a", know, environment="live")
        assert using(url, tmp_path / "b", ask, emit=heard(said), environment="live") == 3
    assert len(said) == 1 and "going on without the app key in LIVE_KIS_APP_KEY_2" in said[0]
    assert "EGW00105" in said[0] and "check the app secret (LIVE_KIS_APP_SECRET_2)" in said[0]
    assert not any(key in said[0] for key in three)


def gate(refused: dict[str, str], seen: list[str] | None = None, *, at_token: bool = True) -> Any:
    """Make an answer that refuses the app keys that start so with these codes, at the token or at the quotation."""

    def answer(handler: BaseHTTPRequestHandler, sent: str) -> None:
        code = next((code for start, code in refused.items() if start in sent), "")
        if handler.path == "/oauth2/tokenP":
            if code and at_token:
                reply(handler, 403, {"error_code": code, "error_description": "no"})
            else:
                reply(handler, 200, {"access_token": TOKEN, "expires_in": 86400})
            return
        if seen is not None:
            seen.append(next(start for start in ("PS1", "PS2", "PS3") if start in sent))
        if code and not at_token:
            reply(handler, 200, {"rt_cd": "1", "msg_cd": code, "msg1": "no"})
        else:
            reply(handler, 200, PAGE)

    return answer


def test_a_key_refused_at_a_quotation_is_left_out_and_its_call_made_with_another(
    tmp_path: Path, three: list[str]
) -> None:
    said: list[str] = []
    seen: list[str] = []

    async def ask(kis: KisClient) -> None:
        for _ in range(12):
            await kis.ask(DAILY, DAY)

    with answering(gate({"PS1": "EGW00206", "PS3": "EGW00103"}, seen, at_token=False)) as url:
        using(url, tmp_path, ask, emit=heard(said), environment="live")
    assert sorted(seen) == ["PS1", *["PS2"] * 12, "PS3"]
    assert len(said) == 2 and all("going on without" in text for text in said)


def test_without_any_key_left_the_error_is_the_brokers(tmp_path: Path, three: list[str]) -> None:
    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    with (
        answering(gate({"PS": "EGW00103"})) as url,
        pytest.raises(KisError, match=r"check the app key \(LIVE_KIS_APP_KEY(_[23])?\)") as caught,
    ):
        using(url, tmp_path, ask, environment="live")
    assert caught.value.code == "EGW00103"


def test_a_key_that_waits_for_its_token_holds_nothing_up(tmp_path: Path, three: list[str]) -> None:
    seen: list[str] = []
    said: list[str] = []

    async def ask(kis: KisClient) -> float:
        began = time.monotonic()
        await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(30)))
        return time.monotonic() - began

    with answering(gate({"PS2": "EGW00133"}, seen)) as url:
        assert using(url, tmp_path, ask, emit=heard(said), environment="live", max_workers=2) < 10
    assert set(seen) == {"PS1", "PS3"} and len(seen) == 30
    assert len(said) == 1 and "one token a minute" in said[0]


def test_a_token_that_dies_young_is_not_asked_for_at_every_call(tmp_path: Path, one: str) -> None:
    async def ask(kis: KisClient) -> int:
        for _ in range(6):
            await kis.ask(DAILY, DAY)
        return kis.counts.by_name["token"]

    def answer(life: float) -> Any:
        def one_answer(handler: BaseHTTPRequestHandler, sent: str) -> None:
            token = {"access_token": TOKEN, "expires_in": life}
            reply(handler, 200, token if handler.path == "/oauth2/tokenP" else PAGE)

        return one_answer

    with answering(answer(300)) as url:
        assert using(url, tmp_path, ask, environment="live") == 1
        assert using(url, tmp_path, ask, environment="live") == 0, "the next process keeps it as long"
    for life in (0, -3600, 5):
        with answering(answer(life)) as url, pytest.raises(KisError, match="usable access_token and expires_in"):
            using(url, tmp_path, ask, environment="live")


@pytest.mark.parametrize("hours", [-30, -5, 5, 30])
def test_a_clock_that_was_wrong_costs_one_token_at_most(tmp_path: Path, three: list[str], one: str, hours: int) -> None:
    """What is kept on disk was written when the clock of this host was off; the server goes by its own."""

    async def ask(kis: KisClient) -> int:
        await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(8)))
        return kis.counts.by_name["token"]

    with server("--symbols", 20, "--quota", 0, "--token-gap", 0, "--token-same", 0) as url:
        assert using(url, tmp_path, ask, environment="live") == 1
        (path,) = tmp_path.glob("*.token")
        kept = json.loads(path.read_text())
        path.write_text(json.dumps(kept | {"expires": kept["expires"] + hours * 3600}))
        assert using(url, tmp_path, ask, environment="live") == (1 if hours == -30 else 0)
        path.write_text(json.dumps(kept | {"token": "expired long ago", "expires": kept["expires"] + 720 * 3600}))
        assert using(url, tmp_path, ask, environment="live") == 1, "refused by the server, replaced once"


def test_a_token_that_is_refused_at_once_is_an_error_and_no_loop(tmp_path: Path, one: str) -> None:
    calls: list[str] = []

    async def ask(kis: KisClient) -> None:
        await kis.ask(DAILY, DAY)

    def answer(handler: BaseHTTPRequestHandler, sent: str) -> None:
        calls.append(handler.path)
        if handler.path == "/oauth2/tokenP":
            reply(handler, 200, {"access_token": TOKEN, "expires_in": 86400})
        else:
            reply(handler, 500, {"rt_cd": "1", "msg_cd": "EGW00123", "msg1": "expired"})

    with answering(answer) as url, pytest.raises(KisError, match="EGW00123"):
        using(url, tmp_path, ask, environment="live")
    assert len(calls) == 8, "the first token and three more, each tried once"


class Skewed:
    """Answer with a clock of its own."""

    def __init__(self, hours: float) -> None:
        self.hours = hours

    def __call__(self, handler: BaseHTTPRequestHandler, sent: str) -> None:
        def date_time_string(timestamp: float | None = None) -> str:
            return formatdate(time.time() + self.hours * 3600, usegmt=True)

        handler.date_time_string = date_time_string  # type: ignore[method-assign]
        token = {"access_token": TOKEN, "expires_in": 86400}
        reply(handler, 200, token if handler.path == "/oauth2/tokenP" else PAGE)


@pytest.mark.parametrize(("hours", "says"), [(3.0, "180 minutes behind"), (-9.0, "540 minutes ahead"), (0.01, "")])
def test_a_clock_far_from_the_brokers_is_told_once(tmp_path: Path, one: str, hours: float, says: str) -> None:
    said: list[str] = []

    async def ask(kis: KisClient) -> None:
        for _ in range(5):
            await kis.ask(DAILY, DAY)
        assert kis.counts.by_name["token"] == 1

    with answering(Skewed(hours)) as url:
        using(url, tmp_path, ask, emit=heard(said), environment="live")
    assert len(said) == bool(says) and says in "".join(said)


@pytest.mark.parametrize("minutes", [0.5, 60])
def test_maintenance_is_waited_out_or_named(
    tmp_path: Path, one: str, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time runs a hundred times faster here: the pauses, and with them the night's work."""
    monkeypatch.setattr(client_module, "MAINTENANCE_PAUSE_S", 0.02)
    monkeypatch.setattr(client_module, "MAINTENANCE_LONGEST_S", 0.6)
    until = time.monotonic() + minutes * 0.6
    said: list[str] = []

    async def ask(kis: KisClient) -> tuple[int, float]:
        began = time.monotonic()
        await kis.ask(DAILY, DAY)
        return kis.counts.repeated, time.monotonic() - began

    def answer(handler: BaseHTTPRequestHandler, sent: str) -> None:
        if time.monotonic() > until:
            token = {"access_token": TOKEN, "expires_in": 86400}
            reply(handler, 200, token if handler.path == "/oauth2/tokenP" else PAGE)
            return
        page = "<html><body>점검 중입니다</body></html>".encode()
        handler.send_response(503)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page)

    with answering(answer) as url:
        if minutes < 1:
            repeated, seconds = using(url, tmp_path, ask, emit=heard(said), environment="live")
            assert 3 <= repeated <= 8 and seconds < 2
            return
        with pytest.raises(KisError, match=r"503 .* 9 times \[maintenance\]; .* 05:30 and 07:00 KST"):
            using(url, tmp_path, ask, emit=heard(said), environment="live")
    assert len(said) == 1 and "still trying" in said[0]
