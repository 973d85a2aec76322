"""Twin of pipeline/indicators/session.py."""

from __future__ import annotations

import numpy as np

from .windows import Bars, Outputs


def session(bars: Bars, n: float) -> Outputs:
    rows = []
    for t, day in enumerate(bars["day"]):
        today = np.flatnonzero(bars["day"][: t + 1] == day)
        first = today[: int(n)]
        rows.append(
            (
                bars["open"][today[0]],
                max(bars["high"][today]),
                min(bars["low"][today]),
                max(bars["high"][first]),
                min(bars["low"][first]),
            )
        )
    names = ("session_open", "session_high", "session_low", "opening_high", "opening_low")
    return dict(zip(names, np.array(rows).T))
