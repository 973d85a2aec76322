"""The client against the real simulator: tokens, limits, faults and what it says when it gives up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.kis import client as client_module
from pipeline.kis.client import KisClient
from pipeline.kis.errors import KisError
from pipeline.kis.history import stock_info
from pipeline.kis.layouts import DAILY, HOLIDAYS, MINUTES_PAST, STOCK_INFO
from pipeline.kis.master import FILES, parse_master, unzip_master
from pipeline.kis.section import KisSection
from pipeline.kis.wire import parse_daily
from storage.emit import silent

from .kis_server import server

T = TypeVar("T")
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
