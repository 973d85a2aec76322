"""What a portfolio is held against (docs/order-semantics.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.backtest import BacktestError, BacktestSection
from pipeline.backtest.portfolio.engine import run
from pipeline.receipt import Receipt
from storage.schema import BARS
from tests.stage_directories import SOURCE, TS, World, write_predictions

from .backtests import EXACT, NAN, Result, traded

# A splits 2:1 and rises 10 %, B falls 10 %, C is halted on session 1 and D is delisted on it.
CLOSE = [[1000, 1000, 1000, 1000], [550, 900, NAN, 500], [550, 900, 1200, NAN]]


def world() -> World:
    out = World(["A", "B", "C", "D"], CLOSE)
    out.actions = [("A", str(out.days[1]), 2.0)]
    out.facts = {"D": {"delisted": out.days[1].item()}}
    return out


def test_money_that_earns_nothing(tmp_path: Path) -> None:
    result = traded(tmp_path, world(), [[1, 1, 1, 1]] * 3, benchmark="none")
    assert result.column("benchmark") == [1e6] * 3
    assert result.metrics["benchmark"] == "none"
    assert result.metrics["assumptions"][-1] == "benchmark: money that earns nothing"


def test_a_symbol_of_the_data(tmp_path: Path) -> None:
    """Adjusted for its split, carried over halts."""
    result = traded(tmp_path / "a", world(), [[1, 1, 1, 1]] * 3, benchmark="A")
    assert result.column("benchmark") == pytest.approx([1e6, 1.1e6, 1.1e6])
    result = traded(tmp_path / "c", world(), [[1, 1, 1, 1]] * 3, benchmark="C")
    assert result.column("benchmark") == pytest.approx([1e6, 1e6, 1.2e6])


def test_weights_by_market_value_follow_splits_backwards(tmp_path: Path) -> None:
    """The table says A's shares after the split: before it there were half as many, at twice the price."""
    given = world()
    shares = {"A": 200.0, "B": 300.0, "C": 100.0, "D": 500.0}
    given.facts = {s: {"shares": n, **given.facts.get(s, {})} for s, n in shares.items()}
    result = traded(tmp_path, given, [[1, 1, 1, 1]] * 3, benchmark="cap")
    start = 100 * 1000 + 300 * 1000 + 100 * 1000 + 500 * 1000
    first = (200 * 550 + 300 * 900 + 100 * 1000 + 500 * 500) / start
    second = (200 * 550 + 300 * 900 + 100 * 1200) / (200 * 550 + 300 * 900 + 100 * 1000)
    assert result.column("benchmark") == pytest.approx([1e6, 1e6 * first, 1e6 * first * second])


def test_market_values_need_shares(tmp_path: Path) -> None:
    with pytest.raises(BacktestError, match="numbers of shares in the symbols table"):
        traded(tmp_path, world(), [[1, 1, 1, 1]] * 3, benchmark="cap")


def test_an_unknown_benchmark_is_said(tmp_path: Path) -> None:
    with pytest.raises(BacktestError, match="got 'KOSPI', which the receipt does not name; it has 4 symbols"):
        traded(tmp_path, world(), [[1, 1, 1, 1]] * 3, benchmark="KOSPI")


def test_an_index_of_the_data(tmp_path: Path) -> None:
    """Its closes, the last one carried over a session that it lacks."""
    given = world()
    ingest = given.write(tmp_path)
    receipt = Receipt.load(ingest)
    closes = {0: 2500.0, 2: 2750.0}
    rows = [
        {
            "symbol": "0001",
            "venue": "KRX",
            "interval": "1d",
            "ts": given.ts[t].item(),
            **dict.fromkeys(("open", "high", "low", "close"), close),
            "volume": 1.0,
            "turnover": 1.0,
            "source": SOURCE,
        }
        for t, close in closes.items()
    ]
    table = pa.Table.from_pylist([{**row, "ingested_at": row["ts"]} for row in rows])
    stamps = {name: table[name].cast(pa.timestamp("us")).cast(TS) for name in ("ts", "ingested_at")}
    receipt.opened.write("bars", pa.table({name: stamps.get(name, table[name]) for name in BARS.names}, schema=BARS))
    receipt.model_copy(update={"indices": ("0001",)}).save(ingest)
    predict = write_predictions(tmp_path / "predict", given, {"lstm": np.ones((3, 4))}, ["test"] * 3)
    (out := tmp_path / "out").mkdir()
    section = BacktestSection.model_validate(EXACT | {"benchmark": "0001"})
    result = Result(out, run({"ingest": ingest, "predict": predict}, out, section))
    assert result.column("benchmark") == pytest.approx([1e6, 1e6, 1.1e6])
