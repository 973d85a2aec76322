"""Fit all asked models on all folds and leave the files that prediction needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.emit import Emit
from storage.section import digest_of
from storage.store import write_json, write_parquet

from . import steps
from .dataset import Folds
from .fit import fit_model
from .model.trees import check_installed
from .parallel import Ranks
from .section import BASELINES, ModelName, TrainSection
from .splits import SplitSection

FIGURES = ("train_loss", "valid_loss", "valid_rank_ic", "learning_rate", "seconds", "samples_per_s", *steps.FIGURES)


def members(train: TrainSection) -> list[tuple[ModelName, int]]:
    """Return the models to fit with their seeds: the baseline ridge first, each network once for each seed."""
    names = dict.fromkeys(("ridge", *train.models))
    return [(n, train.seed + k) for n in names for k in range(1 if n in BASELINES else train.seeds)]


def train_all(
    features: Path,
    out: Path,
    split: SplitSection,
    train: TrainSection,
    device: str,
    emit: Emit,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Fit the models that `train` names and return a summary; of several ranks only the first one writes and tells.

    Files: fold-<k>/{scaler,columns}.json and fold-<k>/<model>-<seed>/best.pt for each fold, folds.json,
    history.parquet, metrics.json. What a killed call left in `out` is used when it fits: the content is the same either
    way.
    """
    if "trees" in train.models:
        check_installed()
    out.mkdir(parents=True, exist_ok=True)
    folds = Folds(features, split, train, out)
    fits: dict[str, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    contents: list[Any] = []
    first = ranks is None or ranks.first
    if split.kind == "kfold" and first:
        text = "kfold trains on both sides of each test: it tells how sure scores are, not what could have been earned"
        emit("log", level="warning", text=text)
    for fold in folds.folds:
        place = out / f"fold-{fold.number}"
        place.mkdir(parents=True, exist_ok=True)
        data = folds.dataset(fold.number, emit, place)
        for name, seed in members(train):
            if name in BASELINES and not first:
                continue
            own = train.model_copy(update={"seed": seed})
            told_of = _naming(emit, seed=seed, fold=fold.number)
            fit = fit_model(name, data, own, device, told_of, place / f"{name}-{seed}", ranks=ranks)
            fits.setdefault(name, []).append({"fold": fold.number, "seed": seed, **fit.summary()})
            rows += [{"fold": fold.number, "model": name, "seed": seed, **row} for row in fit.history]
        if first:
            write_json(place / "scaler.json", data.scaler.to_json())
            write_json(place / "columns.json", data.columns_json())
            told.append({**fold.to_json(), "rows": data.counts})
            contents += [data.scaler.to_json(), data.columns_json()]
        del data  # before the next one is made
    if not first:
        return {}
    metrics = {name: _together(found) for name, found in fits.items()}
    write_json(out / "folds.json", told)
    write_json(out / "metrics.json", metrics)
    write_parquet(out / "history.parquet", _history(rows))
    trained = sum(fold["rows"]["train"] for fold in told)
    content = digest_of([contents, told, metrics])
    return {"content": content, "rows": trained, "folds": len(told), "models": list(metrics), "metrics": metrics}


def _naming(emit: Emit, **names: object) -> Emit:
    """Return an Emit that says of which fit an epoch is."""

    def named(kind: str, /, **fields: object) -> None:
        emit(kind, **(names if kind == "epoch" else {}), **fields)

    return named


def _together(fits: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is to be said about all fits of a model: mean figures, and when the last one stopped."""
    out: dict[str, Any] = {"fits": fits, "best_epoch": fits[-1]["best_epoch"], "epochs": fits[-1]["epochs"]}
    for name in ("train_loss", "valid_loss", "valid_rank_ic"):
        known = [fit[name] for fit in fits if fit[name] is not None]
        out[name] = sum(known) / len(known) if known else None
    return out


def _history(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = [("fold", pa.int32()), ("model", pa.string()), ("seed", pa.int64()), ("epoch", pa.int32())]
    return pa.Table.from_pylist(rows, pa.schema([*kinds, *((name, pa.float64()) for name in FIGURES)]))
