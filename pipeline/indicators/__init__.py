"""The indicators: which there are, and how a frame of bars becomes a frame of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..recurrence import AS_IS, OVER_CLOSE, OVER_CLOSE_LESS_ONE, Pass, Plan, Write
from .frame import BarsError, on_host, series_of, values_of
from .momentum import cci, roc, rsi, stochastic
from .spec import INPUTS, Column, Indicator, IndicatorError, Spec, columns_of, nearest
from .trend import adx, aroon, ema, macd, regression, sma, wma
from .volatility import atr, bollinger, close_extremes, extremes, moments, volatility
from .volume import mfi, obv, relative_volume

__all__ = [
    "ALL", "INPUTS", "BarsError", "Column", "Indicator", "IndicatorError", "Spec",
    "compute", "plan_of", "reads", "resolve",
]  # fmt: skip

ALL: tuple[Indicator, ...] = (
    sma,
    ema,
    wma,
    macd,
    adx,
    aroon,
    regression,
    rsi,
    roc,
    stochastic,
    cci,
    bollinger,
    atr,
    volatility,
    extremes,
    close_extremes,
    moments,
    obv,
    relative_volume,
    mfi,
)
_BY_NAME = {indicator.name: indicator for indicator in ALL}


def resolve(specs: Iterable[Spec | Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns that specs ask for, in their order; a column that is asked for twice comes once.

    Raises IndicatorError for an unknown indicator, parameter or output (the nearest name is suggested) and for values
    out of range.
    """
    out: dict[str, Column] = {}
    for spec in specs:
        one = spec if isinstance(spec, Spec) else Spec.model_validate(spec)
        if one.indicator not in _BY_NAME:
            raise IndicatorError(
                f"expected a known indicator, got '{one.indicator}'{nearest(one.indicator, set(_BY_NAME))}"
            )
        for column in columns_of(one, _BY_NAME[one.indicator]):
            out.setdefault(column.name, column)
    return tuple(out.values())


def reads(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the columns of bars that these columns are made of, in the order of a tile."""
    names = {name for c in columns for name in c.indicator.inputs} | {"close" for c in columns if c.over}
    return tuple(name for name in INPUTS if name in names)


def plan_of(columns: Sequence[Column]) -> Plan:
    """Lay out the passes behind columns; each kernel runs once for one set of parameters, whatever is stored of it.

    The rows of a tile are the run of INPUTS from the first to the last that the columns read.
    """
    wanted = reads(columns)
    first, rows = INPUTS.index(wanted[0]), INPUTS.index(wanted[-1]) - INPUTS.index(wanted[0]) + 1
    writes: dict[tuple[str, tuple[float, ...]], list[Write]] = {}
    for i, column in enumerate(columns):
        change = column.indicator.outputs[column.output].scales_with == "price_change"
        over = (OVER_CLOSE if change else OVER_CLOSE_LESS_ONE) if column.over else AS_IS
        writes.setdefault((column.indicator.name, column.values), []).append(Write(column.output, i, over))
    passes = []
    for (name, values), stored in writes.items():
        one = _BY_NAME[name]
        passes.append(
            Pass(
                kernel=one.kernel,
                first_input=INPUTS.index(one.inputs[0]) - first,
                inputs=len(one.inputs),
                params=values,
                state=one.state,
                outputs=len(one.outputs) + one.scratch,
                past=int(one.past(*values)),
                own=int(one.own(*values)),
                writes=tuple(stored),
            )
        )
    close = INPUTS.index("close") - first
    return Plan(tuple(passes), rows, close if 0 <= close < rows else -1)


def compute(bars: Any, specs: Iterable[Spec | Mapping[str, Any]], *, dtype: Any = np.float32, threads: int = 1) -> Any:
    """Compute indicator columns over a pandas or cuDF frame of bars, where the frame is.

    bars : columns symbol, ts and those of open, high, low, close, volume that the specs read (KRW, shares); sorted by
    (symbol, ts), one interval and one source. Returns a frame of the same kind with the same index, `dtype` float32
    or float64, columns named `<output>_<params>`. A row that is not finite in any column that the set reads is no
    bar: state is held and NaN comes out. NaN also before a column is known. Sees bars up to and including t. Raises
    IndicatorError for what cannot be computed as asked.
    """
    columns = resolve(specs)
    if not columns:
        return bars[[]].copy()
    needed = ("symbol", "ts", *reads(columns))
    missing = [name for name in needed if name not in bars.columns]
    if missing:
        raise IndicatorError(f"expected columns {needed} in the bars, got none named {missing}")
    for name in ("interval", "source"):
        if name in bars.columns and bars[name].nunique() > 1:
            found = sorted(str(v) for v in on_host(bars[name].drop_duplicates()))
            raise IndicatorError(f"expected bars of one {name}, got {found}; compute each apart")
    out, _ = values_of(bars, series_of(bars), plan_of(columns), reads(columns), dtype, threads=threads)
    names = [c.name for c in columns]
    if isinstance(out, np.ndarray):
        return type(bars)(out.T, columns=names, index=bars.index, copy=False)
    return type(bars)(dict(zip(names, out)), index=bars.index, nan_as_null=False)
