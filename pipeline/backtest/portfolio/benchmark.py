"""What a portfolio is held against: the whole market, one symbol or index of the data, or money that earns nothing.

Shapes: T sessions, S symbols.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..section import BacktestError
from .market import Market

Floats = npt.NDArray[np.float64]


def benchmark(market: Market, capital: int, choice: str = "equal") -> Floats:
    """Return what the benchmark is worth after each close, without costs: (T,) float64 KRW, `capital` after the first.

    choice : "equal" or "cap" weights of all symbols, rebalanced daily; "none", money that earns nothing; else a symbol
    or an index of the data. Returns are adjusted for corporate actions and carried over halts (zero); a symbol counts
    from its second close to its delisting. Raises BacktestError where the data have no such benchmark.
    """
    if choice == "none":
        return np.full(len(market.ts_T), float(capital))
    known_TS, return_TS = _returns(market)
    if choice == "equal":
        mean_T = return_TS.sum(axis=1) / np.maximum(known_TS.sum(axis=1), 1)
    elif choice == "cap":
        weight_TS = np.where(known_TS, _values(market), 0.0)
        total_T = weight_TS.sum(axis=1)
        mean_T = np.divide((weight_TS * return_TS).sum(axis=1), total_T, out=np.zeros(len(total_T)), where=total_T > 0)
    elif choice in market.symbols:
        mean_T = return_TS[:, market.symbols.index(choice)].copy()
    elif len(market.index_T):
        before_T = np.concatenate([market.index_T[:1], market.index_T[:-1]])
        mean_T = np.nan_to_num(market.index_T / before_T - 1.0)
    else:
        raise BacktestError(
            f"expected backtest.benchmark equal, cap, none, or a symbol or index of the data, got '{choice}', which "
            f"the receipt does not name; it has {len(market.symbols)} symbols, such as {', '.join(market.symbols[:3])}"
        )
    mean_T[0] = 0.0
    return np.asarray(capital * np.cumprod(1.0 + mean_T), np.float64)


def _returns(market: Market) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return which symbols count in each session and their returns, zero elsewhere."""
    price_TS, base_TS = market.carried_TS, market.base_TS
    alive_TS = np.arange(len(price_TS))[:, None] <= market.delist_S[None, :]
    known_TS = np.isfinite(base_TS) & np.isfinite(price_TS) & alive_TS
    with np.errstate(invalid="ignore", divide="ignore"):
        return known_TS, np.where(known_TS, price_TS / base_TS - 1.0, 0.0)


def shares(market: Market) -> Floats:
    """Return how many shares of each symbol there are in each session, (T, S); NaN = not known.

    The symbols table says those of one day; those of other days follow by the factors of corporate actions. Good enough
    to describe a market afterwards, and too late to choose from it.
    """
    factor_TS = np.cumprod(market.factor_TS, axis=0)
    at_S = np.searchsorted(market.day_T, market.listed_on_S, side="right") - 1
    then_S = np.where(at_S >= 0, factor_TS[np.maximum(at_S, 0), np.arange(len(at_S))], 1.0)
    return np.asarray(market.listed_S * factor_TS / then_S, np.float64)


def _values(market: Market) -> Floats:
    """Return the value of each symbol at the close before each session, (T, S); 0 where shares are not known."""
    if not np.isfinite(market.listed_S).any():
        raise BacktestError(
            "expected numbers of shares in the symbols table for backtest.benchmark cap, got none; import a listing "
            "with a column of shares, or set backtest.benchmark to equal"
        )
    return np.nan_to_num(shares(market) * market.base_TS)
