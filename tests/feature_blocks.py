"""A small feature stage with a planted signal: what training tests need before, and apart from, the real stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.store import write_json, write_parquet

DAY_US = 86_400_000_000
FIRST_US = 1_577_836_800_000_000 + 6 * 3_600_000_000 + 1_800_000_000  # 2020-01-01 15:30 KST


def write_blocks(
    out: Path,
    *,
    symbols: int = 24,
    days: int = 160,
    features: int = 5,
    horizon: int = 2,
    horizons: Sequence[int] = (),
    signal: float = 0.1,
    noise: float = 0.1,
    groups: int = 3,
    seed: int = 0,
    layout: int = 0,
    warmup: int = 3,
) -> Path:
    """Write blocks whose label is signal * feature_3 + noise; the layout number moves symbols between blocks and
    nothing else.

    The first `warmup` rows of feature_1 and the labels of the last horizon + 1 bars are not known. Labels end horizon +
    1 bars later. horizons : labels instead of the one of `horizon`; those after the first have noise of their own.
    """
    names = [f"feature_{i}" for i in range(features)]
    horizons = tuple(horizons) or (horizon,)
    labels = [name for h in horizons for name in (f"y_{h}", f"y_{h}_end")]
    write_json(
        out / "columns.json",
        {
            "interval": "1d",
            "features": [{"name": name, "unit": "ratio", "in": "blocks"} for name in names],
            "targets": [{"name": f"y_{h}", "horizon": h, "end": f"y_{h}_end"} for h in horizons],
            "member": "targets",
        },
    )
    random = np.random.default_rng(seed)
    ts = FIRST_US + DAY_US * np.arange(days + max(horizons) + 1, dtype=np.int64)
    tables: dict[int, list[pa.Table]] = {group: [] for group in range(groups)}
    place = np.random.default_rng([seed, layout])
    for s in range(symbols):
        x = random.standard_normal((days, features)).astype(np.float32)
        y = (signal * x[:, min(3, features - 1)] + noise * random.standard_normal(days)).astype(np.float32)
        x[:warmup, 1] = np.nan
        columns: dict[str, Any] = {
            "symbol": pa.array([f"{s:06d}"] * days),
            "ts": pa.array(ts[:days]).cast(pa.timestamp("us", tz="UTC")),
            "close": np.exp(0.01 * np.cumsum(random.standard_normal(days))),
            **{name: x[:, i] for i, name in enumerate(names)},
        }
        for number, h in enumerate(horizons):
            if number:
                own = np.random.default_rng([seed, s, h]).standard_normal(days)
                y = (signal * x[:, min(3, features - 1)] + noise * own).astype(np.float32)
            known = np.arange(days) < days - h - 1
            columns[f"y_{h}"] = np.where(known, y, np.float32(np.nan))
            columns[f"y_{h}_end"] = pa.array(ts[h + 1 :][:days], mask=~known).cast(pa.timestamp("us", tz="UTC"))
        group = int(place.integers(groups)) if layout else s % groups
        tables[group].append(pa.table(columns))
    for group, parts in tables.items():
        if parts:
            whole = pa.concat_tables(parts).sort_by([("symbol", "ascending"), ("ts", "ascending")])
            targets = whole.select(labels).append_column("member", pa.array([True] * whole.num_rows))
            write_parquet(out / "targets" / f"{group:03d}-2020.parquet", targets)
            write_parquet(out / "blocks" / f"{group:03d}-2020.parquet", whole.drop_columns(labels))
    return out


class Recorder:
    """Keep what was emitted."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, /, **fields: object) -> None:
        self.events.append((kind, fields))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for k, fields in self.events if k == kind]

    def said(self, text: str) -> bool:
        """Say whether a log line holds the text."""
        return any(text in str(fields["text"]) for fields in self.of("log"))


def edit(out: Path, change: Any) -> None:
    """Rewrite every block, and the targets beside it, with change(table of both)."""
    for path in sorted((out / "blocks").glob("*.parquet")):
        places = [path, out / "targets" / path.name]
        tables = [pq.read_table(place) for place in places]
        whole = change(pa.table({name: table[name] for table in tables for name in table.column_names}))
        for place, table in zip(places, tables):
            write_parquet(place, whole.select([name for name in table.column_names if name in whole.column_names]))


def read_blocks(out: Path) -> pa.Table:
    """Return all blocks with their targets beside them, sorted by (symbol, ts)."""
    whole = []
    for path in sorted((out / "blocks").glob("*.parquet")):
        tables = [pq.read_table(place) for place in (path, out / "targets" / path.name)]
        whole.append(pa.table({name: table[name] for table in tables for name in table.column_names}))
    return pa.concat_tables(whole).sort_by([("symbol", "ascending"), ("ts", "ascending")])
