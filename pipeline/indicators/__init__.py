"""The indicators: which there are, and how a frame of bars becomes a frame of columns."""

from __future__ import annotations

import math
import warnings
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
    patterns,
    regression,
    rolling,
    session,
    stops,
    trend,
    volatility,
    volume,
    vwap,
)
from .checks import check_columns, check_frames, check_level, check_words
from .columns import Column, Spec, columns_of, spec_of
from .frame import BarsError, names_of, places_of, series_of
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
    *patterns.ALL,
)
_BY_NAME = {indicator.name: indicator for indicator in ALL}


def resolve(specs: Iterable[Spec | Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns that specs ask for, in their order; a column that is asked for twice comes once.

    Raises IndicatorError for what is no spec, for an unknown key, indicator, parameter or output (the nearest name is
    suggested), for values out of range and for one name of different columns.
    """
    if isinstance(specs, (str, Mapping, Spec)) or not isinstance(specs, Iterable):
        raise IndicatorError(
            f"expected a list of specs, such as [{{'indicator': 'rsi'}}], got {specs!r}; put it in one"
        )
    out: dict[str, Column] = {}
    for spec in specs:
        one = spec_of(spec)
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

    bars : columns symbol, ts (datetimes, without a zone = UTC) and those of INPUTS that the specs read; sorted by
    (symbol, ts), symbols as text, one interval and one source. coarser : frames of complete coarser bars by interval,
    for specs with `at`; ts of any unit, all with a zone or none; a value appears at the first bar that ends with or
    after its own. Specs with `cross` are seen among all symbols of the frame, which knows no sectors and sizes. Returns
    a frame of the same kind with the same index, `dtype` float32 or float64, columns named `<output>_<params>`. A row
    that is not finite in any column that the set reads is no bar: state is held and NaN comes out. NaN also before a
    column is known; a column that no symbol has enough bars for is NaN throughout, and a warning says so. Sees bars up
    to and including t. level : numba, the kernels; pandas or polars compute a pandas frame by that library, see
    libraries/. Raises IndicatorError for what cannot be computed as asked, before any work.
    """
    columns = resolve(specs)
    check_words(dtype, threads, level)
    check_columns(columns)
    sources = tuple({c.source.name: c.source for c in columns}.values())
    parts = parts_of(sources)
    frames = _frames(bars, parts, coarser)
    reads_at = {at: parts[at].reads if at in parts else () for at in frames}
    check_frames(frames, {at: ("symbol", "ts", *_stored(names, frames[at])) for at, names in reads_at.items()})
    check_level(bars, level)
    if not columns:
        return bars[[]].copy()
    names = names_of(bars, series_of(bars))
    views = {at: View(frame, places_of(frame, names)) for at, frame in frames.items()}
    out, bar = values_at(sources, parts, views, dtype, threads=threads, level=level)
    _warn_of_few(sources, views, out)
    if any(c.cross for c in columns):
        out = crossed(columns, sources, out, views[""], bar)
    if isinstance(out, np.ndarray):
        return type(bars)(out.T, columns=[c.name for c in columns], index=bars.index, copy=False)
    return type(bars)(dict(zip([c.name for c in columns], out)), index=bars.index, nan_as_null=False)


def _frames(bars: Any, parts: Mapping[str, Part], coarser: Any) -> dict[str, Any]:
    """Return the frames that are read by interval, '' first."""
    given = {} if coarser is None else coarser
    if not isinstance(given, Mapping):
        raise IndicatorError(f"expected coarser as frames by interval, such as {{'1w': frame}}, got {type(given)}")
    for at in filter(None, parts):
        if at not in given:
            raise IndicatorError(f"expected a frame of bars of {at} for columns at it, got none; give coarser=")
    return {"": bars, **{at: given[at] for at in parts if at}}


def _stored(names: Sequence[str], bars: Any) -> list[str]:
    """Return those that the frame must have: the day is made of ts where it is not there."""
    return [name for name in names if name != "day" or name in getattr(bars, "columns", ())]


def _warn_of_few(columns: Sequence[Column], views: Mapping[str, View], values: Any) -> None:
    """Warn once of columns that are NaN throughout because no symbol has as many bars as they need."""
    most = {at: int(view.series.lengths.max(initial=0)) for at, view in views.items()}
    blank = [c for c, row in zip(columns, values) if c.ready > most[c.at] > 0 and bool(np.isnan(row).all())]
    if blank:
        widest = max(blank, key=lambda c: c.ready)
        warnings.warn(
            f"{len(blank)} of {len(columns)} columns are NaN throughout: {widest.name} needs {widest.ready} bars of a "
            f"symbol, the longest has {most[widest.at]}; give more bars or smaller windows",
            stacklevel=3,
        )
