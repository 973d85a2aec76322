"""One backtest of a small market that can be checked by hand, and what it left as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.backtest import BacktestSection
from pipeline.backtest.portfolio.engine import run
from storage.store import read_json
from tests.stage_directories import World, write_predictions

NAN = math.nan
EXACT = {
    "mode": "top_k",
    "k": 1,
    "rebalance": 1,
    "capital": 1_000_000,
    "commission_bp": 0.0,
    "slippage_bp": 0.0,
    "participation": 1.0,
}


def exact(**settings: Any) -> BacktestSection:
    """Return settings over EXACT, without the k of modes that have none."""
    asked = EXACT | settings
    if asked["mode"] not in ("auto", "top_k", "drop_out") and "k" not in settings:
        del asked["k"]
    return BacktestSection.model_validate(asked)


class Result:
    """What a backtest left, as rows."""

    def __init__(self, out: Path, summary: dict[str, Any]) -> None:
        self.summary = summary
        self.equity: list[dict[str, Any]] = pq.read_table(out / "equity.parquet").to_pylist()
        self.trades: list[dict[str, Any]] = pq.read_table(out / "trades.parquet").to_pylist()
        self.metrics: dict[str, Any] = read_json(out / "metrics.json")

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.equity]

    def did(self, world: World) -> list[tuple[int, str, str, int, float]]:
        """Return (session, symbol, side, shares, price) of each trade."""
        at = {ts.item(): t for t, ts in enumerate(world.ts)}
        return [
            (at[r["ts"].replace(tzinfo=None)], r["symbol"], r["side"], r["shares"], r["price"]) for r in self.trades
        ]


def traded(tmp_path: Path, world: World, scores: Any, split: Sequence[str] | None = None, **settings: Any) -> Result:
    """Run the backtest on a world; by default every session is of the test split."""
    ingest = world.write(tmp_path)
    values = np.asarray(scores, np.float64)
    predict = write_predictions(tmp_path / "predict", world, {"lstm": values}, split or ["test"] * len(values))
    out = tmp_path / "out"
    out.mkdir()
    section = exact(**settings)
    return Result(out, run({"ingest": ingest, "predict": predict}, out, section))
