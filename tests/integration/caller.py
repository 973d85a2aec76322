"""The simulator as a process of its own, and a small client that speaks to it over real HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from pipeline.kis import layouts
from pipeline.kis.layouts import Tr

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "simulate_kis.py"
NOW = "2026-11-20"
J = "J"


@contextmanager
def simulator(*options: object) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """Start the script and yield its first line and the process."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--with-parent", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line), process
    finally:
        process.terminate()
        process.communicate(timeout=10)


@dataclass
class Caller:
    """A small client: one token, quotation calls by their description."""

    session: aiohttp.ClientSession
    rest: str
    headers: dict[str, str]

    async def get(
        self, tr: Tr, *, headers: dict[str, str] | None = None, path: str = "", **query: Any
    ) -> tuple[aiohttp.ClientResponse, Any]:
        sent = self.headers | {"tr_id": tr.tr_id} | (headers or {})
        response = await self.session.get(self.rest + (path or tr.path), params=query, headers=sent)
        text = await response.text()
        return response, json.loads(text) if response.content_type == "application/json" else text

    async def daily(self, symbol: str, start: str, end: str, *, period: str = "D", adjusted: str = "1") -> Any:
        query: dict[str, Any] = {
            "FID_INPUT_DATE_1": start,
            "FID_INPUT_DATE_2": end,
            "FID_PERIOD_DIV_CODE": period,
            "FID_ORG_ADJ_PRC": adjusted,
        }
        return (await self.get(layouts.DAILY, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=symbol, **query))[1]

    async def minutes(self, symbol: str, day: str, hour: str) -> Any:
        query: dict[str, Any] = {
            "FID_INPUT_DATE_1": day,
            "FID_INPUT_HOUR_1": hour,
            "FID_PW_DATA_INCU_YN": "N",
            "FID_FAKE_TICK_INCU_YN": "",
        }
        return (await self.get(layouts.MINUTES_PAST, FID_COND_MRKT_DIV_CODE=J, FID_INPUT_ISCD=symbol, **query))[1]


@asynccontextmanager
async def caller(rest: str, key: str = "key-1") -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        body = {"grant_type": "client_credentials", "appkey": key, "appsecret": "secret"}
        token = (await (await session.post(f"{rest}/oauth2/tokenP", json=body)).json())["access_token"]
        yield Caller(
            session, rest, {"authorization": f"Bearer {token}", "appkey": key, "appsecret": "secret", "custtype": "P"}
        )


def talk(rest: str, work: Callable[[Caller], Coroutine[Any, Any, None]], key: str = "key-1") -> None:
    async def run() -> None:
        async with caller(rest, key) as client:
            await asyncio.wait_for(work(client), 30)

    asyncio.run(run())
