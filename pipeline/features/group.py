"""One task of the graph: the blocks of one lake group, oldest first, and its targets.

No frame travels: a task reads its bars, writes its files and returns one row of summary.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import Backend, framed
from storage.merge import sorted_rows
from storage.schema import TS, content_digest
from storage.section import digest_of

from ..indicators import parts_of
from ..indicators.frame import array_of, on_host, stamps
from ..indicators.timeframes import View, values_at
from ..labels import LabelSection
from ..provenance import code_digest, versions
from ..receipt import Receipt
from ..recurrence import arrays
from ..universe import UniverseSection
from .bars import KEYS, Reader
from .facts import added, blank, counted, joined
from .periods import Period
from .pool import Block
from .section import FeatureSection, stored
from .seen import Seen, finite, runs_of, seen
from .state import State, StateError
from .targets import write_targets


@dataclass(frozen=True)
class Order:
    """Tell a task what to make of its group; small, because every task carries it."""

    out: Path
    pool: Path
    receipt: Path
    backend: Backend
    features: FeatureSection
    labels: LabelSection
    universe: UniverseSection


def features_group(group: int, order: Order) -> pd.DataFrame:
    """Make the blocks and targets of one lake group and return their summary as one row."""
    receipt = Receipt.load(order.receipt)
    maker = Maker(order, receipt, receipt.groups(order.features.interval)[group])
    summary = {"group": group, **maker.make(group)}
    return summary_frame([summary])


def summary_frame(summaries: list[dict[str, Any]]) -> pd.DataFrame:
    """Return summaries as the frame that a task gives back: one row each, JSON, because Dask turns objects to text."""
    return pd.DataFrame({"summary": pd.Series([json.dumps(summary) for summary in summaries], dtype="str")})


@functools.cache  # of a process: what it has imported stays
def _code() -> str:
    return code_digest(__name__)


class Maker:
    """Make the blocks of some symbols, of which none is made that was made before."""

    def __init__(self, order: Order, receipt: Receipt, symbols: Sequence[str]) -> None:
        self.order, self.receipt, self.symbols = order, receipt, list(symbols)
        self.section = order.features
        self.columns = stored(self.section.columns(close_only=receipt.close_only))
        self.parts = parts_of(self.columns)
        self.wanted = {"": (), **{at: part.reads for at, part in self.parts.items()}}
        self.reader = Reader(receipt, self.section, order.labels, order.universe, symbols, self.wanted)
        self.spans = self.reader.spans()
        self.plans = {at: part.plan for at, part in self.parts.items()}
        self.seconds = {"compute": 0.0, "write": 0.0}
        self.computed = 0

    @cached_property
    def beginning(self) -> str:
        """Name the chain of a group that has no block yet: the code, the columns and what computes them where."""
        made_of = {
            "code": _code(),
            "columns": [(c.name, c.content) for c in self.columns],
            "dtype": self.section.dtype,
            "backend": self.order.backend,
            "made_by": self.section.made_by,
            "interval": self.section.interval,
            "market": self.section.index(self.receipt),
            "versions": versions(),
        }
        return digest_of(made_of)

    def make(self, group: int) -> dict[str, Any]:
        """Make or find all blocks of the group, oldest first, and its targets; return the summary."""
        state = None
        trail: list[tuple[Block, Period]] = []
        names: list[str] = []
        facts: list[dict[str, Any]] = []
        tables: list[pa.Table] = []
        for period, bars, block in self.blocks():
            names.append(f"{group:03d}-{period.name}")
            path = self.order.out / "blocks" / f"{names[-1]}.parquet"
            known = block.link(path)
            if known is None:
                known, state = self._made(block, bars, state, trail, path)
                if self.section.made_by == "kernels" and period.name in [span.name for span in self.spans[-2:]]:
                    # an append goes on from one of these; an older change begins anew
                    state.save(block.state, block.key)
            else:
                state = None
            trail.append((block, period))
            facts.append(known)
            tables.append(bars[""])
        return self._summary(names, facts, tables)

    def blocks(self) -> Iterator[tuple[Period, dict[str, pa.Table], Block]]:
        """Yield the periods that have bars, oldest first, with their raw bars by interval and the block that is or
        will be made of them. Coarser bars of a span without any of the finest go to the next one that has some.
        """
        chain, since = self.beginning, datetime.min.replace(tzinfo=UTC)
        for span in self.spans:
            period = span._replace(since=since)
            bars = self.reader.read(period)
            if bars[""].num_rows:
                block = Block(self.order.pool / chain, self.reader.identity(bars))
                yield period, bars, block
                chain = digest_of({"chain": chain, "rows": block.rows})
                since = span.end + timedelta(microseconds=1)

    def begun(self, block: Block, bars: dict[str, pa.Table]) -> Iterator[tuple[Block, dict[str, Any]]]:
        """Yield blocks that were made of the first of these bars and kept their state, with their facts."""
        for other in block.others():
            facts = other.told()
            if not facts or not other.state.exists():
                continue
            cut = pa.scalar(facts["last"], TS)
            early = {at: table.filter(pc.less_equal(table["ts"], cut)) for at, table in bars.items()}
            # the cheap questions first: a folder holds the blocks of all groups and of many days
            if early[""].num_rows == facts["rows"] and self.reader.identity(early) == other.rows and other.facts():
                yield other, facts

    def _made(
        self,
        block: Block,
        bars: dict[str, pa.Table],
        state: State | None,
        trail: list[tuple[Block, Period]],
        path: Path,
    ) -> tuple[dict[str, Any], State]:
        """Compute a block, or only the bars that joined one that was made before, at a path; return its facts and the
        state.
        """
        self.computed += 1
        for other, facts in self.begun(block, bars):
            kept, before = self._loaded(other), other.read(facts)
            if kept is not None and before is not None:
                cut = pa.scalar(facts["last"], TS)
                late = {at: table.filter(pc.greater(table["ts"], cut)) for at, table in bars.items()}
                table, new = self._values(late, kept)
                whole = sorted_rows(KEYS, pa.concat_tables([before, table]), table.column_names)
                written = self._written(block, whole, joined(facts, new), path)
                other.forget()  # else each evening would leave a copy of the open period
                return written, kept
        state = state or self._state_after(trail)
        table, new = self._values(bars, state)
        return self._written(block, table, new, path), state

    def _written(self, block: Block, table: pa.Table, facts: dict[str, Any], path: Path) -> dict[str, Any]:
        begin = time.perf_counter()
        whole = block.write(table, {**facts, "rows": table.num_rows, "digest": content_digest(table)}, path)
        self.seconds["write"] += time.perf_counter() - begin
        return whole

    def _state_after(self, trail: list[tuple[Block, Period]]) -> State:
        """Return the state after these blocks: from the last one that kept it, running what came later once more."""
        state, behind = None, []
        for block, period in reversed(trail):
            if (state := self._loaded(block)) is not None:
                break
            behind.append(period)
        state = state or State.fresh(self.symbols, self.plans, self.section.dtype, arrays(self.order.backend))
        for period in reversed(behind):
            self._values(self.reader.read(period), state)
        return state

    def _loaded(self, block: Block) -> State | None:
        try:
            xp = arrays(self.order.backend)
            return State.load(block.state, block.key, self.symbols, self.plans, self.section.dtype, xp)
        except StateError:  # what it says can be computed again
            return None

    def _values(self, bars: dict[str, pa.Table], state: State) -> tuple[pa.Table, dict[str, Any]]:
        """Compute the columns of some bars from the state before them, which moves on; return them with the facts."""
        begin = time.perf_counter()
        receipt, section = self.receipt, self.section
        views = {at: self._view(table, at) for at, table in bars.items()}
        base, ts = views[""], stamps(views[""].raw)
        values, bar = values_at(
            self.columns,
            self.parts,
            {at: View(view.gated, view.places(self.symbols)) for at, view in views.items()},
            section.dtype,
            carries=state.carries,
            last=state.last,
            threads=section.threads,
            chunk=section.chunk,
            level=section.made_by,
        )
        values, bar = on_host(values), on_host(bar)
        wild = np.isinf(values)
        values[wild] = np.nan
        table = pa.table(
            {
                "symbol": _text(base.raw["symbol"]),
                "ts": pa.array(ts.astype("datetime64[us]"), TS),
                "close": pa.array(on_host(array_of(base.adjusted["close"]))),
                **{c.name: pa.array(row) for c, row in zip(self.columns, values)},
            }
        )
        fill = "close" if receipt.close_only else "open"
        counts = {"rows": base.series.lengths, "bars": counted(bar, base.series)}
        counts["halted"] = counted(base.halted, base.series)
        for name in dict.fromkeys([*(n for n in self.wanted[""] if n in base.raw.columns), fill]):
            counts[f"with {name}"] = counted(finite(base.raw, name), base.series)
        facts = {
            "last": max(int(stamps(view.raw).max(initial=0)) for view in views.values()),
            "symbols": base.names,
            "counts": {key: count.tolist() for key, count in counts.items()},
            "priced": int(np.count_nonzero(on_host(array_of(base.raw[fill])) > 0.0)),
            "infinite": int(np.count_nonzero(wild)),
        }
        self.seconds["compute"] += time.perf_counter() - begin
        return table, facts

    def _view(self, table: pa.Table, at: str) -> Seen:
        wanted = self.wanted[at] or ("close",)
        interval = at or self.section.interval
        frame = framed(table, self.order.backend)
        return seen(frame, self.receipt, self.reader.actions, wanted, interval, runs_of(table))

    def _summary(self, names: list[str], facts: list[dict[str, Any]], tables: list[pa.Table]) -> dict[str, Any]:
        """Write the targets of all blocks and return what is to be said about the group."""
        begin = time.perf_counter()
        order, crossed = self.order, self.section.columns(close_only=self.receipt.close_only)
        targets = write_targets(
            order.out, names, tables, self.receipt, self.reader.actions, self.section.interval,
            order.labels, order.universe,
            among=bool(order.universe.largest) or any(column.cross for column in crossed),
            sized=any(operator.by for column in crossed for operator in column.cross),
        )  # fmt: skip
        self.seconds |= {"read": self.reader.seconds, "targets": time.perf_counter() - begin}
        symbols = added(facts)
        ready = max((c.ready for c in self.columns if not c.at), default=1)
        blanks = {name: blank(counts) for name, counts in symbols.items()}
        return {
            "rows": sum(one["rows"] for one in facts),
            "symbols": len(symbols),
            "blocks": {name: one["digest"] for name, one in zip(names, facts)},
            "targets": targets.digests,
            "beside": targets.beside,
            "universe": targets.why,
            "computed": self.computed,
            "broken": self.reader.broken,
            "short": {n: c["bars"] for n, c in symbols.items() if c["bars"] < ready and not blanks[n]},
            "empty": {name: columns for name, columns in blanks.items() if columns},
            "complete": sum(counts["bars"] >= ready for counts in symbols.values()),
            "priced": sum(one["priced"] for one in facts),
            "infinite": sum(one["infinite"] for one in facts),
            "seconds": {part: round(seconds, 4) for part, seconds in self.seconds.items()},
        }


def _text(column: Any) -> pa.Array:
    return (column.to_arrow() if hasattr(column, "to_arrow") else pa.array(column)).cast(pa.string())
