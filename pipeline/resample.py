"""Coarser bars from finer ones: 3m to 4h and 1d from minutes, weeks and months from days; which of them are complete.

A coarse bar is stamped with its scheduled end, which no symbol's missing trades can move: so a reader knows by the
clock alone whether anything may still join it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import krx, venues
from storage.schema import BARS

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
MINUTES = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240}
PERIODS = ("1w", "1mo")
DERIVED = pa.schema([*BARS, pa.field("complete", pa.bool_(), metadata={"unit": "its end has passed"})])
_MINUTE, _DAY = 60_000_000, 86_400_000_000  # microseconds
_NEVER = np.iinfo(np.int64).min // 2


def derive(
    bars: pa.Table,
    interval: str,
    *,
    venue: str,
    since: date | None = None,
    until: datetime | None = None,
    actions: pa.Table | None = None,
) -> pa.Table:
    """Return bars of a coarser interval as BARS with a column `complete`, sorted by (symbol, ts), stamps unique.

    bars : BARS of one interval, one venue and one source, sorted by (symbol, ts), KRW and shares as they come.
    interval : 3m, 5m, 15m, 30m, 1h, 2h, 4h or 1d from minutes (1m or any that divides it), 1w and 1mo from 1d.

    Intraday buckets count from the opening of the regular session (a venue outside Korea: from midnight UTC) and are
    cut at the end of every segment and of the local day, so that the last one may be short. Days, weeks and months end
    at the scheduled close of their (last) session; KRX after-market rows are in no 1d bar. A print at the very close
    that a source labels with the minute beginning there (stamp one minute later) counts to the bar that the close ends.

    open is the first that is not NaN, high and low leave NaN out, close is the last; so a halted day keeps its close
    and moves no extreme. volume is NaN and turnover null as soon as one part is: an unknown part leaves the sum
    unknown.

    actions : ACTIONS rows. A bucket across an ex-date is put on the basis of its end: with F(t) the product of the
    factors up to t, the prices of a bar at t are multiplied by F(t) / F(end), volumes divided by it. The result is raw
    in the sense of its own stamp, and adjusting it by the same actions gives what adjusted fine bars would have given.

    complete says that `until` (aware; default: the end of the latest bar of all symbols) is not before the stamp:
    minutes without a trade do not make a bar incomplete; and of weeks and months that their first session is not before
    `since`, the first day that was asked for (default: none is). Raises ValueError for bars that break these rules,
    krx.CalendarError for a week or month with a bar on a day without a session.
    """
    if until is not None and until.tzinfo is None:
        raise ValueError(f"expected a time with its zone as until, got {until!r}; use datetime.now(UTC)")
    if bars.num_rows == 0:
        return DERIVED.empty_table()
    _check_intervals(_only(bars, "interval"), interval)
    if (found := _only(bars, "venue")) != venue:
        raise ValueError(f"expected bars of {venue}, got those of {found}; derive each venue by itself")
    source = _only(bars, "source")
    fine = _rows(bars)
    end = _ends(fine.ts, venue, interval)
    latest = fine.ts.max()
    if interval in PERIODS:
        latest = max(latest, _ends(fine.ts[fine.ts == latest][:1], venue, "1d")[0])
    elif interval == "1d" and (beyond := fine.ts > end + _MINUTE).any():
        bars, end = bars.filter(pa.array(~beyond)), end[~beyond]
        if not bars.num_rows:
            return DERIVED.empty_table()
        fine = _rows(bars)
    first = np.append(True, end[1:] != end[:-1])
    first[fine.heads] = True
    starts = np.flatnonzero(first)
    values = {name: _numbers(bars, name) for name in ("open", "high", "low", "close", "volume", "turnover")}
    if actions is not None and actions.num_rows:
        _on_end_basis(values, fine, starts, end, actions, venue)
    if until is not None:
        now = np.datetime64(until.astimezone(UTC).replace(tzinfo=None), "us").astype(np.int64)
    else:
        now = latest
    stamp, count = end[starts], len(starts)
    turnover = np.add.reduceat(values["turnover"], starts)
    ingested = pc.fill_null(bars["ingested_at"].cast(pa.int64()), 0).to_numpy()
    owner = pa.array(np.searchsorted(fine.heads, starts, side="right") - 1)
    columns = [
        fine.names.take(owner),
        _repeated(venue, count),
        _repeated(interval, count),
        pa.array(stamp).cast(BARS.field("ts").type),
        _first_known(values["open"], starts),
        np.fmax.reduceat(values["high"], starts),
        np.fmin.reduceat(values["low"], starts),
        values["close"][np.append(starts[1:], len(end)) - 1],
        np.add.reduceat(values["volume"], starts),
        pa.array(turnover, mask=np.isnan(turnover)),
        _repeated(source, count),
        pa.array(np.maximum.reduceat(ingested, starts)).cast(BARS.field("ingested_at").type),
        pa.array((stamp <= now) & _begun(fine.ts[starts], venue, interval, since)),
    ]
    return pa.table(columns, schema=DERIVED)


def _begun(ts: Longs, venue: str, interval: str, since: date | None) -> npt.NDArray[np.bool_]:
    """Say for each bar, by the stamp of its first part, whether none of its sessions is before `since`."""
    out = np.ones(len(ts), bool)
    if since is None or interval not in PERIODS:
        return out
    day, days = np.datetime64(since, "D"), venues.days_of(venue, ts.astype("datetime64[us]"))
    begins = _period_begins(np.append(days, day), interval)
    if venues.is_session(venue, np.arange(begins[-1], day)).any():
        out = begins[:-1] != begins[-1]
    return out


def _period_begins(days: npt.NDArray[np.datetime64], interval: str) -> npt.NDArray[np.datetime64]:
    """Return the Monday of each day's week, or the first of its month."""
    if interval == "1mo":
        return days.astype("datetime64[M]").astype("datetime64[D]")
    return days - (days.astype(np.int64) + 3) % 7


