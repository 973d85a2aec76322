"""The thirty columns of pipeline/feature_sets/bench30.yaml as TA-Lib and Polars make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.walks import Array


def talib30(bars: Mapping[str, Array]) -> list[Array]:
    """Return the columns of one series in the set's order; what TA-Lib lacks is made of what it gives."""
    import talib

    high, low, close, volume = (bars[name] for name in ("high", "low", "close", "volume"))
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    deviation = 0.5 * (upper - middle)
    z = (close - middle) / deviation
    returns, spread = np.full((2, close.size), np.nan)
    np.log(close[1:] / close[:-1], out=returns[1:])
    spread[1:] = talib.STDDEV(returns[1:], 20)
    return [
        *(talib.SMA(close, n) for n in (5, 10, 20, 60)),
        *(talib.EMA(close, n) for n in (12, 20, 26, 60)),
        *talib.MACD(close, 12, 26, 9),
        talib.RSI(close, 14),
        upper,
        lower,
        0.25 * z + 0.5,
        4.0 * deviation / middle,
        z,
        talib.ATR(high, low, close, 14),
        talib.NATR(high, low, close, 14),
        talib.ROCP(close, 5),
        talib.ROCP(close, 20),
        returns,
        spread,
        talib.STOCHF(high, low, close, 14, 3)[0],
        talib.STOCH(high, low, close, 14, 3, 0, 3, 0)[1],
        talib.WILLR(high, low, close, 14),
        talib.OBV(close, volume),
        volume / talib.SMA(volume, 20),
        close / talib.MAX(high, 20) - 1.0,
        close / talib.MIN(low, 20) - 1.0,
    ]


def polars30() -> list[Any]:
    """Return the columns as expressions over `symbol`; exponential means begin with the first bar there, not with a
    mean.
    """
    import polars as pl

    high, low, close, volume = (pl.col(name) for name in ("high", "low", "close", "volume"))

    def ema(column: Any, n: int) -> Any:
        return column.ewm_mean(span=n, adjust=False, min_samples=n)

    def wilder(column: Any) -> Any:
        return column.ewm_mean(alpha=1.0 / 14.0, adjust=False, min_samples=14)

    line = ema(close, 12) - ema(close, 26)
    signal = ema(line, 9)
    change, before = close.diff(), close.shift(1)
    up, down = wilder(change.clip(lower_bound=0.0)), wilder((-change).clip(lower_bound=0.0))
    mean, deviation = close.rolling_mean(20), close.rolling_std(20, ddof=0)
    z = (close - mean) / deviation
    reach = pl.max_horizontal(high, before) - pl.min_horizontal(low, before)
    highest, lowest = high.rolling_max(14), low.rolling_min(14)
    fast_k = 100.0 * (close - lowest) / (highest - lowest)
    returns = (close / before).log()
    signed = pl.when(change < 0.0).then(-volume).when(change == 0.0).then(0.0).otherwise(volume)
    columns = [
        *(close.rolling_mean(n) for n in (5, 10, 20, 60)),
        *(ema(close, n) for n in (12, 20, 26, 60)),
        line,
        signal,
        line - signal,
        100.0 * up / (up + down),
        mean + 2.0 * deviation,
        mean - 2.0 * deviation,
        0.25 * z + 0.5,
        4.0 * deviation / mean,
        z,
        wilder(reach),
        100.0 * wilder(reach) / close,
        close / close.shift(5) - 1.0,
        close / close.shift(20) - 1.0,
        returns,
        returns.rolling_std(20, ddof=0),
        fast_k,
        fast_k.rolling_mean(3).rolling_mean(3),
        100.0 * (close - highest) / (highest - lowest),
        signed.cum_sum(),
        volume / volume.rolling_mean(20),
        close / high.rolling_max(20) - 1.0,
        close / low.rolling_min(20) - 1.0,
    ]
    return [column.over("symbol").alias(str(i)) for i, column in enumerate(columns)]
