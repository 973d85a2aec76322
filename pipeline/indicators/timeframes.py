"""Columns of coarser bars on finer ones: a value is seen from the moment on at which its bar has closed.

Shapes: Q columns, N symbols, C rows of the coarse bars, B rows of the fine bars.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..cross_section import CrossSection, CrossSectionError, apply
from ..recurrence import Carry, Plan, Series
from .columns import Column
from .frame import finest, on_host, stamps, values_of
from .libraries import LIBRARIES, columns_by
from .spec import IndicatorError

Longs = npt.NDArray[np.int64]
_LENGTHS = {"1d": 1_440, "1w": 7 * 1_440, "1mo": 30 * 1_440}


def length_of(interval: str) -> int:
    """Return about how many minutes a bar is long, to say which of two is coarser; 0 = no interval that is known:
    minutes and hours of any number, 1d, 1w, 1mo.
    """
    found = re.fullmatch(r"([1-9]\d*)(m|h)", interval)
    return int(found[1]) * (1 if found[2] == "m" else 60) if found else _LENGTHS.get(interval, 0)


class View(NamedTuple):
    """Hold bars of one interval and where the rows of each symbol lie; the same symbols in all views, 0 rows = none."""

    bars: Any
    series: Series


class Part(NamedTuple):
    """Hold the columns of one interval with the plan of their kernels, its rows and what it reads."""

    columns: tuple[Column, ...]
    plan: Plan
    rows: tuple[str, ...]
    reads: tuple[str, ...]


def values_at(
    columns: Sequence[Column],
    parts: Mapping[str, Part],
    views: Mapping[str, View],
    dtype: Any,
    *,
    carries: Mapping[str, Carry] | None = None,
    last: dict[str, Any] | None = None,
    threads: int = 1,
    chunk: int | None = None,
    level: str = "numba",
) -> tuple[Any, Any]:
    """Compute columns of several intervals over the bars of views['']: (columns, rows) of `dtype` where the frame is,
    and (rows,) bool, true where the row is a bar.

    carries, last : by interval, the state after earlier bars and the values of their last coarser bar (Q, N), both
    moved on. A row that is no bar for the finest columns has NaN in all. level : pandas and polars compute by the
    library, without state, the others by the kernels where the frame is.
    """
    base = views[""]
    size = len(base.bars)
    out: Any = None
    bar: Any = None
    for at, part in parts.items():
        view = views[at]
        if level in LIBRARIES:
            found, flags = columns_by(level, view.bars, view.series, part.columns, part.reads, dtype)
        else:
            found, flags = values_of(
                view.bars, view.series, part.plan, part.rows, part.reads, dtype,
                carry=carries[at] if carries else None, threads=threads, chunk=chunk,
            )  # fmt: skip
        if not at:
            bar = flags
        if len(parts) == 1 and not at:
            return found, bar
        xp = sys.modules[type(found).__module__.partition(".")[0]]
        out = xp.full((len(columns), size), xp.nan, dtype) if out is None else out
        if at:
            before = np.full((len(part.columns), view.series.lengths.size), np.nan, dtype) if last is None else last[at]
            unit = finest(base.bars, view.bars)
            fine, coarse = stamps(base.bars, unit), stamps(view.bars, unit)
            host, after = as_of(fine, base.series, coarse, view.series, on_host(found), before)
            found = xp.asarray(host)
            if last is not None:
                last[at] = after
        out[[i for i, c in enumerate(columns) if c.at == at]] = found
    if bar is None:
        bar = np.ones(size, bool)
    out[:, ~bar] = np.nan
    return out, bar


def as_of(
    ts_B: Longs, fine: Series, end_C: Longs, coarse: Series, values_QC: Any, last_QN: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return for each fine bar the values of the latest coarse bar that ended at or before its own end, (Q, B), and
    for each symbol those of its last coarse bar, (Q, N).

    ts_B, end_C : ends of bars, int64 of one unit, rising in each symbol. fine, coarse : the rows of the same N symbols.
    last_QN : values of the coarse bars before these, NaN = none; they stand until the first new one has ended.
    """
    dtype = values_QC.dtype
    out = np.empty((len(values_QC), ts_B.size), dtype)
    last = np.array(last_QN, dtype)
    for n in range(fine.lengths.size):
        rows = slice(fine.starts[n], fine.starts[n] + fine.lengths[n])
        begin, length = coarse.starts[n], coarse.lengths[n]
        place = np.searchsorted(end_C[begin : begin + length], ts_B[rows], side="right")
        known = np.concatenate([last[:, n : n + 1], values_QC[:, begin : begin + length]], axis=1)
        out[:, rows] = known[:, place]
        last[:, n] = known[:, -1]
    return out, last


def crossed(columns: Sequence[Column], sources: Sequence[Column], values: Any, view: View, bar: Any) -> Any:
    """Return the values of columns, (columns, rows), from those of their sources, with operators applied among all
    symbols of the view.
    """
    place = {c.name: i for i, c in enumerate(sources)}
    symbol = np.repeat(np.arange(view.series.lengths.size), view.series.lengths)
    section = CrossSection(stamps(view.bars), symbol, on_host(bar))
    out = values[[place[c.source.name] for c in columns]]
    xp = sys.modules[type(values).__module__.partition(".")[0]]
    for row, column in enumerate(columns):
        if column.cross:
            try:
                out[row] = xp.asarray(apply(column.cross, on_host(out[row]), section))
            except CrossSectionError as error:
                raise IndicatorError(f"{column.name}: {error}") from error
    return out
