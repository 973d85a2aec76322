"""What formulas are made of, by pandas: one frame a column of bars, a row a bar of a symbol, a column a symbol.

Symbols begin in the first row whatever their dates, so that no window reaches from one into another; rows after a
symbol's last bar are NaN and never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .algebra import What

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]


class PandasBars:
    """Hold bars of several symbols; `lane_B` numbers the symbol of each bar, `count_B` its bars from 1 on."""

    def __init__(self, bars: Mapping[str, Floats], lane_B: Longs, count_B: Longs) -> None:
        self.lane_B, self.count_B = lane_B, count_B
        self.shape = (int(lane_B.max(initial=-1)) + 1, int(count_B.max(initial=0)))
        self.bars = {name: self._wide(values) for name, values in bars.items()}

    def _wide(self, values: Floats) -> pd.DataFrame:
        wide = np.full(self.shape, np.nan)
        wide[self.lane_B, self.count_B - 1] = values
        return pd.DataFrame(wide.T, copy=False)

    def column(self, name: str) -> pd.DataFrame:
        return self.bars[name]

    def lag(self, x: Any, n: int) -> Any:
        return x.shift(n)

    def total(self, x: Any, n: int) -> Any:
        return x.rolling(n).sum()

    def mean(self, x: Any, n: int) -> Any:
        return x.rolling(n).mean()

    def variance(self, x: Any, n: int, less: int) -> Any:
        return x.rolling(n).var(ddof=less)

    def highest(self, x: Any, n: int) -> Any:
        return x.rolling(n).max()

    def lowest(self, x: Any, n: int) -> Any:
        return x.rolling(n).min()

    def quantile(self, x: Any, n: int, q: float) -> Any:
        return x.rolling(n).quantile(q, interpolation="linear")

    def rank(self, x: Any, n: int) -> Any:
        return x.rolling(n).rank(method="average")

    def weighted(self, x: Any, weights: Floats) -> Any:
        return sum(weight * x.shift(age) for age, weight in enumerate(weights[::-1]))

    def smooth(self, x: Any, n: int, weight: float, first: int) -> Any:
        seeded, begin = x.copy(), first + n - 1
        seeded.iloc[: begin - 1] = np.nan
        seeded.iloc[begin - 1 : begin] = x.iloc[first - 1 : begin].mean().to_numpy()
        return seeded.ewm(alpha=weight, adjust=False).mean()

    def running(self, x: Any, what: What, *, within_day: bool = False) -> Any:
        if not within_day:
            return getattr(x, f"cum{what}")()
        lane = np.repeat(np.arange(self.shape[0]), self.shape[1])
        keys = [lane, self.bars["day"].to_numpy().T.ravel()]
        found = getattr(pd.Series(x.to_numpy().T.ravel()).groupby(keys), f"cum{what}")()
        return pd.DataFrame(found.to_numpy().reshape(self.shape).T)

    def first(self, x: Any) -> Any:
        return pd.DataFrame(np.broadcast_to(x.iloc[:1].to_numpy(), x.shape))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return pd.DataFrame(np.where(condition, a, b))

    def number(self) -> Any:
        return pd.DataFrame(np.broadcast_to(np.arange(1.0, self.shape[1] + 1)[:, None], self.shape[::-1]))

    def log1p(self, x: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log1p(x)

    def values(self, x: Any, first: int) -> Floats:
        found: Floats = x.to_numpy()[self.count_B - 1, self.lane_B]
        found[self.count_B < first] = np.nan
        return found
