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
        directory / "manifest.json", {"content": "0" * 32, "key": "1" * 32, "made": "2024-01-02 03:00:00+0000", **more}
    )


def everything(
    root: Path, *, sessions: int = 700, count: int = 40, skill: float = 0.05, seed: int = 7
) -> dict[str, Path]:
    """Leave all stages up to predict: a market with a split, a delisting and halts, and scores of that skill."""
    rng = np.random.default_rng(seed)
    symbols = [f"{i * 10 + 5930:06d}" for i in range(count)]
    signal = rng.normal(size=(sessions, count))
    moves = rng.normal(0.0002, 0.016, (sessions, count)) + rng.normal(0, 0.007, (sessions, 1))
    moves[1:] += 0.0045 * skill / 0.05 * signal[:-1]
    moves = np.clip(moves, -0.25, 0.25)
    level = np.exp(rng.uniform(np.log(3_000), np.log(300_000), count))
    close = level * np.cumprod(1 + moves, axis=0)
    close[sessions // 2 :, 3] /= 5
    close = np.rint(close / 10) * 10 + 10
    opened = np.rint(np.vstack([close[:1], close[:-1]]) * rng.normal(1, 0.003, close.shape))
    opened[sessions // 2, 3] = close[sessions // 2, 3]
    volume = np.rint(rng.lognormal(11, 0.8, close.shape))
    volume[300:304, 5] = 0
    close[-60:, 7] = np.nan
    names = ("삼성전자", "SK하이닉스", "현대차", "NAVER", "카카오", '<script>alert("x")</script>', "셀트리온 & 친구")
    world = World(
        symbols, close, opened, volume, start="2021-01-04", quarantined={"high_below_low": 21, "duplicate": 7}
    )
    world.actions = [(symbols[3], str(world.days[sessions // 2]), 5.0)]
    facts: dict[str, dict[str, Any]] = {s: {"name": names[i % len(names)]} for i, s in enumerate(symbols)}
    facts[symbols[7]]["delisted"] = world.days[-60].item()
    world.facts = facts
    ingest = world.write(root)
    write_json(
        ingest / "quality.json",
        {
            "1d": {
                "rows": int(np.isfinite(close).sum()),
                "gaps": {"rows": 4, "symbols": 1},
                "flat_runs": {"symbols": 0, "worst": []},
                "short": {"symbols": 0, "worst": []},
                "beyond_limit": {"rows": 1, "after_gap": 0, "explained": 1},
                "basis_jumps": {"rows": 0},
                "off_tick": 0.0,
                "without_volume": 4,
                "no_open_high_low": 0,
            }
        },
    )
    made = {"seconds": 12.5, "peak_memory_mb": 812.0, "rows": int(np.isfinite(close).sum())}
    write_manifest(ingest, **made, quarantined=world.quarantined)

    features = root / "features"
    features.mkdir()
    target = {"name": "y_5", "horizon": 5, "end": "y_5_end"}
    columns = [{"name": f"f_{i}", "unit": "ratio"} for i in range(24)]
    write_json(features / "columns.json", {"interval": "1d", "features": columns, "targets": [target]})
    write_manifest(features, **made | {"seconds": 3.2, "peak_memory_mb": 640.0})

    train = root / "train"
    train.mkdir()
    epochs = 12
    fall = 1 - 0.02 * (1 - np.exp(-np.arange(epochs) / 3)) + rng.normal(0, 0.0006, epochs)
    over = np.maximum(np.arange(epochs) - 6, 0) * 0.0006
    rank = 0.03 * (1 - np.exp(-np.arange(epochs) / 3)) + rng.normal(0, 0.002, epochs)
    history = {
        "fold": [0] * (epochs + 1),
        "seed": [0] * (epochs + 1),
        "model": ["lstm"] * epochs + ["ridge"],
        "epoch": [*range(epochs), 0],
        "train_loss": [*fall, 0.993],
        "valid_loss": [*(fall + over + 0.004), 0.9935],
        "valid_rank_ic": [*rank, 0.018],
        "seconds": [4.0] * epochs + [0.2],
        "samples_per_s": [*rng.normal(5200, 60, epochs), 90000.0],
        "step_p50_ms": [11.5] * epochs + [None],
        "step_p95_ms": [13.25] * epochs + [None],
        "wait_share": [0.041] * epochs + [None],
        "peak_memory_mb": [*np.linspace(700, 901, epochs), None],
        "peak_device_mb": pa.nulls(epochs + 1, pa.float64()),
        "gpu_use": pa.nulls(epochs + 1, pa.float64()),
    }
    pq.write_table(pa.table(history), train / "history.parquet")
    fit = {"train_loss": 0.98, "valid_loss": 0.985, "valid_rank_ic": 0.031, "best_epoch": 6, "epochs": epochs}
    write_json(
        train / "metrics.json",
        {"lstm": {**fit, "fits": [{"weights": "ab"}]}, "ridge": {**fit, "best_epoch": 0, "epochs": 1}},
    )
    rows = {"train": 15000, "valid": 4000, "test": 4000}
    write_json(train / "folds.json", [{"fold": 0, "spans": [], "embargo": 5, "rows": rows}])
    write_manifest(train, **made | {"seconds": 49.0, "peak_memory_mb": 1430.0, "rows": 15000})

    part = ["" if t < sessions // 2 else "valid" if t < sessions * 3 // 4 else "test" for t in range(sessions)]
    score = {"lstm": signal, "ridge": signal + rng.normal(0, 1.2, signal.shape)}
    ahead = np.full(close.shape, np.nan)
    ahead[:-6] = opened[6:] / opened[1:-5] - 1
    predict = write_predictions(root / "predict", world, score, part, ahead)
    write_ic(predict, world, score, ahead, part)
    write_manifest(predict, **made | {"seconds": 2.4, "rows": 8000, "models": ["lstm", "ridge"]})
    return {"ingest": ingest, "features": features, "train": train, "predict": predict}


def write_ic(directory: Path, world: World, score: Mapping[str, Matrix], ahead: Matrix, part: Sequence[str]) -> None:
    """Leave ic.parquet and metrics.json with the rank ICs that the scores really have."""
    rows, metrics = [], {}
    for model, values in score.items():
        metrics[model] = {}
        for split in ("valid", "test"):
            found = []
            for t in (t for t, p in enumerate(part) if p == split):
                a, b = np.asarray(values, np.float64)[t], np.asarray(ahead, np.float64)[t]
                ok = np.isfinite(a) & np.isfinite(b)
                ic = np.nan
                if ok.sum() > 3:
                    ic = float(np.corrcoef(np.argsort(np.argsort(a[ok])), np.argsort(np.argsort(b[ok])))[0, 1])
                    found.append(ic)
                rows.append({"ts": t, "model": model, "split": split, "ic": ic, "rank_ic": ic, "n": int(ok.sum())})
            mean, spread = (float(np.mean(found)), float(np.std(found, ddof=1))) if len(found) > 1 else (None, None)
            known = mean is not None and spread
            metrics[model][split] = {
                "mean_ic": mean,
                "mean_rank_ic": mean,
                "icir": mean / spread if known else None,
                "t_newey_west": mean / spread * np.sqrt(len(found)) / 1.8 if known else None,
                "hit_rate": float(np.mean(np.array(found) > 0)) if found else None,
                "n_days": len(found),
            }
    rows.sort(key=lambda row: (row["ts"], row["model"]))
    table = pa.Table.from_pylist(rows)
    stamps = pa.array(world.ts[table["ts"].to_numpy()], pa.timestamp("us")).cast(TS)
    pq.write_table(table.set_column(0, "ts", stamps), directory / "ic.parquet")
    write_json(directory / "metrics.json", {"horizon": 5, "timestamps_per_section": {"valid": 1, "test": 1}, **metrics})
