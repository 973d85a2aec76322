"""How a strategy is declared: its parameters with their ranges, the columns it looks at, and its step.

Everything here is data, so that a sweep can compute each column that several combinations share once, and the step is
one plain function that a compiler, a debugger and the reader see alike. template.py shows a whole one.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pipeline.indicators import Spec
from pipeline.indicators.spec import nearest

from .step import fault

Value = float | str
Step = Callable[[int, Any, Any, Any, Any, Any, int], int]
"""step(i, x, at, p, order, state, side): what is wanted after the close of bar i.

x[at[COLUMN], i] is the value of a column at bar i (float32, NaN = not known), and of bars before i; p[PARAMETER] the
value of a parameter (a word is its place among the choices); side 1, 0 or -1 what is held. Returns STAY (0), LONG (1),
SHORT (-1) or FLAT (2). An entry is described in order[STOP], order[TARGET], order[TRAIL_START], order[TRAIL] (distances
from the price of the fill, in prices; 0 = none), order[BARS] (closes until it is left; 0 = none) and order[WEIGHT]
(share of the usual size, 1). state[k] are 16 numbers that are the step's own, zeros at the start. With a trigger, the
step is called only while something is held, state[0] is not zero or the trigger's column is not. Numbers and `math`
only: it is compiled.
"""


class StrategyError(ValueError):
    """A strategy, a combination or bars that cannot be run: the message says expected, got, where, what to do."""


@dataclass(frozen=True)
class Parameter:
    """Name a parameter with its default and what it may be: numbers from low to high by step, or one of some words."""

    name: str
    default: Value
    low: float = 0.0
    high: float = 0.0
    step: float = 1.0
    choices: tuple[str, ...] = ()

    @cached_property
    def kind(self) -> Literal["whole", "real", "choice"]:
        if self.choices:
            return "choice"
        return "whole" if all(float(v).is_integer() for v in (self.low, self.step)) else "real"

    def __post_init__(self) -> None:
        if self.choices:
            good = self.default in self.choices
        else:
            number = math.nan if isinstance(self.default, str) else float(self.default)
            good = self.step > 0 and self.low <= number <= self.high and math.isfinite(self.high - self.low)
        if not good:
            raise StrategyError(
                f"expected a default of parameter '{self.name}' within {self.told}, got {self.default!r}; correct it"
            )
        if not self.choices:
            self._check_step()

    def _check_step(self) -> None:
        """Refuse a default that a search would never draw; combinations that somebody gives may lie between steps."""
        number = min(round((float(self.default) - self.low) / self.step), self.count - 1)
        if not math.isclose(near := float(self.value(number)), float(self.default), abs_tol=1e-9 * self.step):
            raise StrategyError(
                f"expected a default of parameter '{self.name}' on a step of {self.told}, got {self.default!r}; the "
                f"nearest is {near:g}"
            )

    @property
    def told(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return f"{self.low:g}..{self.high:g} by {self.step:g}"

    @property
    def count(self) -> int:
        """How many values it may have."""
        return len(self.choices) or math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def value(self, number: int) -> Value:
        """Return its value of that number, from 0."""
        if self.choices:
            return self.choices[number]
        value = round(self.low + number * self.step, 12)
        return int(value) if self.kind == "whole" else value

    def code(self, value: Any) -> float:
        """Return what a step gets for a value: the number itself, or a word's place. Raises StrategyError."""
        if self.choices:
            if value in self.choices:
                return float(self.choices.index(value))
        elif isinstance(value, (int, float)) or hasattr(value, "__float__"):
            number = float(value)
            if self.low <= number <= self.high and (self.kind != "whole" or number.is_integer()):
                return number
        kind = "a whole number of " if self.kind == "whole" else ""
        raise StrategyError(f"expected {kind}{self.told} for parameter '{self.name}', got {value!r}")


@dataclass(frozen=True, eq=False)
class Use:
    """Ask for one column of an indicator, or of the (adjusted) bars: open, high, low, close, volume; texts in `params`
    and `at` name parameters of the strategy.

    at : the interval of coarser bars that it is computed on, or a parameter that says it; empty = the bars that are
    traded. once : the value only on the bar with which its own bar closes, 0 on the bars after it: for events; of
    two that close with the same bar of those traded (after a gap in these) the later one.
    """

    indicator: str
    params: Mapping[str, Value] = field(default_factory=dict)
    output: str = ""
    over: Literal["close", "close_ratio"] | None = None
    at: str = ""
    once: bool = False

    def names(self, parameters: Sequence[Parameter]) -> list[str]:
        """Return the parameters that it depends on."""
        known = {p.name for p in parameters}
        found = [v for v in self.params.values() if isinstance(v, str)]
        return [*found, *([self.at] if self.at in known else [])]

    def spec(self, values: Mapping[str, Value], interval: str) -> Spec:
        """Return what the indicators are asked for with these values, on bars of `interval`."""
        params = {name: float(values[v] if isinstance(v, str) else v) for name, v in self.params.items()}
        at = str(values.get(self.at, self.at))
        return Spec(
            indicator=self.indicator,
            params=params,
            outputs=(self.output,) if self.output else (),
            over=self.over,
            at="" if at == interval else at,
        )


@dataclass(frozen=True)
class Strategy:
    """Declare a strategy. columns : in the order in which the step numbers them. trigger : the number of the column
    that wakes the step, None = it is called at every bar. rising : parameters each of which must be below the next.
    lookback : how many bars before i the step looks at; it is not called before there are so many.
    """

    name: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Use, ...]
    step: Step
    trigger: int | None = None
    rising: tuple[tuple[str, ...], ...] = ()
    lookback: int = 1

    def __post_init__(self) -> None:
        if wrong := fault(self.step):
            raise StrategyError(f"step of strategy '{self.name}': {wrong}")
        known = [p.name for p in self.parameters]
        if len(set(known)) != len(known):
            raise StrategyError(f"expected each parameter of strategy '{self.name}' once, got {known}")
        asked = [name for use in self.columns for name in use.params.values() if isinstance(name, str)]
        for name in [*asked, *(name for names in self.rising for name in names)]:
            if name not in known:
                raise StrategyError(
                    f"expected a parameter of strategy '{self.name}' ({', '.join(known)}), got '{name}'"
                )
        if self.trigger is not None and not 0 <= self.trigger < len(self.columns):
            raise StrategyError(
                f"expected the trigger of strategy '{self.name}' among its {len(self.columns)} columns, got "
                f"{self.trigger}"
            )

    @property
    def doc(self) -> str:
        """Return what its step says about itself."""
        return inspect.cleandoc(self.step.__doc__ or "")

    @property
    def defaults(self) -> dict[str, Value]:
        return {p.name: p.default for p in self.parameters}

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by name. Raises StrategyError with the nearest one."""
        for one in self.parameters:
            if one.name == name:
                return one
        known = {p.name for p in self.parameters}
        raise StrategyError(f"expected a parameter of strategy '{self.name}', got '{name}'{nearest(name, known)}")
