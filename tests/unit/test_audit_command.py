"""`audit.py features` on a small lake: verdicts as exit states, a certificate that says the same again, a clean end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from pipeline import certificates, krx
from pipeline.audit import command
from pipeline.audit.columns import Features
from pipeline.features.section import FeatureSection
from pipeline.receipt import Receipt, take
from storage.lake import Lake
from storage.schema import ACTIONS
from storage.store import Store
from tests.integration import job
from tests.market import STAMP, bars, ingested

MEASURED = ("lake", "rows", "digests", "versions")
SYMBOLS = ("000001", "000002", "000003")
QUICK = ("--set", "close", "--checks", "C1,C2,C4,C5,C6", "--tries", "3", "--start", "2020-03-01")


def on_sessions(table: pa.Table) -> pa.Table:
    return table.filter(pa.array(krx.is_session(table["ts"].to_numpy().astype("datetime64[D]"))))


def data(folder: Path) -> Path:
    """Make a data folder whose last finished ingest left 240 days of three symbols, one of them split, and an index."""
    table = on_sessions(bars(SYMBOLS, 248))
    day = table["ts"][150].as_py()
    row = {"symbol": SYMBOLS[1], "ex_date": day.date(), "kind": "split", "factor": 4.0, "source": "test"}
    actions = ACTIONS.empty_table().from_pylist([{**row, "ingested_at": STAMP.as_py()}], ACTIONS)
    Lake(folder / "data" / "lake").write("bars", on_sessions(bars(["0001"], 248, seed=9)))
    receipt = ingested(folder / "data", table, actions)
    known = receipt.model_dump() | {"indices": ("0001",)}
    receipt = take(receipt.opened, **{k: v for k, v in known.items() if k not in MEASURED})
    store = Store(folder / "data" / "stages")
    with store.writing("ingest", "key") as out:
        receipt.save(out)
    store.finish("ingest", "key", {"content": "x"})
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data(tmp_path_factory.mktemp("audit"))


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - job.environment().keys():
        monkeypatch.delenv(name)
    yield


def audited(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command in this process; return its status and the certificate of its run, if it left one."""
    before = set((home / "runs").glob("*"))
    status = command.main(["features", "--run.data", str(home / "data"), "--run.runs", str(home / "runs"), *words])
    found = [path / command.FILE for path in set((home / "runs").glob("*")) - before]
    return status, json.loads(found[0].read_text()) if found and found[0].exists() else {}


def test_a_clean_set_gets_a_certificate_that_comes_out_the_same_again(home: Path) -> None:
    status, one = audited(home, *QUICK)
    assert status == 0 and one["verdict"] == "clean"
    assert [c["verdict"] for c in one["checks"].values()] == ["clean"] * 5
    assert one["bars"]["symbols"] == 3 and one["bars"]["first"].startswith("2020-03-02")
    assert one["receipt"]["digests"].keys() == {"bars/1d", "actions", "symbols", "indices"}
    assert "roc_20" in one["columns"] and one["universe"]["largest"] == 0
    assert all(c["comparisons"] > 1000 and c["findings"] == [] for c in one["checks"].values())
    status, two = audited(home, *QUICK)
    assert {**two, "made": one["made"]} == one
    _, other = audited(home, *QUICK, "--symbols", "000002,000003", "--end", "2020-10-30")
    assert other["bars"]["symbols"] == 2 and other["bars"]["last"].startswith("2020-10-30")
    assert other["bars"]["content"] != one["bars"]["content"] and other["content"] != one["content"]


