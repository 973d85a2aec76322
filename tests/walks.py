"""Bars for tests of indicators: random walks as columns of one series, and frames of several."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.recurrence import Series

Array = npt.NDArray[np.float64]
Bars = dict[str, Array]


def walk(n: int, seed: int = 0, *, start: float = 50_000.0, step: float = 0.02) -> Bars:
    """Return n bars of a geometric random walk; prices are not whole, volumes are.

    turnover is the volume at a price within the bar, market the level of an index that moves along with the close a
    little, day a number that grows every 7 bars.
    """
    rng = np.random.default_rng(seed)
    close = start * np.exp(np.cumsum(rng.normal(0, step, n)))
    before = np.append(close[:1], close[:-1])
    opened = before * np.exp(rng.normal(0, step / 4, n))
    high = np.maximum(opened, close) * np.exp(rng.exponential(step / 4, n))
    low = np.minimum(opened, close) * np.exp(-rng.exponential(step / 4, n))
    volume = np.floor(rng.lognormal(11, 0.8, n))
    turnover = volume * (low + (high - low) * rng.random(n))
    market = 2_500.0 * (close / start) ** 0.3 * np.exp(np.cumsum(rng.normal(0, step / 2, n)))
    day = 16_000.0 + np.arange(n) // 7
    return {
        "open": opened, "high": high, "low": low, "close": close, "volume": volume,
        "turnover": turnover, "market": market, "day": day,
    }  # fmt: skip


def halted(bars: Bars, start: int, end: int) -> Bars:
    """Return bars whose prices stand still from `start` to `end`, and nothing is traded."""
    out = {name: values.copy() for name, values in bars.items()}
    for name in ("open", "high", "low", "close", "market"):
        out[name][start:end] = bars[name][start] if name == "market" else bars["close"][start]
    for name in ("volume", "turnover"):
        out[name][start:end] = 0.0
    return out


def coarse(bars: Bars, tick: float) -> Bars:
    """Return bars whose prices are whole ticks: few changes, and many bars without a range."""
    prices = ("open", "high", "low", "close")
    return {name: np.round(values / tick) * tick if name in prices else values for name, values in bars.items()}


def frame(series: Mapping[str, Bars]) -> pd.DataFrame:
    """Return several series as one frame of bars sorted by (symbol, ts)."""
    parts = []
    for symbol in sorted(series):
        n = len(series[symbol]["close"])
        ts = pd.date_range("2015-01-02 06:30", periods=n, freq="D", tz="UTC").astype("datetime64[us, UTC]")
        parts.append(pd.DataFrame({"symbol": pd.Series([symbol] * n, dtype="str"), "ts": ts, **series[symbol]}))
    return pd.concat(parts, ignore_index=True)


def flat(series: list[Bars], names: tuple[str, ...]) -> tuple[Array, Series]:
    """Return several series as the columns and places that a driver takes."""
    lengths = np.array([len(one["close"]) for one in series], np.int64)
    starts = np.append(0, np.cumsum(lengths)[:-1]).astype(np.int64)
    columns = [np.concatenate([one[name] for one in series]) for name in names]
    return np.ascontiguousarray(np.stack(columns)), Series(starts, lengths)
