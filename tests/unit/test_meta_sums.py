"""What combinations came to over all symbols: the same in any order, in memory that does not grow with the symbols."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pipeline.backtest.single.chunks import Span, Threads, evaluate
from pipeline.backtest.single.event import BOOK
from pipeline.backtest.single.figures import Raw
from pipeline.backtest.single.halves import halves_of
from pipeline.backtest.single.instrument import instruments
from pipeline.backtest.single.samples import grid
from pipeline.backtest.single.trials import counted
from pipeline.strategies import moving_average_cross

from .test_meta import ACCOUNT, SMALL, bars

CHOSEN = grid(moving_average_cross, {"fast": range(5, 25, 5), "slow": range(40, 100, 20)})


def test_symbols_and_parts_in_any_order_come_to_the_same_bits() -> None:
    frame = pd.concat([bars(300, f"S{n}", n) for n in range(9)], ignore_index=True)
    found = instruments(frame, ACCOUNT, venue="24h", interval="1d")
    spans = halves_of(found, moving_average_cross, SMALL, None, None).spans
    with Threads(moving_average_cross, 1) as runs:
        parts = [
            (symbol, pick[k::2], [type(raw)(*(array[k::2] for array in raw)) for raw in raws])
            for symbol, (each, halves) in enumerate(zip(found, spans))
            for pick, raws in evaluate(runs, each, CHOSEN, halves, ACCOUNT.array())
            for k in (0, 1)
        ]
    first = counted(CHOSEN, parts, spans, ACCOUNT, SMALL)
    assert np.isfinite(first.score_C).any()
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(parts))
        other = counted(CHOSEN, [parts[k] for k in order], spans, ACCOUNT, SMALL)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, other))


def test_memory_does_not_grow_with_the_symbols() -> None:
    many = grid(moving_average_cross, {"fast": range(5, 31), "slow": range(40, 241, 10)})
    span = Span(0, 100, np.zeros(100, np.int32), np.full(16, 6), 252)

    def parts(symbols: int) -> Iterator[tuple[int, Any, list[Raw]]]:
        for symbol in range(symbols):
            raw = Raw(np.zeros(len(many)), np.ones((len(many), BOOK), np.int64), np.ones((len(many), 16, 4)))
            yield symbol, np.arange(len(many)), [raw, raw]

    def peak(symbols: int) -> int:
        tracemalloc.start()
        found = counted(many, parts(symbols), [(span, span)] * symbols, ACCOUNT, SMALL)
        out = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found.moment_CMK == 1).all()
        return out

    assert peak(100) < 1.1 * peak(10)
