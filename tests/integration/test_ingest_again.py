"""What a second run, an evening, a rewritten history and a damaged lake come to: real simulators, HTTP and tables."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.archive import histories
from pipeline.coverage import Coverage
from pipeline.origin import Origin, checked
from pipeline.task import Task
from pipeline.verify import verify
from storage.lake import Lake
from storage.schema import BARS, KEYS, content_digest

from .kis_server import MARKET, Stage

MANY: dict[str, Any] = {"indices": ["0001", "1001"], "weekly": True, "investors": True, "count": 8}


def until(folder: Path, day: str, **ingest: Any) -> Stage:
    """Return the stage of the evening of a day; the simulator's code is one, so that the source stays the same."""
    kis = {"simulator": MARKET | {"clock": f"{day}T20:30:00+09:00"}}
    return Stage(folder, kis=kis, ingest={"end": day, **ingest})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, dict[str, Any]]:
    stage = until(tmp_path_factory.mktemp("whole"), "2026-10-30", **MANY)
    return stage, stage.run()


def test_a_second_run_asks_for_no_bars(whole: tuple[Stage, dict[str, Any]]) -> None:
    stage, first = whole
    again = Stage(stage.folder, kis=stage.kis, ingest=stage.ingest)
    manifest = again.run()
    assert manifest["content"] == first["content"]
    assert manifest["calls"] <= 6, "a token, the master files, the delisted"
    assert "the lake has all that is asked for" in again.logs


def test_evenings_end_with_the_content_of_one_run(whole: tuple[Stage, dict[str, Any]], tmp_path: Path) -> None:
    until(tmp_path, "2026-10-27", **MANY).run()
    lake = Lake(tmp_path / "lake")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "lake" / "bars").rglob("*.parquet")}
    calls = []
    for day in ("2026-10-28", "2026-10-29", "2026-10-30"):
        stage = until(tmp_path, day, since="last", **MANY)
        manifest = stage.run()
        calls.append(manifest["calls"])
    new = {p for p in (tmp_path / "lake" / "bars").rglob("*.parquet") if p not in files}
    assert {part for p in new for part in p.parts if part.startswith("period=")} <= {"period=2026", "period=2026-10"}
    assert max(calls) < 60, "an evening costs a call a history"
    assert stage.receipt.digests["bars/1d"] == whole[0].receipt.digests["bars/1d"]
    assert (
        stage.receipt.digests["bars/1m"] != ""
        and stage.receipt.digests["actions"] == whole[0].receipt.digests["actions"]
    )
    query = {"source": "simulated", "interval": "1w"}
    assert lake.digest("bars", **query) == Lake(whole[0].lake).digest("bars", **query)
    coverage = Coverage(lake, "simulated", "KRX")
    assert all(len(coverage.spans("1d", symbol)) == 1 for symbol in coverage.symbols("1d")), "spans that touch are one"


def test_indices_weeks_flows_and_sessions(whole: tuple[Stage, dict[str, Any]]) -> None:
    stage, _ = whole
    lake = Lake(stage.lake)
    index = lake.read("bars", symbols=["0001"], interval="1d", source="simulated")
    sessions = krx.sessions(stage.sections()[1].first, "2026-10-30")
    assert index["ts"].to_numpy().tolist() == krx.session_closes(sessions).tolist()
    assert index["volume"].to_numpy().min() > 1e7, "shares, not thousands"
    days = lake.read("bars", symbols=["005940"], interval="1d", source="simulated").to_pandas()
    weeks = lake.read("bars", symbols=["005940"], interval="1w", source="simulated").to_pandas()
    label = days["ts"].dt.tz_convert("Asia/Seoul").dt.strftime("%G-%V")
    sums = days.groupby(label)["volume"].sum()
    known = weeks.set_index(weeks["ts"].dt.tz_convert("Asia/Seoul").dt.strftime("%G-%V"))["volume"]
    known = known[1:]  # the first week began before the first day that was asked for
    assert len(known) > 100 and (sums[known.index] == known).all()
    flows = lake.read("flows", source="simulated")
    days = lake.counts("bars", source="simulated", interval="1d")
    assert len(lake.counts("flows", source="simulated")) == 8
    for symbol, rows in lake.counts("flows", source="simulated").items():
        assert rows == days[symbol] > 400, "flows of every day, not of the latest 30"
    net = sum(flows[f"{who}_net_volume"].to_numpy() for who in ("persons", "foreign", "institutions"))
    assert np.abs(net).max() <= 3, "what some buy others sell, but for rounding"
    opened = lake.read("sessions", source="simulated")
    assert opened.num_rows == 61 and opened["date"][0].as_py() == date(2026, 10, 30)
    assert opened["open"].to_pylist() == krx.is_session(opened["date"].to_numpy().astype("datetime64[D]")).tolist()


