"""Which rows are bars and what a set of bars looks like: the rules shared by the broker's pages and by files.

A row that breaks a rule goes to quarantine with its reason and never silently into the lake; what is only unusual
(moves beyond the price limit, halts, gaps) is counted and stays.
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
HOUR_US = 3_600_000_000
# A day may have 25 hours, a month 31 days and one hour more.
_LONGEST_US = {
    "m": HOUR_US // 60,
    "h": HOUR_US,
    "d": DAY_US + HOUR_US,
    "w": 7 * DAY_US + HOUR_US,
    "o": 31 * DAY_US + HOUR_US,
}
FLAT_SESSIONS = 20  # a close that stays for as long as this is taken for a halt
SHORT_ROWS = 250  # about a year
ROUNDING = 1e-9  # relative; adjusted prices come out of a multiplication
SMALLEST_LIMIT = 0.03  # no move below this can be beyond a limit of any year
# Limits are compared as rates and with a slack, because adjusted prices are off the ticks to which limits are cut.
LIMIT_SLACK = 0.005
WITHOUT_TICKS = 1e9  # a base price, KRW, at which ticks do not matter


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
    values = {name: _floats(bars[name]) for name in VALUES}
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


def _floats(column: pa.ChunkedArray) -> Floats:
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
    keys = [_ranks(bars[name]) for name in ("symbol", "interval")] + [time, _ranks(bars["venue"])]
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


def _ranks(column: pa.ChunkedArray) -> Longs:
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


def summary(bars: pa.Table, *, market: Market, actions: pa.Table | None = None, limit: int = 10) -> dict[str, Any]:
    """Describe the bars of one interval in small numbers for the report; JSON-able.

    bars : checked BARS sorted by (symbol, ts). actions : ACTIONS that explain jumps of raw prices. `limit` bounds each
    list of examples, worst first.

    Returns rows, symbols, start, end, without_volume (rows), no_open_high_low (rows) and notes, a sentence for each
    finding that is not zero; for bars of other markets uneven {rows: steps from one bar to the next that are longer
    than a bar; symbols; worst in hours}, which is weekends, holidays and rows that are missing; for daily bars also
    short {symbols: with fewer than SHORT_ROWS bars}, flat_runs {symbols: with FLAT_SESSIONS or more equal closes in a
    row, the way a halt looks in close-only files}, returns {smallest, largest: from one bar to the next}; and for daily
    bars of KRX gaps {rows: sessions without a bar between a symbol's first and last; symbols}, beyond_limit {rows:
    moves from close to close beyond the KOSPI's limit of that day, with LIMIT_SLACK and a won of tolerance; after_gap:
    those of them with sessions missing before; explained: by an action of that day}, basis_jumps {rows: beyond the
    limit with neither: prices that do not share one basis, or a first day without limit}, off_tick (share of closes
    that no tick of their day allows: large in adjusted prices), saturdays (rows; sessions until 1998-12) and lettered
    (symbols with a letter in their code).
    """
    if bars.num_rows == 0:
        return {"rows": 0, "symbols": 0}
    shift = KST_US if market == "KRX" else 0
    day = ((bars["ts"].cast(pa.int64()).to_numpy() + shift - 1) // DAY_US).astype("datetime64[D]")
    close = _floats(bars["close"])
    code = _ranks(bars["symbol"])
    first = np.flatnonzero(np.append(True, code[1:] != code[:-1]))
    lengths = np.diff(np.append(first, len(code)))
    owners = bars["symbol"].take(pa.array(first)).to_pylist()
    out: dict[str, Any] = {
        "rows": bars.num_rows,
        "symbols": len(first),
        "start": str(day.min()),
        "end": str(day.max()),
        "without_volume": int((_floats(bars["volume"]) == 0).sum()),
        "no_open_high_low": int(np.isnan(_floats(bars["open"])).sum()),
    }
    interval = bars["interval"][0].as_py()
    if market == "other":
        out["uneven"] = _uneven(bars, code, interval, limit)
    if interval != "1d":
        return out | {"notes": notes(out)}
    out["short"] = _listed(lengths, lengths < SHORT_ROWS, owners, limit, "rows", smallest=True)
    flat = _longest_runs(close, first)
    out["flat_runs"] = _listed(flat, flat >= FLAT_SESSIONS, owners, limit, "sessions")
    after = np.delete(np.arange(len(code)), first)  # rows with a row of the same symbol before them
    ratio = close[after] / close[after - 1]
    if len(ratio):
        out["returns"] = {"smallest": round(float(ratio.min()) - 1, 6), "largest": round(float(ratio.max()) - 1, 6)}
    if market == "KRX":
        place = np.searchsorted(krx.sessions(day.min(), day.max()), day)
        missing = place[first + lengths - 1] - place[first] + 1 - lengths
        out["gaps"] = {"rows": int(missing.sum()), **_listed(missing, missing > 0, owners, limit, "sessions")}
        moved = after[np.abs(ratio - 1) > SMALLEST_LIMIT]
        before = close[moved - 1]
        rate = krx.limits(np.full(len(moved), WITHOUT_TICKS), day[moved])[1] / WITHOUT_TICKS - 1
        beyond = moved[np.abs(close[moved] / before - 1) > rate + LIMIT_SLACK + 1 / before]
        out |= _jumps(bars, close, day, beyond, place[beyond] - place[beyond - 1] > 1, actions, limit)
        off = np.mod(close, krx.tick(close, day))
        out["off_tick"] = round(float((off != 0).mean()), 4)
        out["saturdays"] = int(((day.astype(np.int64) + 4) % 7 == 6).sum())  # 1970-01-01 was a Thursday
        out["lettered"] = sum(not owner.isdigit() for owner in owners)
    return out | {"notes": notes(out)}


NOTES = {  # what `summary` counted -> the sentence that says it; where a dictionary was counted, its first number
    "without_volume": "{n} bars have no volume",
    "no_open_high_low": "{n} bars have no open, high and low: halts, or files of closes only",
    "uneven": "{n} steps between bars are longer than a bar: closed hours, weekends, or bars that are missing",
    "short": f"{{n}} symbols have fewer than {SHORT_ROWS} bars",
    "flat_runs": f"{{n}} symbols have the same close for {FLAT_SESSIONS} sessions or more, as in a halt",
    "gaps": "{n} sessions have no bar between a symbol's first and last",
    "beyond_limit": "{n} closes are beyond the price limit of their day",
    "basis_jumps": "{n} of them have neither an action nor missing sessions before: prices on two bases, or first days",
    "off_tick": "{n:.1%} of the closes are off any price tick, as adjusted prices are",
    "saturdays": "{n} bars are of Saturdays, which were sessions until December 1998",
    "lettered": "{n} symbols have a letter in their code: preferred shares and codes since 2024",
}


def notes(found: dict[str, Any]) -> list[str]:
    """Return a sentence for each finding of `summary` that is not zero, and an example where it lists any."""
    out = []
    for name, sentence in NOTES.items():
        value = found.get(name)
        number = next(iter(value.values())) if isinstance(value, dict) else value
        if number:
            worst = value["worst"][:1] if isinstance(value, dict) else []
            example = "".join(f" ({', '.join(f'{k} {v}' for k, v in row.items())})" for row in worst)
            out.append(sentence.format(n=number if isinstance(number, float) else f"{number:,}") + example)
    return out


def _uneven(bars: pa.Table, code: Longs, interval: str, limit: int) -> dict[str, Any]:
    """Count steps from one bar of a symbol to its next that are longer than a bar, with the longest."""
    time = bars["ts"].cast(pa.int64()).to_numpy()
    step = np.diff(time)
    later = np.flatnonzero((np.diff(code) == 0) & (step > _LONGEST_US[interval[-1]] * int(interval.rstrip("mhdwo"))))
    worst = later[np.argsort(-step[later], kind="stable")][:limit]
    ends = bars.take(pa.array(worst)).select(["symbol", "ts"]).to_pylist()
    listed = [
        {
            "symbol": row["symbol"],
            "after": row["ts"].strftime("%Y-%m-%d %H:%M"),
            "hours": round(int(step[i]) / 3.6e9, 2),
        }
        for row, i in zip(ends, worst)
    ]
    return {"rows": len(later), "symbols": len(np.unique(code[later])), "worst": listed}


def _listed(
    numbers: Longs, chosen: Bools, owners: list[str], limit: int, unit: str, *, smallest: bool = False
) -> dict[str, Any]:
    places = np.flatnonzero(chosen)
    worst = places[np.argsort(numbers[places] if smallest else -numbers[places], kind="stable")][:limit]
    return {"symbols": len(places), "worst": [{"symbol": owners[i], unit: int(numbers[i])} for i in worst]}


def _longest_runs(close: Floats, first: Longs) -> Longs:
    """Return the longest run of equal closes of each symbol, in bars."""
    start = np.append(True, close[1:] != close[:-1])
    start[first] = True
    runs = np.flatnonzero(start)
    length = np.diff(np.append(runs, len(close)))
    return np.maximum.reduceat(length, np.searchsorted(runs, first))


def _jumps(
    bars: pa.Table,
    close: Floats,
    day: npt.NDArray[np.datetime64],
    beyond: Longs,
    gap: Bools,
    actions: pa.Table | None,
    limit: int,
) -> dict[str, Any]:
    symbols = bars["symbol"].take(pa.array(beyond)).to_pylist()
    known = (
        set() if actions is None else set(zip(actions["symbol"].to_pylist(), map(str, actions["ex_date"].to_pylist())))
    )
    explained = np.array([(symbol, str(d)) in known for symbol, d in zip(symbols, day[beyond])], bool)
    ratio = close[beyond] / close[beyond - 1]

    def worst(chosen: Bools) -> list[dict[str, Any]]:
        places = np.flatnonzero(chosen)
        places = places[np.argsort(-np.abs(np.log(ratio[places])), kind="stable")][:limit]
        return [{"symbol": symbols[i], "date": str(day[beyond[i]]), "ratio": round(float(ratio[i]), 4)} for i in places]

    bare = ~gap & ~explained
    return {
        "beyond_limit": {
            "rows": len(beyond),
            "after_gap": int(gap.sum()),
            "explained": int(explained.sum()),
            "worst": worst(np.ones(len(beyond), bool)),
        },
        "basis_jumps": {"rows": int(bare.sum()), "worst": worst(bare)},
    }
