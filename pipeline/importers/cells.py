"""Text and typed columns become numbers and times, whole columns at once; a cell that cannot be read is marked, never
guessed.

Stamps are read once for each distinct text: a panel of a thousand symbols has a few thousand dates.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]
Stamps = npt.NDArray[np.datetime64]

MISSING = pa.array(["", "-", "--", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "none"])
GROUPED = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"

_SECOND = r"(?::?(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?"
_TIME = r"(?P<hour>\d{1,2}):?(?P<minute>\d{2})" + _SECOND + r"\s*(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?"
# 20180102, 201801020930; 2018-01-02, 2018/1/2, 2018.01.02, 2018. 1. 2., 2018년 1월 2일, with a time or not
SPELLINGS = (
    r"^\s*(?P<year>(?:19|20)\d{2})(?P<month>\d{2})(?P<day>\d{2})(?:\.0+)?(?:[T\s]*" + _TIME + r")?\s*$",
    r"^\s*(?P<year>\d{4})\s*[-/.년]\s*(?P<month>\d{1,2})\s*[-/.월]\s*(?P<day>\d{1,2})\s*[.일]?(?:[T\s]\s*"
    + _TIME
    + r")?\s*$",
)
_PYTHON_SPELLINGS = tuple(re.compile(s) for s in SPELLINGS)
EPOCH = r"^\s*(\d{10}|\d{13})\s*$"  # seconds or milliseconds since 1970, UTC
CLOCK = r"^\s*(?P<hour>\d{1,2}):?(?P<minute>\d{2})(?::?(?P<second>\d{2}))?(?:\.0+)?\s*$"
DAY_US = 86_400_000_000
NO_ZONE = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Times:
    """Hold distinct stamps: wall : datetime64[us], NaT = unreadable; offset : microseconds east of UTC, NO_ZONE = the
    text has none.
    """

    wall: Stamps
    offset: Longs

    @property
    def timed(self) -> Bools:
        """True where the stamp has a time of day other than midnight."""
        readable = ~np.isnat(self.wall)
        out: Bools = readable & ((self.wall.astype(np.int64) % DAY_US) != 0)
        return out


def numbers(column: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """Return the numbers of a column, NaN = empty cell, and where a cell is neither empty nor a finite number.

    Text may have blanks around it and thousands groups ("2,404,000"); "12,34" is no number.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_text(column)
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        return np.full(len(column), np.nan), pc.is_valid(column).to_numpy()
    return _finite(column.cast(pa.float64()))


def _from_text(column: pa.ChunkedArray) -> tuple[Floats, Bools]:
    commas = pc.match_substring(column, ",")
    grouped = pc.and_(commas, pc.match_substring_regex(column, GROUPED)) if pc.any(commas).as_py() else commas
    if pc.all(pc.equal(commas, grouped)).as_py() is not False:
        text = pc.replace_substring(column, ",", "") if pc.any(commas).as_py() else column
        with contextlib.suppress(pa.ArrowInvalid):  # the rest is for columns with other texts in them
            return _finite(pc.cast(text, pa.float64()))
    text = pc.utf8_trim_whitespace(column)
    empty = pc.or_(pc.is_in(text, value_set=MISSING), pc.is_null(text)).to_numpy()
    text = pc.if_else(pc.match_substring_regex(text, GROUPED), pc.replace_substring(text, ",", ""), text)
    good = pc.fill_null(pc.match_substring_regex(text, NUMBER), False)
    values, endless = _finite(pc.cast(pc.if_else(good, text, pa.scalar(None, text.type)), pa.float64()))
    return values, endless | ~(good.to_numpy() | empty)


def _finite(column: pa.ChunkedArray) -> tuple[Floats, Bools]:
    """Return a float64 column with NaN for what is missing or infinite, and where it is infinite."""
    values: Floats = np.asarray(column.to_numpy(), dtype=np.float64)
    endless = np.isinf(values)
    return np.where(endless, np.nan, values) if endless.any() else values, endless