def test_a_planted_look_ahead_ends_with_status_1_and_its_place(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaky(features: Any, bars: pd.DataFrame, **how: Any) -> pd.DataFrame:
        out = whole(features, bars, **how)
        out["roc_20"] = out["roc_20"].groupby(bars["symbol"]).shift(-1)
        return out

    whole = Features.__call__
    monkeypatch.setattr(Features, "__call__", leaky)
    status, told = audited(home, *QUICK, "--checks", "C1")
    assert status == 1 and told["verdict"] == "found"
    (finding,) = told["checks"]["C1"]["findings"]
    assert (finding["column"], finding["symbol"], finding["got"]) == ("roc_20", SYMBOLS[0], "nan")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    (line,) = [e["text"] for e in events if "finding" in e]
    assert line.startswith(f"C1 roc_20 of {SYMBOLS[0]} at {finding['ts']}: ")


def test_what_cannot_be_judged_has_its_own_status(home: Path) -> None:
    status, told = audited(home, *QUICK, "--checks", "C1,C3", "--set", "basic")
    assert status == 3 and told["verdict"] == "cannot judge"
    assert told["checks"]["C1"]["verdict"] == "clean"
    assert "rsi_14: its warm-up of 325 changes of close needs a longer" in told["checks"]["C3"]["reason"]
    measured = told["checks"]["C3"]["measured"]
    assert measured["roc_5"]["measured"] == 5 and measured["roc_5"]["declared"] == 6
    assert measured["rsi_14"]["longest"] < 200


def test_a_whole_set_with_coarser_bars_operators_and_the_market_is_judged(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "features: [{indicator: roc, params: {n: 2}, at: 1w}, {indicator: roc, cross: [rank]},"
        " {indicator: market, params: {n: 5}}, {indicator: market, params: {n: 3}, at: 1w, outputs: [beta]}]"
    )
    words = ("--set", str(mine), "--checks", "C1,C2,C4,C5,C6", "--tries", "3", "--universe.min_history", "30")
    status, told = audited(home, *words)
    assert status == 0 and told["verdict"] == "clean"
    assert told["columns"] == [
        "roc_2@1w", "roc_10_rank", "beta_5", "market_correlation_5", "market_alpha_5", "beta_3@1w",
    ]  # fmt: skip
    assert told["universe"]["min_history"] == 30


def test_the_index_that_the_columns_compare_with_is_the_one_of_the_stage(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[pd.DataFrame] = []
    whole = Features.__call__
    monkeypatch.setattr(Features, "__call__", lambda self, b, **how: (seen.append(b), whole(self, b, **how))[1])
    mine = tmp_path / "mine.yaml"
    mine.write_text("features: [{indicator: market, params: {n: 5}}]")
    assert audited(home, "--set", str(mine), "--checks", "C1", "--tries", "1")[0] == 0
    index = bars(["0001"], 248, seed=9).to_pandas().set_index("ts")["close"]
    assert (seen[0]["market"] == seen[0]["ts"].map(index)).all() and seen[0]["market"].nunique() > 200


def test_a_certificate_is_kept_beside_the_data_under_what_it_is_about(home: Path) -> None:
    receipt = Receipt.load(next((home / "data" / "stages" / "ingest").iterdir()))
    shutil.rmtree(home / "data" / certificates.FOLDER, ignore_errors=True)
    _, told = audited(home, *QUICK, "--checks", "C1")
    name = certificates.key(told["features"], told["universe"], receipt, told["code"]["features"])
    sections = {"features": told["features"], "universe": told["universe"]}
    manifest = {"made_of": {"sections": sections, "code": told["code"]["features"]}}
    (kept,) = (home / "data" / certificates.FOLDER / name).glob("*.json")
    assert json.loads(kept.read_text()) == told
    assert certificates.of(home / "data", receipt, manifest) == told
    _, again = audited(home, *QUICK, "--checks", "C1")
    assert certificates.of(home / "data", receipt, manifest) == again
    assert certificates.digest(again) == certificates.digest(told) != certificates.digest({**told, "verdict": "found"})
    for other in (
        {**sections, "universe": {**told["universe"], "largest": 2}},
        {**sections, "features": {**told["features"], "set": [told["features"]["set"][0][1:]]}},
    ):
        assert certificates.of(home / "data", receipt, {"made_of": {**manifest["made_of"], "sections": other}}) is None
    newer = receipt.model_copy(update={"digests": {**receipt.digests, "bars/1d": "0" * 32}})
    assert certificates.of(home / "data", newer, manifest) is None
    assert certificates.of(home / "data", receipt, {"made_of": {**manifest["made_of"], "code": "0" * 32}}) is None
    assert certificates.of(home / "data", receipt, {}) is None


def test_a_narrow_audit_takes_no_place_of_a_wide_one(home: Path, tmp_path: Path) -> None:
    receipt = Receipt.load(next((home / "data" / "stages" / "ingest").iterdir()))
    _, wide = audited(home, *QUICK, "--checks", "C1,C2")
    _, narrow = audited(home, *QUICK, "--checks", "C1", "--tries", "1", "--symbols", receipt.symbols[0])
    sections = {"features": wide["features"], "universe": wide["universe"]}
    manifest = {"made_of": {"sections": sections, "code": wide["code"]["features"]}}
    name = certificates.key(*sections.values(), receipt, wide["code"]["features"])
    for order in ([wide, narrow], [narrow, wide]):
        for told in order:
            certificates.write(tmp_path / str(order is wide), name, told)
        assert certificates.of(tmp_path / str(order is wide), receipt, manifest) == wide
    certificates.write(tmp_path / "bad", name, wide)
    certificates.write(tmp_path / "bad", name, bad := {**narrow, "verdict": "found"})
    assert certificates.of(tmp_path / "bad", receipt, manifest) == bad, "what was found stays found"


def test_the_set_that_auto_stands_for_has_the_same_name(home: Path) -> None:
    receipt = Receipt.load(next((home / "data" / "stages" / "ingest").iterdir()))

    def name(chosen: str, closes: bool) -> str:
        known = receipt.model_copy(update={"close_only": closes})
        return certificates.key(FeatureSection(set=chosen).keyed(), {}, known, "")

    assert name("auto", False) == name("basic", False) != name("auto", True) == name("close", True)


BAD = {
    "expected features, scores, split or strategies, got 'indicators'": ("indicators",),
    "expected features, scores, split or strategies, got 'nothing'": (),
    "did you mean 'basic'": ("features", "--set", "basics"),
    "checks among C1": ("features", "--checks", "C7"),
    "'000004'; did you mean": ("features", "--symbols", "000004"),
    "--start before --end": ("features", "--start", "2020-05-01", "--end", "2020-04-01"),
    "bars of 1d in the range, got none": ("features", "--start", "2021-05-01"),
    "argument --tries: invalid int value: 'many'": ("features", "--tries", "many"),
    "got --features.interval 1m": ("features", "--interval", "1m"),
    "expected bars of 1d of an index": ("features", "--set", "compared.yaml", "--features.market", "9999"),
    "unknown option '--seeds'": ("features", "--seeds", "3"),
    "run ingest.py first": ("features", "--run.data", "elsewhere"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_a_sentence(home: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *words = BAD[message] or ("--tries=1",)
    Path("compared.yaml").write_text("features: [{indicator: market}]")
    assert command.main([verb, "--run.data", str(home / "data"), "--run.runs", str(home / "none"), *words]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (home / "none").exists()


def test_a_lake_that_changed_since_the_ingest_is_not_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = data(tmp_path)
    lake = Lake(home / "data" / "lake")
    lake.write("bars", bars(SYMBOLS[:1], 240, seed=1))
    assert audited(home, *QUICK) == (2, {})
    assert "expected the rows that the last ingest named" in capsys.readouterr().err


def test_a_signal_ends_it_without_a_certificate(home: Path) -> None:
    runs = home / "interrupted"
    command_line = [sys.executable, str(job.ROOT / "scripts" / "audit.py"), "features", "--tries", "100000"]
    process = subprocess.Popen(
        [*command_line, "--run.data", str(home / "data"), "--run.runs", str(runs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=job.environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"progress"' in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "no certificate was written" in err and "Traceback" not in err
    assert not list(runs.glob(f"*/{command.FILE}"))
