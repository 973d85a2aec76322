"""Sweeps: a strategy with many combinations of parameters over the bars of one or many symbols."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pandas as pd
import psutil

from pipeline.strategies.declare import Strategy, StrategyError

from .best import BETTER, Rows
from .chunks import MEMORY, Span, Threads, evaluate
from .figures import Raw, figures
from .forecast import LARGE, PATIENCE, cores, foreseen
from .instrument import Instrument, instruments_of
from .present import present
from .processes import Processes
from .samples import Samples, check_counts, combinations_of
from .section import AccountSection

EXECUTORS = ("thread", "process", "gpu")
LOG = logging.getLogger(__name__)


def sweep(
    bars: Any,
    strategy: Strategy,
    combinations: Any,
    *,
    account: AccountSection | None = None,
    first: Any = None,
    last: Any = None,
    top: int | None = None,
    by: str = "sharpe",
    least_trades: int = 0,
    executor: Literal["thread", "process", "gpu"] = "thread",
    workers: int | None = None,
    memory: int = MEMORY,
    limit: int | None = None,
    patience: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    client: Any = None,
    **market: Any,
) -> pd.DataFrame:
    """Run every combination over the bars and return one row each: symbol, parameters and figures, see `figures`.

    bars : a frame (see `instruments`, which takes venue, interval, actions and listing too) or a list of instruments.
    combinations : lists of values by parameter, which make a grid, or rows (frame or mappings). first, last : days that
    are traded, inclusive; earlier bars are seen by columns only; symbols without two bars in them are left out with a
    warning. top : keep only the best by the figure `by` (see BETTER), of those with `least_trades`: who never trades
    has neither costs nor a drawdown. executor : threads share all arrays; processes see them in shared memory; gpu: a
    thread of the current GPU each, never another executor instead. workers : None = the cores. memory : bytes of
    columns at once. limit, patience : bytes (None = what is free) and seconds (None = an hour); where one is given, or
    for more than 20,000 runs, a part is made first, and what would take more is refused with the forecast. progress :
    hears (done, all). client : a Dask client; its workers run the combinations of symbols.

    No figure depends on the executor, workers, chunks, order of combinations or machine. Raises StrategyError.
    """
    account = account or AccountSection()
    chosen = combinations_of(strategy, combinations)
    found = instruments_of(bars, account, market)
    if by not in tuple(BETTER):
        raise StrategyError(
            f"expected a figure of which more or less is better to choose by ({', '.join(BETTER)}), got '{by}'; leave "
            "top= out and sort the rows, or ask for trades with least_trades="
        )
    if executor not in EXECUTORS:
        raise StrategyError(f"expected executor {', '.join(EXECUTORS)}, got {executor!r}")
    check_counts(top=top, workers=workers, memory=memory)
    if client is not None and executor == "gpu":
        raise StrategyError(
            "expected executor 'thread' with a client, whose workers run on CPU threads, got 'gpu'; leave one out"
        )
    workers = workers or cores()
    found, spans = present(found, strategy, first, last)
    rows = Rows(chosen, [each.symbol for each in found], by, top, least_trades)
    if len(chosen) * len(found) > LARGE or limit is not None or patience is not None:
        guess = foreseen(found, chosen, account, spans, top=top, workers=workers, memory=memory)
        LOG.info("sweep of %s: %s", strategy.name, guess)
        guess.check(limit or psutil.virtual_memory().available, PATIENCE if patience is None else patience)
    done, total = 0, len(chosen) * len(found)

    def moved(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    if client is not None:
        from .spread import Spread

        parts = Spread(client, found, [[over] for over in spans], account.array(), memory).evaluate(chosen, moved)
    else:
        parts = _here(found, spans, chosen, account, executor, workers, memory, moved)
    for symbol, pick, (raw,) in parts:
        over = spans[symbol]
        rows.add(symbol, pick, figures(raw, account.capital, over.stop - over.start, over.sessions, over.year))
    return rows.frame()


def _here(
    found: Sequence[Instrument],
    spans: Sequence[Span],
    chosen: Samples,
    account: AccountSection,
    executor: str,
    workers: int,
    memory: int,
    moved: Callable[[int], None],
) -> Iterator[tuple[int, Any, list[Raw]]]:
    """Yield (which symbol, which of the samples, what was counted), chunk by chunk, on this machine."""
    kinds: dict[str, Any] = {"thread": Threads, "process": Processes}
    if executor == "gpu":
        from .lanes import Lanes  # loads CUDA

        kinds["gpu"] = Lanes
    with kinds[executor](chosen.strategy, workers) as runs:
        for symbol, (each, over) in enumerate(zip(found, spans)):
            for pick, raws in evaluate(runs, each, chosen, [over], account.array(), memory=memory, moved=moved):
                yield symbol, pick, raws
