"""The numbers of one backtest: the curve beside its benchmark, what trading cost, how often it paid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import metrics
from .books import SHARES, costs, positions
from .kernel import Ledger
from .market import Market

Floats = npt.NDArray[np.float64]


def numbers_of(
    ledger: Ledger, market: Market, benchmark_T: Floats, *, shorts: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the numbers by name, and the reasons for those that are None; benchmark_T : (T,) KRW; shorts : the cost of
    borrowing is among the costs.
    """
    equity_T = ledger.equity_T.astype(np.float64)
    found, reasons = metrics.performance(equity_T, market.day_T, benchmark_T)
    more, why = metrics.trading(
        equity_T,
        ledger.traded_T.astype(np.float64),
        ledger.gross_T.astype(np.float64),
        ledger.positions_T.astype(np.float64),
        costs(ledger, market, shorts),
        positions(ledger).profit.tolist(),
        int((ledger.trades_NC[:, SHARES] > 0).sum()),
        found["sessions_a_year"],
    )
    return {**found, **more}, {**reasons, **why}
