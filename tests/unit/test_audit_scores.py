"""`audit.py scores`: trained models of every kind are clean, and leaks that are put into their parts are found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.audit import command
from pipeline.audit.scores import FILE
from storage.emit import silent
from storage.store import MANIFEST, Store, read_json, write_json, write_parquet
from tests.feature_blocks import edit, write_blocks
from tests.fits import TINY
from tests.integration import job
from training import windows
from training.model.ridge import Ridge
from training.predict import predict_all
from training.registry import Registry
from training.scaler import Scaler
from training.section import PredictSection, TrainSection
from training.splits import SplitSection
from training.task import train_all
from training.windows import Windows

TRAIN = TrainSection(
    **{**TINY, "models": ("lstm", "tcn", "transformer", "trees"), "seeds": 2, "normalise": "window", "num_epochs": 1,
       "windows_per_epoch": 200, "targets": ("y_2", "y_4")}
)  # fmt: skip
SMALL = TRAIN.model_copy(update={"models": ("lstm",), "targets": (), "seeds": 1})
FORWARD = SplitSection(kind="walk_forward", folds=2)
PREDICT = PredictSection(threads=1, batch_size=37, min_names=5)
KINDS = ("ridge", "lstm", "tcn", "transformer", "trees")
QUICK = ("--tries", "4")


def make(data: Path, split: SplitSection, train: TrainSection, **blocks: Any) -> Path:
    """Fill a data folder with finished stages of features and training."""
    store = Store(data / "stages")
    with store.writing("features", "f") as out:
        write_blocks(out, symbols=12, days=120, horizons=(2, 4), noise=0.2, **blocks)
    store.finish("features", "f", {"key": "f", "content": "rows", "made": "today"})
    with store.writing("train", "t") as out:
        made = train_all(store.path("features", "f"), out, split, train, "cpu", silent)
    sections = {"split": split.keyed(), "train": train.keyed()}
    made_of = {"sections": sections, "inputs": {"features": "rows"}, "device": "cpu"}
    store.finish("train", "t", {**made, "key": "t", "made": "today", "seconds": 1.0, "made_of": made_of})
    return data


def predict(data: Path, trained: Path | None = None, **change: Any) -> Path:
    """Predict into the data folder, as a finished stage."""
    store, section = Store(data / "stages"), PREDICT.model_copy(update=change)
    with store.writing("predict", "p") as out:
        made = predict_all(
            store.path("features", "f"), trained or store.path("train", "t"), out, section, "cpu", silent
        )
    made_of = {"inputs": {"features": "rows", "train": "x"}, "device": "cpu"}
    store.finish("predict", "p", {**made, "key": "p", "made": "today", "made_of": made_of})
    return data


def refinish(data: Path, stage: str, key: str, **change: Any) -> None:
    """Let a stage's manifest name its files as they are now."""
    store = Store(data / "stages")
    store.finish(stage, key, {**read_json(store.path(stage, key) / MANIFEST), **change})


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with two folds of all models, two seeds and two labels each."""
    return predict(make(tmp_path_factory.mktemp("every"), FORWARD, TRAIN))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with one fold of two models and no predictions."""
    return make(tmp_path_factory.mktemp("small"), SplitSection(), SMALL)


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "data"))


