"""The labels as the features stage writes them: at the prices of the backtest, appended, and as training reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.backtest import BacktestSection
from pipeline.backtest.portfolio.market import load
from pipeline.features.section import FeatureSection
from pipeline.features.stage import features
from pipeline.labels import LabelSection
from pipeline.receipt import Receipt
from storage.emit import silent
from storage.schema import BARS
from storage.store import read_json
from tests.feature_stage import NAMES, UNIVERSE, Alone, block_of, order_of, rows
from tests.market import bars, ingested
from tests.naive import triple_barrier
from tests.stage_directories import World
from tests.unit.test_tradable import wild
from training.dataset import prepare
from training.section import TrainSection
from training.splits import TEST, TRAIN, VALID, SplitSection

EVERY = LabelSection(horizons=(5,), kinds=("return", "vol", "barrier"), barriers=(0.8, 1.2))
CLOSE = FeatureSection(set="close", level="numba")  # its columns read neither high nor low


def made(folder: Path, section: FeatureSection = CLOSE, labels: LabelSection = EVERY, *, out: str = "features") -> Any:
    """Run the stage and return its manifest."""
    (folder / out).mkdir(exist_ok=True)
    return features(Alone().job(folder / out, {"ingest": folder / "ingest"}), section, labels, UNIVERSE)


@pytest.mark.parametrize("value", ["side", "return"])
@pytest.mark.parametrize("close_only", [False, True])
def test_labels_follow_from_the_prices_of_the_backtest(tmp_path: Path, close_only: bool, value: Any) -> None:
    """Halts of every kind, limits, a split and two markets, against the twin at the prices of the backtest."""
    close, opened, volume = wild(3)
    world = World(["A", "B", "C", "D"], close, opened, volume, start="2015-05-11")
    world.facts = {"B": {"market": "KOSDAQ GLOBAL"}, "D": {"delisted": world.days[-1].item()}}
    close[40:, 2] /= 5
    opened[40:, 2] /= 5
    world.actions = [("C", str(world.days[40]), 5.0)]
    receipt = Receipt.load(world.write(tmp_path)).model_copy(update={"close_only": close_only})
    labels = EVERY.model_copy(update={"barrier_value": value, "volatility_window": 5, "horizons": (3,)})
    found, _ = block_of(order_of(tmp_path, CLOSE, labels=labels), receipt, list(receipt.symbols))
    market = load(receipt, datetime(2015, 5, 11, tzinfo=UTC), None, BacktestSection(slippage_bp=0.0))
    factor_TS, sides = np.cumprod(market.factor_TS, axis=0), set()
    for s, symbol in enumerate(world.symbols):
        one, factor = found[found["symbol"] == symbol], factor_TS[:, s]
        price = np.where(volume[:, s] > 0, close[:, s] if close_only else opened[:, s], np.nan) * factor
        prices = {
            "buy": market.buy_TS[:, s] * factor,
            "sell": market.sell_TS[:, s] * factor,
            "traded": price,
            "high": price if close_only else np.fmax(price, close[:, s] * factor),
            "low": price if close_only else np.fmin(price, close[:, s] * factor),
            "close": close[:, s] * factor,
        }
        volatility = one["volatility_5"].to_numpy(np.float64)
        side, y, end = triple_barrier(prices, volatility, 3, 0.8, 1.2, delisted=symbol == "D")
        np.testing.assert_allclose(one["y_3_barrier"], side if value == "side" else y, rtol=1e-4, atol=1e-6)
        known = end >= 0
        assert (known == one["y_3_barrier_end"].notna()).all() and known.sum() > 30
        at = one["y_3_barrier_end"].dt.tz_localize(None).to_numpy()[known]
        assert (at == world.ts[end[known].astype(int)]).all()
        np.testing.assert_allclose(
            one["y_3_vol"] * volatility * np.sqrt(3), one["y_3"].where(volatility > 0), rtol=1e-4
        )
        assert (one["y_3_vol_end"].dropna() == one["y_3_end"][one["y_3_vol_end"].notna()]).all()
        sides |= set(side[known])
    assert sides == {-1.0, 0.0, 1.0}


TABLE = bars(NAMES, 260)


def test_an_append_ends_with_the_labels_of_a_whole_run(tmp_path: Path) -> None:
    day = TABLE["ts"].to_numpy()[249]
    ingested(tmp_path / "a", TABLE.filter(pa.array(TABLE["ts"].to_numpy() <= day)))
    made(tmp_path / "a")
    before = rows(tmp_path / "a")
    ingested(tmp_path / "a", TABLE)
    again = made(tmp_path / "a")
    ingested(tmp_path / "b", TABLE)
    assert again["content"] == made(tmp_path / "b")["content"]
    assert rows(tmp_path / "a").equals(rows(tmp_path / "b"))
    after = rows(tmp_path / "a").merge(before[["symbol", "ts"]])
    for name in (target["name"] for target in EVERY.targets()):
        known = before[name].notna()
        assert 0 < (~known).sum() < len(known) and before[known][name].equals(after[known][name])


def test_later_bars_change_no_label_that_is_known(tmp_path: Path) -> None:
    """Bars from one day on are others: labels known before stay, and with them the volatility that they stand on."""
    frame = TABLE.to_pandas()
    late = frame["ts"] > frame["ts"].iloc[200]
    frame.loc[late, ["open", "high", "low", "close"]] *= np.where(np.arange(late.sum()) % 2, 1.5, 0.5)[:, None]
    found = []
    for name, table in (("a", TABLE), ("b", pa.Table.from_pandas(frame, BARS, preserve_index=False))):
        ingested(tmp_path / name, table)
        made(tmp_path / name)
        found.append(rows(tmp_path / name))
    first, second = found
    for target in EVERY.targets():
        name, end = target["name"], target["end"]
        known = first[end] <= frame["ts"].iloc[200]
        assert known.sum() > 1000 and first[known][[name, end]].equals(second[known][[name, end]])
        assert (first[end] > first["ts"])[known].all()
        assert not first[~known][name].equals(second[~known][name])


def test_labels_alone_compute_no_block_though_they_read_more_of_the_bars(tmp_path: Path) -> None:
    ingested(tmp_path, TABLE)
    assert made(tmp_path, labels=LabelSection())["computed"] == 8
    wide = EVERY.model_copy(update={"barriers": (3.0, 3.0)})
    assert [made(tmp_path, out="near")["computed"], made(tmp_path, labels=wide, out="far")["computed"]] == [0, 0]
    alone, near, far = (rows(tmp_path, out) for out in ("features", "near", "far"))
    assert alone["y_5"].equals(near["y_5"]) and near["y_5_vol"].equals(far["y_5_vol"])
    assert (near["y_5_barrier"] == 0).sum() < (far["y_5_barrier"] == 0).sum()
    assert read_json(tmp_path / "near" / "columns.json")["targets"] == EVERY.targets()


def test_the_range_of_a_halt_touches_nothing(tmp_path: Path) -> None:
    """Whatever a source writes as open, high and low of a bar without volume."""
    found = []
    for name, price in (("a", np.nan), ("b", 1.0), ("c", 1e6)):
        frame = bars(NAMES[:2], 120).to_pandas()
        frame.loc[60:62, ["open", "high", "low"]], frame.loc[60:62, "volume"] = price, 0.0
        ingested(tmp_path / name, pa.Table.from_pandas(frame, BARS, preserve_index=False))
        made(tmp_path / name)
        found.append(rows(tmp_path / name))
    assert found[0].equals(found[1]) and found[0].equals(found[2])


def test_training_learns_the_barrier_and_purges_by_its_touch(tmp_path: Path) -> None:
    ingested(tmp_path, TABLE)
    made(tmp_path)
    train = TrainSection(targets=("y_5_barrier",), target_kind="excess", window=4)
    data = prepare(tmp_path / "features", SplitSection(), train, silent)
    whole = rows(tmp_path)
    np.testing.assert_array_equal(data.panel.y_NH[:, 0], whole["y_5_barrier"])
    known = whole["y_5_barrier"].notna().to_numpy()
    end = whole["y_5_barrier_end"].dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    assert (data.panel.end_N[known] == end[known]).all()
    assert (data.panel.end_N[known] < np.int64(2**62)).all() and not (data.panel.end_N[~known] < 2**62).any()
    learned = np.isfinite(data.target_NH[:, 0])
    for part, later in ((TRAIN, VALID), (VALID, TEST)):
        rows_of = learned & (data.split_N == part)
        assert rows_of.any() and (data.panel.end_N[rows_of] < data.fold.start(later)).all()
    assert np.unique(data.panel.y_NH[learned, 0]).tolist() == [-1.0, 0.0, 1.0]
    assert len(data.windows(TRAIN, train)) > 1000
