"""Score the validation and test windows of a feature stage with trained models, and say how good the scores are.

Shapes: N rows, W windows, H heads, S sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.emit import Emit
from storage.schema import TS, content_digest
from storage.section import digest_of
from storage.store import read_json, write_json, write_parquet

from .columns import DataError, check_columns, check_made, read_columns
from .evaluate import Evaluated, evaluate
from .export import export_all
from .hardware import torch_threads
from .judge import scores
from .metrics import make_sections
from .panel import Panel, read_panel
from .precision import check_scoring
from .promoted import BASELINE
from .quantise import gate, quantised
from .score import Learned
from .section import PredictSection
from .splits import GAP, TEST, TRAIN, VALID, Fold
from .windows import Windows, known, window_ends


def predict_all(
    features: Path, trained: Path, out: Path, section: PredictSection, device: str, emit: Emit
) -> dict[str, Any]:
    """Write predictions.parquet, ic.parquet, deciles.parquet and metrics.json; return a summary.

    Rows are all windows that end in a fold's test, and those from the beginning of the first fold's validation to its
    test, with a known label or not. The gap before the test counts as validation in the rows, so that scores have no
    hole, but neither it nor labels that end in the test count in its metrics. The score of a model is the mean over
    its seeds; the first label's is score_<model>, another one's score_<model>_<label>. Models stand in the order of
    train.models, the baseline last. DataError when features, labels or bars are not those of the models, PredictError
    when another precision than float32 costs too much.

    `trained` : a train stage, or a model of the registry, which is laid out alike.
    """
    check_scoring(section, device)
    folds = [Fold.from_json(value) for value in read_json(trained / "folds.json")]
    of_folds = [Learned.read(trained / f"fold-{fold.number}") for fold in folds]
    models = _in_order(of_folds[0].files, trained)
    rows = _rows(features, trained, of_folds, out)
    parts: list[pa.Table] = []
    gates: list[dict[str, Any]] = []
    with torch_threads(section.threads):
        for done, (fold, learned) in enumerate(zip(folds, of_folds), 1):
            panel = _panel(rows, learned, out, shared=len(folds) > 1)
            part, told = _scored(panel, fold, learned, models, section, device, validated=done == 1)
            parts.append(part)
            del panel  # before the next one is made
            for one in told:
                ranks = f"{one[section.precision]:.4f}, in float32 {one['float32']:.4f}"
                text = f"fold {fold.number}: validation rank IC of {one['model']} in {section.precision} {ranks}"
                emit("log", level="info", text=text)
            gates += [{"fold": fold.number, **one} for one in told]
            emit("progress", done=done, total=len(folds), unit="folds")
        if section.export:
            for name, far in export_all(trained, out).items():
                emit("log", level="info", text=f"exported {out / name}.pt2; scores differ by {far:.1g} at most")
    whole = pa.concat_tables(parts).sort_by([("symbol", "ascending"), ("ts", "ascending")])
    table, judged_W = whole.drop_columns("judged"), whole["judged"].to_numpy()
    found = evaluate(table, judged_W, models, int(learned.columns["horizon"]), section.min_names)
    if gates:
        found.metrics["precision"] = {"is": section.precision, "max_ic_loss": section.max_ic_loss, "gates": gates}
    write_parquet(out / "predictions.parquet", table)
    used = {"trained": f"{trained.parent.name}/{trained.name}", "precision": section.precision}
    return {**_written(out, table, found), "rows": table.num_rows, "models": models, **used, "metrics": found.metrics}


def _written(out: Path, table: pa.Table, found: Evaluated) -> dict[str, Any]:
    write_parquet(out / "ic.parquet", found.coefficients)
    write_parquet(out / "deciles.parquet", found.deciles)
    write_json(out / "metrics.json", found.metrics)
    tables = [
        (table, ("symbol", "ts")),
        (found.coefficients, ("ts", "model", "split")),
        (found.deciles, ("model", "split", "decile")),
    ]
    return {"content": digest_of([*(content_digest(rows, keys) for rows, keys in tables), found.metrics])}


def _in_order(names: Iterable[str], trained: Path) -> list[str]:
    """Return models in the order in which they were fitted, the baseline last."""
    fitted = pq.read_table(trained / "history.parquet", columns=["model"])["model"].unique().to_pylist()
    return sorted(names, key=lambda name: (name == BASELINE, fitted.index(name) if name in fitted else len(fitted)))


def _rows(features: Path, trained: Path, of_folds: Sequence[Learned], scratch: Path) -> Panel:
    """Read the rows that the models of all folds score; DataError where their features, labels or bars are others."""
    where, model = Path(features) / "columns.json", f"{trained.parent.name}/{trained.name}"
    made = read_json(where)
    for learned in of_folds:
        check_made(model, learned.columns, made["interval"], [target["name"] for target in made["targets"]])
    columns = read_columns(features, of_folds[0].columns["targets"])
    for learned in of_folds:
        try:
            check_columns(learned.columns["offered"], columns.features, where)
        except DataError as error:
            raise DataError(f"model {model}: {error}") from error
    return read_panel(features, columns, scratch, copies=min(len(of_folds), 2))


def _panel(rows: Panel, learned: Learned, scratch: Path, *, shared: bool) -> Panel:
    """Return the rows with the features of a fold's models, scaled: a copy where other folds need them as well."""
    panel = rows.copy(learned.scaler.features, scratch) if shared else rows
    panel.keep(learned.scaler.features)
    learned.scaler.apply(panel.x_NF)
    return panel


