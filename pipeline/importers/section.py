"""What an importer is told and what it hands over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
from pydantic import field_validator

from storage.schema import ACTIONS, BARS, ENCODED, QUARANTINE, SYMBOLS, TEXT
from storage.section import Section, setting

from .files import files_digest
from .names import ROLES

GIVEN_BY_INGEST = ("source", "ingested_at")
# Texts of bars stay encoded until they are in the lake, which stores them so.
BAR_COLUMNS = pa.schema(
    [pa.field(f.name, ENCODED) if f.name in TEXT else f for f in BARS if f.name not in GIVEN_BY_INGEST]
)
QUARANTINE_COLUMNS = pa.schema([f for f in QUARANTINE if f.name not in GIVEN_BY_INGEST])
ACTION_COLUMNS = pa.schema([f for f in ACTIONS if f.name not in GIVEN_BY_INGEST])
SYMBOL_COLUMNS = pa.schema([f for f in SYMBOLS if f.name not in GIVEN_BY_INGEST])


class ImportSection(Section):
    """How files of bars are to be understood."""

    market: Literal["KRX", "other"] = setting(
        "KRX", "KRX: codes, calendar and closing times of the Korea Exchange; other: none of these"
    )
    venue: str = setting("KRX", "venue written with each bar", min_length=1)
    interval: str = setting(
        "",
        "length of a bar; empty = from the stamps (a date without a time of day is 1d)",
        pattern=r"^([1-9]\d*(m|h)|1d|1w|1mo)?$",
    )
    stamps: Literal["end", "start", "last"] = setting(
        "end",
        "what a stamp names: the end of its bar, its start, or its last moment (23:59:59.999 ends at midnight)",
    )
    timezone: str = setting("Asia/Seoul", "zone of stamps that carry none", min_length=1)
    date_format: str = setting("", "strptime pattern of dates whose spelling is not recognised, such as %d/%m/%Y")
    columns: dict[str, str] = setting(
        dict,
        "names in the files by role (date, time, code, open, high, low, close, volume, turnover, change, source, name, "
        "market, section, sector, shares); goes before the table of known names",
    )
    header: tuple[str, ...] = setting(
        (), "roles of the columns of files without a header, in order; '' = not read; empty = by their number"
    )
    file_name: str = setting(
        "",
        "regular expression for file names without their ending, with the groups symbol and, where names tell it, "
        "interval; empty = the names that are known",
    )
    price_scale: dict[str, float] = setting(
        dict,
        "prices in the files are this many times the real ones and are divided by it, by symbol; '*' = every other "
        "symbol",
    )
    markets: tuple[str, ...] = setting(
        (),
        "markets to read where the files have a column of them (KOSDAQ includes KOSDAQ GLOBAL); empty = all",
    )
    complete: bool = setting(
        False,
        "the files hold every listed symbol on every day: one that begins later or ends earlier than they do was "
        "listed or delisted then",
    )
    basis: str = setting("", "value of the files' column 'source' to read, where it names several adjustment bases")
    join_folders: bool = setting(
        False, "read folders that hold the same symbols as one source; only if they share one adjustment basis"
    )
    listing: str = setting(
        "",
        "file with code, name, market and sector of the symbols; empty = what the data files say",
        unit="path",
        runtime=True,
    )

    @field_validator("columns", "header")
    @classmethod
    def _roles(cls, value: Mapping[str, str] | tuple[str, ...]) -> Mapping[str, str] | tuple[str, ...]:
        unknown = sorted({*value} - {*ROLES, ""})
        if unknown:
            raise ValueError(f"expected roles of {', '.join(ROLES)}, got {', '.join(unknown)}")
        return value

    @field_validator("file_name")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"expected a regular expression, got {value!r}: {error}") from error
        if value and "symbol" not in groups:
            raise ValueError(f"expected a group (?P<symbol>…), got {value!r}; add it")
        return value

    @field_validator("price_scale")
    @classmethod
    def _scale(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        wrong = {symbol: scale for symbol, scale in value.items() if not (math.isfinite(scale) and scale > 0)}
        if wrong:
            raise ValueError(f"expected positive numbers, got {wrong}; correct them")
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"expected the name of a time zone such as Asia/Seoul or UTC, got {value!r}") from error
        return value

    def keyed(self) -> dict[str, Any]:
        """Return what the bars depend on; of the listing its content, not its place."""
        out = super().keyed()
        return {**out, "listing_digest": files_digest(self.listing)} if self.listing else out


@dataclass(frozen=True)
class Loaded:
    """Hold one batch of files: checked bars of one interval, sorted by (symbol, ts), and what was wrong with others.

    bars : BARS without source and ingested_at; open/high/low/volume NaN where the files have none, turnover
        null.
    quarantined : QUARANTINE without source and ingested_at.
    symbols : SYMBOLS without source and ingested_at, or None; an index has kind "index" and is no stock to trade. A
        row for each day on which what the files say about a symbol changed, and one for its last bar.
    actions : ACTIONS without source and ingested_at: where the base price (close - change) leaves the previous close;
        None where the files tell no base price.
    close_only : True when no bar of the batch has an open, high or low.
    counts : files and rows read; rows dropped without being wrong (blank, duplicate: identical to another one,
        other_market); rows against the order of their file (unsorted), files that begin with the last bar
        (newest_first), codes that had lost their leading zeros (padded), rows of an index without decimals
        (whole_points), changes from the day before that could not be used (changes_not_used).
    """

    bars: pa.Table
    quarantined: pa.Table
    symbols: pa.Table | None
    market: Literal["KRX", "other"]
    close_only: bool
    interval: str
    counts: dict[str, int] = field(default_factory=dict)
    actions: pa.Table | None = None
