"""What may be asked of ingest, and what is refused before anything is started."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
from pydantic import ValidationInfo, field_validator

from storage.section import Section, setting

from . import krx
from .importers import ImportSection, files_digest
from .kis.layouts import MINUTES_PAST
from .kis.section import KisSection
from .kis.wire import day_ends

READ_WITH_FILES = ("source", "symbols", "start", "end", "files")  # the other settings are the broker's
KINDS = "stock, preferred, etf, etn, reit, spac, fund, dr, elw"


class RequestError(Exception):
    """A request that cannot be met; the message says expected, got, where, what to do."""


def _yesterday_or_today() -> date:
    return krx.last_closed_session(datetime.now(UTC))


class IngestSection(Section):
    """What to fetch from the broker, or which files to read instead."""

    path: str = setting("", "folder, file or archive to read instead of asking the broker", unit="path", runtime=True)
    source: str = setting("", "name of the rows in the lake; empty = from broker or files", pattern=r"^[\w.-]{0,60}$")
    symbols: tuple[str, ...] = setting(
        (), "codes to take, quoted; empty = `count` of the broker's, or all in the files"
    )
    count: int = setting(100, "how many of the broker's symbols to take", unit="symbols", ge=1, le=20_000)
    order: Literal["code", "market_cap"] = setting(
        "code", "which come first; market_cap is today's and so a choice that looks ahead"
    )
    kinds: tuple[str, ...] = setting(("stock",), f"kinds of issues to take: {KINDS}", min_length=1)
    markets: tuple[Literal["KOSPI", "KOSDAQ"], ...] = setting(("KOSPI", "KOSDAQ"), "lists to read", min_length=1)
    also: tuple[str, ...] = setting(
        (), "delisted codes, quoted, to have in the list; the broker's names only the living"
    )
    start: date | None = setting(None, "first day, KST; empty = `years` before `end`, or the files' first")
    years: int = setting(5, "length of the history from the broker when `start` is empty", unit="years", ge=1, le=50)
    end: date = setting(
        _yesterday_or_today, "last day, KST; `today` = the last session that has closed, or all that the files have"
    )
    daily: bool = setting(True, "fetch daily bars")
    minute_symbols: int = setting(10, "symbols, the largest, to fetch minute bars of", unit="symbols", ge=0, le=5000)
    minute_days: int = setting(
        20, "days of minute bars, up to `end`; the broker keeps a year", unit="sessions", ge=1, le=250
    )
    weekly: bool = setting(False, "fetch the broker's own weekly bars; without them weeks are made of days")
    indices: tuple[str, ...] = setting(
        ("0001", "1001"), "indices to fetch daily, quoted: 0001 KOSPI, 1001 KOSDAQ, 2001 KOSPI 200"
    )
    investors: bool = setting(False, "fetch who bought and sold; paper has the latest 30 sessions only")
    holidays: bool = setting(True, "ask the broker once a day on which days the market opens, where it can say so")
    since: Literal["", "last"] = setting(
        "", "last = of each symbol only what came after its last session in the lake; empty = holes before it, too"
    )
    rewritten: Literal["keep", "take"] = setting(
        "keep", "history that the broker has rewritten: keep ours and report it, or take the broker's whole history"
    )
    archive: bool = setting(True, "keep the broker's answers, compressed, to make bars of them again", runtime=True)
    venue: Literal["KRX", "NXT", "UN"] = setting("KRX", "exchange whose bars are fetched; UN = both as one")
    chunk_size: int = setting(200_000, "rows a commit to the lake", unit="rows", ge=1, runtime=True)
    files: ImportSection = setting(ImportSection, "how files are to be understood")

    @field_validator("symbols", "also", "indices", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        """Refuse codes that YAML has read as numbers: 000270 without quotes is 184."""
        if any(isinstance(code, int) for code in value):
            raise ValueError("expected codes in quotes, such as '005930': YAML reads them as numbers otherwise")
        return value

    @field_validator("indices")
    @classmethod
    def _codes_of_indices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for code in value:
            if not re.fullmatch(r"\d{4}", code):
                raise ValueError(f"expected codes of four digits such as '0001', got {code!r}; for none write []")
        return value

    @field_validator("end")
    @classmethod
    def _all_of_the_files(cls, value: date, info: ValidationInfo) -> date:
        """Settle `today` of files as no end at all, so that the same files are the same request tomorrow."""
        return date.max if info.data.get("path") and value >= _yesterday_or_today() else value

    def keyed(self) -> dict[str, Any]:
        """Return what the result depends on; of files that is their content and not their place."""
        out = super().keyed()
        if not self.path:
            return out
        return {**{name: out[name] for name in READ_WITH_FILES}, "content": files_digest(self.path)}

    @property
    def first(self) -> date:
        """First day to ask the broker for."""
        if self.start is not None:
            return self.start
        after = self.end + timedelta(days=1)
        return after.replace(year=after.year - self.years, day=min(after.day, 28) if after.month == 2 else after.day)


def check_broker(kis: KisSection, ingest: IngestSection) -> None:
    """Refuse what the broker cannot give. Raises RequestError."""
    if ingest.first > ingest.end:
        raise RequestError(
            f"expected ingest.start on or before ingest.end, got {ingest.first} and {ingest.end}; exchange them"
        )
    if kis.environment != "simulator":
        check_closed(kis, ingest, datetime.now(UTC))
    if ingest.investors and ingest.venue != "KRX":
        raise RequestError(
            f"expected ingest.venue KRX with ingest.investors, got {ingest.venue}; the lake keeps those of KRX alone"
        )
    if not krx.sessions(ingest.first, ingest.end).size:
        raise RequestError(
            f"expected sessions of the exchange in ingest.start..ingest.end, got none in {ingest.first}..{ingest.end}"
        )
    if not ingest.daily and not ingest.minute_symbols and not ingest.weekly:
        raise RequestError("expected ingest.daily or ingest.minute_symbols, got neither; there is nothing to fetch")
    if kis.environment == "paper" and ingest.minute_symbols and ingest.minute_days > 1 and not MINUTES_PAST.paper:
        raise RequestError(
            f"expected ingest.minute_symbols 0 or ingest.minute_days 1 in the paper environment, got "
            f"{ingest.minute_symbols} and {ingest.minute_days}: paper has no minute bars of days before today; "
            "change them or use --kis.environment live"
        )


def check_closed(kis: KisSection, ingest: IngestSection, now: datetime) -> None:
    """Refuse days that are not over at `now`, the broker's time: their bars would change. Raises RequestError.

    A day of NXT, and of both venues as one, ends with the evening's trade; one of KRX where kis.day_ends says so.
    """
    last = krx.last_closed_session(now)
    (ends,) = day_ends(np.array([last], "datetime64[D]"), ingest.venue, evening=kis.day_ends == "evening").to_pylist()
    if ends > now:
        last = krx.previous_session(last)
    if krx.sessions(last, ingest.end).size > 1:
        raise RequestError(
            f"expected ingest.end not after {last}, the last session of {ingest.venue} that is over, got {ingest.end}; "
            f"use --ingest.end {last}, or wait until the later one is over"
        )
