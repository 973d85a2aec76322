"""The twins themselves: against TA-Lib where it has the function, else against pandas and NumPy."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pandas as pd
import pytest

from tests.naive import TWINS
from tests.naive.alpha158 import WINDOWS, alpha158
from tests.talib_columns import HIDDEN, LOOSE, SHAPES, WITHOUT_TALIB, talib_columns
from tests.walks import Array, Bars, walk

DEFAULTS: dict[str, tuple[float, ...]] = {
    "t3": (5, 0.7), "macd": (12, 26, 9), "ppo": (12, 26, 9), "apo": (12, 26), "trix": (15,), "adx": (14,),
    "aroon": (14,), "sar": (0.02, 0.2), "supertrend": (10, 3), "ichimoku": (9, 26, 52), "kama": (10,), "hma": (16,),
    "rsi": (14,), "roc": (10,), "momentum": (10,), "lag": (1,), "cmo": (14,), "stochastic": (14,),
    "stoch_rsi": (14, 5, 3), "ultimate": (7, 14, 28), "bollinger": (20, 2), "keltner": (20, 10, 2), "atr": (14,),
    "max_drawdown": (60,), "quantile": (20, 0.5), "market": (60,), "mfi": (14,), "chaikin": (3, 10), "force": (13,),
    "session": (30,), "atr_ratio": (14, 100), "macd_double": (12, 26, 9, 0.1, 0),
}  # fmt: skip


def on_ticks(bars: Bars, tick: float) -> Bars:
    """Round prices to whole ticks, so that many are equal."""
    out = dict(bars)
    for name in ("open", "high", "low", "close"):
        out[name] = np.round(bars[name] / tick) * tick
    return out


def halted(bars: Bars) -> Bars:
    """Let every other 60 bars stand still at the close before, with volume or without."""
    out = {name: values.copy() for name, values in bars.items()}
    for first in range(150, len(out["close"]), 120):
        for name in ("open", "high", "low", "close"):
            out[name][first : first + 60] = bars["close"][first - 1]
        if first % 240 == 150:
            out["volume"][first : first + 60] = 0.0
    return out


SERIES = {
    "lively": walk(700, 5),
    "ticks": on_ticks(walk(900, 8, step=0.004), 100.0),
    "halts": halted(on_ticks(walk(900, 9, step=0.01), 50.0)),
    "few ticks": on_ticks(walk(1500, 11, step=0.006), 200.0),
}
ON_TIES = {"argmax_20", "argmin_20", "argmax_less_argmin_20"}  # TA-Lib MAXINDEX takes the newest of equal ones


def twins(bars: Bars) -> dict[str, Array]:
    """Return all outputs of all twins with default parameters, by the names of our columns."""
    out = {}
    for name, twin in TWINS.items():
        asked = len(inspect.signature(twin).parameters) - 1
        params = DEFAULTS.get(name, (20,))[:asked]
        for output, values in twin(bars, *params).items():
            shown = () if output == "log_return" or output.startswith("session_") else params
            shown = params[:1] if output == "zscore" else shown
            out["_".join([output, *(f"{v:g}" for v in shown)])] = values
    return out


@functools.cache
def twins_of(name: str) -> dict[str, Array]:
    return twins(SERIES[name])


@pytest.mark.parametrize("case", SERIES)
def test_equal_talib(case: str) -> None:
    pytest.importorskip("talib")
    ours = twins_of(case)
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = talib_columns(SERIES[case])
    assert ours.keys() == theirs.keys() | WITHOUT_TALIB
    assert not theirs.keys() & WITHOUT_TALIB
    for name, expected in theirs.items():
        if case != "lively" and name in ON_TIES:
            continue
        got, known = ours[name], np.isfinite(expected)
        first = int(np.argmax(np.isfinite(got)))
        assert np.isfinite(got[first:]).all() and np.isnan(got[:first]).all(), name
        if case == "lively":  # elsewhere TA-Lib's own divisions may begin with 0 / 0
            assert int(np.argmax(known)) - first == HIDDEN.get(name, 0), name
        size = np.abs(expected[known])
        bound = LOOSE.get(name, 1e-10) * np.maximum(size, np.mean(size))
        assert (np.abs(got[known] - expected[known]) <= bound).all(), name


def test_every_shape_is_seen() -> None:
    seen = [twins_of(case) for case in SERIES]
    for name in SHAPES:
        assert any(np.nansum(np.abs(one[name])) > 0 for one in seen), name
    for name in ("engulfing", "harami"):
        assert {-100, -80, 80, 100} <= {float(v) for one in seen for v in one[name][~np.isnan(one[name])]}, name


@pytest.mark.parametrize("case", ["lively", "halts"])
def test_equal_pandas(case: str) -> None:
    ours, bars = twins_of(case), SERIES[case]
    close, high, low, volume = (pd.Series(bars[name]) for name in ("close", "high", "low", "volume"))
    change, returns = close.diff(), close / close.shift(1) - 1
    peak = close.cummax()
    rises, falls = ((sign * change > 0).astype(float).where(change.notna()) for sign in (1, -1))
    expected = {
        "close_before_1": close.shift(1),
        "quantile_20_0.5": close.rolling(20).median(),
        "rank_20": close.rolling(20).rank(pct=True),
        "argmax_20": high.rolling(20).apply(np.argmax, raw=True) / 20 + 1 / 20,
        "argmin_20": low.rolling(20).apply(np.argmin, raw=True) / 20 + 1 / 20,
        "drawdown": close / peak - 1,
        "max_drawdown_60": close.rolling(60).apply(lambda w: (w / w.cummax() - 1).min()),
        "realised_20": np.sqrt((np.log(close / close.shift(1)) ** 2).rolling(20).mean()),
        "parkinson_20": np.sqrt((np.log(high / low) ** 2).rolling(20).mean() / (4 * np.log(2))),
        "rise_share_20": rises.rolling(20).mean(),
        "fall_share_20": falls.rolling(20).mean(),
        "rise_less_fall_20": (rises - falls).rolling(20).mean(),
        "ichimoku_lagging_9_26_52": close.diff(26),
    }
    if case == "lively":
        typical = (high + low + close) / 3
        day = pd.Series(bars["day"])
        money, shares = (typical * volume).groupby(day).cumsum(), volume.groupby(day).cumsum()
        expected |= {
            "deviation_20": close.rolling(20).std(),  # in a halt pandas leaves what rounding left of its sums
            "vwap_20": (typical * volume).rolling(20).sum() / volume.rolling(20).sum(),
            "session_vwap": money / shares,
            "session_open": pd.Series(bars["open"]).groupby(day).transform("first"),
            "session_high": high.groupby(day).cummax(),
            "session_low": low.groupby(day).cummin(),
            "average_price": pd.Series(bars["turnover"]) / volume,
            "volume_ratio_20": 100
            * volume.where(change > 0, 0.0)[1:].rolling(20).sum()
            / volume.where(change < 0, 0.0)[1:].rolling(20).sum(),
            "market_correlation_60": returns.rolling(60).corr(pd.Series(bars["market"]).pct_change()),
        }
    for name, series in expected.items():
        theirs = series.reindex(close.index).to_numpy()
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(theirs)), err_msg=name)


def test_moments_are_the_biased_ones_of_pandas() -> None:
    """pandas corrects for the size of the sample; undone, its values are ours."""
    n, returns = 20, pd.Series(SERIES["lively"]["close"]).pct_change().rolling(20)
    ours = twins_of("lively")
    skew = returns.skew() * (n - 2) / np.sqrt(n * (n - 1))
    kurtosis = (returns.kurt() * (n - 2) * (n - 3) / (n - 1) - 6) / (n + 1)
    np.testing.assert_allclose(ours["skew_20"], skew, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ours["kurtosis_20"], kurtosis, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8, 0.93, 1.0])
def test_quantile_is_numpys(q: float) -> None:
    bars = SERIES["ticks"]
    got = TWINS["quantile"](bars, 9, q)["quantile"]
    windows = np.lib.stride_tricks.sliding_window_view(bars["close"], 9)
    np.testing.assert_allclose(got[8:], np.quantile(windows, q, axis=1), rtol=1e-14)


def test_estimators_of_volatility_find_the_deviation_of_a_random_walk() -> None:
    """Fine steps of a known deviation, seen as bars: every estimator comes near it, on one long window."""
    rng = np.random.default_rng(4)
    n, steps, deviation = 1500, 600, 0.02
    path = np.exp(np.cumsum(rng.normal(0, deviation / np.sqrt(steps), n * steps)))
    bars = path.reshape(n, steps)
    before = np.append(1.0, bars[:-1, -1])
    columns = {
        "open": before, "high": np.maximum(bars.max(1), before), "low": np.minimum(bars.min(1), before),
        "close": bars[:, -1],
    }  # fmt: skip
    found = TWINS["range_volatility"](columns, n - 1)
    for name, values in found.items():  # ranges of a path in steps are a little too small
        assert values[-1] == pytest.approx(deviation, rel=0.06), name


def test_halts_are_decided() -> None:
    """A price that never moves, without volume: every twin has a value, and it is the one that is written down."""
    prices = dict.fromkeys(("open", "high", "low", "close"), np.full(130, 5_000.0))
    days = {"volume": np.zeros(130), "turnover": np.zeros(130), "market": np.full(130, 2_500.0), "day": np.zeros(130)}
    last = {name: values[-1] for name, values in twins(prices | days).items()}
    named = {
        "supertrend_direction_10_3": 1.0, "keltner_place_20_10_2": 0.5, "bollinger_percent_b_20_2": 0.5,
        "rank_20": 0.525, "drawdown_age": 0.0, "argmax_20": 0.05, "argmin_20": 0.05, "aroon_up_14": 100.0,
        "aroon_down_14": 100.0, "doji": 100.0,
    }  # fmt: skip
    levels = {
        "sma", "ema", "wma", "dema", "tema", "kama", "hma", "t3_5_0.7", "vwap", "session_vwap", "average_price", "vwma",
        "sar", "supertrend", "ichimoku_conversion", "ichimoku_base", "ichimoku_span_a", "ichimoku_span_b",
        "close_before", "bollinger_upper", "bollinger_lower", "keltner_upper", "keltner_lower", "donchian_upper",
        "donchian_lower", "donchian_middle", "donchian_upper_before", "donchian_lower_before", "highest", "lowest",
        "highest_close", "lowest_close", "quantile",
        "bar_open", "bar_high", "bar_low", "session_open", "session_high", "session_low", "opening_high", "opening_low",
    }  # fmt: skip
    for name, value in last.items():
        level = name in levels or name.rstrip("0123456789._") in levels
        assert value == pytest.approx(named.get(name, 5_000.0 if level else 0.0), abs=1e-9), name


def test_alpha158_is_what_qlibs_operators_give() -> None:
    """Qlib's operators are pandas' rolling ones; where a window is full they agree."""
    bars = walk(150, 13)
    got = alpha158(bars)
    assert len(got) == 158 and list(got)[:10] == [
        "KMID", "KLEN", "KMID2", "KUP", "KUP2", "KLOW", "KLOW2", "KSFT", "KSFT2", "OPEN0",
    ]  # fmt: skip
    assert list(got)[12:15] == ["VWAP0", "ROC5", "ROC10"] and list(got)[-1] == "VSUMD60"
    c, h, l, v = (pd.Series(bars[name]) for name in ("close", "high", "low", "volume"))

    def end_of_line(w: pd.Series[float]) -> float:
        x = np.arange(len(w))
        return float(w.iloc[-1] - np.polyval(np.polyfit(x, w, 1), x[-1]))

    move, gain = (c / c.shift(1) - 1).abs() * v, v.diff().clip(lower=0)
    for n in WINDOWS:
        expected = {
            "ROC": c.shift(n) / c,
            "MA": c.rolling(n).mean() / c,
            "STD": c.rolling(n).std() / c,
            "BETA": c.rolling(n).apply(lambda w: np.polyfit(np.arange(len(w)), w, 1)[0]) / c,
            "RSQR": c.rolling(n).corr(pd.Series(np.arange(150.0))) ** 2,
            "RESI": c.rolling(n).apply(end_of_line) / c,
            "QTLU": c.rolling(n).quantile(0.8) / c,
            "QTLD": c.rolling(n).quantile(0.2) / c,
            "RANK": c.rolling(n).rank(pct=True),
            "RSV": (c - l.rolling(n).min()) / (h.rolling(n).max() - l.rolling(n).min() + 1e-12),
            "IMAX": h.rolling(n).apply(lambda w: w.argmax() + 1, raw=True) / n,
            "CORR": c.rolling(n).corr(np.log(v + 1)),
            "CORD": (c / c.shift(1)).rolling(n).corr(np.log(v / v.shift(1) + 1)),
            "WVMA": move.rolling(n).std() / (move.rolling(n).mean() + 1e-12),
            "VSUMP": gain.rolling(n).sum() / (v.diff().abs().rolling(n).sum() + 1e-12),
        }
        for name, series in expected.items():
            np.testing.assert_allclose(got[f"{name}{n}"], series, rtol=1e-7, atol=1e-9, err_msg=f"{name}{n}")


OTHER = [
    ("dema", (3,), "dema", "DEMA(c, 3)"),
    ("tema", (4,), "tema", "TEMA(c, 4)"),
    ("kama", (2,), "kama", "KAMA(c, 2)"),
    ("hma", (4,), "hma", "HMA(c, 4)"),
    ("hma", (37,), "hma", "HMA(c, 37)"),
    ("t3", (2, 0.0), "t3", "T3(c, 2, 0.0)"),
    ("t3", (9, 1.0), "t3", "T3(c, 9, 1.0)"),
    ("ppo", (3, 7, 4), "ppo", "PPO(c, 3, 7, 1)"),
    ("apo", (3, 7), "apo", "APO(c, 3, 7, 1)"),
    ("trix", (2,), "trix", "TRIX(c, 2)"),
    ("sar", (0.3, 0.2), "sar", "SAR(h, l, 0.3, 0.2)"),
    ("sar", (0.05, 0.5), "sar", "SAR(h, l, 0.05, 0.5)"),
    ("supertrend", (3, 1.5), "supertrend", "SUPERTREND(h, l, c, 3, 1.5)[0]"),
    ("cmo", (2,), "cmo", "CMO(c, 2)"),
    ("stoch_rsi", (5, 3, 2), "stoch_rsi_d", "STOCHRSI(c, 5, 3, 2, 0)[1]"),
    ("ultimate", (2, 3, 5), "ultimate", "ULTOSC(h, l, c, 2, 3, 5)"),
    ("keltner", (5, 14, 1.5), "keltner_upper", "KC(h, l, c, 5, 14, 1.5)[0]"),
    ("market", (5,), "beta", "BETA(m, c, 5)"),
    ("chaikin", (2, 7), "chaikin", "ADOSC(h, l, c, v, 2, 7)"),
    ("force", (2,), "force", "EFI(c, v, 2)"),
]


@pytest.mark.parametrize(("name", "params", "output", "call"), OTHER, ids=[call for *_, call in OTHER])
def test_equal_talib_with_other_parameters(name: str, params: tuple[float, ...], output: str, call: str) -> None:
    talib = pytest.importorskip("talib")
    for bars in SERIES.values():
        h, l, c, v, m = (bars[column] for column in ("high", "low", "close", "volume", "market"))
        expected = eval(f"talib.{call}", {"talib": talib, "h": h, "l": l, "c": c, "v": v, "m": m})
        got = TWINS[name](bars, *params)[output]
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10 * np.nanmax(np.abs(expected)))
