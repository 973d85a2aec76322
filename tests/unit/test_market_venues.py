"""NXT, both venues as one and KRX's after-market: they add up, keep near KRX, and depend on nothing that was asked."""

from collections.abc import Callable
from datetime import date, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx, venues
from pipeline.kis.simulator import extended, intraday
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.feed import trade_rows
from pipeline.kis.simulator.market import Columns, Market
from pipeline.kis.simulator.ticks import Ticks

BAR = ("open", "high", "low", "close", "volume", "turnover")
USUAL, EXAM, YEAR, FIRST = date(2026, 11, 18), date(2026, 11, 19), date(2026, 1, 2), date(2025, 3, 4)
BOTH = date(2026, 9, 14)  # first day of KRX's after-market
CODES = {"J": "KRX", "NX": "NXT", "UN": "UN"}


def at(text: str) -> Callable[[], datetime]:
    return Clock(moment(text), 0.0)


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(7, 60, clock=at("2026-11-20T20:00"))


@pytest.fixture(scope="module")
def traded(market: Market) -> list[str]:
    """The issues that NXT has traded since its first day."""
    return [s for s in market.symbols()["symbol"].to_pylist() if len(market.daily(s, view="NX")["date"]) > 350]


def only(symbols: list[str], market: Market, day: date) -> str:
    return next(s for s in symbols if not market.daily(s, day, day)["halted"].any())


def test_nxt_has_the_larger_quarter_of_the_common_stocks() -> None:
    market, days = Market(7, 2_700), np.array([USUAL, BOTH, FIRST], "datetime64[D]")
    stocks = [item for item in market.listings if item.kind == "stock" and item.delisted is None]
    on = np.array([extended.member(7, item, days) for item in stocks])
    assert (on.mean(axis=0) > 0.2).all() and (on.mean(axis=0) < 0.3).all()
    value = np.array([item.price * item.shares for item in stocks])
    assert value[on[:, 0]].min() > 0.8 * value[~on[:, 0]].max()
    for item in market.listings:
        if item.kind != "stock":
            assert not extended.member(7, item, days).any()
        if item.delisted is not None:
            last = np.datetime64(krx.previous_session(item.delisted)).reshape(1)
            assert not extended.member(7, item, last).any()
    assert not extended.member(7, stocks[0], np.array(["2025-03-03"], "datetime64[D]")).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 59), st.integers(0, 450), st.sampled_from(["J", "NX", "UN"]))
def test_minutes_add_up_to_the_day(market: Market, number: int, back: int, view: str) -> None:
    symbol = market.listings[number].symbol
    rows = market.daily(symbol, view=view)
    if not len(rows["date"]):
        assert view == "NX"
        return
    row = len(rows["date"]) - 1 - min(back, len(rows["date"]) - 1)
    day = rows["date"][row].item()
    minutes = market.minutes(symbol, day, view)
    if rows["halted"][row]:
        assert view != "NX" and not len(minutes["open"])
        return
    assert [minutes["open"][0], minutes["high"].max(), minutes["low"].min(), minutes["close"][-1]] == [
        rows[name][row] for name in BAR[:4]
    ]
    assert [minutes[name].sum() for name in BAR[4:]] == [rows[name][row] for name in BAR[4:]]
    shares, distinct = minutes["volume"], [len(set(prices)) for prices in zip(*(minutes[name] for name in BAR[:4]))]
    assert (shares >= distinct).all()  # no trade without a share
    assert (minutes["turnover"] >= minutes["low"] * shares).all()
    assert (minutes["turnover"] <= minutes["high"] * shares).all()
    assert rows["low"][row] >= rows["lower"][row] and rows["high"][row] <= rows["upper"][row]
    item = market.listing(symbol)
    for name in BAR[:4]:
        assert (minutes[name] % krx.tick(minutes[name], day, item.kind, item.market) == 0.0).all()
    assert set(minutes["end"].tolist()) <= set(venues.minute_ends(CODES[view], day).tolist())


@pytest.mark.parametrize("day", [USUAL, EXAM, YEAR, FIRST, BOTH, date(2026, 9, 11)])
def test_segments_trade_in_their_hours(market: Market, traded: list[str], day: date) -> None:
    symbol = only(traded, market, day)
    found = market.session(symbol, day, "UN")
    hours = {
        **venues.segments("NXT", day),
        **{{"after": "evening"}.get(name, name): pair for name, pair in venues.segments("KRX", day).items()},
    }
    assert (
        set(found) == set(hours)
        and ("evening" in found) == (day >= BOTH)
        and ("pre" in found) == (day not in (EXAM, YEAR, FIRST))
    )
    for name, minutes in found.items():
        first, last = hours[name]
        assert minutes.start[0] == first.astype("datetime64[m]") and minutes.end[-1] == last


