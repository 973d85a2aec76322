"""`audit.py split`: the ledger of the folds that training makes, and whether it sees a leak that was put there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.audit import command
from pipeline.audit.ledger import Ledger, ledger
from storage.emit import silent
from storage.store import Store, read_json, write_json
from tests.feature_blocks import edit, write_blocks
from tests.integration import job
from training import columns
from training.dataset import Dataset, prepare
from training.section import TrainSection
from training.splits import TEST, TRAIN, VALID, Fold, SplitSection
from training.windows import window_ends

SMALL = {"symbols": 6, "days": 80, "features": 3, "groups": 2}
DAY = 86_400_000_000
TRAINED = TrainSection(window=5)
FOUR = ("--split.kind", "kfold", "--split.folds", "4")
WINDOW = ("--train.window", "5")
# timestamps that embargo and look-back (3 bars of features, 4 of windows, 2 of them in the embargo) take of train,
# valid and test of FOUR, in which training lies behind the test, before and behind it, or before validation
AROUND = [
    [(4, 5), (0, 0), (0, 0)],
    [(2, 5), (2, 0), (0, 0)],
    [(4, 5), (2, 0), (0, 0)],
    [(2, 0), (2, 0), (0, 0)],
]


def look_back(out: Path, bars: int) -> None:
    found = read_json(out / "columns.json")
    write_json(out / "columns.json", {**found, "features": [{**f, "ready": bars + 1} for f in found["features"]]})


def finish(home: Path, key: str = "newer") -> None:
    Store(home / "stages").finish("features", key, {"content": "x", "key": key, "made": "today"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data folder with two finished features stages, of which the older one is damaged."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "stages")
    for key in ("older", "newer"):
        with store.writing("features", key) as out:
            look_back(write_blocks(out, **SMALL), 3)
        finish(tmp_path, key)
    (tmp_path / "stages/features/older/columns.json").write_text("{")
    return tmp_path


def audited(home: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[Any]]:
    """Run the command in this process; return its status and the objects that it printed."""
    status = command.main(["split", "--run.data", str(home), "--json", *WINDOW, *words])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(("words", "folds"), [((), 1), (("--split.kind", "walk_forward"), 5), (FOUR, 4)])
def test_what_training_makes_is_clean(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], folds: int
) -> None:
    status, (head, *ledgers, last) = audited(home, capsys, *words)
    assert (status, head["features"], last) == (0, "newer", {"verdict": "clean", "folds": folds})
    for one in ledgers:
        assert one["verdict"] == "clean" and one["embargo"] == 2 and one["found"] == []
        assert [p["part"] for p in one["parts"]] == ["train", "valid", "test"]
        train, valid, test = (p["spans"] for p in one["parts"])
        assert len(valid) == len(test) == 1 and len(train) == 1 + (one["fold"] > 1 and folds == 4 and one["fold"] < 3)
        assert all(p["symbols"] == 6 and p["rows"] == 6 * p["timestamps"] for p in one["parts"])
        assert all(p["windows"] > 0 for p in one["parts"][:2]), "the last test may be too young for labels"
        assert sum(p["rows"] for p in one["parts"][:1]) == one["scaler_rows"]
        assert all(p["labels"] == p["dates"] == 0 for p in one["pairs"]) and len(one["pairs"]) == 6
        reads = {(p["part"], p["other"]): p["look_back"] for p in one["pairs"]}
        assert reads["train", "valid"] == reads["train", "test"] == 0
        gaps = [(p["left_out"]["embargo"] // 6, p["left_out"]["look_back"] // 6) for p in one["parts"]]
        assert gaps == (AROUND[one["fold"]] if folds == 4 else [(2, 0), (2, 0), (0, 0)])
    assert any(p["left_out"]["purged"] > 0 for one in ledgers for p in one["parts"])
    assert not list(home.glob(".audit-*"))


def test_the_ledger_is_a_table_for_readers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["split", "--run.data", str(home), *WINDOW]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "features newer, made today" and out[-1] == "clean"
    assert out[1].startswith("fold 0: embargo 2 timestamps, scaler fitted on 324 rows")
    assert out[2].startswith("  train  2020-01-01 06:30 to 2020-02-23 06:30: 54 timestamps, 324 rows of 6 symbols, ")
    assert out[2].endswith(" windows used; left out: embargo 12, warm-up 42, purged 6 rows")
    assert "  train -> valid  labels that reach it 0, windows that read it 0, shared dates 0" in out


def never(self: Fold, ts_N: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.zeros(len(ts_N), np.bool_)


def test_a_split_that_does_not_purge_is_found(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fold, "purged", never)
    status, (_, one, last) = audited(home, capsys)
    assert (status, last["verdict"]) == (1, "found")
    (train, valid) = one["found"]
    assert train["what"] == "fold 0, a label of train is known when valid has begun"
    assert (train["symbol"], train["ts"], train["by"], train["unit"]) == ("000000", "2020-02-23 06:30", 0.0, "days")
    assert train["rows"] == valid["rows"] == 6, "the last day of each part ends just when the next one begins"


def test_a_label_that_ends_behind_a_boundary_unseen_is_found_with_its_place(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspension carries one label 50 days on, and the split believes that labels end when they usually do."""
    row = {"symbol": "000004", "index": 20}

    def carry(table: pa.Table) -> pa.Table:
        ends = table.column("y_2_end").cast(pa.int64()).to_numpy(zero_copy_only=False).copy()
        mine = np.flatnonzero(np.array(table.column("symbol").to_pylist()) == row["symbol"])
        if mine.size:
            ends[mine[row["index"]]] += 50 * DAY
        late = pa.array(np.nan_to_num(ends).astype(np.int64), mask=np.isnan(ends)).cast(pa.timestamp("us", tz="UTC"))
        return table.set_column(table.column_names.index("y_2_end"), "y_2_end", late)

    edit(home / "stages/features/newer", carry)
    finish(home)
    assert audited(home, capsys)[0] == 0, "the split purges it"
    usual = Fold.purged
    monkeypatch.setattr(Fold, "purged", lambda self, ts, end: usual(self, ts, np.minimum(end, ts + 3 * DAY)))
    status, (_, one, _) = audited(home, capsys)
    assert status == 1
    (problem, other) = one["found"]
    assert (problem["symbol"], problem["ts"], problem["rows"]) == ("000004", "2020-01-21 06:30", 1)
    assert "label of train is known when valid has begun" in problem["what"] and problem["by"] == 20 + 53 - 56
    assert "label of train is known when test has begun" in other["what"] and other["by"] == 20 + 53 - 68


