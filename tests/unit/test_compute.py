"""What `compute` takes as bars, coarser bars and words, and what it says about all others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.indicators import IndicatorError, compute
from tests.walks import frame, walk

UNITS = ("s", "ms", "us", "ns")
SPECS = [{"indicator": "rsi", "params": {"n": 5}}, {"indicator": "atr", "params": {"n": 5}}]
BARS = frame({"A": walk(60, 1), "B": walk(40, 2)})
AT = [{"indicator": "roc", "params": {"n": 2}, "at": "1h"}]


def quarters() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return bars of 15 minutes and every fourth of them as a bar of an hour."""
    found = frame({"A": walk(240, 1), "B": walk(80, 2)})
    place = found.groupby("symbol").cumcount()
    found["ts"] = (pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta((place + 1) * 15, unit="m")).dt.as_unit("us")
    return found, found[place % 4 == 3].reset_index(drop=True)


FINE, HOURS = quarters()


def as_unit(bars: pd.DataFrame, unit: Any) -> pd.DataFrame:
    return bars.assign(ts=bars["ts"].dt.as_unit(unit))


@pytest.mark.parametrize("fine", UNITS)
@pytest.mark.parametrize("coarse", UNITS)
def test_stamps_of_other_units_show_no_bar_before_its_end(fine: str, coarse: str) -> None:
    expected = compute(FINE, AT, coarser={"1h": HOURS})
    assert expected["roc_2@1h"].first_valid_index() == 11, "the third hour, once it has ended"
    got = compute(as_unit(FINE, fine), AT, coarser={"1h": as_unit(HOURS, coarse)})
    pd.testing.assert_frame_equal(got, expected)


def test_stamps_are_compared_to_the_nanosecond() -> None:
    late = as_unit(HOURS, "ns").assign(ts=lambda f: f["ts"] + pd.Timedelta(1, "ns"))
    got, expected = (compute(FINE, AT, coarser={"1h": one})["roc_2@1h"] for one in (late, HOURS))
    a_bar_later = expected.groupby(FINE["symbol"]).shift(1)
    pd.testing.assert_series_equal(got, a_bar_later)


def test_stamps_that_the_finest_unit_does_not_hold_are_refused() -> None:
    far = HOURS.assign(ts=HOURS["ts"] + np.timedelta64(365_250, "D").astype("timedelta64[us]"))
    with pytest.raises(IndicatorError, match=r"ts that ns hold, .*got some up to 3024-.*as_unit\('us'\)"):
        compute(as_unit(FINE, "ns"), AT, coarser={"1h": far})


