"""The raw bars of one group as its columns read them, and the names that tell whether they are the same as before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import KEYS as TABLE_KEYS
from storage.schema import content_digest
from storage.section import digest_of

from .. import krx
from ..labels import LabelSection
from ..receipt import Receipt
from ..tradable import volume_since
from ..universe import UniverseSection
from .periods import Period, clock, periods, whole
from .section import FeatureSection
from .seen import sound

KEYS = ("symbol", "ts")


class Reader:
    """Read the bars of some symbols period by period.

    wanted : what the columns of each interval read, first '' = the bars that they stand on. broken, seconds : what was
    found wrong with symbols, and how long reading took, so far.
    """

    def __init__(
        self,
        receipt: Receipt,
        section: FeatureSection,
        labels: LabelSection,
        universe: UniverseSection,
        symbols: Sequence[str],
        wanted: Mapping[str, Sequence[str]],
    ) -> None:
        self.receipt, self.section, self.symbols = receipt, section, list(symbols)
        self.wanted = wanted
        self.actions = receipt.actions()
        self._beside: tuple[str, ...] = () if receipt.close_only else labels.reads
        if universe.min_turnover or universe.largest:
            self._beside += ("turnover",)
        self.broken: dict[str, str] = {}
        self.seconds = 0.0

    def spans(self) -> list[Period]:
        """Return the periods of which the lake holds bars, oldest first; one for a level that keeps no state."""
        receipt, interval = self.receipt, self.section.interval
        held = receipt.opened.periods(interval if interval in receipt.intervals else receipt.finer(interval))
        found = periods(interval, receipt.start, receipt.end)
        found = [span for span in found if any(name.startswith(span.name) for name in held)]
        return found if self.section.made_by == "kernels" else whole(found)

    def read(self, period: Period) -> dict[str, pa.Table]:
        """Return the raw bars of a period by interval, '' = those that the columns stand on."""
        begin = time.perf_counter()
        receipt, out = self.receipt, {}
        for at in self.wanted:
            names = set(self.wanted[at]) - {"day", "market"} | {"volume"}
            if not at:
                names |= {"close"} | (set() if receipt.close_only else {"open"})
                names |= set(self._beside)
            table, broken = sound(self._bars(at, period, self.symbols, [*KEYS, *sorted(names)]))
            self.broken |= broken
            out[at] = self._with_market(table, at, period) if "market" in self.wanted[at] else table
            if not out[""].num_rows:
                break
        self.seconds += time.perf_counter() - begin
        return out

    def identity(self, bars: dict[str, pa.Table]) -> str:
        """Name the rows of a period: what the source said, and the actions and halts that change how it is seen."""
        return digest_of(
            {
                "rows": {at: content_digest(self._of_kernels(at, table)) for at, table in bars.items()},
                "actions": content_digest(self._actions_until(_last(bars.values())), TABLE_KEYS["actions"]),
                "halts": {at: self._halts(at, table) for at, table in bars.items()},
            }
        )

    def _bars(self, at: str, period: Period, symbols: list[str], columns: list[str]) -> pa.Table:
        interval = at or self.section.interval
        until = min(period.end, clock(self.receipt, interval))
        start = period.since if at else period.start
        return self.receipt.bars(interval, symbols=symbols, columns=columns, start=start, end=period.end, until=until)

    def _with_market(self, table: pa.Table, at: str, period: Period) -> pa.Table:
        """Put the close of the market's index beside each bar of the same end; null where it has none."""
        found = self._bars(at, period, [self.section.index(self.receipt)], ["ts", "close"])
        place = pc.index_in(table["ts"], found["ts"].combine_chunks())
        return table.append_column("market", found["close"].combine_chunks().take(place))

    def _of_kernels(self, at: str, table: pa.Table) -> pa.Table:
        """Leave out what only the universe and the labels read."""
        other = [name for name in self._beside if name in table.column_names and name not in self.wanted[at]]
        return table.drop_columns(other) if other else table

    def _actions_until(self, last: int) -> pa.Table:
        day = datetime.fromtimestamp(last / 1e6, krx.KST).date()
        mine = pc.is_in(pc.field("symbol"), pa.array(self.symbols))
        return self.actions.filter(mine & (pc.field("ex_date") <= day))

    def _halts(self, at: str, table: pa.Table) -> int | None:
        """Return from when on a volume of zero means a halt, as far as it matters for these bars."""
        if not pc.any(pc.equal(table["volume"], 0.0)).as_py():
            return None
        return min(volume_since(self.receipt, at or self.section.interval), _last([table]) + 1)


def _last(tables: Iterable[pa.Table]) -> int:
    """Return the latest end of a bar, microseconds UTC; 0 without any."""
    return max(pc.max(table["ts"]).cast(pa.int64()).as_py() or 0 for table in tables)
