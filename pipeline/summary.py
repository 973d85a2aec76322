"""What a set of bars looks like: what is unusual and stays in the lake, in small numbers and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from . import krx
from .kis.columns import Days
from .quality import DAY_US, KST_US, Bools, Floats, Longs, Market, floats, ranks

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
SMALLEST_LIMIT = 0.03  # no move below this can be beyond a limit of any year
# Limits are compared as rates and with a slack, because adjusted prices are off the ticks to which limits are cut.
LIMIT_SLACK = 0.005
WITHOUT_TICKS = 1e9  # a base price, KRW, at which ticks do not matter


def summary(
    bars: pa.Table,
    *,
    market: Market,
    actions: pa.Table | None = None,
    torn: Mapping[str, Days] | None = None,
    limit: int = 10,
) -> dict[str, Any]:
    """Describe the bars of one interval in small numbers for the report; JSON-able.

    bars : checked BARS sorted by (symbol, ts). actions : ACTIONS that explain jumps of raw prices. torn : days by
    symbol of which the source left bars out, None where it is not known. `limit` bounds each list of examples, worst
    first.

    Returns rows, symbols, start, end, without_volume (rows), no_open_high_low (rows) and notes, a sentence for each
    finding that is not zero; with `torn` {days, symbols, worst: the latest}; for bars of other markets uneven {rows:
    steps from one bar to the next that are longer than a bar; symbols; worst in hours}, which is weekends, holidays and
    rows that are missing; for daily bars also short {symbols: with fewer than SHORT_ROWS bars}, flat_runs {symbols:
    with FLAT_SESSIONS or more equal closes in a row, the way a halt looks in close-only files}, returns {smallest,
    largest: from one bar to the next}; and for daily bars of KRX gaps {rows: sessions without a bar between a symbol's
    first and last; symbols}, beyond_limit {rows: moves from close to close beyond the KOSPI's limit of that day, with
    LIMIT_SLACK and a won of tolerance; after_gap: those of them with sessions missing before; explained: by an action
    of that day}, basis_jumps {rows: beyond the limit with neither: prices that do not share one basis, or a first day
    without limit}, off_tick (share of closes that no tick of their day allows: large in adjusted prices), saturdays
    (rows; sessions until 1998-12) and lettered (symbols with a letter in their code).
    """
    if bars.num_rows == 0:
        return {"rows": 0, "symbols": 0}
    shift = KST_US if market == "KRX" else 0
    day = ((bars["ts"].cast(pa.int64()).to_numpy() + shift - 1) // DAY_US).astype("datetime64[D]")
    close = floats(bars["close"])
    code = ranks(bars["symbol"])
    first = np.flatnonzero(np.append(True, code[1:] != code[:-1]))
    lengths = np.diff(np.append(first, len(code)))
    owners = bars["symbol"].take(pa.array(first)).to_pylist()
    out: dict[str, Any] = {
        "rows": bars.num_rows,
        "symbols": len(first),
        "start": str(day.min()),
        "end": str(day.max()),
        "without_volume": int((floats(bars["volume"]) == 0).sum()),
        "no_open_high_low": int(np.isnan(floats(bars["open"])).sum()),
    }
    if torn is not None:
        every = sorted(((day, symbol) for symbol, days in torn.items() for day in days.tolist()), reverse=True)
        latest = [{"symbol": symbol, "date": str(day)} for day, symbol in every[:limit]]
        out["torn"] = {"days": len(every), "symbols": len(torn), "worst": latest}
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
    "torn": "{n} days lack minutes that the broker left out, as the turnover of the next minute shows",
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
