"""What TA-Lib says about a series of bars, by the names of our columns with default parameters, and where we differ."""

from __future__ import annotations

import numpy as np

from tests.walks import Array, Bars

WITHOUT_TALIB = {
    "skew_20", "kurtosis_20",  # TA-Lib has no moments beyond the second
    "vwap_20", "session_vwap", "average_price",  # its VWAP never begins anew
    "ichimoku_lagging_9_26_52", "close_before_1",
    "realised_20", "parkinson_20", "garman_klass_20", "rogers_satchell_20", "yang_zhang_20",
    "drawdown", "drawdown_age", "max_drawdown_60",
    "quantile_20_0.5",  # its PERCENTILE takes the nearest rank
    "rank_20",  # its PERCENTRANK leaves ties out
    "volume_ratio_20",
    "kmid", "klen", "kmid2", "kup", "kup2", "klow", "klow2", "ksft", "ksft2", "bar_open", "bar_high", "bar_low",
    "rise_share_20", "fall_share_20", "rise_less_fall_20",
    "session_open", "session_high", "session_low", "opening_high_30", "opening_low_30",
    "macd_double_12_26_9_0.1_0",
}  # fmt: skip
HIDDEN = {"fast_k_14": 2, "stoch_rsi_k_14_5_3": 2}  # bars that TA-Lib hides, until the mean of 3 of them is known
LOOSE = {"r_squared_20": 1e-9, "price_volume_correlation_20": 1e-9}  # TA-Lib CORREL subtracts large sums


def talib_columns(bars: Bars) -> dict[str, Array]:
    """Return what TA-Lib says, by the names of our columns."""
    names = ("open", "high", "low", "close", "volume", "market")
    o, h, l, c, v, market = (bars[name] for name in names)
    return {
        **_averages(c, h, l, v),
        **_trend(h, l, c),
        **_momentum(o, h, l, c),
        **_bands(h, l, c),
        **_volatility(h, l, c),
        **_volume(h, l, c, v),
        **_regression(c, v, market),
        **{name: _shape(f"CDL{cdl}", o, h, l, c) for name, cdl in SHAPES.items()},
    }


SHAPES = {
    "doji": "DOJI", "hammer": "HAMMER", "hanging_man": "HANGINGMAN", "shooting_star": "SHOOTINGSTAR",
    "inverted_hammer": "INVERTEDHAMMER", "marubozu": "MARUBOZU", "spinning_top": "SPINNINGTOP",
    "engulfing": "ENGULFING", "harami": "HARAMI", "piercing": "PIERCING", "dark_cloud_cover": "DARKCLOUDCOVER",
    "morning_star": "MORNINGSTAR", "evening_star": "EVENINGSTAR", "three_white_soldiers": "3WHITESOLDIERS",
    "three_black_crows": "3BLACKCROWS",
}  # fmt: skip


def _shape(cdl: str, *prices: Array) -> Array:
    """Return what a candle function says; it writes 0 for the bars that it cannot judge yet."""
    import talib.abstract

    values = getattr(talib, cdl)(*prices).astype(np.float64)
    values[: talib.abstract.Function(cdl).lookback] = np.nan
    return values


def _averages(c: Array, h: Array, l: Array, v: Array) -> dict[str, Array]:
    import talib

    return {
        "sma_20": talib.SMA(c, 20),
        "ema_20": talib.EMA(c, 20),
        "wma_20": talib.WMA(c, 20),
        "dema_20": talib.DEMA(c, 20),
        "tema_20": talib.TEMA(c, 20),
        "kama_10": talib.KAMA(c, 10),
        "hma_16": talib.HMA(c, 16),
        "t3_5_0.7": talib.T3(c, 5, 0.7),
        "vwma_20": talib.VWMA(c, v, 20),
    }


