"""What could have been earned after a decision. It looks ahead, as the labels do; nothing that trades reads it.

A decision falls after the close of session t. It is entered at the fill of session t + 1 and left at the fill of a
later one, at printed prices, so that a return is one before costs. What cannot be bought has no return; what cannot be
sold yet is held on; a delisted symbol is left at its last close. The same rules as those of the labels.

Shapes: T sessions, S symbols, H spans.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..portfolio.market import Market

Floats = npt.NDArray[np.float64]


class Paths(NamedTuple):
    """Hold prices on one basis, (T, S) float64: multiplied by the shares that one share became since the first session.

    entry_TS : the price at which a buy of session t fills, NaN = it does not. exit_TS : the price at which a sell that
    is wanted at session t fills, at t or at the first session after it that sells; NaN = at none that is known.
    """

    entry_TS: Floats
    exit_TS: Floats


def paths(market: Market) -> Paths:
    """Return at which prices orders of each session would have been entered and left."""
    basis_TS = np.cumprod(market.factor_TS, axis=0)
    print_TS = market.print_TS * basis_TS
    entry_TS = np.where(np.isfinite(market.buy_TS), print_TS, np.nan)
    exit_TS = np.where(np.isfinite(market.sell_TS), print_TS, np.nan)
    T = len(exit_TS)
    ended = np.flatnonzero((market.delist_S >= 0) & (market.delist_S < T))  # those before the first never traded
    last = market.delist_S[ended]
    gone_TE = np.arange(T)[:, None] >= last
    final = market.carried_TS[last, ended] * basis_TS[last, ended]
    exit_TS[:, ended] = np.where(gone_TE & ~np.isfinite(exit_TS[:, ended]), final, exit_TS[:, ended])
    entry_TS[:, ended] = np.where(np.arange(T)[:, None] > last, np.nan, entry_TS[:, ended])
    for t in range(T - 2, -1, -1):
        np.copyto(exit_TS[t], exit_TS[t + 1], where=np.isnan(exit_TS[t]))
    return Paths(entry_TS, exit_TS)


def forward_returns(found: Paths, horizon: int, *, lag: int = 0) -> Floats:
    """Return what a position decided at each close earned, (T, S): entered at the fill of t + 1 + lag and left at that
    of t + 1 + lag + horizon; NaN = not possible or not known.
    """
    if horizon < 1 or lag < 0:
        raise ValueError(f"expected a horizon of at least 1 session and a lag of at least 0, got {horizon} and {lag}")
    entry_TS, exit_TS = found
    out = np.full(entry_TS.shape, np.nan)
    begin, end = 1 + lag, 1 + lag + horizon
    rows = len(out) - end
    if rows > 0:
        out[:rows] = exit_TS[end : end + rows] / entry_TS[begin : begin + rows] - 1.0
    return out
