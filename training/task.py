"""Fit all asked models and leave the files that prediction needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.emit import Emit
from storage.section import digest_of
from storage.store import write_json, write_parquet

from .dataset import prepare
from .section import TrainSection
from .splits import SplitSection
from .trainer import Fit, fit_model


def train_all(
    features: Path, out: Path, split: SplitSection, train: TrainSection, device: str, emit: Emit
) -> dict[str, Any]:
    """Fit the models that `train` names and return a summary.

    Files: <model>/best.pt, scaler.json, columns.json, splits.json, history.parquet, metrics.json. What a killed call
    left in `out` is used when it fits: the content is the same either way.
    """
    data = prepare(features, split, train, emit)
    fits = [fit_model(name, data, train, device, emit, out / name) for name in dict.fromkeys(train.models)]
    metrics = {fit.name: fit.summary() for fit in fits}
    write_json(out / "scaler.json", data.scaler.to_json())
    write_json(out / "columns.json", data.columns_json())
    write_json(out / "splits.json", data.splits_json())
    write_json(out / "metrics.json", metrics)
    write_parquet(out / "history.parquet", _history(fits))
    content = digest_of([data.scaler.to_json(), data.columns_json(), data.splits_json(), metrics])
    return {"content": content, "rows": data.counts["train"], "models": list(metrics), "metrics": metrics}


def _history(fits: list[Fit]) -> pa.Table:
    rows = [{"model": fit.name, **row} for fit in fits for row in fit.history]
    schema = pa.schema(
        [
            ("model", pa.string()),
            ("epoch", pa.int32()),
            ("train_loss", pa.float64()),
            ("valid_loss", pa.float64()),
            ("valid_rank_ic", pa.float64()),
            ("seconds", pa.float64()),
            ("samples_per_s", pa.float64()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)
