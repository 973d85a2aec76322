"""What windows hold after anything: halted prices, large falls, absurd bars leave no rounding and no trace behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.indicators import ALL, Indicator
from tests.columns import difference, of_one
from tests.naive import TWINS
from tests.walks import Array, coarse, halted, walk

FLAT = {
    "rsi": 0.0, "fast_k": 0.0, "slow_d": 0.0, "williams_r": 0.0, "cci": 0.0, "bollinger_percent_b": 0.5, "zscore": 0.0,
    "bollinger_width": 0.0, "atr": 0.0, "natr": 0.0, "plus_di": 0.0, "minus_di": 0.0, "adx": 0.0, "aroon_up": 100.0,
    "aroon_down": 100.0, "slope": 0.0, "r_squared": 0.0, "residual": 0.0, "volatility": 0.0, "skew": 0.0,
    "kurtosis": 0.0, "mfi": 0.0, "relative_volume": 0.0, "log_return": 0.0, "roc": 0.0, "obv": 0.0,
    "high_distance": 0.0, "low_distance": 0.0, "high_close_distance": 0.0, "low_close_distance": 0.0,
    "aroon_oscillator": 0.0, "macd": 0.0, "macd_signal": 0.0, "macd_histogram": 0.0,
    "cmo": 0.0, "momentum": 0.0, "slow_k": 0.0, "stoch_rsi_k": 0.0, "stoch_rsi_d": 0.0, "ultimate": 0.0,
    "balance_of_power": 0.0, "true_range": 0.0, "realised": 0.0, "parkinson": 0.0, "garman_klass": 0.0,
    "rogers_satchell": 0.0, "yang_zhang": 0.0, "drawdown": 0.0, "max_drawdown": 0.0, "deviation": 0.0, "rank": 0.525,
    "argmax": 0.05, "argmin": 0.05, "argmax_less_argmin": 0.0, "beta": 0.0, "market_correlation": 0.0,
    "market_alpha": 0.0, "price_volume_correlation": 0.0, "change_correlation": 0.0,
    "ppo": 0.0, "ppo_signal": 0.0, "ppo_histogram": 0.0, "apo": 0.0, "trix": 0.0, "supertrend_direction": 1.0,
    "keltner_place": 0.5, "keltner_width": 0.0, "donchian_place": 0.0, "donchian_width": 0.0,
    "ad": 0.0, "chaikin": 0.0, "cmf": 0.0, "force": 0.0, "volume_ratio": 0.0, "price_volume_trend": 0.0,
    "volume_mean_ratio": 0.0, "volume_deviation_ratio": 0.0, "kmid": 0.0, "klen": 0.0, "kmid2": 0.0, "kup": 0.0,
    "kup2": 0.0, "klow": 0.0, "klow2": 0.0, "ksft": 0.0, "ksft2": 0.0, "rise_share": 0.0, "fall_share": 0.0,
    "rise_less_fall": 0.0, "gain_share": 0.0, "loss_share": 0.0, "gain_less_loss": 0.0, "volume_gain_share": 0.0,
    "volume_loss_share": 0.0, "volume_gain_less_loss": 0.0, "weighted_move": 0.0, "doji": 100.0, "hammer": 0.0,
    "marubozu": 0.0, "spinning_top": 0.0, "engulfing": 0.0, "harami": 0.0, "three_white_soldiers": 0.0,
    "hanging_man": 0.0, "shooting_star": 0.0, "inverted_hammer": 0.0, "piercing": 0.0, "dark_cloud_cover": 0.0,
    "morning_star": 0.0, "evening_star": 0.0, "three_black_crows": 0.0, "ichimoku_lagging": 0.0, "drawdown_age": 0.0,
    "atr_ratio": 0.0, "macd_double": 0.0,
}  # fmt: skip
"""Every output but levels of prices, which are the price."""


SMOOTHED = {  # never quite forget the lively part
    "rsi", "atr", "natr", "plus_di", "minus_di", "adx", "obv", "keltner_place", "keltner_width", "supertrend_direction",
    "cmo", "drawdown", "drawdown_age", "ad", "chaikin", "force", "price_volume_trend", "sar",
    "atr_ratio",
}  # fmt: skip
NEARLY = ("macd", "apo", "ppo", "trix")  # differences of means: those of equal values may differ in their last bits


def test_flat_windows_are_decided_not_left_to_rounding() -> None:
    """A halted price after a lively one: 0 / 0 has the value that the indicator names, whatever is left of old sums."""
    for start in (12_345.678, 3e-9, 7e11):
        lively = walk(97, 10, start=start)
        price = lively["close"][-1]
        bars = {name: np.append(values, np.full(400, lively["close"][-1])) for name, values in lively.items()}
        bars["volume"][97:] = 0.0
        for one in ALL:
            since = max(21, int(one.ready(*one.values({}))))
            for output, values in zip(one.outputs, of_one(one, bars, {}).values()):
                name = output.name
                if output.scales_with == "price":
                    assert name in SMOOTHED or values[-1] == pytest.approx(price, rel=1e-12), (name, start)
                elif name.startswith(NEARLY):
                    unit = price if name.startswith(("macd", "apo")) else 1.0
                    assert abs(values[-1]) <= 1e-9 * unit, (name, start)
                elif name not in SMOOTHED:
                    assert (values[97 + since :] == FLAT[name]).all(), (name, start)
    constant = dict.fromkeys(("open", "high", "low", "close", "market"), np.full(120, 5_000.0))
    constant |= dict.fromkeys(("volume", "turnover", "day"), np.zeros(120))
    levels = {output.name for one in ALL for output in one.outputs if output.scales_with == "price"}
    for one in ALL:
        for name, values in of_one(one, constant, {}).items():
            near = 1e-12 * 5_000.0 if name in levels else 1e-9 if name.startswith(NEARLY) else 0.0
            assert values[-1] == pytest.approx(5_000.0 if name in levels else FLAT[name], abs=near), name
    assert FLAT.keys() == {output.name for one in ALL for output in one.outputs} - levels


def renews(function: Any) -> bool:
    """Return whether a kernel or part renews sums, itself or through its parts."""
    known = [function.__globals__.get(name) for name in function.__code__.co_names]
    return function.__name__ == "renewed" or any(renews(part) for part in known if hasattr(part, "__code__"))


RENEWED = [one for one in ALL if renews(one.kernel)]


def test_sums_stay_exact_after_a_large_fall() -> None:
    """A series that fell to a fiftieth and then moves by 0.002 % a bar: sums with an old anchor would be all wrong."""
    rng = np.random.default_rng(1)

    def fall(level: float, lively: float, quiet: float) -> Array:
        steps = np.append(rng.normal(0, lively, 500), rng.normal(0, quiet, 1500))
        return np.exp(np.cumsum(steps)) * np.repeat([level, level / 50], [500, 1500])

    close, volume, market = fall(900_000, 0.02, 2e-5), np.floor(fall(1e9, 0.5, 1e-3)), fall(2_500, 0.02, 2e-5)
    near = 1.0 + 1e-5 * (rng.random((3, 2000)) - np.array([[0.5], [-0.5], [1.5]]))
    bars = {"open": close * near[0], "high": close * near[1], "low": close * near[2], "close": close}
    bars |= {"volume": volume, "market": market, "turnover": close * volume, "day": np.arange(2000.0)}
    assert len(RENEWED) > 20
    for one in RENEWED:
        expected, got = TWINS[one.name](bars, *one.values({})), of_one(one, bars, {})
        for name in expected:
            assert difference(expected[name][600:], got[name][600:]) < 1e-10, name


@pytest.mark.parametrize("absurd", [("volume", "turnover"), ("open", "high", "low", "close")], ids=["volume", "prices"])
def test_renewed_sums_forget_an_absurd_bar(absurd: tuple[str, ...]) -> None:
    bars = walk(600, 12)
    spoilt = {name: values.copy() for name, values in bars.items()}
    for name in absurd:
        spoilt[name][200] = 1e300
    for one in RENEWED:
        if one.name == "kama":  # an exponential mean
            continue
        late = slice(201 + 3 * int(one.ready(*one.values({}))), None)
        for name, values in of_one(one, bars, {}).items():
            assert difference(values[late], of_one(one, spoilt, {})[name][late]) < 1e-9, name


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_nothing_is_left_of_smoothings_after_a_very_long_halt(one: Indicator) -> None:
    """Until what is kept of a range is no longer a normal number: a ratio of two of them is no number, or noise."""
    bars = walk(12_000, 13)
    shortest = {p.name: p.low if p.whole else p.default for p in one.params}
    shortest |= {name: shortest[name] + i for i, name in enumerate(one.rising)}
    for params, end in (({}, 11_500), (shortest, 1_100), (shortest, 1_800)):
        ready = int(one.ready(*one.values(params)))
        for name, values in of_one(one, halted(bars, 200, end), params).items():
            assert np.isfinite(values[max(ready - 1, 0) :]).all(), name
            if name in ("rsi", "cmo", "stoch_rsi_k", "plus_di", "minus_di") and end > 1_100:
                assert (values[end - 50 : end] == 0.0).all(), name


@pytest.mark.parametrize("one", [one for one in ALL if one.counts == "bars"], ids=lambda one: one.name)
def test_a_warmup_of_bars_holds_over_halts_and_coarse_prices(one: Indicator) -> None:
    """So that series may be cut there."""
    if (warmup := one.warmup(*one.values({}))) == float("inf"):
        pytest.skip(f"{one.name} depends on its whole history, and says so")
    for bars in (coarse(walk(3_000, 1, step=0.003), 500.0), halted(halted(walk(2_600, 1), 500, 1_400), 1_450, 1_700)):
        whole = of_one(one, bars, {})
        for start in (490, 590, 1_000, 1_490, 1_650):
            late = of_one(one, {name: values[start:] for name, values in bars.items()}, {})
            for name, values in whole.items():
                size = np.abs(values[np.isfinite(values)]).max()
                gap = np.abs(values[start:] - late[name])[int(warmup) :]
                assert gap.size == 0 or np.nanmax(gap) <= one.tolerance * size, (name, start)


@pytest.mark.parametrize("outlier", [[1e7], [1e7, 6e6, 2e6]], ids=["one", "three"])
def test_windows_after_an_outlier_lose_no_digits(outlier: list[float]) -> None:
    """Wherever it lies between two renewals of the sums. It is whole, so that sums of squares are exact."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for at in range(200, 221):
        bars = walk(400, 1)
        bars["volume"] = np.floor(rng.uniform(20, 60, 400))
        bars["volume"][at : at + len(outlier)] = outlier
        (one,) = (one for one in ALL if one.name == "volume_deviation")
        expected = TWINS[one.name](bars, 20.0)["volume_deviation_ratio"]
        got = of_one(one, bars, {})["volume_deviation_ratio"]
        worst = max(worst, float(np.abs(got / expected - 1.0)[at + len(outlier) + 20 :].max()))
    assert worst < 1e-12


@pytest.mark.parametrize("name", ["market", "price_volume", "weighted_move", "volatility", "moments"])
def test_a_close_of_zero_leaves_what_is_not_finite_and_nothing_wrong(name: str) -> None:
    """Returns from it on are not finite: what is known while they are in the sums is right, and later all is known."""
    (one,) = (one for one in ALL if one.name == name)
    bars = walk(600, 1)
    bars["close"][200] = 0.0
    n = int(one.values({})[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = TWINS[name](bars, *one.values({}))
    for column, values in of_one(one, bars, {}).items():
        if column not in ("log_return", "price_volume_correlation"):
            assert not np.isfinite(values[202 : 201 + n]).any(), column
        late = values[202 + 3 * n :]
        assert np.isfinite(late).all(), column
        known = np.isfinite(values) & np.isfinite(expected[column])
        assert difference(expected[column][known], values[known]) < 1e-9, column
