"""Real bars of three kinds of markets as a user hands them to the single-instrument engine, each with an account."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline import krx
from pipeline.backtest import AccountSection, run
from pipeline.backtest.single.run import Result
from pipeline.importers import ImportSection, load
from pipeline.strategies import Strategy
from tests.sweep_bars import action

Array = npt.NDArray[Any]
SPLIT = "2018-05-04"  # of 005930, 50 to 1; the file has its bars before in shares after
LIVELY: dict[str, dict[str, Any]] = {  # stops, targets and trails that the defaults leave out
    "template": {"target_atr": 3.0, "most_bars": 20},
    "wm_pattern": {"validity": 96, "level": 50},
    "moving_average_cross": {"fast": 5, "slow": 20, "stop_atr": 2.0, "trail_atr": 2.0},
    "rsi_reversion": {"low": 35, "stop_atr": 1.0, "trend": 40},
    "donchian_breakout": {"enter": 10, "leave": 5, "stop_atr": 1.0, "trail_atr": 2.5},
}


@dataclass(frozen=True)
class Market:
    """bars : raw, as a user has them; timeframes : instead of those of the defaults; zone : of its days."""

    bars: pd.DataFrame
    account: AccountSection
    given: Mapping[str, Any]
    timeframes: Mapping[str, str]
    zone: str = "UTC"

    @cached_property
    def day(self) -> Array:
        begun = (self.bars["ts"] - pd.Timedelta("1min")).dt.tz_convert(self.zone).dt.tz_localize(None)
        sunday = (begun.dt.dayofweek == 6) & (self.given["venue"] == "FX")  # its hours belong to Monday
        return (begun + pd.to_timedelta(sunday.astype(int), unit="D")).to_numpy().astype("datetime64[D]")

    @property
    def korean(self) -> bool:
        return "actions" in self.given

    @cached_property
    def factor(self) -> Array:
        """Adjusted price / raw price, (T,)."""
        return np.where(self.korean & (self.day < np.datetime64(SPLIT)), 1 / 50, 1.0)

    @cached_property
    def adjusted(self) -> dict[str, Array]:
        return {name: self.bars[name].to_numpy() * self.factor for name in ("open", "high", "low", "close")}

    @cached_property
    def halted(self) -> Array:
        return (self.bars["volume"] == 0).to_numpy()

    @property
    def slippage(self) -> float:
        return self.account.slippage_bp / 10_000

    def values(self, strategy: Strategy, lively: bool) -> dict[str, Any]:
        own = {name: value for name, value in self.timeframes.items() if name in strategy.defaults}
        return {**strategy.defaults, **own, **(LIVELY[strategy.name] if lively else {})}

    def run(self, strategy: Strategy, lively: bool, bars: Any = None) -> Result:
        bars = self.bars if bars is None else bars
        return run(bars, strategy, self.values(strategy, lively), account=self.account, **self.given)

    def tick(self, price: float, at: int) -> float:
        return float(krx.tick(price, self.day[at])) if self.korean else 0.0

    def worse(self, price: float, at: int, buys: bool) -> float:
        """Return what an order at the market fills at."""
        exact = price * (1 + self.slippage if buys else 1 - self.slippage)
        if not (tick := self.tick(exact, at)):
            return exact
        return (math.ceil(exact / tick - 1e-9) if buys else math.floor(exact / tick + 1e-9)) * tick


def read(path: Path, symbol: str, interval: str, **section: Any) -> pd.DataFrame:
    parts = [part.bars for part in load(path, ImportSection(**section)) if part.interval == interval]
    frame = pa.concat_tables(parts).select(["symbol", "ts", "open", "high", "low", "close", "volume"]).to_pandas()
    return frame[frame["symbol"] == symbol].astype({"symbol": "str"}).reset_index(drop=True)


def in_shares_of_the_day(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Join bars that end before the split with others that are adjusted for it, taken back to what was traded."""
    for name in ("open", "high", "low", "close", "volume"):
        before = new[name] // 50 if name == "volume" else new[name] * 50
        new[name] = new[name].where(new["ts"] >= SPLIT, before)
    both = old.merge(new, on="ts")
    assert len(both) > 20 and (both["close_x"] == both["close_y"]).all(), "one basis"
    recent = old[(old["ts"] >= "2014") & (old["ts"] < new["ts"].iloc[0])]
    return pd.concat([recent, new], ignore_index=True)


def real_markets(market_data: Path) -> dict[str, Market]:
    """Return six thousand bars of 15 minutes and of an hour, and eight years of a stock that was split."""
    stamps = {"market": "other", "timezone": "UTC"}
    coins = read(
        market_data / "BTCUSDT_15m_raw.zip", "BTCUSDT", "15m", venue="BINANCE", stamps="last",
        columns={"date": "close_datetime"}, file_name=r"^(?P<symbol>[A-Z]+)_", **stamps,
    )  # fmt: skip
    pairs = read(
        market_data / "fx_h1_d1_raw.zip", "USDJPY", "1h", venue="FX", stamps="start",
        price_scale={"USDJPY": 1_000, "*": 100_000}, file_name=r"^(?P<symbol>[A-Z]{6})[hd]1$", **stamps,
    )  # fmt: skip
    stock = in_shares_of_the_day(*(read(market_data / "krx_daily_raw" / v, "005930", "1d") for v in ("v1", "v3")))
    costs = {"direction": "both", "participation": 1.0}
    return {
        "coin": Market(
            coins[:6_000],
            AccountSection(capital=10_000_000, unit=0.01, lot=0.001, commission_bp=4, slippage_bp=4, **costs),
            {"venue": "24h"},
            {"trend_timeframe": "4h"},
        ),
        "currency": Market(
            pairs[:6_000].assign(volume=np.nan),  # ticks were counted; nobody knows how much was traded
            AccountSection(capital=10_000_000, lot=1_000, commission_bp=0.2, slippage_bp=0.5, **costs),
            {"venue": "FX"},
            {"entry_timeframe": "1h", "trend_timeframe": "1d"},
        ),
        "stock": Market(
            stock,
            AccountSection(**costs),
            {"venue": "KRX", "actions": action(SPLIT, 50.0, "005930")},
            {"pattern_timeframe": "1d", "entry_timeframe": "1d", "filter_timeframe": "1w", "trend_timeframe": "1w"},
            "Asia/Seoul",
        ),
    }
