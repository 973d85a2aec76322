"""A strategy as a function of bars alone: its columns, what it wants after each bar, and the money and trades of it.

It is run by the same code as in a sweep, with a step that writes down what the strategy's own one wants. Shapes: N rows
of bars, C combinations, U unique columns, T bars of a symbol.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd

from ..backtest.single.chunks import MEMORY, Span, Task, chunks, task_of
from ..backtest.single.driver import runner
from ..backtest.single.event import LAST, ORDER, TRADE, step
from ..backtest.single.figures import Raw
from ..backtest.single.instrument import Instrument, instruments
from ..backtest.single.samples import Samples
from ..backtest.single.section import AccountSection
from ..backtest.single.unique import wanted
from ..strategies.declare import Strategy
from ..tradable import Listing
from .bars import ISSUE, actions_of
from .case import Case, Floats, Longs, spread
from .result import Finding, Outcome

DECISION = ("want", "stop", "target", "trail_start", "trail", "bars", "weight")
MONEY = ("equity", "trades", "exit_price", "profit")
AHEAD = 64  # bars without a value behind the last one: a step that looks ahead finds them, and leaves no array
BEHIND = 448  # and bars at random behind these: a step that looks back too far for its bar gets to them from the front
FILLS = 3  # closing fills that a bar has room for


def recorded(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    """Write what the step wants into the last rows that `at` names, and pass it on."""
    want = step(i, x, at, p, order, state, side)
    low = at.shape[0] - ORDER - 1
    x[at[low], i] = want
    for k in range(ORDER):
        x[at[low + 1 + k], i] = order[k]
    return want


@functools.cache
def recorder(inner: Callable[..., int]) -> Callable[..., int]:
    """Return `recorded` for a strategy's step."""
    return FunctionType(recorded.__code__, {**globals(), "step": inner}, inner.__name__)


