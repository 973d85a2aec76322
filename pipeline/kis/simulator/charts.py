"""Pages of the chart calls: rows of the market rendered once, cut to what was asked, newest first.

Rows are kept as JSON bytes in chunks of sessions, because a history is asked for in many overlapping pages: a page is
then a join.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import orjson
import pyarrow as pa

from pipeline import krx
from pipeline.kis import layouts
from pipeline.kis.quotations import INDEX_MINUTES
from pipeline.kis.simulator import render
from pipeline.kis.simulator.indices import index_minutes, index_rows
from pipeline.kis.simulator.market import PRICES, Columns, Market
from pipeline.kis.simulator.paths import DAYS, span
from pipeline.kis.simulator.universe import stream
from pipeline.kis.simulator.views import REGULAR, View, starts

_CHUNK = 256  # sessions rendered together
_CHUNKS = 384  # of about 0.1 MB
_HISTORIES = 32  # rendered as a whole, of up to 2 MB
_YEAR = timedelta(days=366)  # minutes are kept about that long
_MINUTE = np.timedelta64(1, "m")
_FLOWS = ("persons", "foreign", "institutions")

Row = dict[str, str]
Rows = list[bytes]


@dataclass(frozen=True)
class Asked:
    """What a chart call asks for, checked: KST days, D W M or Y, and whose trades."""

    symbol: str
    start: np.datetime64
    end: np.datetime64
    period: str = "D"
    adjusted: bool = False
    view: View = "J"


def as_bytes(rows: list[Row]) -> Rows:
    """Render rows as JSON, one by one. Values of chart rows are digits, signs and flags, so that nothing needs
    escaping."""
    if not rows:
        return []
    template = "{" + ",".join(f'"{name}":"%s"' for name in rows[0]) + "}"
    return [(template % tuple(row.values())).encode() for row in rows]


def daily_rows(columns: Columns) -> Rows:
    """Render market columns as rows of FHKST03010100, in the same order."""
    return render.daily_lines(columns | {"untraded": columns["halted"]})


def by_period(columns: Columns, period: str) -> Columns:
    """Put daily columns together to weeks, months or years; a period is named by its last session so far. Days add up
    exactly."""
    if period == "D" or not len(columns["date"]):
        return columns
    days = columns["date"]
    # 1970-01-01 was a Thursday: four days on, weeks of seven days begin on Mondays
    label = (days.astype(np.int64) + 3) // 7 if period == "W" else days.astype(f"datetime64[{period}]").astype(np.int64)
    first = np.flatnonzero(np.append(True, label[1:] != label[:-1]))
    last = np.append(first[1:], len(days)) - 1
    out = {name: columns[name][last] for name in ("date", "close", "sign", "lock", "ratio", "reason")}
    with np.errstate(invalid="ignore"):
        out["high"], out["low"] = np.fmax.reduceat(columns["high"], first), np.fmin.reduceat(columns["low"], first)
    for name in ("volume", "turnover"):
        out[name] = np.add.reduceat(columns[name], first)
    out["halted"] = np.logical_and.reduceat(columns["halted"], first)
    known = np.where(np.isnan(columns["open"]), len(days), np.arange(len(days)))
    opened = np.minimum.reduceat(known, first)
    out["open"] = np.where(out["halted"], np.nan, columns["open"][np.minimum(opened, len(days) - 1)])
    out["base"] = columns["base"][first]
    moved = np.sign(out["close"] - out["base"])
    out["sign"] = np.select([moved > 0, moved < 0], [2, 5], 3).astype(np.int8)
    return out


@dataclass(frozen=True)
class Rewriting:
    """A broker that has rewritten history: for a share of the symbols, daily prices before the last `sessions` closed
    sessions are shown times `factor`. Which symbols follows from the seed alone."""

    seed: int
    share: float
    sessions: int
    factor: float

    def strikes(self, symbol: str) -> bool:
        """Say whether a symbol's history is rewritten."""
        return bool(stream(self.seed, "rewritten", symbol).random() < self.share)

    def of(self, columns: Columns, since: np.datetime64) -> Columns:
        """Return columns with the prices before `since` multiplied, in whole won; volume and turnover stay."""
        old = columns["date"] < since
        names = (*PRICES, "base", "upper", "lower")
        return columns | {name: np.where(old, np.round(columns[name] * self.factor), columns[name]) for name in names}