def test_weeks_made_of_days_are_the_brokers_weeks(whole: tuple[Stage, dict[str, Any]]) -> None:
    receipt = whole[0].receipt
    without = receipt.model_copy(update={"intervals": ("1d", "1m")})
    split = set(receipt.actions()["symbol"].to_pylist())
    names = [symbol for symbol in receipt.symbols if symbol not in split]
    theirs, ours = receipt.bars("1w", symbols=names).to_pandas(), without.bars("1w", symbols=names).to_pandas()
    theirs = theirs[theirs["ts"] > theirs["ts"].min()]  # the first week began before the first day: it is not complete
    for name in ("symbol", "ts", "open", "high", "low", "close", "volume", "turnover"):
        assert (theirs[name].to_numpy() == ours[name].to_numpy()).all(), name
    days, minutes = receipt.bars("1d").to_pandas(), receipt.bars("5m").to_pandas()
    sums = minutes.groupby(["symbol", minutes["ts"].dt.date])["volume"].sum()
    for (symbol, day), volume in sums.items():
        assert days[(days["symbol"] == symbol) & (days["ts"].dt.date == day)]["volume"].item() == volume
    assert len(sums) == 9 and set(minutes["ts"].dt.minute % 5) == {0}
    late = receipt.bars("15m", start=minutes["ts"].iloc[40].to_pydatetime())
    assert late.num_rows < receipt.bars("15m").num_rows and late.schema == receipt.bars("1m").schema


def test_bars_made_of_kept_answers_are_the_same(whole: tuple[Stage, dict[str, Any]]) -> None:
    stage, _ = whole
    lake, origin = Lake(stage.lake), Origin("simulated", "KRX", krx.session_close("2026-10-30"))
    for interval in ("1d", "1m", "1w"):
        coverage = Coverage(lake, "simulated", "KRX")
        names = coverage.symbols(interval)
        days = {
            name: np.concatenate([krx.sessions(s.first, s.last) for s in coverage.spans(interval, name)])
            for name in names
        }
        parts = []
        for symbol, call, history in histories(lake, names, interval, days, source="simulated", venue="KRX"):
            what = {"inquire-daily-indexchartprice": "index", "inquire-time-dailychartprice": "minute"}.get(
                call, "daily"
            )
            what = "weekly" if interval == "1w" else what
            good, wrong = checked(history, Task(what, symbol, days[symbol]), origin)  # type: ignore[arg-type]
            assert wrong.num_rows == 0
            parts.append(good.select(BARS.names))
        held = lake.digest("bars", interval=interval, source="simulated")
        assert content_digest(pa.concat_tables(parts), KEYS["bars"]) == held


def test_verify_finds_the_lake_whole(whole: tuple[Stage, dict[str, Any]]) -> None:
    stage, _ = whole
    request = stage.sections()[1]
    found = {
        one.interval: one
        for one in verify(Lake(stage.lake), source="simulated", venue="KRX", start=request.first, end=request.end)
    }
    assert set(found) == {"1d", "1w", "1m", "flows"} and all(one.clean for one in found.values())
    assert found["1d"].empty > 0 and found["1d"].present + found["1d"].empty == found["1d"].expected


def test_lost_rows_are_fetched_again(whole: tuple[Stage, dict[str, Any]], tmp_path: Path) -> None:
    stage = until(tmp_path, "2026-10-30", **MANY)
    stage.run()
    lake = Lake(stage.lake)
    lake.remove("bars", symbols=["005940"], source="simulated", interval="1d")
    found = {
        one.interval: one
        for one in verify(lake, source="simulated", venue="KRX", start=date(2024, 5, 2), end=date(2026, 10, 30))
    }
    again = Stage(tmp_path, kis=stage.kis, ingest=stage.ingest)
    assert again.run()["content"] == whole[1]["content"]
    assert "the lake has lost" in again.logs and "005940 1d" in again.logs
    assert set(found["1d"].gaps) == {"005940"}, (
        "days that were answered and are gone are not taken for days without trade"
    )