def _trend(h: Array, l: Array, c: Array) -> dict[str, Array]:
    import talib

    macd = talib.MACD(c, 12, 26, 9)
    down, up = talib.AROON(h, l, 14)
    ppo = talib.PPO(c, 12, 26, 1)
    signal = _later(talib.EMA(ppo[25:], 9), 25)
    supertrend, direction = talib.SUPERTREND(h, l, c, 10, 3)
    conversion, base, long = (talib.MIDPRICE(h, l, n) for n in (9, 26, 52))
    return {
        "macd_12_26_9": macd[0],
        "macd_signal_12_26_9": macd[1],
        "macd_histogram_12_26_9": macd[2],
        "ppo_12_26_9": ppo,
        "ppo_signal_12_26_9": signal,
        "ppo_histogram_12_26_9": ppo - signal,
        "apo_12_26": talib.APO(c, 12, 26, 1),
        "trix_15": talib.TRIX(c, 15),
        "plus_di_14": talib.PLUS_DI(h, l, c, 14),
        "minus_di_14": talib.MINUS_DI(h, l, c, 14),
        "adx_14": talib.ADX(h, l, c, 14),
        "aroon_up_14": up,
        "aroon_down_14": down,
        "aroon_oscillator_14": talib.AROONOSC(h, l, 14),
        "sar_0.02_0.2": talib.SAR(h, l, 0.02, 0.2),
        "supertrend_10_3": supertrend,
        "supertrend_direction_10_3": np.where(np.isnan(supertrend), np.nan, direction),
        "ichimoku_conversion_9_26_52": conversion,
        "ichimoku_base_9_26_52": base,
        "ichimoku_span_a_9_26_52": _later((conversion + base)[:-26] / 2, 26),
        "ichimoku_span_b_9_26_52": _later(long[:-26], 26),
    }


def _momentum(o: Array, h: Array, l: Array, c: Array) -> dict[str, Array]:
    import talib

    stoch_rsi = talib.STOCHRSI(c, 14, 5, 3, 0)
    return {
        "rsi_14": talib.RSI(c, 14),
        "roc_10": talib.ROCP(c, 10),
        "momentum_10": talib.MOM(c, 10),
        "cmo_14": talib.CMO(c, 14),
        "fast_k_14": talib.STOCHF(h, l, c, 14, 3)[0],
        "slow_k_14": talib.STOCHF(h, l, c, 14, 3)[1],
        "slow_d_14": talib.STOCH(h, l, c, 14, 3, 0, 3, 0)[1],
        "williams_r_14": talib.WILLR(h, l, c, 14),
        "stoch_rsi_k_14_5_3": stoch_rsi[0],
        "stoch_rsi_d_14_5_3": stoch_rsi[1],
        "cci_20": talib.CCI(h, l, c, 20),
        "ultimate_7_14_28": talib.ULTOSC(h, l, c, 7, 14, 28),
        "balance_of_power": talib.BOP(o, h, l, c),
    }


def _bands(h: Array, l: Array, c: Array) -> dict[str, Array]:
    import talib

    upper, middle, lower = talib.BBANDS(c, 20, 2, 2)
    over, centre, under = talib.KC(h, l, c, 20, 10, 2)
    highest, median, lowest = talib.DONCHIAN(h, l, 20)
    return {
        "bollinger_upper_20_2": upper,
        "bollinger_lower_20_2": lower,
        "bollinger_percent_b_20_2": (c - lower) / (upper - lower),
        "bollinger_width_20_2": (upper - lower) / middle,
        "zscore_20": 2 * (c - middle) / (upper - middle),
        "keltner_upper_20_10_2": over,
        "keltner_lower_20_10_2": under,
        "keltner_place_20_10_2": (c - under) / (over - under),
        "keltner_width_20_10_2": (over - under) / centre,
        "donchian_upper_20": highest,
        "donchian_lower_20": lowest,
        "donchian_middle_20": median,
        "donchian_width_20": (highest - lowest) / median,
        "donchian_place_20": (c - lowest) / (highest - lowest),
        "donchian_upper_before_20": _later(highest[:-1], 1),
        "donchian_lower_before_20": _later(lowest[:-1], 1),
    }


