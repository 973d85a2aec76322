"""Combinations on a Dask cluster: each worker keeps one copy of every instrument and runs parts of the combinations.

Tasks hold places in the samples, never bars: what they need lies on the workers before the first of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .chunks import MOST, PIECE, Span, Threads, evaluate
from .figures import Raw
from .instrument import Instrument
from .samples import Samples

Array = npt.NDArray[Any]


class Spread:
    """Hold instruments, each with the spans that are traded, on the workers of a cluster."""

    def __init__(
        self,
        client: Any,
        instruments: Sequence[Instrument],
        spans: Sequence[Sequence[Span]],
        account: Array,
        memory: int,
    ) -> None:
        self._client, self._memory = client, memory
        self._account = client.scatter(account, broadcast=True, hash=False)
        pairs = list(zip(instruments, spans))
        self._resident = client.scatter(pairs, broadcast=True, hash=False)

    def evaluate(
        self, samples: Samples, moved: Callable[[int], None] = lambda done: None
    ) -> Iterator[tuple[int, Array, list[Raw]]]:
        """Yield (which instrument, which of the samples, what was counted over each span) as workers finish parts.

        A worker that is lost takes nothing along: its parts run again elsewhere. When the caller stops, what has not
        begun is cancelled.
        """
        from distributed import as_completed

        threads = sum(self._client.nthreads().values()) or 1
        tasks = max(1, 4 * threads // max(len(self._resident), 1))  # of an instrument: enough for all threads
        size = min(MOST, max(PIECE, math.ceil(len(samples) / tasks)))
        order = np.lexsort(samples.code_CP.T[::-1])  # neighbours share columns
        chosen = self._client.scatter(samples, broadcast=True, hash=False)
        parts = (
            (number, pair, np.sort(order[low : low + size]))
            for number, pair in enumerate(self._resident)
            for low in range(0, len(order), size)
        )
        numbers: dict[Any, int] = {}

        def submitted() -> Iterator[Any]:
            """Hand in parts one by one; instruments are finished about in their order, so that few of them wait."""
            for number, pair, part in parts:
                future = self._client.submit(_part, pair, chosen, self._account, part, self._memory, pure=False)
                numbers[future] = number
                yield future

        more = submitted()
        try:
            running = as_completed(list(itertools.islice(more, 4 * threads)))
            for future in running:
                pick, raws = future.result()
                number = numbers.pop(future)
                future.release()
                for another in itertools.islice(more, 1):
                    running.add(another)
                moved(len(pick) * len(raws))
                yield number, pick, raws
        finally:
            self._client.cancel(list(numbers))


def _part(
    pair: tuple[Instrument, Sequence[Span]], samples: Samples, account: Array, part: Array, memory: int
) -> tuple[Array, list[Raw]]:
    """Trade some of the samples, on one thread: the worker has others for other parts."""
    each, spans = pair
    mine = Samples(samples.strategy, np.ascontiguousarray(samples.code_CP[part]))
    with Threads(samples.strategy, 1) as runs:
        done = list(evaluate(runs, each, mine, spans, account, memory=memory))
    picks = np.concatenate([part[pick] for pick, _ in done])
    return picks, [Raw.joined([raws[k] for _, raws in done]) for k in range(len(spans))]
