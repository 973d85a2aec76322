"""How columns are asked for, and what they are called. See spec.py for what an indicator says about itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from storage.section import Section, setting

from ..cross_section import Chain, Operator, label
from .spec import INPUTS, Indicator, IndicatorError, Scale, nearest

Over = Literal["close", "close_ratio"]


class Spec(Section):
    """Ask for the columns of one indicator."""

    indicator: str = setting(..., "name of the indicator")
    params: dict[str, float | tuple[float, ...]] = setting(
        dict, "parameters by name, the others take their defaults; lists = every combination, the last list fastest"
    )
    outputs: tuple[str, ...] = setting((), "outputs that are wanted; none = all")
    over: Over | None = setting(
        None,
        "divide by the close: prices become price / close - 1 (close) or price / close (close_ratio), differences of "
        "prices / close",
    )
    at: str = setting(
        "", "interval of coarser bars to compute on, seen once they have closed: 1h on bars of 15m", pattern=r"^\w*$"
    )
    cross: Chain = setting(
        (), "operators within each moment over all members of the universe: [winsorise, zscore], [neutralise: [sector]]"
    )
    names: dict[str, str] = setting(
        dict, "own names of columns by output, with parameters in braces: {sma: 'MA{n}'}; the others keep theirs"
    )


_EXPECTED = {
    "indicator": "the name of an indicator, such as rsi,",
    "params": "numbers, or lists of them, by name of the parameter, such as {n: 14},",
    "outputs": "a list of outputs, such as [macd_signal],",
    "over": "close or close_ratio",
    "at": "an interval, such as 1h,",
    "names": "names of columns by output, such as {sma: 'MA{n}'},",
}


def spec_of(found: Any) -> Spec:
    """Return a spec from what is written. Raises IndicatorError, one sentence for each key that is wrong."""
    if isinstance(found, Spec):
        return found
    if not isinstance(found, Mapping):
        hint = f"; write {{indicator: {found}}}" if isinstance(found, str) else ""
        raise IndicatorError(f"expected a spec such as {{indicator: rsi, params: {{n: 14}}}}, got {found!r}{hint}")
    try:
        return Spec.model_validate(found)
    except ValidationError as error:
        sentences = dict.fromkeys(_sentence(one, found) for one in error.errors())
        raise IndicatorError("; ".join(sentences)) from error


def _sentence(error: Any, found: Mapping[str, Any]) -> str:
    """Say what one of pydantic's errors means."""
    key, *inner = error["loc"]
    if error["type"] == "extra_forbidden":
        known = list(Spec.model_fields)
        return f"expected keys among {', '.join(known)} in a spec, got '{key}'{nearest(str(key), known)}"
    if error["type"] == "missing":
        return f"expected the key '{key}' in a spec such as {{indicator: rsi}}, got {dict(found)!r}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if key == "params" and inner:
        given = found[key].get(inner[0])
        return (
            f"expected a number, or a list of them, for parameter '{inner[0]}' of indicator "
            f"'{found.get('indicator')}', got {given!r}"
        )
    hint = nearest(found[key], ["close", "close_ratio"]) if key == "over" and isinstance(found[key], str) else ""
    return f"expected {_EXPECTED[key]} for '{key}', got {found[key]!r}{hint}"


