"""Combinations of parameters as one matrix: from a grid, from rows that somebody drew, or from a list.

Shapes: C combinations, P parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.strategies.declare import Parameter, Strategy, StrategyError, Value

Floats = npt.NDArray[np.float64]
MOST = 50_000_000  # combinations of one sweep: the matrix alone then takes gigabytes


@dataclass(frozen=True)
class Samples:
    """Hold combinations of one strategy. code_CP : (C, P) float64 in the order of its parameters, words as the place of
    a choice.
    """

    strategy: Strategy
    code_CP: Floats

    def __len__(self) -> int:
        return len(self.code_CP)

    def values(self, c: int, names: Sequence[str] | None = None) -> dict[str, Value]:
        """Return a combination by name; names : only these of its parameters."""
        pairs = zip(self.strategy.parameters, self.code_CP[c].tolist())
        return {p.name: _value(p, code) for p, code in pairs if names is None or p.name in names}

    def columns(self, rows: Any = slice(None)) -> dict[str, npt.NDArray[Any]]:
        """Return combinations as one array a parameter, by name."""
        out = {}
        for column, p in zip(self.code_CP[rows].T, self.strategy.parameters):
            if p.choices:
                out[p.name] = np.array(p.choices, object)[column.astype(np.int64)]
            else:
                out[p.name] = column.astype(np.int64) if p.kind == "whole" else column
        return out

    def frame(self, rows: Any = slice(None)) -> pd.DataFrame:
        """Return combinations as a frame, one column a parameter."""
        return pd.DataFrame(self.columns(rows))


def _value(parameter: Parameter, code: float) -> Value:
    if parameter.choices:
        return parameter.choices[int(code)]
    return int(code) if parameter.kind == "whole" else code


def grid(strategy: Strategy, ranges: Mapping[str, Sequence[Any]]) -> Samples:
    """Return every combination of lists of values; parameters that are not named keep their defaults.

    Combinations that break the strategy's order of parameters (fast below slow) are left out. Raises StrategyError for
    an empty list, a value out of range, an unknown name, nothing left and more than 50 million combinations.
    """
    for name in ranges:
        strategy.parameter(name)
    axes = []
    for p in strategy.parameters:
        given = ranges.get(p.name, [p.default])
        values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        if not values:
            raise StrategyError(
                f"expected values for parameter '{p.name}', got an empty list; leave it out for its default"
            )
        axes.append(np.array(list(dict.fromkeys(p.code(v) for v in values))))
    count = math.prod(len(axis) for axis in axes)
    _check_count(count, strategy)
    code = np.empty((count, len(axes)))
    repeat = count
    for column, axis in enumerate(axes):
        repeat //= len(axis)
        code[:, column] = np.tile(np.repeat(axis, repeat), count // (repeat * len(axis)))
    return _ordered(strategy, code, "grid")


def samples(strategy: Strategy, rows: Any) -> Samples:
    """Return combinations that are given: a frame with a column a parameter, or a list of mappings; parameters that are
    not named keep their defaults. Raises StrategyError, with the row, for a value out of range.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else _frame(strategy, list(rows))
    for name in frame.columns:
        strategy.parameter(str(name))
    if not len(frame):
        raise StrategyError(f"expected combinations of strategy '{strategy.name}', got none")
    _check_count(len(frame), strategy)
    code = np.empty((len(frame), len(strategy.parameters)))
    for column, p in enumerate(strategy.parameters):
        if p.name not in frame:
            code[:, column] = p.code(p.default)
            continue
        try:
            code[:, column] = _codes(p, frame[p.name])
        except StrategyError as error:
            bad = next(i for i, v in enumerate(frame[p.name].tolist()) if not _fits(p, v))
            raise StrategyError(f"{error} in row {bad}") from error
    for names in strategy.rising:
        _refuse_order(strategy, code, names)
    return Samples(strategy, code)


def _frame(strategy: Strategy, rows: list[Any]) -> pd.DataFrame:
    """Return mappings as a frame, with defaults where one names less than another."""
    if all(isinstance(row, Mapping) for row in rows) and len({frozenset(row) for row in rows}) > 1:
        rows = [{**strategy.defaults, **row} for row in rows]
    return pd.DataFrame(rows)


