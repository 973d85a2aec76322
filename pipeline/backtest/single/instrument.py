"""One symbol's bars as the event loop reads them: what could be traded when, at which price, tick and tax.

Prices are raw, and corporate actions multiply what is held; the columns that a strategy looks at are computed on
adjusted bars, which the rest of the project does too.

Shapes: T bars, R tick tables, B bands.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline import krx, venues
from pipeline.actions import adjust
from pipeline.indicators.timeframes import length_of
from pipeline.recurrence import Series
from pipeline.resample import PERIODS, derivable, derive
from pipeline.strategies.declare import StrategyError
from pipeline.tradable import Listing, bases, locks
from storage.schema import ACTIONS, BARS, TS

from ..money import RATE
from .event import ACTION, END, HALT, LAST, NO_SHORT, ROOM
from .frames import PRICES, UNNAMED, check_interval, check_venue, checked, interval_of, of_symbol
from .section import AccountSection

Array = npt.NDArray[Any]
BOUNDLESS = np.iinfo(np.int64).max // 4  # shares of a bar whose volume is not known
STOCK = Listing(("KOSPI",), ("stock",), (None,))


@dataclass(frozen=True)
class Instrument:
    """Hold the bars of one symbol and the arrays of `event.trade`; day_T : (T,) datetime64[D] of the venue. bars :
    pandas frame with symbol, ts (UTC) and adjusted bars, one row a bar, open, high and low NaN on a halt. terms : the
    account's settings in the arrays.
    """

    symbol: str
    venue: str
    interval: str
    bars: Any
    day_T: Array
    price_TC: Array
    flag_T: Array
    rule_TC: Array
    fact_TC: Array
    tick_RBC: Array
    terms: tuple[float | None, ...]
    _coarser: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _place: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.flag_T)

    def coarser(self, interval: str) -> Any:
        """Return its complete bars of a coarser interval as a frame. Raises StrategyError where there are none."""
        self.coarsen([interval])
        return self._coarser[interval]

    def coarsen(self, intervals: Iterable[str]) -> None:
        """Put together its bars of several coarser intervals, which takes less time than one by one."""
        tables: dict[str, pa.Table] = {}
        for interval in intervals:
            if interval in self._coarser:
                continue
            days = interval in PERIODS and self.interval != "1d"
            fine = "1d" if days else self.interval
            if fine not in tables:
                tables[fine] = _table(self.coarser("1d") if days else self.bars, self.symbol, self.venue, fine)
            try:
                found = derive(tables[fine], interval, venue=self.venue)
            except ValueError as error:
                raise StrategyError(
                    f"expected a timeframe that bars of {self.interval}{of_symbol(self.symbol)} can be put together "
                    "to, got "
                    f"'{interval}': {error}"
                ) from error
            whole = found["complete"].to_numpy()
            ts = found["ts"].cast(pa.int64()).to_numpy().view("datetime64[us]")
            columns = {name: found[name].to_numpy()[whole] for name in (*PRICES, "volume", "turnover")}
            self._coarser[interval] = pd.DataFrame({"ts": ts[whole], **columns}, copy=False)

    def place(self, interval: str) -> Array:
        """Return which of the coarser bars is the last that has closed with each bar, (T,) int64; -1 = none yet."""
        if interval not in self._place:
            ends = self.coarser(interval)["ts"].to_numpy()
            self._place[interval] = np.searchsorted(ends, self.bars["ts"].to_numpy(), side="right") - 1
        return self._place[interval]

    def closes(self, interval: str) -> Array:
        """Say with which bars a bar of a coarser interval closes, (T,) bool."""
        return np.diff(self.place(interval), prepend=-1) > 0


def instruments(
    bars: Any,
    account: AccountSection,
    *,
    venue: str = "KRX",
    interval: str = "",
    actions: pa.Table | None = None,
    listing: Mapping[str, Listing] | None = None,
) -> list[Instrument]:
    """Lay out a frame of bars, one instrument a symbol.

    bars : pandas frame or Arrow table: ts (end of the bar; without a zone = UTC), open, high, low, close (raw), volume
    (shares; missing = not known, 0 = nothing traded), symbol where there are several; sorted by (symbol, ts). Open,
    high and low may be NaN together, which is a halt; anything else that is not a positive number is refused. venue :
    "KRX", "NXT" and "UN" have ticks, limits, halts, taxes and bans of their days; every other name is a venue
    without. interval : of the bars, empty = as they lie. actions : ACTIONS rows. listing : market, kind and delisting
    of symbols, others are KOSPI stocks that go on. Raises StrategyError, which names the row.
    """
    check_venue(venue)
    if interval and not length_of(interval):
        raise StrategyError(
            f"expected an interval such as 15m, 1h or 1d, got '{interval}'; leave it out to tell it by the bars"
        )
    if actions is not None and not isinstance(actions, pa.Table):
        raise StrategyError(
            f"expected actions as an Arrow table of ACTIONS rows, got {type(actions).__name__}; convert it"
        )
    frame = bars.to_pandas() if isinstance(bars, pa.Table) else bars
    if actions is not None and "symbol" not in getattr(frame, "columns", ()):
        named = sorted(set(actions["symbol"].to_pylist()) - {UNNAMED})
        if named:
            raise StrategyError(
                f"expected bars with a symbol, by which actions are theirs, got none and actions of {named[0]}; add "
                "the column symbol"
            )
    frame = checked(frame)
    out = []
    counts = frame["symbol"].value_counts(sort=False)
    for name, rows in frame.groupby("symbol", sort=False) if len(counts) > 1 else [(counts.index[0], frame)]:
        own = rows.reset_index(drop=True)
        check_interval(str(name), own, interval)
        found = None if actions is None else actions.filter(pa.compute.equal(actions["symbol"], str(name)))
        of = (listing or {}).get(str(name), STOCK)
        longest = own if len(own) > 1 else frame[frame["symbol"] == counts.idxmax()]  # one bar tells no interval
        length = interval or interval_of(longest)
        out.append(_laid_out(str(name), own, account, venue, length, found, of))
    return out


def instruments_of(bars: Any, account: AccountSection, market: Mapping[str, Any]) -> list[Instrument]:
    """Return instruments that are laid out already for this account, or lay a frame out, see `instruments`.

    Raises StrategyError for an empty list, and for instruments of another account: prices and room are in its units.
    """
    if not isinstance(account, AccountSection):
        raise StrategyError(f"expected an AccountSection as account, got {account!r}; write AccountSection(...)")
    if not isinstance(bars, list):
        found = instruments(bars, account, **market)
        for each in found:
            if account.capital * account.size < (least := float(each.price_TC[:, 3].min())):
                warnings.warn(
                    f"{each.symbol} is never traded: {account.capital * account.size:g} do not buy a lot, which costs "
                    f"{least:g} units of money or more; raise account.capital or size, or lower lot",
                    stacklevel=3,
                )
            if (few := float(np.mean(each.fact_TC[:, ROOM] == 0))) > 0.5:
                warnings.warn(
                    f"{each.symbol} can be traded on few bars: on {few:.0%} of them {account.participation:g} of the "
                    "volume is less than a lot; raise account.participation, or leave volume out where it counts no "
                    "shares",
                    stacklevel=3,
                )
        return found
    if not bars or not all(isinstance(each, Instrument) for each in bars):
        told = ", ".join(sorted({type(each).__name__ for each in bars})) or "an empty list"
        raise StrategyError(f"expected a frame of bars or a list of instruments, got {told}; see instruments()")
    if market:
        raise StrategyError(
            f"expected no {', '.join(market)} with instruments that are laid out; give it to instruments() instead"
        )
    for each in bars:
        if each.terms != terms_of(account):
            raise StrategyError(
                f"expected bars{of_symbol(each.symbol)} laid out for an account with unit, lot, participation and "
                "sale tax "
                f"{terms_of(account)}, got {each.terms}; lay it out again with this account"
            )
    return bars


def terms_of(account: AccountSection) -> tuple[float | None, ...]:
    """Return the settings of an account that an instrument's arrays depend on."""
    return account.unit, account.lot, account.participation, account.sale_tax_bp