@dataclass(frozen=True)
class Column:
    """Name one column with what it is made of; `output` is the index among the indicator's outputs, `at` the interval
    of the coarser bars that it is computed on, empty = the bars themselves; `cross` the operators that are applied
    within each moment.
    """

    name: str
    indicator: Indicator
    values: tuple[float, ...]
    output: int
    over: Over | None = None
    at: str = ""
    cross: tuple[Operator, ...] = ()

    @property
    def source(self) -> Column:
        """Return the column that the operators are applied to."""
        return _named(replace(self, cross=()), None) if self.cross else self

    @property
    def params(self) -> dict[str, float]:
        return {p.name: int(v) if v == int(v) else v for p, v in zip(self.indicator.params, self.values)}

    @property
    def named(self) -> dict[str, float]:
        """Return the parameters that are part of the name: those that the output depends on."""
        wanted = self.indicator.outputs[self.output].params
        return {name: value for name, value in self.params.items() if wanted is None or name in wanted}

    @property
    def content(self) -> tuple[Any, ...]:
        """Return what the values depend on: columns of equal content are equal, whatever their names."""
        return self.indicator.name, self.output, tuple(self.named.values()), self.over, self.at, self.cross

    @property
    def ready(self) -> int:
        """Bars until all outputs of the indicator are known."""
        return int(self.indicator.ready(*self.values))

    @property
    def unit(self) -> str:
        if any(operator.name != "winsorise" for operator in self.cross):
            return "number"
        return "ratio" if self.over else self.indicator.outputs[self.output].unit

    @property
    def scales_with(self) -> Scale:
        return "none" if self.over or self.unit == "number" else self.indicator.outputs[self.output].scales_with


def columns_of(spec: Spec, indicator: Indicator) -> list[Column]:
    """Return the columns that a spec asks for, for each set of parameters in turn, named `<output>_<params>` with
    `_over_close` or `_close_ratio` where divided by the close, or as the spec names them.
    """
    known = [o.name for o in indicator.outputs]
    wanted = spec.outputs or tuple(known)
    for names, choice in ((spec.outputs, known), (spec.names, list(wanted))):
        for name in names:
            if name not in choice:
                raise IndicatorError(
                    f"expected outputs among {choice} for indicator '{indicator.name}', got '{name}'"
                    f"{nearest(name, choice)}"
                )
    grid = [value if isinstance(value, tuple) else (value,) for value in spec.params.values()]
    if not all(grid):
        raise IndicatorError(f"expected a value of each parameter of indicator '{indicator.name}', got {spec.params}")
    out = []
    for chosen in itertools.product(*grid):
        values = indicator.values(dict(zip(spec.params, chosen)))
        for i, output in enumerate(indicator.outputs):
            if output.name not in wanted:
                continue
            if spec.over and output.scales_with not in ("price", "price_change"):
                raise IndicatorError(
                    f"expected an output in units of price for over: {spec.over}, got '{output.name}' of indicator "
                    f"'{indicator.name}' in {output.unit}; leave 'over' out or name other outputs"
                )
            out.append(
                _named(Column("", indicator, values, i, spec.over, spec.at, spec.cross), spec.names.get(output.name))
            )
    return out


_SUFFIX = {None: "", "close": "_over_close", "close_ratio": "_close_ratio"}
_TAKEN = {"symbol", "ts", *INPUTS, "member", "sector", "size"}  # of bars, and beside features: features/targets.py


def _named(column: Column, template: str | None) -> Column:
    """Return a column under its name: the default one, or the template with the parameters in it."""
    output, params = column.indicator.outputs[column.output].name, column.named
    if template is None:
        end = f"_{label(column.cross)}" if column.cross else ""
        name = "_".join([output, *(f"{v:g}" for v in params.values())])
        return replace(column, name=name + _SUFFIX[column.over] + (f"@{column.at}" if column.at else "") + end)
    for field in re.findall(r"\{(.*?)\}", template):
        if field not in params:
            raise IndicatorError(
                f"expected parameters {sorted(params)} in the name '{template}' of output '{output}', got '{field}'"
                f"{nearest(field, set(params))}"
            )
    name = re.sub(r"\{(.*?)\}", lambda found: f"{params[found[1]]:g}", template)
    if not re.fullmatch(r"[^\W\d][\w.@]*", name) or name in _TAKEN or name.startswith("y_"):
        raise IndicatorError(
            f"expected a name of letters, digits, '_', '.' and '@' that is no column of bars, target or universe, "
            f"got '{name}' for output '{output}'; choose another"
        )
    return replace(column, name=name)