@dataclass(frozen=True)
class Played:
    """Run combinations over raw bars with their basis, see bars.py; listing : by issue, as for `instruments`.

    Returns a row for each bar: every unique column; of each combination, as "#3 want", what it wants after the bar's
    close (DECISION; NaN = it was not asked) and MONEY: equity, trades so far, price and profit of what closed with the
    bar. Rows without a close are no bars.
    """

    samples: Samples
    account: AccountSection
    interval: str
    venue: str = "KRX"
    listing: Mapping[str, Listing] = field(default_factory=dict)

    @property
    def strategy(self) -> Strategy:
        return self.samples.strategy

    @functools.cached_property
    def names(self) -> list[str]:
        columns = [f"{c.name} once" if once else c.name for c, once in wanted(self.samples, self.interval).columns]
        return [*columns, *(f"#{c} {name}" for c in range(len(self.samples)) for name in (*DECISION, *MONEY))]

    def __call__(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Raises StrategyError for bars and combinations that cannot be run."""
        out = np.full((len(bars), len(self.names)), np.nan)
        there = np.flatnonzero(bars["close"].notna().to_numpy(bool))
        actions = actions_of(bars)
        for rows in bars.iloc[there].groupby("symbol", sort=False).indices.values():
            own = bars.iloc[there[rows]].reset_index(drop=True)
            issue = str(own[ISSUE].iloc[0] if ISSUE in own else own["symbol"].iloc[0])
            known = {str(own["symbol"].iloc[0]): self.listing[issue]} if issue in self.listing else None
            (each,) = instruments(
                own, self.account, venue=self.venue, interval=self.interval, actions=actions, listing=known
            )
            out[there[rows[: len(each)]]] = self._one(each)
        return pd.DataFrame(out, columns=self.names, index=bars.index)

    def _one(self, each: Instrument) -> Floats:
        T, start = len(each), self.strategy.lookback
        out = np.full((T, len(self.names)), np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a trial may leave less than the columns need
            (chunk,) = chunks(each, self.samples, max(MEMORY, 12 * T * len(self.names)), 1)
        U, width = len(chunk.x_UT), len(DECISION) + len(MONEY)
        out[:, :U] = chunk.x_UT.T
        over = Span(start, T + 1, np.zeros(T, np.int32), np.ones(1, np.int64), 252)
        task = _longer(task_of(each, self.strategy, chunk, over, self.account.array()))
        if start < T:
            for place, c in enumerate(chunk.pick_C.tolist()):
                out[start:, U + c * width : U + (c + 1) * width] = self._combination(task, place, T)[start:]
        return out

    def _combination(self, task: Task, place: int, T: int) -> Floats:
        """Return DECISION and MONEY of one combination, (T, 11)."""
        told = np.full((len(DECISION), task.x_UT.shape[1]), np.nan, np.float32)
        own = np.arange(len(task.x_UT), len(task.x_UT) + len(told), dtype=np.uint32)
        mine = task._replace(
            x_UT=np.concatenate([task.x_UT, told]),
            at_CJ=np.concatenate([task.at_CJ[place], own])[None],
            p_CP=task.p_CP[place : place + 1],
            wake_VT=np.zeros((1, 0), np.int32),  # no bar is left out
            wake_C=np.zeros(1, np.int32),
        )
        equity, raw = np.zeros(len(task.flag_T), np.int64), Raw.empty(1, 1)
        trade, price = np.zeros((FILLS * len(equity), len(TRADE)), np.int64), np.zeros((FILLS * len(equity), 2))
        runner(recorder(self.strategy.step))(*mine, 0, 1, *raw, equity, trade, price)
        closed = trade[:, TRADE.index("shares")] + trade[:, TRADE.index("value")] > 0
        at, profit = trade[closed, TRADE.index("exit")], trade[closed, TRADE.index("profit")]
        out = np.zeros((len(equity), len(DECISION) + len(MONEY)))
        out[:, : len(told)] = mine.x_UT[own].T
        out[:, len(told)] = equity
        np.add.at(out[:, len(told) + 1], at, 1)
        out[:, len(told) + 1] = np.cumsum(out[:, len(told) + 1])
        out[at, len(told) + 2] = price[closed, 1]
        np.add.at(out[:, len(told) + 3], at, profit)
        return out[:T]


def _longer(task: Task) -> Task:
    """Add bars that stand still behind the last one, so that it is followed by a decision too.

    Nothing is closed because of a delisting: its day is known before, but not which of the day's bars is the last.
    """
    T = len(task.flag_T)
    task = task._replace(flag_T=task.flag_T & np.uint8(255 - LAST))
    still: dict[str, Any] = {
        name: np.concatenate([array, np.repeat(array[-1:], AHEAD + BEHIND, axis=0)])
        for name in ("price_TC", "flag_T", "rule_TC", "fact_TC", "block_T")
        for array in [getattr(task, name)]
    }
    unknown = np.full((len(task.x_UT), AHEAD), np.nan, np.float32)
    others = task.x_UT[:, np.random.default_rng(T).integers(0, T, BEHIND)]
    return task._replace(x_UT=np.ascontiguousarray(np.concatenate([task.x_UT, unknown, others], axis=1)), **still)


class Plays(Case):
    """Hold bars and what a strategy makes of them; half of the moments are such at which it wants something."""

    values: Played

    @functools.cached_property
    def wants(self) -> Floats:
        """Return what each combination wants, (N, C); zero = nothing."""
        return np.nan_to_num(self.whole_RC[:, [c for c, name in enumerate(self.columns) if name.endswith(" want")]])

    def sides(self) -> Longs:
        """Return how often each combination wants to be long or short, (C,)."""
        return np.asarray((np.abs(self.wants) == 1).sum(axis=0), np.int64)

    def drawn(self, rng: np.random.Generator, tries: int) -> list[int]:
        acted = np.unique(self.ts[(self.wants != 0).any(axis=1)])
        last = self.moments[-1:]
        chosen = spread(acted[acted < last] if last.size else acted[:0], rng, -(-tries // 2))
        return sorted({*chosen, *spread(self.moments[:-1], rng, max(tries - len(chosen), 1))})

    def finding(self, outcome: Outcome, *what: Any) -> Finding:
        """Name the strategy, and the combination by its values."""
        found = super().finding(outcome, *what)
        if found.column.startswith("#"):
            values = self.values.samples.values(int(found.column[1:].split()[0]))
            found.what += " with " + ", ".join(f"{name} {value}" for name, value in values.items())
        found.column = f"{self.values.strategy.name} {found.column}"
        return found


def groups(rows: Mapping[str, int], columns: int, budget: int) -> Iterator[list[str]]:
    """Yield symbols, several at a time while what is made of their bars takes up to `budget` bytes."""
    mine: list[str] = []
    size = 0
    for symbol, count in rows.items():
        needs = 8 * 6 * count * columns  # whole, trial, and what compares them
        if mine and size + needs > budget:
            yield mine
            mine, size = [], 0
        mine, size = [*mine, symbol], size + needs
    if mine:
        yield mine
