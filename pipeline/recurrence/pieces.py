"""Cut long series into pieces that run side by side: a piece begins some bars early, cold, and stores nothing of them.

Few long series fill a CPU but leave a GPU idle: its time is then that of the longest series, bar after bar. What a
cut costs is exactness: a piece agrees with the uncut series within the tolerance of its indicators, not bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .plan import Longs, Series

SHORTEST = 1024  # bars: below, a piece ends sooner than launching it takes


class Pieces(NamedTuple):
    """Say what each lane runs, longest first, (S,) int64 each.

    series : index of the series. starts : row of the first bar of the run in the long-format columns. lengths : bars
    of the run. before : bars of the series before the run, 0 = it begins where the series does. early : bars of the
    run, at its beginning, that are not stored. last : whether the run ends where the series does.
    """

    series: Longs
    starts: Longs
    lengths: Longs
    before: Longs
    early: Longs
    last: Longs


class Cut(NamedTuple):
    """Name passes, by their place in the plan, whose series are cut into pieces of `bars` stored bars (0 = not at all),
    each begun `warmup` bars early.
    """

    passes: tuple[int, ...]
    bars: int
    warmup: int


def cuts_of(warmups: Sequence[float], series: Series, *, lanes: int, pieces: int | None = None) -> list[Cut]:
    """Choose how to cut the series of each pass: passes that are cut alike come together, the longest pieces first.

    warmups : bars after which a pass no longer depends on where it began; infinite = its series stay whole. lanes : how
    many are wanted, 0 = series stay whole; a warm-up is then never longer than what is stored after it. pieces : how
    many the longest series is cut into, whatever is wanted; passes of like warm-up come together.
    """
    longest, bars = int(series.lengths.max()), int(series.lengths.sum())
    if pieces is not None:
        ideal = -(-longest // pieces)
    else:
        ideal = max(SHORTEST, -(-bars * len(warmups) // lanes)) if lanes else longest
    found: dict[tuple[int, int], list[int]] = {}
    for i, warmup in enumerate(warmups):
        size = ideal if math.isfinite(warmup) else longest
        while pieces is None and size < min(longest, 2 * warmup):
            size *= 2
        size = size if size < longest else 0
        found.setdefault((size, int(warmup).bit_length() if size and pieces else 0), []).append(i)
    out = [
        Cut(tuple(some), size, int(max(warmups[i] for i in some)) if size else 0) for (size, _), some in found.items()
    ]
    return sorted(out, key=lambda cut: -(cut.bars or longest))


def cut_series(series: Series, cut: Cut) -> Pieces:
    """Cut every series into pieces of about equal size; those without a bar have none."""
    count = -(-series.lengths // cut.bars) if cut.bars else np.minimum(series.lengths, 1)
    which = np.repeat(np.arange(count.size), count)
    number = np.arange(which.size) - np.repeat(np.cumsum(count) - count, count)
    lengths = series.lengths[which]
    size = -(-lengths // count[which])
    stored, end = number * size, np.minimum((number + 1) * size, lengths)
    before = np.maximum(stored - cut.warmup, 0)
    lane = Pieces(which, series.starts[which] + before, end - before, before, stored - before, end == lengths)
    some = end > stored  # rounding up can leave nothing for the last piece of a short series
    order = np.argsort(-lane.lengths[some], kind="stable")
    return Pieces(*(np.ascontiguousarray(each[some][order], np.int64) for each in lane))
