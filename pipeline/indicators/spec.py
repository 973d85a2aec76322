"""What an indicator says about itself.

A kernel stands beside its literal `Indicator(...)` in the file of its family (averages.py, trend.py, ...). Everything
here is data that the drivers, the tests and the docs read; the formulas are in the kernels.

Names in kernels: `size` is the window as a number, `n` the same as an integer, `count` the number of bars that a lane
has seen including this one, `equal` and `still` count bars without a change, `fresh_*` and `phase` belong to sums that
are renewed every n bars. What kernels share is in running.py and rows.py.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ..recurrence import Kernel

INPUTS = ("open", "high", "low", "close", "volume", "day", "turnover", "market")
"""Columns of bars in the order of a tile: prices (KRW), shares, the number of the local calendar day (made from ts
where the bars have no such column), KRW traded, and the close of the market's index at the same ts.
"""

Scale = Literal["price", "price_change", "volume", "turnover", "none"]
Counts = Literal["bars", "changes"]
_WINDOWS = {"length", "period", "periods", "timeperiod", "window", "lookback", "span"}  # what others call n


class IndicatorError(ValueError):
    """A column that cannot be computed as asked; the message says expected, got, where and what to do."""


@dataclass(frozen=True)
class Param:
    """Name one parameter with its default and the range that is accepted; `whole` means whole numbers only."""

    name: str
    default: float
    low: float
    high: float
    whole: bool = True


@dataclass(frozen=True)
class Output:
    """Name one output with its unit and how it follows its inputs when all prices, or all volumes, are multiplied.

    `price` and `price_change` (a difference of prices) scale with prices, `volume` with volumes, `turnover` with both.
    `bounds` hold for every finite value. `params` are those that are part of the column's name, None = all of the
    indicator's.
    """

    name: str
    unit: str
    scales_with: Scale = "none"
    bounds: tuple[float, float] = (-math.inf, math.inf)
    params: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Indicator:
    """Describe a kernel: what it reads, keeps and gives, and what it promises.

    `inputs` are columns among INPUTS; a run of them costs no copy. `state` counts its state rows; `past` (of the
    parameters) says how many earlier input rows it looks at, `own` how many earlier rows of its own outputs, `scratch`
    how many more outputs it needs for itself. All outputs are known from bar `ready` of a series on, and NaN before
    their own first bar. After `warmup` bars they no longer depend on where the series began, within `tolerance` of the
    largest value; infinity = they always do. `counts` says which bars these are: all, or only those on which an input
    changed from the bar before, because a ratio of two smoothings forgets nothing while both shrink alike. Bars after t
    never change outputs up to t. `source` names where the formula comes from. `rising` lists parameters that must
    differ in this order.
    """

    name: str
    kernel: Kernel
    inputs: tuple[str, ...]
    params: tuple[Param, ...]
    outputs: tuple[Output, ...]
    state: int
    past: Callable[..., float]
    ready: Callable[..., float]
    warmup: Callable[..., float]
    source: str
    own: Callable[..., float] = lambda *params: 0
    scratch: int = 0
    tolerance: float = 1e-9
    counts: Counts = "bars"
    rising: tuple[str, ...] = ()

    @property
    def doc(self) -> str:
        """Return what the kernel says about itself."""
        return (self.kernel.__doc__ or "").strip()

    def values(self, given: Mapping[str, float]) -> tuple[float, ...]:
        """Return all parameters in order, checked; those not given take their defaults."""
        known = {p.name for p in self.params}
        for name in given:
            if name not in known:
                raise IndicatorError(
                    f"expected parameters {sorted(known)} for indicator '{self.name}', got '{name}'"
                    f"{nearest('n' if name.lower() in _WINDOWS else name, known)}"
                )
        out = []
        for p in self.params:
            value = float(given.get(p.name, p.default))
            if not p.low <= value <= p.high or (p.whole and value != int(value)):
                kind = "a whole number" if p.whole else "a number"
                raise IndicatorError(
                    f"expected {kind} from {p.low:g} to {p.high:g} for parameter '{p.name}' of indicator "
                    f"'{self.name}', got {value:g}"
                )
            out.append(value)
        at = {p.name: value for p, value in zip(self.params, out)}
        for a, b in zip(self.rising, self.rising[1:]):
            if at[a] >= at[b]:
                raise IndicatorError(
                    f"expected {a} below {b} for indicator '{self.name}', got {a}={at[a]:g} and {b}={at[b]:g}"
                )
        return tuple(out)


def nearest(name: str, known: set[str] | list[str]) -> str:
    """Return '; did you mean …?' where something known is close, whatever the case, else what is known."""
    by_lower = {one.lower(): one for one in sorted(known)}
    found = difflib.get_close_matches(name.lower(), list(by_lower), 1, 0.5)
    return f"; did you mean '{by_lower[found[0]]}'?" if found else f"; known: {', '.join(sorted(known))}"


def forgets(share: float, tolerance: float = 1e-9) -> int:
    """Return after how many bars a smoothing that keeps `share` of its past each bar has forgotten all but
    `tolerance` of it.
    """
    return math.ceil(math.log(tolerance) / math.log(share)) if share > 0.0 else 1
