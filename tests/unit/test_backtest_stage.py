"""The backtest as a stage: what it leaves, what it refuses, and the same content every time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from distributed import get_task_stream

from pipeline.backtest import BacktestError, BacktestSection
from pipeline.backtest.portfolio.engine import run
from pipeline.backtest.stage import backtest
from pipeline.cluster import Cluster, ClusterSection
from pipeline.job import Job
from storage.emit import silent
from storage.store import read_json
from tests.stage_directories import World, write_predictions

from .backtests import EXACT, traded


def test_equity_and_trades_have_the_columns_that_the_report_reads(tmp_path: Path) -> None:
    result = traded(tmp_path, World(["A"], [[1000]] * 3), [[1], [1], [1]])
    assert list(result.equity[0]) == [
        *("ts", "equity", "cash", "benchmark", "gross_exposure", "turnover", "commission", "tax", "n_positions"),
        *("net_exposure", "borrow"),
    ]
    assert list(result.trades[0])[:9] == [
        "ts",
        "symbol",
        "side",
        "shares",
        "price",
        "value",
        "commission",
        "tax",
        "reason",
    ]
    assert result.equity[0]["ts"].isoformat() == "2023-03-02T06:30:00+00:00"
    assert result.column("turnover") == [0.0, 0.5, 0.0]
    assert result.summary["rows"] == 3


def test_what_cannot_be_traded_is_said(tmp_path: Path) -> None:
    world = World(["A"], [[1000]] * 3)
    ingest = world.write(tmp_path)
    predict = write_predictions(tmp_path / "predict", world, {"ridge": [[1], [1], [1]]}, ["valid"] * 3)

    def go(**settings: Any) -> None:
        run({"ingest": ingest, "predict": predict}, tmp_path, BacktestSection.model_validate(EXACT | settings))

    with pytest.raises(BacktestError, match=r"model 'lstm'.*got models \['ridge'\]"):
        go(model="lstm")
    with pytest.raises(BacktestError, match="split 'test', got none"):
        go(model="ridge")
    (predict / "predictions.parquet").unlink()
    with pytest.raises(BacktestError, match="run the predict stage"):
        go()
    other = World(["A"], [[1000]] * 3, start="2025-03-04")
    write_predictions(tmp_path / "predict", other, {"lstm": [[1], [1], [1]]}, ["test"] * 3)
    with pytest.raises(BacktestError, match="got none"):
        go()


@pytest.mark.parametrize("names", [("tcn", "lstm", "ridge"), ("ridge",)])
def test_the_model_that_predictions_name_first_is_traded(tmp_path: Path, names: tuple[str, ...]) -> None:
    """What the registry gives, or the first of those that were trained; any other where it is asked for."""
    world = World(["A", "B"], [[1000, 1000], [1100, 900], [1200, 800], [1300, 700]])
    ingest = world.write(tmp_path)
    up = {"ridge": [[0, 1]] * 4} | dict.fromkeys(names[:1], [[1, 0]] * 4)
    scores = {name: up.get(name, [[0, 1]] * 4) for name in names}
    predict = write_predictions(tmp_path / "predict", world, scores, ["test"] * 4)

    def earned(**settings: Any) -> tuple[str, float]:
        section = BacktestSection.model_validate(EXACT | settings)
        earned = run({"ingest": ingest, "predict": predict}, tmp_path / "out", section)["total_return"]
        return read_json(tmp_path / "out" / "metrics.json")["model"], earned

    model, best = earned()
    assert model == names[0] and best > 0 and earned(model=names[0]) == (model, best)
    for name in names[1:]:
        assert earned(model=name)[1] < 0


def backtest_content(ingest: Path, predict: Path, out: Path, section: BacktestSection) -> str:
    out.mkdir()
    return str(run({"ingest": ingest, "predict": predict}, out, section)["content"])


def test_the_stage_runs_as_a_task_and_its_content_is_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    close = np.rint(20_000 * np.cumprod(rng.normal(1, 0.02, (60, 25)), axis=0))
    world = World([f"{i:06d}" for i in range(25)], close)
    ingest = world.write(tmp_path)
    predict = write_predictions(tmp_path / "predict", world, {"lstm": rng.normal(size=(60, 25))}, ["test"] * 60)
    section = BacktestSection(k=5)
    contents = []
    with Cluster(ClusterSection(device="cpu", threads=2)) as cluster:
        with get_task_stream(cluster.client()) as tasks:
            for name in ("one", "two"):
                out = tmp_path / name
                out.mkdir()
                if name == "two":  # what a killed attempt left
                    (out / "equity.parquet").write_bytes(b"half")
                job = Job(out, {"ingest": ingest, "predict": predict}, cluster, silent)
                contents.append(backtest(job, section))
        assert {task["key"].split("-")[0] for task in tasks.data} == {"backtest"}
    assert contents[0] == contents[1]
    assert contents[0]["mode"] == "top_k"
    assert contents[0]["rows"] == 60
    equity = pq.read_table(tmp_path / "two" / "equity.parquet").to_pydict()
    assert min(equity["cash"]) >= 0
    assert max(equity["n_positions"]) == 5
    other = backtest_content(ingest, predict, tmp_path / "three", section.model_copy(update={"k": 6}))
    assert other != contents[0]["content"]


@pytest.mark.parametrize(
    ("settings", "trades", "equity", "digest"),
    [
        ({"mode": "top_k", "k": 5, "rebalance": 5}, 257, 112_503_095, "b2f2145711cf3545"),
        ({"mode": "time_series", "rebalance": 1}, 1148, 95_222_063, "cb3c84511b3fdbad"),
    ],
    ids=["top_k", "time_series"],
)
def test_long_only_results_stay_as_they_are(
    tmp_path: Path, settings: dict[str, Any], trades: int, equity: int, digest: str
) -> None:
    """Every session and trade of a market with halts, a split, a delisting and tight volume, to the last bit."""
    rng = np.random.default_rng(11)
    close = np.rint(20_000 * np.cumprod(rng.normal(1, 0.03, (80, 25)), axis=0))
    opened = np.rint(close * rng.normal(1, 0.01, close.shape))
    close[30:33, 4] = close[60:, 7] = np.nan
    world = World([f"{i:06d}" for i in range(25)], close, opened, np.rint(rng.lognormal(8, 1, close.shape)))
    world.actions = [("000003", str(world.days[41]), 0.3)]
    world.facts = {"000007": {"delisted": world.days[60].item()}}
    costs = {"commission_bp": 1.5, "slippage_bp": 5.0, "participation": 0.1, "capital": 100_000_000}
    split = ["valid"] * 30 + ["test"] * 50
    result = traded(tmp_path, world, rng.normal(size=(80, 25)), split, **costs, **settings)
    rows = [tuple(row.values()) for row in result.trades]
    sessions = [tuple(row.values())[:9] for row in result.equity]
    assert (len(rows), result.column("equity")[-1]) == (trades, equity)
    assert hashlib.sha256(repr((sessions, rows)).encode()).hexdigest()[:16] == digest
