"""Bars as kernels see them: adjusted, in order, and without the rows that are no bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..actions import adjust
from ..indicators import BarsError
from ..indicators.frame import array_of, names_of, on_host, placed, series_of
from ..receipt import Receipt
from ..recurrence import Series
from ..tradable import untraded


@dataclass(frozen=True)
class Seen:
    """Hold raw bars, the same adjusted, and where each symbol's rows lie.

    halted : (rows,) bool on the host, bars that stand for a halt. `gated` has NaN in them in one column that is read,
    which makes the row no bar.
    """

    raw: Any
    adjusted: Any
    gated: Any
    halted: Any
    series: Series
    names: list[str]

    def places(self, symbols: Sequence[str]) -> Series:
        """Return where the rows of these symbols lie; none = length 0."""
        return placed(self.series, self.names, symbols)


def seen(
    bars: Any,
    receipt: Receipt,
    actions: pa.Table,
    wanted: Sequence[str],
    interval: str,
    runs: tuple[Series, list[str]] | None = None,
) -> Seen:
    """Look at a frame of raw bars as the kernels that read `wanted` do; `runs` are those of its symbols, where known.

    A halt that the source wrote as a bar without volume is no bar, as is one without prices. That is decided here and
    not at ingest: the lake keeps what the source said, and whether it knows volumes shows only in the whole of it.
    """
    series = runs[0] if runs else series_of(bars)
    adjusted = adjust(bars, actions)
    halted = untraded(bars["volume"], bars["ts"].astype("int64"), receipt, interval).fillna(False)
    gated = adjusted
    if bool(halted.any()):
        gated = adjusted.assign(**{wanted[0]: adjusted[wanted[0]].mask(halted, np.nan)})
    return Seen(
        bars, adjusted, gated, on_host(halted).astype(bool), series, runs[1] if runs else names_of(bars, series)
    )


def sound(bars: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """Take out the symbols whose bars do not follow one another, and say what was wrong with each."""
    if runs_of(bars) is not None:
        return bars, {}
    frame = bars.select(["symbol", "ts"]).to_pandas()
    broken: dict[str, str] = {}
    while True:
        try:
            series_of(frame)
        except BarsError as error:
            broken[error.symbol] = str(error)
            frame = frame[frame["symbol"] != error.symbol].reset_index(drop=True)
        else:
            return bars.filter(pc.invert(pc.is_in(bars["symbol"], pa.array(list(broken))))) if broken else bars, broken


def runs_of(bars: pa.Table) -> tuple[Series, list[str]] | None:
    """Return where each symbol's rows lie and their names, as `series_of` and `names_of` of the frame of these rows, in
    a tenth of their time; None where rows do not follow one another.
    """
    if not bars.num_rows:
        return Series(np.zeros(0, np.int64), np.zeros(0, np.int64)), []
    symbol, ts = pa.concat_arrays(bars["symbol"].chunks), bars["ts"].cast(pa.int64()).to_numpy()
    new = pc.not_equal(symbol[1:], symbol[:-1]).to_numpy(zero_copy_only=False)
    starts = np.append(0, np.flatnonzero(new) + 1).astype(np.int64)
    names = symbol.take(pa.array(starts)).to_pylist()
    if not (new | (ts[1:] > ts[:-1])).all() or any(later <= name for name, later in pairwise(names)):
        return None
    return Series(starts, np.diff(np.append(starts, len(ts)))), names


def finite(bars: Any, name: str) -> Any:
    """Return which rows of a frame have a number in a column, (rows,) bool on the host."""
    return np.isfinite(on_host(array_of(bars[name])))
