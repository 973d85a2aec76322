"""The trades inside simulated minutes add up to them, and the book about them lies on ticks inside the limits."""

from datetime import date
from itertools import pairwise

import numpy as np
import pytest

from pipeline import krx
from pipeline.kis.frames import parse_book, parse_frame, parse_trades
from pipeline.kis.records import ORDER_BOOK, TRADE
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.feed import Feed, trade_rows
from pipeline.kis.simulator.frames import render_frame
from pipeline.kis.simulator.market import Columns, Market, UnknownSymbol
from pipeline.kis.simulator.ticks import Tape, Ticks

DAYS = (date(2026, 11, 20), date(2026, 11, 19), date(2015, 3, 5))  # the 19th opens and closes an hour late


def market_at(clock: str = "2026-11-20") -> Market:
    return Market(7, 40, clock=Clock(moment(clock), 0.0))


@pytest.fixture(scope="module")
def market() -> Market:
    return market_at()


@pytest.fixture(scope="module")
def ticks(market: Market) -> Ticks:
    return Ticks(market)


def minute_of(tape: Tape, minutes: Columns) -> np.ndarray:
    """Say which minute each trade belongs to; the closing auction is the last."""
    found = np.searchsorted(minutes["start"], tape.ts, side="right") - 1
    return np.asarray(found)


def test_trades_add_up_to_every_minute(market: Market, ticks: Ticks) -> None:
    seen = 0
    for item in market.listings:
        for day in DAYS:
            try:
                minutes = market.minutes(item.symbol, day)
            except UnknownSymbol:
                continue
            tape = ticks.tape(item.symbol, day)
            if not len(minutes["open"]):
                assert not len(tape.ts)
                continue
            at = minute_of(tape, minutes)
            assert (np.diff(tape.ts.astype(np.int64)) >= 0).all() and (tape.ts <= minutes["end"][at]).all()
            first = np.flatnonzero(np.diff(at, prepend=-1))
            last = np.append(first[1:] - 1, len(at) - 1)
            assert len(first) == len(minutes["open"])
            np.testing.assert_array_equal(tape.price[first], minutes["open"])
            np.testing.assert_array_equal(tape.price[last], minutes["close"])
            np.testing.assert_array_equal(np.maximum.reduceat(tape.price, first), minutes["high"])
            np.testing.assert_array_equal(np.minimum.reduceat(tape.price, first), minutes["low"])
            np.testing.assert_array_equal(np.add.reduceat(tape.volume, first), minutes["volume"])
            np.testing.assert_array_equal(np.add.reduceat(tape.amount, first), minutes["turnover"])
            np.testing.assert_array_equal(tape.amount, tape.price * tape.volume)
            assert (tape.volume > 0.0).all()
            seen += len(first)
    assert seen > 30_000


def test_auctions_are_single_prints_of_neither_side(market: Market, ticks: Ticks) -> None:
    for item in market.listings[:5]:
        tape = ticks.tape(item.symbol, DAYS[0])
        assert tape.ts[0] == krx.session_opens(np.array([DAYS[0]], "datetime64[D]"))[0]
        closing = tape.ts == krx.session_closes(np.array([DAYS[0]], "datetime64[D]"))[0]
        assert closing.sum() == 1 and closing[-1]
        assert np.flatnonzero(tape.side == 0).tolist() == [0, len(tape.ts) - 1]
        quiet = tape.ts[-1] - np.timedelta64(10, "m")
        assert not ((tape.ts > quiet) & (tape.ts < tape.ts[-1])).any()


def test_most_prices_lie_on_ticks_and_some_between(market: Market, ticks: Ticks) -> None:
    off = total = 0
    for item in market.listings:
        tape = ticks.tape(item.symbol, DAYS[0])
        unit = krx.tick(tape.price, DAYS[0], item.kind, item.market)
        off, total = off + int((tape.price % unit != 0).sum()), total + len(unit)
    assert 0.0 < off < 0.4 * total


def test_the_book_lies_on_ticks_around_the_last_price(market: Market, ticks: Ticks) -> None:
    for item in market.listings[:10]:
        tape = ticks.tape(item.symbol, DAYS[0])
        if not len(tape.ts):
            continue
        lower, upper = krx.limits(tape.base, DAYS[0], item.kind, item.market)
        book = tape.book
        for prices, sizes, way in ((book.asks, book.ask_sizes, 1), (book.bids, book.bid_sizes, -1)):
            there = prices > 0
            unit = krx.tick(prices, DAYS[0], item.kind, item.market)
            assert (prices[there] % unit[there] == 0).all() and ((sizes > 0) == there).all()
            assert (prices[there] >= lower).all() and (prices[there] <= upper).all()
            both = there[:, 1:]
            assert (np.diff(prices, axis=1)[both] * way > 0).all()
        both = (book.asks[:, 0] > 0) & (book.bids[:, 0] > 0)
        assert (book.bids[both, 0] < book.asks[both, 0]).all()
        assert ((tape.price >= book.bids[:, 0]) & ((tape.price <= book.asks[:, 0]) | ~both)).all()


