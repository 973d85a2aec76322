"""What an indicator says about itself, and how a column is asked for.

A kernel stands beside its literal `Indicator(...)` in trend.py, momentum.py, volatility.py and volume.py. Everything
here is data that the drivers, the tests and the docs read; the formulas are in the kernels.

Names in kernels: `size` is the window as a number, `n` the same as an integer, `count` the number of bars that a lane
has seen including this one, `equal` and `still` count bars without a change, `fresh_*` and `phase` belong to sums that
start from zero every n bars and then replace the running ones, so that rounding never accumulates over more than 2n
bars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from storage.section import Section, setting

from ..recurrence import Kernel

INPUTS = ("open", "high", "low", "close", "volume")
"""Columns of bars in the order of a tile; the inputs of a kernel are a run of these."""

Scale = Literal["price", "price_change", "volume", "none"]


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

    `price` and `price_change` (a difference of prices) scale with prices, `volume` with volumes. `bounds` hold for
    every finite value. `params` are those that are part of the column's name, None = all of the indicator's.
    """

    name: str
    unit: str
    scales_with: Scale = "none"
    bounds: tuple[float, float] = (-math.inf, math.inf)
    params: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Indicator:
    """Describe a kernel: what it reads, keeps and gives, and what it promises.

    `state` counts its state rows; `past` (of the parameters) says how many earlier input rows it looks at, `own` how
    many earlier rows of its own outputs, `scratch` how many more outputs it needs for itself. All outputs are known
    from bar `ready` of a series on, and NaN before their own first bar. After `warmup` bars they no longer depend on
    where the series began, within `tolerance` of the largest value; infinity = they always do. Bars after t never
    change outputs up to t. `source` names where the formula comes from. `rising` lists parameters that must differ in
    this order.
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
    rising: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        first = INPUTS.index(self.inputs[0])
        if INPUTS[first : first + len(self.inputs)] != self.inputs:
            raise IndicatorError(f"expected inputs of '{self.name}' as a run of {INPUTS}, got {self.inputs}")

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
                    f"{nearest(name, known)}"
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


class Spec(Section):
    """Ask for the columns of one indicator."""

    indicator: str = setting(..., "name of the indicator")
    params: dict[str, float] = setting(dict, "parameters by name; the others take their defaults")
    outputs: tuple[str, ...] = setting((), "outputs that are wanted; none = all")
    over: Literal["close"] | None = setting(
        None, "divide by the close: prices become price / close - 1, differences of prices / close"
    )


@dataclass(frozen=True)
class Column:
    """Name one column with what it is made of; `output` is the index among the indicator's outputs."""

    name: str
    indicator: Indicator
    values: tuple[float, ...]
    output: int
    over: bool

    @property
    def params(self) -> dict[str, float]:
        return {p.name: int(v) if v == int(v) else v for p, v in zip(self.indicator.params, self.values)}

    @property
    def ready(self) -> int:
        """Bars until all outputs of the indicator are known."""
        return int(self.indicator.ready(*self.values))

    @property
    def unit(self) -> str:
        return "ratio" if self.over else self.indicator.outputs[self.output].unit

    @property
    def scales_with(self) -> Scale:
        return "none" if self.over else self.indicator.outputs[self.output].scales_with


def columns_of(spec: Spec, indicator: Indicator) -> list[Column]:
    """Return the columns that a spec asks for, named `<output>_<params>`, with `_over_close` where divided by the
    close.
    """
    values = indicator.values(spec.params)
    names = [o.name for o in indicator.outputs]
    for name in spec.outputs:
        if name not in names:
            raise IndicatorError(
                f"expected outputs among {names} for indicator '{indicator.name}', got '{name}'{nearest(name, names)}"
            )
    out = []
    for i, output in enumerate(indicator.outputs):
        if spec.outputs and output.name not in spec.outputs:
            continue
        if spec.over and output.scales_with not in ("price", "price_change"):
            raise IndicatorError(
                f"expected an output in units of price for over: close, got '{output.name}' of indicator "
                f"'{indicator.name}' in {output.unit}; leave 'over' out or name other outputs"
            )
        named = [v for p, v in zip(indicator.params, values) if output.params is None or p.name in output.params]
        name = "_".join([output.name, *(f"{v:g}" for v in named)])
        out.append(Column(f"{name}_over_close" if spec.over else name, indicator, values, i, spec.over is not None))
    return out


def nearest(name: str, known: set[str] | list[str]) -> str:
    """Return '; did you mean …?' where something known is close, else what is known."""
    import difflib

    found = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    return f"; did you mean '{found[0]}'?" if found else f"; known: {', '.join(sorted(known))}"


def forgets(share: float, tolerance: float = 1e-9) -> int:
    """Return after how many bars a smoothing that keeps `share` of its past each bar has forgotten all but
    `tolerance` of it.
    """
    return math.ceil(math.log(tolerance) / math.log(share)) if share > 0.0 else 1
