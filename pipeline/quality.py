"""Which rows are bars: the rules shared by the broker's pages and by files.

A row that breaks a rule goes to quarantine with its reason and never silently into the lake; what is only unusual
(moves beyond the price limit, halts, gaps) stays, and is counted by `pipeline.summary`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import BARS, QUARANTINE

from . import krx

Market = Literal["KRX", "other"]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]

PRICES = ("open", "high", "low", "close")
VALUES = (*PRICES, "volume", "turnover")
REASONS = (  # the first that holds is given; 0 = good
    "",
    "not_a_date",
    "missing_close",
    "infinite",
    "negative_price",
    "negative_volume",
    "zero_price",
    "high_below_low",
    "outside_high_low",
    "not_a_session",
    "duplicate",
)
PROVENANCE = (
    "file",
    "line",
    "row",
)  # columns that a caller may add to say where a row came from and how it was written
KST_US, DAY_US = 9 * 3_600_000_000, 86_400_000_000
ROUNDING = 1e-9  # relative; adjusted prices come out of a multiplication


def check(bars: pa.Table, *, market: Market) -> tuple[pa.Table, pa.Table]:
    """Separate bars from rows that are none.

    bars : BARS, of which source and ingested_at may be missing, texts plain or dictionary encoded; it may also hold
    file, line and row, which say where a row came from and how it was written. Nulls in open, high, low, close and
    volume count as NaN.

    Returns (good, quarantined). good : the columns of `bars` without file, line and row, sorted by (symbol, interval,
    ts, venue), one row a key. quarantined : QUARANTINE without source and ingested_at. Of identical rows one is kept
    and the others are dropped, so rows in = good + quarantined + dropped; rows that share a key but differ are all
    quarantined.

    A row whose open, high and low are zero or empty and whose close is not (a halt, or trades outside the regular
    session only) is good: the three become NaN and the close is kept. Reasons are those of REASONS; not_a_session is
    for market "KRX" only.
    """
    values = {name: floats(bars[name]) for name in VALUES}
    close = values["close"]
    absent = (close > 0) & np.logical_and.reduce([(values[name] == 0) | np.isnan(values[name]) for name in PRICES[:3]])
    zeros = absent & np.logical_or.reduce([values[name] == 0 for name in PRICES[:3]])
    if zeros.any():
        values |= {name: np.where(absent, np.nan, values[name]) for name in PRICES[:3]}
    time = pc.fill_null(bars["ts"].cast(pa.int64()), 0).to_numpy()
    code = np.zeros(bars.num_rows, np.int8)
    for name, broken in _rules(bars, values, time, market).items():
        code[broken & (code == 0)] = REASONS.index(name)
    rows = _without_duplicates(bars, time, values, code)
    good = bars.drop_columns([name for name in PROVENANCE if name in bars.column_names])
    changed = [name for name in (*PRICES, "volume") if bars[name].null_count or (name in PRICES[:3] and zeros.any())]
    for name in changed:
        good = good.set_column(good.column_names.index(name), BARS.field(name), pa.array(values[name]))
    if len(rows) < bars.num_rows or (np.diff(rows) != 1).any():
        good = good.take(pa.array(rows))
    return good, _quarantined(bars, code)


def reasons(quarantined: pa.Table) -> dict[str, int]:
    """Count quarantined rows by reason."""
    counted = pc.value_counts(quarantined["reason"]).to_pylist()
    return {row["values"]: row["counts"] for row in sorted(counted, key=lambda r: str(r["values"]))}


def floats(column: pa.ChunkedArray) -> Floats:
    """Return a column of numbers; nulls are NaN."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)


