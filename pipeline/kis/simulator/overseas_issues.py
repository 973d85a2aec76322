"""Which issues are listed on the simulated exchanges abroad, and when those trade: on all weekdays, since no holidays
of theirs are known here."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from pipeline import krx
from pipeline.kis.simulator.universe import ORIGIN, stream

_AXIS = np.arange(np.datetime64(ORIGIN), krx.LAST + 1)
DAYS = _AXIS[np.is_busday(_AXIS)]

# Symbol and sector in turn.
_US, _HK = "America/New_York", ((570, 720), (780, 960))
_NAMES = {
    "NAS": "AAPL 컴퓨터 NVDA 반도체 MSFT 소프트웨어 AMZN 유통 TSLA 자동차",
    "NYS": "KO 음료 WMT 유통 JPM 은행 XOM 석유 DIS 미디어",
    "AMS": "SPY ETF GLD ETF IWM ETF",
    "HKS": "00700 인터넷 01810 전자 09988 유통 00005 은행",
    "SHS": "600519 음료 600036 은행 601318 보험",
    "SZS": "000858 음료 300750 전지 000333 가전",
    "TSE": "7203 자동차 9984 통신 6758 전자 8306 은행",
    "HSX": "VIC 부동산 FPT 소프트웨어 VNM 식품",
    "HNX": "SHS 증권 PVS 석유 IDC 부동산",
}


@dataclass(frozen=True)
class Exchange:
    """Where issues are traded: hours in minutes of the local day, won for a unit of its currency, decimals of a price
    as KIS writes it, tick (currency), shares of the smallest order, and about what an issue costs (currency)."""

    code: str
    zone: str
    hours: tuple[tuple[int, int], ...]
    currency: str
    won: float
    decimals: int
    tick: float
    lot: int
    price: float

    @property
    def symbols(self) -> dict[str, str]:
        """Return the sector of each symbol."""
        words = _NAMES[self.code].split()
        return dict(zip(words[::2], words[1::2]))

    @property
    def labels(self) -> krx.Days:
        """Return the labels of a session in minutes of the local day, (M,); the last is the closing print."""
        return np.append(np.concatenate([np.arange(*part) for part in self.hours]), self.hours[-1][1])

    def clock(self, now: datetime) -> tuple[date, int]:
        """Return the local date and minute of the day."""
        local = now.astimezone(ZoneInfo(self.zone))
        return local.date(), local.hour * 60 + local.minute

    def to_korea(self, day: date) -> timedelta:
        """Return what Korean time is ahead of local time at noon of a day."""
        noon = datetime(day.year, day.month, day.day, 12)
        return noon.replace(tzinfo=ZoneInfo(self.zone)).astimezone(krx.KST).replace(tzinfo=None) - noon


EXCHANGES = {
    item.code: item
    for item in (
        Exchange("NAS", _US, ((570, 960),), "USD", 1_400.0, 4, 0.01, 1, 180.0),
        Exchange("NYS", _US, ((570, 960),), "USD", 1_400.0, 4, 0.01, 1, 90.0),
        Exchange("AMS", _US, ((570, 960),), "USD", 1_400.0, 4, 0.01, 1, 250.0),
        Exchange("HKS", "Asia/Hong_Kong", _HK, "HKD", 180.0, 3, 0.05, 100, 120.0),
        Exchange("SHS", "Asia/Shanghai", ((570, 690), (780, 900)), "CNY", 195.0, 3, 0.01, 100, 60.0),
        Exchange("SZS", "Asia/Shanghai", ((570, 690), (780, 900)), "CNY", 195.0, 3, 0.01, 100, 60.0),
        Exchange("TSE", "Asia/Tokyo", ((540, 690), (750, 930)), "JPY", 9.3, 1, 1.0, 100, 3_500.0),
        Exchange("HSX", "Asia/Ho_Chi_Minh", ((540, 690), (780, 885)), "VND", 0.06, 0, 100.0, 100, 60_000.0),
        Exchange("HNX", "Asia/Ho_Chi_Minh", ((540, 690), (780, 885)), "VND", 0.06, 0, 100.0, 100, 30_000.0),
    )
}


@dataclass(frozen=True)
class Issue:
    """One issue. Price as of the reference day (currency), shares, volatility a day, shares traded on a usual day; from
    `split` on, prices are a `ratio`-th of what they were. The second issue of each exchange has a split."""

    exchange: Exchange
    symbol: str
    price: float
    shares: float
    sigma: float
    volume: float
    split: date
    ratio: float


def issue(seed: int, exchange: Exchange, symbol: str) -> Issue:
    """Return an issue of an exchange. Raises KeyError for an unknown symbol."""
    place = {name: place for place, name in enumerate(exchange.symbols)}[symbol]
    rng = stream(seed, "overseas issue", exchange.code, symbol)
    normal, draw = rng.standard_normal(4), rng.random(2)
    first, last = np.searchsorted(DAYS, np.array(["2022-03-01", "2026-07-01"], "datetime64[D]"))
    shares = float(np.round(np.exp(np.log(2e9) + 0.8 * normal[1]), -4))
    return Issue(
        exchange,
        symbol,
        price=float(exchange.price * np.exp(0.5 * normal[0])),
        shares=shares,
        sigma=float(np.clip(0.016 * np.exp(0.3 * normal[2]), 0.008, 0.03)),
        volume=float(shares * 0.005 * np.exp(0.5 * normal[3])),
        split=DAYS[first + int(draw[0] * (last - first))].item(),
        ratio=(2.0, 4.0, 10.0)[int(draw[1] * 3)] if place == 1 else 1.0,
    )
