"""What is predicted: returns that could have been earned after the decision. The only file that may look ahead.

A decision falls after the close of bar t. The position is bought at the open of bar t + 1 and sold at the open of bar
t + 1 + h; panels of closes trade at closes instead. What cannot be bought has no label; what cannot be known yet has
none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, field_validator

from storage.section import Section, setting

from . import krx
from .recurrence import Series

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]


class LabelSection(Section):
    """What is predicted."""

    horizons: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = setting(
        (5,), "bars that a position is held, from 1 to 1000; one target column each", unit="bars", min_length=1
    )

    @field_validator("horizons")
    @classmethod
    def _distinct(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(horizons)) != len(horizons):
            raise ValueError(f"expected distinct horizons, got {horizons}")
        return horizons

    def targets(self) -> list[dict[str, Any]]:
        """Return each target's column, horizon and the column of its end stamp."""
        return [{"name": f"y_{h}", "horizon": h, "end": f"y_{h}_end"} for h in self.horizons]


class Listing(NamedTuple):
    """What labels need to know about symbols, in the order of the series: market, kind of security, and whether it
    ended.
    """

    markets: Sequence[str]
    kinds: Sequence[str]
    ended: Bools


def listing(symbols: Sequence[str], table: pa.Table, last: date) -> Listing:
    """Look symbols up in a table of SYMBOLS rows; `ended` means delisted by `last`. Unknown ones are KOSPI stocks
    that go on.
    """
    known = {row["symbol"]: row for row in table.select(["symbol", "market", "kind", "delisted"]).to_pylist()}
    rows = [known.get(name, {}) for name in symbols]
    ended = [row.get("delisted") is not None and row["delisted"] <= last for row in rows]
    return Listing(
        [row.get("market") or "KOSPI" for row in rows],
        [row.get("kind") or "stock" for row in rows],
        np.array(ended, bool),
    )


def locked_up(
    open_N: Floats,
    high_N: Floats,
    low_N: Floats,
    close_N: Floats,
    base_N: Floats,
    day_N: Any,
    series: Series,
    of: Listing,
) -> Bools:
    """Say which bars stood at their upper price limit all along, so that nobody could buy.

    open_N … close_N : (N,) raw KRW; base_N : (N,) KRW, the close before on the same basis, NaN = none; day_N : (N,)
    KST days. One price for the whole bar, at most a tick below the limit of that day: sources that store adjusted
    prices round.
    """
    out = np.zeros(close_N.size, bool)
    one_price = (open_N == high_N) & (high_N == low_N) & (low_N == close_N) & (close_N > base_N)
    rows = np.flatnonzero(one_price)
    owner = np.searchsorted(series.starts, rows, side="right") - 1
    kinds = np.array([f"{m}/{k}" for m, k in zip(of.markets, of.kinds)], dtype=object)[owner]
    for name in sorted(set(kinds)):
        market, kind = name.split("/", 1)
        at = rows[kinds == name]
        upper = krx.limits(np.round(base_N[at]), day_N[at], kind, market)[1]
        out[at] = close_N[at] >= upper - krx.tick(upper, day_N[at], kind, market)
    return out


def bases(close_N: Floats, factor_N: Floats, day_N: Any, series: Series) -> Floats:
    """Return each bar's base price: the last close of the day before, on the basis of the bar's own day; NaN where
    there is none.

    close_N : (N,) raw KRW; factor_N : (N,) adjusted / raw price; day_N : (N,) KST days.
    """
    size = close_N.size
    first = np.zeros(size, bool)
    first[series.starts] = True
    new_day = first | np.append(True, day_N[1:] != day_N[:-1])[:size]
    opening = np.maximum.accumulate(np.where(new_day, np.arange(size), 0))
    begins = np.repeat(series.starts, series.lengths)
    before = np.maximum(opening - 1, 0)
    return np.where(opening > begins, close_N[before] * factor_N[before] / factor_N, np.nan)


def forward_returns(
    price_N: Floats, close_N: Floats, locked_N: Bools, series: Series, ended: Bools, horizon: int
) -> tuple[Floats, Longs]:
    """Return (y, exit) of every bar: the return of a position decided at its close, and the row where it ends, -1 =
    none.

    price_N : (N,) adjusted KRW at which orders fill, NaN = not traded; close_N : (N,) adjusted KRW; locked_N : (N,)
    could not be bought. Entered at row t + 1, left at row t + 1 + horizon or, when that was not traded, at the first
    row after it that was. A series that ended (delisted) before is left at its last close. NaN where the entry is not
    possible or the exit is not known yet.
    """
    size = price_N.size
    row = np.arange(size)
    last = np.repeat(series.starts + series.lengths - 1, series.lengths)
    traded = np.isfinite(price_N) & (price_N > 0.0)
    coming = np.minimum.accumulate(np.where(traded, row, size)[::-1])[::-1]  # the first traded row at or after each row
    entry = np.minimum(row + 1, size - 1)
    possible = (row < last) & traded[entry] & ~locked_N[entry]
    wanted = row + 1 + horizon
    exit = np.where(wanted <= last, coming[np.minimum(wanted, size - 1)], size)
    regular = possible & (exit <= last)
    final = np.repeat(_last_close(close_N, series), series.lengths)
    closing = possible & ~regular & np.repeat(ended, series.lengths) & np.isfinite(final)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(regular, price_N[np.minimum(exit, size - 1)], final) / price_N[entry] - 1.0
    known = regular | closing
    return np.where(known, y, np.nan), np.where(regular, exit, np.where(closing, last, -1))


def _last_close(close_N: Floats, series: Series) -> Floats:
    """Return the last known close of every series."""
    row = np.where(np.isfinite(close_N), np.arange(close_N.size), -1)
    at = np.maximum.accumulate(row)[series.starts + series.lengths - 1]
    return np.where(at >= series.starts, close_N[at], np.nan)