def naive(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(ts=bars["ts"].dt.tz_localize(None))


COARSER: list[tuple[pd.DataFrame, Any, str]] = [
    (FINE, {"1h": naive(HOURS)}, r"the bars with a time zone and coarser\['1h'\] without"),
    (naive(FINE), {"1h": HOURS}, r"the bars without a time zone and coarser\['1h'\] with"),
    (FINE, {"1h": HOURS.assign(interval="2h")}, r"expected bars of 1h in coarser\['1h'\], got those of 2h"),
    (FINE.assign(interval="1h"), {"1h": HOURS}, "coarser than the bars, which are of 1h, got at: 1h"),
    (FINE.assign(interval="1d"), {"1h": HOURS}, "coarser than the bars, which are of 1d, got at: 1h"),
    (FINE, {"1h": HOURS.drop(columns="close")}, r"in coarser\['1h'\], got none named \['close'\]"),
    (FINE, {"1h": HOURS.assign(ts=HOURS["ts"].astype(str))}, r"datetimes in 'ts' of coarser\['1h'\]"),
    (FINE, {"1h": HOURS.to_dict()}, r"frame as coarser\['1h'\], got builtins.dict"),
    (FINE, {"1w": HOURS}, "a frame of bars of 1h for columns at it, got none"),
    (FINE, HOURS, "coarser as frames by interval"),
]


@pytest.mark.parametrize(("bars", "coarser", "message"), COARSER, ids=[str(i) for i in range(len(COARSER))])
def test_coarser_bars_that_do_not_fit_are_refused(bars: pd.DataFrame, coarser: Any, message: str) -> None:
    with pytest.raises(IndicatorError, match=message):
        compute(bars, AT, coarser=coarser)


def with_hole(name: str, row: int) -> pd.DataFrame:
    found = BARS.copy()
    found.loc[row, name] = None
    return found


def garbage() -> pd.DataFrame:
    found = BARS.assign(close=BARS["close"].astype(object))
    found.loc[5, "close"] = "n/a"
    return found


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: BARS.assign(ts=BARS["ts"].astype(str)), r"datetimes in 'ts' of the bars, got str, .*to_datetime"),
    (lambda: BARS.assign(ts=BARS["ts"].dt.date), "datetimes in 'ts' of the bars, got object, such as datetime.date"),
    (lambda: BARS.assign(ts=BARS["ts"].astype(object)), "datetimes in 'ts' of the bars, got object, such as Timestamp"),
    (lambda: BARS.assign(ts=BARS["ts"].astype("int64")), "datetimes in 'ts' of the bars, got int64"),
    (lambda: with_hole("ts", 0), "a ts in every row of the bars, got 1 without, the first in row 0"),
    (lambda: with_hole("ts", 3), "a ts in every row of the bars, got 1 without, the first in row 3"),
    (lambda: with_hole("symbol", 99), "a symbol in every row of the bars, got 1 without, the first in row 99"),
    (lambda: BARS.assign(close=BARS["close"].astype(str)), "real numbers in 'close' of the bars, got str.*to_numeric"),
    (garbage, "real numbers in 'close' of the bars, got object, such as 'n/a'"),
    (lambda: BARS.assign(close=BARS["close"] + 1j), "real numbers in 'close' of the bars, got complex128"),
    (lambda: BARS.assign(close=BARS["ts"]), "real numbers in 'close' of the bars, got datetime64"),
    (lambda: pd.concat([BARS, BARS[["close"]]], axis=1), r"each column once .* several named \['close'\]"),
    (lambda: BARS.set_index(["symbol", "ts"]), r"none named \['symbol', 'ts'\]; .*give bars.reset_index"),
    (lambda: BARS.to_dict(), r"a pandas or cuDF frame as the bars, got builtins.dict; make one"),
    (lambda: pa.Table.from_pandas(BARS), r"frame as the bars, got pyarrow.lib.Table; give table.to_pandas\(\)"),
    (lambda: BARS.assign(symbol=BARS["symbol"].map({"A": 9, "B": 10})), r"as text, .*'10' after '9'.*astype\(str\)\)"),
    (
        lambda: BARS.assign(symbol=BARS["symbol"].astype(pd.CategoricalDtype(["B", "A"], True))).sort_values("symbol"),
        r"as text, .*'A' after 'B'.*astype\(str\)\).sort_values",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("bars", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_frames_that_cannot_be_computed_on_are_refused(bars: Callable[[], Any], message: str) -> None:
    with pytest.raises(IndicatorError, match=message):
        compute(bars(), SPECS)


def test_the_code_that_errors_give_helps() -> None:
    found = BARS.assign(symbol=BARS["symbol"].map({"A": 9, "B": 10}))
    got = compute(found.assign(symbol=found["symbol"].astype(str)).sort_values(["symbol", "ts"]), SPECS)
    pd.testing.assert_frame_equal(got.sort_index(), compute(BARS, SPECS))


def test_frames_of_polars_and_dask_are_told_what_to_do() -> None:
    polars, dask = pytest.importorskip("polars"), pytest.importorskip("dask.dataframe")
    table = polars.from_arrow(pa.Table.from_pandas(BARS, preserve_index=False))
    for found, said in (
        (table, r"polars.*; give frame.to_pandas\(\)"),
        (table.lazy(), r"polars.*LazyFrame; .*frame.collect\(\).to_pandas\(\)"),
        (dask.from_pandas(BARS, npartitions=2), r"dask.*; give frame.compute\(\)"),
    ):
        with pytest.raises(IndicatorError, match=f"a pandas or cuDF frame as the bars, got {said}"):
            compute(found, SPECS)


@pytest.mark.parametrize("unit", UNITS)
def test_columns_of_arrow_are_the_same(unit: str) -> None:
    bars, specs = BARS.drop(columns="day"), [*SPECS, {"indicator": "session_vwap"}]
    arrow = as_unit(bars, unit).convert_dtypes(dtype_backend="pyarrow")
    assert "pyarrow" in str(arrow["ts"].dtype)
    pd.testing.assert_frame_equal(compute(arrow, specs), compute(bars, specs))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"level": "polarz"}, "numba, pandas or polars, got 'polarz'; did you mean 'polars'"),
        ({"level": "cuda"}, "got 'cuda'; cuda is for the features stage"),
        ({"level": "dask"}, "got 'dask'; dask is for the features stage"),
        ({"level": "auto"}, "got 'auto'; auto is for the features stage"),
        ({"dtype": "float16"}, "float32 or float64, got 'float16'"),
        ({"dtype": int}, "float32 or float64, got <class 'int'>"),
        ({"dtype": "flaot"}, "float32 or float64, got 'flaot'"),
        ({"threads": 0}, "a whole number from 1 on, got 0"),
        ({"threads": -1}, "a whole number from 1 on, got -1"),
        ({"threads": 1.5}, "a whole number from 1 on, got 1.5"),
    ],
)
def test_words_that_are_unknown_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(IndicatorError, match=message):
        compute(BARS, SPECS, **words)


def test_sectors_and_sizes_are_of_the_stage_alone() -> None:
    for by in ("sector", "size"):
        with pytest.raises(
            IndicatorError, match=rf"neutralise for \['roc_10_neutralise_{by}'\]; only the features stage"
        ):
            compute(BARS, [{"indicator": "roc", "cross": [{"neutralise": [by]}]}])


def test_columns_that_no_symbol_has_enough_bars_for_are_told_once() -> None:
    specs = [*SPECS, {"indicator": "sma", "params": {"n": [61, 900]}}, {"indicator": "volatility", "params": {"n": 99}}]
    with pytest.warns(
        UserWarning, match="3 of 7 columns .*: sma_900 needs 900 bars of a symbol, the longest has 60"
    ) as w:
        got = compute(BARS, specs)
    assert len(w) == 1 and w[0].filename == __file__
    assert got.columns[got.isna().all()].tolist() == ["sma_61", "sma_900", "volatility_99"]
    with pytest.warns(UserWarning, match="1 of 1 columns .*roc_99@1h needs 100 bars of a symbol, the longest has 60"):
        compute(FINE, [{"indicator": "roc", "params": {"n": 99}, "at": "1h"}], coarser={"1h": HOURS})


def test_enough_bars_of_one_symbol_and_none_at_all_are_told_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute(BARS, [{"indicator": "sma", "params": {"n": 60}}])
        assert compute(BARS[:0], SPECS).shape == (0, 3)
        assert np.isnan(compute(BARS.assign(close=np.nan), SPECS)).all(axis=None)
