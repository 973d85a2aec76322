"""Slow, obvious twins of the kernels: one series, windows as slices, every value from its definition. They share no
code with what they check.

Each takes the columns of one series and the parameters, and returns its outputs by name; NaN where a value is not
known yet.
"""

from __future__ import annotations

from collections.abc import Callable

from .alpha import bar, candle, change_shares, change_sums, volume_change_sums, weighted_move
from .averages import average_price, dema, ema, hma, kama, session_vwap, sma, t3, tema, vwap, wma
from .bands import bollinger, donchian, donchian_before, keltner
from .candles import one_bar_shapes, three_bar_shapes, two_bar_shapes
from .labels import forward_returns, triple_barrier
from .momentum import balance_of_power, cci, cmo, lag, momentum, roc, rsi, stoch_rsi, stochastic, ultimate
from .patterns import macd_double
from .regression import market, price_volume, regression
from .rolling import argextremes, close_extremes, deviation, extremes, moments, quantile, rank
from .session import session
from .trend import adx, apo, aroon, ichimoku, macd, ppo, sar, supertrend, trix
from .volatility import atr, atr_ratio, drawdown, max_drawdown, range_volatility, true_range, volatility
from .volume import (
    ad,
    chaikin,
    cmf,
    force,
    mfi,
    obv,
    price_volume_trend,
    relative_volume,
    volume_deviation,
    volume_ratio,
    vwma,
)
from .windows import Outputs

__all__ = ["TWINS", "forward_returns", "triple_barrier"]

TWINS: dict[str, Callable[..., Outputs]] = {
    f.__name__: f
    for f in (
        sma, ema, wma, dema, tema, kama, hma, t3, vwap, session_vwap, average_price,
        macd, ppo, apo, trix, adx, aroon, sar, supertrend, ichimoku,
        rsi, roc, momentum, lag, cmo, stochastic, stoch_rsi, cci, ultimate, balance_of_power,
        bollinger, keltner, donchian, donchian_before,
        atr, atr_ratio, true_range, volatility, range_volatility, drawdown, max_drawdown,
        extremes, close_extremes, moments, deviation, quantile, rank, argextremes,
        regression, market, price_volume,
        obv, relative_volume, mfi, ad, chaikin, cmf, force, volume_ratio, price_volume_trend, vwma, volume_deviation,
        candle, bar, change_shares, change_sums, volume_change_sums, weighted_move,
        one_bar_shapes, two_bar_shapes, three_bar_shapes,
        session, macd_double,
    )
}  # fmt: skip
