"""From what the event loop counted to the figures of a result, one row a combination.

Shapes: C combinations, M blocks of sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .event import BOOK, BORROWED, EQUITY, GAINED, HELD, LOST, MOMENTS, SPENT, TAXED, TRADED, WINS

Array = npt.NDArray[Any]
FIGURES = (
    "total_return", "sharpe", "max_drawdown", "trades", "win_rate", "profit_factor", "mean_trade", "exposure", "costs",
    "end_equity",
)  # fmt: skip


class Raw(NamedTuple):
    """Hold what the event loop left. worst_C : (C,) largest drawdown; book_CB : (C, 14) counts, see event.py;
    moment_CMK : (C, M, 4) sums of the powers 1 to 4 of the sessions' returns.
    """

    worst_C: Array
    book_CB: Array
    moment_CMK: Array

    @classmethod
    def empty(cls, count: int, blocks: int) -> Raw:
        return cls(np.empty(count), np.empty((count, BOOK), np.int64), np.empty((count, blocks, MOMENTS)))

    @classmethod
    def joined(cls, parts: Sequence[Raw], order: Any = slice(None)) -> Raw:
        """Return parts behind each other, in another order where one is given."""
        return cls(*(np.concatenate(arrays)[order] for arrays in zip(*parts)))


def figures(raw: Raw, capital: int, bars: int, sessions: int, year: int) -> dict[str, Array]:
    """Return the figures by name, (C,) each; NaN where one cannot be known.

    total_return = end / capital - 1; sharpe = mean / sd (ddof 1) of the sessions' returns x sqrt(year), NaN below two
    sessions or without movement; max_drawdown <= 0, at closes; win_rate = trades that made money after costs / trades;
    profit_factor = money of those / money of the others; mean_trade = profit / trades / capital; exposure = bars at
    whose close something was held / bars; costs = commission, tax and borrowing / capital.
    """
    book = raw.book_CB.astype(np.float64).T
    trades, gained, lost = book[TRADED], book[GAINED], book[LOST]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "total_return": book[EQUITY] / capital - 1.0,
            "sharpe": sharpe(raw.moment_CMK[:, :, :2].sum(axis=1), sessions) * np.sqrt(year),
            "max_drawdown": -raw.worst_C,
            "trades": raw.book_CB[:, TRADED],
            "win_rate": book[WINS] / trades,
            "profit_factor": np.where(lost > 0, gained / lost, np.nan),
            "mean_trade": (gained - lost) / trades / capital,
            "exposure": book[HELD] / max(bars, 1),
            "costs": (book[SPENT] + book[TAXED] + book[BORROWED]) / capital,
            "end_equity": raw.book_CB[:, EQUITY],
        }


def sharpe(sums_C2: Array, sessions: int) -> Array:
    """Return mean / sd (ddof 1) from sums of returns and of their squares over so many sessions, NaN = no movement."""
    mean = sums_C2[..., 0] / max(sessions, 1)
    variance = (sums_C2[..., 1] - sessions * mean**2) / max(sessions - 1, 1)
    moving = (variance > 1e-18) & (sessions > 1)
    return np.where(moving, mean / np.sqrt(np.where(moving, variance, 1.0)), np.nan)
