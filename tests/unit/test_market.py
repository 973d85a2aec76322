"""The simulated market keeps the exchange's rules, adds up, does not depend on what was asked, and carries the signal
it says."""

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.kis.simulator import intraday, paths
from pipeline.kis.simulator.charts import by_period
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.market import SIGNAL, SYMBOL_ROWS, Columns, Market, UnknownSymbol
from pipeline.kis.simulator.strength import attainable_ic

START, END = date(2021, 11, 22), date(2026, 11, 20)


def at(text: str) -> Callable[[], datetime]:
    return Clock(moment(text), 0.0)


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(11, 100, clock=at("2026-11-20"))


@pytest.fixture(scope="module")
def histories(market: Market) -> dict[str, Columns]:
    return {symbol: market.daily(symbol, START, END) for symbol in market.symbols()["symbol"].to_pylist()}


def traded(rows: Columns) -> Columns:
    return {name: values[~rows["halted"]] for name, values in rows.items()}


def test_five_years_hold_everything_that_a_study_must_survive(market: Market, histories: dict[str, Columns]) -> None:
    listings = market.symbols()
    assert listings.schema.equals(SYMBOL_ROWS) and len(listings) == 100
    rows = listings.to_pylist()
    gone = [row for row in rows if row["delisted"] is not None]
    assert len(gone) >= 2 and all(START < row["delisted"] <= END for row in gone)
    assert sum(row["listed"] > START for row in rows) >= 2
    assert sum(not row["symbol"].isdigit() for row in rows) >= 1
    assert {"stock", "preferred", "etf"} == {row["kind"] for row in rows} and {"KOSPI", "KOSDAQ"} == {
        row["market"] for row in rows
    }
    assert len({row["symbol"] for row in rows}) == len({row["name"] for row in rows}) == 100
    kinds = [
        action["kind"]
        for row in rows
        for action in market.actions(row["symbol"]).to_pylist()
        if action["ex_date"] > START
    ]
    assert kinds.count("split") >= 2 and kinds.count("rights") >= 2 and {"capital_reduction", "spin_off"} <= set(kinds)
    assert sum(history["halted"].any() for history in histories.values()) >= 10
    locked = [
        (day["high"] == day["low"]) & ((day["close"] == day["upper"]) | (day["close"] == day["lower"]))
        for day in map(traded, histories.values())
    ]
    assert sum(int(days.sum()) for days in locked) >= 5


def test_prices_keep_to_ticks_limits_and_each_other(market: Market, histories: dict[str, Columns]) -> None:
    for symbol, history in histories.items():
        item, rows = market.listing(symbol), traded(history)
        assert (rows["low"] <= np.minimum(rows["open"], rows["close"])).all()
        assert (rows["high"] >= np.maximum(rows["open"], rows["close"])).all()
        lower, upper = krx.limits(rows["base"], rows["date"], item.kind, item.market)
        assert (rows["low"] >= lower).all() and (rows["high"] <= upper).all()
        for name in ("open", "high", "low", "close"):
            assert (rows[name] % krx.tick(rows[name], rows["date"], item.kind, item.market) == 0).all()
        assert (rows["turnover"] >= rows["low"] * rows["volume"]).all() and (
            rows["turnover"] <= rows["high"] * rows["volume"]
        ).all()
        assert (rows["volume"] > 0).all() and (rows["volume"] % 1 == 0).all() and (rows["turnover"] % 1 == 0).all()


def test_base_is_the_close_before_but_for_actions(market: Market, histories: dict[str, Columns]) -> None:
    for symbol, rows in histories.items():
        actions = {row["ex_date"]: row["factor"] for row in market.actions(symbol).to_pylist()}
        differs = rows["base"][1:] != rows["close"][:-1]
        days = rows["date"][1:][differs].tolist()
        assert days == [day for day in actions if day > rows["date"][0].item()]
        for day, before, base in zip(days, rows["close"][:-1][differs], rows["base"][1:][differs]):
            assert before / base == pytest.approx(actions[day])
        assert (rows["ratio"] > 0).sum() == len(days)


def test_a_day_without_trade_keeps_the_close_and_has_nothing_else(histories: dict[str, Columns]) -> None:
    for rows in histories.values():
        halted = rows["halted"]
        assert (
            np.isnan(rows["open"][halted]).all()
            and (rows["volume"][halted] == 0).all()
            and (rows["sign"][halted] == 3).all()
        )
        again = np.flatnonzero(halted[1:]) + 1
        assert (rows["close"][again] == rows["close"][again - 1]).all()


