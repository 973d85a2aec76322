"""Small markets for tests: random but plausible bars, a lake that holds them, a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import receipt
from storage.lake import Lake
from storage.schema import ACTIONS, BARS, SYMBOLS

STAMP = pa.scalar(0, BARS.field("ingested_at").type)


def days(n: int, start: str = "2020-01-02") -> np.ndarray[Any, np.dtype[np.datetime64]]:
    """Return n weekdays as bar ends at 15:30 KST (06:30 UTC)."""
    first = np.busday_offset(np.datetime64(start), 0, roll="forward")
    return np.busday_offset(first, np.arange(n)).astype("datetime64[us]") + np.timedelta64(390, "m")


def bars(
    symbols: Sequence[str],
    n: int,
    *,
    seed: int = 0,
    source: str = "test",
    interval: str = "1d",
    start: str = "2020-01-02",
) -> pa.Table:
    """Return n daily bars a symbol: a random walk with open, high and low around it, in whole won."""
    rng = np.random.default_rng(seed)
    shape = (len(symbols), n)
    close = np.round(50_000 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=1)))
    first = np.round(close * np.exp(rng.normal(0, 0.005, shape)))
    high = np.maximum(close, first) + np.round(rng.exponential(200, shape))
    low = np.maximum(np.minimum(close, first) - np.round(rng.exponential(200, shape)), 1)
    volume = np.round(rng.lognormal(11, 0.5, shape))
    count = len(symbols) * n
    columns = {
        "symbol": pa.array(np.repeat(np.asarray(symbols, dtype=object), n), pa.string()),
        "venue": pa.array(["KRX"] * count),
        "interval": pa.array([interval] * count),
        "ts": pa.array(np.tile(days(n, start), len(symbols)), BARS.field("ts").type),
        "open": first.ravel(),
        "high": high.ravel(),
        "low": low.ravel(),
        "close": close.ravel(),
        "volume": volume.ravel(),
        "turnover": (volume * close).ravel(),
        "source": pa.array([source] * count),
        "ingested_at": pa.array([0] * count, STAMP.type),
    }
    return pa.table(columns, schema=BARS)


def ingested(
    folder: Path, table: pa.Table, actions: pa.Table | None = None, symbols: pa.Table | None = None
) -> receipt.Receipt:
    """Write bars into a lake under `folder` and leave a receipt in `folder/ingest`."""
    lake = Lake(folder / "lake")
    lake.write("bars", table)
    lake.write("actions", actions if actions is not None else ACTIONS.empty_table())
    lake.write("symbols", symbols if symbols is not None else SYMBOLS.empty_table())
    stamps = table["ts"].to_numpy().astype("datetime64[D]")
    (folder / "ingest").mkdir(parents=True, exist_ok=True)
    found = receipt.take(
        lake,
        source=table["source"][0].as_py(),
        venue="KRX",
        market="KRX",
        intervals=(table["interval"][0].as_py(),),
        symbols=tuple(sorted(table["symbol"].unique().to_pylist())),
        start=stamps.min().item(),
        end=stamps.max().item(),
        close_only=False,
        quarantined={},
    )
    found.save(folder / "ingest")
    return found
