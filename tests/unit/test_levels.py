"""The columns by pandas and Polars against the kernels, the stage at these levels, and which level is chosen."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.cluster import Cluster, ClusterSection
from pipeline.features.levels import SMALL, chosen
from pipeline.features.section import FeatureError, FeatureSection, feature_set
from pipeline.indicators import ALL, IndicatorError, Spec, compute, resolve
from pipeline.indicators.libraries import FORMULAS, LIBRARIES
from pipeline.receipt import Receipt
from tests.feature_blocks import Recorder
from tests.feature_stage import NAMES, Alone, rows, stage
from tests.market import bars, ingested
from tests.unit.test_indicators import CASES
from tests.walks import Bars, frame, walk

TURNS = [
    "kama",
    "sar",
    "supertrend",
    "max_drawdown",
    "macd_double",
]  # each value depends on the one before in its own way
SPECS = [Spec(indicator=one.name, params=params) for one, params in CASES if one.name in FORMULAS]
LOOSE = {  # 0 / 0 up to rounding, in what is left of a range after a halt: kernels and libraries are both right
    "keltner_place": 1e-6,
    "r_squared": 1e-7,
}

ROUNDING = 1e-12  # of a difference of means of equal prices


@pytest.fixture(params=LIBRARIES)
def level(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


def holes() -> pd.DataFrame:
    found = frame({"A": walk(150, 1), "B": walk(90, 2), "C": walk(5, 3)})
    blank = np.random.default_rng(0).random(len(found)) < 0.2
    blank[0] = blank[-5:] = True  # the first row, and all of the last symbol
    found.loc[blank, "high"] = np.nan
    found.loc[np.flatnonzero(blank)[::2], "close"] = np.inf
    return found


def still() -> pd.DataFrame:
    """Return a price that is halted after a lively start, one in coarse steps, and one that never moves."""
    lively, steps = walk(97, 10), walk(300, 8, step=0.003)
    prices = ("open", "high", "low", "close")
    halted = {k: np.append(v, np.full(120, (lively["close"] if k in prices else v)[-1])) for k, v in lively.items()}
    halted["volume"][97:] = halted["turnover"][97:] = 0.0
    coarse = {k: np.round(v / 500) * 500 if k in prices else v for k, v in steps.items()}
    constant: Bars = dict.fromkeys((*prices, "market"), np.full(120, 5_000.0))
    constant |= dict.fromkeys(("volume", "turnover", "day"), np.zeros(120))
    return frame({"A": halted, "B": coarse, "C": constant})


PANELS = {
    "walks": lambda: frame({"A": walk(300, 1), "B": walk(40, 2), "C": walk(1, 3), "D": walk(700, 4)}),
    "still": still,
    "holes": holes,
}


def wrong(expected: pd.DataFrame, got: pd.DataFrame, symbol: Any, specs: Any = SPECS) -> dict[str, str]:
    """Return what differs by column: beyond its indicator's tolerance of the symbol's largest value, or known only to
    one.
    """
    out, columns = {}, {c.name: c for c in resolve(specs)}
    for name in expected:
        one = columns[name].indicator
        tolerance = max(one.tolerance, LOOSE.get(one.outputs[columns[name].output].name, 0.0))
        if (expected[name].isna() != got[name].isna()).any():
            out[name] = f"{(expected[name].isna() != got[name].isna()).sum()} values known only to one"
            continue
        size = expected[name].abs().groupby(symbol).transform("max")
        gap = ((expected[name] - got[name]).abs() - tolerance * size).max()
        if gap > ROUNDING:
            out[name] = f"{gap:.3g} beyond {tolerance:g}"
    return out


@pytest.mark.parametrize("panel", PANELS)
def test_every_column_equals_that_of_the_kernels(panel: str, level: str) -> None:
    found = PANELS[panel]()
    expected, got = (compute(found, SPECS, dtype=np.float64, level=one) for one in ("numba", level))
    assert list(got.columns) == list(expected.columns) and len(expected.columns) > 200
    assert wrong(expected, got, found["symbol"].to_numpy()) == {}
    stored = compute(found, SPECS, level=level)
    pd.testing.assert_frame_equal(stored, got.astype(np.float32))


def test_what_no_window_expresses_is_all_that_is_missing() -> None:
    assert sorted({one.name for one in ALL} - FORMULAS.keys()) == sorted(TURNS)
    assert {one.name for one in ALL} >= FORMULAS.keys()


@pytest.mark.parametrize("name", ["basic", "close", "alpha158", "intraday", "bench30"])
def test_shipped_sets_divided_by_the_close_under_their_names(name: str, level: str) -> None:
    found, specs = frame({"A": walk(200, 1), "B": walk(80, 2)}), feature_set(name)
    expected, got = (compute(found, specs, dtype=np.float64, level=one) for one in ("numba", level))
    assert list(got.columns) == list(expected.columns)
    assert wrong(expected, got, found["symbol"].to_numpy(), specs) == {}


def test_days_are_made_of_stamps_and_coarser_bars_are_seen_once_they_have_closed(level: str) -> None:
    found = frame({"A": walk(300, 1), "B": walk(90, 2)}).drop(columns="day")
    at = found.groupby("symbol").cumcount()
    found["ts"] = pd.Timestamp("2024-01-01", tz="UTC").as_unit("us") + pd.to_timedelta(at, unit="h")
    coarse = found[at % 4 == 3].reset_index(drop=True)
    specs = [
        {"indicator": "session_vwap", "over": "close"},
        {"indicator": "session", "params": {"n": 3}},
        {"indicator": "rsi", "params": {"n": 5}, "at": "4h"},
        {"indicator": "ema", "params": {"n": 5}, "at": "4h", "over": "close"},
        {"indicator": "roc", "params": {"n": 2}, "cross": ["rank"]},
    ]
    expected, got = (
        compute(found, specs, dtype=np.float64, coarser={"4h": coarse}, level=one) for one in ("numba", level)
    )
    assert {"rsi_5@4h", "ema_5_over_close@4h", "session_vwap_over_close"} <= set(got.columns)
    assert wrong(expected, got, found["symbol"].to_numpy(), specs) == {}


def test_later_bars_and_other_symbols_change_no_bit(level: str) -> None:
    late = walk(200, 2)
    early = {name: values[:120] for name, values in late.items()}
    both = compute(frame({"A": walk(300, 1, start=7e6), "B": late}), SPECS, dtype=np.float64, level=level)
    alone = compute(frame({"B": early}), SPECS, dtype=np.float64, level=level)
    pd.testing.assert_frame_equal(both[300:420].reset_index(drop=True), alone, check_exact=True)


def test_no_bars_give_no_columns_and_all_holes_nothing_but_nan(level: str) -> None:
    found, specs = frame({"A": walk(30, 1)}), [{"indicator": "ema", "params": {"n": 5}}]
    assert compute(found[:0], specs, level=level).shape == (0, 1)
    assert compute(found.assign(close=np.nan), specs, level=level).isna().all(axis=None)


def test_what_goes_from_bar_to_bar_is_refused_by_name(level: str) -> None:
    specs = [{"indicator": name} for name in ("sma", "kama", "sar")]
    with pytest.raises(IndicatorError, match=rf"{level} can express .* got \['kama_10', 'sar_0.02_0.2'\].*level numba"):
        compute(frame({"A": walk(30, 1)}), specs, level=level)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(IndicatorError, match=r"the package polars .*not installed.*\.\[polars\].*level numba"):
        compute(frame({"A": walk(30, 1)}), [{"indicator": "sma"}], level="polars")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    ingested(folder, bars(NAMES, 300))
    stage(folder, Alone(), FeatureSection(level="numba"), out="numba")
    return folder


def test_the_stage_at_a_library_is_close_to_the_kernels_and_kept_apart(market: Path, level: str) -> None:
    said = Recorder()
    section = FeatureSection(level=level)
    made = stage(market, Alone(), section, emit=said, out=level)
    assert said.said(f"features.level {level} as asked, all periods at once") and made["level"] == level
    expected, got = rows(market, "numba"), rows(market, level)
    assert list(got.columns) == list(expected.columns) and len(got) == len(expected) == made["rows"]
    names = [c.name for c in section.columns(close_only=False)]
    np.testing.assert_allclose(got[names], expected[names], rtol=3e-7, atol=1e-7)
    pd.testing.assert_frame_equal(got.drop(columns=names), expected.drop(columns=names))
    assert {path.stem for path in (market / level / "blocks").glob("*")} == {f"{group:03d}-all" for group in range(8)}
    assert made["computed"] == 8, "nothing of the kernels is taken for theirs"
    again = stage(market, Alone(), section, out=level)
    assert (again["content"], again["computed"]) == (made["content"], 0)
    assert section.keyed() != FeatureSection(level="numba").keyed() == FeatureSection(level="dask").keyed()


def test_the_stage_refuses_before_anything_is_computed(market: Path) -> None:
    section = FeatureSection(level="pandas", extra=(Spec(indicator="supertrend"),))
    with pytest.raises(
        FeatureError, match=r"got \['supertrend_10_3', 'supertrend_direction_10_3'\].*features.level numba"
    ):
        stage(market, Alone(), section, out="refused")
    assert not (market / "refused" / "blocks").exists()


def choice(receipt: Receipt, level: str = "auto", *, gpu: bool = False, rows: int = 1000, **where: Any) -> str:
    """Return the level that is chosen, whose name and reason the log says."""
    cluster = Cluster(ClusterSection(device="cpu", **where))
    cluster.device = "gpu" if gpu else "cpu"
    section = FeatureSection(level=level)  # type: ignore[arg-type]
    receipt = receipt.model_copy(update={"rows": {"1d": rows}})
    found = chosen(section, receipt, cluster, section.columns(close_only=False))
    assert f"features.level {level}" in found.said and found.name in found.said and f"{rows:,} bars" in found.said
    return found.name


def test_auto_goes_by_device_workers_and_size(market: Path) -> None:
    receipt = Receipt.load(market / "ingest")
    assert choice(receipt) == "numba"
    assert choice(receipt, rows=SMALL) == "dask"
    assert choice(receipt, max_workers=2) == "dask"
    assert choice(receipt, address="tcp://127.0.0.1:1") == "dask"
    assert choice(receipt, gpu=True) == choice(receipt, gpu=True, rows=SMALL) == "cuda"


def test_a_level_that_is_asked_for_is_taken_where_it_can_be(market: Path) -> None:
    receipt = Receipt.load(market / "ingest")
    there = [level for level in ("pandas", "polars", "numba", "dask") if find_spec(level)]
    for level in there:
        assert choice(receipt, level, gpu=level == "numba", rows=SMALL) == level
    assert choice(receipt, "cuda", gpu=True) == "cuda"
    with pytest.raises(FeatureError, match=r"a GPU for features.level cuda, got none.*auto"):
        choice(receipt, "cuda")
