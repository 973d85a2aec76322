"""Index levels of the simulated market: KOSPI, KOSDAQ and KOSPI 200 follow the market factor, with a little of their
own."""

import numpy as np

from pipeline.kis.simulator.market import Columns, Market
from pipeline.kis.simulator.paths import DAYS
from pipeline.kis.simulator.universe import ANCHOR, stream

# code -> (name, level on the anchor day, own volatility a day, thousand shares on a usual day)
INDICES: dict[str, tuple[str, float, float, float]] = {
    "0001": ("종합", 2_670.0, 0.001, 450_000.0),
    "1001": ("코스닥", 880.0, 0.006, 1_000_000.0),
    "2001": ("코스피 200", 360.0, 0.002, 150_000.0),
}


def index_rows(market: Market, code: str, start: np.datetime64, end: np.datetime64) -> Columns:
    """Return an index's closed sessions in [start, end], oldest first: date, open, high, low, close (points, two
    decimals), before (the close before), volume (thousand shares), turnover (million KRW). Raises KeyError for an
    unknown index."""
    _, level, own, shares = INDICES[code]
    rng = stream(market.seed, "index", code)
    night, day = market.factors.market
    day = day + own * rng.standard_normal(len(DAYS))
    total = np.cumsum(night + day)
    close = np.round(level * np.exp(total - total[np.searchsorted(DAYS, np.datetime64(ANCHOR))]), 2)
    before = np.append(close[0], close[:-1])
    opening = np.round(before * np.exp(night), 2)
    reach = rng.exponential(0.003, (2, len(DAYS)))
    high = np.round(np.maximum(opening, close) * (1.0 + reach[0]), 2)
    low = np.round(np.minimum(opening, close) * (1.0 - reach[1]), 2)
    volume = np.round(shares * np.exp(0.2 * market.factors.heat + 0.1 * rng.standard_normal(len(DAYS))))
    rows = slice(int(np.searchsorted(DAYS, start)), min(int(np.searchsorted(DAYS, end, side="right")), market.closed()))
    columns = {
        "date": DAYS,
        "open": opening,
        "high": high,
        "low": low,
        "close": close,
        "before": before,
        "volume": volume,
    }
    return {name: values[rows] for name, values in columns.items()} | {"turnover": np.round(volume * 22.0)[rows]}
