"""A feature set as a function of bars alone: columns of the bars and of coarser ones, members of the universe, and
columns that operators make among these.

Everything is made inside the function and of the bars that it is given, by the same code as in the features stage, so
that whatever is done to the bars reaches all of it. Shapes: N rows of bars, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import Backend as Device
from storage.lake import framed
from storage.schema import SYMBOLS

from ..actions import adjust
from ..features.moments import among
from ..features.section import stored
from ..features.seen import Seen, seen
from ..features.targets import DAY_US, KST_US, judged_of, size_of
from ..indicators import Column, parts_of
from ..indicators.frame import names_of, on_host, places_of, series_of, stamps
from ..indicators.timeframes import View, as_of, values_at
from ..receipt import Receipt
from ..resample import MINUTES
from ..universe import UniverseSection
from .bars import BASIS, ISSUE, actions_of, coarser
from .case import Longs

MEMBER = "member"


@dataclass(frozen=True)
class Known:
    """What is known besides the bars.

    interval, venue : of the bars. since : the first day that was asked for. receipt : tells which bars stand for a
    halt, none = no bar does. facts : SYMBOLS rows. universe : who belongs to it, none = nobody is judged and no column
    may have operators. stored : type of the columns that operators see.
    """

    interval: str = "1d"
    venue: str = "KRX"
    since: date | None = None
    receipt: Receipt | None = None
    facts: pa.Table = field(default_factory=SYMBOLS.empty_table)
    universe: UniverseSection | None = None
    stored: str = "float64"


class Features:
    """Make the columns of a set, those that operators are applied to, and `member` (1 or 0) of raw bars with their
    basis.
    """

    def __init__(self, columns: Sequence[Column], known: Known) -> None:
        self.columns, self.known = tuple(columns), known
        self.sources = stored(columns)
        self.crossed = tuple(c for c in columns if c.cross)
        self.parts = parts_of(self.sources)
        self.names = [c.name for c in (*self.sources, *self.crossed)] + [MEMBER] * (known.universe is not None)

    def __call__(
        self, bars: pd.DataFrame, *, dtype: Any = np.float64, threads: int = 1, backend: Device = "pandas"
    ) -> pd.DataFrame:
        """Return a row for each bar, as `dtype`. Raises what the parts of the features stage raise."""
        actions = actions_of(bars)
        views = self.views(bars, actions, backend)
        make = partial(values_at, self.sources, self.parts, views, threads=threads)
        values = on_host(make(dtype)[0])
        found: dict[str, Any] = {c.name: row for c, row in zip(self.sources, values)}
        if self.known.universe is not None:
            finer = np.dtype(self.known.stored).itemsize > np.dtype(dtype).itemsize
            seen_CN = (on_host(make(self.known.stored)[0]) if finer else values).astype(self.known.stored)
            found |= self._among(bars, actions, {c.name: row for c, row in zip(self.sources, seen_CN)})
        return pd.DataFrame({name: np.asarray(found[name]).astype(dtype) for name in self.names}, index=bars.index)

    def views(self, bars: pd.DataFrame, actions: pa.Table, backend: Device = "pandas") -> dict[str, View]:
        """Return the bars of each interval as the kernels see them."""
        frames = {at: self.coarse(bars, at, actions) if at else self.raw(bars) for at in ("", *self.parts)}
        if backend != "pandas":
            frames = {at: framed(pa.Table.from_pandas(f, preserve_index=False), backend) for at, f in frames.items()}
        names = names_of(frames[""], series_of(frames[""]))
        gated = {at: self.look(frame, at, actions).gated for at, frame in frames.items()}
        return {at: View(frame, places_of(frame, names)) for at, frame in gated.items()}

    def coarse(self, bars: pd.DataFrame, at: str, actions: pa.Table, until: datetime | None = None) -> pd.DataFrame:
        """Return the complete coarser bars that raw bars make up, see `coarser`."""
        known, wanted = self.known, self.parts[at].reads
        return coarser(
            bars, at, actions, interval=known.interval, venue=known.venue, since=known.since, until=until, wanted=wanted
        )

    @staticmethod
    def raw(bars: pd.DataFrame) -> pd.DataFrame:
        return bars.drop(columns=[name for name in (BASIS, ISSUE) if name in bars.columns])

    def look(self, frame: Any, at: str, actions: pa.Table) -> Seen:
        """Look at raw bars as the features stage does: adjusted, and without those that stand for a halt."""
        if self.known.receipt is not None:
            wanted = self.parts[at].reads if at in self.parts else ("close",)
            return seen(frame, self.known.receipt, actions, wanted, at or self.known.interval)
        adjusted, series = adjust(frame, actions), series_of(frame)
        return Seen(frame, adjusted, adjusted, np.zeros(len(frame), bool), series, names_of(frame, series))

    def _among(self, bars: pd.DataFrame, actions: pa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
        """Judge who belongs, and apply the operators among these; values : the sources by name, as they are stored."""
        universe, interval = self.known.universe, self.known.interval
        assert universe is not None
        base = self.look(self.raw(bars), "", actions)
        ts = stamps(base.raw)
        issues = bars[ISSUE] if ISSUE in bars.columns else bars["symbol"]
        named = replace(base, names=[str(name) for name in issues.iloc[base.series.starts]])
        facts = told_by(self.known.facts, (int(ts.max(initial=0)) + KST_US - 1) // DAY_US)
        judged = judged_of(named, facts, interval, universe)
        beside: dict[str, Any] = {"member": judged.member, "turnover": judged.turnover}
        if any(operator.by for column in self.crossed for operator in column.cross):
            found = size_of(named, facts, intraday=interval in MINUTES)
            beside["sector"] = found["sector"].dictionary_encode().indices.fill_null(-1).to_numpy()
            beside["size"] = found["size"].to_numpy(zero_copy_only=False)
        symbol = np.repeat(np.arange(base.series.lengths.size), base.series.lengths)
        decided = among(self.crossed, ts, symbol, values, beside, universe.largest)
        return {MEMBER: beside["member"], **decided}

    def counted(self, at: str, inputs: tuple[str, ...], bars: pd.DataFrame) -> Longs:
        """Return how many bars of `at` each row of the bars brings, (N,): of all, or where `inputs` are named only of
        those on which one of them changed from the bar before.
        """
        views = self.views(bars, actions_of(bars))
        view, fine = views[at], views[""]
        reads = [name for name in self.parts[at].reads if name in view.bars.columns]
        x_RN = view.bars[reads].to_numpy(np.float64, na_value=np.nan).T
        rows = np.flatnonzero(np.isfinite(x_RN).all(axis=0))
        units = np.zeros(len(view.bars), np.int64)
        units[rows] = 1
        if inputs and rows.size:
            owner = view.bars["symbol"].factorize()[0][rows]
            some = x_RN[[reads.index(name) for name in inputs]][:, rows]
            moved = (some[:, 1:] != some[:, :-1]).any(axis=0) | (owner[1:] != owner[:-1])
            units[rows[1:]] = moved
        if not at:
            return units
        total = np.concatenate([[0], np.cumsum(units)])
        before = total[view.series.starts]
        seen_N = as_of(stamps(fine.bars), fine.series, stamps(view.bars), view.series, total[None, 1:], before[None])[0]
        out = np.diff(seen_N[0], prepend=0)
        begins = fine.series.starts
        out[begins] = seen_N[0, begins] - before
        return np.asarray(out, np.int64)


def told_by(facts: pa.Table, day: int) -> pa.Table:
    """Return facts as far as they were known on a day, days since 1970.

    Of what is told later only that stays which the universe lets reach back, because it hardly changes: kind, name,
    market, sector and the day of the listing.
    """
    limit = pa.scalar(int(day), pa.int32()).cast(pa.date32())

    def without(name: str, where: Any) -> pa.ChunkedArray:
        return pc.if_else(pc.fill_null(where, False), pa.scalar(None, facts.schema.field(name).type), facts[name])

    later = pc.greater(facts["as_of"], limit)
    blank = {"administrative": later, "shares": later, "delisted": pc.greater(facts["delisted"], limit)}
    out = facts
    for name in (name for name in blank if name in facts.column_names):
        place = out.schema.get_field_index(name)
        out = out.set_column(place, facts.schema.field(name), without(name, blank[name]))
    return out
