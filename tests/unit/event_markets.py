"""One instrument whose few bars can be checked by hand, traded by a script of wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.backtest.single import event
from tests.event_cases import COLUMNS, TRIGGER, Case, Outcome, outcome, scripted
from tests.naive.events import Trader

INF = np.inf
Bar = float | tuple[float, float, float, float]
ACCOUNT = {
    "capital": 1_000,
    "commission": 0,
    "slippage": 0.0,
    "size": 1.0,
    "risk": 0.0,
    "longs": 1,
    "shorts": 1,
    "borrow": 0,
}
RULES = {"above": INF, "below": -INF, "high_limit": INF, "low_limit": -INF, "factor": 1.0, "unit": 1.0}
FACTS = {"tax": 0, "room": 10**9, "day": None, "table": 0, "until": None}


class Result(NamedTuple):
    """trades : dicts of event.TRADE with entry_price and exit_price, reason by name."""

    trades: list[dict[str, Any]]
    equity: list[int]
    outcome: Outcome

    def closed(self, *names: str) -> list[tuple[Any, ...]]:
        """Return (entry, exit, ...) of each trade, or the columns named."""
        return [
            tuple(row[name] for name in names or ("entry", "exit", "shares", "exit_price", "reason"))
            for row in self.trades
        ]


def each(value: Any, T: int, default: Any) -> list[Any]:
    """Spread a constant, a sequence, or a mapping from bars over all bars."""
    if isinstance(value, Mapping):
        return [value.get(t, default) for t in range(T)]
    return list(value) if isinstance(value, Sequence) else [value] * T


def traded(
    bars: Sequence[Bar],
    wants: Mapping[int, int],
    /,
    *,
    ticks: Sequence[tuple[float, float]] = ((0.0, 0.0),),
    **given: Any,
) -> Result:
    """Trade the bars; one number is a bar that stands still, and each bar a session unless `end` names the last ones.

    given : names of ACCOUNT; of RULES, FACTS and COLUMNS (constant, by bar, or one value a bar); flags by bar;
    triggered; p, the calls that LATER waits. The brute-force twin must agree, and so must a run that skips.
    """
    T = len(bars)
    flag_T = np.array(each(given.get("flags", {}), T, 0))
    ends = given.get("end", range(T))
    flag_T[list(ends)] |= event.END
    until = [min((e for e in ends if e >= t), default=T - 1) for t in range(T)]
    rule_TC = np.array([each(given.get(name, default), T, default) for name, default in RULES.items()], np.float64).T
    flag_T[rule_TC[:, event.FACTOR] != 1.0] |= event.ACTION
    facts = {**FACTS, "day": list(range(T)), "until": until}
    fact_TC = np.array([each(given.get(name, facts[name]), T, FACTS[name]) for name in FACTS], np.int64).T
    defaults = dict.fromkeys(COLUMNS, 0.0) | {"weight": 1.0, "want": 0.0}
    columns = {"want": wants, **{name: given.get(name, defaults[name]) for name in COLUMNS[1:]}}
    case = Case(
        price_TC=np.array([bar if isinstance(bar, tuple) else (bar,) * 4 for bar in bars], np.float64),
        flag_T=flag_T.astype(np.uint8),
        rule_TC=np.ascontiguousarray(rule_TC),
        fact_TC=np.ascontiguousarray(fact_TC),
        tick_RBC=np.array([ticks], np.float64),
        block_T=np.array(given.get("block", [0] * T), np.int32),
        x_UT=np.array([each(columns[name], T, defaults[name]) for name in COLUMNS], np.float32),
        at=np.arange(len(COLUMNS), dtype=np.uint32),
        trigger=TRIGGER if given.get("triggered") else -1,
        p=np.array([float(given.get("p", 0.0))]),
        account=np.array([given.get(name, default) for name, default in ACCOUNT.items()], np.float64),
        start=0,
        stop=T,
    )
    found = outcome(case)
    twin = Trader(case, scripted).trade()
    assert (found.trades, found.prices) == (twin.trades, twin.prices)
    assert found.equity_T[: len(twin.equity)].tolist() == twin.equity
    if case.trigger >= 0:
        skipped = outcome(case, skip=True)
        assert (skipped.trades, skipped.book, skipped.worst) == (found.trades, found.book, found.worst)
        assert (skipped.moment_MC == found.moment_MC).all()
    trades = [
        dict(zip(event.TRADE, row)) | {"entry_price": entry, "exit_price": left, "reason": event.REASONS[row[-1]]}
        for row, (entry, left) in zip(found.trades, found.prices)
    ]
    return Result(trades, twin.equity, found)
