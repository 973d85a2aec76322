"""What each market code of the wire shows: which segments of the trading day, and from when to when.

J is KRX, NX is NXT, UN both as one. Whether KIS counts KRX's after-market to J is not documented: `day_ends` says it.
"""

from functools import lru_cache
from typing import Literal

import numpy as np

from pipeline import krx
from pipeline.kis.simulator.paths import CLOSES, DAYS, OPENS

DayEnds = Literal["close", "evening"]
View = str  # "J", "NX" or "UN"
REGULAR = ("regular",)
NXT = ("pre", "main", "after")
CLASSES = {"pre": 1, "regular": 2, "main": 2, "after": 3, "evening": 3}  # MARKET_CLS_CODE


def views(day_ends: DayEnds) -> dict[View, tuple[str, ...]]:
    """Return the segments of each market code: KRX's regular session and, as "evening", its after-market; NXT's
    three. KRX's come first: in a minute of both, KRX trades first and NXT last."""
    krx_whole = ("regular", "evening")
    return {"J": REGULAR if day_ends == "close" else krx_whole, "NX": NXT, "UN": (*krx_whole, *NXT)}


@lru_cache
def segments() -> dict[str, tuple[krx.Days, krx.Days]]:
    """Return (opens, closes) of every segment on all sessions of the axis, (T,) in UTC; NaT where there is none."""
    return {
        "regular": (OPENS, CLOSES),
        "evening": krx.segments("KRX", DAYS)["after"],
        **{name: hours for name, hours in krx.segments("NXT", DAYS).items() if name in NXT},
    }


@lru_cache
def hours(parts: tuple[str, ...]) -> tuple[krx.Days, krx.Days]:
    """Return when the first of some segments opens and the last closes on all sessions, (T,) in UTC; the regular
    session's hours where there are none of them."""
    known = [segments()[name] for name in parts]
    opens, closes = (np.fmin.reduce([pair[0] for pair in known]), np.fmax.reduce([pair[1] for pair in known]))
    return np.where(np.isnat(opens), OPENS, opens), np.where(np.isnat(closes), CLOSES, closes)


def starts(name: str, place: int) -> krx.Days:
    """Return the starts of a segment's minutes on a session, (M,) in UTC; the closing auction's is its own. NXT's main
    market begins 30 s into its first."""
    opening, close = (side[place] for side in segments()[name])
    if np.isnat(opening):
        return np.empty(0, "datetime64[us]")
    minute = np.timedelta64(1, "m")
    if name == "regular":
        return np.append(np.arange(opening, close - krx.AUCTION, minute), close)
    return np.arange(opening.astype("datetime64[m]"), close, minute).astype("datetime64[us]")
