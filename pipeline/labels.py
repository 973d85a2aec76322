"""What is predicted: returns that could have been earned after the decision. The only file that may look ahead.

A decision falls after the close of bar t. The position is bought at the open of bar t + 1 and sold at the open of bar
t + 1 + h; panels of closes trade at closes instead. What can be bought and sold is said by tradable.py, as for the
backtest: what cannot be bought has no label, what cannot be sold yet is held on, what cannot be known yet has none.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from storage.section import Section, setting

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


def forward_returns(
    buy_N: Floats, sell_N: Floats, close_N: Floats, series: Series, ended: Bools, horizon: int
) -> tuple[Floats, Longs]:
    """Return (y, exit) of every bar: the return of a position decided at its close, and the row where it ends, -1 =
    none.

    buy_N, sell_N : (N,) adjusted KRW at which orders of either side fill, NaN = they do not; close_N : (N,) adjusted
    KRW. Entered at row t + 1, left at row t + 1 + horizon or, when that could not be sold, at the first row after it
    that could. A series that ended (delisted) before is left at its last close. NaN where the entry is not possible or
    the exit is not known yet.
    """
    size, lasts = close_N.size, series.starts + series.lengths - 1
    row, last = np.arange(size), np.repeat(lasts, series.lengths)
    sold = (sell_N > 0.0) & (sell_N < np.inf)
    coming = np.minimum.accumulate(np.where(sold, row, size)[::-1])[::-1]  # the first row at or after each that sells
    exit = np.full(size, size)
    exit[: -1 - horizon] = coming[1 + horizon :]
    paid = np.append(buy_N[1:], np.nan)[:size]
    paid[lasts] = np.nan
    possible = (paid > 0.0) & (paid < np.inf)
    known = possible & (exit <= last)
    exit[~known] = -1
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(known, sell_N[exit] / paid - 1.0, np.nan)
        if ended.any():
            final = np.repeat(np.where(ended, _last_close(close_N, series), np.nan), series.lengths)
            closing = possible & ~known & np.isfinite(final)
            y, exit = np.where(closing, final / paid - 1.0, y), np.where(closing, last, exit)
    return y, exit


def _last_close(close_N: Floats, series: Series) -> Floats:
    """Return the last known close of every series."""
    row = np.where(np.isfinite(close_N), np.arange(close_N.size), -1)
    at = np.maximum.accumulate(row)[series.starts + series.lengths - 1]
    return np.where(at >= series.starts, close_N[at], np.nan)