def coarsens(fine: str, coarse: str) -> bool:
    """Say whether an instrument's bars of one interval can be put together to those of another."""
    return derivable(fine, coarse) or (coarse in PERIODS and derivable(fine, "1d"))


def _table(bars: Any, symbol: str, venue: str, interval: str) -> pa.Table:
    """Return a frame of one symbol's bars as BARS."""
    size = len(bars)
    text = {"symbol": symbol, "venue": venue, "interval": interval, "source": "strategy"}
    columns: dict[str, Any] = {name: pa.repeat(value, size) for name, value in text.items()}
    for name in (*PRICES, "volume", "turnover"):
        columns[name] = pa.array(bars[name].to_numpy(np.float64) if name in bars else np.full(size, np.nan))
    columns["ts"] = columns["ingested_at"] = pa.array(bars["ts"]).cast(pa.timestamp("us")).cast(TS)
    return pa.table([columns[name] for name in BARS.names], schema=BARS)


def _laid_out(
    symbol: str, bars: Any, account: AccountSection, venue: str, interval: str, actions: pa.Table | None, of: Listing
) -> Instrument:
    actions = ACTIONS.empty_table() if actions is None else actions
    stamp = bars["ts"].to_numpy()
    day = venues.days_of(venue, stamp)
    delisted = of.delisted[0]
    if delisted is not None:
        keep = int(np.searchsorted(day, np.datetime64(delisted, "D"), side="right"))
        if not keep:
            raise StrategyError(
                f"expected bars{of_symbol(symbol)} up to its delisting on {delisted}, got the first on {day[0]}; "
                "correct the "
                f"listing"
            )
        gone = day[-1] >= np.datetime64(delisted, "D")
    else:
        keep, gone = len(bars), False
    bars, stamp, day = bars.iloc[:keep], stamp[:keep], day[:keep]
    korean = venue in krx.VENUES
    if korean and not (inside := krx.is_session(day)).all():
        at = int(np.flatnonzero(~inside)[0])
        raise StrategyError(
            f"expected bars{of_symbol(symbol)} on sessions of the Korea Exchange, got one on {day[at]}; give venue= "
            "for "
            f"another "
            "market, such as venue='24h' for one that never closes"
        )
    T = len(bars)
    raw = np.stack([bars[name].to_numpy(np.float64) for name in PRICES], 1)
    try:
        adjusted = adjust(bars, actions)
    except ValueError as error:
        raise StrategyError(f"{symbol}: {error}") from error
    product = np.ones(T)
    if adjusted is not bars:
        product = adjust(bars[["symbol", "ts"]].assign(close=1.0), actions)["close"].to_numpy(np.float64)
    factor = np.append(1.0, product[1:] / product[:-1])
    series = Series(np.zeros(1, np.int64), np.array([T], np.int64))
    base = bases(raw[:, 3], product, day, series)
    volume = bars["volume"].to_numpy(np.float64) if "volume" in bars else np.full(T, np.nan)
    since = np.maximum.accumulate(np.nan_to_num(volume) > 0)  # before the first volume a zero says nothing
    halted = np.isnan(raw[:, 0]) | ((volume == 0) & since)
    adjusted = adjusted.assign(**{name: np.where(halted, np.nan, adjusted[name]) for name in PRICES[:3]})
    end = np.append(day[1:] != day[:-1], True)

    flag = np.where(end, END, 0) | np.where(factor != 1.0, ACTION, 0) | np.where(halted, HALT, 0)
    scale = account.lot / account.unit
    rule = np.empty((T, 6))
    rule[:, 0], rule[:, 1], rule[:, 2], rule[:, 3] = np.inf, -np.inf, np.inf, -np.inf
    fact = np.zeros((T, 5), np.int64)
    tick = np.zeros((1, 1, 2))
    if korean:
        market, kind = of.markets[0], of.kinds[0]
        lower, upper, below, above = locks(raw[:, 0], base, day, kind, market)
        rule[:, 0], rule[:, 1], rule[:, 2], rule[:, 3] = above * scale, below * scale, upper * scale, lower * scale
        fact[:, 0] = np.rint(krx.sale_tax(day, market, kind) * RATE)
        tick, fact[:, 3] = _ticks(day, kind, market, scale)
        flag |= np.where(krx.short_sales(day), 0, NO_SHORT)
    if account.sale_tax_bp is not None:
        fact[:, 0] = round(account.sale_tax_bp * RATE / 10_000)
    if gone:
        flag[-1] |= LAST
    known = volume > 0
    room = np.floor(np.where(known, volume, 0.0) * account.participation / account.lot + 1e-9)
    fact[:, ROOM] = np.where(known, np.minimum(room, BOUNDLESS), BOUNDLESS)
    fact[:, 2] = day.astype(np.int64)
    last = np.flatnonzero(end)
    fact[:, 4] = last[np.searchsorted(last, np.arange(T))]
    rule[:, 4], rule[:, 5] = factor, scale / product
    return Instrument(
        symbol, venue, interval, adjusted.reset_index(drop=True), day, np.ascontiguousarray(raw * scale),
        flag.astype(np.uint8), rule, fact, tick, terms_of(account),
    )  # fmt: skip


def _ticks(day: Array, kind: str, market: str, scale: float) -> tuple[Array, Array]:
    """Return the tick tables as (R, B, 2), padded with bands that no price reaches, and the table of each bar."""
    tables = krx.tick_tables(kind, market)
    bands = max(len(starts) for _, (starts, _) in tables)
    out = np.full((len(tables), bands, 2), np.inf)
    for r, (_, (starts, ticks)) in enumerate(tables):
        out[r, : len(starts), 0], out[r, : len(starts), 1] = starts * scale, ticks * scale
    since = np.array([first for first, _ in tables])
    return out, np.maximum(np.searchsorted(since, day, side="right") - 1, 0)
