"""A promoted model as a folder `<data>/models/<digest>`: laid out like a train stage of one fold, with one model and
the baseline beside it, so that prediction and the report read either.

The digest names what decides its scores: columns, scaler, spans, windows and weights. Files are hard links to those of
the stage, which may be removed afterwards.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from storage.section import digest_of
from storage.store import Store, read_json, write_json

STAGE = "models"  # the folder in the data folder
BASELINE = "ridge"
FOREVER = 2**63 - 1
_RENAMED = ("key", "content", "files")


class RegistryError(Exception):
    """A model that is not there, not whole or not to be replaced."""


@dataclass(frozen=True)
class Candidate:
    """Hold what a promoted model is made of, checked: its stage's folder and manifest, the last fold, its files."""

    trained: Path
    manifest: dict[str, Any]
    fold: dict[str, Any]
    model: str
    names: tuple[str, ...]
    files: tuple[Path, ...]
    columns: dict[str, Any]
    digest: str

    @classmethod
    def of(cls, trained: Path, model: str = "") -> Self:
        """Look at the last fold of a train stage, or at a promoted model; no name = the model whose mean validation
        rank IC is the highest. RegistryError where it is incomplete or its weights are not those that were trained,
        CheckpointError where they cannot be read.
        """
        from .model import load_model, state_digest  # torch: only who changes the registry needs it
        from .score import Learned

        manifest = Store(trained.parent.parent).done(trained.parent.name, trained.name)
        if manifest is None:
            raise RegistryError(
                f"expected a finished train stage in {trained}, got none, or files of another size than its manifest "
                "says; run train.py again"
            )
        fold, figures = read_json(trained / "folds.json")[-1], read_json(trained / "metrics.json")
        model = model or manifest.get("model") or _best(figures)
        learned = Learned.read(trained / f"fold-{fold['fold']}")
        if model not in learned.files:
            raise RegistryError(f"expected a model among {', '.join(learned.files)} of {trained}, got '{model}'")
        names = tuple(dict.fromkeys((BASELINE, model)))
        files = tuple(path for name in names for path in learned.files.get(name, []))
        weights = {}
        for path in files:
            name, _, seed = path.parent.name.rpartition("-")
            loaded = load_model(path)
            found = state_digest(loaded.model)
            fits = [fit for fit in figures[name]["fits"] if (fit["fold"], fit["seed"]) == (fold["fold"], int(seed))]
            if [fit["weights"] for fit in fits] != [found]:
                raise RegistryError(
                    f"expected the weights that metrics.json names in {path}, got {found}: the file is damaged or of "
                    "another training; remove its stage and train again"
                )
            weights[path.parent.name] = [found, *loaded[1:]]
        fold = _open_ended(fold)
        parts = [model, learned.columns, learned.scaler.to_json(), fold["spans"], weights]
        return cls(trained, manifest, fold, model, names, files, learned.columns, digest_of(parts))

    @property
    def stage(self) -> str:
        """Return the key of the train stage that made it."""
        return str(self.manifest.get("stage_key", self.manifest["key"]))

    def link(self, store: Store) -> None:
        """Make the model's folder, unless it is there and whole."""
        with store.writing(STAGE, self.digest) as out:
            if store.done(STAGE, self.digest) is not None and _undamaged(out):
                return
            place = self.trained / f"fold-{self.fold['fold']}"
            beside = (place / "columns.json", place / "scaler.json", self.trained / "history.parquet")
            figures = read_json(self.trained / "metrics.json")
            store.begin(STAGE, self.digest, anew=True)
            for path in (*self.files, *beside):
                _linked(path, out / path.relative_to(self.trained))
            write_json(out / "folds.json", [self.fold])
            write_json(out / "metrics.json", {name: figures[name] for name in self.names})
            card = {
                **{name: value for name, value in self.manifest.items() if name not in _RENAMED},
                "key": self.digest, "content": self.digest, "stage_key": self.stage, "model": self.model,
                "models": self.names, "fold": self.fold["fold"], "folds": 1, "columns": self.columns,
                "metrics": {name: figures[name] for name in self.names},
            }  # fmt: skip
            store.finish(STAGE, self.digest, card)


def check(folder: Path) -> None:
    """Compare a promoted model with its name, weights included; RegistryError or CheckpointError when it is damaged."""
    found = Candidate.of(folder).digest
    if found != folder.name:
        raise RegistryError(
            f"expected the model {folder.name} in {folder}, got the content {found}: a file has changed; remove the "
            "folder and promote the model again"
        )


def _undamaged(folder: Path) -> bool:
    from .checkpoint import CheckpointError

    try:
        check(folder)
    except (RegistryError, CheckpointError):
        return False
    return True


def _best(figures: dict[str, Any]) -> str:
    known = {name: one["valid_rank_ic"] for name, one in figures.items() if one["valid_rank_ic"] is not None}
    return max(known, key=lambda name: known[name]) if known else BASELINE


def _open_ended(fold: dict[str, Any]) -> dict[str, Any]:
    """Let the test go on where it is the end of history: what came after training is out of sample."""
    *before, last = fold["spans"]
    return {**fold, "spans": [*before, {**last, "stop_us": FOREVER, "to": ""} if last["part"] == "test" else last]}


def _linked(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
