"""C8 and C9: the planted signal is found out of sample over ten markets; with shuffled labels nothing is."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.features.section import FeatureSection
from pipeline.features.stage import features
from pipeline.kis.simulator.market import Market
from pipeline.labels import LabelSection
from pipeline.receipt import take
from pipeline.universe import UniverseSection
from storage.emit import silent
from storage.lake import Lake
from storage.schema import ACTIONS, BARS, SYMBOLS
from storage.store import read_json
from tests.feature_stage import Alone
from training.predict import predict_all
from training.section import PredictSection, TrainSection
from training.splits import SplitSection
from training.task import train_all

SEEDS = range(10)
SYMBOLS_COUNT = 60
START, END = date(2023, 11, 1), date(2026, 10, 30)
CLOCK = datetime(2026, 10, 30, 12, tzinfo=UTC)


def blocks(folder: Path, seed: int) -> Path:
    """Put one simulated market into a lake and make its feature blocks; return the folder of the features stage."""
    market = Market(seed, SYMBOLS_COUNT, clock=lambda: CLOCK)
    listed = market.symbols()
    lake, tables, actions = Lake(folder / "lake"), [], []
    for symbol in listed["symbol"].to_pylist():
        rows = market.daily(symbol, START, END)
        n = len(rows["date"])
        ts = krx.session_closes(rows["date"]).astype("datetime64[us]")
        text = {"symbol": symbol, "venue": "KRX", "interval": "1d", "source": f"sim-{seed}"}
        columns = {k: pa.array([v] * n, pa.string()) for k, v in text.items()}
        columns |= {k: pa.array(rows[k].astype(float)) for k in ("open", "high", "low", "close", "volume", "turnover")}
        columns |= {
            "ts": pa.array(ts, BARS.field("ts").type),
            "ingested_at": pa.array([0] * n, BARS.field("ingested_at").type),
        }
        tables.append(pa.table(columns).select(BARS.names).cast(BARS))
        found = market.actions(symbol)
        stamp = [
            ("source", pa.array([f"sim-{seed}"] * found.num_rows)),
            ("ingested_at", pa.array([0] * found.num_rows, ACTIONS.field("ingested_at").type)),
        ]
        for name, values in stamp:
            found = found.append_column(name, values)
        actions.append(found.select(ACTIONS.names).cast(ACTIONS))
    lake.write("bars", pa.concat_tables(tables))
    lake.write("actions", pa.concat_tables(actions))
    source = pa.array([f"sim-{seed}"] * listed.num_rows)
    listed = listed.append_column("source", source).append_column(
        "ingested_at", pa.array([0] * listed.num_rows, SYMBOLS.field("ingested_at").type)
    )
    lake.write("symbols", listed.select(SYMBOLS.names).cast(SYMBOLS))
    receipt = take(
        lake, source=f"sim-{seed}", venue="KRX", market="KRX", intervals=("1d",),
        symbols=tuple(sorted(listed["symbol"].to_pylist())), start=START, end=END, close_only=False, quarantined={},
    )  # fmt: skip
    (folder / "ingest").mkdir()
    receipt.save(folder / "ingest")
    job = Alone().job(folder / "features", {"ingest": folder / "ingest"})
    features(job, FeatureSection(level="numba"), LabelSection(), UniverseSection(leave_out=()))
    return job.out


def out_of_sample(features: Path, folder: Path, seed: int, *, shuffled: bool) -> dict[str, float]:
    """Train a small LSTM and the ridge baseline; return the mean rank IC of each on the test part."""
    train = TrainSection(
        hidden_size=16,
        num_epochs=2,
        patience=0,
        windows_per_epoch=8000,
        learning_rate=3e-3,
        seed=seed,
        shuffle_labels=shuffled,
    )
    train_all(features, folder / "train", SplitSection(), train, "cpu", silent)
    predict_all(features, folder / "train", folder / "predict", PredictSection(), "cpu", silent)
    metrics = read_json(folder / "predict" / "metrics.json")
    return {model: metrics[model]["test"]["mean_rank_ic"] for model in ("lstm", "ridge")}


@pytest.fixture(scope="module")
def coefficients(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], list[float]]:
    found: dict[tuple[str, bool], list[float]] = {}
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp(f"market{seed}")
        features = blocks(folder, seed)
        for shuffled in (False, True):
            (folder / str(shuffled)).mkdir()
            for model, ic in out_of_sample(features, folder / str(shuffled), seed, shuffled=shuffled).items():
                found.setdefault((model, shuffled), []).append(ic)
    return found


@pytest.mark.parametrize("model", ["lstm", "ridge"])
def test_the_planted_signal_is_found_out_of_sample(
    coefficients: dict[tuple[str, bool], list[float]], model: str
) -> None:
    found = np.array(coefficients[model, False])
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert found.mean() > 3 * error, found
    assert found.mean() > 0.03, found
    assert found.mean() < 0.2, "better than knowing the hidden state: something looks ahead"


@pytest.mark.parametrize("model", ["lstm", "ridge"])
def test_with_shuffled_labels_nothing_is_found(coefficients: dict[tuple[str, bool], list[float]], model: str) -> None:
    found = np.array(coefficients[model, True])
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean()) < 3 * error, found
