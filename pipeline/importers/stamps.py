"""From what is written about a bar's time to the moment at which it ended, and to the length of the bars of a file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import krx

from .cells import NO_ZONE, Bools, Longs, Stamps
from .section import ImportSection

Ints = npt.NDArray[np.int32]
KST, KST_US = "Asia/Seoul", 9 * 3_600_000_000  # without daylight saving time since 1988-10
MINUTE_US = 60_000_000


def intervals(file: Ints, wall: Stamps, timed: Bools, section: ImportSection) -> dict[str, Ints]:
    """Return interval -> files: what the section says or what the stamps of each file show; "" where they show nothing.

    The interval of a file is the most frequent step between its distinct stamps, in whole minutes.
    """
    if section.interval or not timed.any():
        return {section.interval or "1d": numbers_of(file)}
    order = np.argsort(file, kind="stable")
    files, first = np.unique(file[order], return_index=True)
    out: dict[str, list[int]] = {}
    for number, mine in zip(files.tolist(), np.split(order, first[1:])):
        stamps = wall[mine]
        steps = np.diff(np.unique(stamps[~np.isnat(stamps)].astype(np.int64)))
        name = "1d"
        if timed[mine].any():
            sizes, counts = np.unique(steps, return_counts=True)
            name = _named(int(sizes[counts.argmax()])) if len(steps) else ""
        out.setdefault(name, []).append(number)
    return {name: np.array(found, np.int32) for name, found in out.items()}


def ends(wall: Stamps, offset: Longs, interval: str, section: ImportSection) -> Longs:
    """Return the end of each bar in microseconds UTC; a row without a stamp gets 0.

    A daily KRX bar ends at its session's scheduled close, another daily bar at the midnight that ends its day in the
    section's zone. An intraday stamp is the end, the start or the last moment, as the section says; stamps of weeks and
    months elsewhere than at the KRX are their first or their last day in the same way.
    """
    known = offset != NO_ZONE
    wall = np.where(np.isnat(wall), np.datetime64(0, "us"), wall)
    zone = KST if section.market == "KRX" and interval[-1] not in "mh" else section.timezone
    if interval in ("1d", "1w", "1mo"):
        if known.any():
            wall = np.where(known, _local(wall.astype(np.int64) - np.where(known, offset, 0), zone), wall)
        day = wall.astype("datetime64[D]")
        if section.market != "KRX" and section.stamps == "start":
            day = _last_day(day, interval)
        days = np.arange(day.min(), day.max() + 1) if len(day) else day
        place = (day - days[:1]).astype(np.int64)
        closes: Longs = krx.session_closes(days).astype(np.int64) if section.market == "KRX" else _utc(days + 1, zone)
        out: Longs = closes[place]
        return out
    utc = np.where(known, wall.astype(np.int64) - np.where(known, offset, 0), 0)
    if not known.all():
        utc = np.where(known, utc, _utc(wall, zone))
    if section.stamps == "last":
        return -(-utc // MINUTE_US) * MINUTE_US
    return utc + (length_us(interval) if section.stamps == "start" else 0)


def day_of(ts: Longs, section: ImportSection) -> npt.NDArray[np.datetime64]:
    """Return the day that each bar ends, in the market's zone; midnight ends the day before."""
    local = _local(ts, KST if section.market == "KRX" else section.timezone)
    out: npt.NDArray[np.datetime64] = (local - np.timedelta64(1, "us")).astype("datetime64[D]")
    return out


def numbers_of(file: Ints) -> Ints:
    """Return the distinct numbers of files, ascending."""
    out: Ints = np.flatnonzero(np.bincount(file)).astype(np.int32)
    return out


def length_us(interval: str) -> int:
    """Return the length of an interval of minutes or hours, microseconds."""
    return int(interval[:-1]) * (1 if interval[-1] == "m" else 60) * MINUTE_US


def _named(step_us: int) -> str:
    minutes, rest = divmod(step_us, MINUTE_US)
    if minutes >= 1440:
        return "1d"
    if rest or minutes == 0:
        return ""
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def _last_day(first: npt.NDArray[np.datetime64], interval: str) -> npt.NDArray[np.datetime64]:
    """Return the last day of the bar of a day, week or month that begins on the day `first`."""
    if interval == "1mo":
        out: npt.NDArray[np.datetime64] = (first.astype("datetime64[M]") + 1).astype("datetime64[D]") - 1
        return out
    return first + (6 if interval == "1w" else 0)


def _utc(wall: Stamps, zone: str) -> Longs:
    """Convert local times; one that a change of clocks doubles is taken as the earlier, one that it skips as the moment
    of the change.
    """
    if zone == KST:
        return wall.astype("datetime64[us]").astype(np.int64) - KST_US
    local = pa.array(wall.astype("datetime64[us]"))
    found = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest")
    out: Longs = found.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return out


def _local(utc_us: Longs, zone: str) -> Stamps:
    if zone == KST:  # needs no zone files
        return (utc_us + KST_US).astype("datetime64[us]")
    moments = pa.array(utc_us, pa.int64()).cast(pa.timestamp("us", tz=zone))
    out: Stamps = pc.local_timestamp(moments).to_numpy(zero_copy_only=False).astype("datetime64[us]")
    return out
