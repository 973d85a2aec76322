"""Small files of bars and what must come out of them, for the tests of the importers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa

from pipeline.importers import ImportSection, Loaded, load
from pipeline.importers.section import ACTION_COLUMNS, BAR_COLUMNS, QUARANTINE_COLUMNS, SYMBOL_COLUMNS

ROWS = (  # date, open, high, low, close, volume
    ("2020-01-02", 55500, 56000, 55000, 55200, 12993228),
    ("2020-01-03", 56000, 56600, 54900, 55500, 15422255),
    ("2020-01-06", 54900, 55600, 54600, 55500, 10278951),
)
HEADER = "date,open,high,low,close,volume\n"
PLAIN = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
KOREAN = "날짜,시가,고가,저가,종가,거래량\n" + PLAIN


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def table_of(text: str = HEADER + PLAIN) -> pa.Table:
    return pa.table(
        {
            "date": [row[0] for row in ROWS],
            **{name: [row[i] for row in ROWS] for i, name in enumerate(("open", "high", "low", "close", "volume"), 1)},
        }
    )


def read_all(path: Path, **section: object) -> Loaded:
    """Load everything under a path, as one batch."""
    parts = list(load(path, ImportSection(**section)))
    for part in parts:
        assert part.bars.schema.equals(BAR_COLUMNS, check_metadata=False)
        assert part.quarantined.schema.equals(QUARANTINE_COLUMNS, check_metadata=False)
        assert part.actions is None or part.actions.schema.equals(ACTION_COLUMNS, check_metadata=False)
        assert part.symbols is None or part.symbols.schema.equals(SYMBOL_COLUMNS, check_metadata=False)
    with_bars = [part for part in parts if part.bars.num_rows]
    actions = [part.actions for part in parts if part.actions is not None]
    told = [part.symbols for part in parts if part.symbols is not None]
    return Loaded(
        pa.concat_tables([part.bars for part in parts]),
        pa.concat_tables([part.quarantined for part in parts]),
        pa.concat_tables(told) if told else None,
        parts[0].market,
        all(part.close_only for part in with_bars),
        "/".join(dict.fromkeys(part.interval for part in with_bars)),
        {name: sum(part.counts.get(name, 0) for part in parts) for name in parts[0].counts},
        pa.concat_tables(actions) if actions else None,
    )


def bars_of(loaded: Loaded) -> list[tuple[object, ...]]:
    return [
        tuple(row.values())
        for row in loaded.bars.select(["symbol", "ts", "open", "high", "low", "close", "volume"]).to_pylist()
    ]


def end_of(day: str, hour: int = 6, minute: int = 30) -> datetime:
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).replace(hour=hour, minute=minute)


EXPECTED = [("005930", end_of(d), *map(float, numbers)) for d, *numbers in ROWS]
