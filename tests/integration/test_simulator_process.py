"""The simulator as a process: its limits and faults, its options, its end."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline import krx
from pipeline.kis import layouts

from .caller import NOW, SCRIPT, Caller, J, simulator, talk


def test_paper_has_no_live_calls() -> None:
    async def work(client: Caller) -> None:
        response, body = await client.get(layouts.HOLIDAYS, BASS_DT="20260501", CTX_AREA_NK="", CTX_AREA_FK="")
        assert (response.status, body["msg_cd"]) == (500, "EGW00213")

    with simulator("--paper", "--symbols", "1") as (addresses, _):
        talk(addresses["rest"], work)


def test_quota_in_any_second() -> None:
    async def work(client: Caller) -> None:
        query: dict[str, Any] = {"FID_COND_MRKT_DIV_CODE": J, "FID_INPUT_ISCD": "005940"}
        answers = await asyncio.gather(*(client.get(layouts.PRICE, **query) for _ in range(30)))
        codes = [body["msg_cd"] for _, body in answers]
        assert codes.count("MCA00000") == 10 and codes.count("EGW00201") == 20
        assert {response.status for response, body in answers if body["msg_cd"] == "EGW00201"} == {500}
        await asyncio.sleep(1.05)
        assert (await client.get(layouts.PRICE, **query))[1]["rt_cd"] == "0"

    with simulator("--quota", "10", "--symbols", "1", "--clock", NOW) as (addresses, _):
        talk(addresses["rest"], work)


def test_tokens_are_rationed() -> None:
    async def work(rest: str) -> None:
        async with aiohttp.ClientSession() as session:

            async def post(path: str, **body: str) -> tuple[int, Any]:
                response = await session.post(rest + path, json=body)
                return response.status, await response.json()

            asked = {"grant_type": "client_credentials", "appkey": "key", "appsecret": "secret"}
            status, first = await post("/oauth2/tokenP", **asked)
            assert status == 200 and first["token_type"] == "Bearer" and isinstance(first["expires_in"], int)
            ends = datetime.strptime(first["access_token_token_expired"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=krx.KST)
            assert abs(ends - datetime.now(krx.KST) - timedelta(days=1)) < timedelta(seconds=20)
            status, again = await post("/oauth2/tokenP", **asked)
            assert (status, again["error_code"]) == (403, "EGW00133") and "rt_cd" not in again
            await asyncio.sleep(1.1)
            assert (await post("/oauth2/tokenP", **asked))[1]["access_token"] == first["access_token"]
            await asyncio.sleep(1.2)
            status, later = await post("/oauth2/tokenP", **asked)
            assert status == 200 and later["access_token"] != first["access_token"]
            assert (await post("/oauth2/tokenP", **(asked | {"appsecret": "wrong"})))[1]["error_code"] == "EGW00105"
            assert (await post("/oauth2/tokenP", appkey="key", appsecret="secret"))[1]["error_code"] == "EGW00115"
            assert (await post("/oauth2/tokenP", **(asked | {"appkey": ""})))[1]["error_code"] == "EGW00102"
            status, revoked = await post(
                "/oauth2/revokeP", appkey="key", appsecret="secret", token=later["access_token"]
            )
            assert (status, revoked["code"]) == (200, 200)
            assert (await post("/oauth2/revokeP", appkey="key", appsecret="secret", token=later["access_token"]))[
                0
            ] == 500
            status, approval = await post(
                "/oauth2/Approval", grant_type="client_credentials", appkey="key", secretkey="secret"
            )
            assert status == 200 and len(approval["approval_key"]) == 36
            response = await session.post(
                rest + "/uapi/hashkey", json={"a": "1"}, headers={"appkey": "key", "appsecret": "secret"}
            )
            assert (await response.json())["BODY"] == {"a": "1"}
            response = await session.post(rest + "/oauth2/tokenP", data=b"not json")
            assert response.status == 403

    with simulator("--token-gap", "1", "--token-same", "2", "--symbols", "1") as (addresses, _):
        asyncio.run(work(addresses["rest"]))


def test_faults_come_as_ordered(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(
        "{seed: 3, html_500: 0.1, rejected: 0.1, duplicated: 0.3, empty: 0.3, slow: 0.1, slow_seconds: 0.2}"
    )
    seen: list[str] = []

    async def work(client: Caller) -> None:
        for _ in range(100):
            started = time.perf_counter()
            body = await client.daily("005940", "20261001", "20261031")
            if isinstance(body, str):
                assert body.startswith("<html>")
                seen.append("html")
            elif body["msg_cd"] == "EGW00201":
                seen.append("rejected")
            else:
                rows = body["output2"]
                days = {row.get("stck_bsop_date") for row in rows}
                seen.append("empty" if {} in rows else "duplicated" if len(rows) > len(days) else "good")
            if time.perf_counter() - started > 0.19:
                seen.append("slow")

    with simulator("--faults", str(file), "--clock", NOW, "--symbols", "1") as (addresses, _):
        talk(addresses["rest"], work)
    wanted = ("html", "rejected", "empty", "duplicated", "good", "slow")
    assert min((seen.count(name), name) for name in wanted)[0] >= 3, seen


def test_connections_are_reset(tmp_path: Path) -> None:
    async def work(client: Caller) -> None:
        with pytest.raises(aiohttp.ClientError):  # aiohttp itself asks twice
            await client.daily("005940", "20261001", "20261031")

    (tmp_path / "faults.yaml").write_text("reset: 1.0")
    with simulator("--faults", str(tmp_path / "faults.yaml"), "--symbols", "1") as (addresses, _):
        talk(addresses["rest"], work)


def test_sigterm_ends_cleanly() -> None:
    with simulator("--symbols", "1") as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_dies_with_its_parent() -> None:
    code = (
        "import subprocess, sys, os\n"
        f"command = [sys.executable, {str(SCRIPT)!r}, '--with-parent', '--symbols', '1']\n"
        "p = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(p.stdout.readline(), end='', flush=True); os._exit(0)"
    )
    line = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True).stdout
    pid, deadline = json.loads(line)["pid"], time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the simulator outlived its parent"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "options, part",
    [
        (["--symbols", "0"], "symbols"),
        (["--clock", "yesterday"], "ISO"),
        (["--window", "round"], "sliding"),
        (["--faults", "/nowhere.yaml"], "cannot be read"),
        (["--speed", "-1"], "speed"),
        (["--no-such-option"], "no-such-option"),
    ],
)
def test_bad_options_say_one_sentence(options: list[str], part: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2 and part in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_unknown_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text("reste: 0.1")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--faults", str(tmp_path / "faults.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "reste" in done.stderr and "html_500" in done.stderr


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "--rest-port", str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2 and str(port) in done.stderr and done.stderr.count("\n") == 1
