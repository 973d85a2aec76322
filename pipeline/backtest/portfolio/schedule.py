"""When a portfolio is decided: every n sessions, or at the last session of a week, month or quarter; and which sessions
bars belong to.

The ends of periods come from the venue's calendar, not from the bars: whether a session is the last of its month is
known on its day. Shapes: T sessions, S symbols.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import venues

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.datetime64]

LONGEST_BREAK = 40  # days without a session that no venue reaches
PERIODS: dict[str, Callable[[Days], npt.NDArray[np.int64]]] = {
    "weekly": lambda days: (days.astype(np.int64) + 3) // 7,  # 1970-01-01 was a Thursday; weeks begin on Monday
    "monthly": lambda days: days.astype("datetime64[M]").astype(np.int64),
    "quarterly": lambda days: days.astype("datetime64[M]").astype(np.int64) // 3,
}


def sessions_of(ts: pa.ChunkedArray) -> tuple[Days, npt.NDArray[np.intp]]:
    """Return the distinct times of bars, (T,) datetime64[us] UTC in order, and which of them each bar has, (N,)."""
    found = ts.combine_chunks().dictionary_encode()  # several times faster than to sort all of them
    times = found.dictionary.to_numpy().astype("datetime64[us]")
    order = np.argsort(times)
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    return times[order], place[found.indices.to_numpy()]


def due(rebalance: int | str, ts_T: Days, venue: str) -> Bools:
    """Return the sessions on which a decision is due, (T,).

    rebalance : a number of sessions, counted from the first, or a name of PERIODS; ts_T : closes, datetime64[us] UTC.
    """
    if isinstance(rebalance, int):
        return np.asarray(np.arange(len(ts_T)) % rebalance == 0)
    days = (ts_T - np.timedelta64(1, "us") + venues.zone(venue)).astype("datetime64[D]")  # midnight ends a day
    ahead = np.arange(days[0], days[-1] + LONGEST_BREAK)
    ahead = ahead[venues.is_session(venue, ahead)]
    after = np.searchsorted(ahead, days, side="right")
    known = after < len(ahead)  # not where the calendar ends
    period = PERIODS[rebalance]
    ends: Bools = known & (period(days) != period(ahead[np.minimum(after, len(ahead) - 1)]))
    return ends


def decisions(score_TS: Floats, due_T: Bools) -> Bools:
    """Return the sessions that end with a decision: those due, unless there is no score or no session follows."""
    out: Bools = due_T & np.isfinite(score_TS).any(axis=1)
    out[-1:] = False
    return out
