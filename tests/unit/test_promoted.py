"""Nothing incomplete, damaged or foreign gets into the registry, or is used from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.store import MANIFEST, Store, StoreError, read_json
from tests.trained_stage import TRAIN, rewrite, two_stages, write_stage
from training.checkpoint import CheckpointError
from training.promoted import RegistryError, check


def without_manifest(stage: Path) -> None:
    (stage / MANIFEST).unlink()


def truncated(stage: Path) -> None:
    path = stage / "fold-0" / "lstm-0" / "best.pt"
    path.write_bytes(path.read_bytes()[:-100])


def other_weights(stage: Path) -> None:
    """Put another seed's file, of the same size, in the place of a model."""
    fold = stage / "fold-0"
    (fold / "lstm-0" / "best.pt").write_bytes((fold / "lstm-1" / "best.pt").read_bytes())


def overwritten(stage: Path) -> None:
    path = stage / "fold-0" / "lstm-0" / "best.pt"
    path.write_bytes(bytes(path.stat().st_size))


def without_file(stage: Path) -> None:
    (stage / "fold-0" / "scaler.json").unlink()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (without_manifest, RegistryError, "expected a finished train stage in .*aaaa, got none"),
        (without_file, RegistryError, "files of another size than its manifest says"),
        (truncated, RegistryError, "files of another size than its manifest says"),
        (other_weights, RegistryError, r"expected the weights that metrics.json names in .*lstm-0.best.pt, got \w{32}"),
        (overwritten, CheckpointError, r"expected a checkpoint of tensors at .*lstm-0.best.pt"),
    ],
)
def test_an_incomplete_or_damaged_stage_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    registry, first, second = two_stages(tmp_path)
    kept = registry.promote(second, "lstm")["digest"]
    damage(first)
    with pytest.raises(error, match=message):
        registry.promote(first, "lstm")
    assert registry.used().digest == kept
    assert len(list((tmp_path / "models").glob(f"*/{MANIFEST}"))) == 1


def test_a_model_that_was_not_trained_is_refused(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    with pytest.raises(RegistryError, match=r"expected a model among lstm, ridge, tcn of .*, got 'forest'"):
        registry.promote(first, "forest")


def test_a_model_of_other_features_is_refused(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    kept = registry.promote(first, "lstm")["digest"]
    wider = write_stage(tmp_path, "cccc", TRAIN, features=6)
    with pytest.raises(
        RegistryError, match=f"features and labels of the one in use .{kept}.*unknown to the checkpoint: feature_5"
    ):
        registry.promote(wider, "lstm")
    finer = write_stage(tmp_path, "dddd", TRAIN)
    rewrite(finer, "fold-0/columns.json", {**read_json(finer / "fold-0" / "columns.json"), "interval": "15m"})
    with pytest.raises(RegistryError, match="got others: interval 15m instead of 1d"):
        registry.promote(finer, "lstm")
    assert registry.used().digest == kept
    assert registry.promote(wider, "lstm", force=True)["digest"] == registry.used().digest


def test_a_damaged_model_is_not_used_and_not_rolled_back_to(tmp_path: Path) -> None:
    registry, first, second = two_stages(tmp_path)
    one, last = registry.promote(first, "lstm")["digest"], registry.promote(second, "lstm")["digest"]
    shutil.rmtree(first)
    other_weights(tmp_path / "models" / one)
    with pytest.raises(RegistryError, match="expected the weights"):
        registry.rollback()
    without_file(tmp_path / "models" / one)
    with pytest.raises(RegistryError, match="got others or fewer"):
        registry.rollback()
    assert registry.used().digest == last
    without_file(tmp_path / "models" / last)
    with pytest.raises(RegistryError, match="got others or fewer; roll back"):
        registry.folder("registry")
    write_stage(tmp_path, "bbbb", TRAIN.model_copy(update={"seed": 7}))
    assert registry.promote(tmp_path / "stages" / "train" / "bbbb", "lstm", force=True)["digest"] == last
    check(registry.folder("registry"))
    path = tmp_path / "models" / last / "fold-0" / "lstm-7" / "best.pt"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(CheckpointError):
        registry.pin()


def test_promoting_again_mends_a_damaged_model(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    digest = registry.promote(first, "lstm")["digest"]
    shutil.rmtree(first)
    other_weights(tmp_path / "models" / digest)
    with pytest.raises(RegistryError, match="expected the weights"):
        check(tmp_path / "models" / digest)
    write_stage(tmp_path, "aaaa", TRAIN)
    assert registry.promote(first, "lstm", force=True)["digest"] == digest
    check(tmp_path / "models" / digest)


def test_a_changed_scaler_is_found(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    registry.promote(first, "lstm")
    folder = registry.folder("registry")
    scaler = read_json(folder / "fold-0" / "scaler.json")
    rewrite(folder, "fold-0/scaler.json", {**scaler, "clip": 4.0})
    with pytest.raises(RegistryError, match="a file has changed"):
        check(folder)


def test_a_stage_without_a_history_of_folds_is_named(tmp_path: Path) -> None:
    registry, first, _ = two_stages(tmp_path)
    (first / "folds.json").unlink()
    Store(tmp_path / "stages").finish("train", "aaaa", read_json(first / MANIFEST))
    with pytest.raises(StoreError, match=r"folds\.json"):
        registry.promote(first, "lstm")
