"""What stands beside the features of a block and is made anew each time: targets, which look ahead, and who belongs to
the universe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import framed
from storage.merge import sorted_rows
from storage.schema import TS, content_digest
from storage.store import write_parquet

from ..as_of import Facts
from ..indicators import parts_of, resolve
from ..indicators.columns import Spec
from ..indicators.frame import array_of, stamps
from ..indicators.timeframes import View, values_at
from ..labels import LabelSection, Prices, make_labels
from ..receipt import Receipt
from ..resample import MINUTES
from ..tradable import bases, fills, listing
from ..universe import Bars, Judged, UniverseSection, facts_of, judge, why
from .seen import Seen, runs_of, seen

KEYS = ("symbol", "ts")
READ = (*KEYS, "open", "close", "volume", "turnover")
KST_US, DAY_US = 9 * 3_600_000_000, 86_400_000_000


class Written(NamedTuple):
    """Say what was written: the digest of each file, that of what operators within a moment read of it, and the bars by
    what the universe said about them.
    """

    digests: dict[str, str]
    beside: dict[str, str]
    why: dict[str, int]


def write_targets(
    out: Path,
    names: list[str],
    tables: list[pa.Table],
    receipt: Receipt,
    actions: pa.Table,
    interval: str,
    labels: LabelSection,
    universe: UniverseSection,
    *,
    among: bool,
    sized: bool,
) -> Written:
    """Write targets/<name>.parquet beside each block, row for row, from the raw bars of all blocks of a group.

    y_<h>, y_<h>_vol, y_<h>_barrier : float32, the labels that are asked for; <label>_end : when each is known; member :
    bool, belongs to the universe. What operators within a moment need besides: turnover (KRW, the mean of the universe)
    where only the largest are members, and where `sized` sector (text, null = unknown) and size (KRW, shares x raw
    close). among : something is decided among symbols, so that a digest of all this is of use.
    """
    if not tables:
        return Written({}, {}, {})
    read = [name for name in (*READ, *labels.reads) if name in tables[0].column_names]
    rows = sorted_rows(KEYS, pa.concat_tables([table.select(read) for table in tables]), read)
    bars = seen(framed(rows), receipt, actions, ("close",), interval, runs_of(rows))
    judged = judged_of(bars, facts_of(receipt, bars.names), interval, universe)
    columns: dict[str, Any] = {"member": pa.array(judged.member)}
    if universe.largest:
        columns["turnover"] = pa.array(judged.turnover)
    if sized:
        table = receipt.opened.read("symbols", symbols=bars.names, source=receipt.source)
        columns |= size_of(bars, table, intraday=interval in MINUTES)
    known = list(columns)
    whole, ts = pa.table({**_targets(bars, receipt, labels), **columns}), stamps(bars.raw)
    digests, beside = {}, {}
    for name, table in zip(names, tables):
        first, last = pc.min(table["ts"]).cast(pa.int64()).as_py(), pc.max(table["ts"]).cast(pa.int64()).as_py()
        rows = np.flatnonzero((ts >= first) & (ts <= last)) if table.num_rows else np.zeros(0, np.int64)
        part = whole.take(pa.array(rows))
        write_parquet(out / "targets" / f"{name}.parquet", part)
        digests[name] = content_digest(part)
        beside[name] = content_digest(part.select(known)) if among else ""
    return Written(digests, beside, why(judged))


def _targets(bars: Seen, receipt: Receipt, section: LabelSection) -> dict[str, pa.Array]:
    """Return the target columns and their end stamps."""
    series, names = bars.series, bars.names
    of = listing(names, receipt.symbol_table())
    name = "close" if receipt.close_only else "open"
    raw, raw_close = array_of(bars.raw[name]), array_of(bars.raw["close"])
    close, price = array_of(bars.adjusted["close"]), array_of(bars.adjusted[name])
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = close / raw_close
    ends = stamps(bars.raw).astype("datetime64[us]")
    days = (ends + np.timedelta64(9, "h")).astype("datetime64[D]")
    sides = fills(
        np.where(bars.halted, np.nan, raw),
        bases(raw_close, factor, days, series),
        days,
        np.repeat(np.arange(len(names)), series.lengths),
        of if receipt.market == "KRX" else None,
    )
    buy, sell = (np.where(np.isnan(side), np.nan, price) for side in sides)
    traded = np.where(np.isnan(raw) | bars.halted, np.nan, price)
    named = () if receipt.close_only else section.reads
    high, low = (array_of(bars.adjusted[name]) for name in named) if named else (traded, traded)
    ended = np.array([day is not None and day <= receipt.end for day in of.delisted], bool)
    volatility = _volatility(bars, section) if set(section.kinds) != {"return"} else np.full(close.size, np.nan)
    found = make_labels(section, Prices(buy, sell, traded, high, low, close), volatility, series, ended)
    out: dict[str, pa.Array] = {}
    for target in section.targets():
        y, exit = found[target["name"]]
        out[target["name"]] = pa.array(y.astype(np.float32))
        out[target["end"]] = pa.array(ends[exit] if ends.size else ends, TS, mask=exit < 0)
    return out


def _volatility(bars: Seen, section: LabelSection) -> npt.NDArray[np.float64]:
    """Return the deviation of the log returns of bars up to and including each, as the indicator says it."""
    spec = Spec(indicator="volatility", params={"n": section.volatility_window}, outputs=("volatility",))
    columns = resolve([spec])
    values, _ = values_at(columns, parts_of(columns), {"": View(bars.gated, bars.series)}, np.float32)
    return np.asarray(values[0], np.float64)


def judged_of(bars: Seen, facts: pa.Table, interval: str, section: UniverseSection) -> Judged:
    """Judge each row, see `universe.judge`. facts : SYMBOLS rows of any symbols."""
    known = "turnover" in bars.raw.columns  # else nothing asks for it
    close, volume = array_of(bars.raw["close"]), array_of(bars.raw["volume"])
    turnover = array_of(bars.raw["turnover"]) if known else np.full(close.size, np.nan)
    said = Bars(stamps(bars.raw), close, volume, turnover, bars.halted)
    return judge(said, bars.series, bars.names, facts, section, intraday=interval in MINUTES)


def size_of(bars: Seen, table: pa.Table, *, intraday: bool) -> dict[str, pa.Array]:
    """Return the sector and the size of each row as known on its day (intraday: the day before); a sector also
    reaches back before it was first told, because sources tell it once, and changes of it are rare.

    table : SYMBOLS rows of any symbols.
    """
    facts, owner = Facts(table, bars.names), np.repeat(np.arange(len(bars.names)), bars.series.lengths)
    day = (stamps(bars.raw) + KST_US - 1) // DAY_US - intraday
    sectors, shares = np.array(facts.texts("sector"), dtype=object), array_of(facts.table["shares"].to_pandas())
    row, _ = facts.row(sectors != "", owner, day)
    sector = np.where(row >= 0, sectors[row] if len(sectors) else "", "")
    row, told = facts.row(np.isfinite(shares), owner, day)
    count = np.where(told & (row >= 0), shares[row] if len(shares) else np.nan, np.nan)
    return {
        "sector": pa.array([text or None for text in sector], pa.string()),
        "size": pa.array(count * array_of(bars.raw["close"])),
    }
