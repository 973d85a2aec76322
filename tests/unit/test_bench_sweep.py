"""The benchmark of sweeps gives all its measures, of the grid that its definition names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.bench import sweep

pytestmark = pytest.mark.bench


def test_the_grid_is_drawn_as_its_definition_says() -> None:
    rng, grid = np.random.default_rng(3), sweep.fixed_grid(1_000)
    assert (grid["fast"] == rng.choice([6, 8, 10, 12, 14], 1_000)).all()
    assert (grid["slow"] == rng.choice([20, 24, 26, 30, 36], 1_000)).all()
    assert sorted(grid["filter_timeframe"].unique()) == ["1h", "4h"]
    assert sorted(grid["entry_timeframe"].unique()) == ["15m", "30m"]
    assert [grid[name].between(low, high).all() for name, low, high in (
        ("stop_atr", 1, 4), ("trail_start_atr", 0.5, 3), ("trail_atr", 0.5, 3)
    )] == [True] * 3  # fmt: skip
    assert len(sweep.walk()) == 12_000


def test_every_measure_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "COMBINATIONS": 40,
        "MILLION": 2_000,
        "TURNS": 2,
        "ALONE": 4,
        "PER_TASK": {"pickled_pool": (1, 2), "batched_process": (10, 20)},
    }
    for name, value in small.items():
        monkeypatch.setattr(sweep, name, value)
    monkeypatch.delenv(sweep.PEER, raising=False)
    targets = json.loads((sweep.ROOT / "docs" / "benchmarks" / "targets.json").read_text())
    found = {measure.name: measure for measure in sweep.run()}
    assert sorted(found) == sorted(t["name"] for t in targets if t["bench"] == "sweep")
    assert all(measure.ours > 0 for measure in found.values())
    assert sweep.PEER in found["sweep.vs_vectorbt_sim"].note


def test_the_best_of_many_are_proved_by_the_whole_result() -> None:
    peak, exact = sweep.million(500, parts=3)
    assert float(peak) > 0
    assert exact == "exact"
