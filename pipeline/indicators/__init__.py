"""The indicators: which there are, and how a frame of bars becomes a frame of columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..recurrence import AS_IS, OVER_CLOSE, OVER_CLOSE_LESS_ONE, Pass, Plan, Write
from . import (
    alpha,
    averages,
    bands,
    candles,
    correlation,
    drawdowns,
    ichimoku,
    momentum,
    money_flow,
    nested,
    order,
    oscillators,
    regression,
    rolling,
    session,
    stops,
    trend,
    volatility,
    volume,
    vwap,
)
from .columns import Column, Spec, columns_of
from .frame import BarsError, names_of, on_host, places_of, series_of
from .spec import INPUTS, Indicator, IndicatorError, nearest
from .timeframes import Part, View, crossed, values_at

__all__ = [
    "ALL", "INPUTS", "BarsError", "Column", "Indicator", "IndicatorError", "Spec",
    "compute", "parts_of", "plan_of", "reads", "resolve", "rows_of",
]  # fmt: skip

ALL: tuple[Indicator, ...] = (
    *averages.ALL,
    *nested.ALL,
    *vwap.ALL,
    *session.ALL,
    *trend.ALL,
    *stops.ALL,
    *ichimoku.ALL,
    *momentum.ALL,
    *oscillators.ALL,
    *bands.ALL,
    *volatility.ALL,
    *drawdowns.ALL,
    *rolling.ALL,
    *order.ALL,
    *regression.ALL,
    *correlation.ALL,
    *volume.ALL,
    *money_flow.ALL,
    *alpha.ALL,
    *candles.ALL,
)
_BY_NAME = {indicator.name: indicator for indicator in ALL}


def resolve(specs: Iterable[Spec | Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns that specs ask for, in their order; a column that is asked for twice comes once.

    Raises IndicatorError for an unknown indicator, parameter or output (the nearest name is suggested), for values out
    of range and for one name of different columns.
    """
    out: dict[str, Column] = {}
    for spec in specs:
        one = spec if isinstance(spec, Spec) else Spec.model_validate(spec)
        if one.indicator not in _BY_NAME:
            raise IndicatorError(
                f"expected a known indicator, got '{one.indicator}'{nearest(one.indicator, set(_BY_NAME))}"
            )
        for column in columns_of(one, _BY_NAME[one.indicator]):
            other = out.setdefault(column.name, column)
            if other.content != column.content:
                raise IndicatorError(
                    f"expected one column of a name, got '{column.name}' for {_told(other)} and {_told(column)}; "
                    "choose another name, with the parameters in it, such as 'MA{n}'"
                )
    return tuple(out.values())


def _told(column: Column) -> str:
    return " ".join(
        [f"'{column.indicator.outputs[column.output].name}'"]
        + [f"{name}={value:g}" for name, value in column.named.items()]
        + [f"over {column.over}"] * bool(column.over)
        + [f"at {column.at}"] * bool(column.at)
    )


