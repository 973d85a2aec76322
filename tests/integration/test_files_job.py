"""The main job on files that users have: real KRX files where they are at hand, and a folder full of troubles."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.market import bars

from . import job

FILES = ("--config", str(job.ROOT / "configs" / "krx_files.yaml"))
QUICK = ("--train.num_epochs", "1", "--train.windows_per_epoch", "2000", "--train.hidden_size", "16")


def report_of(ran: job.Ran) -> dict[str, Any]:
    assert ran.status == 0, ran.err + ran.out[-3000:]
    found: dict[str, Any] = json.loads((ran.folder / "performance_report.json").read_text())
    return found


def write_csv(folder: Path, symbol: str, seed: int, rows: int = 400) -> list[str]:
    table = bars([symbol], rows, seed=seed).to_pydict()
    lines = ["date,open,high,low,close,volume"]
    for i in range(rows):
        day = table["ts"][i].strftime("%Y-%m-%d")
        lines.append(day + "," + ",".join(f"{table[c][i]:.0f}" for c in ("open", "high", "low", "close", "volume")))
    (folder / f"{symbol}.csv").write_text("\n".join(lines) + "\n")
    return lines


def test_bad_rows_go_to_quarantine_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for seed, symbol in enumerate(["005930", "000660", "035420", "00680K"]):
        write_csv(folder, symbol, seed)
    path = folder / "005930.csv"
    lines = path.read_text().splitlines()
    lines[10] = lines[10].split(",")[0] + ",100,90,110,100,5"  # high below low
    lines[20] = lines[20].replace(",", ",x", 1)  # not a number
    lines.append(lines[30])  # the same row again
    path.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")  # and unsorted
    rows = [line.split(",") for line in write_csv(folder, "035720", 9)]
    (folder / "035720.csv").write_text("".join(",".join(r[:2] + r[3:]) + "\n" for r in rows))  # no column of highs
    (folder / "not_a_table.csv").write_bytes(bytes(range(256)) * 8)
    (folder / "000030.csv").write_text("\n".join((folder / "000660.csv").read_text().splitlines()[:4]) + "\n")  # 3 bars
    ran = job.run("run_optimized_pipeline.py", tmp_path / "run", *FILES, "--ingest.path", str(folder), *QUICK)
    numbers = report_of(ran)
    manifest = job.manifests(tmp_path / "run")["ingest"]
    counted = manifest["quarantined"]
    assert {"symbol": "035720", "why": "empty", "text": "no value in high"} in numbers["data"]["left_out"]
    assert counted["high_below_low"] == 1
    assert counted["not_a_number"] == 1
    assert sum(counted.values()) >= 3, "the file that is no table is not counted"
    text = json.dumps(numbers)
    assert "high_below_low" in text
    html = (ran.folder / "report.html").read_text(encoding="utf-8")
    assert "high below low" in html or "high_below_low" in html


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected"),
        ({"005930.csv": "date,open,high,low,volume\n2020-01-02,1,2,1,5\n"}, "close"),
        ({"005930.csv": "date,close\n2020-01-02,\n2020-01-03,\n"}, "expected"),
        ({"005930.parquet": "this is text"}, "005930.parquet"),
    ],
    ids=["an empty folder", "a missing column", "all-NaN columns", "not what its ending says"],
)
def test_when_nothing_can_be_used_the_error_says_what_to_do(tmp_path: Path, files: dict[str, str], said: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    ran = job.call("scripts/ingest.py", tmp_path / "run", *FILES, "--ingest.path", str(folder))
    assert ran.status == 2, ran.out[-2000:]
    assert said in ran.err
    assert str(folder) in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("there", [False, True], ids=["nothing", "an empty folder"])
def test_a_dry_run_says_that_there_is_nothing_to_read(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "files"
    if there:
        folder.mkdir()
    ran = job.call("run_optimized_pipeline.py", tmp_path / "run", *FILES, "--ingest.path", str(folder), "--dry-run")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("run_optimized_pipeline.py: expected") and str(folder) in ran.err
    assert "--ingest.path" in ran.err and ran.err.count("\n") == 1


def test_files_with_a_blank_open_are_told_so(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for seed, symbol in enumerate(["005930", "000660"]):
        head, *rows = write_csv(folder, symbol, seed)
        blank = [",".join(["" if i == 1 else cell for i, cell in enumerate(row.split(","))]) for row in rows]
        (folder / f"{symbol}.csv").write_text("\n".join([head, *blank]) + "\n")
    ran = job.run("scripts/train.py", tmp_path / "run", *FILES, "--ingest.path", str(folder), *QUICK)
    assert ran.status == 2, ran.out[-2000:]
    assert "expected bars of 1d with an open, because orders fill at the next open, got none in all" in ran.err
    assert "Traceback" not in ran.err


def test_a_symbol_with_three_bars_alone_is_refused_with_the_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    write_csv(folder, "005930", 0, rows=3)
    ran = job.run("run_optimized_pipeline.py", tmp_path / "run", *FILES, "--ingest.path", str(folder))
    assert ran.status == 2, ran.out[-2000:]
    assert "3" in ran.err
    assert "bars" in ran.err
    assert "Traceback" not in ran.err


def test_seven_real_stocks_are_held_or_not_each_by_itself(market_data: Path, tmp_path: Path) -> None:
    words = ("--ingest.path", str(market_data / "krx_daily_raw" / "v1"))
    ran = job.run("run_optimized_pipeline.py", tmp_path, *FILES, *words, *QUICK)
    numbers = json.dumps(report_of(ran))
    receipt = json.loads(next((tmp_path / "data" / "stages" / "ingest").glob("*/receipt.json")).read_text())
    assert len(receipt["symbols"]) == 7
    assert receipt["start"] == "1985-01-04"
    assert not receipt["close_only"]
    assert "time_series" in numbers


@pytest.mark.parametrize("count", [30, pytest.param(1785, marks=pytest.mark.slow)])
def test_the_close_only_panel_uses_features_of_closes(market_data: Path, tmp_path: Path, count: int) -> None:
    path = market_data / "krx_close_2021_raw.zip"
    symbols = sorted(name[:6] for name in zipfile.ZipFile(path).namelist())[:count]
    words = ("--ingest.path", str(path), "--ingest.symbols", json.dumps(symbols))
    ran = job.run("run_optimized_pipeline.py", tmp_path, *FILES, *words, *QUICK)
    report_of(ran)
    made = job.manifests(tmp_path)
    receipt = json.loads((Path(made["ingest"]["directory"]) / "receipt.json").read_text())
    assert receipt["close_only"]
    assert receipt["symbols"] == symbols
    assert len(symbols) == count
    columns = json.loads((Path(made["features"]["directory"]) / "columns.json").read_text())
    assert not [c["name"] for c in columns["features"] if "volume" in c["name"] or c["name"].startswith("atr")]


def test_two_adjustment_bases_are_never_joined(market_data: Path, tmp_path: Path) -> None:
    refused = job.call("scripts/ingest.py", tmp_path, *FILES, "--ingest.path", str(market_data / "krx_daily_raw"))
    assert refused.status == 2
    for name in ("v1", "v2", "v3"):
        assert name in refused.err
    sources = set()
    for name in ("v1", "v2"):
        words = ("--ingest.path", str(market_data / "krx_daily_raw" / name))
        ran = job.call("scripts/ingest.py", tmp_path, *FILES, *words)
        assert ran.status == 0, ran.err
    for path in (tmp_path / "data" / "stages" / "ingest").glob("*/receipt.json"):
        receipt = json.loads(path.read_text())
        sources.add(receipt["source"])
    assert len(sources) == 2
    from storage.lake import Lake

    lake = Lake(tmp_path / "data" / "lake")
    closes = {}
    for source in sources:
        rows = lake.read("bars", source=source, symbols=["005930"])
        closes[source] = dict(zip(rows["ts"].to_pylist(), rows["close"].to_pylist()))
    first, second = closes.values()
    shared = first.keys() & second.keys()
    ratio = [max(first[t], second[t]) / min(first[t], second[t]) for t in shared]
    assert len(shared) > 400
    assert np.median(ratio) == pytest.approx(50), "the split basis of 2018 and the one before stand side by side"