def _scored(
    panel: Panel,
    fold: Fold,
    learned: Learned,
    models: Sequence[str],
    section: PredictSection,
    device: str,
    *,
    validated: bool,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Return the rows of a fold's test, and where asked of its validation, with the scores of all models; and what the
    gate says of each network in another precision than float32.
    """
    split_N = fold.of(panel.ts_N)
    wanted_N = split_N == TEST
    if validated:
        wanted_N |= (split_N != TRAIN) & (panel.ts_N >= fold.start(VALID)) & (panel.ts_N < fold.start(TEST))
    judged_N = (split_N != GAP) & ~fold.purged(panel.ts_N, panel.end_N)
    gated_N = (split_N == VALID) & judged_N & np.isfinite(panel.y_NH[:, 0])
    known_N = known(panel.x_NF)
    rows_W = np.empty(0, np.int64)
    columns: dict[str, NDArray[np.float32]] = {}
    gates = []
    for name in models:
        model = learned.ensemble(name)
        ends_W = window_ends(panel, known_N, model.window, model.max_gap_days)
        rows_W = ends_W[wanted_N[ends_W]]
        if rows_W.size == 0:
            raise DataError(
                f"expected windows of {model.window} complete bars after training ended, got none; ingest a longer "
                "history"
            )
        windows = Windows(panel.x_NF, model.window, device, normalise=model.normalise)
        model.to(windows.device)
        if section.precision != "float32" and model.network:
            exact, model = model, quantised(model, section.precision, windows.device)
            valid_W = ends_W[gated_N[ends_W]]
            both = tuple(scores(one, windows, valid_W, section.batch_size)[:, 0] for one in (exact, model))
            sections = make_sections(panel.ts_N[valid_W], section.min_names)
            told = gate(name, section.precision, both, panel.y_NH[valid_W, 0], sections, section.max_ic_loss)
            gates.append({"model": name, **told})
        score_WH = scores(model, windows, rows_W, section.batch_size)
        for h, target in enumerate(learned.columns["targets"]):
            columns[f"score_{name}" + (f"_{target}" if h else "")] = score_WH[:, h]
    symbols = pa.DictionaryArray.from_arrays(pa.array(panel.symbol_N[rows_W]), pa.array(panel.symbols))
    table = pa.table(
        {
            "symbol": symbols.cast(pa.string()),
            "ts": pa.array(panel.ts_N[rows_W]).cast(TS),
            "fold": np.full(len(rows_W), fold.number, np.int32),
            "split": pa.array(np.where(split_N[rows_W] == TEST, "test", "valid")),
            **{
                ("y" if h == 0 else target): panel.y_NH[rows_W, h]
                for h, target in enumerate(learned.columns["targets"])
            },
            **columns,
            "judged": judged_N[rows_W],
        }
    )
    return table, gates
