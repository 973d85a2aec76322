"""The simulated markets abroad: a pure function of (seed, exchange, symbol, time).

Days have an opening and a close on a path of all weekdays; minutes are drawn between them, a month at a time, and a
day's other numbers are what its minutes add up to. Nothing is made before it is asked for.

Legend: T weekdays of the whole axis, D sessions of a month, M labels of a session (its minutes, and the closing print).
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np

from pipeline.kis.simulator.market import PRICES, Columns, Market
from pipeline.kis.simulator.overseas_issues import DAYS, EXCHANGES, Exchange, Issue, issue
from pipeline.kis.simulator.paths import OVERNIGHT, Floats, autoregressive
from pipeline.kis.simulator.universe import ANCHOR, stream

_ANCHOR = int(np.searchsorted(DAYS, np.datetime64(ANCHOR)))
_COMMON = 0.6  # share of an issue's volatility that it has from its currency's market
_FEWEST = 50_000.0  # shares of a day, so that every minute has some
AMOUNTS = ("volume", "turnover")


@dataclass(frozen=True)
class _Path:
    """Raw opening and close in ticks, and volume in shares, on all weekdays, (T,)."""

    open: Floats
    close: Floats
    volume: Floats


class Overseas:
    """The markets abroad beside a Korean market: its seed and its clock are theirs."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._path = lru_cache(maxsize=64)(self._path_of)
        self._minutes = lru_cache(maxsize=24)(self._minutes_of)  # of about 0.4 MB
        self._days = lru_cache(maxsize=4_096)(self._days_of)  # of about 2 kB

    def issue(self, code: str, symbol: str) -> Issue:
        """Return an issue. Raises KeyError for an unknown exchange or symbol."""
        return issue(self.market.seed, EXCHANGES[code], symbol)

    def shown(self, exchange: Exchange) -> tuple[int, int]:
        """Return how many sessions of the axis are over, and how many labels of the next one."""
        day, minute = exchange.clock(self.market.now())
        at, labels = int(np.searchsorted(DAYS, np.datetime64(day))), exchange.labels
        if at == len(DAYS) or DAYS[at].item() != day:
            return at, 0
        over = int(np.searchsorted(np.append(labels[:-1] + 1, labels[-1]), minute, side="right"))
        return (at + 1, 0) if over == len(labels) else (at, over)

    def waiting(self, exchange: Exchange) -> bool:
        """Say whether it is a session's local date, and its first minute is not over."""
        over, running = self.shown(exchange)
        return not running and over < len(DAYS) and DAYS[over].item() == exchange.clock(self.market.now())[0]

    def _path_of(self, item: Issue) -> _Path:
        rng, size = stream(self.market.seed, "overseas path", item.exchange.code, item.symbol), len(DAYS)
        common = stream(self.market.seed, "overseas market", item.exchange.currency).standard_normal((2, size))
        sigma = item.sigma * np.exp(0.3 * autoregressive(rng.standard_normal(size), 0.97) - 0.05)
        own = rng.standard_normal((2, size))
        moves = sigma * (_COMMON * common + np.sqrt(1.0 - _COMMON**2) * own)
        moves *= np.sqrt([[OVERNIGHT], [1.0 - OVERNIGHT]])
        latent = np.cumsum(moves.sum(axis=0))
        latent += np.log(item.price / item.exchange.tick) - latent[_ANCHOR]
        latent = np.maximum(latent, np.log(100.0))
        raw = np.where(np.datetime64(item.split) > DAYS, item.ratio, 1.0)
        busy = 0.3 * autoregressive(rng.standard_normal(size), 0.95) + 0.3 * rng.standard_normal(size)
        ticks = np.maximum(np.round(np.exp(np.stack([latent - moves[1], latent])) * raw), 1.0)
        volume = np.round(np.maximum(item.volume * np.exp(busy) / raw, _FEWEST))
        return _Path(ticks[0], ticks[1], np.asarray(volume, np.float64))

    def _span(self, month: int) -> slice:
        first, stop = np.searchsorted(DAYS, np.array([month, month + 1], "datetime64[M]").astype("datetime64[D]"))
        return slice(int(first), int(stop))

    def _minutes_of(self, item: Issue, month: int) -> Columns:
        """Return all minutes of a month (since 1970), (D, M) each: prices in currency, shares, whole currency units."""
        rng = stream(self.market.seed, "overseas minutes", item.exchange.code, item.symbol, month)
        path, rows = self._path(item), self._span(month)
        first, last = path.open[rows, None], path.close[rows, None]
        shape = (len(first), len(item.exchange.labels))
        time = np.arange(1, shape[1]) / (shape[1] - 1)
        walk = np.cumsum(rng.standard_normal((shape[0], shape[1] - 1)), axis=1) * item.sigma / np.sqrt(shape[1])
        log = np.log(first) + np.log(last / first) * time + walk - time * walk[:, -1:]
        close = np.hstack([np.maximum(np.round(np.exp(log)), 1.0), last])
        opening = np.hstack([first, close[:, :-1]])
        opening[:, -1] = close[:, -1]  # the closing print is one price
        jitter = rng.integers(0, 3, (2, *shape)) * (np.arange(shape[1]) < shape[1] - 1)
        high, low = np.maximum(opening, close) + jitter[0], np.maximum(np.minimum(opening, close) - jitter[1], 1.0)
        activity = (0.5 + np.linspace(-1.0, 1.0, shape[1]) ** 2) * rng.gamma(1.2, size=shape)
        activity[:, -1] *= 20.0
        share = np.cumsum(activity, axis=1) / activity.sum(axis=1, keepdims=True)
        whole = np.round(share * (path.volume[rows, None] - shape[1]))
        volume = np.diff(whole, axis=1, prepend=0.0) + 1.0
        prices = {"open": opening, "high": high, "low": low, "close": close}
        columns: Columns = {name: values * item.exchange.tick for name, values in prices.items()}
        mean = sum(columns[name] for name in PRICES) / len(PRICES)
        return columns | {"volume": volume, "turnover": np.round(volume * mean)}

    def _days_of(self, item: Issue, month: int) -> Columns:
        return _sum(self._minutes(item, month))

    def minutes(self, item: Issue, at: int) -> Columns:
        """Return the minutes of the session at a place of the axis as far as the clock has come, oldest first: label
        (minutes of the local day), open, high, low, close, volume, turnover."""
        over, running = self.shown(item.exchange)
        month = int(DAYS[at].astype("datetime64[M]").astype(np.int64))
        stop = None if at < over else running if at == over else 0
        whole, row = self._minutes(item, month), at - self._span(month).start
        return {"label": item.exchange.labels[:stop]} | {name: column[row, :stop] for name, column in whole.items()}

    def days(self, item: Issue, first: date, last: date, *, adjusted: bool = False) -> Columns:
        """Return the sessions of [first, last] as far as the clock has come, oldest first; a running one as it stands.

        Columns: date, open, high, low, close, base (close before, currency), volume (shares), turnover (currency).
        `adjusted` divides prices before a split that has happened.
        """
        over, running = self.shown(item.exchange)
        start = int(np.searchsorted(DAYS, np.datetime64(first)))
        stop = min(int(np.searchsorted(DAYS, np.datetime64(last), side="right")), over + (running > 0))
        names = (*PRICES, *AMOUNTS)
        if start >= stop:
            return {"date": DAYS[:0], "base": np.empty(0)} | {name: np.empty(0) for name in names}
        months = DAYS[[start, stop - 1]].astype("datetime64[M]").astype(np.int64)
        parts = [self._days(item, month) for month in range(months[0], months[1] + 1)]
        skipped = start - self._span(int(months[0])).start
        columns = {
            name: np.concatenate([part[name] for part in parts])[skipped : skipped + stop - start] for name in names
        }
        if stop > over:
            for name, value in _sum(self.minutes(item, over)).items():
                columns[name][-1] = value
        path = self._path(item)
        base = np.append(path.open[0], path.close[:-1])[start:stop] * item.exchange.tick
        days, split = DAYS[start:stop], np.datetime64(item.split)
        columns |= {"date": days, "base": np.where(days == split, base / item.ratio, base)}
        if adjusted and item.split <= item.exchange.clock(self.market.now())[0]:
            factor = np.where(days < split, item.ratio, 1.0)
            columns |= {name: columns[name] / factor for name in (*PRICES, "base")}
            columns["volume"] = columns["volume"] * factor
        return columns


def _sum(minutes: Columns) -> Columns:
    """Add minutes up along the last axis."""
    return {
        "open": minutes["open"][..., 0],
        "high": minutes["high"].max(axis=-1),
        "low": minutes["low"].min(axis=-1),
        "close": minutes["close"][..., -1],
        "volume": minutes["volume"].sum(axis=-1),
        "turnover": minutes["turnover"].sum(axis=-1),
    }
