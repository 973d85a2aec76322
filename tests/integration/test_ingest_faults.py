"""C14 for market data: whatever the broker does to the calls, the table is complete and the same, and the quota is
kept; what happens to the issues themselves between two evenings is in the lake as history.
"""

from __future__ import annotations

import json
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from pipeline import krx
from pipeline.kis import client as client_module
from pipeline.kis.client import KisClient
from pipeline.kis.history import flows
from pipeline.kis.pages import History
from pipeline.kis.simulator.market import Market
from storage.lake import Lake

from .kis_server import CLOCK, FAULTS, MARKET, Stage, mixed_faults, server
from .recorder import Recorder, recorded
from .test_kis_client import using

TABLES = ("bars", "actions", "symbols", "flows", "sessions", "quarantine", "coverage")
FEW: dict[str, Any] = {
    "start": "2025-09-01",
    "symbols": ["005940", "023710", "183640", "254720"],
    "minute_symbols": 2,
    "minute_days": 2,
    "weekly": True,
    "investors": True,
    "indices": ["0001"],
}
ALONE = {
    "reset": "reset: 0.3",
    "html_500": "html_500: 0.3",
    "rejected": "rejected: 0.3",
    "slow": "slow: 0.3\nslow_seconds: 0.3",
    "cut": "cut: 0.3",
    "truncated": "truncated: 0.3",
    "expired": "expired: 0.2\ntoken_refused: 0.2",
    "revoked": "revoked: 0.2",
    "repeated": "repeated: 0.3",
    "reordered": "reordered: 1.0",
    "duplicated": "duplicated: 1.0",
    "missing": "missing: 0.3",
    "empty": "empty: 1.0",
    "extra": "extra: 1.0",
    "ahead": "skew_seconds: 28800",
    "behind": "skew_seconds: -28800",
}
MIX = {
    "rejected": 0.0,  # the quota alone refuses
    **dict.fromkeys(("slow", "cut", "truncated", "expired", "revoked"), 0.05),
    "slow_seconds": 0.2,
    **dict.fromkeys(("reordered", "duplicated", "empty", "extra"), 0.4),
}
MIXED = (set(FAULTS) | set(MIX)) - {"reset", "rejected", "expired"}  # one mix proves all of them in the quick suite


def content(stage: Stage, *but: str) -> dict[str, str]:
    return {table: Lake(stage.lake).digest(table) for table in TABLES if table not in but}


def evening(folder: Path, day: str, faults: str = "", **ingest: Any) -> Stage:
    """Return the stage of the evening of a day against a broker with faults."""
    market = MARKET | {"clock": f"{day}T20:30:00+09:00"}
    if faults:
        path = folder / "faults.yaml"
        path.write_text(faults)
        market |= {"faults": str(path)}
    return Stage(folder, kis={"simulator": market}, ingest={"end": day, **ingest})


def at(url: str, folder: Path, **ingest: Any) -> Stage:
    """Return the stage that asks a simulator which runs already."""
    return Stage(folder, kis={"rest_url": url, "calls_per_second": 0}, ingest=ingest)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """One undisturbed run; the others have to end with its content."""
    stage = evening(tmp_path_factory.mktemp("clean"), "2026-10-30", **FEW)
    stage.run()
    return stage


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.slow if fault in MIXED else ()) for fault in ALONE]
)
def test_each_fault_alone(clean: Stage, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ISSUE_AGAIN_S", 0.1)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE_S", 0.5)
    stage = evening(tmp_path, "2026-10-30", f"seed: 5\n{ALONE[fault]}\n", **FEW)
    manifest = stage.run()
    assert content(stage) == content(clean)
    if fault in ("reset", "html_500", "cut", "truncated"):
        assert manifest["calls_repeated"] > 5, "the fault did happen"
    if fault == "rejected":
        assert manifest["calls_refused"] > 5
    assert ("the clock of this host" in stage.logs) == (fault in ("ahead", "behind"))


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_mixed_faults_within_the_quota(clean: Stage, tmp_path: Path, seed: int) -> None:
    """Arrivals are stamped on the way to the server, whose own count refuses what is one too many."""
    path, quota = mixed_faults(tmp_path, seed, **MIX), 40
    recorder = Recorder()
    with (
        server("--symbols", 20, "--quota", quota, "--token-gap", 0, "--faults", path) as url,
        recorded(url, recorder) as through,
    ):
        stage = at(through, tmp_path, **FEW)
        stage.kis["calls_per_second"] = quota
        process = stage.process()
        assert process.wait(120) == 0
    assert content(stage, "symbols", "sessions") == content(clean, "symbols", "sessions")  # of another day
    assert len(recorder.calls) > 100 and recorder.most_in(1.0) <= quota
    refused = recorder.answers(b"EGW00201")
    assert refused <= 2, f"the server counted {refused} calls too many"


