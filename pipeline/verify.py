"""The lake against the calendar: of each symbol and day whether there are bars, rightly none, or none that should be.

Read from the lake alone; nothing is asked of the broker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import Lake

from . import krx
from .coverage import Coverage, by_symbol, days_of
from .days import week_ends
from .kis.columns import Days
from .kis.history import torn_days

KINDS = {"1d": "daily", "1w": "weekly", "1m": "minute"}
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Checked:
    """Hold what was found for one interval of one source. Counts are days (weeks) of symbols.

    present : with a trade. empty : a bar without a trade (a halt), or none at all where the source was asked and had
    none. missing : neither; `gaps` names them by symbol. partial : days of minutes out of which some are gone, since
    the turnover of a minute is more than its prices and shares allow; `holes` names them.
    """

    interval: str
    symbols: int
    expected: int
    present: int
    empty: int
    missing: int
    partial: int
    gaps: dict[str, Days] = field(repr=False)
    holes: dict[str, Days] = field(repr=False)

    @property
    def clean(self) -> bool:
        return not self.missing and not self.partial

    @property
    def lacking(self) -> dict[str, Days]:
        """Gaps and holes together."""
        none = np.array([], "datetime64[D]")
        names = sorted({**self.gaps, **self.holes})
        return {name: np.union1d(self.gaps.get(name, none), self.holes.get(name, none)) for name in names}

    def __str__(self) -> str:
        """Say it in one line."""
        lacking = self.lacking
        worst = sorted(lacking, key=lambda s: -len(lacking[s]))[:5]
        named = ", ".join(f"{s} {len(lacking[s])} from {lacking[s][0]}" for s in worst)
        return (
            f"{self.interval}: {self.symbols} symbols, {self.expected} days: {self.present} present, {self.empty} "
            f"without trade, {self.missing} missing, {self.partial} partial" + (f" ({named})" if named else "")
        )


def verify(lake: Lake, *, source: str, venue: str, start: date, end: date) -> Iterator[Checked]:
    """Check every interval that the source was ever asked for, on the sessions of start..end. Raises LakeError."""
    coverage = Coverage(lake, source, venue)
    lost = coverage.lost()
    closed = lake.read("sessions", columns=["date", "open"], venue=venue, source=source)
    shut = closed.filter(pc.invert(closed["open"]))["date"].to_numpy().astype("datetime64[D]")
    sessions = krx.sessions(max(np.datetime64(start, "D"), krx.FIRST), min(np.datetime64(end, "D"), krx.LAST))
    sessions = sessions[~np.isin(sessions, shut)]
    listed = _listed(lake, source)
    traded: dict[str, Days] = {}
    for interval in KINDS:
        symbols = coverage.symbols(interval)
        if symbols and sessions.size:
            doubtful = {symbol for kind, symbol in lost if kind == interval}
            yield _one(
                lake, coverage, interval, symbols, sessions, listed, traded, doubtful, source=source, venue=venue
            )
    if coverage.symbols("flows"):
        yield _flows(lake, coverage, sessions, source)


def _one(
    lake: Lake,
    coverage: Coverage,
    interval: str,
    symbols: list[str],
    sessions: Days,
    listed: dict[str, tuple[date | None, date | None]],
    traded: dict[str, Days],
    doubtful: set[str],
    *,
    source: str,
    venue: str,
) -> Checked:
    found = by_symbol(
        lake.read(
            "bars",
            columns=["symbol", "ts", "open", "high", "volume", "turnover"],
            symbols=symbols,
            start=datetime.combine(sessions[0].item(), datetime.min.time(), krx.KST),
            end=datetime.combine(sessions[-1].item(), datetime.max.time(), krx.KST),
            source=source,
            venue=venue,
            interval=interval,
        )
    )
    total = dict.fromkeys(("expected", "present", "empty", "missing", "partial"), 0)
    gaps: dict[str, Days] = {}
    holes: dict[str, Days] = {}
    for symbol in symbols:
        days = _expected(interval, symbol, sessions, listed, coverage)
        rows = found.get(symbol)
        own, trades = _days_of(rows)
        if interval == "1d":
            traded[symbol] = own[trades]
        with_trade, with_row = np.isin(days, own[trades]), np.isin(days, own)
        idle = with_row  # what was answered without a row cannot be told from what was lost where rows are lost
        if symbol not in doubtful:
            idle = idle | coverage.covered(interval, symbol, days)
        if interval == "1m" and symbol in traded:  # a day on which the daily bar shows a trade has minutes
            idle &= ~np.isin(days, traded[symbol])
        lacking = days[~with_trade & ~idle]
        if lacking.size:
            gaps[symbol] = lacking
        broken = torn_days(rows.append_column("date", pa.array(own))) if rows and interval == "1m" else days[:0]
        if broken.size:
            holes[symbol] = broken
        total["expected"] += len(days)
        total["present"] += int(with_trade.sum())
        total["missing"] += len(lacking)
        total["empty"] += int((~with_trade & idle).sum())
        total["partial"] += len(broken)
    return Checked(interval, len(symbols), **total, gaps=gaps, holes=holes)


def _flows(lake: Lake, coverage: Coverage, sessions: Days, source: str) -> Checked:
    """Compare the flows with what was answered: the broker says nothing of some days, and only it knows which."""
    lost = {symbol: rows for (interval, symbol), rows in coverage.lost().items() if interval == "flows"}
    held = by_symbol(lake.read("flows", columns=["symbol", "ts"], symbols=coverage.symbols("flows"), source=source))
    gaps, present = {}, 0
    for symbol in coverage.symbols("flows"):
        days = coverage.days("flows", symbol)
        own = days_of(held[symbol]) if symbol in held else days[:0]
        present += int(np.isin(sessions, own).sum())
        if symbol in lost:
            gaps[symbol] = np.setdiff1d(days, own)
    missing = sum(lost.values())
    symbols = len(coverage.symbols("flows"))
    return Checked("flows", symbols, present + missing, present, 0, missing, 0, gaps=gaps, holes={})


def _expected(
    interval: str,
    symbol: str,
    sessions: Days,
    listed: dict[str, tuple[date | None, date | None]],
    coverage: Coverage,
) -> Days:
    """Return the sessions on which it was listed; of minutes, which are fetched of the largest at the time, those from
    the first to the last that were asked for."""
    first, last = listed.get(symbol, (None, None))
    days = sessions[sessions >= np.datetime64(first, "D")] if first else sessions
    days = days[days < np.datetime64(last, "D")] if last else days
    if interval == "1m":
        days = days[days >= coverage.first(interval, symbol)]
    if interval == "1w":
        ends = week_ends(days)
        days = np.unique(ends[ends <= sessions[-1]])
    return days


def _listed(lake: Lake, source: str) -> dict[str, tuple[date | None, date | None]]:
    """Return first day of listing and first day without it, as the source said last."""
    rows = lake.read("symbols", columns=["symbol", "as_of", "listed", "delisted"], source=source).to_pylist()
    return {row["symbol"]: (row["listed"], row["delisted"]) for row in rows}  # sorted by as_of: the latest wins


def _days_of(rows: pa.Table | None) -> tuple[Days, Bools]:
    """Return the KST day of each bar and whether it has a trade."""
    if rows is None:
        return np.array([], "datetime64[D]"), np.array([], bool)
    days = (rows["ts"].to_numpy() + np.timedelta64(9, "h") - np.timedelta64(1, "us")).astype("datetime64[D]")
    return days, np.asarray(rows["volume"].to_numpy()) > 0 if "volume" in rows.column_names else np.ones(
        len(days), bool
    )