@dataclass(frozen=True)
class _Rows:
    """Hold stamps (N,) int64 microseconds, the first row of each symbol and the symbols' names."""

    ts: Longs
    heads: Longs
    names: pa.Array


def _rows(bars: pa.Table) -> _Rows:
    """Read stamps and symbols. Raises ValueError unless sorted by (symbol, ts) without repetition."""
    ts = bars["ts"].cast(pa.int64()).to_numpy()
    symbol = bars["symbol"]
    if pa.types.is_dictionary(symbol.type):
        symbol = symbol.cast(symbol.type.value_type)
    changed = pc.not_equal(symbol.slice(1), symbol.slice(0, len(symbol) - 1)).to_numpy()
    heads = np.flatnonzero(np.append(True, changed))
    names = symbol.take(pa.array(heads)).combine_chunks()
    late = np.flatnonzero(~changed & (ts[1:] <= ts[:-1]))
    known = names.to_pylist()
    if late.size or known != sorted(set(known)):
        what = f"{symbol[late[0]]} twice at or before {bars['ts'][late[0]]}" if late.size else "symbols out of order"
        raise ValueError(f"expected bars sorted by (symbol, ts), one a stamp, got {what}; sort them, choose one source")
    return _Rows(ts, heads, names)


def _ends(ts: Longs, venue: str, interval: str) -> Longs:
    """Return the scheduled end of the coarse bar to which each row belongs.

    Rows of many symbols share their minutes: where these are fewer than the rows, they are worked out once each. A
    stamp inside a minute has the end of that minute's last stamp, since every bucket and segment ends on a whole
    minute.
    """
    base = int(ts.min()) // _MINUTE * _MINUTE
    if int(ts.max()) - base < len(ts) // 2 * _MINUTE:
        place = ts - base
        place += _MINUTE - 1
        place //= _MINUTE
        return _ends(base + np.arange(int(place.max()) + 1) * _MINUTE, venue, interval)[place]
    ahead = int(venues.zone(venue).astype("timedelta64[us]").astype(np.int64))
    day = (ts + (ahead - 1)) // _DAY  # a stamp is an end: midnight ends the day before
    used, place = np.unique(day, return_inverse=True)
    days = used.astype("datetime64[D]")
    if interval in MINUTES:
        end = _bucket_ends(ts, days, place, venue, MINUTES[interval] * _MINUTE)
        # The next day may open at another hour, from which its own buckets count.
        return cast(Longs, np.minimum(end, (day + 1) * _DAY - ahead))
    days = venues.days_of(venue, ((used + 1) * _DAY - ahead).astype("datetime64[us]"))
    if interval in PERIODS:
        days = venues.last_sessions(venue, days, interval)
    out: Longs = venues.closes(venue, days).astype(np.int64)[place]
    return out


