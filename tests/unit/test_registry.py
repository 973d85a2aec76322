"""The registry: what is in use follows from the history alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from storage.store import MANIFEST, read_json
from tests.trained_stage import TRAIN, rewrite, two_stages, write_stage
from training.promoted import FOREVER, RegistryError, check
from training.registry import Registry
from training.score import Scorer


def test_promote_and_roll_back(tmp_path: Path) -> None:
    registry, first, second = two_stages(tmp_path)
    assert registry.used().digest == ""
    with pytest.raises(RegistryError, match="got none; choose one"):
        registry.folder("registry")
    one = registry.promote(first, "lstm", "a start")
    two_ = registry.promote(second, "lstm")
    three = registry.promote(first, "tcn")
    assert len({one["digest"], two_["digest"], three["digest"]}) == 3
    assert registry.used().digest == three["digest"]
    assert registry.rollback("worse")["digest"] == two_["digest"]
    assert registry.rollback()["digest"] == one["digest"]
    with pytest.raises(RegistryError, match="got none to roll back to"):
        registry.rollback()
    history = registry.history()
    assert [entry["action"] for entry in history] == ["promote"] * 3 + ["rollback"] * 2
    assert [entry["why"] for entry in history] == ["a start", "", "", "worse", ""]
    assert (one["stage"], one["model"], three["model"]) == ("aaaa", "lstm", "tcn")
    assert registry.folder("registry").name == one["digest"]
    assert registry.folder(two_["digest"][:8]).name == two_["digest"]


def test_promoting_what_is_in_use_changes_nothing(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    one = registry.promote(first, "lstm")
    assert registry.promote(first, "lstm") == one
    assert registry.promote(registry.folder("registry")) == one, "a promoted model can be named as a stage"
    assert len(registry.history()) == 1


def test_a_pinned_model_is_not_replaced(tmp_path: Path) -> None:
    registry, first, second = two_stages(tmp_path)
    registry.promote(first, "lstm")
    kept = registry.promote(second, "lstm")["digest"]
    registry.pin("live trades with it")
    for replace in (lambda: registry.promote(first, "tcn"), registry.rollback):
        with pytest.raises(RegistryError, match=f"got {kept}, which is pinned; .* pin --off, or --force"):
            replace()
    assert registry.used().digest == kept
    registry.pin(on=False)
    assert not registry.used().pinned
    registry.pin()
    forced = registry.promote(first, "tcn", force=True)
    assert (registry.used().digest, registry.used().pinned) == (forced["digest"], False)
    registry.pin()
    assert registry.rollback(force=True)["digest"] == kept
    assert not registry.used().pinned


def test_a_promoted_model_outlives_its_stage_and_scores_alike(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    digest = registry.promote(first, "lstm")["digest"]
    folder = registry.folder("registry")
    x_SLF = np.random.default_rng(0).standard_normal((7, 6, 5), np.float32)
    before = Scorer(first, "lstm").score(x_SLF)
    assert (folder / "fold-0" / "lstm-0" / "best.pt").stat().st_nlink == 2, "a link, not a copy"
    shutil.rmtree(first)
    assert np.array_equal(Scorer(folder, "lstm").score(x_SLF), before)
    check(folder)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    fold = {"columns.json", "scaler.json", "ridge-0/best.pt", "lstm-0/best.pt", "lstm-1/best.pt"}
    whole = {"folds.json", "metrics.json", "history.parquet", MANIFEST}
    assert names == whole | {f"fold-0/{name}" for name in fold}
    card = read_json(folder / MANIFEST)
    assert (card["key"], card["content"], card["stage_key"], card["model"]) == (digest, digest, "aaaa", "lstm")
    assert read_json(folder / "folds.json")[-1]["spans"][-1]["stop_us"] == FOREVER


def test_the_last_fold_is_what_is_promoted(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    stage = write_stage(tmp_path, "aaaa", TRAIN, folds=3)
    registry.promote(stage, "tcn")
    folder = registry.folder("registry")
    assert [path.name for path in folder.glob("fold-*")] == ["fold-2"]
    assert [fold["fold"] for fold in read_json(folder / "folds.json")] == [2]


def test_the_digest_names_the_content_alone(tmp_path: Path) -> None:
    digests = [
        Registry(tmp_path / name).promote(write_stage(tmp_path / name, key, TRAIN), "lstm")["digest"]
        for name, key in (("a", "aaaa"), ("b", "cccc"))
    ]
    assert digests[0] == digests[1]
    stage = write_stage(tmp_path / "c", "aaaa", TRAIN)
    scaler = read_json(stage / "fold-0" / "scaler.json")
    rewrite(stage, "fold-0/scaler.json", {**scaler, "clip": 4.0})
    assert Registry(tmp_path / "c").promote(stage, "lstm")["digest"] != digests[0]


def test_without_a_name_the_best_in_validation(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    figures = read_json(first / "metrics.json")
    figures["tcn"]["valid_rank_ic"], figures["lstm"]["valid_rank_ic"] = 0.5, None
    rewrite(first, "metrics.json", figures)
    assert registry.promote(first)["model"] == "tcn"


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '[{"when": "now"}]', "[3]"])
def test_a_damaged_history_is_named(tmp_path: Path, text: str) -> None:
    registry, first, _ = two_stages(tmp_path)
    registry.promote(first, "lstm")
    (tmp_path / "models" / "history.json").write_text(text)
    with pytest.raises(RegistryError, match=r"expected the list of promotions in .*history\.json"):
        registry.used()


@pytest.mark.parametrize("name", ["zzzz", "", "../stages", "*"])
def test_an_unknown_digest_is_named(tmp_path: Path, name: str) -> None:
    registry, first, _ = two_stages(tmp_path)
    registry.promote(first, "lstm")
    with pytest.raises(RegistryError, match="expected the digest of a model"):
        registry.folder(name)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    registry, first, second = two_stages(tmp_path)
    registry.promote(first, "lstm")
    threads = [threading.Thread(target=lambda k=k: Registry(tmp_path).pin(f"{k}", on=bool(k % 2))) for k in range(8)]
    threads.append(threading.Thread(target=lambda: Registry(tmp_path).promote(second, "lstm", force=True)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.history()) == 10
    assert {entry["why"] for entry in registry.history()} == {"", *map(str, range(8))}


def test_reading_the_registry_needs_no_torch(tmp_path: Path, root: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    registry.promote(first, "lstm")
    code = (
        "import sys\nfrom pathlib import Path\nfrom training.registry import Registry\n"
        "print(Registry(Path(sys.argv[1])).folder('registry').name)\nassert 'torch' not in sys.modules"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == registry.used().digest
