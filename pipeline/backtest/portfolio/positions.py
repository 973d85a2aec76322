"""Closed positions: what was bought and sold of one symbol from nothing to nothing, and what was left of it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import pyarrow as pa


class Position(NamedTuple):
    """Hold one closed position; money in KRW, `profit` after commission, tax, borrowing and slippage, `spent` with
    commission: what a long cost, or the value that was sold short.
    """

    symbol: str
    opened: datetime
    closed: datetime
    spent: int
    profit: int
    reason: str


def closed_positions(trades: pa.Table) -> list[Position]:
    """Return the closed positions in the order in which they ended; what is still held at the end is not among them.

    trades : the backtest's trades in the order in which they happened, with ts, symbol, side, shares, value,
    commission, left, realised, reason.
    """
    held: dict[str, tuple[datetime, int, int]] = {}
    out = []
    for row in trades.to_pylist():
        opened, spent, profit = held.get(row["symbol"], (row["ts"], 0, 0))
        if row["side"] in ("buy", "short"):
            spent += row["value"] + row["commission"]
        profit += row["realised"]
        if row["left"] != 0:
            held[row["symbol"]] = (opened, spent, profit)
        else:
            held.pop(row["symbol"], None)
            out.append(Position(row["symbol"], opened, row["ts"], spent, profit, row["reason"]))
    return out
