"""Bars that carry their corporate actions and their issue with them, so that cutting, poisoning and renaming bars does
the same to these; and coarser bars made of nothing but the bars that are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from storage.lake import framed
from storage.schema import BARS

from ..resample import PERIODS, derive

BASIS, ISSUE = "basis", "issue"
_KST = np.timedelta64(9, "h")


def with_basis(bars: pd.DataFrame, actions: pa.Table) -> pd.DataFrame:
    """Return bars with the product of the factors of their symbol's actions up to each bar, and with their symbol once
    more as their issue: facts stay with it, whatever name the bars get.
    """
    days, places = _days(bars), bars.groupby("symbol", sort=False).indices
    out = np.ones(len(bars))
    rows = actions.select(["symbol", "ex_date", "factor"]).sort_by("ex_date").to_pylist()
    for row in rows:
        of_symbol = places.get(row["symbol"], np.zeros(0, np.int64))
        out[of_symbol[np.searchsorted(days[of_symbol], np.datetime64(row["ex_date"])) :]] *= row["factor"]
    return bars.assign(**{BASIS: out}).assign(**{ISSUE: bars["symbol"]})


def actions_of(bars: pd.DataFrame, before: Any = 1.0) -> pa.Table:
    """Return an action wherever the first bar of a day has another basis than that of the day before, and one where it
    is not that of `before` (a number, or one a row) when the bars of a symbol begin.

    An action holds for the whole of its day: a basis that only changes within a day (poison) is none.
    """
    days, symbol = _days(bars), bars["symbol"]
    begins = (symbol != symbol.shift(1)).to_numpy(bool)
    first = np.flatnonzero(begins | np.append(True, days[1:] != days[:-1])[: len(bars)])
    basis = bars[BASIS].to_numpy()[first]
    start = np.broadcast_to(before, len(bars))[first]
    factor = basis / np.where(begins[first], start, np.append(basis[:1], basis[:-1]))
    acts = np.isfinite(factor) & (factor != 1.0)
    some = first[acts]
    return pa.table(
        {
            "symbol": pa.array(symbol.iloc[some]).cast(pa.string()),
            "ex_date": pa.array(days[some], pa.date32()),
            "factor": factor[acts],
        }
    )


def coarser(
    bars: pd.DataFrame,
    at: str,
    actions: pa.Table,
    *,
    interval: str,
    venue: str,
    since: date | None,
    until: datetime | None = None,
    wanted: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the complete raw bars of `at` that raw bars of `interval` make up, sorted by (symbol, ts).

    since, until : see `resample.derive`. The market's index, where it is `wanted`, comes from the rows of all symbols.
    """
    table = _table(bars, interval, venue)
    for step in ("1d", at) if at in PERIODS and interval != "1d" else (at,):
        table = derive(table, step, venue=venue, since=since, until=until, actions=actions)
        table = table.filter(pc.field("complete")).select(BARS.names)
    out: pd.DataFrame = framed(table.drop_columns(["venue", "interval", "source", "ingested_at"]))
    if "market" in wanted:
        close = bars.dropna(subset="market").groupby("ts", sort=True)["market"].first()
        index = pd.DataFrame({"symbol": "", "ts": close.index, "close": close.to_numpy()})
        found = coarser(index, at, actions.slice(0, 0), interval=interval, venue=venue, since=since, until=until)
        out["market"] = out["ts"].map(found.set_index("ts")["close"])
    return out


def _table(bars: pd.DataFrame, interval: str, venue: str) -> pa.Table:
    """Return bars as the lake holds them; columns that they do not have are NaN."""
    size = len(bars)
    said = {"venue": venue, "interval": interval, "source": "audit"}
    known: dict[str, Any] = {name: pa.array([text] * size, pa.string()) for name, text in said.items()}
    known["symbol"] = pa.array(bars["symbol"]).cast(pa.string())
    known["ts"] = pa.array(bars["ts"]).cast(BARS.field("ts").type)
    known["ingested_at"] = pa.array(np.zeros(size, np.int64)).cast(BARS.field("ingested_at").type)
    for name in BARS.names:
        if name not in known:
            values = bars[name].to_numpy(np.float64, na_value=np.nan) if name in bars.columns else np.full(size, np.nan)
            known[name] = pa.array(values)
    return pa.table({name: known[name] for name in BARS.names}, schema=BARS)


def _days(bars: pd.DataFrame) -> Any:
    """Return the KST day of each bar, (N,) datetime64[D]."""
    return (bars["ts"].astype("int64").to_numpy().astype("datetime64[us]") + _KST).astype("datetime64[D]")
