"""Results of a sweep as they come: all rows, or only the best ones, whatever their number and order.

Shapes: C combinations, P parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .figures import FIGURES
from .samples import Samples

Array = npt.NDArray[Any]
BETTER = {
    "total_return": 1, "sharpe": 1, "max_drawdown": 1, "win_rate": 1, "profit_factor": 1, "mean_trade": 1, "costs": -1,
    "end_equity": 1,
}  # fmt: skip
"""Figures that choose: 1 = more is better (a drawdown is below zero), -1 = less is; others say nothing of that."""


class Rows:
    """Collect figures of combinations. most : how many of the best by one of BETTER are kept, of those with
    `least_trades`; None = all, in the order of the samples.
    """

    def __init__(self, samples: Samples, symbols: list[str], by: str, most: int | None, least_trades: int = 0) -> None:
        self.samples, self.symbols, self.by, self.most, self.least_trades = samples, symbols, by, most, least_trades
        self._symbol = np.empty(0, np.int32)
        self._pick = np.empty(0, np.int64)
        self._figures: dict[str, Array] = {}
        self._parts: list[tuple[Array, Array, dict[str, Array]]] = []

    def add(self, symbol: int, pick: Array, figures: dict[str, Array]) -> None:
        """Take the figures of some combinations of one symbol."""
        self._parts.append((np.full(len(pick), symbol, np.int32), pick, figures))
        if self.most is not None and sum(len(part[1]) for part in self._parts) >= max(self.most, 1_000):
            self._merge()
            self._keep()

    def frame(self) -> pd.DataFrame:
        """Return one row a combination and symbol: symbol, parameters, figures; the best first where only some are
        kept.
        """
        self._merge()
        if self.most is not None:
            self._keep()
        order = slice(None) if self.most is not None else np.lexsort((self._pick, self._symbol))
        out = {"symbol": np.array(self.symbols, object)[self._symbol[order]]}
        return pd.DataFrame(
            out | self.samples.columns(self._pick[order]) | {name: self._figures[name][order] for name in FIGURES}
        )

    def _merge(self) -> None:
        parts = [*([(self._symbol, self._pick, self._figures)] if self._figures else []), *self._parts]
        self._parts = []
        self._symbol = np.concatenate([part[0] for part in parts])
        self._pick = np.concatenate([part[1] for part in parts])
        self._figures = {name: np.concatenate([part[2][name] for part in parts]) for name in FIGURES}

    def _keep(self) -> None:
        """Keep the best by value; of equal ones those with smaller parameters and earlier symbols, so that neither the
        order of the combinations nor the size of the chunks decides.
        """
        value = BETTER[self.by] * np.asarray(self._figures[self.by], np.float64)
        known = np.where(np.isnan(value), -np.inf, value)
        near = np.flatnonzero(self._figures["trades"] >= self.least_trades)
        if self.most is not None and len(near) > self.most:
            edge = np.partition(known[near], len(near) - self.most)[len(near) - self.most]
            near = near[known[near] >= edge]
        codes = self.samples.code_CP[self._pick[near]]
        order = np.lexsort([self._symbol[near], *codes.T[::-1], -known[near]])
        chosen = near[order][: self.most]
        self._symbol, self._pick = self._symbol[chosen], self._pick[chosen]
        self._figures = {name: values[chosen] for name, values in self._figures.items()}