def _codes(p: Parameter, values: pd.Series) -> Floats:
    """Return what a step gets for each of many values, as Parameter.code does for one."""
    if not p.choices and values.dtype.kind in "iuf":
        numbers = values.to_numpy(np.float64)
        good = (numbers >= p.low) & (numbers <= p.high)
        if p.kind == "whole":
            good &= numbers == np.floor(numbers)
        if good.all():
            return numbers
    try:
        place, distinct = pd.factorize(values, use_na_sentinel=False)
    except TypeError:  # a list among them
        return np.array([p.code(v) for v in values.tolist()])
    return np.array([p.code(v) for v in distinct.tolist()])[place]


def combinations_of(strategy: Strategy, given: Any) -> Samples:
    """Return combinations however they are given: a grid, rows, or Samples as they are."""
    check_strategy(strategy)
    if isinstance(given, Samples):
        if given.strategy != strategy:
            raise StrategyError(f"expected samples of strategy '{strategy.name}', got those of '{given.strategy.name}'")
        return given
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise StrategyError(f"expected combinations as lists of values by parameter, or as rows, got {given!r}")
    return grid(strategy, given) if isinstance(given, Mapping) else samples(strategy, given)


def check_strategy(strategy: Any) -> None:
    """Refuse what is no strategy, such as the name of one."""
    if not isinstance(strategy, Strategy):
        raise StrategyError(f"expected a Strategy, got {strategy!r}; see strategy_of() for those with a name")


def check_counts(least: int = 1, /, **given: int | None) -> None:
    """Refuse what is no whole number from `least` on; None stays."""
    for name, value in given.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or value < least):
            raise StrategyError(
                f"expected a whole number from {least} on as {name}, got {value!r}; correct it or leave it out"
            )


def one(strategy: Strategy, values: Mapping[str, Value]) -> Samples:
    """Return a single combination; parameters that are not named keep their defaults."""
    check_strategy(strategy)
    if not isinstance(values, Mapping):
        raise StrategyError(f"expected values by parameter, such as {{'name': 1}}, got {values!r}")
    return samples(strategy, [dict(values)]) if values else samples(strategy, [strategy.defaults])


def in_order(strategy: Strategy, code_CP: Floats) -> npt.NDArray[np.bool_]:
    """Say which combinations keep the strategy's order of parameters."""
    place = {p.name: i for i, p in enumerate(strategy.parameters)}
    good = np.ones(len(code_CP), bool)
    for names in strategy.rising:
        for a, b in itertools.pairwise(names):
            good &= code_CP[:, place[a]] < code_CP[:, place[b]]
    return good


def _ordered(strategy: Strategy, code: Floats, what: str) -> Samples:
    good = in_order(strategy, code)
    if not good.any():
        told = "; ".join(" < ".join(names) for names in strategy.rising)
        raise StrategyError(
            f"expected combinations with {told} for strategy '{strategy.name}', got a {what} without any"
        )
    return Samples(strategy, code if good.all() else np.ascontiguousarray(code[good]))


def _refuse_order(strategy: Strategy, code: Floats, names: Sequence[str]) -> None:
    bad = np.flatnonzero(~in_order(strategy, code))
    if bad.size:
        values = Samples(strategy, code).values(int(bad[0]))
        told = ", ".join(f"{name} {values[name]}" for name in names)
        raise StrategyError(
            f"expected {' < '.join(names)} for strategy '{strategy.name}', got {told} in row {int(bad[0])} "
            f"({bad.size} such "
            "rows); leave them out"
        )


def _check_count(count: int, strategy: Strategy) -> None:
    if count > MOST:
        raise StrategyError(
            f"expected at most {MOST:,} combinations in one sweep, got {count:,} of strategy '{strategy.name}' (about "
            f"{count * 8 * len(strategy.parameters) / 1e9:,.0f} GB for their parameters alone); make steps coarser, "
            f"or draw samples"
        )


def _fits(parameter: Parameter, value: Any) -> bool:
    try:
        parameter.code(value)
    except StrategyError:
        return False
    return True