def audited(data: Path, runs: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command in this process; return its status and certificate, empty where it left none."""
    before = set(runs.glob(f"*/{FILE}"))
    status = command.main(["scores", "--run.data", str(data), "--run.runs", str(runs), *words])
    new = set(runs.glob(f"*/{FILE}")) - before
    return status, json.loads(new.pop().read_text()) if new else {}


def findings(told: dict[str, Any], check: str) -> dict[str, dict[str, Any]]:
    return {one["column"]: one for one in told["checks"][check]["findings"]}


def test_models_of_every_kind_fold_and_seed_are_clean(every: Path, tmp_path: Path) -> None:
    status, told = audited(every, tmp_path, "--tries", "6")
    assert (status, told["verdict"]) == (0, "clean"), told["checks"]
    assert told["columns"] == [f"score_{kind}{label}" for kind in sorted(KINDS) for label in ("", "_y_4")]
    assert told["stages"] == {"predict": "p", "features": "f", "train": "t"} and told["folds"] == 2
    checks = told["checks"]
    assert {name: one["trials"] for name, one in checks.items()} == {"C1": 6, "C2": 6, "C6": 6, "C7": 4}
    assert all(one["refused"] == 0 and one["findings"] == [] for one in checks.values())
    assert checks["C1"]["comparisons"] > 6 * 100 * 2 * (5 + 3 * 2), "windows, labels, means and seeds"
    again = audited(every, tmp_path, "--tries", "6")[1]
    assert {**again, "made": told["made"], "code": told["code"]} == told
    few = audited(every, tmp_path, "--tries", "6", "--windows", "24", "--symbols", "000003,000001")
    assert few[0] == 3 and few[1]["checks"]["C1"]["verdict"] == "clean"
    assert 0 < few[1]["checks"]["C1"]["comparisons"] < checks["C1"]["comparisons"] / 5
    assert "the rows of its training are not known to be these" in few[1]["checks"]["C7"]["reason"]
    assert not list(every.glob(".audit-*"))


def one_row_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Windows._gathered

    def gathered(self: Windows, end_B: np.ndarray, slot: int) -> torch.Tensor:
        return usual(self, np.minimum(end_B + 1, len(self.host_NF) - 1), slot)

    monkeypatch.setattr(Windows, "_gathered", gathered)


def scaled_by_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Scaler.apply

    def apply(self: Scaler, x_NF: np.ndarray) -> None:
        usual(self, x_NF)
        x_NF -= np.nanmean(x_NF, axis=0)

    monkeypatch.setattr(Scaler, "apply", apply)


def survivors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows end only where their symbol goes on for ten rows more."""
    usual = windows.run_lengths

    def lengths(panel: Any, known_N: np.ndarray, gap: float) -> np.ndarray:
        later = np.append(panel.symbol_N[10:], np.full(min(10, len(known_N)), -1))
        return np.where(later == panel.symbol_N, usual(panel, known_N, gap), 0)

    monkeypatch.setattr(windows, "run_lengths", lengths)


@pytest.mark.parametrize("leak", [one_row_too_far, scaled_by_all_rows, survivors_alone])
def test_a_leak_in_what_scores_is_found_though_predictions_have_it_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leak: Callable[[pytest.MonkeyPatch], None]
) -> None:
    leak(monkeypatch)
    status, told = audited(predict(home), tmp_path, *QUICK)
    assert (status, told["verdict"]) == (1, "found")
    for check in ("C1", "C2"):
        found = findings(told, check)
        if leak is survivors_alone and check == "C2":
            assert not found, "the rows are there, only what they hold is poisoned"
            continue
        assert found.keys() == {"score_lstm", "score_ridge"}
        one = found["score_ridge"]
        assert one["symbol"] in {f"{i:06d}" for i in range(12)} and one["ts"].startswith("2020-0")
        assert one["whole"] != one["got"] and one["trials"] == 4
        assert one["what"].startswith("from the rows up to 2020-0" if check == "C1" else "with ")
        if leak is survivors_alone:
            assert one["got"] == "nan"
    mixes = leak is not survivors_alone  # the row after a symbol's last one is another's
    assert bool(findings(told, "C6")) == mixes


def test_scores_of_the_row_after_are_found_where_they_were_written(home: Path, tmp_path: Path) -> None:
    """A ridge that was fed windows shifted by one row, while all that scores is sound."""
    predict(home)
    path = home / "stages/predict/p/predictions.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("score_ridge")
    later = np.append(table["score_ridge"].to_numpy()[1:], np.float32(0))
    write_parquet(path, table.set_column(place, "score_ridge", pa.array(later)))
    refinish(home, "predict", "p")
    status, told = audited(home, tmp_path, *QUICK)
    assert status == 1
    for check in ("C1", "C2", "C6"):
        (column,) = found = findings(told, check)
        assert column == "score_ridge" and found[column]["whole"] != found[column]["got"]
    assert findings(told, "C1")["score_ridge"]["what"] == "scored again in other batches, fold 0"