def reads(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the columns of bars that these columns are made of, in the order of a tile."""
    names = {name for c in columns for name in c.indicator.inputs} | {"close" for c in columns if c.over}
    return tuple(name for name in INPUTS if name in names)


def rows_of(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return which columns of bars are the rows of a tile: the run of INPUTS that the kernels read runs of, and after
    it, once more, the inputs of each kernel that reads no run.
    """
    found = dict.fromkeys([c.indicator.inputs for c in columns])
    runs = [one for one in found if _place(one, INPUTS) >= 0] + [("close",) for c in columns if c.over][:1]
    ends = [INPUTS.index(name) for one in runs for name in one]
    rows = INPUTS[min(ends) : max(ends) + 1] if ends else ()
    for one in found:
        rows += one if _place(one, rows) < 0 else ()
    return rows


def _place(part: Sequence[str], rows: Sequence[str]) -> int:
    """Return where `part` begins as a run of `rows`, -1 where it is none."""
    width = len(part)
    return next((i for i in range(len(rows) - width + 1) if tuple(rows[i : i + width]) == tuple(part)), -1)


def plan_of(columns: Sequence[Column]) -> Plan:
    """Lay out the passes behind columns; each kernel runs once for one set of parameters, whatever is stored of it."""
    rows = rows_of(columns)
    writes: dict[tuple[str, tuple[float, ...]], list[Write]] = {}
    for i, column in enumerate(columns):
        change = column.indicator.outputs[column.output].scales_with == "price_change"
        ratio = OVER_CLOSE if change or column.over == "close_ratio" else OVER_CLOSE_LESS_ONE
        over = ratio if column.over else AS_IS
        writes.setdefault((column.indicator.name, column.values), []).append(Write(column.output, i, over))
    passes = []
    for (name, values), stored in writes.items():
        one = _BY_NAME[name]
        passes.append(
            Pass(
                kernel=one.kernel,
                first_input=_place(one.inputs, rows),
                inputs=len(one.inputs),
                params=values,
                state=one.state,
                outputs=len(one.outputs) + one.scratch,
                past=int(one.past(*values)),
                own=int(one.own(*values)),
                writes=tuple(stored),
                warmup=one.warmup(*values) if one.counts == "bars" else math.inf,
            )
        )
    return Plan(tuple(passes), len(rows), _place(["close"], rows))


def parts_of(columns: Sequence[Column]) -> dict[str, Part]:
    """Return the columns by the interval of their bars, '' first, each with the plan of its kernels."""
    out = {}
    for at in dict.fromkeys(["", *(c.at for c in columns)]):
        if part := tuple(c for c in columns if c.at == at):
            out[at] = Part(part, plan_of(part), rows_of(part), reads(part))
    return out


def compute(
    bars: Any,
    specs: Iterable[Spec | Mapping[str, Any]],
    *,
    dtype: Any = np.float32,
    threads: int = 1,
    coarser: Mapping[str, Any] | None = None,
    level: str = "numba",
) -> Any:
    """Compute indicator columns over a pandas or cuDF frame of bars, where the frame is.

    bars : columns symbol, ts and those of INPUTS that the specs read; sorted by (symbol, ts), one interval and one
    source. coarser : frames of complete coarser bars by interval, for specs with `at`; a value appears at the first bar
    that ends with or after its own. Specs with `cross` are seen among all symbols of the frame. Returns a frame of the
    same kind with the same index, `dtype` float32 or float64, columns named `<output>_<params>`. A row that is not
    finite in any column that the set reads is no bar: state is held and NaN comes out. NaN also before a column is
    known. Sees bars up to and including t. level : pandas or polars compute a pandas frame by that library instead of
    the kernels, see libraries/. Raises IndicatorError for what cannot be computed as asked.
    """
    columns = resolve(specs)
    if not columns:
        return bars[[]].copy()
    sources = tuple({c.source.name: c.source for c in columns}.values())
    parts, frames = parts_of(sources), {"": bars, **(coarser or {})}
    for at in parts:
        if at not in frames:
            raise IndicatorError(f"expected a frame of bars of {at} for columns at it, got none; give coarser=")
        _check(frames[at], ("symbol", "ts", *(name for name in parts[at].reads if name != "day")))
    names = names_of(bars, series_of(bars))
    views = {at: View(frames[at], places_of(frames[at], names)) for at in ("", *parts)}
    out, bar = values_at(sources, parts, views, dtype, threads=threads, level=level)
    if any(c.cross for c in columns):
        out = crossed(columns, sources, out, views[""], bar)
    if isinstance(out, np.ndarray):
        return type(bars)(out.T, columns=[c.name for c in columns], index=bars.index, copy=False)
    return type(bars)(dict(zip([c.name for c in columns], out)), index=bars.index, nan_as_null=False)


def _check(bars: Any, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in bars.columns]
    if missing:
        raise IndicatorError(f"expected columns {needed} in the bars, got none named {missing}")
    for name in ("interval", "source"):
        if name in bars.columns and bars[name].nunique() > 1:
            found = sorted(str(v) for v in on_host(bars[name].drop_duplicates()))
            raise IndicatorError(f"expected bars of one {name}, got {found}; compute each apart")
