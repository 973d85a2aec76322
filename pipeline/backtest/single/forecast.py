"""What a sweep will take, by a part of it that is run first."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.strategies.declare import Strategy, StrategyError

from .chunks import MEMORY, MOST, Span, Threads, evaluate
from .figures import FIGURES
from .instrument import Instrument, instruments_of
from .present import present
from .samples import Samples, check_counts, combinations_of
from .section import AccountSection

PROBES = (256, 1_024)  # combinations that are run: the difference of their times leaves out what is done once
LARGE = 20_000  # combinations times symbols from which a sweep makes a forecast of its own
PATIENCE = 3_600.0  # seconds that a sweep may take unless more are given
ROW = 8 * (len(FIGURES) + 2)  # bytes of a result besides its parameters


class Forecast(NamedTuple):
    """Say what a sweep will take: seconds here, and bytes at their most besides what the process holds."""

    seconds: float
    bytes: int
    combinations: int

    def __str__(self) -> str:
        return f"{self.combinations:,} combinations, about {self.seconds:,.1f} s and {self.bytes / 1e6:,.0f} MB"

    def check(self, limit: int, patience: float) -> None:
        """Refuse what is beyond a limit. Raises StrategyError with the numbers."""
        if self.bytes > limit:
            raise StrategyError(
                f"expected a sweep within {limit / 1e6:,.0f} MB, got {self}; keep only the best with top=, or make "
                "steps coarser"
            )
        if self.seconds > patience:
            raise StrategyError(
                f"expected a sweep within {patience:,.0f} s, got {self}; make steps coarser, draw samples, or give "
                "more patience="
            )


def forecast(
    bars: Any,
    strategy: Strategy,
    combinations: Any,
    *,
    account: AccountSection | None = None,
    first: Any = None,
    last: Any = None,
    top: int | None = None,
    workers: int | None = None,
    memory: int = MEMORY,
    **market: Any,
) -> Forecast:
    """Run some of the combinations on the symbol with most bars and say what a sweep with these arguments will take."""
    account = account or AccountSection()
    check_counts(top=top, workers=workers, memory=memory)
    found = instruments_of(bars, account, market)
    chosen = combinations_of(strategy, combinations)
    found, spans = present(found, strategy, first, last)
    return foreseen(found, chosen, account, spans, top=top, workers=workers or cores(), memory=memory)


def foreseen(
    found: Sequence[Instrument],
    chosen: Samples,
    account: AccountSection,
    spans: Sequence[Span],
    *,
    top: int | None,
    workers: int,
    memory: int,
) -> Forecast:
    """Return the forecast for combinations over instruments; spans : the bars of each that are traded."""
    probed, over = max(zip(found, spans), key=lambda pair: len(pair[0]))  # a short one may know no column
    times = []
    counts = [min(count, len(chosen)) for count in PROBES]
    with Threads(chosen.strategy, workers) as runs:
        for count in counts:
            pick = np.unique(np.linspace(0, len(chosen) - 1, count).astype(np.int64))
            probe = Samples(chosen.strategy, np.ascontiguousarray(chosen.code_CP[pick]))
            begin = time.perf_counter()
            for _ in evaluate(runs, probed, probe, [over], account.array(), memory=memory):
                pass
            times.append(time.perf_counter() - begin)
    more = counts[1] - counts[0]
    each = max(times[1] - times[0], 0.0) / more if more else 0.0
    bars = sum(len(one) for one in found) / len(probed)
    count = len(chosen) * len(found)
    kept = count if top is None else min(count, max(top, MOST) + MOST)
    taken = 3 * chosen.code_CP.nbytes + 2 * kept * (ROW + chosen.code_CP.itemsize * chosen.code_CP.shape[1]) + memory
    return Forecast((times[1] + each * (len(chosen) - counts[1])) * bars, int(taken), count)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
