"""Run combinations of one instrument in chunks whose columns fit into memory, on threads that share all arrays.

Shapes: C combinations, J columns of a strategy, U unique columns, M blocks of sessions, T bars.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.strategies.declare import Strategy, StrategyError

from ..metrics import sessions_a_year
from .driver import runner, wakes
from .event import END, TRADE
from .figures import Raw
from .frames import of_symbol
from .instrument import Instrument
from .samples import Samples
from .unique import Wanted, fill, wanted

Array = npt.NDArray[Any]
MOST = 8_192  # combinations of a chunk: progress, and what an interruption loses
PIECE = 16  # combinations that a thread takes at once: under a millisecond, so that all threads end together
MEMORY = 1 << 28  # bytes of columns at once
NOTHING = np.empty(0, np.int64), np.empty((0, len(TRADE)), np.int64), np.empty((0, 2))  # no equity and no trades kept


@dataclass(frozen=True)
class Span:
    """Hold the bars [start, stop) that are traded. block_T : (T,) int32, which of the blocks of sessions a bar counts
    to; count_M : (M,) sessions of each; year : sessions of a year.
    """

    start: int
    stop: int
    block_T: Array
    count_M: Array
    year: int

    @property
    def sessions(self) -> int:
        return int(self.count_M.sum())


def span(instrument: Instrument, strategy: Strategy, first: Any = None, last: Any = None, blocks: int = 1) -> Span:
    """Return the bars of the days first..last (inclusive, None = all there are) cut into blocks of sessions.

    Bars before are seen by the columns only. Raises StrategyError for a reversed range and for one without bars.
    """
    day = instrument.day_T
    first, last = _day(first), _day(last)
    begin = 0 if first is None else int(np.searchsorted(day, first))
    stop = len(day) if last is None else int(np.searchsorted(day, last, side="right"))
    if first is not None and last is not None and first > last:
        raise StrategyError(f"expected a range of days from the first to the last, got {first}..{last}; swap them")
    begin = max(begin, strategy.lookback)
    if stop - begin < 2:
        raise StrategyError(
            f"expected at least two bars{of_symbol(instrument.symbol)} to trade, got {max(stop - begin, 0)} of "
            f"{len(day)} "
            f"({day[0]}..{day[-1]}); widen the range"
        )
    ends = (instrument.flag_T[begin:stop] & END) > 0
    ends[-1] = True
    session = np.concatenate([[0], np.cumsum(ends)[:-1]])
    count = int(session[-1]) + 1
    blocks = min(blocks, count)
    block = np.zeros(len(day), np.int32)
    block[begin:stop] = session * blocks // count
    return Span(begin, stop, block, np.bincount(block[begin:stop][ends], minlength=blocks), sessions_a_year(day))


def _day(given: Any) -> Any:
    """Return a day as datetime64[D], of a time the day that its own clock shows; None stays. Raises StrategyError."""
    if given is None:
        return None
    try:
        if isinstance(given, (int, float)):
            raise TypeError
        return np.datetime64(pd.Timestamp(given).date(), "D")
    except (TypeError, ValueError) as error:
        raise StrategyError(f"expected a day such as 2024-01-31 as first or last, got {given!r}") from error


@dataclass(frozen=True)
class Chunk:
    """Hold some combinations with their columns. pick_C : which of the samples they are; the others as in event.py."""

    pick_C: Array
    x_UT: Array
    at_CJ: Array
    wake_VT: Array
    wake_C: Array
    p_CP: Array


def chunks(instrument: Instrument, samples: Samples, memory: int, threads: int, size: int = MOST) -> Iterator[Chunk]:
    """Cut up to `size` combinations at a time into chunks whose columns take at most `memory` bytes; combinations
    that share columns come together, and a column that the next chunk needs too is kept.
    """
    strategy = samples.strategy
    want = wanted(samples, instrument.interval)
    order, cuts = cut(want, max(1, memory // (4 * len(instrument) * 3)), size)
    kept = np.empty((0, len(instrument)), np.float32), np.empty(0, np.int64)
    for low, high in itertools.pairwise(cuts):
        pick = order[low:high]
        need, at = np.unique(want.at_CJ[pick], return_inverse=True)
        x = np.empty((len(need), len(instrument)), np.float32)
        place = np.searchsorted(kept[1], need)
        known = kept[1][np.minimum(place, len(kept[1]) - 1)] == need if len(kept[1]) else np.zeros(len(need), bool)
        x[known] = kept[0][place[known]]
        fresh = np.flatnonzero(~known)
        if fresh.size:
            fill(x, fresh.tolist(), instrument, [want.columns[u] for u in need[fresh].tolist()], threads)
        kept = x, need
        at = np.ascontiguousarray(at.reshape(len(pick), -1), np.uint32)
        wake, wake_C = np.zeros((1, 0), np.int32), np.zeros(len(pick), np.int32)
        if strategy.trigger is not None:
            rows, back = np.unique(at[:, strategy.trigger], return_inverse=True)
            wake, wake_C = wakes(x, rows), back.reshape(-1).astype(np.int32)
        yield Chunk(pick, x, at, wake, wake_C, np.ascontiguousarray(samples.code_CP[pick]))


def cut(want: Wanted, most: int, together: int = MOST) -> tuple[Array, list[int]]:
    """Return an order of combinations that brings together those with the same columns, the most varied column first,
    and where it is cut so that no chunk has more than `together` combinations or about `most` columns.
    """
    at = want.at_CJ
    varied = sorted(range(at.shape[1]), key=lambda j: np.count_nonzero(np.bincount(at[:, j])))
    order = np.lexsort([at[:, j] for j in varied]) if varied else np.arange(len(at))
    cuts, low = [0], 0
    while low < len(order):
        size = min(together, len(order) - low)
        while size > 1 and len(np.unique(at[order[low : low + size]])) > most:
            size = (size + 1) // 2
        low += size
        cuts.append(low)
    return order, cuts


class Task(NamedTuple):
    """Hold the arguments of the compiled loop in their order, see driver._run; all arrays, but for four numbers."""

    price_TC: Array
    flag_T: Array
    rule_TC: Array
    fact_TC: Array
    tick_RBC: Array
    block_T: Array
    x_UT: Array
    at_CJ: Array
    trigger: int
    wake_VT: Array
    wake_C: Array
    p_CP: Array
    account: Array
    start: int
    stop: int


def task_of(instrument: Instrument, strategy: Strategy, chunk: Chunk, over: Span, account: Array) -> Task:
    """Put together what the event loop reads for the combinations of a chunk."""
    return Task(
        instrument.price_TC, instrument.flag_T, instrument.rule_TC, instrument.fact_TC, instrument.tick_RBC,
        over.block_T, chunk.x_UT, chunk.at_CJ, -1 if strategy.trigger is None else strategy.trigger, chunk.wake_VT,
        chunk.wake_C, chunk.p_CP, account, over.start, over.stop,
    )  # fmt: skip


class Threads:
    """Run tasks on threads of this process, which share all arrays; the compiled loop holds no interpreter lock."""

    def __init__(self, strategy: Strategy, count: int) -> None:
        self.count = count
        self._run = runner(strategy.step)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(max(self.count - 1, 1))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, task: Task, blocks: int, moved: Callable[[int], None]) -> Raw:
        """Trade all combinations of a task; `moved` hears how many are done."""
        count = len(task.at_CJ)
        raw = Raw.empty(count, blocks)
        lows = iter(range(0, count, PIECE))
        stopped, telling = threading.Event(), threading.Lock()

        def work() -> None:
            for low in lows:
                if stopped.is_set():
                    return
                self._run(*task, low, min(low + PIECE, count), *raw, *NOTHING)
                with telling:
                    moved(min(PIECE, count - low))

        others = [self._pool.submit(work) for _ in range(self.count - 1)]
        try:
            work()
        except BaseException:
            stopped.set()
            raise
        finally:
            for other in others:
                other.result()
        return raw


def evaluate(
    runs: Any,
    instrument: Instrument,
    samples: Samples,
    spans: Sequence[Span],
    account: Array,
    *,
    memory: int = MEMORY,
    moved: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Array, list[Raw]]]:
    """Trade combinations of one instrument over spans, chunk by chunk: which of the samples, and what was counted over
    each span. runs : Threads, Processes or Lanes.
    """
    for chunk in chunks(instrument, samples, memory, runs.count, getattr(runs, "chunk", MOST)):
        yield (
            chunk.pick_C,
            [
                runs.run(task_of(instrument, samples.strategy, chunk, over, account), len(over.count_M), moved)
                for over in spans
            ],
        )