def test_training_that_begins_too_early_after_the_test_is_found(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_look_back", lambda *_: 0)
    look = command.split.__globals__["ledger"]

    def with_truth(data: Dataset, *rest: Any) -> Ledger:
        return look(replaced(data, look_back=12), *rest)

    monkeypatch.setitem(command.split.__globals__, "ledger", with_truth)
    status, (_, first, *_, last) = audited(home, capsys, *FOUR)
    assert (status, last["verdict"]) == (1, "found")
    (problem,) = first["found"]
    assert problem["what"] == "fold 0, a window of train reads bars of test" and problem["by"] > 0
    assert problem["rows"] % 6 == 0


def replaced(data: Dataset, **change: Any) -> Dataset:
    return replace(data, columns=replace(data.columns, **change))


def of(home: Path, change: Callable[[Dataset, dict[int, Any], Any], Dataset]) -> list[str]:
    """Return what is found in a holdout after a change to what it uses."""
    data = prepare(home / "stages/features/newer", SplitSection(), TRAINED, silent)
    ends = window_ends(data.panel, data.known_N, 5, 0)
    windows = {part: data.windows(part, TRAINED) for part in (TRAIN, VALID)}
    windows[TEST] = ends[(data.split_N[ends] == TEST) & np.isfinite(data.panel.y_NH[ends, 0])]
    scaled = data.split_N == TRAIN
    data = change(data, windows, scaled) or data
    return [str(problem) for problem in ledger(data, windows, scaled, 5).found]


def test_rows_that_belong_to_two_parts_or_the_wrong_one_are_found(home: Path) -> None:
    assert of(home, lambda d, w, s: None) == []

    def widen(data: Dataset, windows: dict[int, Any], scaled: Any) -> None:
        scaled[np.flatnonzero(data.split_N == VALID)[[3, 50]]] = True

    (said,) = of(home, widen)
    assert said.startswith("fold 0, the scaler was fitted on a row outside training: 000000 at 2020-02-2")
    assert said.endswith("(2 rows)")

    def leak(data: Dataset, windows: dict[int, Any], scaled: Any) -> None:
        windows[TRAIN] = np.append(windows[TRAIN], windows[TEST][:1])

    found = of(home, leak)
    assert any("train and test share a timestamp: 000000 at 2020-03-09" in said for said in found)

    def backwards(data: Dataset, windows: dict[int, Any], scaled: Any) -> None:
        data.panel.end_N[windows[VALID][4]] -= 9 * DAY

    (said,) = of(home, backwards)
    assert "a label of valid is known before its bar has ended: 000000 at " in said and "by 6 days (1 rows)" in said

    def crowd(data: Dataset, windows: dict[int, Any], scaled: Any) -> Dataset:
        return replace(data, fold=replace(data.fold, embargo=5))

    said = (
        "fold 0, 2 timestamps instead of 5 before the next part: all symbols at 2020-{} 06:30 by 3 timestamps (6 rows)"
    )
    assert of(home, crowd) == [said.format("02-26"), said.format("03-09")]


def test_what_cannot_be_judged_has_its_own_status(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_json(home / "stages/features/newer/columns.json")
    features = [{k: v for k, v in f.items() if k != "ready"} for f in found["features"]]
    write_json(home / "stages/features/newer/columns.json", {**found, "features": features})
    finish(home)
    status, (_, one, last) = audited(home, capsys)
    assert (status, last["verdict"], one["verdict"]) == (3, "cannot judge", "cannot judge")
    assert one["reasons"][0].startswith("how far feature_0, feature_1, feature_2 look back")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run.data", "elsewhere"), "expected a finished features stage in"),
        (("--split.kind", "sometimes"), "split.kind"),
        (("--train.window", "79"), "complete bars in a row"),
        (("--train.targets", "y_9"), "train.targets among y_2"),
        (("--split.embargo", "1"), "split.embargo of at least 2"),
        (("--tries", "3"), "unknown option '--tries'"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    home: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["split", "--run.data", str(home), *words]) == 2
    told = capsys.readouterr()
    assert message in told.err and "Traceback" not in told.err


def test_it_runs_as_a_script(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = [sys.executable, str(job.ROOT / "scripts" / "audit.py"), "split", "--run.data", str(home), *WINDOW]
    done = subprocess.run(script, capture_output=True, text=True, cwd=home, env=job.environment(), check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "clean"), done.stderr
    with pytest.raises(SystemExit, match="0"):
        command.main(["split", "--help"])
    told = capsys.readouterr().out
    assert "3 cannot judge" in told and "--json" in told and "--split.kind" in told
