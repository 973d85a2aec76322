"""Frames in, arrays out: where each symbol's bars lie, and the columns of a plan over them, on the device that holds
the frame.

Nothing here imports pandas or cuDF: the type of the data answers which of the two it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..recurrence import Carry, Plan, Series, run
from .spec import IndicatorError

KST, DAY = 9 * 3600, 86_400
SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # in units of a stamp


class BarsError(IndicatorError):
    """Bars of one symbol that are unsorted or there twice."""

    def __init__(self, message: str, symbol: str) -> None:
        super().__init__(message)
        self.symbol = symbol


def series_of(bars: Any) -> Series:
    """Find each symbol's run of rows in a frame sorted by (symbol, ts); BarsError where it is unsorted or a bar is
    there twice.
    """
    symbol, size = bars["symbol"], len(bars)
    if size == 0:
        return Series(np.zeros(0, np.int64), np.zeros(0, np.int64))
    changed = np.array(on_host((symbol != symbol.shift(1)).fillna(True)), dtype=bool)
    changed[0] = True
    starts = np.flatnonzero(changed)
    found = on_host(symbol.iloc[starts])
    names = [str(name) for name in found]
    text = isinstance(found[0], str) and str(symbol.dtype) != "category"
    for row, before, name in zip(starts[1:], names, names[1:]):
        if name <= before:
            raise _unsorted(f"symbol '{name}' after '{before}' in row {row}", name, text)
    ts = on_host(bars["ts"].astype("int64"))
    wrong = np.flatnonzero((ts[1:] <= ts[:-1]) & ~changed[1:])
    if wrong.size:
        row = int(wrong[0]) + 1
        name = names[int(np.searchsorted(starts, row, side="right")) - 1]
        here, before = bars["ts"].iloc[row], bars["ts"].iloc[row - 1]
        if ts[row] == ts[row - 1]:
            raise BarsError(
                f"expected one bar for each (symbol, ts), got two of symbol '{name}' at {here} in row {row} "
                f"({wrong.size} rows that do not follow); choose one source and interval, or drop the duplicates",
                name,
            )
        raise _unsorted(f"{here} after {before} for symbol '{name}' in row {row}", name, text)
    return Series(starts.astype(np.int64), np.diff(np.append(starts, size)).astype(np.int64))


def names_of(bars: Any, series: Series) -> list[str]:
    """Return the symbol of each series of a frame."""
    return [str(name) for name in on_host(bars["symbol"].iloc[series.starts])] if len(bars) else []


def places_of(bars: Any, symbols: Sequence[str]) -> Series:
    """Find the rows of these symbols, in this order, in a frame sorted by (symbol, ts); none = length 0. Symbols of the
    frame that are not named are left out.
    """
    found = series_of(bars)
    return placed(found, names_of(bars, found), symbols)


def placed(series: Series, names: Sequence[str], symbols: Sequence[str]) -> Series:
    """Return the series of these symbols, in this order, out of named ones; none = length 0."""
    at = {name: i for i, name in enumerate(symbols)}
    here = [(at[name], i) for i, name in enumerate(names) if name in at]
    starts, lengths = np.zeros(len(symbols), np.int64), np.zeros(len(symbols), np.int64)
    if here:
        theirs, mine = map(list, zip(*here))
        starts[theirs], lengths[theirs] = series.starts[mine], series.lengths[mine]
    return Series(starts, lengths)


def values_of(
    bars: Any,
    series: Series,
    plan: Plan,
    rows: Sequence[str],
    wanted: Sequence[str],
    dtype: Any,
    *,
    carry: Carry | None = None,
    threads: int = 1,
    chunk: int | None = None,
) -> tuple[Any, Any]:
    """Compute a plan's columns over a frame: (columns, rows) of `dtype`, and (rows,) bool, true where the row is a
    bar.

    rows : the columns of bars in the order of the plan's tile; those among them that are not `wanted` are not read. A
    row of the frame that is not finite in a wanted one is no bar: it is left out, so that state is held, and its
    columns are NaN. carry : the state after earlier bars, on the frame's device, replaced by the state after these.
    """
    read = {name: input_of(bars, name) for name in wanted}
    xp = sys.modules[type(read[wanted[0]]).__module__.partition(".")[0]]
    src = xp.zeros((len(rows), len(bars)))
    bar = xp.ones(len(bars), dtype=bool)
    for c, name in enumerate(rows):
        if name in read:
            src[c] = read[name]
            bar &= xp.isfinite(src[c])
    out = xp.empty((plan.columns, len(bars)), dtype=dtype)
    if bool(bar.all()):
        run(plan, src, series, out, carry=carry, threads=threads, chunk=chunk)
        return out, bar
    before = np.concatenate([[0], np.cumsum(on_host(bar))])
    starts, ends = before[series.starts], before[series.starts + series.lengths]
    some = xp.empty((plan.columns, int(before[-1])), dtype=dtype)
    bars_only = xp.ascontiguousarray(src[:, bar])
    run(plan, bars_only, Series(starts, ends - starts), some, carry=carry, threads=threads, chunk=chunk)
    out[:] = xp.nan
    out[:, bar] = some
    return out, bar


def input_of(bars: Any, name: str) -> Any:
    """Return one of INPUTS as float64 where the frame is; the day is made from ts where there is no such column."""
    if name == "day" and name not in bars.columns:
        second = SECOND[unit_of(bars)]
        return array_of((bars["ts"].astype("int64") + KST * second) // (DAY * second))
    return array_of(bars[name])


def array_of(column: Any) -> Any:
    """Return a pandas or cuDF column as float64, in the memory where it is; null becomes NaN."""
    if hasattr(column, "to_cupy"):
        return column.astype("float64").to_cupy(na_value=np.nan)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def unit_of(bars: Any) -> str:
    """Return the unit of ts, s to ns, of pandas, cuDF and Arrow datetimes; empty = ts are none."""
    found = re.match(r"(?:datetime64|timestamp)\[(s|ms|us|ns)\b", str(bars["ts"].dtype))
    return found[1] if found else ""


def finest(*frames: Any) -> str:
    """Return the finest unit of ts of several frames, in which all of them are whole numbers."""
    return max((unit for unit in map(unit_of, frames) if unit), key=SECOND.__getitem__, default="")


def stamps(bars: Any, unit: str = "") -> Any:
    """Return the end of each bar, (rows,) int64 on the host, in the unit of the frame or in one as fine or finer.
    Raises IndicatorError where that does not hold them.
    """
    ts, own = on_host(bars["ts"].astype("int64")), unit_of(bars)
    if not unit or not own or unit == own:
        return ts
    factor = SECOND[unit] // SECOND[own]
    if ts.size and max(-int(ts.min()), int(ts.max())) > np.iinfo(np.int64).max // factor:
        raise IndicatorError(
            f"expected ts that {unit} hold, the finest unit among the frames, got some up to {bars['ts'].max()}; give "
            f"all frames ts of {own}: frame['ts'] = frame['ts'].dt.as_unit('{own}')"
        )
    return ts * factor


def on_host(values: Any) -> Any:
    """Return a pandas or cuDF column, or an array of either device, as a NumPy array."""
    if hasattr(values, "to_numpy"):
        return values.to_numpy()
    return values.get() if hasattr(values, "get") else values


def _unsorted(what: str, symbol: str, text: bool) -> BarsError:
    # Numbers and categories sort in an order of their own.
    frame = "bars" if text else "bars.assign(symbol=bars['symbol'].astype(str))"
    return BarsError(
        f"expected bars sorted by (symbol, ts), symbols as text, got {what}; sort with "
        f"{frame}.sort_values(['symbol', 'ts'])",
        symbol,
    )
