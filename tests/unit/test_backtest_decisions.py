"""When the backtest decides, from which scores, and how many symbols share the money (docs/order-semantics.md)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backtest import BacktestSection
from pipeline.backtest.portfolio.engine import run
from pipeline.backtest.portfolio.targets import resolved_mode, sleeves
from tests.stage_directories import World, write_predictions

from .backtests import EXACT, NAN, Result, traded


def test_decisions_come_every_n_sessions(tmp_path: Path) -> None:
    scores = [[2, 1], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]
    result = traded(tmp_path, world := World(["A", "B"], [[1000, 1000]] * 6), scores, rebalance=3)
    assert [row[:3] for row in result.did(world)] == [(1, "A", "buy"), (4, "A", "sell"), (4, "B", "buy")]


def test_a_session_without_any_score_decides_nothing(tmp_path: Path) -> None:
    scores = [[1, NAN], [NAN, NAN], [NAN, NAN], [NAN, 1], [NAN, NAN]]
    result = traded(tmp_path, world := World(["A", "B"], [[1000, 1000]] * 5), scores)
    assert [row[:3] for row in result.did(world)] == [(1, "A", "buy"), (4, "A", "sell"), (4, "B", "buy")]


def test_few_symbols_are_traded_in_time_many_across(tmp_path: Path) -> None:
    auto = BacktestSection()
    assert resolved_mode(auto, 19) == "time_series"
    assert resolved_mode(auto, 20) == "top_k"
    assert resolved_mode(BacktestSection(mode="top_k"), 3) == "top_k"


def _timed(tmp_path: Path, after: float) -> Result:
    """30 validation sessions in which scores above 0.5 precede rises, then 10 whose prices depend on `after`."""
    rng = np.random.default_rng(5)
    score = rng.uniform(0, 1, (40, 2))
    moves = np.where(score[:-1] > 0.5, 1.03, 0.98)
    moves[30:] = after
    close = np.rint(50_000 * np.cumprod(np.vstack([np.ones(2), moves]), axis=0))
    world = World(["A", "B"], close, np.vstack([close[:1], close[:-1]]))  # moves come after the fill
    return traded(tmp_path, world, score, ["valid"] * 30 + ["test"] * 10, mode="auto")


def test_threshold_is_fitted_on_validation_and_sees_nothing_later(tmp_path: Path) -> None:
    up, down = _timed(tmp_path / "up", 1.01), _timed(tmp_path / "down", 0.9)
    assert up.metrics["mode"] == "time_series"
    assert up.metrics["threshold"] == down.metrics["threshold"]
    assert 0.35 < up.metrics["threshold"]["value"] < 0.65
    assert len(up.metrics["threshold"]["tried"]) == 9
    assert up.metrics["metrics"]["sessions"] == 10


def test_without_validation_scores_the_threshold_is_zero_and_says_so(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 3)
    result = traded(tmp_path, world, [[0.1, -0.1], [0.1, -0.1], [0.1, -0.1]], mode="time_series")
    assert result.metrics["threshold"]["value"] == 0
    assert "zero is used" in result.metrics["threshold"]["why"]
    assert [row[1] for row in result.did(world)] == ["A"]
    assert result.column("gross_exposure")[-1] == 0.5


def test_sleeves_count_symbols_known_so_far_and_nobody_from_later(tmp_path: Path) -> None:
    """C has its first score in session 3: before, equity is cut in two, whatever comes later."""
    close = np.full((6, 3), 1000.0)
    scores = np.array([[1, 1, NAN]] * 3 + [[1, 1, 1]] * 3)
    whole = traded(tmp_path / "whole", World(["A", "B", "C"], close), scores, mode="time_series")
    assert whole.column("gross_exposure")[1:4] == [1.0, 1.0, 1.0]
    assert [row["symbol"] for row in whole.trades if row["left"] == 333] == ["A", "B", "C"]
    for t in (2, 4):
        cut = traded(tmp_path / str(t), World(["A", "B", "C"], close[:t]), scores[:t], mode="time_series")
        assert cut.equity == whole.equity[:t]


def test_sleeves_and_mode_know_the_symbols_of_validation(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 4)
    scores = [[1, 1], [1, 1], [2, NAN], [2, NAN]]
    result = traded(tmp_path, world, scores, ["valid", "valid", "test", "test"], mode="time_series")
    assert result.metrics["threshold"]["value"] == 1.0  # too few scores: their median
    assert result.column("gross_exposure") == [0.0, 0.5], "B keeps its sleeve"
    assert sleeves(np.array([[1, NAN], [NAN, NAN]]), np.array([False, True])).tolist() == [2, 2]
    assert sleeves(np.array([[NAN, NAN], [NAN, 1]]), np.array([False, False])).tolist() == [1, 1]


def test_scores_of_several_bars_a_day_count_with_their_last(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 3)
    ingest = world.write(tmp_path)
    predict = write_predictions(tmp_path / "predict", world, {"lstm": [[2, 1], [2, 1], [2, 1]]}, ["test"] * 3)
    table = pq.read_table(predict / "predictions.parquet")
    earlier = [
        {**row, "ts": row["ts"] - timedelta(hours=1), "score_lstm": -row["score_lstm"]} for row in table.to_pylist()
    ]
    both = pa.concat_tables([table, pa.Table.from_pylist(earlier, table.schema)])
    pq.write_table(both, predict / "predictions.parquet")
    (tmp_path / "out").mkdir()
    run({"ingest": ingest, "predict": predict}, tmp_path / "out", BacktestSection.model_validate(EXACT))
    assert pq.read_table(tmp_path / "out" / "trades.parquet")["symbol"].to_pylist() == ["A"]
