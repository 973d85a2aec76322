"""Keys, accounts and tokens are in the token cache and nowhere else: all that real runs write and say is searched."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
import pickle
import re
import traceback
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from pipeline import krx
from pipeline.cluster import Cluster, ClusterSection
from pipeline.kis.client import KisClient
from pipeline.kis.errors import KisError
from pipeline.kis.layouts import DAILY
from storage.emit import silent

from . import job
from .kis_server import server
from .test_kis_client import DAY, TOKEN, answering, echo, using

KEYS = ("PS/a+b=c%d&e\"f'g\\h<i>j{k}l$m;n|o~".ljust(36, "A"), "PS2/+=second".ljust(36, "B"))
SECRETS = (("s/e+c=r%e&t\"'\\<>{}$" * 9).ljust(180, "S")[:180], "second/+=".ljust(180, "T"))
ACCOUNT = "87651234-01"
FAULTS = "seed: 3\nhtml_500: 0.1\nreset: 0.1\nrejected: 0.1\n"
TOKENS = re.compile(rb"SIM\.[0-9a-f]{64}")  # as the simulator makes them


def spellings(secret: str) -> Iterator[str]:
    """Every way in which a text may be written down."""
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret))
    yield from (html.escape(secret, quote=False), json.dumps(secret)[1:-1], secret.replace("/", "\\/"))
    yield from (repr(secret)[1:-1], repr(secret.encode())[2:-1], base64.b64encode(secret.encode()).decode())
    yield from (secret.encode().hex(), secret[: len(secret) // 2], secret[len(secret) // 2 :])


WORDS = {
    word.encode()
    for secret in (*KEYS, *SECRETS, ACCOUNT, ACCOUNT.replace("-", ""), TOKEN)
    for word in spellings(secret)
    if len(word) >= 8
}


def leaks(content: bytes) -> list[bytes]:
    return [word[:12] for word in WORDS if word in content] + TOKENS.findall(content)


def variables(environment: str) -> dict[str, str]:
    name = environment.upper()
    return {
        f"{name}_KIS_APP_KEY": KEYS[0],
        f"{name}_KIS_APP_SECRET": SECRETS[0],
        f"{name}_KIS_APP_KEY_2": KEYS[1],
        f"{name}_KIS_APP_SECRET_2": SECRETS[1],
        f"{name}_KIS_ACCOUNT_NUMBER": ACCOUNT,
    }


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables("live").items():
        monkeypatch.setenv(name, value)


def test_the_search_finds_what_it_looks_for() -> None:
    for secret in (*KEYS, *SECRETS, ACCOUNT):
        for word in spellings(secret):
            assert len(word) < 8 or leaks(f"before {word} after".encode())
    assert leaks(b"SIM." + b"0" * 64) and not leaks(b"no secret at all")


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["live", "paper"])
def test_an_ingest_leaves_no_secret_but_in_the_token_cache(tmp_path: Path, environment: str) -> None:
    end = krx.last_closed_session(datetime.now(UTC))
    faults = tmp_path / "faults.yaml"
    faults.write_text(FAULTS)
    tokens, folder = tmp_path / "tokens", tmp_path / "work"
    paper = ("--paper",) if environment == "paper" else ()

    def ingest(url: str, master: str, **change: str) -> job.Ran:
        words = {
            "kis.environment": environment, "kis.rest_url": url, "kis.master_url": f"{master}/common/master/",
            "kis.token_folder": str(tokens), "kis.calls_per_second": "60", "ingest.end": str(end),
            "ingest.start": str(end - timedelta(days=40)), "ingest.count": "4", "ingest.minute_symbols": "0",
        }  # fmt: skip
        flat = [word for name, value in words.items() for word in (f"--{name}", value)]
        return job.run("scripts/ingest.py", folder, *flat, **(variables(environment) | change))

    evening = f"{end}T20:30:00+09:00"
    told = []
    with server("--symbols", 20, "--quota", 60, "--token-gap", 0, "--faults", faults, *paper, clock=evening) as url:
        good = ingest(url, url)
        assert good.status == 0, good.err
        for path in tokens.glob("*.token"):
            path.unlink()
        wrong = {f"{environment.upper()}_KIS_APP_SECRET{end}": SECRETS[n][::-1] for n, end in enumerate(("", "_2"))}
        (folder / "data" / "lake").rename(folder / "data" / "lake-before")
        bad = ingest(url, url, **wrong)
        assert bad.status != 0 and "EGW00105" in bad.err
        assert not any(secret[::-1] in bad.out + bad.err for secret in SECRETS)
        with answering(echo("token")) as other:
            echoed = ingest(other, url)
        assert echoed.status != 0 and "***" in echoed.err, "the server did repeat what it was sent"
        told += [said for ran in (good, bad, echoed) for said in (ran.out, ran.err)]
    for text in told:
        assert not leaks(text.encode())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert not leaks(str(path).encode())
        if path.suffix == ".token":
            assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
        else:
            assert not leaks(path.read_bytes()), path


def test_what_can_be_shown_or_pickled_holds_no_secret(
    tmp_path: Path, keys: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[Any] = []

    def emit(kind: str, /, **fields: object) -> None:
        shown.append(fields)

    async def ask(kis: KisClient) -> None:
        shown.extend([repr(kis), str(kis), repr(vars(kis)), repr(kis._keys.keys), repr(vars(kis._keys))])
        with pytest.raises((TypeError, AttributeError)):
            pickle.dumps(kis)
        section = kis._section
        shown.extend([repr(section), section.model_dump_json(), pickle.dumps(section), section.credentials()])
        with pytest.raises(TypeError):
            pickle.dumps(section.credentials())
        await kis.ask(DAILY, DAY)

    for place in ("token", "token code", "quote", "quote again", "quote broken"):
        with answering(echo(place)) as url, pytest.raises(KisError) as caught:
            using(url, tmp_path / place, ask, emit=emit, environment="live", retries=4)
        error = caught.value
        shown += [str(error), repr(error), pickle.dumps(error), error.args, *traceback.format_exception(error)]
    shown.append(caplog.text)
    assert "***" in "".join(map(str, shown))
    for one in shown:
        assert not leaks(one if isinstance(one, bytes) else str(one).encode()), one


def test_the_dashboard_shows_no_secret(tmp_path: Path, keys: None) -> None:
    cluster = Cluster(ClusterSection(device="cpu"), silent)
    try:
        client = cluster.client()
        found = client.submit(lambda section: section.environment, section_of(tmp_path), key="asks")
        assert found.result() == "live"
        base = client.dashboard_link.removesuffix("/status")
        pages = ("status", "tasks", "system", "info/main/workers.html", "info/main/logs.html")
        for page in (*pages, "metrics"):
            with urllib.request.urlopen(f"{base}/{page}", timeout=20) as answer:
                content = answer.read()
            assert len(content) > 100 and not leaks(content), page
        assert not leaks(repr(client.get_worker_logs()).encode() + repr(client.scheduler_info()).encode())
    finally:
        cluster.close()


def section_of(folder: Path) -> Any:
    async def give(kis: KisClient) -> Any:
        return kis._section

    return using("http://127.0.0.1:9", folder, give, environment="live")


def test_a_token_in_a_page_that_is_no_json_is_not_repeated(tmp_path: Path, keys: None) -> None:
    async def ask(kis: KisClient) -> None:
        await asyncio.gather(*(kis.ask(DAILY, DAY) for _ in range(3)))

    def answer(handler: Any, sent: str) -> None:
        content = sent.encode()
        handler.send_response(404, sent[:60].replace("\r", "").replace("\n", ""))
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with answering(answer) as url, pytest.raises(KisError, match="404 without JSON") as caught:
        using(url, tmp_path, ask, environment="live")
    assert not leaks("".join(traceback.format_exception(caught.value)).encode())