def test_sessions_are_those_of_the_exchange_between_listing_and_delisting(market: Market) -> None:
    for row in market.symbols().to_pylist():
        days = market.daily(row["symbol"])["date"]
        last = row["delisted"] - timedelta(days=1) if row["delisted"] else END
        assert days.tolist() == krx.sessions(row["listed"], last).tolist()


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(0, 240))
def test_minutes_add_up_to_the_day(market: Market, number: int, back: int) -> None:
    item = market.listings[number]
    rows = market.daily(item.symbol)
    row = len(rows["date"]) - 1 - min(back, len(rows["date"]) - 1)
    day, minutes = rows["date"][row].item(), market.minutes(item.symbol, rows["date"][row].item())
    if rows["halted"][row]:
        assert len(minutes["open"]) == 0
        return
    starts, ends = intraday.labels(day)
    assert (minutes["start"] == starts).all() and (minutes["end"] == ends).all()
    assert minutes["open"][0] == rows["open"][row] and minutes["close"][-1] == rows["close"][row]
    assert minutes["high"].max() == rows["high"][row] and minutes["low"].min() == rows["low"][row]
    assert minutes["volume"].sum() == rows["volume"][row] and minutes["turnover"].sum() == rows["turnover"][row]
    assert (minutes["volume"] >= 1).all()
    assert (minutes["low"] <= np.minimum(minutes["open"], minutes["close"])).all()
    assert (minutes["high"] >= np.maximum(minutes["open"], minutes["close"])).all()
    assert (minutes["turnover"] >= minutes["low"] * minutes["volume"]).all()
    assert (minutes["turnover"] <= minutes["high"] * minutes["volume"]).all()


@pytest.mark.parametrize(
    "day, first, last, count",
    [
        ("2026-11-18", "00:00", "06:30", 381),
        ("2026-11-19", "01:00", "07:30", 381),
        ("2026-01-02", "01:00", "06:30", 321),
    ],
)
def test_labels_follow_the_hours_of_the_day(day: str, first: str, last: str, count: int) -> None:
    starts, ends = intraday.labels(date.fromisoformat(day))
    assert len(starts) == count and str(starts[0])[:16] == f"{day}T{first}" and str(ends[-1])[:16] == f"{day}T{last}"
    assert (ends[-1] - ends[-2]) == np.timedelta64(10, "m")


def test_weeks_are_made_of_their_days(market: Market) -> None:
    daily = market.daily(market.listings[1].symbol)
    weekly = by_period(daily, "W")
    assert weekly["volume"].sum() == daily["volume"].sum() and weekly["turnover"].sum() == daily["turnover"].sum()
    week = (daily["date"] >= np.datetime64("2026-11-16")) & (daily["date"] <= np.datetime64("2026-11-20"))
    assert weekly["date"][-1] == np.datetime64("2026-11-20")
    assert weekly["open"][-1] == daily["open"][week][0] and weekly["close"][-1] == daily["close"][week][-1]
    assert weekly["high"][-1] == daily["high"][week].max() and weekly["low"][-1] == daily["low"][week].min()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 59), st.dates(START, END), st.booleans()), min_size=1, max_size=5))
def test_what_was_asked_before_changes_nothing(market: Market, questions: list[tuple[int, date, bool]]) -> None:
    other = Market(11, 60, clock=at("2026-11-20"))  # a smaller market is the beginning of a larger one
    for number, day, minute in questions:
        symbol = market.listings[number].symbol
        left = market.minutes(symbol, day) if minute else market.daily(symbol, day, day + timedelta(days=9))
        right = other.minutes(symbol, day) if minute else other.daily(symbol, day, day + timedelta(days=9))
        for name, values in left.items():
            np.testing.assert_array_equal(values, right[name])


def test_the_clock_hides_what_is_to_come_and_never_changes_the_past() -> None:
    symbol = Market(11, 3).listings[0].symbol
    before, during, after = (
        Market(11, 3, clock=at(text)) for text in ("2026-11-18T08:59", "2026-11-18T11:00:30", "2026-11-18T15:30")
    )
    today = date(2026, 11, 18)
    day = np.datetime64(today)
    assert before.daily(symbol)["date"][-1] == np.datetime64("2026-11-17")
    running, whole, minutes = during.daily(symbol), after.daily(symbol), after.minutes(symbol, today)
    assert running["date"][-1] == whole["date"][-1] == day
    for name in ("open", "close", "volume"):
        np.testing.assert_array_equal(running[name][:-1], whole[name][:-1])
    so_far = during.minutes(symbol, today)
    assert len(so_far["open"]) == 120 and len(minutes["open"]) == 381
    np.testing.assert_array_equal(so_far["turnover"], minutes["turnover"][:120])
    assert running["volume"][-1] == minutes["volume"][:120].sum() and running["close"][-1] == minutes["close"][119]
    assert running["high"][-1] == minutes["high"][:120].max() <= whole["high"][-1]
    with pytest.raises(UnknownSymbol, match="999999"):
        during.daily("999999")
    late = next(item for item in Market(11, 20).listings if item.listed.year >= 2024)
    with pytest.raises(UnknownSymbol):
        Market(11, 20, clock=at("2023-12-28")).daily(late.symbol)


