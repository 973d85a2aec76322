"""scripts/optimize.py on a small lake: what it leaves, what a next run takes from it, reuse and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.backtest import AccountSection, run
from pipeline.backtest.single.lake_bars import of_receipt
from pipeline.strategies import moving_average_cross

from . import job

SEARCH = (
    *job.FEW, "--ingest.start", "2024-01-02", "--ingest.minute_symbols", "0", "--ingest.investors", "false",
    "--optimize.samples", "32", "--optimize.iterations", "2", "--optimize.least_trades", "1", "--optimize.top", "5",
    "--optimize.ranges", '{"fast": [5, 20], "slow": [20, 60]}',
)  # fmt: skip


def out_of(folder: Path, stage: str) -> Path:
    (found,) = (folder / "data" / "stages" / stage).glob("*/manifest.json")
    return found.parent


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, job.Ran]:
    folder = tmp_path_factory.mktemp("search")
    ran = job.run("scripts/optimize.py", folder, *SEARCH)
    assert ran.status == 0, ran.err + ran.out[-3000:]
    return folder, ran


def test_it_leaves_the_bank_every_trial_and_the_trades_of_the_best(searched: tuple[Path, job.Ran]) -> None:
    out = out_of(searched[0], "optimize")
    bank = json.loads((out / "bank.json").read_text())
    trials = pd.read_parquet(out / "trials.parquet")
    assert bank["trials"] == len(trials) == sum(step["combinations"] for step in bank["iterations"])
    assert 1 <= len(bank["top"]) <= 5
    assert bank["top"][0]["score"] == trials["score"].max()
    assert trials["fast"].between(5, 20).all()
    judgement = bank["overfitting"]["judgement"]
    assert judgement and all(sentence.endswith((".", "chance", "search is worth")) for sentence in judgement[:1])
    assert judgement[0] in searched[1].out
    assert f"averaged over {len(bank['symbols'])} symbols" in judgement[1]
    found = of_receipt(out_of(searched[0], "ingest"), AccountSection(), "1d")
    trades, equity = (pd.read_parquet(out / f"{name}.parquet") for name in ("trades", "equity"))
    best = bank["top"][0]
    figures = []
    for each in found:
        own = run([each], moving_average_cross, best["parameters"])
        assert trades[trades["symbol"] == each.symbol]["profit"].tolist() == own.trades["profit"].tolist()
        assert equity[equity["symbol"] == each.symbol]["equity"].tolist() == own.equity["equity"].tolist()
        days = bank["sessions"][each.symbol]
        part = {"first": days["inside_first"], "last": days["inside_last"]}
        figures.append(run([each], moving_average_cross, best["parameters"], **part).figures)
        cut = days["outside_first"] or "9999"
        seen = equity[equity["symbol"] == each.symbol]
        after = [str(stamp.date()) >= cut for stamp in seen["ts"]]  # a daily bar ends on its day, in UTC too
        assert ((seen["part"] == "outside") == after).all() and 0 < sum(after) < len(after)
        mine = trades[trades["symbol"] == each.symbol]
        assert ((mine["part"] == "outside") == [str(stamp.date()) >= cut for stamp in mine["entry_ts"]]).all()
    assert set(trades["part"]) == {"inside", "outside"}
    assert "sharpe (a year, mean over symbols): " in searched[1].out
    assert not (out / "iterations").exists()
    for name in ("total_return", "trades", "max_drawdown", "costs"):
        assert best["inside"][name] == pytest.approx(pd.Series([f[name] for f in figures]).mean(), abs=1e-12)


def test_the_second_run_reuses_it_and_the_ranges_are_a_configuration(searched: tuple[Path, job.Ran]) -> None:
    folder, _ = searched
    again = job.run("scripts/optimize.py", folder, *SEARCH)
    assert (again.status, again.states["optimize"]) == (0, "reused"), again.err
    written = (out_of(folder, "optimize") / "ranges.yaml").read_text()
    left = yaml.safe_load(written)
    assert left["optimize"]["strategy"] == "moving_average_cross"
    assert set(left["optimize"]["ranges"]) == {p.name for p in moving_average_cross.parameters}
    bank = json.loads((out_of(folder, "optimize") / "bank.json").read_text())
    days = [each for each in bank["sessions"].values() if each["inside_first"]]
    first, last = min(each["inside_first"] for each in days), max(each["inside_last"] for each in days)
    assert f"with seed 0.\n# Chosen on bars of 1d of {len(days)} symbols, {first} to {last}.\n" in written
    assert (left["optimize"]["earlier"], left["optimize"]["interval"]) == (bank["trials"], "1d")
    words = [*SEARCH[: SEARCH.index("--optimize.ranges")], "--config", str(out_of(folder, "optimize") / "ranges.yaml")]
    narrower = job.run("scripts/optimize.py", folder, *words)
    assert narrower.status == 0, narrower.err
    assert narrower.states["ingest"] == "reused"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--optimize.strategy", "wm_patern"), "did you mean 'wm_pattern'"),
        (("--optimize.interval", "15m"), "optimize.interval"),
        (("--optimize.ranges", '{"fats": [5, 20]}'), "did you mean 'fast'"),
        (("--optimize.ranges", '{"fast": [20, 5]}'), "from low to high, got 20"),
        (("--optimize.symbols", '["999999"]'), "got 999999 (optimize.symbols)"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(
    searched: tuple[Path, job.Ran], words: tuple[str, ...], message: str
) -> None:
    ran = job.run("scripts/optimize.py", searched[0], *SEARCH, *words)
    assert ran.status not in (0, None)
    assert message in ran.err, ran.err
    assert "Traceback" not in ran.err


def test_symbols_without_bars_in_the_days_are_left_out(tmp_path: Path) -> None:
    words = (*SEARCH, "--ingest.count", "20", "--optimize.first", "2024-01-02", "--optimize.last", "2024-06-28")
    ran = job.run("scripts/optimize.py", tmp_path, *words)
    assert ran.status == 0, ran.err
    out = out_of(tmp_path, "optimize")
    days = json.loads((out / "bank.json").read_text())["sessions"]
    there = {symbol for symbol, each in days.items() if any(each.values())}
    assert there < days.keys(), "a symbol that was listed later"
    assert set(pd.read_parquet(out / "equity.parquet")["symbol"]) == there


LONGER = (*SEARCH, "--optimize.samples", "2048", "--optimize.iterations", "4", "--optimize.gain", "0")
RESULTS = ("bank.json", "trials.parquet", "ranges.yaml", "trades.parquet", "equity.parquet")


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        job.command("scripts/optimize.py", folder, *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=job.environment(),
        start_new_session=True,
    )  # fmt: skip


def test_a_killed_search_goes_on_and_leaves_the_same(searched: tuple[Path, job.Ran], tmp_path: Path) -> None:
    words = (*LONGER, *job.before("features", searched[0], tmp_path))  # the bars are there
    process = started(tmp_path, *words)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["stage"] == "optimize" and event["kind"] == "log" and "combinations: best score" in event["text"]:
            break
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    kept = sorted((tmp_path / "data" / "stages" / "optimize").glob("*/iterations/*.npz"))
    assert 1 <= len(kept) < 4, "killed too late"
    ran = job.run("scripts/optimize.py", tmp_path, *words)
    assert ran.status == 0, ran.err
    events = [event for event in ran.events if event["stage"] == "optimize"]
    taken = [event["text"] for event in events if "combinations taken from" in event.get("text", "")]
    assert [text.split(" taken from ")[1] for text in taken] == [str(path) for path in kept]
    progress = [event for event in events if event["kind"] == "progress"]
    assert progress[0]["done"] == progress[0]["total"] / 4, "the first iteration was run again, step by step"
    assert job.run("scripts/optimize.py", searched[0], *LONGER).status == 0
    there = searched[0] / "data" / "stages" / "optimize" / kept[0].parent.parent.name
    for name in RESULTS:
        assert (there / name).read_bytes() == (kept[0].parent.parent / name).read_bytes(), name
    assert not kept[0].parent.exists()


def test_ctrl_c_ends_a_search_with_a_sentence_and_it_goes_on(searched: tuple[Path, job.Ran]) -> None:
    folder, _ = searched
    words = (*SEARCH, "--optimize.samples", "20000", "--optimize.iterations", "20", "--optimize.gain", "0")
    process = started(folder, *words)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "progress" and event.get("unit") == "combinations":
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from what is kept" in err
    assert "Traceback" not in err
