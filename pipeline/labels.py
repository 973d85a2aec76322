"""What is predicted: what could have been earned after the decision. The only file that may look ahead.

A decision falls after the close of bar t. The position is bought at the open of bar t + 1 and sold at the open of bar
t + 1 + h; panels of closes trade at closes instead. What can be bought and sold is said by tradable.py, as for the
backtest: what cannot be bought has no label, what cannot be sold yet is held on, what cannot be known yet has none.

Shapes: N rows of bars, S series. KRW are adjusted.
"""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from storage.section import Section, setting

from .recurrence import Series

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]
Kind = Literal["return", "vol", "barrier"]
Multiple = Annotated[float, Field(gt=0, le=1000)]


class LabelSection(Section):
    """What is predicted."""

    horizons: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = setting(
        (5,), "bars that a position is held, from 1 to 1000; one target column each", unit="bars", min_length=1
    )
    kinds: tuple[Kind, ...] = setting(
        ("return",),
        "labels of each horizon: return (y_5), return over volatility (vol: y_5_vol), which barrier is touched first "
        "(barrier: y_5_barrier)",
        min_length=1,
    )
    volatility_window: int = setting(
        20,
        "bars up to the decision whose log returns give the volatility; that of h bars is sqrt(h) times as large",
        unit="bars", ge=2, le=500,
    )  # fmt: skip
    barriers: tuple[Multiple, Multiple] = setting(
        (1.0, 1.0),
        "upper and lower barrier: how many volatilities of the horizon they lie above and below the price of entry",
    )
    barrier_value: Literal["side", "return"] = setting(
        "side", "side = 1, -1 or 0 for the upper, the lower or none of the barriers, return = what was earned"
    )

    @field_validator("horizons", "kinds")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError(f"expected distinct values, got {values}")
        return values

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the columns of bars that only these labels read."""
        return ("high", "low") if "barrier" in self.kinds else ()

    def targets(self) -> list[dict[str, Any]]:
        """Return each target's column, its kind, the bars that it reaches ahead where nothing delays the exit, and the
        column of its end stamp.
        """
        found = []
        for h in self.horizons:
            for kind in self.kinds:
                name = f"y_{h}" if kind == "return" else f"y_{h}_{kind}"
                found.append({"name": name, "kind": kind, "horizon": h, "end": f"{name}_end"})
        return found


class Prices(NamedTuple):
    """Hold the prices of bars, (N,) float64 KRW.

    buy, sell : at which orders of either side fill, NaN = they do not; traded : at which orders meet, NaN = no trade in
    this bar; high, low, close : NaN = not known.
    """

    buy: Floats
    sell: Floats
    traded: Floats
    high: Floats
    low: Floats
    close: Floats


def make_labels(
    section: LabelSection, prices: Prices, volatility_N: Floats, series: Series, ended: Bools
) -> dict[str, tuple[Floats, Longs]]:
    """Return (y, exit) of every bar for each target by its name, see forward_returns and triple_barrier.

    volatility_N : deviation of one bar's log return as known at the bar, read for other kinds than return alone.
    """
    out: dict[str, tuple[Floats, Longs]] = {}
    returns: dict[int, tuple[Floats, Longs]] = {}
    for target in section.targets():
        h, kind = target["horizon"], target["kind"]
        if kind == "barrier":
            side, y, exit = triple_barrier(prices, volatility_N, series, ended, h, section.barriers)
            out[target["name"]] = (side if section.barrier_value == "side" else y, exit)
            continue
        if h not in returns:
            returns[h] = forward_returns(prices.buy, prices.sell, prices.close, series, ended, h)
        y, exit = returns[h]
        if kind == "vol":
            y = y / _scale(volatility_N, h)
            exit = np.where(np.isnan(y), -1, exit)
        out[target["name"]] = (y, exit)
    return out


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


def triple_barrier(
    prices: Prices,
    volatility_N: Floats,
    series: Series,
    ended: Bools,
    horizon: int,
    barriers: tuple[float, float],
) -> tuple[Floats, Floats, Longs]:
    """Return (side, y, exit) of every bar: the barrier that a position decided at its close touches first (1 upper, -1
    lower, 0 none before it was sold at the horizon), its return, and the row where it ends; NaN, NaN, -1 = not known.

    barriers : upper and lower, multiples of volatility_N * sqrt(horizon) from the price of entry; they stand while the
    position is held. The open of a bar comes first, then its low, then its high: a gap over a barrier is sold at the
    open, a touch within the bar at the barrier. A bar at whose open nothing can be sold sells nothing: what touches
    there is sold at the first open that can be. A series that ended is left at its last close, which may lie over a
    barrier. A label is known with the exit, so that of the last rows only those are known that touched early.
    Method: M. Lopez de Prado, Advances in Financial Machine Learning, 2018, chapter 3.
    """
    # At import, it would cost everybody who reads a configuration the start of Numba.
    from .recurrence.compile import compiled

    size, traded = prices.close.size, _known(prices.traded)
    high = np.fmax(np.fmax(_known(prices.high), _known(prices.close)), traded)
    low = np.fmin(np.fmin(_known(prices.low), _known(prices.close)), traded)
    final = np.where(ended, _last_close(prices.close, series), np.nan)
    side, y, exit = np.full(size, np.nan), np.full(size, np.nan), np.full(size, -1, np.int64)
    rows = (_known(prices.buy), _known(prices.sell), traded, high, low, _scale(volatility_N, horizon))
    compiled(_walk, _WALK, alias=True)(*rows, series.starts, series.lengths, final, horizon, *barriers, side, y, exit)
    return side, y, exit


def _walk(
    buy_N: Floats,
    sell_N: Floats,
    traded_N: Floats,
    high_N: Floats,
    low_N: Floats,
    scale_N: Floats,
    starts_S: Longs,
    lengths_S: Longs,
    final_S: Floats,
    horizon: int,
    upper: float,
    lower: float,
    side_N: Floats,
    y_N: Floats,
    exit_N: Longs,
) -> None:
    """Follow the position of every row until it is sold; final_S : last close of series that ended, else NaN."""
    for s in range(starts_S.size):
        end = starts_S[s] + lengths_S[s]
        for t in range(starts_S[s], end - 1):
            paid, scale = buy_N[t + 1], scale_N[t]
            if not (paid > 0.0 and scale > 0.0):
                continue
            top, bottom = paid * (1.0 + upper * scale), paid * (1.0 - lower * scale)
            side, price, row = 0.0, np.nan, end - 1
            for j in range(t + 1, end):
                if not traded_N[j] > 0.0:
                    continue
                sells = sell_N[j] > 0.0
                if side == 0.0:
                    side = -1.0 if traded_N[j] <= bottom else 1.0 if traded_N[j] >= top else 0.0
                if sells and (side != 0.0 or j > t + horizon):
                    price, row = sell_N[j], j
                    break
                if side == 0.0:
                    side = -1.0 if low_N[j] <= bottom else 1.0 if high_N[j] >= top else 0.0
                    if sells and side != 0.0:
                        price, row = bottom if side < 0.0 else top, j
                        break
            if np.isnan(price):
                price = final_S[s]
                if side == 0.0:
                    side = -1.0 if price <= bottom else 1.0 if price >= top else 0.0
            if price > 0.0:
                side_N[t], y_N[t], exit_N[t] = side, price / paid - 1.0, row


_WALK = (
    "void(float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], float64[::1], int64[::1], int64[::1], "
    "float64[::1], int64, float64, float64, float64[::1], float64[::1], int64[::1])"
)


def _known(price_N: Floats) -> Floats:
    """Return prices with NaN for what is none."""
    return np.where((price_N > 0.0) & (price_N < np.inf), price_N, np.nan)


def _scale(volatility_N: Floats, horizon: int) -> Floats:
    """Return the volatility of `horizon` bars; NaN where nothing moved or it is not known."""
    return _known(volatility_N) * sqrt(horizon)


def _last_close(close_N: Floats, series: Series) -> Floats:
    """Return the last known close of every series."""
    row = np.where(np.isfinite(close_N), np.arange(close_N.size), -1)
    at = np.maximum.accumulate(row)[series.starts + series.lengths - 1]
    return np.where(at >= series.starts, close_N[at], np.nan)