def times(distinct: pa.Array, date_format: str = "") -> Times:
    """Read distinct stamps: text in several spellings, dates, timestamps, YYYYMMDD integers or epoch seconds or
    milliseconds.
    """
    kind = distinct.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        wall = distinct.cast(pa.timestamp("us", tz=kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        raw = wall.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        return Times(raw, np.full(len(raw), 0 if zoned else NO_ZONE, dtype=np.int64))
    text = distinct.cast(pa.string())
    if date_format:
        wall = pc.strptime(text, format=date_format, unit="us", error_is_null=True)
        return Times(
            wall.to_numpy(zero_copy_only=False).astype("datetime64[us]"), np.full(len(text), NO_ZONE, dtype=np.int64)
        )
    wall_us, offset = _blank(len(text))
    for spelling in SPELLINGS:
        _fill(wall_us, offset, text, spelling)
    epoch = pc.fill_null(pc.match_substring_regex(text, EPOCH), False).to_numpy(zero_copy_only=False)
    epoch &= np.isnat(wall_us)
    if epoch.any():
        ticks = pc.utf8_trim_whitespace(text.filter(pa.array(epoch))).cast(pa.int64()).to_numpy(zero_copy_only=False)
        wall_us[epoch] = (ticks * np.where(ticks >= 10**11, 1000, 1_000_000)).astype("datetime64[us]")
        offset[epoch] = 0
    return Times(wall_us, offset)


def clock(distinct: pa.Array) -> Longs:
    """Read distinct times of day (0930, 93000, 09:30:00) as microseconds after midnight; -1 = unreadable."""
    text = distinct.cast(pa.string())
    found = pc.extract_regex(text, CLOCK)
    ok = pc.is_valid(found).to_numpy(zero_copy_only=False)
    hour, minute, second = (_integers(found, name) for name in ("hour", "minute", "second"))
    ok &= (hour < 24) & (minute < 60) & (second < 60)
    return np.where(ok, ((hour * 60 + minute) * 60 + second) * 1_000_000, -1)


def looks_like_date(text: str) -> bool:
    """Say whether one cell is spelled like a date, for telling a header from data."""
    return any(p.match(text) for p in _PYTHON_SPELLINGS)


def _blank(n: int) -> tuple[Stamps, Longs]:
    return np.full(n, np.datetime64("NaT"), dtype="datetime64[us]"), np.full(n, NO_ZONE, dtype=np.int64)


def _fill(wall: Stamps, offset: Longs, text: pa.Array, spelling: str) -> None:
    """Write into `wall` and `offset` what one spelling can read and none has read before."""
    found = pc.extract_regex(text, spelling)
    ok = pc.is_valid(found).to_numpy(zero_copy_only=False) & np.isnat(wall)
    if not ok.any():
        return
    year, month, day, hour, minute, second = (
        _integers(found, name) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    ok &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (hour < 24) & (minute < 60) & (second < 60)
    month_start = np.where(ok, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    date = month_start.astype("datetime64[D]") + (day - 1)
    ok &= date.astype("datetime64[M]") == month_start  # no 31 February
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(_text(found, "fraction"), 6, "0"), 0, 6).cast(pa.int64())
    micro = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction.to_numpy(zero_copy_only=False)
    wall[ok] = (date.astype("datetime64[us]") + micro)[ok]
    zone = _text(found, "zone")
    zoned = pc.not_equal(zone, "").to_numpy(zero_copy_only=False) & ok
    if zoned.any():
        digits = pc.replace_substring_regex(pc.replace_substring_regex(zone, "[:+]", ""), r"^(Z|UTC|)$", "0")
        east = digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
        seconds = np.sign(east) * (np.abs(east) // 100 * 3600 + np.abs(east) % 100 * 60)
        offset[zoned] = (seconds * 1_000_000)[zoned]


def _text(found: Any, name: str) -> pa.Array:
    return pc.fill_null(pc.struct_field(found, name), "")


def _integers(found: Any, name: str) -> Longs:
    text = _text(found, name)
    out: Longs = pc.if_else(pc.equal(text, ""), "0", text).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return out
