"""The simulated market: a pure function of (seed, symbol, time) that shows itself as far as its clock has come.

Nothing is stored until it is asked for, any page can be asked for in any order, and what was shown once never changes.
Paths come from `paths.py`, minutes from `intraday.py`, listings from `universe.py`; here they are cut at the clock and
given the columns of the wire. A view is a market code of the wire and says which segments of a day are shown
(`views.py`, `extended.py`).
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import krx
from pipeline.kis.simulator import extended, intraday, paths
from pipeline.kis.simulator.extended import Extended
from pipeline.kis.simulator.intraday import Minutes
from pipeline.kis.simulator.joined import BAR, join_days, session
from pipeline.kis.simulator.paths import DAYS, Floats, Path
from pipeline.kis.simulator.universe import Listing, listing, stream
from pipeline.kis.simulator.views import REGULAR, DayEnds, View, hours, views

SIGNAL = 0.1  # kappa of the default market
Columns = dict[str, npt.NDArray[Any]]
PRICES = ("open", "high", "low", "close")
_CACHED_PATHS = 160  # of about 0.7 MB
_CACHED_BARS = 64  # of the other segments, about 0.15 MB

SYMBOL_ROWS = pa.schema(
    [
        ("symbol", pa.string()),
        ("name", pa.string()),
        ("market", pa.string()),
        ("sector", pa.string()),
        ("kind", pa.string()),
        ("listed", pa.date32()),
        ("delisted", pa.date32()),
        ("shares", pa.float64()),
        ("halted", pa.bool_()),
        ("administrative", pa.bool_()),
        ("as_of", pa.date32()),
    ]
)
ACTION_ROWS = pa.schema(
    [("symbol", pa.string()), ("ex_date", pa.date32()), ("kind", pa.string()), ("factor", pa.float64())]
)


class UnknownSymbol(KeyError):
    """A code that is not, or not yet, listed."""

    def __str__(self) -> str:
        """Say which code."""
        return f"expected a symbol of the simulated market, got {self.args[0]!r}; see Market.symbols()"


class Market:
    """A market of `n_symbols` listings. `signal` is kappa, the strength of the planted signal; 0 plants none.

    `clock` returns the market's time (aware); without one it is the real time. All days are KST days, all times UTC,
    prices KRW. `day_ends` says whether J shows KRX's after-market, too.
    """

    def __init__(
        self,
        seed: int = 7,
        n_symbols: int = 100,
        *,
        signal: float = SIGNAL,
        clock: Callable[[], datetime] | None = None,
        day_ends: DayEnds = "close",
    ) -> None:
        if n_symbols < 1:
            raise ValueError(f"expected at least one symbol, got {n_symbols}")
        self.seed, self.kappa = seed, signal
        self._clock = clock or (lambda: datetime.now(UTC))
        self.listings = tuple(listing(seed, number) for number in range(n_symbols))
        self._by_symbol = {item.symbol: item for item in self.listings}
        self.factors = paths.factors(seed)
        self.path = lru_cache(maxsize=_CACHED_PATHS)(self._path)
        self._extended = lru_cache(maxsize=_CACHED_BARS)(self._extended_of)
        self.parts = views(day_ends)

    def _path(self, symbol: str) -> Path:
        return paths.path(self.seed, self._by_symbol[symbol], self.factors, self.kappa)

    def _extended_of(self, symbol: str) -> Extended:
        return extended.extended(self.seed, self._by_symbol[symbol], self.path(symbol))

    def now(self) -> datetime:
        """Return the market's time, aware, UTC."""
        return self._clock().astimezone(UTC)

    def today(self) -> date:
        """Return the market's KST date."""
        return self.now().astimezone(krx.KST).date()

    def listing(self, symbol: str) -> Listing:
        """Return a listing that has been listed by now, delisted ones too. Raises UnknownSymbol."""
        item = self._by_symbol.get(symbol)
        if item is None or item.listed > self.today():
            raise UnknownSymbol(symbol)
        return item

    def instant(self) -> np.datetime64:
        """Return the market's time as datetime64[us], UTC."""
        return np.datetime64(self.now().replace(tzinfo=None), "us")

    def closed(self, view: View = "J") -> int:
        """Return how many sessions of the whole axis are over."""
        return int(np.searchsorted(hours(self.parts[view])[1], self.instant(), side="right"))

    def running(self, view: View = "J") -> int | None:
        """Return the place of the session that is going on and whose first minute is over, or None."""
        at, opens = self.closed(view), hours(self.parts[view])[0]
        return at if at < len(DAYS) and opens[at] + np.timedelta64(1, "m") <= self.instant() else None

    def symbols(self) -> pa.Table:
        """Return all listings up to now, delisted ones included, as SYMBOL_ROWS."""
        return pa.Table.from_pylist([self.facts(item) for item in self.listings if self._listed(item)], SYMBOL_ROWS)

    def on_board(self, market: str) -> list[Listing]:
        """Return what is listed on a market today."""
        today = self.today()
        here = (item for item in self.listings if item.market == market and item.listed <= today)
        return [item for item in here if item.delisted is None or item.delisted > today]

    def _listed(self, item: Listing) -> bool:
        return item.listed <= self.today()

    def facts(self, item: Listing) -> dict[str, Any]:
        """Return a listing as a row of SYMBOL_ROWS, with the name and the shares of today."""
        today, at, gone = self.today(), max(self.closed() - 1, 0), self.gone(item)
        return {
            "symbol": item.symbol,
            "name": item.name_on(today),
            "market": item.market,
            "sector": item.sector,
            "kind": item.kind,
            "listed": item.listed,
            "delisted": gone,
            "shares": float(paths.shares(item)[min(at, paths.span(item)[1] - 1)]),
            "halted": bool(gone is None and paths.halts(self.seed, item)[at]),
            "administrative": self.administrative(item),
            "as_of": today,
        }

    def on_nxt(self, item: Listing) -> tuple[bool, bool]:
        """Say whether NXT has an issue on its list today, and whether it is halted there."""
        at = int(np.searchsorted(DAYS, np.datetime64(self.today()), side="right")) - 1
        listed = self.gone(item) is None and bool(extended.member(self.seed, item, DAYS[at : at + 1])[0])
        return listed, listed and bool(paths.halts(self.seed, item)[at])

    def gone(self, item: Listing) -> date | None:
        """Return the day of the delisting if it has come."""
        return item.delisted if item.delisted is not None and item.delisted <= self.today() else None

    def standing(self, item: Listing) -> tuple[float, float]:
        """Return (base price of the running or coming session in KRW, volume of the last closed session in shares),
        without making the whole path."""
        closed, running = self.closed(), self.running()
        tail = paths.path(self.seed, item, self.factors, self.kappa, closed - 1)
        last = closed - 1 - tail.first
        if last < 0:
            return item.price, 0.0
        base = tail.close[last] if running is None or last + 1 >= len(tail.base) else tail.base[last + 1]
        return float(base), float(tail.volume[last])

    def administrative(self, item: Listing) -> bool:
        """Say whether an issue is under administration: the last 120 sessions before a delisting."""
        return item.delisted is not None and self.closed() >= paths.span(item)[1] - 120

    def daily(
        self,
        symbol: str,
        start: krx.Day | None = None,
        end: krx.Day | None = None,
        *,
        adjusted: bool = False,
        view: View = "J",
    ) -> Columns:
        """Return a symbol's sessions in [start, end] as far as the clock has come, oldest first; raw unless `adjusted`.

        Columns: date (datetime64[D]); open, high, low, close (KRW; NaN open, high, low on a day without trade); volume
        (shares); turnover (KRW); base (KRW); upper, lower (limits, KRW); halted (bool); sign (int8, KIS's code); lock,
        reason (text); ratio (%, base price / previous close on the day of an action, else 0). A running session is
        shown as it stands. NXT has no rows of days without a trade, and base prices and limits are those of KRX.
        `adjusted` divides prices before an action by its factor, as KIS does for display, and so looks ahead. Raises
        UnknownSymbol.
        """
        item = self.listing(symbol)
        whole, first = self.path(symbol), paths.span(item)[0]
        running = self.running(view)
        shown = self.closed(view) - first + (running is not None)
        shown = min(max(shown, 0), len(whole.close))
        begin = 0 if start is None else int(np.searchsorted(DAYS[first:], krx.day64(start)))
        stop = shown if end is None else min(int(np.searchsorted(DAYS[first:], krx.day64(end), side="right")), shown)
        columns = self._columns(item, whole, begin, max(stop, begin))
        regular = self.parts[view] == REGULAR
        if not regular:
            join_days(columns, self._extended(symbol), begin, max(stop, begin), self.parts[view])
        if running is not None and begin < stop == running - first + 1:
            self._as_it_stands(item, whole, columns, running, self.parts[view])
        if not regular:
            shows = (columns["volume"] > 0.0) | (columns["halted"] & ("regular" in self.parts[view]))
            columns = {name: values[shows] for name, values in columns.items()}
        columns["sign"] = _signs(columns)
        return self._adjusted(item, whole, columns, shown) if adjusted else columns

    def _columns(self, item: Listing, whole: Path, begin: int, stop: int) -> Columns:
        part = whole.cut(begin, stop)
        names = (*PRICES, "volume", "turnover", "base", "upper", "lower", "halted")
        columns: Columns = {name: getattr(part, name).copy() for name in names}
        columns["date"] = DAYS[part.first : part.first + stop - begin]
        columns["lock"] = np.full(stop - begin, "00", "U2")
        columns["reason"] = np.full(stop - begin, "", "U2")
        columns["ratio"] = np.zeros(stop - begin)
        for at, event in self._events(item, whole):
            if begin <= at < stop:
                columns["lock"][at - begin], columns["reason"][at - begin] = event.lock, event.reason
                columns["ratio"][at - begin] = round(100.0 * whole.base[at] / whole.close[at - 1], 2)
        return columns

    @staticmethod
    def _events(item: Listing, whole: Path) -> list[tuple[int, Any]]:
        found = ((int(np.searchsorted(DAYS, np.datetime64(event.day))) - whole.first, event) for event in item.events)
        return [(at, event) for at, event in found if 0 < at < len(whole.close)]

    def _as_it_stands(self, item: Listing, whole: Path, columns: Columns, place: int, parts: tuple[str, ...]) -> None:
        """Cut the last row, the running session, at the clock."""
        if columns["halted"][-1]:
            return
        segments = list(self._segments(item, whole, place, parts).values())
        if not segments:
            return
        so_far = intraday.merged(segments).until(self.instant())
        columns["volume"][-1], columns["turnover"][-1] = so_far.volume.sum(), so_far.turnover.sum()
        if len(so_far.open):
            columns["open"][-1], columns["close"][-1] = so_far.open[0], so_far.close[-1]
            columns["high"][-1], columns["low"][-1] = so_far.high.max(), so_far.low.min()

    def _segments(self, item: Listing, whole: Path, place: int, parts: tuple[str, ...]) -> dict[str, Minutes]:
        other = None if parts == REGULAR else self._extended(item.symbol)
        return session(self.seed, item, whole, other, place, parts)

    def session(self, symbol: str, day: date, view: View = "J") -> dict[str, Minutes]:
        """Return the whole minutes of a day's segments by name, whatever the clock says, KRX's first; none on a day
        without trade. Raises UnknownSymbol."""
        item, whole = self.listing(symbol), self.path(symbol)
        place = int(np.searchsorted(DAYS, np.datetime64(day)))
        at = place - whole.first
        known = 0 <= at < len(whole.close) and DAYS[place].item() == day and not whole.halted[at]
        return self._segments(item, whole, place, self.parts[view]) if known else {}

    def _adjusted(self, item: Listing, whole: Path, columns: Columns, shown: int) -> Columns:
        factor = np.ones(len(columns["date"]))
        for at, event in self._events(item, whole):
            if at < shown:
                before = int(np.searchsorted(columns["date"], np.datetime64(event.day)))
                factor[:before] *= whole.base[at] / whole.close[at - 1]
        for name in (*PRICES, "base", "upper", "lower"):
            columns[name] = np.round(columns[name] * factor)
        columns["volume"] = np.round(columns["volume"] / factor)
        return columns

    def minutes(self, symbol: str, day: date, view: View = "J") -> Columns:
        """Return a session's minutes as far as the clock has come, oldest first; no rows on a day without trade.

        Columns: start, end (datetime64[us], UTC; the closing auction has start == end); open, high, low, close (KRW);
        volume (shares) and turnover (KRW) of the minute. They add up to the day. Raises UnknownSymbol.
        """
        parts = list(self.session(symbol, day, view).values())
        if not parts:
            stamps = {name: np.empty(0, "datetime64[us]") for name in ("start", "end")}
            return stamps | {name: np.empty(0) for name in BAR}
        minutes = (parts[0] if len(parts) == 1 else intraday.merged(parts)).until(self.instant())
        return {name: getattr(minutes, name) for name in ("start", "end", *BAR)}

    def actions(self, symbol: str) -> pa.Table:
        """Return a symbol's corporate actions up to now as ACTION_ROWS; factor = previous close / base price, so that
        raw prices times the factors up to a day continue each other. Raises UnknownSymbol."""
        item, whole = self.listing(symbol), self.path(symbol)
        shown = self.closed() + (self.running() is not None) - whole.first
        rows = [(at, event) for at, event in self._events(item, whole) if at < shown]
        factors = [float(whole.close[at - 1] / whole.base[at]) for at, _ in rows]
        return pa.table(
            [[symbol] * len(rows), [event.day for _, event in rows], [event.kind for _, event in rows], factors],
            schema=ACTION_ROWS,
        )

    def signal(self, symbol: str) -> tuple[krx.Days, Floats]:
        """Return (dates, s): the hidden state of a symbol on its sessions up to now. s_t shows in the volume of t and
        drives the returns of t+1; no client can see it, experiments may. Raises UnknownSymbol."""
        item = self.listing(symbol)
        first, last = paths.span(item)
        stop = max(min(self.closed(), last), first)
        return DAYS[first:stop].copy(), paths.hidden(self.seed, item)[first:stop]

    def flows(self, symbol: str, count: int = 30, end: krx.Day | None = None, view: View = "J") -> Columns:
        """Return buys and sells of persons, foreigners and institutions on the last `count` sessions up to `end`,
        oldest first.

        Columns: date, open, high, low, close, base, sign; `<who>_buy`, `<who>_sell` (shares); price (KRW a share, for
        turnovers). Sells of the three add up to the volume, and so do buys, but for rounding. Raises UnknownSymbol.
        """
        columns = self.daily(symbol, end=end, view=view)
        rows = {name: columns[name][-count:] for name in ("date", *PRICES, "base", "sign", "volume", "turnover")}
        tilt = stream(self.seed, "flows", self.listing(symbol).number).standard_normal((2, len(DAYS), 3))
        weights = np.exp(np.array([0.6, -0.4, -0.4]) + 0.35 * tilt[:, np.searchsorted(DAYS, rows["date"])])
        parts = np.floor(weights / weights.sum(axis=2, keepdims=True) * rows["volume"][:, None])
        for at, who in enumerate(("persons", "foreign", "institutions")):
            rows[f"{who}_buy"], rows[f"{who}_sell"] = parts[0, :, at], parts[1, :, at]
        rows["price"] = rows["turnover"] / np.maximum(rows["volume"], 1.0)
        return rows


def _signs(columns: Columns) -> npt.NDArray[np.int8]:
    close, base = columns["close"], columns["base"]
    moved = np.where(close > base, 2, np.where(close < base, 5, 3))
    limit = np.where(close >= columns["upper"], 1, np.where(close <= columns["lower"], 4, moved))
    return np.where(columns["halted"] | (close == base), 3, limit).astype(np.int8)