FEW: dict[str, Any] = {"symbols": ["005940", "023710"], "minute_symbols": 0, "start": "2025-06-02"}


def changed(lake: Lake, column: str, factor: float, days: slice) -> pa.Table:
    """Change what the lake holds of a symbol, so that the broker, which did not change, says something else."""
    rows = lake.read("bars", symbols=["005940"], interval="1d", source="simulated")
    values = rows[column].to_numpy().copy()
    values[days] *= factor
    lake.write("bars", rows.set_column(rows.column_names.index(column), column, pa.array(values)))
    return rows


def test_rewritten_prices_are_reported_and_nothing_is_mixed(tmp_path: Path) -> None:
    until(tmp_path, "2026-10-28", **FEW).run()
    lake = Lake(tmp_path / "lake")
    truth = changed(lake, "close", 0.5, slice(-10, -2))
    held = lake.digest("bars", symbols=["005940"], interval="1d")
    stage = until(tmp_path, "2026-10-30", **FEW)
    manifest = stage.run()
    assert manifest["rewritten"] == ["005940"] and manifest["quarantined"]["rewritten"] == 8
    assert "005940 1d: the broker has rewritten 8 sessions from 2026-10-15 to 2026-10-26 (closes x 2)" in stage.logs
    assert lake.digest("bars", symbols=["005940"], interval="1d") == held, "neither changed nor continued"
    other = lake.read("bars", symbols=["023710"], interval="1d")
    assert other["ts"].to_numpy()[-1] == krx.session_closes(np.datetime64("2026-10-30", "D").reshape(1))[0]
    reasons = lake.read("quarantine", symbols=["005940"], source="simulated").to_pylist()
    assert all("broker open=" in row["row"] and "; lake open=" in row["row"] for row in reasons)
    stage = until(tmp_path, "2026-10-30", rewritten="take", **FEW)
    stage.run()
    assert "its whole history is put in the place of ours" in stage.logs and "nothing was changed" not in stage.logs
    now = lake.read("bars", symbols=["005940"], interval="1d")
    assert now.num_rows == truth.num_rows + 2 and now.slice(0, truth.num_rows)["close"].equals(truth["close"])
    clean = until(tmp_path / "clean", "2026-10-30", **FEW)
    clean.run()
    for name in ("bars", "actions"):
        assert lake.digest(name, source="simulated") == Lake(clean.lake).digest(name, source="simulated")
    assert Coverage(lake, "simulated", "KRX").spans("1d", "005940") == Coverage(
        Lake(clean.lake), "simulated", "KRX"
    ).spans("1d", "005940")


def test_a_corrected_volume_is_reported_and_the_history_goes_on(tmp_path: Path) -> None:
    until(tmp_path, "2026-10-28", **FEW).run()
    lake = Lake(tmp_path / "lake")
    changed(lake, "volume", 3.0, slice(-4, -3))
    stage = until(tmp_path, "2026-10-30", **FEW)
    assert stage.run()["quarantined"] == {"rewritten": 1}
    rows = lake.read("bars", symbols=["005940"], interval="1d")
    assert str(rows["ts"].to_numpy()[-1])[:10] == "2026-10-30" and "what the lake holds was kept" in stage.logs


def test_an_action_at_the_seam_of_two_runs_is_found(tmp_path: Path) -> None:
    """Histories that are put together from two sides show the same corporate actions as one that came at once."""
    clean = until(tmp_path / "clean", "2026-10-30", count=20, minute_symbols=0)
    clean.run()
    actions = Lake(clean.lake).read("actions", source="simulated").to_pylist()
    assert actions
    seam = actions[0]["ex_date"]
    before = krx.previous_session(seam)
    late = until(tmp_path / "late", "2026-10-30", count=20, minute_symbols=0, start=str(seam))
    late.run()
    late = until(tmp_path / "late", "2026-10-30", count=20, minute_symbols=0)
    late.run()
    early = until(tmp_path / "early", str(before), count=20, minute_symbols=0)
    early.run()
    early = until(tmp_path / "early", "2026-10-30", count=20, minute_symbols=0)
    early.run()
    for stage in (late, early):
        for name in ("bars", "actions"):
            assert Lake(stage.lake).digest(name, source="simulated") == Lake(clean.lake).digest(
                name, source="simulated"
            )
