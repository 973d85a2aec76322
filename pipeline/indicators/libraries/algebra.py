"""What a library must be able to do for the formulas, and what they share.

A value is what the library holds a column in: it takes + - * / ** and comparisons, .abs() and .shift(). Within a window
that is not full it is not known, NaN or null; what a formula decides before an output is known does not matter, because
`values` writes NaN there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

What = Literal["sum", "max", "min"]
Known = tuple[Any, int]
"""A value with the first bar of a symbol, counted from 1, at which it is known."""
Formula = Callable[..., Sequence[Known]]
"""Takes the bars and the parameters of an indicator and returns its outputs in their order."""


class Bars(Protocol):
    """Bars of several symbols in a library; windows end at their bar and never reach into another symbol."""

    def column(self, name: str) -> Any: ...
    def lag(self, x: Any, n: int) -> Any: ...
    def total(self, x: Any, n: int) -> Any: ...
    def mean(self, x: Any, n: int) -> Any: ...
    def highest(self, x: Any, n: int) -> Any: ...
    def lowest(self, x: Any, n: int) -> Any: ...
    def quantile(self, x: Any, n: int, q: float) -> Any:
        """Interpolate between the two nearest of the last n values."""

    def rank(self, x: Any, n: int) -> Any:
        """Return the rank among the last n values, from 1 on, the mean of ranks for equal ones."""

    def variance(self, x: Any, n: int, less: int) -> Any:
        """Return the squared distances from the mean of n values over n - less."""

    def weighted(self, x: Any, weights: npt.NDArray[np.float64]) -> Any:
        """Sum the last values times weights, the oldest first."""

    def smooth(self, x: Any, n: int, weight: float, first: int) -> Any:
        """Begin with the mean of n values from bar `first` on, then move by `weight` of the difference."""

    def running(self, x: Any, what: What, *, within_day: bool = False) -> Any:
        """Return sum, highest or lowest so far, of the symbol or of its day."""

    def first(self, x: Any) -> Any:
        """Return the value at the first bar of the symbol."""

    def where(self, condition: Any, a: Any, b: Any) -> Any: ...
    def number(self) -> Any:
        """Return the number of the bar within its symbol, from 1 on."""

    def log1p(self, x: Any) -> Any: ...
    def values(self, x: Any, first: int) -> npt.NDArray[np.float64]:
        """Return a value as (bars,) float64, NaN before the first known bar of each symbol."""


def ema(b: Bars, x: Any, n: int, first: int = 1) -> Any:
    return b.smooth(x, n, 2.0 / (n + 1.0), first)


def wilder(b: Bars, x: Any, n: int, first: int) -> Any:
    return b.smooth(x, n, 1.0 / n, first)


def larger(b: Bars, x: Any, y: Any) -> Any:
    return b.where(x > y, x, y)


def smaller(b: Bars, x: Any, y: Any) -> Any:
    return b.where(x < y, x, y)


def never(b: Bars, condition: Any, n: int) -> Any:
    """Return whether a condition held at none of the last n bars."""
    return b.total(b.where(condition, 1.0, 0.0), n) == 0.0


def equal(b: Bars, x: Any, n: int) -> Any:
    """Return whether the last n values are equal."""
    return never(b, x != b.lag(x, 1), n - 1)


def deviation(b: Bars, x: Any, n: int, less: int) -> Any:
    """Return the standard deviation of n values; 0 where they are equal, whatever rounding leaves."""
    variance = b.variance(x, n, less)
    return b.where((variance <= 0.0) | equal(b, x, n), 0.0, variance) ** 0.5


def change(b: Bars, x: Any) -> Any:
    return x - b.lag(x, 1)


def rises(b: Bars, x: Any) -> Any:
    """Return the positive changes, 0 for others."""
    move = change(b, x)
    return b.where(move > 0.0, move, 0.0)


def log_ratio(b: Bars, over: Any, under: Any) -> Any:
    """Return the logarithm of a ratio, exact for small moves; NaN without two positive numbers."""
    return b.where((over > 0.0) & (under > 0.0), b.log1p((over - under) / under), np.nan)


def true_range(b: Bars) -> Any:
    """Return the range of each bar with the close before it; not known at the first bar."""
    before = b.lag(b.column("close"), 1)
    return larger(b, b.column("high"), before) - smaller(b, b.column("low"), before)


def typical(b: Bars) -> Any:
    """Return the mean of high, low and close; the close itself where they are equal."""
    high, low, close = (b.column(name) for name in ("high", "low", "close"))
    return close + ((high - close) + (low - close)) * (1.0 / 3.0)


def age(b: Bars, x: Any, best: Any, n: int, *, oldest: bool) -> Any:
    """Return how many bars ago `best` was among the last n values, the oldest or the latest of equal ones."""
    ages = range(n) if oldest else range(n - 1, -1, -1)
    found = best * 0.0
    for back in ages:
        found = b.where(x.shift(back) == best, float(back), found)
    return found
