"""Directories as the stages leave them, made from small matrices: what the backtest and the report read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import krx
from pipeline import receipt as receipts
from storage.lake import Lake
from storage.schema import ACTIONS, BARS, QUARANTINE, SYMBOLS
from storage.store import write_json

Matrix = npt.ArrayLike
TS = BARS.field("ts").type
SOURCE = "test"


@dataclass
class World:
    """A market of S symbols over T sessions from `start`; prices in KRW, NaN = not traded, shapes (T, S)."""

    symbols: Sequence[str]
    close: Matrix
    open: Matrix | None = None
    volume: Matrix | None = None
    start: str = "2023-03-02"
    market: str = "KRX"
    close_only: bool = False
    actions: Sequence[tuple[str, str, float]] = ()
    facts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)

    @property
    def days(self) -> npt.NDArray[np.datetime64]:
        T = len(np.asarray(self.close))
        return krx.sessions(self.start, str(np.datetime64(self.start) + 2 * T + 30))[:T]

    @property
    def ts(self) -> npt.NDArray[np.datetime64]:
        return krx.session_closes(self.days)

    def write(self, root: Path) -> Path:
        """Fill a lake under `root` and leave the receipt in `root/ingest`."""
        close = np.asarray(self.close, np.float64)
        opened = close if self.open is None else np.asarray(self.open, np.float64)
        volume = np.full(close.shape, 1e9) if self.volume is None else np.asarray(self.volume, np.float64)
        t, s = np.nonzero(np.isfinite(close))
        n = len(t)
        empty = np.full(n, np.nan)
        top, low = np.fmax(opened, close)[t, s], np.fmin(opened, close)[t, s]
        columns = {
            "symbol": np.array(self.symbols, object)[s],
            "venue": np.full(n, "KRX", object),
            "interval": np.full(n, "1d", object),
            "ts": pa.array(self.ts[t], pa.timestamp("us")).cast(TS),
            "open": empty if self.close_only else opened[t, s],
            "high": empty if self.close_only else np.where(np.isfinite(opened[t, s]), top, np.nan),
            "low": empty if self.close_only else np.where(np.isfinite(opened[t, s]), low, np.nan),
            "close": close[t, s],
            "volume": empty if self.close_only else volume[t, s],
            "turnover": empty if self.close_only else volume[t, s] * close[t, s],
            "source": np.full(n, SOURCE, object),
            "ingested_at": pa.array(np.zeros(n, np.int64), pa.timestamp("us")).cast(TS),
        }
        lake = Lake(root / "lake")
        lake.write("bars", pa.table({k: pa.array(v) for k, v in columns.items()}, schema=BARS))
        stamp = {"source": SOURCE, "ingested_at": 0}
        lake.write(
            "actions",
            pa.Table.from_pylist(
                [
                    {"symbol": s, "ex_date": date.fromisoformat(d), "kind": "split", "factor": f, **stamp}
                    for s, d, f in self.actions
                ],
                ACTIONS,
            ),
        )
        known = {"name": "", "market": "KOSPI", "sector": "", "kind": "stock", "halted": False, "administrative": False}
        rows = [
            {**known, "symbol": s, "as_of": self.days[-1].item(), **self.facts.get(s, {}), **stamp}
            for s in self.symbols
        ]
        lake.write("symbols", pa.Table.from_pylist(rows, SYMBOLS))
        bad = [
            {
                "file": "prices.csv",
                "line": i + 1,
                "symbol": self.symbols[0],
                "interval": "1d",
                "reason": reason,
                **stamp,
            }
            for reason, count in self.quarantined.items()
            for i in range(count)
        ]
        lake.write("quarantine", pa.Table.from_pylist(bad, QUARANTINE))
        found = receipts.take(
            lake,
            source=SOURCE,
            venue="KRX",
            market=self.market,
            intervals=("1d",),
            symbols=tuple(self.symbols),
            start=self.days[0].item(),
            end=self.days[-1].item(),
            close_only=self.close_only,
            quarantined=self.quarantined,
        )
        (root / "ingest").mkdir(parents=True, exist_ok=True)
        found.save(root / "ingest")
        return root / "ingest"


def write_predictions(
    directory: Path,
    world: World,
    scores: Mapping[str, Matrix],
    split: Sequence[str],
    y: Matrix | None = None,
) -> Path:
    """Leave predictions.parquet: scores (T, S) by model, NaN = no row; `split` names each session's part, "" none."""
    columns = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    first = next(iter(columns.values()))
    parts = np.array(split, object)
    cells = [
        (t, s) for s in range(first.shape[1]) for t in range(first.shape[0]) if parts[t] and np.isfinite(first[t, s])
    ]
    t, s = np.array(cells, np.int64).reshape(-1, 2).T
    known = np.full(first.shape, np.nan) if y is None else np.asarray(y, np.float64)
    table = pa.table(
        {
            "symbol": pa.array(np.array(world.symbols, object)[s], pa.string()),
            "ts": pa.array(world.ts[t], pa.timestamp("us")).cast(TS),
            "split": pa.array(parts[t], pa.string()),
            "y": known[t, s].astype(np.float32),
            **{f"score_{name}": values[t, s].astype(np.float32) for name, values in columns.items()},
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / "predictions.parquet")
    return directory


def write_manifest(directory: Path, **more: Any) -> None:
    """Leave a manifest as the runner writes it last."""
    write_json(
        directory / "manifest.json", {"content": "0" * 32, "key": "1" * 32, "made": "2024-01-02 09:00:00+0900", **more}
    )
