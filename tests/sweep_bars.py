"""Bars of one instrument as a user hands them to the single-instrument engine, random or written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline import krx
from pipeline.backtest import AccountSection
from storage.schema import ACTIONS

Array = npt.NDArray[Any]
FREE = AccountSection(direction="both", commission_bp=0, slippage_bp=0, borrow_bp=0, sale_tax_bp=0, participation=1)
COSTS = AccountSection(direction="both", commission_bp=4, slippage_bp=4, participation=1)


def frame(ts: Array, close: Array, *, reach: float = 0.001, digits: int = 2, volume: float = 1e6) -> pd.DataFrame:
    """Return bars that open at the close before, with that reach beyond both; prices rounded to digits."""
    opening = np.append(close[0], close[:-1])
    high, low = np.maximum(opening, close) * (1 + reach), np.minimum(opening, close) * (1 - reach)
    prices = {"open": opening, "high": high, "low": low, "close": close}
    out = {name: np.round(values, digits) for name, values in prices.items()}
    return pd.DataFrame({"ts": ts, **out, "volume": np.full(len(close), volume)})


def walk(T: int, minutes: int = 15, seed: int = 0, step: float = 0.005) -> pd.DataFrame:
    """Return a random walk on a market that never closes."""
    rng = np.random.default_rng(seed)
    ts = np.datetime64("2025-01-01T00:00", "us") + np.arange(1, T + 1) * np.timedelta64(minutes, "m")
    return frame(ts, 50_000 * np.cumprod(1 + rng.normal(0, step, T)))


def sessions(T: int, start: str = "2024-01-02") -> Array:
    """Return the stamps of daily bars of the Korea Exchange."""
    days = krx.sessions(start, str(np.datetime64(start) + 2 * T + 30))[:T]
    return krx.session_closes(days)


def daily(T: int, start: str = "2024-01-02", seed: int = 0, level: float = 50_000) -> pd.DataFrame:
    """Return a random walk of daily bars of the Korea Exchange, in whole won."""
    rng = np.random.default_rng(seed)
    return frame(sessions(T, start), np.round(level * np.cumprod(1 + rng.normal(0, 0.015, T))), digits=0)


def flat(ts: Array, closes: Sequence[float], **more: Any) -> pd.DataFrame:
    """Return bars that stand still at their closes."""
    close = np.asarray(closes, np.float64)
    return pd.DataFrame({"ts": ts, "open": close, "high": close, "low": close, "close": close, "volume": 1e6} | more)


def action(day: str, factor: float, symbol: str = "bars") -> pa.Table:
    """Return a corporate action that divides prices by factor."""
    row = {"symbol": symbol, "ex_date": np.datetime64(day).item(), "kind": "split", "factor": factor, "source": "test"}
    return pa.Table.from_pylist([row | {"ingested_at": 0}], ACTIONS)
