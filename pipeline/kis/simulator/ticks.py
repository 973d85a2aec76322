"""Trades inside the minutes of the simulated market and the order book around them: what a WebSocket sends and a list
of trades shows.

A session's trades are a pure function of (seed, symbol, day, view). They add up to each minute of `Market.minutes`: the
first trade is at its open, the last at its close, high and low are reached, volume and turnover are the same to the
share and the won. For that, one share a minute may trade at a price between two ticks, as midpoint orders do on the
real market. In a minute of both venues KRX trades first and NXT last.

Legend: M minutes of a segment, K slots of a minute, N trades of a session, L prices between the limits.
"""

from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from pipeline import krx
from pipeline.kis.simulator import intraday, paths
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.paths import DAYS, Bools, Floats
from pipeline.kis.simulator.universe import Listing, stream
from pipeline.kis.simulator.views import CLASSES, NXT, REGULAR, View

LEVELS = 10  # of each side of the book
_PAIRS, _CUTS = 3, 3  # pairs of trades about the minute's mean price; pieces of what trades at the two ticks around it
_LED, _SPAN, _LAST = 1.0, 59.0, 0.9  # s of a minute: KRX's first trade before, all but NXT's last before, and for that
_CACHED_TAPES = 128  # of about 1 MB with their books

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Book:
    """Ten levels of each side after N trades, best first; 0 where the limits leave no price. Prices KRW, sizes
    shares."""

    asks: npt.NDArray[np.int32]  # (N, 10)
    bids: npt.NDArray[np.int32]
    ask_sizes: npt.NDArray[np.int32]
    bid_sizes: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Tape:
    """The trades of one symbol on one session, oldest first, and the facts of the session.

    Prices and amounts KRW, volumes shares; no rows on a day without a trade. `side` is 1 when the buyer came to the
    seller, -1 the other way round, 0 in an auction. `amount` is price x volume, but where no division of a minute's
    shares reaches its turnover its last trade takes the rest. `market`: 1 before, 2 in and 3 after the regular session
    (NXT's main market).
    """

    symbol: str
    day: date
    ts: krx.Days  # (N,) datetime64[us], UTC
    price: Floats  # (N,)
    volume: Floats
    amount: Floats
    side: npt.NDArray[np.int8]
    market: npt.NDArray[np.int8]
    ladder: Floats  # (L,) prices on ticks from the lower to the upper limit
    base: float
    shares: float  # listed
    previous: intraday.Minutes | None  # of the session before, None when it had no trade
    seed: int  # of the market
    names: tuple[object, ...]  # number of the listing, and the view unless it is J

    def until(self, now: np.datetime64) -> int:
        """Return how many trades have happened by `now` (UTC)."""
        return int(np.searchsorted(self.ts, now, side="right"))

    @cached_property
    def total(self) -> Floats:
        """Volume since the opening, up to and including each trade. (N,)"""
        return np.cumsum(self.volume)

    @cached_property
    def turnover(self) -> Floats:
        """Turnover since the opening, up to and including each trade. (N,)"""
        return np.cumsum(self.amount)

    @cached_property
    def best(self) -> Ints:
        """Place of the best ask on the ladder after each trade (L: none); the best bid is one below (-1: none). (N,)"""
        at = np.searchsorted(self.ladder, self.price)
        on_tick = self.ladder[np.minimum(at, len(self.ladder) - 1)] == self.price
        return np.asarray(at + (on_tick & (self.side < 0)), np.int64)

    @cached_property
    def book(self) -> Book:
        """The order book after each trade."""
        rng, step = stream(self.seed, "book", *self.names, self.day), np.arange(LEVELS)
        usual = 4.0 * float(self.volume.sum()) / max(len(self.volume), 1)
        drawn = np.exp(0.8 * rng.standard_normal((2, len(self.price), LEVELS), np.float32)) * (1.0 + 0.15 * step)
        sizes = np.floor(usual * drawn) + 1.0
        sides = []
        for place, size in zip((self.best[:, None] + step, self.best[:, None] - 1 - step), sizes):
            there = (place >= 0) & (place < len(self.ladder))
            price = np.where(there, self.ladder[np.clip(place, 0, len(self.ladder) - 1)], 0.0)
            sides.append((price.astype(np.int32), (there * size).astype(np.int32)))
        return Book(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


class Ticks:
    """The trades of one market, kept while they are in use."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._tape = lru_cache(maxsize=_CACHED_TAPES)(self._tape_of)

    def tape(self, symbol: str, day: date, view: View = "J") -> Tape:
        """Return a symbol's trades of a whole session, whatever the clock says; `Tape.until` cuts them. Without rows
        when it does not trade on that day. Raises UnknownSymbol."""
        self.market.listing(symbol)
        return self._tape(symbol, day, view)

    def _tape_of(self, symbol: str, day: date, view: View) -> Tape:
        item, seed = self.market.listing(symbol), self.market.seed
        segments = self.market.session(symbol, day, view)
        names = (item.number,) if view == "J" else (item.number, view)
        if not segments:
            none, codes = np.empty(0), np.empty(0, np.int8)
            stamps = np.empty(0, "datetime64[us]")
            return Tape(symbol, day, stamps, none, none, none, codes, codes, none, 0.0, 0.0, None, seed, names)
        axis = int(np.searchsorted(DAYS, np.datetime64(day)))
        whole = self.market.path(symbol)
        at = axis - whole.first
        found = [_trades(seed, item, day, minutes, name) for name, minutes in segments.items()]
        ts, price, volume, amount, side = (np.concatenate(column) for column in zip(*found))
        market = np.repeat([CLASSES[name] for name in segments], [len(part[0]) for part in found]).astype(np.int8)
        order = np.argsort(ts, kind="stable")
        ladder = _ladder(float(whole.lower[at]), float(whole.upper[at]), day, item)
        before = list(self.market.session(symbol, DAYS[axis - 1].item(), view).values()) if at > 0 else []
        base, shares = float(whole.base[at]), float(paths.shares(item)[axis])
        previous = intraday.merged(before) if before else None
        ts, price, volume, amount = ts[order], price[order], volume[order], amount[order]
        side, market = side[order], market[order]
        return Tape(symbol, day, ts, price, volume, amount, side, market, ladder, base, shares, previous, seed, names)


def _ladder(lower: float, upper: float, day: date, item: Listing) -> Floats:
    least = float(krx.tick(lower, day, item.kind, item.market))  # divides the ticks of all prices above
    prices = np.arange(lower, upper + least, least)
    prices = prices[prices <= upper]
    return np.asarray(prices[prices % krx.tick(prices, day, item.kind, item.market) == 0.0])


def _trades(
    seed: int, item: Listing, day: date, minutes: intraday.Minutes, segment: str
) -> tuple[krx.Days, Floats, Floats, Floats, npt.NDArray[np.int8]]:
    """Return (ts, price, volume, amount, side) of a segment's trades."""
    names = (item.number, day) if segment in REGULAR else (item.number, day, segment)
    rng, count, regular = stream(seed, "trades", *names), len(minutes.start), segment in REGULAR
    price, volume, there = _slots(rng, item, day, minutes, auctions=regular)
    slots = price.shape[1]
    key = rng.random((count, slots))
    key[:, 0], key[:, 3] = -1.0, 2.0  # the open comes first, the close last
    order = np.argsort(key, axis=1)
    price, volume = np.take_along_axis(price, order, axis=1), np.take_along_axis(volume, order, axis=1)
    there = np.take_along_axis(there, order, axis=1)
    offset = np.sort(rng.random((count, slots)), axis=1)
    at, first = np.arange(count), np.argmax(there, axis=1)
    if segment in NXT:
        begin = np.full(count, _LED)
        begin[0] += 30.0 * (segment == "main")  # which opens half a minute after KRX
        last = offset[:, -1].copy()  # the close is always in the last slot
        offset = begin[:, None] + offset * (_SPAN - begin[:, None])
        offset[:, -1] = _SPAN + last * _LAST
    else:
        led = offset[at, first] * _LED * _LAST
        offset *= _SPAN
        offset[at, first] = np.minimum(led, offset[at, first])
    if regular:
        offset[0, first[0]] = 0.0  # the opening auction
        offset[minutes.start == minutes.end] = 0.0  # the closing auction
    ts = minutes.start[:, None] + (offset * 1e6).astype("timedelta64[us]")
    amount = price * volume
    amount[:, -1] += minutes.turnover - amount.sum(axis=1)
    price, volume, amount, ts = price[there], volume[there], amount[there], ts[there]
    move = np.sign(np.diff(price, prepend=price[0]))
    side = np.where(move == 0.0, np.where(rng.random(len(price)) < 0.5, 1.0, -1.0), move).astype(np.int8)
    if regular:
        side[0] = side[ts == minutes.end[-1]] = 0
    return ts, price, volume, amount, side


def _slots(
    rng: np.random.Generator, item: Listing, day: date, minutes: intraday.Minutes, *, auctions: bool
) -> tuple[Floats, Floats, Bools]:
    """Return (price, volume, there) of the slots of every minute, (M, K): open, high, low, close, the share between two
    ticks, pairs about the mean, pieces at the tick below the mean, pieces at the tick above."""
    m, count = minutes, len(minutes.start)
    corners = np.stack([m.open, m.high, m.low, m.close], axis=1)
    there = np.ones((count, 4), bool)
    there[:, 1] = (m.high != m.open) & (m.high != m.close)
    there[:, 2] = (m.low != m.open) & (m.low != m.close)
    there[:, 0] = (m.low != m.high) | ((m.volume > 1.0) & (m.start != m.end))  # else one trade says all
    shares = there.astype(np.float64)
    if auctions:
        shares[-1, 3] = m.volume[-1]  # the closing auction is one print
        for part in (0.5, 0.25, 0.1):  # the opening auction is as large as the first minute's turnover permits
            asked = shares[0].copy()
            asked[0] = max(np.floor(part * m.volume[0]), 1.0)
            rest, money = m.volume[0] - asked.sum(), m.turnover[0] - asked @ corners[0]
            if there[0, 0] and rest > 0.0 and m.low[0] * rest <= money <= m.high[0] * rest:
                shares[0] = asked
                break
    rest = m.volume - shares.sum(axis=1)
    money = m.turnover - (shares * corners).sum(axis=1)
    mean = np.clip(money / np.maximum(rest, 1.0), m.low, m.high)
    unit = krx.tick(mean, day, item.kind, item.market)
    below = np.maximum(np.floor(mean / unit) * unit, m.low)
    extra = np.clip(money - below * rest, 0.0, np.maximum(rest * np.minimum(unit, m.high - below), 0.0))
    above = np.floor(extra / unit)
    between = np.where(rest > 0.0, extra - above * unit, 0.0)
    flat = rest - above - (between > 0.0)
    parts = [corners, (below + between)[:, None]]
    sizes = [shares, (between > 0.0).astype(np.float64)[:, None]]
    for _ in range(_PAIRS):
        away = np.choose(rng.integers(0, 3, count), [np.where(unit % 2.0 == 0.0, unit / 2.0, unit), unit, 2.0 * unit])
        size = np.floor(0.25 * rng.random(count) * flat)
        size[(below - away < m.low) | (below + away > m.high)] = 0.0
        flat = flat - 2.0 * size
        parts += [(below - away)[:, None], (below + away)[:, None]]
        sizes += [size[:, None], size[:, None]]
    for price, total in ((below, flat), (below + unit, above)):
        cuts = np.sort(np.floor(rng.random((count, _CUTS - 1)) * (total[:, None] + 1.0)), axis=1)
        cuts = np.concatenate([np.zeros((count, 1)), cuts, total[:, None]], axis=1)
        parts.append(np.repeat(price[:, None], _CUTS, axis=1))
        sizes.append(np.diff(cuts, axis=1))
    prices, volumes = np.concatenate(parts, axis=1), np.concatenate(sizes, axis=1)
    return prices, volumes, volumes > 0.0
