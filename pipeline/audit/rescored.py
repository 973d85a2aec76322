"""Scores as prediction wrote them, and prediction done again on any rows of the same features.

Shapes: N rows of a panel, S rows that are compared, M scores that were written (models x labels), C scores: these and,
where a model is a mean over seeds, those of each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.store import read_json
from training.columns import Columns, DataError, check_columns, read_columns
from training.hardware import torch_threads
from training.judge import scores
from training.panel import Panel, matrix, read_panel
from training.quantise import quantised
from training.score import Ensemble, Learned
from training.section import PredictSection
from training.splits import Fold
from training.windows import Windows, known, window_ends

from ..indicators.spec import nearest
from .case import AuditError, Floats, Longs

_CHUNK = 1 << 18


@dataclass(frozen=True)
class Sources:
    """Where features, models and predictions lie, and how the models scored."""

    features: Path
    trained: Path
    predicted: Path
    section: PredictSection
    device: str = "cpu"


@dataclass(frozen=True)
class Written:
    """What was written for a fold: rows of the panel, sorted, and their scores, (rows, M)."""

    rows: Longs
    scores: Floats

    def at(self, rows_S: Longs) -> Floats:
        """Return the scores (S, M) of rows of the panel, NaN where none was written."""
        out = np.full((len(rows_S), self.scores.shape[1]), np.nan)
        if self.rows.size:
            place = np.minimum(np.searchsorted(self.rows, rows_S), self.rows.size - 1)
            there = self.rows[place] == rows_S
            out[there] = self.scores[place[there]]
        return out


@dataclass(frozen=True)
class Ready:
    """A fold in use: its scaler, its models by the name of their score, and all rows as these see them."""

    fold: Fold
    learned: Learned
    models: dict[str, Ensemble]
    panel: Panel


class Rescored:
    """Hold the rows of a features stage, and what a predict stage made of them.

    symbols : those to look at, none = all. windows : how many are compared at a moment, see `near`. scratch : folder
    for matrices that memory does not hold. Raises AuditError where the predictions are not of these rows and models.
    """

    def __init__(self, sources: Sources, scratch: Path, symbols: Sequence[str] = (), windows: int = 5000) -> None:
        self.sources, self.scratch, self.windows = sources, scratch, windows
        self.folds = tuple(Fold.from_json(value) for value in read_json(sources.trained / "folds.json"))
        learned = self.learned(self.folds[0])
        self.targets = tuple(learned.columns["targets"])
        self.columns: Columns = read_columns(sources.features, self.targets)
        check_columns(learned.columns["offered"], self.columns.features, sources.features / "columns.json")
        self.names = [name for model in learned.files for name in self._names(f"score_{model}")]
        panel = read_panel(sources.features, self.columns, scratch)
        for name in symbols:
            if name not in panel.symbols:
                raise AuditError(f"expected symbols of the features, got '{name}'{nearest(name, list(panel.symbols))}")
        mine = np.isin(panel.symbol_N, [panel.symbols.index(name) for name in symbols])
        self.panel = self.taken(panel, np.flatnonzero(mine)) if symbols else panel
        self.written = self._read()
        self._ready: Ready | None = None

    def learned(self, fold: Fold) -> Learned:
        return Learned.read(self.sources.trained / f"fold-{fold.number}")

    def ready(self, fold: Fold) -> Ready:
        """Return a fold's models, on their device, with all rows; one fold is kept at a time."""
        if self._ready is None or self._ready.fold != fold:
            self._ready = None  # its rows go before those of the next one come
            learned = self.learned(fold)
            models: dict[str, Ensemble] = {}
            for name, files in learned.files.items():
                whole = models[f"score_{name}"] = learned.ensemble(name)
                settings = whole.window, whole.normalise, whole.max_gap_days
                if len(files) > 1:
                    seeds = zip(files, whole.models)
                    models |= {path.parent.name: Ensemble([model], *settings) for path, model in seeds}
            panel = self.seen(learned, self.taken(self.panel, np.arange(len(self.panel.ts_N))))
            device = Windows(panel.x_NF[:1], 1, self.sources.device).device
            precision = self.sources.section.precision
            for name, model in models.items():
                other = precision != "float32" and model.network
                models[name] = quantised(model, precision, device) if other else model.to(device)
            self._ready = Ready(fold, learned, models, panel)
        return self._ready

    def seen(self, learned: Learned, panel: Panel) -> Panel:
        """Turn rows that are ours into what a fold's models see, their features, scaled; return them."""
        panel.keep(learned.scaler.features)
        learned.scaler.apply(panel.x_NF)
        return panel

    def taken(self, panel: Panel, rows: Longs) -> Panel:
        """Return a copy of some rows, of all symbols or fewer."""
        x_NF = matrix(len(rows), panel.x_NF.shape[1], self.scratch)
        for a in range(0, len(rows), _CHUNK):
            x_NF[a : a + _CHUNK] = panel.x_NF[rows[a : a + _CHUNK]]
        beside: dict[str, Any] = {
            name: getattr(panel, name)[rows] for name in ("symbol_N", "ts_N", "y_NH", "end_N", "member_N")
        }
        return replace(panel, x_NF=x_NF, **beside)

    def scored(self, ready: Ready, panel: Panel, rows_S: Longs) -> Floats:
        """Score rows (S,) of a panel as its fold sees it: (S, C), NaN where no window ends.

        The same windows come in the same batches, whatever else the panel holds.
        """
        section, parts = self.sources.section, []
        known_N = known(panel.x_NF)
        with torch_threads(section.threads):
            for model in ready.models.values():
                out_SH = np.full((len(rows_S), len(self.targets)), np.nan)
                try:
                    ends_W = window_ends(panel, known_N, model.window, model.max_gap_days)
                except DataError:  # no window ends anywhere
                    ends_W = np.empty(0, np.int64)
                some = np.isin(rows_S, ends_W)
                if some.any():
                    windows = Windows(panel.x_NF, model.window, self.sources.device, normalise=model.normalise)
                    out_SH[some] = scores(model, windows, rows_S[some], section.batch_size)
                parts.append(out_SH)
        return np.concatenate(parts, axis=1)

    def scores_of(self, ready: Ready) -> list[str]:
        """Name what `scored` returns, (C,)."""
        return [name for model in ready.models for name in self._names(model)]

    def near(self, fold: Fold, moment: int, symbol: int | None = None) -> Longs:
        """Return rows (S,) of the time for which a fold's scores were written, up to a moment: the last ones of each
        symbol, or of one alone, in all about as many as are to be compared. A score that depends on any later row
        differs in the last of them.
        """
        ts_N, written = self.panel.ts_N, self.written[fold.number].rows
        first, last = ts_N[written].min(), min(moment, ts_N[written].max())
        rows = np.flatnonzero((ts_N >= first) & (ts_N <= last))
        owner = self.panel.symbol_N[rows]
        if symbol is not None:
            rows = rows[owner == symbol]
            return np.asarray(rows[-self.windows :])
        from_end = np.searchsorted(owner, owner, side="right") - np.arange(len(rows))
        mine: Longs = rows[from_end <= max(1, self.windows // max(1, len(np.unique(owner))))]
        return mine

    def _names(self, model: str) -> list[str]:
        return [model + (f"_{target}" if h else "") for h, target in enumerate(self.targets)]

    def _read(self) -> dict[int, Written]:
        """Read the predictions of each fold and find their rows."""
        path = self.sources.predicted / "predictions.parquet"
        lacking = [name for name in self.names if name not in pq.read_schema(path).names]
        if lacking:
            raise AuditError(f"expected {', '.join(lacking)} in {path}, got none; predict again")
        table = pq.read_table(path, columns=["symbol", "ts", "fold", *self.names])
        panel = self.panel
        code = {name: i for i, name in enumerate(panel.symbols)}
        present = {panel.symbols[i] for i in np.unique(panel.symbol_N)}
        unique = table["symbol"].combine_chunks().dictionary_encode()
        code_W = np.array([code.get(name, -1) for name in unique.dictionary.to_pylist()], np.int64)[
            unique.indices.to_numpy()
        ]
        inside = np.isin(code_W, [code[name] for name in present])
        ts_W = table["ts"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        stamps = np.unique(np.concatenate([panel.ts_N, ts_W]))
        key_N = panel.symbol_N * len(stamps) + np.searchsorted(stamps, panel.ts_N)
        key_W = code_W * len(stamps) + np.searchsorted(stamps, ts_W)
        row_W = np.minimum(np.searchsorted(key_N, key_W), len(key_N) - 1)
        lost = np.flatnonzero((key_N[row_W] != key_W) & (inside | (code_W < 0)))
        if lost.size:
            raise AuditError(
                f"expected predictions of rows of {self.sources.features}, got {table['symbol'][lost[0].item()]} at "
                f"{table['ts'][lost[0].item()]} in {path}, which are not there; predict again"
            )
        fold_W = table["fold"].to_numpy()
        score_WM = np.stack([table[name].to_numpy() for name in self.names], axis=1).astype(np.float64)
        out = {}
        for fold in self.folds:
            mine = np.flatnonzero((fold_W == fold.number) & inside)
            mine = mine[np.argsort(row_W[mine], kind="stable")]
            out[fold.number] = Written(row_W[mine], score_WM[mine])
        return out