def _rules(bars: pa.Table, values: dict[str, Floats], time: Longs, market: Market) -> dict[str, Bools]:
    open_, high, low, close = (values[name] for name in PRICES)
    slack = ROUNDING * np.abs(close)
    out = {
        "not_a_date": pc.is_null(bars["ts"]).to_numpy(),
        "missing_close": np.isnan(close),
        "infinite": np.logical_or.reduce([np.isinf(v) for v in values.values()]),
        "negative_price": np.logical_or.reduce([values[name] < 0 for name in PRICES]),
        "negative_volume": (values["volume"] < 0) | (values["turnover"] < 0),
        "zero_price": np.logical_or.reduce([values[name] == 0 for name in PRICES]),
        "high_below_low": high < low,
        "outside_high_low": np.logical_or.reduce([(v > high + slack) | (v < low - slack) for v in (open_, close)]),
    }
    if market == "KRX":
        day = (time + KST_US - 1) // DAY_US  # a stamp is an end: midnight ends the day before
        first = int(day.min()) if len(day) else 0
        days = np.arange(first, int(day.max()) + 1 if len(day) else 0)
        out["not_a_session"] = ~krx.is_session(days.astype("datetime64[D]"))[day - first]
    return out


def _without_duplicates(bars: pa.Table, time: Longs, values: dict[str, Floats], code: Codes) -> Longs:
    """Return the good rows in order of their keys, one a key; rows that share a key but differ get their reason in
    `code`.
    """
    keys = [ranks(bars[name]) for name in ("symbol", "interval")] + [time, ranks(bars["venue"])]
    rows = np.flatnonzero(code == 0)
    if len(rows) < 2:
        return rows
    ahead, equal = _compared(keys, rows)
    if not (ahead & ~equal).all():
        rows = rows[np.lexsort([key[rows] for key in reversed(keys)])]
        _, equal = _compared(keys, rows)
    if not equal.any():
        return rows
    first = np.append(True, ~equal)
    group = np.cumsum(first) - 1
    differs = np.zeros(len(rows), bool)
    for value in values.values():
        here, there = value[rows[1:]], value[rows[:-1]]
        differs[1:] |= equal & (here != there) & ~(np.isnan(here) & np.isnan(there))
    conflicting = np.zeros(group[-1] + 1, bool)
    conflicting[group[differs]] = True
    code[rows[conflicting[group]]] = REASONS.index("duplicate")
    out: Longs = rows[first & ~conflicting[group]]
    return out


def _compared(keys: list[Longs], rows: Longs) -> tuple[Bools, Bools]:
    """Say for each row but the first whether its key is not before that of the row above, and whether it is equal."""
    ahead, equal = np.zeros(len(rows) - 1, bool), np.ones(len(rows) - 1, bool)
    for key in keys:
        here, above = key[rows[1:]], key[rows[:-1]]
        ahead |= equal & (here > above)
        equal &= here == above
    return ahead | equal, equal


def ranks(column: pa.ChunkedArray) -> Longs:
    """Return each text's place in the sorted list of distinct texts."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    encoded = column.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # without rows
        return np.zeros(0, np.int64)
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    place = np.empty(len(names), np.int64)
    place[np.argsort(names)] = np.arange(len(names))
    out: Longs = place[encoded.indices.to_numpy(zero_copy_only=False)]
    return out


def _quarantined(bars: pa.Table, code: Codes) -> pa.Table:
    rows = np.flatnonzero(code)
    bad = bars.take(pa.array(rows))
    shown = bad.column_names
    text = (
        bad["row"]
        if "row" in shown
        else pa.array([_shown(row) for row in bad.select(["ts", *VALUES]).to_pylist()], pa.string())
    )
    columns = {
        "file": bad["file"].cast(pa.string()) if "file" in shown else pa.nulls(len(rows), pa.string()),
        "line": bad["line"] if "line" in shown else pa.array(np.full(len(rows), -1)),
        "symbol": bad["symbol"],
        "interval": bad["interval"],
        "ts": bad["ts"],
        "reason": pa.array([REASONS[c] for c in code[rows]], pa.string()),
        "row": text,
    }
    return pa.table({f.name: columns[f.name].cast(f.type) for f in QUARANTINE if f.name in columns})


def _shown(row: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in row.items())