def test_a_cached_token_from_the_future_costs_one_refusal(clean: Stage, tmp_path: Path) -> None:
    with server("--symbols", 20, "--quota", 0, "--token-gap", 0) as url:
        at(url, tmp_path, **FEW | {"start": "2026-09-01"}).run()
        (path,) = (tmp_path / "tokens").glob("*.token")
        path.write_text(json.dumps({"token": "of another year", "expires": time.time() + 90 * 86400}))
        stage = at(url, tmp_path, **FEW)
        stage.run()
    assert content(stage, "symbols", "sessions") == content(clean, "symbols", "sessions")


@pytest.mark.parametrize("hours", [pytest.param("20:29-20:33", marks=pytest.mark.slow), "20:31-20:35"])
def test_maintenance_before_or_in_the_middle_is_waited_out(
    clean: Stage, tmp_path: Path, hours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute of the market passes in a second."""
    monkeypatch.setattr(client_module, "MAINTENANCE_PAUSE_S", 0.5)
    words = ("--symbols", 20, "--quota", 0, "--speed", 60, "--fault", f"maintenance={hours}")
    with server(*words, clock="2026-10-30T20:29:30+09:00") as url:
        stage = at(url, tmp_path, **FEW)
        stage.kis["calls_per_second"] = 30
        manifest = stage.run()
    assert manifest["calls_repeated"] > 3, "the maintenance did happen"
    assert content(stage, "symbols", "sessions") == content(clean, "symbols", "sessions")


def test_the_latest_flows_have_no_holes(tmp_path: Path) -> None:
    """By the call of the paper environment, which has no dates to ask a hole by."""
    days = krx.sessions("2026-09-21", "2026-10-30")
    found = []
    for faults in ((), ("--fault", "missing=0.6", "--fault", "duplicated=0.5", "--fault", "reordered=0.5")):
        with server("--symbols", 20, "--quota", 0, "--token-gap", 0, *faults) as url:

            async def work(kis: KisClient) -> History:
                return await flows(kis, "005940", days, venue="KRX", moved=lambda rows: None, latest=True)

            found.append(using(url, tmp_path, work).rows)
    assert found[0].num_rows == len(days) and found[1].equals(found[0])


def test_a_delisted_symbol_keeps_its_history(tmp_path: Path) -> None:
    """Gone from the master files, and nobody names it to the second run but the lake."""
    market = Market(7, MARKET["symbols"])
    gone = next(item for item in market.listings if item.delisted is not None)
    assert gone.delisted is not None
    days = krx.sessions(gone.delisted - timedelta(days=20), gone.delisted + timedelta(days=10))
    place = int(np.searchsorted(days, np.datetime64(gone.delisted)))
    before, after = str(days[place - 3]), str(days[place + 3])
    asked = {"start": "2024-09-02", "minute_symbols": 0}
    for day, more in ((before, {}), (after, {"since": "last"})):
        with server("--symbols", 20, "--quota", 0, clock=f"{day}T20:30:00+09:00") as url:
            at(url, tmp_path / "two", end=day, **asked, **more).run()
    with server("--symbols", 20, "--quota", 0, clock=f"{after}T20:30:00+09:00") as url:
        once = at(url, tmp_path / "one", end=after, also=[gone.symbol], **asked)
        once.run()
    two = Stage(tmp_path / "two")
    assert gone.symbol in two.receipt.symbols
    for name in ("bars", "actions", "coverage"):
        assert Lake(two.lake).digest(name) == Lake(once.lake).digest(name), name
    bars = Lake(two.lake).read("bars", symbols=[gone.symbol], interval="1d")
    expected = Market(7, MARKET["symbols"]).daily(gone.symbol, date(2024, 9, 2), gone.delisted - timedelta(days=1))
    np.testing.assert_array_equal(bars["close"].to_numpy(), expected["close"])
    table = {row["symbol"]: row for row in two.receipt.symbol_table().to_pylist()}
    assert table[gone.symbol]["delisted"] == gone.delisted and table["005940"]["delisted"] is None


def test_new_listings_new_names_and_halts_between_evenings_are_history(tmp_path: Path) -> None:
    market = Market(7, MARKET["symbols"])
    renamed = next(item for item in market.listings if item.renamed and item.renamed.year == 2024)
    new = next(item for item in market.listings if item.listed.year == 2024)
    assert renamed.renamed is not None and renamed.renamed < new.listed
    first = krx.previous_session(renamed.renamed)
    second = krx.next_session(krx.next_session(new.listed))
    asked = {"start": "2024-05-02", "minute_symbols": 0}
    evening(tmp_path, str(first), **asked).run()
    assert new.symbol not in Stage(tmp_path).receipt.symbols
    stage = evening(tmp_path, str(second), since="last", **asked)
    stage.run()
    rows = Lake(stage.lake).read("symbols", symbols=[renamed.symbol]).to_pylist()
    assert [(row["as_of"], row["name"]) for row in rows] == [
        (_day(first), renamed.name),
        (_day(second), renamed.later),
    ]
    bars = Lake(stage.lake).read("bars", symbols=[new.symbol], interval="1d")
    sessions = krx.sessions(new.listed, second)
    assert len(sessions) == 3 and bars["ts"].to_numpy().tolist() == krx.session_closes(sessions).tolist()
    once = evening(tmp_path / "once", str(second), **asked)
    once.folder.mkdir()
    once.run()
    assert content(stage, "symbols", "sessions") == content(once, "symbols", "sessions")


def test_a_halt_at_the_end_of_a_run_is_a_bar_without_prices(tmp_path: Path) -> None:
    halted = {"symbols": ["183640"], "start": "2025-09-01", "minute_symbols": 0, "indices": []}
    evening(tmp_path, "2025-12-03", **halted).run()
    lake = Lake(tmp_path / "lake")
    bars = lake.read("bars", symbols=["183640"], interval="1d")
    last = bars.slice(bars.num_rows - 1).to_pylist()[0]
    assert str(last["ts"])[:10] == "2025-12-03" and last["open"] != last["open"] and last["volume"] == 0
    assert last["close"] > 0
    evening(tmp_path, "2025-12-09", since="last", **halted).run()
    once = evening(tmp_path / "once", "2025-12-09", **halted)
    once.folder.mkdir()
    once.run()
    assert content(Stage(tmp_path), "symbols", "sessions") == content(once, "symbols", "sessions")
    flags = [row["halted"] for row in lake.read("symbols", symbols=["183640"]).to_pylist()]
    assert flags == [True, False]


def test_rewritten_history_is_noticed_and_not_mixed(tmp_path: Path) -> None:
    asked = FEW | {"weekly": False, "investors": False, "minute_symbols": 0}
    evening(tmp_path, "2026-10-27", **asked).run()
    lake = Lake(tmp_path / "lake")
    held = lake.digest("bars", interval="1d", symbols=asked["symbols"])
    stage = evening(tmp_path, "2026-10-30", "rewritten: 1.0\nrewritten_sessions: 20\n", since="last", **asked)
    manifest = stage.run()
    assert manifest["rewritten"] == asked["symbols"]
    assert lake.digest("bars", interval="1d", symbols=asked["symbols"]) == held, "neither changed nor continued"
    for symbol in asked["symbols"]:
        assert f"{symbol} 1d: the broker has rewritten" in stage.logs and "closes x 0.9" in stage.logs
    assert set(pc.unique(lake.read("quarantine")["reason"]).to_pylist()) == {"rewritten"}
    again = evening(tmp_path, "2026-10-30", **asked)  # the broker is itself again
    assert again.run()["rewritten"] == []
    once = evening(tmp_path / "once", "2026-10-30", **asked)
    once.folder.mkdir()
    once.run()
    for name in ("bars", "actions", "coverage"):
        assert lake.digest(name) == Lake(once.lake).digest(name), name


def _day(day: np.datetime64) -> date:
    return date.fromisoformat(str(day))


assert CLOCK.startswith("2026-10-30"), "the days above are those of the server's clock"