def test_a_score_that_is_lacking_or_too_many_is_found(home: Path, tmp_path: Path) -> None:
    predict(home)
    path = home / "stages/predict/p/predictions.parquet"
    table = pq.read_table(path)
    write_parquet(path, table.filter(pc.not_equal(table["symbol"], "000004")))
    refinish(home, "predict", "p")
    status, told = audited(home, tmp_path, *QUICK)
    one = findings(told, "C1")["score_ridge"]
    assert status == 1 and (one["symbol"], one["whole"]) == ("000004", "nan")


def test_a_model_that_mixes_symbols_is_found(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Ridge.forward

    def mixed(self: Ridge, x_BLF: torch.Tensor) -> torch.Tensor:
        score_BH = usual(self, x_BLF)
        return score_BH - score_BH.mean(dim=0)

    monkeypatch.setattr(Ridge, "forward", mixed)
    status, told = audited(predict(home), tmp_path, *QUICK)
    one = findings(told, "C6")["score_ridge"]
    assert status == 1 and one["what"] == f"from the rows of {one['symbol']} alone, fold 0"
    assert "score_lstm" not in findings(told, "C6")


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.004), ("bf16", 0.02)])
def test_fewer_bits_are_clean_within_their_bound(home: Path, tmp_path: Path, precision: str, bound: float) -> None:
    status, told = audited(predict(home, precision=precision, max_ic_loss=1.0), tmp_path, *QUICK)
    assert (status, told["bound"]["batches"]) == (0, bound), told["checks"]