def test_the_same_in_any_order_and_at_any_clock(market: Market) -> None:
    symbols = [item.symbol for item in market.listings[:3]]
    there = {symbol: Ticks(market).tape(symbol, DAYS[0]) for symbol in symbols}
    other = Ticks(market_at("2026-11-20T10:00"))
    for symbol in reversed(symbols):
        tape = other.tape(symbol, DAYS[0])
        np.testing.assert_array_equal(tape.price, there[symbol].price)
        np.testing.assert_array_equal(tape.book.bid_sizes, there[symbol].book.bid_sizes)
        assert 0 < tape.until(np.datetime64("2026-11-20T01:00")) < len(tape.ts)


def test_no_session_no_trades_and_unknown_symbols(ticks: Ticks, market: Market) -> None:
    assert len(ticks.tape(market.listings[0].symbol, date(2026, 11, 21)).ts) == 0
    with pytest.raises(UnknownSymbol, match="999999"):
        ticks.tape("999999", DAYS[0])


def test_records_come_in_pieces_as_in_one(market: Market) -> None:
    feed, symbol = Feed(market, "current"), market.listings[2].symbol
    cuts = [np.datetime64(f"2026-11-{text}", "us") for text in ("18T23:00", "19T03:00", "20T00:00:10", "20T08:00")]
    whole = feed.records(TRADE, symbol, cuts[0], cuts[-1])
    pieces = [record for since, until in pairwise(cuts) for record in feed.records(TRADE, symbol, since, until)]
    assert whole == pieces and len(whole) > 2_000 and {str(ts)[:10] for ts, _ in whole} == {"2026-11-19", "2026-11-20"}
    rows = parse_trades(*(parse_frame(render_frame(TRADE, [text])) for _, text in whole))
    tape = feed.ticks.tape(symbol, DAYS[0])
    here = rows.slice(len(rows) - len(tape.ts))
    np.testing.assert_array_equal(here["price"].to_numpy(), tape.price)
    np.testing.assert_array_equal(here["cumulative_turnover"].to_numpy(), tape.turnover)
    books = feed.records(ORDER_BOOK, symbol, cuts[2], cuts[-1])
    asks = parse_book(*(parse_frame(render_frame(ORDER_BOOK, [text])) for _, text in books), day=DAYS[0])["asks"]
    assert len(asks) == len(books) > 500


def test_frames_keep_the_relations_of_the_wire(market: Market) -> None:
    feed, item = Feed(market, "current"), market.listings[2]
    rows = trade_rows(feed.ticks.tape(item.symbol, DAYS[0]))
    day = market.daily(item.symbol, DAYS[0])
    last = rows.slice(len(rows) - 1).to_pylist()[0]
    assert last["cumulative_volume"] == day["volume"][-1] and last["cumulative_turnover"] == day["turnover"][-1]
    assert (last["open"], last["high"], last["low"], last["price"]) == tuple(
        day[name][-1] for name in ("open", "high", "low", "close")
    )
    assert last["buy_volume"] + last["sell_volume"] < last["cumulative_volume"]  # auctions belong to neither side
    text = feed.records(TRADE, item.symbol, np.datetime64("2026-11-20T00:00"), np.datetime64("2026-11-20T06:00"))[-1][1]
    field = [None, *text.split("^")]  # as numbered in KIS's document
    assert field[7] == f"{int(field[15]) / int(field[14]):.2f}" and int(field[18]) == int(field[17]) - int(field[16])
    assert field[19] == f"{100 * int(field[21]) / int(field[20]):.2f}" and field[45] == ""
    assert field[23] == f"{int(field[21]) / int(field[14]):.2f}"
    for price, change, sign in ((8, 27, 26), (9, 30, 29), (10, 33, 32)):
        assert int(field[change]) == int(field[3]) - int(field[price])
        assert field[sign] == ("2" if int(field[change]) > 0 else "5" if int(field[change]) < 0 else "3")
    assert field[43] == (f"{100 * int(field[14]) / int(field[42]):.2f}" if int(field[42]) else "0.00")
