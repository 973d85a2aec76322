"""What the simulated WebSocket has to say about a symbol between two moments: the trades and order books of `ticks.py`
as records of the wire.

A session's rows are made at once and rendered in blocks when the clock comes to them, once for all who listen.
"""

from datetime import date
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import krx
from pipeline.kis.records import BOOK_ROWS, LEVELS, ORDER_BOOK, TRADE, TRADE_NXT, TRADE_ROWS, TRADE_UN, Layout
from pipeline.kis.simulator.frames import render_book, render_trades
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.paths import DAYS, Floats
from pipeline.kis.simulator.ticks import Tape, Ticks
from pipeline.kis.simulator.views import View, hours

TRS: dict[str, View] = {TRADE: "J", TRADE_NXT: "NX", TRADE_UN: "UN", ORDER_BOOK: "J"}
_PHASES = np.array(["", "10", "20", "30"])  # by market class
_BLOCK = 64  # records rendered together
_CACHED = 128  # sessions' rows, of about 1 MB
Record = tuple[np.datetime64, str]


class Feed:
    """The records of one market in one layout."""

    def __init__(self, market: Market, layout: Layout) -> None:
        self.ticks, self.layout = Ticks(market), layout
        self._rows = lru_cache(maxsize=_CACHED)(self._rows_of)
        self._block = lru_cache(maxsize=8 * _CACHED)(self._block_of)

    def records(self, tr_id: str, symbol: str, since: np.datetime64, until: np.datetime64) -> list[Record]:
        """Return (time, record) of what happened after `since` and up to `until` (UTC), oldest first."""
        found: list[Record] = []
        opens, closes = hours(self.ticks.market.parts[TRS[tr_id]])
        first, last = np.searchsorted(closes, since, side="right"), np.searchsorted(opens, until, side="right")
        for day in DAYS[first:last].tolist():
            tape = self.ticks.tape(symbol, day, TRS[tr_id])
            start, stop = tape.until(since), tape.until(until)
            for block in range(start // _BLOCK, -(-stop // _BLOCK)):
                texts, begin = self._block(tr_id, symbol, day, block), block * _BLOCK
                here = range(max(start - begin, 0), min(stop - begin, len(texts)))
                found += [(tape.ts[begin + at], texts[at]) for at in here]
        return found

    def _rows_of(self, tr_id: str, symbol: str, day: date) -> pa.Table:
        tape = self.ticks.tape(symbol, day, TRS[tr_id])
        return book_rows(tape) if tr_id == ORDER_BOOK else trade_rows(tape)

    def _block_of(self, tr_id: str, symbol: str, day: date, block: int) -> list[str]:
        rows = self._rows(tr_id, symbol, day).slice(block * _BLOCK, _BLOCK)
        return render_book(rows, self.layout) if tr_id == ORDER_BOOK else render_trades(rows, self.layout)


def trade_rows(tape: Tape) -> pa.Table:
    """Return a session's trades as TRADE_ROWS."""
    count, price, side = len(tape.ts), tape.price, tape.side
    high, low = np.maximum.accumulate(price), np.minimum.accumulate(price)
    ask, bid = tape.book.asks[:, 0].astype(np.float64), tape.book.bids[:, 0].astype(np.float64)
    closing = (tape.market == 2) & (tape.ts == krx.session_closes(np.array([tape.day], "datetime64[D]"))[0])
    columns = {
        "symbol": [tape.symbol] * count,
        "ts": tape.ts,
        "price": price,
        "sign": _signs(tape),
        "base": np.full(count, tape.base),
        "open": np.repeat(price[:1], count),
        "high": high,
        "low": low,
        "ask": ask,
        "bid": bid,
        "volume": tape.volume,
        "cumulative_volume": tape.total,
        "cumulative_turnover": tape.turnover,
        "sells": np.cumsum(side < 0),
        "buys": np.cumsum(side > 0),
        "sell_volume": np.cumsum(np.where(side < 0, tape.volume, 0.0)),
        "buy_volume": np.cumsum(np.where(side > 0, tape.volume, 0.0)),
        "side": side,
        "volume_ratio": _percent(tape.total, 0.0 if tape.previous is None else float(tape.previous.volume.sum())),
        "open_ts": np.repeat(tape.ts[:1], count),
        "high_ts": tape.ts[_last_change(high)],
        "low_ts": tape.ts[_last_change(low)],
        "phase": np.where(closing, "21", _PHASES[tape.market]),
        "halted": np.zeros(count, bool),
        "ask_size": tape.book.ask_sizes[:, 0],
        "bid_size": tape.book.bid_sizes[:, 0],
        "total_ask_size": tape.book.ask_sizes.sum(axis=1),
        "total_bid_size": tape.book.bid_sizes.sum(axis=1),
        "turnover_rate": _percent(tape.total, tape.shares),
        "same_time_volume": _same_time(tape),
        "hour_class": ["0"] * count,
        "vi_price": np.repeat(price[:1], count),
        "market_class": tape.market.astype("U1"),
    }
    return pa.table([_array(columns[field.name], field.type) for field in TRADE_ROWS], schema=TRADE_ROWS)


def book_rows(tape: Tape) -> pa.Table:
    """Return the order book after each trade of a session as BOOK_ROWS."""
    count, book = len(tape.ts), tape.book
    asks, bids = book.ask_sizes.sum(axis=1), book.bid_sizes.sum(axis=1)
    both = (book.asks[:, 0] > 0) & (book.bids[:, 0] > 0)
    columns = {
        "symbol": [tape.symbol] * count,
        "ts": tape.ts,
        "hour_class": ["0"] * count,
        "asks": book.asks,
        "bids": book.bids,
        "ask_sizes": book.ask_sizes,
        "bid_sizes": book.bid_sizes,
        "total_ask_size": asks,
        "total_bid_size": bids,
        "expected_price": np.zeros(count),  # outside auctions KIS sends 0, so that its change is minus the base
        "expected_size": np.zeros(count),
        "expected_volume": np.repeat(tape.volume[:1], count),
        "base": np.full(count, tape.base),
        "sign": np.full(count, 5),
        "cumulative_volume": tape.total,
        "ask_size_change": np.diff(asks, prepend=asks[:1]),
        "bid_size_change": np.diff(bids, prepend=bids[:1]),
        "deal_class": ["0"] * count,
        "mid_price": np.where(both, (book.asks[:, 0] + book.bids[:, 0]) / 2.0, 0.0),
        "mid_size": np.where(both, np.minimum(book.ask_sizes[:, 0], book.bid_sizes[:, 0]) // 10, 0),
        "mid_class": ["2"] * count,
        "market_class": tape.market.astype("U1"),
    }
    return pa.table([_array(columns[field.name], field.type) for field in BOOK_ROWS], schema=BOOK_ROWS)


def _array(values: object, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(np.asarray(values, np.float64).ravel(), LEVELS)
    array = pa.array(values)
    return array if array.type == kind else array.cast(kind)


def _signs(tape: Tape) -> npt.NDArray[np.int8]:
    price = tape.price
    moved = np.where(price > tape.base, 2, np.where(price < tape.base, 5, 3))
    limits = (price == tape.ladder[-1:]) & (moved == 2), (price == tape.ladder[:1]) & (moved == 5)
    return np.where(limits[0], 1, np.where(limits[1], 4, moved)).astype(np.int8)


def _last_change(extreme: Floats) -> npt.NDArray[np.int64]:
    """Return for each row the row in which a running extreme took its value."""
    changed = np.append(True, extreme[1:] != extreme[:-1])[: len(extreme)]
    return np.asarray(np.maximum.accumulate(np.where(changed, np.arange(len(extreme)), 0)))


def _percent(part: Floats, whole: float) -> Floats:
    return np.round(100.0 * part / whole, 2) if whole else np.zeros(len(part))


def _same_time(tape: Tape) -> Floats:
    """Return the volume of the session before up to the same time of its day, by whole minutes."""
    if tape.previous is None:
        return np.zeros(len(tape.ts))
    past = np.append(0.0, np.cumsum(tape.previous.volume))
    return np.asarray(past[np.searchsorted(_time(tape.previous.end), _time(tape.ts), side="right")])


def _time(ts: krx.Days) -> npt.NDArray[np.timedelta64]:
    local = ts + np.timedelta64(9, "h")
    return np.asarray(local - local.astype("datetime64[D]"))