def test_days_of_both_venues_are_their_sums(market: Market, traded: list[str]) -> None:
    for item in market.listings[:40]:
        if item.listed > market.today():
            continue
        krx_days, nxt, both = (market.daily(item.symbol, view=view) for view in ("J", "NX", "UN"))
        np.testing.assert_array_equal(krx_days["date"], both["date"])
        assert (both["volume"] >= krx_days["volume"]).all() and (both["turnover"] >= krx_days["turnover"]).all()
        early = both["date"] < krx.NXT_FIRST
        for name in ("date", "base", "halted", *BAR):
            np.testing.assert_array_equal(both[name][early], krx_days[name][early])
        assert not (nxt["date"] < krx.NXT_FIRST).any()
        here = np.searchsorted(both["date"], nxt["date"])
        share = nxt["volume"] / krx_days["volume"][here]
        assert ((share > 0.09) & (share < 0.42)).all()
        before = both["date"][here] < krx.AFTER_FIRST
        np.testing.assert_array_equal(both["volume"][here][before], (krx_days["volume"][here] + nxt["volume"])[before])
        evening = (both["date"] >= krx.AFTER_FIRST) & ~both["halted"]
        extra = both["volume"] - krx_days["volume"]
        extra[here] -= nxt["volume"]
        excluded = item.kind == "etf" or item.delisted is not None
        assert (extra[evening] > 0.0).all() != excluded or not evening.any()
    assert len(traded) >= 5


def test_venues_that_trade_together_keep_near_each_other(market: Market, traded: list[str]) -> None:
    compared = 0
    for symbol in traded:
        item = market.listing(symbol)
        for day in (USUAL, EXAM, BOTH, FIRST):
            found = market.session(symbol, day, "UN")
            for one, other in (("regular", "main"), ("evening", "after")):
                if one not in found or other not in found:
                    continue
                left, right = found[one], found[other]
                _, a, b = np.intersect1d(left.start, right.start, return_indices=True)
                for name in ("open", "close"):
                    there, here = getattr(left, name)[a], getattr(right, name)[b]
                    assert (np.abs(here - there) <= 2.0 * krx.tick(there, day, item.kind, item.market)).all()
                compared += len(a)
    assert compared > 5_000


def test_what_was_asked_before_changes_nothing(market: Market, traded: list[str]) -> None:
    symbol = only(traded, market, USUAL)
    other = Market(7, 60, clock=at("2026-11-30"))
    for view in ("UN", "NX", "J"):
        for day in (USUAL, FIRST):
            left, right = market.minutes(symbol, day, view), other.minutes(symbol, day, view)
            for name, values in left.items():
                np.testing.assert_array_equal(values, right[name])
        np.testing.assert_array_equal(
            market.daily(symbol, view=view)["volume"], other.daily(symbol, end=market.today(), view=view)["volume"]
        )


@pytest.mark.parametrize("now, krx_rows, minutes", [("07:59", 0, 0), ("08:30:20", 0, 30), ("12:00", 1, None)])
def test_the_clock_cuts_the_running_day_of_each_view(
    traded: list[str], market: Market, now: str, krx_rows: int, minutes: int | None
) -> None:
    symbol = only(traded, market, USUAL)
    early = Market(7, 60, clock=at(f"{USUAL}T{now}"))
    assert len(early.daily(symbol, USUAL)["date"]) == krx_rows
    for view in ("NX", "UN"):
        rows, so_far = early.daily(symbol, USUAL, view=view), early.minutes(symbol, USUAL, view)
        assert minutes is None or len(so_far["open"]) == minutes
        if not len(so_far["open"]):
            assert not len(rows["date"])
            continue
        assert rows["volume"][-1] == so_far["volume"].sum() and rows["close"][-1] == so_far["close"][-1]
        assert rows["open"][-1] == so_far["open"][0] and rows["high"][-1] == so_far["high"].max()
        np.testing.assert_array_equal(
            so_far["turnover"], market.minutes(symbol, USUAL, view)["turnover"][: len(so_far["open"])]
        )
    late = Market(7, 60, clock=at(f"{USUAL}T19:00"))
    assert late.closed("J") == late.closed("NX") + 1 == late.closed("UN") + 1 and late.running("J") is None
    assert late.daily(symbol, USUAL, view="UN")["volume"][0] > late.daily(symbol, USUAL)["volume"][0]


