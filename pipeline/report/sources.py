"""What the report reads: the stage directories, opened once, with a clear word about what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import certificates
from pipeline.receipt import FILE as RECEIPT
from pipeline.receipt import Receipt
from storage.schema import TS
from storage.store import MANIFEST, read_json

from .section import ReportError

NEEDED = ("ingest", "features", "train", "predict", "backtest")
OF_FACTORS = ("ingest", "backtest")  # without a model
NO_HISTORY = pa.schema({"model": pa.string()}).empty_table()
NO_IC = pa.schema({"ts": TS, "model": pa.string(), "split": pa.string(), "rank_ic": pa.float64()}).empty_table()


@dataclass(frozen=True)
class Sources:
    """Hold what the stages left: manifests by stage (those present, in order), tables, numbers, names of symbols."""

    manifests: dict[str, dict[str, Any]]
    receipt: Receipt
    quality: dict[str, Any]
    names: dict[str, str]
    delisted: int
    columns: dict[str, Any]
    folds: list[dict[str, Any]]
    train: dict[str, Any]
    history: pa.Table
    predict: dict[str, Any]
    ic: pa.Table
    backtest: dict[str, Any]
    equity: pa.Table
    trades: pa.Table
    analysis: dict[str, Any]
    course: pa.Table
    trials: pa.Table | None
    certificate: dict[str, Any] | None


def read(inputs: Mapping[str, Path]) -> Sources:
    """Open the directories of the stages; ReportError names the first file that is missing and the stage that makes
    it.
    """
    folder = {name: Path(path) for name, path in inputs.items()}
    backtest = _json(folder["backtest"], "metrics.json", "backtest") if "backtest" in folder else {}
    of_model = "predict" in folder or backtest.get("scores", "predictions") == "predictions"
    needed = NEEDED if of_model else OF_FACTORS
    absent = [name for name in needed if name not in inputs]
    if absent:
        raise ReportError(
            f"expected the results of {', '.join(needed)}, got none of {', '.join(absent)}; run them first"
        )
    manifests = {name: _json(folder[name], MANIFEST, name) for name in folder}
    _there(folder["ingest"], RECEIPT, "ingest")
    receipt = Receipt.load(folder["ingest"])
    known = receipt.symbol_table().select(["symbol", "name", "delisted"]).to_pylist()
    return Sources(
        manifests=manifests,
        receipt=receipt,
        quality=_quality(folder["ingest"], manifests["ingest"]),
        names={row["symbol"]: row["name"] or "" for row in known},
        delisted=sum(row["delisted"] is not None for row in known),
        columns=_json(folder["features"], "columns.json", "features") if "features" in folder else {},
        folds=read_json(_there(folder["train"], "folds.json", "train")) if of_model else [],
        train=_json(folder["train"], "metrics.json", "train") if of_model else {},
        history=_last(_table(folder["train"], "history.parquet", "train")) if of_model else NO_HISTORY,
        predict=_json(folder["predict"], "metrics.json", "predict") if of_model else {},
        ic=_table(folder["predict"], "ic.parquet", "predict") if of_model else NO_IC,
        backtest=backtest,
        equity=_table(folder["backtest"], "equity.parquet", "backtest"),
        trades=_table(folder["backtest"], "trades.parquet", "backtest"),
        analysis=_json(folder["backtest"], "analysis.json", "backtest"),
        course=_table(folder["backtest"], "course.parquet", "backtest"),
        trials=_table(folder["tune"], "trials.parquet", "tune") if "tune" in folder else None,
        certificate=certificates.of(data_of(folder["features"]), receipt, manifests["features"])
        if "features" in folder
        else None,
    )


def data_of(directory: Path) -> Path:
    """Return the data folder in which a stage's directory lies: <data>/stages/<stage>/<key>."""
    return directory.parents[2]


def _there(folder: Path, name: str, stage: str) -> Path:
    path = folder / name
    if not path.exists():
        raise ReportError(
            f"expected {name} of the {stage} stage at {path}, found none; "
            f"remove {folder} and run the {stage} stage again"
        )
    return path


def _json(folder: Path, name: str, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(_there(folder, name, stage))
    return found


def _table(folder: Path, name: str, stage: str) -> pa.Table:
    return pq.read_table(_there(folder, name, stage))


def _last(history: pa.Table) -> pa.Table:
    """Return the epochs of the last fold, of each model's first seed."""
    newest = history.filter(pc.equal(history["fold"], pc.max(history["fold"])))
    first = newest.group_by("model").aggregate([("seed", "min")])
    seeds = dict(zip(first["model"].to_pylist(), first["seed_min"].to_pylist()))
    mine = [seeds[model] == seed for model, seed in zip(newest["model"].to_pylist(), newest["seed"].to_pylist())]
    return newest.filter(pa.array(mine, pa.bool_()))


def _quality(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the quality summary by interval, from quality.json or the manifest; empty where ingest left none."""
    path = folder / "quality.json"
    found = read_json(path) if path.exists() else manifest.get("quality")
    if not isinstance(found, dict):
        return {}
    if "rows" in found or "gaps" in found:
        return {"": found}
    return {name: one for name, one in found.items() if isinstance(one, dict)}
