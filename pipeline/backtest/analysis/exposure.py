"""What a portfolio is exposed to: sectors and sizes over time, long, short, net, and beside the benchmark.

A sector is that of the day as far as the source tells, and reaches back before it was first told, as in the features.

Shapes: T sessions, S symbols, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.as_of import Facts

from ..portfolio.benchmark import shares
from ..portfolio.market import Market

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int16]

SIZES = 5
LEAST_KNOWN = 0.5  # share of the living symbols that must have a group, else there is nothing to say


class Groups(NamedTuple):
    """Say to which group each symbol belongs on each day: names : (G,); code_TS : (T, S) int16, -1 = not known."""

    names: tuple[str, ...]
    code_TS: Codes


class Exposure(NamedTuple):
    """Hold shares of equity after each close, (T, G + 1) float64, the last column for those of no known group: long,
    short (not positive), and the benchmark's.
    """

    names: tuple[str, ...]
    long_TG: Floats
    short_TG: Floats
    benchmark_TG: Floats

    @property
    def net_TG(self) -> Floats:
        return np.asarray(self.long_TG + self.short_TG, np.float64)


def sectors(facts: pa.Table, market: Market) -> Groups:
    """Return the sectors that SYMBOLS rows tell."""
    told = Facts(facts, market.symbols)
    texts = np.array(told.texts("sector"), object)
    names = tuple(sorted(set(texts) - {""}))
    T, S = market.close_TS.shape
    day_D = np.repeat(market.day_T.astype("datetime64[D]").astype(np.int64), S)
    row_D, _ = told.row(texts != "", np.tile(np.arange(S), T), day_D)
    place = {name: i for i, name in enumerate(names)}
    codes = np.array([*(place.get(text, -1) for text in texts), -1], np.int16)
    return Groups(names, codes[row_D].reshape(T, S))


def market_values(market: Market) -> Floats:
    """Return shares x last close after each session, KRW, (T, S); NaN = the shares are not known."""
    return np.asarray(shares(market) * market.carried_TS, np.float64)


def size_quantiles(value_TS: Floats, parts: int = SIZES) -> Groups:
    """Return the quantile of each market value within its session, 1 = the smallest."""
    order = np.argsort(np.where(np.isfinite(value_TS), value_TS, np.inf), axis=1, kind="stable")
    place_TS = np.empty(value_TS.shape, np.int64)
    np.put_along_axis(place_TS, order, np.arange(value_TS.shape[1])[None, :], axis=1)
    n_T = np.isfinite(value_TS).sum(axis=1)[:, None]
    code = place_TS * parts // np.maximum(n_T, 1)
    return Groups(tuple(str(i + 1) for i in range(parts)), np.where(np.isfinite(value_TS), code, -1).astype(np.int16))


def alive(market: Market) -> npt.NDArray[np.bool_]:
    """Return which symbols can be held after each close, (T, S): they have a price and are not delisted."""
    here = np.arange(len(market.ts_T))[:, None] <= market.delist_S[None, :]
    return np.asarray(here & np.isfinite(market.carried_TS))


def benchmark_weights(market: Market, choice: str) -> Floats:
    """Return the benchmark's weights after each close, (T, S): by market value for "cap"; else all living symbols
    alike, also where the benchmark is an index whose members nobody told.
    """
    size_TS = alive(market).astype(np.float64)
    if choice == "cap":
        size_TS *= np.nan_to_num(market_values(market))
    total = size_TS.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(size_TS, total, out=np.zeros_like(size_TS), where=total > 0), np.float64)


def known_share(groups: Groups, market: Market) -> float:
    """Return the share of living symbols and sessions that have a group."""
    here = alive(market)
    return float((groups.code_TS[here] >= 0).mean()) if here.any() else 0.0


def exposure(value_TS: Floats, equity_T: Floats, groups: Groups, weight_TS: Floats) -> Exposure:
    """Return the exposure to groups; value_TS : KRW held, negative = short; weight_TS : the benchmark's weights."""
    size = len(groups.names) + 1
    equity = np.where(equity_T > 0, equity_T, np.nan)[:, None]

    def summed(x_TS: Floats) -> Floats:
        t, s = np.nonzero(x_TS)
        code = groups.code_TS[t, s].astype(np.int64)
        key = t * size + np.where(code < 0, size - 1, code)
        return np.bincount(key, x_TS[t, s], len(x_TS) * size).astype(np.float64).reshape(-1, size)

    return Exposure(
        groups.names,
        summed(np.maximum(value_TS, 0.0)) / equity,
        summed(np.minimum(value_TS, 0.0)) / equity,
        summed(weight_TS),
    )


def concentration(weights_TS: Floats) -> Floats:
    """Return the number of equal positions that would be as concentrated, 1 / sum of squared shares of the gross value
    (Herfindahl), (T,); NaN without positions.
    """
    gross = np.abs(weights_TS).sum(axis=1)
    squares = (weights_TS * weights_TS).sum(axis=1)
    return np.asarray(np.divide(gross**2, squares, out=np.full(len(gross), np.nan), where=squares > 0), np.float64)