def test_whole_numbers_that_batches_scale_are_found(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One scale for a batch: a score depends on the windows beside it, and later ones are among them."""

    def rounded(x_RI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = x_RI.abs().max() / 127
        return (x_RI / scale).round().to(torch.int8), scale.expand(len(x_RI), 1)

    monkeypatch.setattr("training.int8.rounded", rounded)
    status, told = audited(predict(home, precision="int8", max_ic_loss=1.0), tmp_path, *QUICK)
    assert status == 1 and findings(told, "C1").keys() == {"score_lstm"}
    assert findings(told, "C1")["score_lstm"]["what"] == "scored again in other batches, fold 0"


def test_a_scaler_fitted_on_later_rows_is_found(home: Path, tmp_path: Path) -> None:
    place = home / "stages/train/t/fold-0/scaler.json"
    saved = read_json(place)
    rows = pa.concat_tables(pq.read_table(p) for p in sorted((home / "stages/features/f/blocks").glob("*.parquet")))
    x_NF = np.stack([rows[name].to_numpy() for name in saved["features"]], axis=1)
    fitted = Scaler.fit(x_NF, np.ones(len(x_NF), bool), tuple(saved["features"]), SMALL.scaler, SMALL.clip)
    write_json(place, fitted.to_json())
    refinish(home, "train", "t")
    status, told = audited(predict(home), tmp_path, "--tries", "1")
    (one,) = told["checks"]["C7"]["findings"]
    assert status == 1 and told["checks"]["C1"]["verdict"] == "clean"
    assert one["what"].startswith("the center of feature_0 in the scaler of fold 0 is ")
    assert one["ts"] < min(str(ts) for ts in pq.read_table(home / "stages/predict/p/predictions.parquet")["ts"])


def test_a_model_used_before_its_training_ended_is_found(every: Path, tmp_path: Path) -> None:
    """The folds change places: the second one's models, who know more, score the first one's test."""
    data = Path(shutil.copytree(every, tmp_path / "data"))
    path = data / "stages/predict/p/predictions.parquet"
    table = pq.read_table(path)
    fold = pc.subtract(pa.scalar(1, pa.int32()), table["fold"])
    write_parquet(path, table.set_column(table.column_names.index("fold"), "fold", fold))
    refinish(data, "predict", "p")
    status, told = audited(data, tmp_path / "runs", "--checks", "C7")
    (one,) = told["checks"]["C7"]["findings"]
    assert status == 1 and one["symbol"] == "000000"
    assert one["what"].startswith("a model whose training knew of all until 2020-0") and one["what"].endswith("fold 1")


def test_kfold_cannot_be_called_clean(tmp_path: Path) -> None:
    data = predict(make(tmp_path / "data", SplitSection(kind="kfold", folds=3), SMALL))
    status, told = audited(data, tmp_path, *QUICK)
    assert (status, told["verdict"]) == (3, "cannot judge"), told["checks"]
    assert told["checks"]["C7"]["reason"].startswith("fold 0: kfold trains on both sides of its test")
    assert {told["checks"][name]["verdict"] for name in ("C1", "C2", "C6")} == {"clean"}


def test_what_cannot_be_judged_is_not_clean(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(home)
    status, told = audited(home, tmp_path, *QUICK, "--symbols", "000001", "--checks", "C6")
    assert (status, told["checks"]["C6"]["reason"]) == (3, "symbols: there is but one")
    path = home / "stages/predict/p/predictions.parquet"
    table = pq.read_table(path)
    write_parquet(path, table.filter(pc.equal(table["ts"], pc.max(table["ts"]))))
    refinish(home, "predict", "p")
    status, told = audited(home, tmp_path, *QUICK)
    assert (status, told["checks"]["C1"]["reason"]) == (3, "fold 0: no row follows its scores")
    assert "C1 cannot judge: 0 trials, 0 comparisons; fold 0: no row follows" in capsys.readouterr().out
    made_of = read_json(home / "stages/predict/p" / MANIFEST)["made_of"]
    refinish(home, "predict", "p", made_of={**made_of, "device": "gpu"})
    if not torch.cuda.is_available():
        status, told = audited(home, tmp_path, *QUICK)
        assert (status, told["checks"]["C2"]["reason"]) == (
            3,
            "scores: they were made on a GPU, and there is none here",
        )


def test_a_promoted_model_is_audited_where_it_lies(home: Path, tmp_path: Path) -> None:
    registry = Registry(home)
    registry.promote(home / "stages/train/t", "lstm")
    status, told = audited(predict(home, registry.folder("registry")), tmp_path, *QUICK)
    assert (status, told["verdict"]) == (0, "clean"), told["checks"]
    assert told["stages"]["train"] == registry.used().digest


def lose(home: Path) -> None:
    shutil.rmtree(home / "stages/train/t")


def rename(home: Path) -> None:
    edit(
        home / "stages/features/f",
        lambda t: t.set_column(0, "symbol", pc.binary_join_element_wise(t["symbol"], "A", "")),
    )
    refinish(home, "features", "f")


BAD = {
    "run predict.py first": ((), lambda home: shutil.rmtree(home / "stages/predict")),
    "the features that the predictions p were made of": ((), lambda home: refinish(home, "features", "f", content="x")),
    "expected the models of the predictions p": ((), lose),
    "expected predictions of rows of": ((), rename),
    "got '00000'; did you mean": (("--symbols", "00000"), lambda home: None),
    "checks among C1, C2, C6, C7": (("--checks", "C3"), lambda home: None),
    "at least one of --windows": (("--windows", "0"), lambda home: None),
    "unknown option '--start'": (("--start", "2020-01-01"), lambda home: None),
    "invalid int value: 'many'": (("--tries", "many"), lambda home: None),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_a_sentence(
    home: Path, tmp_path: Path, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, damage = BAD[message]
    damage(predict(home))
    assert audited(home, tmp_path / "runs", *words) == (2, {})
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (tmp_path / "runs").exists()


def test_it_runs_as_a_script(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scores", "--run.data", str(predict(home)), "--run.runs", str(tmp_path / "runs"), *QUICK]
    script = [sys.executable, str(job.ROOT / "scripts" / "audit.py"), *words]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, env=job.environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert f"clean: {next((tmp_path / 'runs').glob('*'))}" in done.stdout
    with pytest.raises(SystemExit, match="0"):
        command.main(["scores", "--help"])
    told = capsys.readouterr().out
    assert "3 cannot judge" in told and "--windows 5000" in told
