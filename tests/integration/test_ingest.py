"""The ingest stage against the real simulator over real HTTP and a real lake: complete, repeatable, unharmed by
faults and kills.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
import traceback
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import krx
from pipeline.ingest import QUALITY, IngestSection
from pipeline.kis.embedded import SimulatorError
from pipeline.kis.errors import KisError
from pipeline.kis.simulator.market import Market
from pipeline.kis.token import CredentialsError
from pipeline.request import RequestError
from pipeline.symbols import SymbolError
from storage.lake import Lake, LakeError

from .kis_server import CLOCK, MARKET, SMALL, Stage, mixed_faults, server

KEY, SECRET, ACCOUNT = "PSzzk3ytestkeytestkeytestkeytestkey1", "zz9secretsecretsecre" * 9, "87654321-01"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, dict[str, Any]]:
    """One undisturbed run; the others have to end with its content."""
    stage = Stage(tmp_path_factory.mktemp("clean"))
    return stage, stage.run()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("APP_KEY", KEY), ("APP_SECRET", SECRET), ("ACCOUNT_NUMBER", ACCOUNT)):
        monkeypatch.setenv(f"LIVE_KIS_{name}", value)
        monkeypatch.setenv(f"PAPER_KIS_{name}", value)


def market() -> Market:
    return Market(7, MARKET["symbols"], clock=lambda: datetime.fromisoformat(CLOCK))


def test_the_lake_holds_the_market(clean: tuple[Stage, dict[str, Any]]) -> None:
    stage, manifest = clean
    receipt, truth = stage.receipt, market()
    start, end = date.fromisoformat(SMALL["start"]), date.fromisoformat(SMALL["end"])
    listings = {item.symbol: item for item in truth.listings if item.kind == "stock"}
    assert set(receipt.symbols) == set(listings)
    bars = receipt.bars("1d")
    gone = halted = 0
    for symbol in receipt.symbols:
        expected = truth.daily(symbol, start, end)
        rows = bars.filter(pc.field("symbol") == symbol)
        assert rows["ts"].to_numpy().tolist() == krx.session_closes(expected["date"]).tolist()
        for name in ("open", "high", "low", "close", "volume", "turnover"):
            np.testing.assert_array_equal(rows[name].to_numpy(), expected[name], err_msg=f"{symbol} {name}")
        gone += listings[symbol].delisted is not None
        halted += int(np.isnan(expected["open"]).sum())
    assert gone and halted, "the market of the test has a delisted symbol and halts"
    assert manifest["rows"] == bars.num_rows + receipt.bars("1m").num_rows == sum(receipt.rows.values())


def test_minutes_add_up_to_the_days(clean: tuple[Stage, dict[str, Any]]) -> None:
    stage, _ = clean
    receipt, truth = stage.receipt, market()
    minutes = receipt.bars("1m")
    symbols = sorted(set(minutes["symbol"].to_pylist()))
    days = krx.sessions("2026-10-01", SMALL["end"])[-SMALL["minute_days"] :]
    assert len(symbols) == SMALL["minute_symbols"]
    for symbol in symbols:
        parts = [truth.minutes(symbol, day.item()) for day in days]
        rows = minutes.filter(pc.field("symbol") == symbol)
        ends = np.concatenate([part["end"] for part in parts])
        assert rows["ts"].to_numpy().tolist() == ends.tolist()
        for name in ("open", "high", "low", "close", "volume", "turnover"):
            np.testing.assert_array_equal(
                rows[name].to_numpy(), np.concatenate([part[name] for part in parts]), err_msg=name
            )


def test_actions_and_symbols_are_the_markets(clean: tuple[Stage, dict[str, Any]]) -> None:
    stage, _ = clean
    receipt, truth = stage.receipt, market()
    known = pa.concat_tables([truth.actions(symbol) for symbol in receipt.symbols])
    known = known.filter(pc.field("ex_date") > receipt.start).sort_by(
        [("symbol", "ascending"), ("ex_date", "ascending")]
    )
    found = receipt.actions().sort_by([("symbol", "ascending"), ("ex_date", "ascending")])
    assert known.num_rows >= 2
    assert found.select(["symbol", "ex_date"]).to_pylist() == known.select(["symbol", "ex_date"]).to_pylist()
    np.testing.assert_allclose(found["factor"].to_numpy(), known["factor"].to_numpy(), rtol=1e-12)
    table = {row["symbol"]: row for row in receipt.symbol_table().to_pylist()}
    for row in truth.symbols().to_pylist():
        if row["symbol"] in receipt.symbols:
            got = table[row["symbol"]]
            assert {name: got[name] for name in ("listed", "delisted", "market", "kind", "sector", "as_of")} == {
                name: row[name] for name in ("listed", "delisted", "market", "kind", "sector", "as_of")
            }


def test_manifest_quality_and_progress(clean: tuple[Stage, dict[str, Any]]) -> None:
    stage, manifest = clean
    assert set(manifest) >= {"content", "rows", "calls", "seconds_http", "quarantined", "source"}
    json.dumps(manifest)
    described = json.loads((stage.out / QUALITY).read_text())
    assert described["1d"]["rows"] == manifest["rows_by_interval"]["1d"]
    assert described["1d"]["basis_jumps"]["rows"] == 0, "every jump of raw prices is explained by an action"
    progress = [event for event in stage.events if event["kind"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == manifest["rows"]
    assert all(a["done"] <= b["done"] for a, b in pairwise(progress))
    assert "KIS simulator at http://127.0.0.1:" in stage.logs and "quota" in stage.logs


def test_faults_change_nothing(clean: tuple[Stage, dict[str, Any]], tmp_path: Path) -> None:
    stage = Stage(tmp_path, kis={"simulator": MARKET | {"faults": str(mixed_faults(tmp_path, 3))}})
    manifest = stage.run()
    assert manifest["content"] == clean[1]["content"]
    assert stage.receipt.digests == clean[0].receipt.digests
    assert manifest["calls_repeated"] > 5 and manifest["calls_refused"] > 2, "the faults did happen"


def test_speed_and_place_change_nothing(clean: tuple[Stage, dict[str, Any]], tmp_path: Path) -> None:
    stage = Stage(tmp_path, kis={"max_workers": 1}, ingest={"chunk_size": 700})
    assert stage.run()["content"] == clean[1]["content"]
    kis, request = stage.sections()
    assert kis.keyed() == clean[0].sections()[0].keyed()
    assert request.keyed() == clean[0].sections()[1].keyed()


def test_killed_at_random_moments_and_started_again(clean: tuple[Stage, dict[str, Any]], tmp_path: Path) -> None:
    rng = random.Random(11)
    stage = Stage(tmp_path, kis={"calls_per_second": 50}, ingest={"chunk_size": 400})
    written = []
    for _ in range(3):
        process = stage.process()
        deadline = time.monotonic() + 30
        before = histories(stage)
        while histories(stage) <= before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))
        assert process.poll() is None, "it ended before it could be killed"
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(family, timeout=10)
        assert family and not left, f"the simulator outlives the killed stage: {left}"
        written.append(histories(stage))
    stage.kis = {}
    manifest = stage.run()
    assert manifest["content"] == clean[1]["content"]
    assert stage.receipt.digests == clean[0].receipt.digests
    assert manifest["calls"] < clean[1]["calls"], "what was committed is not asked for again"
    assert written == sorted(written)


def histories(stage: Stage) -> int:
    """Return how many histories the lake knows to be answered."""
    return Lake(stage.lake).read("coverage").num_rows


def live(folder: Path, url: str, **ingest: Any) -> Stage:
    end = krx.last_closed_session(datetime.now(UTC))
    asked = {"end": str(end), "start": str(end - timedelta(days=40)), "count": 4, "minute_symbols": 1, "minute_days": 1}
    kis = {"environment": "live", "rest_url": url, "master_url": f"{url}/common/master/", "calls_per_second": 100}
    return Stage(folder, kis=kis, ingest=asked | {"source": ""} | ingest)


def evening() -> str:
    return f"{krx.last_closed_session(datetime.now(UTC))}T20:30:00+09:00"


def test_secrets_are_in_the_token_cache_only(keys: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = []
    with server("--symbols", 20, "--quota", 90, clock=evening()) as url:
        stage = live(tmp_path, url)
        manifest = stage.run()
        said += [json.dumps(manifest, default=str), repr(stage.sections()), repr(stage.events)]
        os.environ["LIVE_KIS_APP_SECRET"] = SECRET[::-1]  # the server knows the key with another secret
        for path in (tmp_path / "tokens").glob("*.token"):
            path.unlink()
        with pytest.raises(KisError, match="EGW00105") as caught:
            live(tmp_path, url, start="2026-01-05").run()
        said += [traceback.format_exc(), str(caught.value), repr(caught.value)]
        assert "check the app secret (LIVE_KIS_APP_SECRET)" in str(caught.value)
    assert manifest["source"] == "kis" and manifest["rows"] > 0
    said += capfd.readouterr()
    token = re.compile(rb"SIM\.[0-9a-f]{64}")
    for text in said:
        assert not any(secret in text for secret in (KEY, SECRET, SECRET[::-1], ACCOUNT)) and not token.search(
            text.encode()
        )
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.parent.name != "tokens":
            found = path.read_bytes()
            assert not any(secret.encode() in found for secret in (KEY, SECRET, ACCOUNT)) and not token.search(found), (
                path
            )
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in (tmp_path / "tokens").iterdir()}
    assert set(modes) >= {".calls", ".lock"} and set(modes.values()) == {0o600}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"start": "2026-10-30", "end": "2026-10-01"}, RequestError, "start on or before ingest.end"),
        ({"start": "2026-10-03", "end": "2026-10-05"}, RequestError, "sessions of the exchange"),
        ({"daily": False, "minute_symbols": 0}, RequestError, "nothing to fetch"),
        ({"kinds": ["tulip"]}, RequestError, "kinds tulip"),
        ({"symbols": ["005941"]}, SymbolError, "got 005941; did you mean 005940"),
        ({"symbols": ["005940", "130330"], "start": "2025-03-03", "minute_symbols": 0}, RequestError, "bars of 130330"),
    ],
)
def test_bad_requests_are_explained(tmp_path: Path, change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Stage(tmp_path, ingest=change).run()


def test_a_day_that_has_not_closed_is_refused_of_the_broker(keys: None, tmp_path: Path) -> None:
    stage = live(tmp_path, "http://127.0.0.1:9", end="2027-06-30")
    with pytest.raises(RequestError, match=r"not after .* the last session of KRX that is over"):
        stage.run()
    assert stage.events == []


def test_missing_keys_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVE_KIS_APP_KEY", "LIVE_KIS_APP_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CredentialsError, match="got no LIVE_KIS_APP_KEY"):
        live(tmp_path, "http://127.0.0.1:9").run()


def test_paper_says_what_it_cannot_do_before_it_asks(keys: None, tmp_path: Path) -> None:
    stage = live(tmp_path, "http://127.0.0.1:9")
    stage.kis |= {"environment": "paper"}
    stage.ingest |= {"minute_days": 2}
    with pytest.raises(RequestError, match="minute_days 1 in the paper environment"):
        stage.run()
    with server("--symbols", 20, "--paper", "--quota", 0, clock=evening()) as url:
        stage = live(tmp_path, url)
        stage.kis |= {"environment": "paper"}
        if krx.last_closed_session(datetime.now(UTC)) != datetime.now(krx.KST).date():
            stage.ingest |= {"minute_symbols": 0}
        assert stage.run()["source"] == "kis-paper"


def test_codes_have_to_be_quoted() -> None:
    with pytest.raises(ValueError, match="codes in quotes"):
        IngestSection.model_validate({"symbols": [184]})


def test_a_lake_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.lake.write_text("a file where a folder should be")
    with pytest.raises(LakeError, match=f"expected to write .* to {stage.lake}"):
        stage.run()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.out.symlink_to("/proc/self")
    with pytest.raises(RequestError, match=r"write in .*out, got .*; free space"):
        stage.run()


def test_a_simulator_whose_day_is_not_over_is_refused(tmp_path: Path) -> None:
    stage = Stage(tmp_path, kis={"simulator": MARKET | {"clock": "2026-10-30T14:00:00"}})
    with pytest.raises(RequestError, match="not after 2026-10-29, the last session of KRX that is over"):
        stage.run()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SimulatorError, match=f"cannot listen on 127.0.0.1:{port}"):
            Stage(tmp_path, kis={"simulator": MARKET | {"port": port}}).run()


def test_the_simulator_ends_when_the_stage_fails(tmp_path: Path) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.raises(RequestError):
        Stage(tmp_path, ingest={"kinds": ["tulip"]}).run()
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_a_wider_lake_changes_no_receipt(clean: tuple[Stage, dict[str, Any]], tmp_path: Path) -> None:
    stage = Stage(tmp_path, ingest={"start": "2024-03-04", "minute_symbols": 0})
    stage.run()
    stage.ingest = {}
    assert stage.run()["content"] == clean[1]["content"]