def _volatility(h: Array, l: Array, c: Array) -> dict[str, Array]:
    import talib

    returns = np.log(c[1:] / c[:-1])
    positions = np.arange(c.size) - 19.0  # of the oldest bar of a window of 20
    first = np.isnan(talib.MAX(h, 20))
    ranges = talib.ATR(h, l, c, 14)
    newest_high = np.where(first, np.nan, (talib.MAXINDEX(h, 20) - positions + 1) / 20)
    newest_low = np.where(first, np.nan, (talib.MININDEX(l, 20) - positions + 1) / 20)
    return {
        "atr_14": talib.ATR(h, l, c, 14),
        "natr_14": talib.NATR(h, l, c, 14),
        "atr_ratio_14_100": ranges / _later(talib.EMA(ranges[14:], 100), 14),
        "true_range": talib.TRANGE(h, l, c),
        "log_return": _later(returns, 1),
        "volatility_20": _later(talib.STDDEV(returns, 20), 1),
        "highest_20": talib.MAX(h, 20),
        "lowest_20": talib.MIN(l, 20),
        "high_distance_20": c / talib.MAX(h, 20) - 1,
        "low_distance_20": c / talib.MIN(l, 20) - 1,
        "highest_close_20": talib.MAX(c, 20),
        "lowest_close_20": talib.MIN(c, 20),
        "high_close_distance_20": c / talib.MAX(c, 20) - 1,
        "low_close_distance_20": c / talib.MIN(c, 20) - 1,
        "deviation_20": talib.STDDEV(c, 20) * np.sqrt(20 / 19),
        "argmax_20": newest_high,
        "argmin_20": newest_low,
        "argmax_less_argmin_20": newest_high - newest_low,
    }


def _volume(h: Array, l: Array, c: Array, v: Array) -> dict[str, Array]:
    import talib

    rises = talib.SUM(np.maximum(np.diff(c), 0), 20)
    falls = talib.SUM(np.maximum(-np.diff(c), 0), 20)
    more = talib.SUM(np.maximum(np.diff(v), 0), 20)
    less = talib.SUM(np.maximum(-np.diff(v), 0), 20)
    moves = np.abs(c[1:] / c[:-1] - 1) * v[1:]
    spread = talib.STDDEV(moves, 20) * np.sqrt(20 / 19)
    return {
        "obv": talib.OBV(c, v),
        "relative_volume_20": v / talib.SMA(v, 20),
        "mfi_14": talib.MFI(h, l, c, v, 14),
        "ad": talib.AD(h, l, c, v),
        "chaikin_3_10": talib.ADOSC(h, l, c, v, 3, 10),
        "cmf_20": talib.CMF(h, l, c, v, 20),
        "force_13": talib.EFI(c, v, 13),
        "price_volume_trend": talib.PVT(c, v),
        "volume_mean_ratio_20": talib.SMA(v, 20) / v,
        "volume_deviation_ratio_20": talib.STDDEV(v, 20) * np.sqrt(20 / 19) / v,
        "gain_share_20": _later(rises / (rises + falls), 1),
        "loss_share_20": _later(falls / (rises + falls), 1),
        "gain_less_loss_20": talib.CMOU(c, 20) / 100,
        "volume_gain_share_20": _later(more / (more + less), 1),
        "volume_loss_share_20": _later(less / (more + less), 1),
        "volume_gain_less_loss_20": talib.CMOU(v, 20) / 100,
        "weighted_move_20": _later(spread / talib.SMA(moves, 20), 1),
    }


def _regression(c: Array, v: Array, market: Array) -> dict[str, Array]:
    import talib

    own, index = c[1:] / c[:-1] - 1, market[1:] / market[:-1] - 1
    beta = talib.BETA(market, c, 60)
    ratio = np.divide(v[1:], v[:-1], out=np.zeros(v.size - 1), where=v[:-1] > 0)
    changes = talib.CORREL(c[1:] / c[:-1], np.log(ratio + 1), 20)
    return {
        "slope_20": talib.LINEARREG_SLOPE(c, 20),
        "r_squared_20": talib.CORREL(c, np.arange(c.size, dtype=np.float64), 20) ** 2,
        "residual_20": c - talib.LINEARREG(c, 20),
        "beta_60": beta,
        "market_correlation_60": _later(talib.CORREL(own, index, 60), 1),
        "market_alpha_60": _later(talib.SMA(own, 60) - beta[1:] * talib.SMA(index, 60), 1),
        "price_volume_correlation_20": talib.CORREL(c, np.log(v + 1), 20),
        "change_correlation_20": _later(changes, 1),
    }


def _later(values: Array, bars: int) -> Array:
    return np.concatenate([np.full(bars, np.nan), values])