def test_bars_of_krx_hold_its_after_market_where_it_is_asked_for(market: Market, traded: list[str]) -> None:
    evening = Market(7, 60, clock=at("2026-11-20T20:00"), day_ends="evening")
    symbol = only(traded, market, USUAL)
    plain, longer = market.daily(symbol), evening.daily(symbol)
    before = plain["date"] < krx.AFTER_FIRST
    for name in ("date", *BAR):
        np.testing.assert_array_equal(plain[name][before], longer[name][before])
    assert (longer["volume"] > plain["volume"])[~before & ~plain["halted"]].all()
    np.testing.assert_array_equal(plain["open"], longer["open"])
    minutes: Columns = evening.minutes(symbol, USUAL)
    assert len(market.minutes(symbol, USUAL)["open"]) == 381 < len(minutes["open"])
    assert minutes["volume"].sum() == longer["volume"][longer["date"] == np.datetime64(USUAL)][0]


def test_thin_sessions_have_a_share_for_every_trade() -> None:
    item = Market(7, 60).listings[0]
    for volume in (2_000.0, 2_600.0, 4_000.0, 5_000.0):
        for high, low in ((10_300.0, 9_800.0), (10_010.0, 9_990.0), (12_900.0, 7_100.0), (10_000.0, 10_000.0)):
            fair = np.clip(10_100.0, low + 0.25 * (high - low), high - 0.25 * (high - low))
            money = np.clip(np.round(volume * fair), volume * low, volume * high)
            prices = {"open": min(10_000.0, high), "high": high, "low": low, "close": 10_000.0}
            minutes = intraday.split(3, item, USUAL, {**prices, "volume": volume, "turnover": float(money)})
            moved = minutes.high > minutes.low
            beyond = (minutes.high > np.maximum(minutes.open, minutes.close)).astype(float)
            beyond += minutes.low < np.minimum(minutes.open, minutes.close)
            assert len(minutes.open) == 381 and (minutes.volume >= 1.0 + moved * (1.0 + beyond)).all()
            assert minutes.volume.sum() == volume and minutes.turnover.sum() == money
            assert (minutes.high.max(), minutes.low.min()) == (high, low)
            assert (minutes.turnover >= minutes.low * minutes.volume).all()
            assert (minutes.turnover <= minutes.high * minutes.volume).all()


def test_trades_of_each_view_add_up_to_its_minutes(market: Market, traded: list[str]) -> None:
    ticks = Ticks(market)
    for symbol in traded[:4]:
        for view in ("J", "NX", "UN"):
            for day in (USUAL, EXAM, FIRST):
                minutes, tape = market.minutes(symbol, day, view), ticks.tape(symbol, day, view)
                if not len(tape.ts):
                    assert not len(minutes["open"])
                    continue
                place = np.searchsorted(minutes["start"], tape.ts, side="right") - 1
                first = np.flatnonzero(np.diff(place, prepend=-1))
                last = np.append(first[1:] - 1, len(place) - 1)
                assert (np.diff(tape.ts.astype(np.int64)) >= 0).all() and (tape.volume > 0.0).all()
                np.testing.assert_array_equal(tape.price[first], minutes["open"])
                np.testing.assert_array_equal(tape.price[last], minutes["close"])
                np.testing.assert_array_equal(np.add.reduceat(tape.volume, first), minutes["volume"])
                np.testing.assert_array_equal(np.add.reduceat(tape.price * tape.volume, first), minutes["turnover"])


def test_frames_say_before_in_and_after_the_regular_session(market: Market, traded: list[str]) -> None:
    symbol = only(traded, market, USUAL)
    ticks = Ticks(market)
    for view, known in (("J", {"2"}), ("NX", {"1", "2", "3"}), ("UN", {"1", "2", "3"})):
        rows = trade_rows(ticks.tape(symbol, USUAL, view)).to_pylist()
        assert {row["market_class"] for row in rows} == known
        for row in rows:
            clock = row["ts"].astimezone(krx.KST).time().isoformat()
            named = "1" if clock < "09:00" else "3" if clock > "15:31" else "2"
            assert row["market_class"] == named and row["phase"][0] == named
        assert sum(row["phase"] == "21" for row in rows) == (view != "NX")
    main = ticks.tape(symbol, USUAL, "NX").ts
    opening = np.datetime64("2026-11-18T00:00:30")
    assert main[main > np.datetime64("2026-11-17T23:59")].min() >= opening
