"""Every indicator against its naive twin and TA-Lib, and every promise of its literal."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.cluster import gpu_count
from pipeline.indicators import ALL, BarsError, Indicator, IndicatorError, Spec, compute, plan_of, resolve, rows_of
from pipeline.recurrence import Carry, run
from tests.columns import columns, difference, of_one
from tests.naive import TWINS
from tests.talib_columns import HIDDEN, LOOSE, WITHOUT_TALIB, talib_columns
from tests.walks import Bars, flat, frame, walk

BY_NAME = {one.name: one for one in ALL}
SMALL = {
    "t3": {"n": 7, "v": 0.3},
    "macd": {"fast": 3, "slow": 7, "signal": 4},
    "ppo": {"fast": 3, "slow": 7, "signal": 4},
    "apo": {"fast": 3, "slow": 7},
    "sar": {"step": 0.3, "most": 0.2},
    "supertrend": {"n": 7, "k": 0.5},
    "ichimoku": {"short": 3, "middle": 5, "long": 9},
    "stoch_rsi": {"n": 7, "k": 4, "d": 2},
    "ultimate": {"short": 2, "middle": 5, "long": 9},
    "bollinger": {"n": 7, "k": 1.5},
    "quantile": {"n": 7, "q": 0.3},
    "keltner": {"n": 7, "m": 9, "k": 1.5},
    "obv": {},
    "chaikin": {"fast": 3, "slow": 7},
    "atr_ratio": {"n": 7, "m": 9},
    "macd_double": {"fast": 3, "slow": 7, "signal": 4, "tolerance": 0.2, "apart": 12},
    "session": {"n": 3},  # the days of a walk have 7 bars
}
CASES = [(one, params) for one in ALL for params in ({}, SMALL.get(one.name, {"n": 7})) if one.params or not params]
CASES = [case for i, case in enumerate(CASES) if case not in CASES[:i]]
IDS = [f"{one.name}-{'-'.join(f'{v:g}' for v in params.values()) or 'default'}" for one, params in CASES]


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def on(request: pytest.FixtureRequest) -> str:
    if request.param == "gpu" and gpu_count() == 0:
        pytest.skip("needs a GPU: NVML reports none")
    if request.param == "gpu" and importlib.util.find_spec("cudf") is None:
        pytest.skip("needs cuDF: it is not installed")
    return str(request.param)


@pytest.mark.parametrize(("one", "params"), CASES, ids=IDS)
def test_equals_its_naive_twin(one: Indicator, params: dict[str, float], on: str) -> None:
    for seed, n in ((1, 200), (2, 40), (3, 1)):
        bars = walk(n, seed)
        expected = TWINS[one.name](bars, *one.values(params))
        got = of_one(one, bars, params, on)
        assert expected.keys() == got.keys()
        for name in expected:
            np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(expected[name]), err_msg=name)
            assert difference(expected[name], got[name]) < 1e-9, name


def ends(one: Indicator) -> list[dict[str, float]]:
    """Return parameters at the ends of their ranges: all low, all high, and each alone beside defaults."""
    lows, highs = {p.name: p.low for p in one.params}, {p.name: p.high for p in one.params}
    defaults = {p.name: p.default for p in one.params}
    found = [lows, highs, *({**defaults, name: end[name]} for name in defaults for end in (lows, highs))]
    return [values for values in found if all(values[a] < values[b] for a, b in itertools.pairwise(one.rising))]


@pytest.mark.parametrize("one", [one for one in ALL if one.params], ids=lambda one: one.name)
def test_parameters_may_be_as_low_and_as_high_as_they_say(one: Indicator) -> None:
    """Over bars until the outputs are known, and over too few."""
    for params in ends(one):
        values = one.values(params)
        for n in (int(one.ready(*values)) + 4, 9):
            bars = walk(n, 4)
            expected, got = TWINS[one.name](bars, *values), of_one(one, bars, params)
            for name in expected:
                np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(expected[name]), err_msg=f"{name} {params}")
                assert difference(expected[name], got[name]) < 1e-9, (name, params)
            assert n == 9 or all(np.isfinite(column[-5:]).all() for column in got.values()), params


def test_equals_talib(on: str) -> None:
    pytest.importorskip("talib")
    bars = walk(1500, 5)
    got = columns(frame({"A": bars}), [{"indicator": one.name} for one in ALL], on)
    expected = talib_columns(bars)
    assert set(got.columns) == expected.keys() | WITHOUT_TALIB
    for name, theirs in expected.items():
        ours = got[name].to_numpy()
        first = int(np.flatnonzero(np.isfinite(ours))[0])
        assert int(np.flatnonzero(np.isfinite(theirs))[0]) - first == HIDDEN.get(name, 0), name
        assert np.isfinite(ours[first:]).all(), name
        assert difference(theirs, ours) < LOOSE.get(name, 1e-10), name


def test_float32_columns_are_the_rounded_float64_ones() -> None:
    bars = frame({"A": walk(300, 1), "B": walk(77, 2)})
    specs = [{"indicator": one.name} for one in ALL]
    exact, stored = compute(bars, specs, dtype=np.float64), compute(bars, specs)
    assert set(stored.dtypes) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(stored.to_numpy(), exact.to_numpy().astype(np.float32))


@pytest.mark.parametrize(("one", "params"), CASES, ids=IDS)
def test_is_known_from_the_bar_that_it_says(one: Indicator, params: dict[str, float]) -> None:
    values = np.stack(list(of_one(one, walk(120, 3), params).values()))
    known = np.isfinite(values).all(axis=0)
    ready = int(one.ready(*one.values(params)))
    assert known[ready - 1 :].all() and not known[: ready - 1].any()


@pytest.mark.parametrize(("one", "params"), CASES, ids=IDS)
def test_looks_back_no_farther_than_it_says(one: Indicator, params: dict[str, float]) -> None:
    """Rows before `past` (and `own`) are never read: a driver with nothing but those gives the same."""
    found = resolve([Spec(indicator=one.name, params=params)])
    plan = plan_of(found)
    src, series = flat([walk(100, 4)], rows_of(found))
    whole, parts = np.empty((len(found), 100)), np.empty((len(found), 100))
    run(plan, src, series, whole)
    carry, step = Carry.fresh(plan, 1), plan.passes[0]
    for t in range(100):
        if t:
            carry.past_CHN[:, : plan.past - step.past] = 1e9
            carry.own_QHN[:, : plan.past - step.own] = 1e9
        run(plan, src, series._replace(starts=np.array([t]), lengths=np.array([1])), parts, carry=carry)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_forgets_its_beginning_within_its_warmup(one: Indicator) -> None:
    params = one.values({})
    warmup = one.warmup(*params)
    if warmup == float("inf"):
        pytest.skip(f"{one.name} depends on its whole history, and says so")
    bars = walk(max(2600, int(warmup) + 600), 6)
    late = {name: values[400:] for name, values in bars.items()}
    for name, whole in of_one(one, bars, {}).items():
        cut = of_one(one, late, {})[name]
        gap = np.abs(whole[400:] - cut)[int(warmup) :]
        assert np.nanmax(gap) <= one.tolerance * np.nanmax(np.abs(whole)), name


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_follows_the_scale_of_prices_and_volumes_as_it_says(one: Indicator) -> None:
    bars = walk(300, 7)
    dearer = {name: values * (1.0 if name == "volume" else 8.0) for name, values in bars.items()}
    busier = {name: values * (4.0 if name in ("volume", "turnover") else 1.0) for name, values in bars.items()}
    base, price, volume = (of_one(one, each, {}) for each in (bars, dearer, busier))
    for output in one.outputs:  # powers of two change no rounding, so bits must agree
        by_price = 8.0 if output.scales_with in ("price", "price_change", "turnover") else 1.0
        by_volume = 4.0 if output.scales_with in ("volume", "turnover") else 1.0
        np.testing.assert_array_equal(price[output.name], by_price * base[output.name], err_msg=output.name)
        if output.name != "price_volume_correlation":  # of ln(volume + 1), which follows no scale
            np.testing.assert_array_equal(volume[output.name], by_volume * base[output.name], err_msg=output.name)


PRICES = ("open", "high", "low", "close")
WHOLE_SHARES = [(BY_NAME["aroon"], {"n": n}) for n in (11, 22)]  # 100 / n times n is above 100


def absurd(seed: int, names: tuple[str, ...], factor: float) -> Bars:
    """Return a walk that is multiplied for some bars and then goes on."""
    bars = walk(800, seed)
    for name in names:
        bars[name][300:350] *= factor
    return bars


@pytest.mark.parametrize(("one", "params"), CASES + WHOLE_SHARES, ids=lambda value: getattr(value, "name", ""))
def test_every_finite_value_is_in_its_bounds(one: Indicator, params: dict[str, float]) -> None:
    steps = walk(800, 8, step=0.003).items()
    series = [{name: np.round(values / 500) * 500 if name in PRICES else values for name, values in steps}]
    series += [walk(3_000, seed) for seed in (9, 0)]
    for factor in (1e-323, 1e-312, 1e-160, 0.0, 1e9, 1e100, 1e290):
        series += [absurd(3, (*PRICES, "market"), factor), absurd(3, ("volume", "turnover"), factor)]
    found = columns(
        frame({f"{i:02d}": bars for i, bars in enumerate(series)}), [Spec(indicator=one.name, params=params)]
    )
    for output, name in zip(one.outputs, found.columns):
        values = found[name].to_numpy()[np.isfinite(found[name].to_numpy())]
        assert output.bounds[0] <= values.min() and values.max() <= output.bounds[1], name


def test_rows_that_are_no_bars_are_left_out() -> None:
    """With holes in a column that the set reads, the bars around them give what they give alone; the holes are NaN."""
    bars, specs = (
        frame({"A": walk(150, 1), "B": walk(90, 2), "C": walk(5, 3)}),
        [{"indicator": one.name} for one in ALL],
    )
    rng = np.random.default_rng(0)
    holes = rng.random(len(bars)) < 0.2
    holes[0] = holes[-5:] = True  # the first row, and all of the last symbol
    cut = bars.copy()
    cut.loc[holes, "high"] = np.nan
    cut.loc[np.flatnonzero(holes)[::2], "close"] = np.inf
    got = compute(cut, specs, dtype=np.float64)
    assert got[holes].isna().all(axis=None)
    pd.testing.assert_frame_equal(got[~holes], compute(bars[~holes], specs, dtype=np.float64))


def test_a_hole_in_a_column_that_the_set_does_not_read_is_none() -> None:
    bars = frame({"A": walk(60, 1)})
    cut = bars.assign(high=np.nan, volume=np.nan).drop(columns="low")
    pd.testing.assert_frame_equal(compute(cut, [{"indicator": "sma"}]), compute(bars, [{"indicator": "sma"}]))


def test_index_and_names_are_kept() -> None:
    bars = frame({"A": walk(30, 1), "B": walk(30, 2)}).set_index(np.arange(100, 160))
    got = compute(
        bars,
        [
            Spec(indicator="sma", params={"n": 5}, over="close"),
            {"indicator": "bollinger", "params": {"n": 5, "k": 2.5}},
        ],
    )
    assert list(got.index) == list(range(100, 160))
    assert list(got.columns) == [
        "sma_5_over_close", "bollinger_upper_5_2.5", "bollinger_lower_5_2.5", "bollinger_percent_b_5_2.5",
        "bollinger_width_5_2.5", "zscore_5",
    ]  # fmt: skip
    assert compute(bars, []).shape == (60, 0)
    assert compute(bars[:0], [{"indicator": "sma"}]).shape == (0, 1)


def test_over_close_divides_levels_and_differences_as_each_needs() -> None:
    bars = frame({"A": walk(200, 1), "B": walk(60, 2)})
    over = compute(bars, [{"indicator": n, "over": "close"} for n in ("ema", "macd")], dtype=np.float64)
    plain = compute(bars, [{"indicator": n} for n in ("ema", "macd")], dtype=np.float64)
    close = bars["close"].to_numpy()
    np.testing.assert_array_equal(over["ema_20_over_close"], plain["ema_20"] / close - 1)
    np.testing.assert_array_equal(over["macd_12_26_9_over_close"], plain["macd_12_26_9"] / close)


def test_a_column_asked_for_twice_comes_once() -> None:
    names = [c.name for c in resolve([{"indicator": "volatility", "params": {"n": n}} for n in (5, 20, 5)])]
    assert names == ["log_return", "volatility_5", "volatility_20"]


WRONG = [
    ({"indicator": "smaa"}, "did you mean 'sma'"),
    ({"indicator": "sma", "params": {"nn": 3}}, "got 'nn'.*did you mean 'n'"),
    ({"indicator": "sma", "params": {"n": 1}}, "a whole number from 2 to 1000 .*got 1"),
    ({"indicator": "sma", "params": {"n": 2.5}}, "a whole number .*got 2.5"),
    ({"indicator": "bollinger", "params": {"k": -1}}, "a number from 0.1 to 10 .*got -1"),
    ({"indicator": "macd", "params": {"fast": 26, "slow": 12}}, "fast below slow"),
    ({"indicator": "atr", "outputs": ["natrr"]}, "did you mean 'natr'"),
    ({"indicator": "rsi", "over": "close"}, "units of price"),
]


@pytest.mark.parametrize(("spec", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_cannot_be_computed_is_said(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(IndicatorError, match=message):
        compute(frame({"A": walk(30)}), [spec])


def test_bars_in_disorder_are_refused_and_named() -> None:
    bars, spec = frame({"A": walk(9, 1), "B": walk(9, 2)}), [{"indicator": "sma", "params": {"n": 3}}]
    rows = np.arange(18)
    for order, message in (
        (np.append(rows[9:], rows[:9]), "got symbol 'A' after 'B' in row 9"),
        (np.append(rows[:9], [9, 11, 10, *rows[12:]]), "after .* for symbol 'B' in row 11"),
        (np.append(rows[:5], rows[4:]), "two of symbol 'A' at 2015-01-06 06:30:00.* in row 5"),
    ):
        with pytest.raises(BarsError, match=message):
            compute(bars.iloc[order], spec)
    with pytest.raises(IndicatorError, match="none named \\['close'\\]"):
        compute(bars.drop(columns="close"), spec)
    with pytest.raises(IndicatorError, match=r"bars of one interval, got \['1d', '1m'\]"):
        compute(bars.assign(interval=["1d"] * 9 + ["1m"] * 9), spec)


def test_names_are_unique_and_twins_complete() -> None:
    outputs = [output.name for one in ALL for output in one.outputs]
    assert len(set(outputs)) == len(outputs)
    assert TWINS.keys() == BY_NAME.keys()
    assert all(one.doc and one.source for one in ALL)
    for a, b in itertools.combinations(sorted(outputs), 2):  # columns of two outputs can never have one name
        assert not (b.startswith(f"{a}_") and b.removeprefix(f"{a}_").replace("_", "").isdigit())
