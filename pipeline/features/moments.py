"""The second step of the graph: columns and members that are decided among all symbols of a moment, one task a period.

It reads the finished blocks of all groups; nothing is shuffled, because blocks of one period hold all of its moments.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.schema import content_digest
from storage.section import digest_of

from ..cross_section import CrossSection, apply
from ..indicators import Column
from ..provenance import code_digest
from ..universe import largest
from .group import Order, summary_frame
from .pool import Block


def wanted(columns: Sequence[Column], order: Order) -> bool:
    """Say whether there is anything to decide among symbols."""
    return bool(order.universe.largest) or any(c.cross for c in columns)


def features_moments(names: Sequence[str], digests: Sequence[str], order: Order, columns: Any) -> pd.DataFrame:
    """Write cross/<name>.parquet beside each block of one period, row for row, and return the summary as one row.

    names : the blocks of all groups; digests : what they hold and is known beside them. The columns with operators, in
    their order, `features.dtype`, NaN for who is no member; and `member` where only the largest are.
    """
    begin = time.perf_counter()
    made_of = {
        "code": code_digest(__name__),
        "columns": [(c.name, c.content) for c in columns if c.cross],
        "largest": order.universe.largest,
        "blocks": list(digests),
    }
    blocks = [Block(order.pool / digest_of(made_of), name) for name in names]
    paths = [order.out / "cross" / f"{name}.parquet" for name in names]
    facts = [block.link(path) for block, path in zip(blocks, paths)]
    if not all(facts):
        made = zip(blocks, _computed(names, order, columns), paths)
        facts = [
            block.write(table, {"digest": content_digest(table), "known": _known(table)}, path)
            for block, table, path in made
        ]
    found = {name: fact["digest"] for name, fact in zip(names, facts) if fact}
    known = {name: sum(fact["known"][name] for fact in facts if fact) for name in (facts[0] or {})["known"]}
    return summary_frame([{"blocks": found, "known": known, "seconds": round(time.perf_counter() - begin, 4)}])


def _known(table: pa.Table) -> dict[str, int]:
    """Return how many values of each column are numbers, or true."""
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return {name: int(np.count_nonzero(x if x.dtype == bool else np.isfinite(x))) for name, x in columns.items()}


def among(
    columns: Sequence[Column],
    ts_N: Any,
    symbol_N: Any,
    values: Mapping[str, Any],
    beside: Mapping[str, Any],
    count: int,
) -> dict[str, Any]:
    """Return what is decided among all symbols of a moment: the columns with operators, (N,) float64, NaN for who is no
    member; and `member`, (N,) bool, where only the `count` largest are (0 = all).

    symbol_N : numbers in the order of symbols. values : the columns before any operator, by name. beside : member, and
    where it is asked for turnover (KRW), sector (codes, -1 = unknown) and size (KRW).
    """
    out: dict[str, Any] = {}
    member = beside["member"]
    if count:
        member = out["member"] = largest(ts_N, symbol_N, beside["turnover"], member, count)
    section = CrossSection(ts_N, symbol_N, member, sector_N=beside.get("sector"), size_N=beside.get("size"))
    for column in columns:
        if column.cross:
            out[column.name] = apply(column.cross, values[column.source.name], section)
    return out


def _computed(names: Sequence[str], order: Order, columns: Sequence[Column]) -> list[pa.Table]:
    crossed = [c for c in columns if c.cross]
    by = {name for c in crossed for operator in c.cross for name in operator.by}
    needed = ["member", *(["turnover"] if order.universe.largest else []), *sorted(by)]
    sources = list(dict.fromkeys(c.source.name for c in crossed))
    blocks = [
        pq.read_table(order.out / "blocks" / f"{name}.parquet", columns=["symbol", "ts", *sources]) for name in names
    ]
    rows = pa.concat_tables(blocks).combine_chunks()
    others = pa.concat_tables(
        [pq.read_table(order.out / "targets" / f"{name}.parquet", columns=needed) for name in names]
    ).combine_chunks()
    encoded = rows["symbol"].combine_chunks().dictionary_encode()
    place = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), dtype=np.str_)))
    symbol = place[encoded.indices.to_numpy()]
    ts = rows["ts"].cast(pa.int64()).to_numpy()
    beside = {name: others[name].to_numpy() for name in ("member", "turnover", "size") if name in others.column_names}
    if "sector" in by:
        beside["sector"] = others["sector"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    values = {name: rows[name].to_numpy() for name in sources}
    found = among(columns, ts, symbol, values, beside, order.universe.largest)
    out = {name: pa.array(x if name == "member" else x.astype(order.features.dtype)) for name, x in found.items()}
    table, lengths = pa.table(out), [block.num_rows for block in blocks]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return [table.slice(int(start), length) for start, length in zip(starts, lengths)]