class Charts:
    """Rendered rows of one market."""

    def __init__(self, market: Market, rewriting: Rewriting | None = None) -> None:
        self.market, self.rewriting = market, rewriting
        self._chunk = lru_cache(maxsize=_CHUNKS)(self._render_chunk)
        self._periods = lru_cache(maxsize=_HISTORIES)(self._render_periods)
        self._session = lru_cache(maxsize=512)(self._render_session)

    def _shown(self, symbol: str, columns: Columns) -> Columns:
        """Return daily columns as they are to be seen: those of a rewritten history are multiplied."""
        if self.rewriting is None or not self.rewriting.strikes(symbol):
            return columns
        return self.rewriting.of(columns, DAYS[max(self.market.closed() - self.rewriting.sessions, 0)])

    def stamp(self, view: View = "J") -> int:
        """Return a number that changes when what the market shows may change: each session's end, and each minute of a
        session."""
        running = self.market.running(view)
        minute = 0 if running is None else int(self.market.instant().astype("datetime64[m]").astype(np.int64))
        return self.market.closed(view) * 100_000_000 + minute

    def _render_chunk(self, symbol: str, at: int, adjusted: bool, actions: int) -> tuple[int, Rows]:
        """Render the closed sessions of one chunk: the first one's place, and the rows. `actions` (how many are known)
        keeps adjusted rows of different times apart."""
        days = DAYS[at * _CHUNK : (at + 1) * _CHUNK]
        columns = self._shown(symbol, self.market.daily(symbol, days[0], days[-1], adjusted=adjusted))
        first = int(np.searchsorted(DAYS, columns["date"][0])) if len(columns["date"]) else at * _CHUNK
        return first, daily_rows(columns)

    def _render_periods(
        self, symbol: str, period: str, adjusted: bool, view: View, stamp: int
    ) -> tuple[krx.Days, Rows]:
        columns = by_period(self._shown(symbol, self.market.daily(symbol, adjusted=adjusted, view=view)), period)
        return columns["date"], daily_rows(columns)

    def daily(self, asked: Asked, most: int) -> Rows:
        """Return the latest `most` rows of FHKST03010100 in the range, newest first. Raises UnknownSymbol."""
        if asked.period != "D" or self.market.parts[asked.view] != REGULAR:
            stamp = self.stamp(asked.view)
            days, rows = self._periods(asked.symbol, asked.period, asked.adjusted, asked.view, stamp)
            first, last = np.searchsorted(days, asked.start), np.searchsorted(days, asked.end, side="right")
            return rows[int(first) : int(last)][-most:][::-1]
        listed, gone = span(self.market.listing(asked.symbol))
        closed = self.market.closed()
        begin: int = max(int(np.searchsorted(DAYS, asked.start)), listed)
        stop: int = min(int(np.searchsorted(DAYS, asked.end, side="right")), gone)
        page: Rows = []
        if closed < stop:
            page = self._running(asked)
            stop = closed
        actions = self.market.actions(asked.symbol).num_rows if asked.adjusted else 0
        begin = max(begin, stop - most + len(page))
        rewritten = self.rewriting is not None and self.rewriting.strikes(asked.symbol)
        for chunk in range((stop - 1) // _CHUNK, begin // _CHUNK - 1, -1) if stop > begin else ():
            full = (chunk + 1) * _CHUNK <= closed and not rewritten
            get = self._chunk if full else self._open_chunk
            place, rows = get(asked.symbol, chunk, asked.adjusted, actions)
            page += rows[max(begin - place, 0) : max(stop - place, 0)][::-1]
        return page[:most]

    def _open_chunk(self, symbol: str, at: int, adjusted: bool, actions: int) -> tuple[int, Rows]:
        """The same for a chunk that is not over: kept until the next session is."""
        return self._chunk(symbol, at, adjusted, actions + 1_000_000 * self.stamp())

    def _running(self, asked: Asked) -> Rows:
        running = self.market.running()
        if running is None:
            return []
        return daily_rows(self.market.daily(asked.symbol, DAYS[running], DAYS[running], adjusted=asked.adjusted))

    def _render_session(self, symbol: str, day: date, view: View, stamp: int) -> tuple[list[int], list[Row]]:
        """Return (labels as seconds of the KST day, rows), oldest first."""
        minutes = self.market.minutes(symbol, day, view)
        if not len(minutes["end"]):
            return [], []
        table = pa.table(
            [
                pa.array(np.full(len(minutes["end"]), day, "datetime64[D]")),
                pa.array(minutes["end"]).cast(layouts.STAMP),
                *(minutes[name] for name in PRICES),
                minutes["volume"],
                np.cumsum(minutes["turnover"]),
            ],
            schema=layouts.MINUTE_ROWS,
        )
        rows = render.minutes(table)
        return [_seconds(row["stck_cntg_hour"]) for row in rows], rows

    def session(self, symbol: str, day: date, until: int, view: View = "J") -> list[Row]:
        """Return the minutes of a day that have a label up to `until` (seconds of the KST day), newest first."""
        over = np.datetime64(day) <= DAYS[max(self.market.closed(view) - 1, 0)]
        labels, rows = self._session(symbol, day, view, 0 if over else self.stamp(view))
        return rows[: int(np.searchsorted(labels, until, side="right"))][::-1]

    def minutes_past(self, symbol: str, day: date, until: int, *, past: bool, most: int, view: View = "J") -> Rows:
        """Return up to `most` minutes at or before (day, until), newest first.

        Where the day has none by then (a holiday, an early hour), those of the session before it, as KIS does; with
        `past` earlier sessions fill the page. Nothing older than about a year.
        """
        rows: list[Row] = []
        oldest = max(self.market.today() - _YEAR, (krx.NXT_FIRST if view == "NX" else DAYS[0]).item())
        while len(rows) < most and day >= oldest:
            rows += self.session(symbol, day, until, view)
            if rows and not past:
                break
            day, until = krx.previous_session(day), 86_400
        return as_bytes(rows[:most])

    def minutes_today(self, symbol: str, until: int, *, past: bool, most: int, view: View = "J") -> Rows:
        """Return up to `most` minutes of today at or before `until`, newest first.

        During a session the running minute shows the price it began with and the volume of the minute before, and
        minutes still to come are filled with the current price, both as KIS does. With `past`, where today has none by
        then, the session before it.
        """
        today = self.market.today()
        rows = self._to_come(symbol, today, until, view) + self.session(symbol, today, until, view)
        if not rows and past:  # clients page until 09:00 with `past` on, so a page never leaves today once it is there
            rows = self.session(symbol, krx.previous_session(today), 86_400, view)
        return as_bytes(rows[:most])

    def _to_come(self, symbol: str, today: date, until: int, view: View) -> list[Row]:
        running = self.market.running(view)
        known = self.session(symbol, today, 86_400, view) if running is not None else []
        if running is None or not known:
            return []
        latest = known[0]
        flat = dict.fromkeys(("stck_oprc", "stck_hgpr", "stck_lwpr"), latest["stck_prpr"])
        now = self.market.now().astimezone(krx.KST)
        current = now.hour * 3600 + now.minute * 60
        rows = []
        for label in self._labels(running, view):
            if not max(_seconds(latest["stck_cntg_hour"]), current - 60) < label <= until:
                continue
            volume = latest["cntg_vol"] if label == current else "0"
            rows.append(
                latest | flat | {"stck_cntg_hour": f"{label // 3600:02d}{label // 60 % 60:02d}00", "cntg_vol": volume}
            )
        return rows[::-1]

    def _labels(self, place: int, view: View) -> list[int]:
        """Return the labels of a session's minutes in seconds of the KST day, without that of the closing auction."""
        found = [starts(name, place) for name in self.market.parts[view]]
        found[0] = found[0][:-1] if self.market.parts[view][0] == "regular" else found[0]
        day = DAYS[place].astype("datetime64[s]") - np.timedelta64(9, "h")
        return np.unique((np.concatenate(found) - day).astype("timedelta64[s]").astype(np.int64)).tolist()  # type: ignore[no-any-return]

    def index(
        self, code: str, start: np.datetime64, end: np.datetime64, period: str, most: int
    ) -> tuple[Rows, Columns]:
        """Return the latest `most` rows of FHKUP03500100, newest first, and the columns behind them. Raises
        KeyError."""
        columns = index_rows(self.market, code, start, end)
        blank = np.zeros(len(columns["date"]))
        whole = columns | dict.fromkeys(("ratio", "sign", "lock", "reason"), blank)
        whole |= {"halted": np.zeros(len(columns["date"]), bool), "base": columns["before"]}
        put = by_period(whole, period)
        tail = {name: put[name][-most:] for name in ("date", *PRICES, "volume", "turnover", "base")}
        table = pa.table(
            [
                pa.array(tail["date"]),
                pa.array(krx.session_closes(tail["date"])).cast(layouts.STAMP),
                *(tail[name] for name in (*PRICES, "volume", "turnover")),
            ],
            schema=layouts.INDEX_ROWS,
        )
        return as_bytes(render.index(table))[::-1], tail

    def index_minutes(self, code: str, seconds: int, *, past: bool, most: int) -> tuple[Rows, Columns]:
        """Return the latest `most` rows of FHKUP03500200, newest first, of earlier sessions too with `past`, and the
        columns of the day behind them. Raises KeyError."""
        day, rows = self.market.today(), list[Row]()
        while len(rows) < most:
            bars = index_minutes(self.market, code, day, seconds)
            starts: krx.Days = np.add(bars["start"], np.timedelta64(9, "h"))
            times = np.datetime_as_string(starts, unit="s").tolist()
            columns = {
                "stck_bsop_date": [time[:10].replace("-", "") for time in times],
                "stck_cntg_hour": [time[11:].replace(":", "") for time in times],
                "bstp_nmix_prpr": render.decimal(bars["close"]),
                "bstp_nmix_oprc": render.decimal(bars["open"]),
                "bstp_nmix_hgpr": render.decimal(bars["high"]),
                "bstp_nmix_lwpr": render.decimal(bars["low"]),
                "cntg_vol": render.whole(bars["volume"]),
                "acml_tr_pbmn": render.whole(bars["cumulative"]),
            }
            fields = INDEX_MINUTES.fields
            rows += [dict(zip(fields, row)) for row in zip(*(columns[field] for field in fields))][::-1]
            if not past or day <= DAYS[0].item():
                break
            day = krx.previous_session(day)
        _, last = self.index(code, np.datetime64(day - timedelta(days=20)), np.datetime64(self.market.today()), "D", 2)
        return as_bytes(rows[:most]), last

    def latest_prices(self, asked: Asked, most: int) -> Rows:
        """Return the rows of FHKST01010400, the latest `most` periods, newest first. Raises UnknownSymbol."""
        columns = by_period(
            self._shown(asked.symbol, self.market.daily(asked.symbol, adjusted=asked.adjusted, view=asked.view)),
            asked.period,
        )
        rows = [orjson.loads(row) for row in daily_rows({name: values[-most:] for name, values in columns.items()})]
        before = np.append(np.nan, columns["volume"][:-1])[-most:]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = render.decimal(np.nan_to_num(100.0 * columns["volume"][-most:] / before, posinf=0.0))
            change = render.decimal(100.0 * (columns["close"] / columns["base"] - 1.0)[-most:])
        extra = {"hts_frgn_ehrt": "20.00", "frgn_ntby_qty": "0"}
        for at, row in enumerate(rows):
            row |= extra | {"prdy_vrss_vol_rate": rate[at], "prdy_ctrt": change[at], "acml_prtt_rate": row["prtt_rate"]}
        return as_bytes([{field: row[field] for field in layouts.DAILY_PRICE.fields} for row in rows])[::-1]

    def investors(self, symbol: str, most: int, view: View = "J") -> Rows:
        """Return the flows of the latest sessions, newest first; of a running session blanks. Raises UnknownSymbol."""
        flows = self.market.flows(symbol, most, view=view)
        days, million = flows["date"], flows["price"] / 1e6
        running = self.market.running(view)
        unknown = np.zeros(len(days), bool) if running is None else days == DAYS[running]
        columns = {"date": pa.array(days), "ts": pa.array(krx.session_closes(days)).cast(layouts.STAMP)}
        columns |= {"close": pa.array(flows["close"]), "change": pa.array(flows["close"] - flows["base"])}
        columns["sign"] = pa.array(flows["sign"])
        for who in _FLOWS:
            buy, sell = flows[f"{who}_buy"], flows[f"{who}_sell"]
            for what, volume in (("net", buy - sell), ("buy", buy), ("sell", sell)):
                columns[f"{who}_{what}_volume"] = pa.array(volume, mask=unknown)
                columns[f"{who}_{what}_turnover"] = pa.array(np.round(volume * million), mask=unknown)
        table = pa.table({name: columns[name] for name in layouts.INVESTOR_ROWS.names}, schema=layouts.INVESTOR_ROWS)
        return as_bytes(render.investors(table))[::-1]


def _seconds(label: str) -> int:
    return int(label[:2]) * 3600 + int(label[2:4]) * 60 + int(label[4:])