def _bucket_ends(ts: Longs, days: krx.Days, place: Longs, venue: str, step: int) -> Longs:
    opens, cuts = np.zeros(len(days), np.int64), []
    if venue in krx.VENUES:
        opens = krx.session_opens(days).astype(np.int64)
        cuts = [close for _, close in krx.segments(venue, days).values()]
    shift = (opens % step)[place]
    end: Longs = (ts - shift + step - 1) // step * step + shift
    for cut in cuts:
        close = np.where(np.isnat(cut), _NEVER, cut.astype(np.int64))[place]
        np.copyto(end, close, where=(end > close) & (ts <= close + _MINUTE))
    return end


def _on_end_basis(
    values: dict[str, Floats], rows: _Rows, starts: Longs, end: Longs, actions: pa.Table, venue: str
) -> None:
    """Scale the rows of each bucket that lie before an ex-date up to the bucket's end."""
    factors = actions["factor"].to_numpy()
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(f"expected positive factors in actions, got {factors.min()}; correct the rows")
    place = {name: run for run, name in enumerate(rows.names.to_pylist())}
    limits = np.append(rows.heads, len(rows.ts))
    midnights = (actions["ex_date"].to_numpy().astype("datetime64[us]") - venues.zone(venue)).astype(np.int64)
    for name, midnight, factor in zip(actions["symbol"].to_pylist(), midnights.tolist(), factors.tolist()):
        if name not in place:
            continue
        start, stop = limits[place[name] : place[name] + 2]
        row = start + int(np.searchsorted(rows.ts[start:stop], midnight, side="right"))  # the first on the new basis
        if row > start and end[row - 1] > midnight:
            bucket = starts[np.searchsorted(starts, row - 1, side="right") - 1]
            for price in ("open", "high", "low", "close"):
                _own(values, price)[bucket:row] /= factor
            _own(values, "volume")[bucket:row] *= factor


def _own(values: dict[str, Floats], name: str) -> Floats:
    """Return a column that may be written to: those read without a copy belong to the table."""
    if not values[name].flags.writeable:
        values[name] = values[name].copy()
    return values[name]


def _first_known(values: Floats, starts: Longs) -> Floats:
    unknown = np.isnan(values)
    if not unknown[starts].any():
        return values[starts]
    rows = len(values)
    found = np.minimum.reduceat(np.where(unknown, rows, np.arange(rows)), starts)
    return np.where(found < rows, values[np.minimum(found, rows - 1)], np.nan)


def _numbers(bars: pa.Table, name: str) -> Floats:
    return np.asarray(bars[name].to_numpy(), np.float64)


def _repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text]).cast(pa.string())


def _only(bars: pa.Table, name: str) -> str:
    if pa.types.is_string(bars[name].type) and pc.all(pc.equal(bars[name], bars[name][0])).as_py():
        return cast(str, bars[name][0].as_py())  # a third of the time of counting them
    found = pc.unique(bars[name]).to_pylist()
    if len(found) != 1:
        raise ValueError(f"expected bars of one {name}, got {sorted(map(str, found))}; select one first")
    return cast(str, found[0])


def derivable(fine: str, coarse: str) -> bool:
    """Say whether bars of one interval can be made of those of another."""
    try:
        _check_intervals(fine, coarse)
    except ValueError:
        return False
    return True


def _check_intervals(fine: str, coarse: str) -> None:
    if coarse in PERIODS:
        known, possible = True, fine == "1d"
    else:
        known = coarse == "1d" or (coarse in MINUTES and coarse != "1m")
        possible = (
            fine in MINUTES and (coarse == "1d" or MINUTES.get(coarse, 1) % MINUTES[fine] == 0) and fine != coarse
        )
    if not known:
        names = ", ".join([*list(MINUTES)[1:], "1d", *PERIODS])
        raise ValueError(f"expected an interval of {names}, got {coarse!r}")
    if not possible:
        raise ValueError(f"expected 1d bars for 1w and 1mo, else minutes that divide {coarse}, got {fine}")
