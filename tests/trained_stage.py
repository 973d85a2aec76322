"""A train stage with drawn weights instead of fitted ones: what scoring and the registry need, in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage.store import MANIFEST, Store, read_json, write_json, write_parquet
from training.model import build, save_model, state_digest
from training.registry import Registry
from training.scaler import Scaler
from training.section import BASELINES, TrainSection
from training.task import members

TRAIN = TrainSection(models=("lstm", "tcn"), window=6, hidden_size=8, seeds=2)
DAY_US = 86_400_000_000
SPANS = [("train", 0, 100), ("valid", 105, 120), ("test", 125, 160)]


def write_trained(
    out: Path, train: TrainSection, features: int = 5, *, folds: int = 1, targets: tuple[str, ...] = ("y_2",)
) -> Path:
    """Write folds.json, metrics.json, history.parquet and, for each fold, columns, scaler and the models of `train`.

    Scores come from weights drawn from the seed, ridge's from a fixed generator.
    """
    names = [f"feature_{i}" for i in range(features)]
    random = np.random.default_rng(train.seed)
    fits: dict[str, list[dict[str, Any]]] = {}
    told = []
    for fold in range(folds):
        place = out / f"fold-{fold}"
        center, scale = random.standard_normal(features), random.uniform(0.5, 2.0, features)
        scaler = Scaler(tuple(names), center.astype(np.float32), scale.astype(np.float32), 5.0)
        columns = {"interval": "1d", "offered": names, "features": names, "targets": list(targets), "horizon": 2}
        write_json(place / "columns.json", {**columns, "target_kind": "rank"})
        write_json(place / "scaler.json", scaler.to_json())
        for name, seed in members(train):
            shape = {"n_features": features, "n_heads": len(targets)}
            model = build(name, shape if name in BASELINES else {**shape, **train.shape(name)}, 0.0, seed)
            if name == "ridge":
                weight = random.standard_normal((features, len(targets)))
                model.weight.copy_(model.weight.new_tensor(weight))
            save_model(place / f"{name}-{seed}" / "best.pt", name, model, train)
            fits.setdefault(name, []).append({"fold": fold, "seed": seed, "weights": state_digest(model)})
        spans = [{"part": part, "start_us": a * DAY_US, "stop_us": b * DAY_US} for part, a, b in SPANS]
        told.append({"fold": fold, "spans": spans, "embargo": 2, "rows": {"train": 100, "valid": 15, "test": 35}})
    write_json(out / "folds.json", told)
    figures = {name: {"fits": one, "valid_rank_ic": 0.1 / (i + 1)} for i, (name, one) in enumerate(fits.items())}
    write_json(out / "metrics.json", figures)
    write_parquet(out / "history.parquet", pa.table({"fold": [0], "model": ["ridge"]}))
    return out


def write_stage(data: Path, key: str, train: TrainSection, **more: Any) -> Path:
    """Write the same as a finished stage `data`/stages/train/`key`."""
    store = Store(data / "stages")
    with store.writing("train", key) as out:
        write_trained(out, train, **more)
    figures = {name: {"valid_rank_ic": 0.1} for name in ("ridge", *train.models)}
    manifest = {"key": key, "content": f"{key}-content", "made": "2026-01-01 00:00:00+0000", "seconds": 1.0}
    store.finish("train", key, {**manifest, "folds": 1, "models": list(figures), "metrics": figures, "made_of": {}})
    return out


def two_stages(data: Path) -> tuple[Registry, Path, Path]:
    """Return the registry of `data` beside two finished train stages of like features."""
    first, second = (
        write_stage(data, key, TRAIN.model_copy(update={"seed": n})) for key, n in (("aaaa", 0), ("bbbb", 7))
    )
    return Registry(data), first, second


def rewrite(stage: Path, name: str, value: Any) -> None:
    """Change a file of a finished stage together with its manifest."""
    write_json(stage / name, value)
    Store(stage.parent.parent).finish(stage.parent.name, stage.name, read_json(stage / MANIFEST))
