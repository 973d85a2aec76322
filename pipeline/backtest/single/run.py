"""One combination over the bars of one symbol, with its trades and its equity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.strategies.declare import Strategy, StrategyError, Value

from .chunks import MEMORY, Span, chunks, span, task_of
from .driver import runner
from .event import REASONS, TRADE
from .figures import Raw, figures
from .instrument import Instrument, instruments_of
from .samples import one
from .section import AccountSection


class Result(NamedTuple):
    """Hold one run. figures : by name, see `figures`.

    trades : one row each closing fill; entry, exit : numbers of the bars in which it was opened and closed; entry_ts,
    exit_ts : the ends of these bars (UTC), also where the fill was at the open; entry_price, exit_price : raw, a share;
    side : long or short; shares; value, proceeds : money of entry and exit before costs; commission, tax, borrow :
    costs of both; profit : money, after them; reason : one of REASONS. equity : ts (end of the bar) and money after
    its close.
    """

    figures: dict[str, Any]
    trades: pd.DataFrame
    equity: pd.DataFrame


def run(
    bars: Any,
    strategy: Strategy,
    values: Mapping[str, Value] | None = None,
    *,
    account: AccountSection | None = None,
    first: Any = None,
    last: Any = None,
    **market: Any,
) -> Result:
    """Run one combination over the bars of one symbol and return its figures, trades and equity; parameters that are
    not named keep their defaults. No bar is left out: the figures are those of a sweep. Raises StrategyError.
    """
    account = account or AccountSection()
    found = instruments_of(bars, account, market)
    if len(found) != 1:
        raise StrategyError(f"expected bars of one symbol, got {len(found)}; choose one, or use sweep")
    each = found[0]
    chosen = one(strategy, values or {})
    over = span(each, strategy, first, last)
    (chunk,) = chunks(each, chosen, MEMORY, 1)
    task = task_of(each, strategy, chunk, over, account.array())._replace(wake_VT=np.zeros((1, 0), np.int32))
    equity = np.full(len(each), account.capital, np.int64)
    room = 1_000
    while True:
        raw = Raw.empty(1, len(over.count_M))
        trade, price = np.empty((room, len(TRADE)), np.int64), np.empty((room, 2))
        runner(strategy.step)(*task, 0, 1, *raw, equity, trade, price)
        count = int(figures(raw, account.capital, 1, 2, 252)["trades"][0])
        if count <= room:
            break
        room = count
    told = {k: v[0] for k, v in figures(raw, account.capital, over.stop - over.start, over.sessions, over.year).items()}
    return Result(told, _trades(each, trade[:count], price[:count], account), _equity(each, over, equity, account))


def _trades(each: Instrument, trade_NC: Any, price_NC: Any, account: AccountSection) -> pd.DataFrame:
    """Return trades with the stamps of their bars, prices a share and money in the currency of prices."""
    ts = each.bars["ts"].to_numpy()
    out = pd.DataFrame(trade_NC, columns=list(TRADE))
    scale = account.lot / account.unit
    for at, name in ((0, "entry"), (1, "exit")):
        out[f"{name}_ts"], out[f"{name}_price"] = ts[trade_NC[:, at]], price_NC[:, at] / scale
    out["side"] = np.where(trade_NC[:, 2] > 0, "long", "short")
    out["reason"] = np.array(REASONS, object)[trade_NC[:, -1]]
    if account.lot != 1.0:
        out["shares"] = out["shares"] * account.lot
    for name in ("value", "proceeds", "commission", "tax", "borrow", "profit"):
        out[name] = out[name] * account.unit if account.unit != 1.0 else out[name]
    return out


def _equity(each: Instrument, over: Span, equity_T: Any, account: AccountSection) -> pd.DataFrame:
    money = equity_T[over.start : over.stop]
    ts = each.bars["ts"].to_numpy()[over.start : over.stop]
    return pd.DataFrame({"ts": ts, "equity": money * account.unit if account.unit != 1.0 else money})
