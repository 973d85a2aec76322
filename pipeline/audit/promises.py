"""What the columns of a feature set promise: warm-ups, carried state, the backends of this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..cluster import gpu_count
from ..features.state import State
from ..indicators import Column
from ..indicators.frame import places_of
from ..indicators.timeframes import View, values_at
from .bars import BASIS, actions_of
from .case import Backend, Promises, Values, Warmup
from .columns import MEMBER, Features

DAY = "day"  # made from ts
FUSED = 1e-6  # of the largest value: a GPU fuses multiplications and additions
ORDER = 1e-9  # of the largest value: sums over the symbols of a moment run in the order of their names
SUMS = ("zscore", "neutralise")
_NONE = pa.schema([("symbol", pa.string()), ("ex_date", pa.date32()), ("factor", pa.float64())]).empty_table()
_ALL = datetime(2200, 1, 1, tzinfo=UTC)


def promises_of(features: Features) -> Promises:
    """Return what the columns' indicators declare, the drivers' carried state and the backends of this machine."""
    cores = max(2, len(os.sched_getaffinity(0)))
    crossed = frozenset(c.name for c in features.crossed)
    backends = {"float32": Backend(partial(features, dtype=np.float32))}
    unavailable = {}
    if gpu_count() and importlib.util.find_spec("cudf"):
        backends["cudf"] = Backend(partial(features, backend="cudf"), FUSED, leave=crossed)  # operators run on the host
    else:
        unavailable["cudf"] = "no GPU with cuDF here"
    # The index of coarser bars is put together from the rows of all symbols.
    indexed = frozenset(c.name for c in features.sources if c.at and "market" in features.parts[c.at].reads)
    units = {unit_of(c): (c.at, c.indicator.inputs if _changes(c) else ()) for c in features.sources}
    summed = [c.name for c in features.crossed if any(operator.name in SUMS for operator in c.cross)]
    return Promises(
        inputs=_inputs(features),
        warmups={c.name: _warmup(c) for c in features.sources},
        counted={unit: partial(features.counted, *of) for unit, of in units.items()},
        across=crossed | indexed | ({MEMBER} if features.known.universe is not None else set()),
        reordered=dict.fromkeys(summed, ORDER),
        carried=partial(_carried, features),
        backends=backends,
        schedules={f"{cores} threads": partial(features, threads=cores)},
        unavailable=unavailable,
    )


def unit_of(column: Column) -> str:
    """Name what the warm-up of a column counts."""
    what = f"changes of {' or '.join(column.indicator.inputs)}" if _changes(column) else "bars"
    return f"{what} at {column.at}" if column.at else what


def _changes(column: Column) -> bool:
    return column.indicator.counts == "changes"


def _warmup(column: Column) -> Warmup:
    """Return the declared warm-up; the first coarser bar of a history may lack its beginning, so one more is given."""
    bars = float(column.indicator.warmup(*column.values)) + bool(column.at)
    return Warmup(bars, column.indicator.tolerance, unit_of(column))


def _inputs(features: Features) -> tuple[str, ...]:
    names = {name for part in features.parts.values() for name in part.reads} - {DAY}
    names |= {"close", "volume", "turnover"} if features.known.universe is not None else set()
    return tuple(sorted(names))


def _carried(features: Features, symbols: Sequence[str]) -> Values:
    """Return a function that takes chunk after chunk of raw bars and goes on from the state that it keeps, as the
    features stage does: of each coarser interval the fine bars of the open bar, the kernels' state, the last values.
    """
    parts = features.parts
    state = State.fresh(symbols, {at: part.plan for at, part in parts.items()}, np.float64)
    lanes = {name: i for i, name in enumerate(symbols)}
    basis, told = np.ones(len(symbols)), [_NONE]
    held: dict[str, Any] = {at: None for at in parts if at}
    done = {at: np.full(len(symbols), np.iinfo(np.int64).min) for at in held}

    def step(bars: pd.DataFrame) -> pd.DataFrame:
        lane = _lanes(bars, lanes)
        told[0] = pa.concat_tables([told[0], actions_of(bars, basis[lane])])
        basis[lane] = bars[BASIS].to_numpy()  # the last bar of each symbol stays
        frames = {"": features.raw(bars)} | {at: closed(bars, at) for at in held}
        gated = {at: features.look(frame, at, told[0]).gated for at, frame in frames.items()}
        views = {at: View(frame, places_of(frame, symbols)) for at, frame in gated.items()}
        made = values_at(features.sources, parts, views, np.float64, carries=state.carries, last=state.last)[0]
        out: pd.DataFrame = pd.DataFrame(made.T, columns=[c.name for c in features.sources])
        return out.reindex(columns=features.names)

    def closed(bars: pd.DataFrame, at: str) -> pd.DataFrame:
        """Return the coarser bars that ended, by the time of their own symbol, and keep what the open ones hold."""
        rows = bars if held[at] is None else pd.concat([held[at], bars]).sort_values(["symbol", "ts"])
        latest = np.full(len(symbols), np.iinfo(np.int64).min)
        latest[_lanes(rows, lanes)] = rows["ts"].astype("int64")
        found = features.coarse(rows, at, told[0], until=_ALL)
        lane, end = _lanes(found, lanes), found["ts"].astype("int64").to_numpy()
        ended = (end <= latest[lane]) & (end > done[at][lane])
        done[at][lane[ended]] = end[ended]
        held[at] = rows[(rows["ts"].astype("int64") > done[at][_lanes(rows, lanes)]).to_numpy()]
        whole: pd.DataFrame = found[ended].reset_index(drop=True)
        return whole

    return step


def _lanes(bars: pd.DataFrame, lanes: dict[str, int]) -> Any:
    return bars["symbol"].map(lanes).to_numpy(np.int64)
