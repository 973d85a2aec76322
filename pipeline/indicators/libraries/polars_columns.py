"""What formulas are made of, by Polars: one series a column of bars, the symbols one after the other; what looks back
does so `over` the symbol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from .algebra import What

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]


class PolarsBars:
    """Hold bars of several symbols; `lane_B` numbers the symbol of each bar, `count_B` its bars from 1 on."""

    def __init__(self, bars: Mapping[str, Floats], lane_B: Longs, count_B: Longs) -> None:
        self.count_B = count_B
        self.bars = {name: pl.Series(values) for name, values in bars.items()}
        self.keys = pl.DataFrame({"lane": pl.Series(lane_B).set_sorted(), "count": count_B})

    def _over(self, x: pl.Series, of: pl.Expr, *keys: str) -> pl.Series:
        """Return what an expression of column x gives for each symbol."""
        return self.keys.with_columns(x=x).select(of.over("lane", *keys)).to_series()

    def column(self, name: str) -> pl.Series:
        return self.bars[name]

    def lag(self, x: Any, n: int) -> Any:
        return self._over(x, pl.col("x").shift(n))

    def total(self, x: Any, n: int) -> Any:
        return self._over(x, pl.col("x").rolling_sum(n))

    def mean(self, x: Any, n: int) -> Any:
        return self._over(x, pl.col("x").rolling_mean(n))

    def variance(self, x: Any, n: int, less: int) -> Any:
        return self._over(x, pl.col("x").rolling_var(n, ddof=less))

    def highest(self, x: Any, n: int) -> Any:
        return self._over(x, pl.col("x").rolling_max(n))

    def lowest(self, x: Any, n: int) -> Any:
        return self._over(x, pl.col("x").rolling_min(n))

    def quantile(self, x: Any, n: int, q: float) -> Any:
        return self._over(x, pl.col("x").rolling_quantile(q, "linear", n))

    def rank(self, x: Any, n: int) -> Any:
        return self._over(x, pl.col("x").rolling_rank(n, method="average"))

    def weighted(self, x: Any, weights: Floats) -> Any:
        return self._over(x.fill_null(0.0), pl.col("x").rolling_sum(len(weights), weights=weights.tolist()))

    def smooth(self, x: Any, n: int, weight: float, first: int) -> Any:
        count, begin, seed = pl.col("count"), first + n - 1, pl.col("x").slice(first - 1, n).mean()
        seeded = pl.when(count == begin).then(seed).when(count > begin).then("x")
        return self._over(x, seeded.ewm_mean(alpha=weight, adjust=False, ignore_nulls=True))

    def running(self, x: Any, what: What, *, within_day: bool = False) -> Any:
        of = getattr(pl.col("x"), f"cum_{what}")()
        if not within_day:
            return self._over(x, of)
        return self.keys.with_columns(x=x, day=self.bars["day"]).select(of.over("lane", "day")).to_series()

    def first(self, x: Any) -> Any:
        return self._over(x, pl.col("x").first())

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return pl.select(pl.when(condition).then(a).otherwise(b)).to_series()

    def number(self) -> Any:
        return self.keys["count"].cast(pl.Float64)

    def log1p(self, x: Any) -> Any:
        return x.log1p()

    def values(self, x: Any, first: int) -> Floats:
        found: Floats = x.fill_null(np.nan).to_numpy().copy()
        found[self.count_B < first] = np.nan
        return found
