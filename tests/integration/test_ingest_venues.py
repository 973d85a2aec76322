"""One lake of several venues, and days that end in the evening: nothing of one is taken for the other."""

from __future__ import annotations

import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import krx, venues
from pipeline.batch import Batch
from pipeline.coverage import Coverage
from pipeline.origin import Reading
from pipeline.repair import discard
from pipeline.request import RequestError
from pipeline.task import Task
from storage.lake import Lake
from storage.schema import PAGES, QUARANTINE, content_digest

from . import job
from .kis_server import Stage

DAY = date(2026, 9, 18)
SHORT: dict[str, Any] = {"start": "2025-02-24", "end": "2026-09-16", "count": 40, "minute_symbols": 0}
PLAIN: dict[str, Any] = {"simulator": {"symbols": 40, "quota": 0}}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, str]:
    """A lake of KRX, then of both venues as one; with the digest of the actions before the second."""
    stage = Stage(tmp_path_factory.mktemp("both"), kis=PLAIN, ingest=SHORT)
    stage.run()
    before = Lake(stage.lake).digest("actions")
    Stage(stage.folder, kis=PLAIN, ingest=SHORT | {"venue": "UN"}).run()
    return stage, before


def test_actions_found_on_another_venue_leave_those_of_krx(both: tuple[Stage, str], tmp_path: Path) -> None:
    lake = Lake(both[0].lake)
    assert lake.read("actions").num_rows and lake.digest("actions") == both[1]


def test_actions_made_again_are_those_of_krx(both: tuple[Stage, str], tmp_path: Path) -> None:
    shutil.copytree(both[0].lake, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    (file,) = (lake.path / "actions").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    discard(lake, lake.damaged(), source="simulated", venue="UN", reading=Reading())
    assert lake.digest("actions") == both[1]


def test_history_taken_anew_of_another_venue_leaves_the_actions_of_krx(both: tuple[Stage, str], tmp_path: Path) -> None:
    shutil.copytree(both[0].lake, tmp_path / "lake")
    path = tmp_path / "faults.yaml"
    path.write_text("{seed: 3, rewritten: 1, rewritten_sessions: 3}")
    kis = {"simulator": PLAIN["simulator"] | {"faults": str(path)}}
    told = Stage(tmp_path, kis=kis, ingest=SHORT | {"venue": "UN", "end": "2026-09-18", "rewritten": "take"}).run()
    assert told["rewritten"] and Lake(tmp_path / "lake").digest("actions") == both[1]


def test_two_venues_of_a_source_are_compared_each_by_itself(both: tuple[Stage, str], tmp_path: Path) -> None:
    words = ("--lake.path", str(both[0].lake), "--ingest.source", "simulated", "--against", "simulated", "--json")
    for venue in ("KRX", "UN"):
        ran = job.call("scripts/ingest.py", tmp_path, *words, "--ingest.venue", venue, verb="audit")
        assert ran.status == 0, ran.err + ran.out


def test_the_evening_is_waited_for_where_days_end_in_it_and_read_as_such(tmp_path: Path) -> None:
    kis = {"day_ends": "evening", "simulator": PLAIN["simulator"] | {"day_ends": "evening", "clock": f"{DAY}T18:00"}}
    with pytest.raises(RequestError, match="of KRX that is over"):
        Stage(tmp_path, kis=kis, ingest=SHORT | {"end": str(DAY)}).run()
    kis["simulator"] = PLAIN["simulator"] | {"day_ends": "evening"}
    Stage(tmp_path, kis=kis, ingest=SHORT | {"end": str(DAY)}).run()
    lake = Lake(tmp_path / "lake")
    actions = lake.read("actions")
    assert 0 < actions.num_rows < 30 and (tmp_path / "lake" / "actions").is_dir()
    (file,) = (lake.path / "actions").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    discard(lake, lake.damaged(), source="simulated", venue="KRX", reading=Reading(evening=True))
    assert lake.read("actions").equals(actions) or lake.digest("actions") == content_digest(actions)


def test_days_that_hold_the_evening_unknown_to_us_are_told(tmp_path: Path) -> None:
    kis = {"simulator": PLAIN["simulator"] | {"day_ends": "evening"}}
    stage = Stage(tmp_path, kis=kis, ingest=SHORT | {"start": "2026-08-03", "end": str(DAY)})
    stage.run()
    assert any("--kis.day_ends evening" in str(event.get("text")) for event in stage.events)


def test_an_index_is_asked_for_until_its_session_has_a_row(tmp_path: Path) -> None:
    kis = {"simulator": PLAIN["simulator"] | {"clock": f"{DAY}T15:31"}}
    request = SHORT | {"start": "2026-09-01", "end": str(DAY), "count": 1, "indices": ["0001"]}
    stage = Stage(tmp_path, kis=PLAIN, ingest=request)
    stage.run()
    lake = Lake(stage.lake)
    day = datetime.combine(DAY, datetime.min.time(), krx.KST)
    kept = lake.read("bars", symbols=["0001"], end=day, source="simulated")
    lake.replace("bars", kept, symbols=["0001"], source="simulated")
    coverage = Coverage(lake, "simulated", "KRX")
    batch = Batch()
    days = krx.sessions("2026-09-01", DAY)
    good = kept.append_column("date", pa.array(venues.days_of("KRX", kept["ts"].to_numpy())))
    coverage.forget("1d", {"0001": days})
    batch.keep(Task("index", "0001", days), good, QUARANTINE.empty_table(), PAGES.empty_table())
    batch.write(lake, coverage)
    assert not coverage.covered("1d", "0001", days)[-1] and coverage.covered("1d", "0001", days)[:-1].all()
    Stage(tmp_path, kis=kis, ingest=request).run()
    assert lake.counts("bars", interval="1d")["0001"] == len(days)


def test_evenings_of_an_index_are_one_span_with_a_row_a_session(tmp_path: Path) -> None:
    kis = {"simulator": PLAIN["simulator"] | {"clock": f"{DAY}T20:30"}}
    request = SHORT | {"start": "2026-09-01", "count": 1, "indices": ["0001"], "since": "last"}
    for day in krx.sessions("2026-09-15", DAY):
        stage = Stage(tmp_path, kis=kis, ingest=request | {"end": str(day)})
        stage.run()
        assert "lost" not in stage.logs
    days = krx.sessions("2026-09-01", DAY)
    (span,) = Coverage(Lake(stage.lake), "simulated", "KRX").spans("1d", "0001")
    assert (span.first, span.last, span.rows) == (days[0], days[-1], len(days))


def test_minutes_without_a_trade_are_not_asked_for_again_and_again(tmp_path: Path) -> None:
    request = SHORT | {"venue": "UN", "start": "2026-09-10", "end": str(DAY), "minute_symbols": 8, "minute_days": 7}
    told = Stage(tmp_path, kis=PLAIN, ingest=request).run()
    assert told["calls"] < 450  # 642 when each minute without a trade was asked for eleven times


def test_flows_are_those_of_krx(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ingest.venue KRX with ingest.investors"):
        Stage(tmp_path, kis=PLAIN, ingest=SHORT | {"venue": "UN", "investors": True}).run()
