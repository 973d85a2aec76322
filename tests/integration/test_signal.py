"""The planted signal is found out of sample; with shuffled labels nothing is."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.features.section import FeatureSection
from pipeline.features.stage import features
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.strength import attainable_ic
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

LOG = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures
END = date(2026, 10, 30)
CLOCK = datetime(2026, 10, 30, 12, tzinfo=UTC)
SMALL, LARGE = (60, date(2023, 11, 1)), (120, date(2021, 11, 1))  # symbols, first day


def blocks(folder: Path, seed: int, size: tuple[int, date] = SMALL) -> Path:
    """Put one simulated market into a lake and make its feature blocks; return the folder of the features stage."""
    symbols, start = size
    market = Market(seed, symbols, clock=lambda: CLOCK)
    listed = market.symbols()
    lake, tables, actions = Lake(folder / "lake"), [], []
    for symbol in listed["symbol"].to_pylist():
        rows = market.daily(symbol, start, END)
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
        symbols=tuple(sorted(listed["symbol"].to_pylist())), start=start, end=END, close_only=False, quarantined={},
    )  # fmt: skip
    (folder / "ingest").mkdir()
    receipt.save(folder / "ingest")
    job = Alone().job(folder / "features", {"ingest": folder / "ingest"})
    features(job, FeatureSection(level="numba"), LabelSection(), UniverseSection(leave_out=()))
    return job.out


def out_of_sample(features: Path, folder: Path, **settings: Any) -> dict[str, float]:
    """Train an LSTM and the ridge baseline; return the mean rank IC of each on the test part, and its first day."""
    for name in ("train", "predict"):
        (folder / name).mkdir(parents=True)
    train_all(features, folder / "train", SplitSection(), TrainSection(**settings), "cpu", silent)
    predict_all(features, folder / "train", folder / "predict", PredictSection(), "cpu", silent)
    metrics = read_json(folder / "predict" / "metrics.json")
    return {model: metrics[model]["test"]["mean_rank_ic"] for model in ("lstm", "ridge")}


def known_ic(seed: int, size: tuple[int, date], folder: Path) -> dict[str, float]:
    """Return the mean rank IC over the test part of the hidden state and of what volumes alone tell about it."""
    (fold,) = read_json(folder / "train" / "folds.json")
    (test,) = [span for span in fold["spans"] if span["part"] == "test"]
    return attainable_ic(Market(seed, size[0], clock=lambda: CLOCK), date.fromisoformat(test["from"]), END)


QUICK: dict[str, Any] = {
    "hidden_size": 16,
    "num_epochs": 3,
    "patience": 0,
    "windows_per_epoch": 8000,
    "learning_rate": 3e-3,
}


def test_two_small_markets_are_read_and_shuffled_ones_are_not(tmp_path: Path) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(2):
        features = blocks(tmp_path / str(seed), seed)
        for shuffled, ics in found.items():
            ic = out_of_sample(features, tmp_path / f"{seed}-{shuffled}", **QUICK, seed=seed, shuffle_labels=shuffled)
            ics += ic.values()
    assert np.mean(found[False]) > 0.03 > abs(np.mean(found[True])), found


@pytest.mark.slow
def test_most_of_what_can_be_attained_is_found_over_ten_markets(tmp_path: Path) -> None:
    ics, attainable = [], []
    for seed in range(10):
        features, folder = blocks(tmp_path / str(seed), seed, LARGE), tmp_path / f"fit-{seed}"
        settings = {"num_epochs": 6, "learning_rate": 3e-3, "dropout": 0.3}
        ics.append(out_of_sample(features, folder, **settings, seed=seed))
        attainable.append(known_ic(seed, LARGE, folder))
        shutil.rmtree(tmp_path / str(seed))
    best, hidden = (np.mean([one[name] for one in attainable]) for name in ("volume", "hidden"))
    for model in ("lstm", "ridge"):
        mean = np.mean([one[model] for one in ics])
        LOG.info("%s: %.4f of %.4f attainable, %.4f by the hidden state", model, mean, best, hidden)
        assert mean >= 0.7 * best, (model, ics, attainable)
        assert mean < hidden, "better than knowing the hidden state: something looks ahead"


@pytest.mark.slow
def test_with_shuffled_labels_nothing_is_found_over_twenty_markets(tmp_path: Path) -> None:
    ics = []
    for seed in range(20):
        features = blocks(tmp_path / str(seed), seed)
        ics.append(out_of_sample(features, tmp_path / f"fit-{seed}", **QUICK, seed=seed, shuffle_labels=True))
        shutil.rmtree(tmp_path / str(seed))
    for model in ("lstm", "ridge"):
        found = np.array([one[model] for one in ics])
        error = found.std(ddof=1) / np.sqrt(len(found))
        LOG.info("%s: %+.4f +- %.4f", model, found.mean(), error)
        assert abs(found.mean()) < 3 * error, (model, found)
