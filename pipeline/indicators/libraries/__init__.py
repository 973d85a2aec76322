"""The same columns by the rolling, exponential and window functions of pandas and of Polars, to compare the kernels
with.

A formula is written once and both libraries compute it. For positive prices results agree with the kernels within the
tolerance that an indicator declares, NaN where theirs are NaN. After a price of 0 there is no return, and each is not
finite for as long as it takes to forget that: a library's window until the bar has left it, a kernel's sums until they
are renewed. What depends on its own value of the bar before in a way that no window or
exponential mean expresses, such as a stop that turns, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ...recurrence import Series
from ..columns import Column
from ..frame import input_of
from ..spec import IndicatorError
from . import averages, candles, oscillators, trend, volume, windows
from .algebra import Formula

LIBRARIES = ("pandas", "polars")
FORMULAS: dict[str, Formula] = {
    **averages.FORMULAS,
    **trend.FORMULAS,
    **oscillators.FORMULAS,
    **windows.FORMULAS,
    **volume.FORMULAS,
    **candles.FORMULAS,
}


def check(level: str, columns: Sequence[Column]) -> None:
    """Raise IndicatorError where the library is not installed or cannot express a column."""
    if find_spec(level) is None:
        raise IndicatorError(
            f"expected the package {level} for level {level}, which is not installed; run pip install "
            f"-c constraints.txt -e '.[{level}]' or use level numba"
        )
    without = [c.name for c in columns if c.indicator.name not in FORMULAS]
    if without:
        raise IndicatorError(
            f"expected columns that {level} can express with windows and exponential means, got {without}, which go "
            "from bar to bar; use level numba or leave them out"
        )


def columns_by(
    level: str, bars: Any, series: Series, columns: Sequence[Column], wanted: Sequence[str], dtype: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Compute columns over a pandas frame by a library: (columns, rows) of `dtype`, and (rows,) bool, true where the
    row is a bar.

    wanted : the columns of bars that are read; a row that is not finite in one of them is no bar: it is left out, and
    its columns are NaN. series : where each symbol's rows lie. Sees bars up to and including t. Raises IndicatorError,
    see check.
    """
    check(level, columns)
    read = {name: input_of(bars, name) for name in wanted}
    bar = np.isfinite(np.stack(list(read.values()))).all(axis=0)
    out = np.full((len(columns), len(bars)), np.nan, dtype)
    order = [n for n in np.argsort(series.starts, kind="stable") if series.lengths[n]]
    lane_B = np.full(len(bars), -1)
    for lane, n in enumerate(order):
        lane_B[series.starts[n] : series.starts[n] + series.lengths[n]] = lane
    rows = np.flatnonzero(bar & (lane_B >= 0))
    if rows.size == 0:
        return out, bar
    read, lane_B = {name: values[rows] for name, values in read.items()}, lane_B[rows]
    own = _bars(level)(read, lane_B, np.arange(rows.size) - np.searchsorted(lane_B, lane_B) + 1)
    for (name, params), places in _by_call(columns).items():
        found = FORMULAS[name](own, *(int(p) if p == int(p) else p for p in params))
        for i in places:
            out[i, rows] = _divided(columns[i], own.values(*found[columns[i].output]), read)
    return out, bar


def _bars(level: str) -> Any:
    module = import_module(f".{level}_columns", __name__)
    return module.PandasBars if level == "pandas" else module.PolarsBars


def _by_call(columns: Sequence[Column]) -> dict[tuple[str, tuple[float, ...]], list[int]]:
    """Return the places of columns by indicator and parameters: each formula is computed once."""
    out: dict[tuple[str, tuple[float, ...]], list[int]] = {}
    for i, column in enumerate(columns):
        out.setdefault((column.indicator.name, column.values), []).append(i)
    return out


def _divided(column: Column, values: Any, read: dict[str, Any]) -> Any:
    if column.over is None:
        return values
    ratio = values / read["close"]
    change = column.indicator.outputs[column.output].scales_with == "price_change"
    return ratio if change or column.over == "close_ratio" else ratio - 1.0
