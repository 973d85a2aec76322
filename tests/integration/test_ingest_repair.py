"""Damage is found, named and mended from kept answers or from the broker; retention never takes what is needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.features.section import FeatureSection
from pipeline.features.stage import features
from pipeline.labels import LabelSection
from storage.lake import Lake
from storage.schema import SCHEMAS
from storage.store import read_json
from tests.feature_stage import UNIVERSE, Threads

from . import job

TABLES = ("bars", "actions", "symbols", "flows", "coverage")


def ingest(folder: Path, verb: str, *words: str) -> job.Ran:
    return job.call("scripts/ingest.py", folder, *job.FEW, *words, verb=verb)


@pytest.fixture
def copy(filled: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(filled / "data" / "lake", tmp_path / "data" / "lake")  # keeps times
    yield tmp_path


def digests(folder: Path) -> dict[str, str]:
    lake = Lake(folder / "data" / "lake")
    return {table: lake.digest(table) for table in TABLES}


@pytest.mark.parametrize(
    "table", ["bars", "actions", "coverage", "pages", "flows", "sessions", "symbols", "quarantine"]
)
def test_a_damaged_file_is_named_and_its_rows_come_back(filled: Path, copy: Path, table: str) -> None:
    found = (copy / "data" / "lake" / table).rglob("*.parquet")
    files = sorted(found, key=lambda path: -path.stat().st_mtime_ns)  # the newest is no leftover of an older version
    if not files:
        assert table == "quarantine", "this market has no bad rows"
        return
    content = bytearray(files[0].read_bytes())
    for at in range(len(content) // 2, len(content) // 2 + 20):
        content[at] ^= 0xFF
    files[0].write_bytes(content)
    seen = ingest(copy, "verify")
    assert seen.status == 1 and f"damaged: {table}/" in seen.out and files[0].name in seen.out
    mended = ingest(copy, "repair")
    assert mended.status == 0, mended.out + mended.err
    assert files[0].name in mended.out and mended.out.rstrip().endswith("clean")
    assert (copy / "data" / "lake" / "damaged" / table).exists()
    ran = ingest(copy, "run")
    assert ran.status == 0, ran.err
    assert digests(copy) == digests(filled)


def test_lost_bars_come_from_kept_answers_without_a_chart_call(copy: Path, filled: Path) -> None:
    for path in sorted((copy / "data" / "lake" / "bars").rglob("*.parquet")):
        path.write_bytes(b"not parquet")
    mended = ingest(copy, "repair", "--json")
    assert mended.status == 0, mended.out + mended.err
    told = next(event for event in mended.lines if "archive" in event)
    assert told["archive"] > 3000 and told["broker"] == 0
    assert digests(copy) == digests(filled)


def test_without_kept_answers_the_broker_is_asked(copy: Path, filled: Path) -> None:
    shutil.rmtree(copy / "data" / "lake" / "pages")
    shutil.rmtree(copy / "data" / "lake" / "bars")
    ran = ingest(copy, "run")
    assert ran.status == 0 and "the lake has lost" in ran.out
    assert digests(copy) == digests(filled)


def test_verify_names_what_is_missing(copy: Path) -> None:
    wider = ("--ingest.start", "2025-09-01")
    seen = ingest(copy, "verify", *wider, "--json")
    days = next(event for event in seen.lines if event.get("interval") == "1d")
    assert seen.status == 1 and days["missing"] > 8 * 35 and "2025-09-01" in days["days"]["005940"]
    assert ingest(copy, "repair", *wider).status == 0
    assert ingest(copy, "verify", *wider).status == 0


def test_a_source_that_was_never_asked_for_cannot_be_judged(tmp_path: Path) -> None:
    assert ingest(tmp_path, "verify").status == 3
    refused = ingest(tmp_path, "audit", "--against", "kis")
    assert refused.status == 2 and "it holds none" in refused.err
    unknown = ingest(tmp_path, "mend")
    assert unknown.status == 2 and "expected plan, run, verify, repair or audit, got 'mend'" in unknown.err


def test_audit_compares_two_sources(copy: Path) -> None:
    other = ("--ingest.source", "other", "--kis.simulator.signal", "0")
    assert ingest(copy, "run", *other).status == 0
    source = next(s for s in set(Lake(copy / "data" / "lake").read("bars")["source"].to_pylist()) if s != "other")
    seen = ingest(copy, "audit", "--against", source, "--json", *other)
    assert seen.status == 1 and seen.lines[0]["verdict"] == "differs"
    same = ingest(copy, "audit", "--against", source, "--ingest.source", source)
    assert same.status == 0 and same.out.startswith("same: ")


def test_plan_costs_no_chart_calls(copy: Path) -> None:
    told = ingest(copy, "plan", "--json", "--ingest.start", "2025-10-01").lines[-1]
    assert 8 <= told["calls"] <= 20 and told["rows"] == pytest.approx(
        (8 + 2 + 8) * 18, abs=10
    )  # stocks, indices, flows
    assert ingest(copy, "plan", "--json").lines[-1]["calls"] == 0


def test_old_versions_go_and_kept_answers_are_bounded(copy: Path, filled: Path) -> None:
    lake = Lake(copy / "data" / "lake")
    before = len(list(lake.path.rglob("*.parquet")))
    assert ingest(copy, "run", "--lake.archive_mb", "0.05", "--ingest.start", "2025-10-01").status == 0
    pages = lake.read("pages", columns=["symbol"]).num_rows
    assert 0 < pages < Lake(filled / "data" / "lake").read("pages", columns=["symbol"]).num_rows
    assert before and set(SCHEMAS) >= set(TABLES)
    assert ingest(copy, "verify", "--ingest.start", "2025-10-01").status == 0


def test_repair_mixes_no_bases(copy: Path) -> None:
    """What a broker that has rewritten its history says of lost days is not put beside what was kept."""
    lake = Lake(copy / "data" / "lake")
    shutil.rmtree(lake.path / "pages")
    for path in sorted((lake.path / "bars" / "interval=1d").rglob("period=2026/*.parquet")):
        path.write_bytes(path.read_bytes()[:-100])
    mended = ingest(copy, "repair", "--kis.simulator.faults", str(faults(copy, "rewritten: 1.0")))
    assert mended.status == 1 and "the broker has rewritten" in mended.out
    left = lake.read("bars", symbols=["005940"], interval="1d")
    assert {str(ts)[:4] for ts in left["ts"].to_pylist()} == {"2025"}, "no bar of the other basis beside ours"
    assert ingest(copy, "repair").status == 0


def faults(folder: Path, text: str) -> Path:
    path = folder / "faults.yaml"
    path.write_text(text)
    return path


def test_features_see_the_days_and_intervals_of_the_receipt(filled: Path, tmp_path: Path) -> None:
    """A lake that holds more than was asked for changes nothing, and intervals that it does not hold are derived."""
    small = ("--ingest.start", "2026-02-02")

    def made(folder: Path, *words: str, interval: str = "1d") -> dict[str, Any]:
        assert ingest(folder, "run", *small, *words).status == 0
        (out := folder / interval).mkdir()
        taken = {"ingest": Path(job.manifests(folder)["ingest"]["directory"])}
        with Threads() as cluster:
            return features(cluster.job(out, taken), FeatureSection(interval=interval), LabelSection(), UNIVERSE)

    shutil.copytree(filled / "data" / "lake", tmp_path / "wide" / "data" / "lake")
    wide, narrow = (made(tmp_path / name, "--ingest.end", "2026-09-30") for name in ("wide", "narrow"))
    assert wide["content"] == narrow["content"]
    quarters = made(tmp_path / "wide", "--ingest.minute_days", "20", interval="15m")["rows"]
    assert quarters == 2 * 23 * 26, "two symbols, 23 sessions that the lake has minutes of, 26 quarters of an hour each"


WEEKLY = ("--ingest.weekly", "true", "--ingest.count", "20", "--ingest.start", "2024-06-03")


def test_lost_weeks_come_back_as_weeks(tmp_path: Path) -> None:
    assert ingest(tmp_path, "run", *WEEKLY).status == 0
    lake, before = Lake(tmp_path / "data" / "lake"), digests(tmp_path)
    weeks = lake.read("bars", interval="1w").to_pandas()
    gone = [row for row in lake.read("symbols").to_pylist() if row["delisted"] and row["delisted"] > date(2024, 6, 3)]
    assert gone
    for row in gone:
        last = weeks[weeks["symbol"] == row["symbol"]]["ts"].max().date()
        assert last > row["delisted"] - timedelta(days=7), "the last week is there"
    for path in (lake.path / "bars" / "interval=1w").rglob("*.parquet"):
        path.unlink()
    mended = ingest(tmp_path, "repair", *WEEKLY)
    assert mended.status == 0, mended.out + mended.err
    assert digests(tmp_path)["bars"] == before["bars"]
    assert ingest(tmp_path, "plan", *WEEKLY, "--json").lines[-1]["calls"] == 0


def test_weeks_and_minutes_stay_with_the_days(copy: Path) -> None:
    """What is on another basis than the days of the lake is neither added nor left beside them."""
    lake = Lake(copy / "data" / "lake")
    rest = ("--ingest.weekly", "true", "--ingest.minute_days", "1", "--kis.simulator.clock", "2026-11-20")
    assert ingest(copy, "run", *rest, "--ingest.end", "2026-10-30").status == 0
    held = {kind: lake.digest("bars", interval=kind, symbols=["005940"]) for kind in ("1d", "1w", "1m")}
    sources = {row["source"] for row in lake.read("coverage").to_pylist()}
    assert len(sources) == 1, "the clock of the simulator names no other market"
    words = (*rest, "--ingest.end", "2026-11-20", "--kis.simulator.faults", str(faults(copy, "rewritten: 1.0")))
    ran = ingest(copy, "run", *words)
    assert ran.status == 0 and "sessions were not added, since the prices of its days were rewritten" in ran.out
    assert {kind: lake.digest("bars", interval=kind, symbols=["005940"]) for kind in held} == held
    assert ingest(copy, "run", *words, "--ingest.rewritten", "take").status == 0
    days = lake.read("bars", interval="1d", symbols=["005940"]).to_pandas()
    weeks = lake.read("bars", interval="1w", symbols=["005940"]).to_pandas()
    same = weeks.merge(days, on="ts")
    assert len(same) > 40 and (same["close_x"] == same["close_y"]).all(), "weeks end at the close of their last day"


def test_actions_of_every_source_come_back(copy: Path) -> None:
    other = ("--kis.simulator.seed", "8", "--ingest.count", "20", "--ingest.start", "2022-01-03")
    assert ingest(copy, "run", *other).status == 0
    lake, before = Lake(copy / "data" / "lake"), digests(copy)
    assert len(set(lake.read("actions")["source"].to_pylist())) == 2
    for path in (lake.path / "actions").glob("*.parquet"):
        path.write_bytes(b"")
    assert ingest(copy, "repair").status == 0
    assert digests(copy)["actions"] == before["actions"]


def test_coverage_and_bars_lost_together_come_back(copy: Path, filled: Path) -> None:
    lake = Lake(copy / "data" / "lake")
    for name in ("coverage", "bars/interval=1m"):
        for path in (lake.path / name).rglob("*.parquet"):
            path.write_bytes(path.read_bytes()[:-50])
    assert ingest(copy, "repair").status == 0
    assert digests(copy)["bars"] == digests(filled)["bars"]


def test_flows_that_are_gone_are_missed(copy: Path, filled: Path) -> None:
    lake = Lake(copy / "data" / "lake")
    lake.remove("flows", symbols=["005940"])
    seen = ingest(copy, "verify")
    assert seen.status == 1 and "flows: 8 symbols" in seen.out
    assert ingest(copy, "repair").status == 0
    assert digests(copy)["flows"] == digests(filled)["flows"]


def torn(folder: Path) -> dict[str, Any]:
    """What the latest ingest said of minutes that the broker left out: its manifest and its quality."""
    manifest = job.manifests(folder)["ingest"]
    described: dict[str, Any] = read_json(Path(manifest["directory"]) / "quality.json")["1m"]
    return {"days": manifest["torn"], "quality": described["torn"], "notes": described["notes"]}


def minutes(folder: Path, symbol: str, day: date) -> pa.Table:
    bars = Lake(folder / "data" / "lake").read("bars", interval="1m", symbols=[symbol]).drop_columns(["ingested_at"])
    return bars.filter(pa.array([ts.date() == day for ts in bars["ts"].to_pylist()]))


def without(folder: Path, symbol: str, day: date) -> tuple[str, str]:
    """Words that have the simulator leave out ten minutes of a day."""
    return "--kis.simulator.faults", str(faults(folder, f"withheld: {symbol}@{day:%Y%m%d}@1000-1009"))


def test_minutes_that_the_broker_leaves_out_are_told_and_come_back(filled: Path, tmp_path: Path) -> None:
    symbol, day = Lake(filled / "data" / "lake").read("bars", interval="1m")["symbol"][0].as_py(), date(2026, 10, 29)
    whole, none = minutes(filled, symbol, day), torn(filled)
    assert none["days"] == {} and none["quality"]["days"] == 0 and none["notes"] == []
    ran = ingest(tmp_path, "run", *without(tmp_path, symbol, day))
    assert ran.status == 0, ran.err
    warned = [e["text"] for e in ran.events if e["kind"] == "log" and e["level"] == "warning"]
    assert any("1 days without some" in text and f"{symbol} {day} " in text for text in warned)
    told = torn(tmp_path)
    assert told["days"] == {symbol: [str(day)]}
    assert told["quality"] == {"days": 1, "symbols": 1, "worst": [{"symbol": symbol, "date": str(day)}]}
    assert len(told["notes"]) == 1 and symbol in told["notes"][0] and str(day) in told["notes"][0]
    assert 1 <= whole.num_rows - minutes(tmp_path, symbol, day).num_rows <= 10, "what came of the day is kept"

    mended = ingest(tmp_path, "repair")
    assert mended.status == 0 and mended.out.rstrip().endswith("clean")
    assert minutes(tmp_path, symbol, day).equals(whole) and digests(tmp_path) == digests(filled)
    ran = ingest(tmp_path, "run")
    assert ran.status == 0 and torn(tmp_path)["days"] == {}, "the lake has changed, so that ingest says it anew"

    for path in (tmp_path / "data" / "lake" / "bars" / "interval=1m").rglob("*.parquet"):
        path.write_bytes(b"")
    mended = ingest(tmp_path, "repair", "--json")
    told = next(event for event in mended.lines if "archive" in event)
    assert mended.status == 0 and told["broker"] == 0, "the kept answers of both askings make the day whole"
    assert digests(tmp_path) == digests(filled)


def test_days_that_stay_torn_are_asked_for_until_they_are_whole(filled: Path, tmp_path: Path) -> None:
    """Also where all days of a symbol are torn, and where kept answers bring back no more."""
    symbol, day = Lake(filled / "data" / "lake").read("bars", interval="1m")["symbol"][0].as_py(), date(2026, 10, 30)
    few = ("--ingest.symbols", f'["{symbol}"]', "--ingest.minute_days", "1", "--ingest.minute_symbols", "1")
    few = (*few, "--ingest.start", "2026-10-01", "--ingest.investors", "false")
    fault = without(tmp_path, symbol, day)
    for _ in range(2):
        ran = ingest(tmp_path, "run", *few, *fault)
        assert ran.status == 0 and ran.states == {"ingest": "done"}, "a second run asks again"
        assert torn(tmp_path)["days"] == {symbol: [str(day)]}
    seen = ingest(tmp_path, "verify", *few)
    assert seen.status == 1 and f"1 partial ({symbol} 1 from {day})" in seen.out, "that it was asked for is known"
    for path in (tmp_path / "data" / "lake" / "bars" / "interval=1m").rglob("*.parquet"):
        path.write_bytes(b"")
    again = ingest(tmp_path, "repair", *few, *fault)
    assert again.status == 1 and f"1 partial ({symbol} 1 from {day})" in again.out
    assert ingest(tmp_path, "plan", *few, "--json").lines[-1]["calls"] >= 1, "a repair in vain covers nothing"
    ran = ingest(tmp_path, "run", *few)
    assert ran.status == 0 and "without some" not in ran.out and torn(tmp_path)["days"] == {}
    assert minutes(tmp_path, symbol, day).equals(minutes(filled, symbol, day))
    assert ingest(tmp_path, "run", *few).states == {"ingest": "reused"}


def test_what_is_withheld_has_to_be_named_rightly(tmp_path: Path) -> None:
    wrong = ingest(tmp_path, "run", "--kis.simulator.faults", str(faults(tmp_path, "withheld: 005930@1000-1010")))
    assert wrong.status == 2 and "005930@20261030@1000-1010" in wrong.err
