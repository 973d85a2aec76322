"""Days in a row, and the weeks that they make."""

from __future__ import annotations

import numpy as np

from . import krx
from .krx import Days


def runs(days: Days, every: Days) -> list[Days]:
    """Cut days into runs that follow one another in `every`."""
    if not days.size:
        return []
    return np.split(days, np.flatnonzero(np.diff(np.searchsorted(every, days)) > 1) + 1)


def week_ends(days: Days) -> Days:
    """Return for each day the last session of its week (Monday to Sunday), or the day itself in a week without one."""
    if not days.size:
        return days
    monday = days - (days.astype(np.int64) + 3) % 7
    every = krx.sessions(max(monday.min(), krx.FIRST), min(monday.max() + 6, krx.LAST))
    last = every[np.maximum(np.searchsorted(every, monday + 6, side="right") - 1, 0)]
    return np.where((last >= monday) & (last <= monday + 6), last, days)