def test_adjusted_prices_continue_over_actions(market: Market) -> None:
    for item in market.listings[:20]:
        if not item.events:
            continue
        raw, adjusted = market.daily(item.symbol), market.daily(item.symbol, adjusted=True)
        row = int(np.searchsorted(raw["date"], np.datetime64(item.events[0].day)))
        np.testing.assert_array_equal(raw["close"][row:], adjusted["close"][row:])
        assert adjusted["close"][row - 1] == pytest.approx(adjusted["base"][row], abs=1.0)


def test_the_hidden_state_is_standard_normal_and_persistent(market: Market) -> None:
    states = np.concatenate([paths.hidden(11, item) for item in market.listings])
    assert abs(states.mean()) < 0.03 and 0.97 < states.std() < 1.03
    dates, state = market.signal(market.listings[0].symbol)
    assert len(dates) == len(state) and dates[-1] == np.datetime64("2026-11-20")
    assert 0.85 < np.corrcoef(state[1:], state[:-1])[0, 1] < 0.94


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_planted_signal_has_the_strength_it_says(seed: int) -> None:
    found = attainable_ic(Market(seed, 100, signal=SIGNAL, clock=at("2026-11-20")), START, END)
    assert 0.12 < found["hidden"] < 0.18
    assert 0.08 < found["volume"] < 0.125


@pytest.mark.parametrize("seed", [1, 2])
def test_without_a_signal_nothing_can_be_known(seed: int) -> None:
    found = attainable_ic(Market(seed, 100, signal=0.0, clock=at("2026-11-20")), START, END)
    assert abs(found["hidden"]) < 0.025 and abs(found["volume"]) < 0.025


def test_a_hundred_symbols_times_five_years_come_quickly() -> None:
    market = Market(3, 100, clock=at("2026-11-20"))
    started = time.process_time()
    rows = sum(len(market.daily(item.symbol, START, END)["close"]) for item in market.listings)
    assert rows > 100_000 and time.process_time() - started < 1.5


def test_thousands_of_listings_cost_nothing_until_asked_for() -> None:
    market = Market(3, 2_700, clock=at("2026-11-20"))
    assert len({item.symbol for item in market.listings}) == 2_700
    assert market.path.cache_info().currsize == 0
    assert len(market.daily(market.listings[2_699].symbol)["close"]) > 0


@pytest.mark.parametrize("since", ["1999-03-02", "2015-07-01", "2022-09-01", "2026-11-19"])
def test_the_end_of_a_path_can_be_had_without_its_beginning(market: Market, since: str) -> None:
    place = int(np.searchsorted(paths.DAYS, np.datetime64(since)))
    for item in market.listings[:60]:
        whole = market.path(item.symbol)
        part = paths.path(market.seed, item, market.factors, market.kappa, place)
        assert whole.first <= part.first <= max(place, whole.first)
        for name in ("open", "high", "low", "close", "volume", "turnover", "base", "halted", "lower", "upper"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[part.first - whole.first :])


@pytest.mark.parametrize("text, running", [("2026-11-18T08:30", False), ("2026-11-18T11:00", True)])
def test_base_and_volume_without_the_path_are_those_of_the_days(text: str, running: bool) -> None:
    market = Market(11, 40, clock=at(text))
    for item in market.on_board("KOSPI"):
        rows = market.daily(item.symbol)
        base, volume = market.standing(item)
        assert base == (rows["base"][-1] if running else rows["close"][-1])
        assert volume == rows["volume"][-2 if running else -1]


def test_some_issues_get_another_name() -> None:
    listings = Market(11, 100).listings
    renamed = [item for item in listings if item.renamed is not None]
    assert {item.number % 20 for item in renamed} == {2, 12} and len(renamed) == 10
    assert len({item.later for item in renamed} | {item.name for item in listings}) == 110
    for item in renamed:
        assert item.renamed is not None and START < item.renamed < END
        assert item.name_on(item.renamed - timedelta(days=1)) == item.name != item.name_on(item.renamed)


def test_wrong_clocks_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="ISO"):
        moment("yesterday")
    with pytest.raises(ValueError, match="2027-12-31"):
        moment("2031-01-01")
    with pytest.raises(ValueError, match="symbol"):
        Market(1, 0)
    assert moment("2026-11-20").isoformat() == "2026-11-20T18:00:00+09:00"
