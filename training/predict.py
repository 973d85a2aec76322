"""Score the validation and test windows of a feature stage with trained models, and say how good the scores are.

Shapes: N rows, W windows, S sections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.emit import Emit
from storage.schema import TS, content_digest
from storage.section import digest_of
from storage.store import StoreError, read_json, write_json, write_parquet

from .data import DataError, Panel, Resident, check_columns, known, read_columns, read_panel, window_ends
from .metrics import information_coefficients, make_sections, summary
from .model import load_model
from .scaler import Scaler
from .section import PredictSection
from .splits import GAP, NAMES, TRAIN, Splits
from .trainer import scores, torch_threads


def predict_all(
    features: Path, trained: Path, out: Path, section: PredictSection, device: str, emit: Emit
) -> dict[str, Any]:
    """Write predictions.parquet, ic.parquet and metrics.json; return a summary.

    Rows are all windows that end in validation or later, with a known label or not. The gap before the test counts as
    validation in the rows, so that scores have no hole, but neither it nor labels that end in the test count in its
    metrics. DataError when the features are not those of the models.
    """
    panel, learned = _panel(features, trained)
    splits = Splits.from_json(read_json(trained / "splits.json"))
    models = sorted(p.parent.name for p in Path(trained).glob("*/best.pt"))
    if not models:
        raise DataError(f"expected a model in {trained}/*/best.pt, got none; run the train stage")
    rows_W = np.empty(0, np.int64)
    columns: dict[str, NDArray[np.float32]] = {}
    with torch_threads(section.threads):
        for done, name in enumerate(models):
            model, window = load_model(trained / name / "best.pt")
            if not columns:
                rows_W = _rows(panel, window, splits)
            resident = Resident(panel.x_NF, window, device)
            columns[f"score_{name}"] = scores(model.to(resident.device), resident, rows_W, section.batch_size)
            emit("progress", done=done + 1, total=len(models), unit="models")
    table = _table(panel, rows_W, splits, columns)
    split_W = splits.of(panel.ts_N[rows_W])
    split_W[splits.purged(split_W, panel.end_N[rows_W])] = GAP
    metrics, coefficients = _metrics(table, split_W, models, int(learned["horizon"]), section.min_names)
    write_parquet(out / "predictions.parquet", table)
    write_parquet(out / "ic.parquet", coefficients)
    write_json(out / "metrics.json", metrics)
    content = digest_of(
        [content_digest(table, ("symbol", "ts")), content_digest(coefficients, ("ts", "model")), metrics]
    )
    return {"content": content, "rows": table.num_rows, "models": models, "metrics": metrics}


def _panel(features: Path, trained: Path) -> tuple[Panel, dict[str, Any]]:
    """Return the panel with the features of the models, scaled, and what training recorded about columns."""
    learned = read_json(trained / "columns.json")
    columns = read_columns(features, learned["target"])
    check_columns(learned["offered"], columns.features, Path(features) / "columns.json")
    panel = read_panel(features, columns)
    scaler = Scaler.from_json(read_json(trained / "scaler.json"))
    if list(scaler.features) != learned["features"]:
        raise StoreError(
            f"expected one set of features in {trained}, got different ones in scaler.json and columns.json; train "
            "again"
        )
    if scaler.features != panel.features:
        used = [panel.features.index(name) for name in scaler.features]
        panel.x_NF, panel.features = np.ascontiguousarray(panel.x_NF[:, used]), scaler.features
    scaler.apply(panel.x_NF)
    return panel, learned


def _rows(panel: Panel, window: int, splits: Splits) -> NDArray[np.int64]:
    ends_W = window_ends(panel, known(panel.x_NF), window)
    ends_W = ends_W[panel.ts_N[ends_W] >= splits.valid_start]
    if ends_W.size == 0:
        raise DataError(
            f"expected windows of {window} complete bars after training ended, got none; ingest a longer history"
        )
    return ends_W


def _table(
    panel: Panel, rows_W: NDArray[np.int64], splits: Splits, columns: dict[str, NDArray[np.float32]]
) -> pa.Table:
    test_W = panel.ts_N[rows_W] >= splits.test_start
    symbols = pa.DictionaryArray.from_arrays(pa.array(panel.symbol_N[rows_W]), pa.array(panel.symbols)).cast(
        pa.string()
    )
    return pa.table(
        {
            "symbol": symbols,
            "ts": pa.array(panel.ts_N[rows_W]).cast(TS),
            "split": pa.array(np.where(test_W, "test", "valid")),
            "y": panel.y_N[rows_W],
            **columns,
        }
    )


def _metrics(
    table: pa.Table, split_W: NDArray[np.int8], models: list[str], horizon: int, min_names: int
) -> tuple[dict[str, Any], pa.Table]:
    ts_W = table.column("ts").cast(pa.int64()).to_numpy()
    y_W = table.column("y").to_numpy()
    metrics: dict[str, Any] = {"horizon": horizon, "timestamps_per_section": {}}
    parts = []
    for split in (name for name, code in NAMES.items() if code != TRAIN):
        mine = split_W == NAMES[split]
        sections = make_sections(ts_W[mine], min_names)
        metrics["timestamps_per_section"][split] = sections.timestamps
        for name in models:
            found = information_coefficients(table.column(f"score_{name}").to_numpy()[mine], y_W[mine], sections)
            metrics.setdefault(name, {})[split] = summary(found, sections.lags(horizon))
            parts.append(
                pa.table(
                    {
                        "ts": pa.array(sections.ts_S).cast(TS),
                        "model": pa.array([name] * len(sections.ts_S), pa.string()),
                        "split": pa.array([split] * len(sections.ts_S), pa.string()),
                        "ic": found.ic_S,
                        "rank_ic": found.rank_ic_S,
                        "n": found.n_S.astype(np.int64),
                    }
                )
            )
    return metrics, pa.concat_tables(parts).sort_by([("ts", "ascending"), ("model", "ascending")])
