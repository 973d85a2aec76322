"""One symbol as the event loop reads it: the exchange's rules bar by bar, other venues, units, and what is refused."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import krx
from pipeline.backtest import AccountSection, instruments, run, sweep
from pipeline.backtest.money import RATE
from pipeline.backtest.single.event import ACTION, END, HALT, LAST, NO_SHORT
from pipeline.backtest.single.instrument import Instrument
from pipeline.strategies import StrategyError, moving_average_cross, rsi_reversion
from pipeline.tradable import Listing, fills
from tests.sweep_bars import COSTS, FREE, action, daily, flat, frame, sessions, walk

ABOVE, BELOW, HIGHEST, LOWEST, FACTOR, UNIT = range(6)
TAX, ROOM, DAY, TICKS, UNTIL = range(5)


def laid_out(bars: pd.DataFrame, account: AccountSection = FREE, venue: str = "KRX", **more: Any) -> Instrument:
    (found,) = instruments(bars, account, venue=venue, **more)
    return found


def listed(market: str = "KOSPI", kind: str = "stock", gone: date | None = None) -> dict[str, Listing]:
    return {"bars": Listing((market,), (kind,), (gone,))}


@pytest.mark.parametrize("market", ["KOSPI", "KOSDAQ"])
def test_limits_are_those_of_the_day(market: str) -> None:
    ts = sessions(20, "2015-06-03")
    rule = laid_out(flat(ts, [10_000] * 20), listing=listed(market)).rule_TC
    wide = krx.sessions("2015-06-03", "2015-07-30")[:20] >= np.datetime64("2015-06-15")
    assert 0 < wide.sum() < 20
    assert np.isinf(rule[0, :4]).all()  # no close before
    np.testing.assert_array_equal(rule[1:, HIGHEST], np.where(wide, 13_000, 11_500)[1:])
    np.testing.assert_array_equal(rule[1:, LOWEST], np.where(wide, 7_000, 8_500)[1:])
    np.testing.assert_array_equal(rule[1:, ABOVE], rule[1:, HIGHEST])
    np.testing.assert_array_equal(rule[1:, BELOW], rule[1:, LOWEST])


def test_a_bar_can_be_bought_and_sold_where_the_portfolio_can() -> None:
    rng = np.random.default_rng(5)
    for start in ("2009-03-02", "2014-03-03", "2023-12-01"):
        base = rng.integers(600, 60_000, 300) // 10 * 10.0
        ts = sessions(2, start)
        day = krx.sessions(start, "2024-12-30")[1]
        for close in base:
            lower, upper = krx.limits(close, day)
            opening = float(rng.choice([lower, upper, close, lower + krx.tick(lower, day), upper * 0.99]))
            bars = flat(ts, [close, opening])
            rule = laid_out(bars, interval="1d").rule_TC[1]
            zero = np.zeros(1, np.int64)
            one = Listing(("KOSPI",), ("stock",), (None,))
            buy, sell = fills(np.array([opening]), np.array([close]), np.array([day]), zero, one)
            assert (opening < rule[ABOVE], opening > rule[BELOW]) == (np.isfinite(buy[0]), np.isfinite(sell[0]))


def test_ticks_change_on_their_day() -> None:
    ts = sessions(10, "2023-01-18")
    each = laid_out(flat(ts, [15_000] * 10))
    days = krx.sessions("2023-01-18", "2023-02-28")[:10]
    for t, day in enumerate(days):
        for price in (900.0, 1_500.0, 15_000.0, 150_000.0, 600_000.0):
            bands = each.tick_RBC[each.fact_TC[t, TICKS]]
            assert bands[bands[:, 0] <= price][-1, 1] == krx.tick(price, day)
    kosdaq = laid_out(flat(ts, [150_000] * 10), listing=listed("KOSDAQ"))
    assert kosdaq.tick_RBC[kosdaq.fact_TC[0, TICKS], :, 1].max() != 1_000  # 100 won from 50,000 on


@pytest.mark.parametrize(
    ("market", "kind"), [("KOSPI", "stock"), ("KOSDAQ", "stock"), ("KONEX", "stock"), ("KOSPI", "etf")]
)
def test_tax_is_that_of_day_market_and_kind(market: str, kind: str) -> None:
    days = krx.sessions("2018-12-20", "2025-01-10")
    bars = flat(krx.session_closes(days), [10_000] * len(days))
    each = laid_out(bars, AccountSection(), listing=listed(market, kind))
    np.testing.assert_array_equal(each.fact_TC[:, TAX], np.rint(krx.sale_tax(days, market, kind) * RATE))
    own = laid_out(bars, AccountSection(sale_tax_bp=7.5), listing=listed(market, kind))
    assert (own.fact_TC[:, TAX] == 7_500).all()


def test_short_sales_are_forbidden_in_a_ban() -> None:
    days = krx.sessions("2020-03-10", "2021-05-10")
    each = laid_out(flat(krx.session_closes(days), [10_000] * len(days)))
    np.testing.assert_array_equal((each.flag_T & NO_SHORT) == 0, krx.short_sales(days))


def test_a_halt_is_a_bar_without_prices_or_without_volume_once_there_was_one() -> None:
    bars = flat(sessions(8), [100] * 8)
    bars["volume"] = [0, 0, 5, 0, 5, np.nan, 5, 5]
    bars.loc[6, ["open", "high", "low"]] = np.nan
    flags = laid_out(bars).flag_T
    np.testing.assert_array_equal(flags & HALT, np.array([0, 0, 0, HALT, 0, 0, HALT, 0]))


def test_room_is_a_part_of_the_volume_and_open_where_it_is_not_known() -> None:
    bars = flat(sessions(4), [100] * 4)
    bars["volume"] = [1_000, 15, np.nan, 9]
    room = laid_out(bars, AccountSection(participation=0.1)).fact_TC[:, ROOM]
    assert room[[0, 1, 3]].tolist() == [100, 1, 0]
    assert room[2] > 10**15


def test_sessions_end_with_their_last_bar_and_base_prices_are_the_closes_of_the_day_before() -> None:
    days = krx.sessions("2024-01-02", "2024-01-04")
    ts = (krx.session_opens(days)[:, None] + np.arange(1, 4) * np.timedelta64(2, "h")).ravel()
    each = laid_out(flat(ts, [10_000, 10_500, 11_000, 12_000, 9_000, 8_000, 8_000, 8_000, 8_000]), interval="2h")
    assert ((each.flag_T & END) > 0).tolist() == [False, False, True] * 3
    assert each.fact_TC[:, UNTIL].tolist() == [2, 2, 2, 5, 5, 5, 8, 8, 8]
    assert each.rule_TC[3:, HIGHEST].tolist() == [14_300] * 3 + [10_400] * 3
    assert (each.day_T == np.repeat(days, 3)).all()
    assert each.fact_TC[:, DAY].tolist() == np.repeat(days.astype(np.int64), 3).tolist()


def test_an_action_moves_the_base_price_and_the_money_of_a_price() -> None:
    ts = sessions(4)
    each = laid_out(flat(ts, [50_000, 50_000, 1_000, 1_000]), actions=action(str(ts[2])[:10], 50.0))
    assert each.rule_TC[:, FACTOR].tolist() == [1, 1, 50, 1]
    assert ((each.flag_T & ACTION) > 0).tolist() == [False, False, True, False]
    assert each.rule_TC[2, [HIGHEST, LOWEST]].tolist() == [1_300, 700]
    np.testing.assert_allclose(each.rule_TC[:, UNIT], [1, 1, 1 / 50, 1 / 50])
    np.testing.assert_allclose(each.bars["close"], 50_000)


@pytest.mark.parametrize("which", [moving_average_cross, rsi_reversion], ids=lambda s: s.name)
def test_a_run_over_a_split_is_the_run_without_it(which: Any) -> None:
    bars = daily(400, "2021-01-04", seed=3)
    for name in ("open", "high", "low", "close"):
        bars[name] *= 1_000  # so that prices stay whole after the split
    split = bars.copy()
    for name in ("open", "high", "low", "close"):
        split.loc[200:, name] /= 10
    split.loc[200:, "volume"] *= 10
    account = COSTS.model_copy(update={"sale_tax_bp": 20.0, "capital": 10**12, "size": 0.5, "slippage_bp": 0.0})
    plain, over = (
        run(b, which, account=account, venue="NONE", actions=actions)
        for b, actions in ((bars, None), (split, action(str(bars["ts"][200].date()), 10.0)))
    )
    assert len(plain.trades) > 3
    for name in ("entry_ts", "exit_ts", "side", "reason"):
        assert plain.trades[name].tolist() == over.trades[name].tolist()
    # A decision after the split may buy a tenth of an old share more.
    np.testing.assert_allclose(over.equity["equity"], plain.equity["equity"], rtol=2e-4)
    before = plain.equity["ts"] < bars["ts"][200]
    assert (plain.equity["equity"][before] == over.equity["equity"][before]).all()


def test_a_position_held_over_a_split_is_worth_the_same_to_the_won() -> None:
    ts = sessions(6)
    closes = [100_000, 100_000, 100_000, 10_000, 11_000, 11_000]
    told = [
        run(flat(ts, c), HOLD, account=FREE, venue="NONE", actions=a).equity["equity"].tolist()
        for c, a in ((closes, action(str(ts[3])[:10], 10.0)), ([c if c > 50_000 else 10 * c for c in closes], None))
    ]
    assert told[0] == told[1]
    assert told[0][-1] == 110_000_000


def hold(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 1


HOLD = moving_average_cross.__class__("hold", (), (), hold)


def test_a_delisted_symbol_ends_on_its_day() -> None:
    bars = flat(sessions(6), [100, 100, 100, 120, 120, 120])
    third = bars["ts"][3].date()
    each = laid_out(bars, listing=listed(gone=third))
    assert len(each) == 4
    assert each.flag_T[-1] & LAST
    result = run(bars, HOLD, account=FREE, listing=listed(gone=third))
    assert result.trades["reason"].tolist() == ["delisted"]
    assert result.equity["equity"].tolist()[-1] == 120_000_000
    later = laid_out(bars, listing=listed(gone=date(2030, 1, 2)))
    assert len(later) == 6
    assert not later.flag_T[-1] & LAST
    with pytest.raises(StrategyError, match="up to its delisting on 2020-01-02, got the first on 2024-01-02"):
        laid_out(bars, listing=listed(gone=date(2020, 1, 2)))


def test_other_venues_have_no_rules() -> None:
    each = laid_out(walk(200), AccountSection(), venue="24h")
    assert np.isinf(each.rule_TC[:, :4]).all()
    assert (each.tick_RBC == 0).all()
    assert (each.fact_TC[:, TAX] == 0).all()
    assert not (each.flag_T & (HALT | NO_SHORT)).any()
    ends = np.flatnonzero(each.flag_T & END)
    assert ends.tolist() == [95, 191, 199]  # midnight ends the day


def test_lots_and_cents() -> None:
    account = FREE.model_copy(update={"unit": 0.01, "lot": 0.001, "capital": 1_000_000})  # 10,000 dollars
    bars = flat(walk(6)["ts"].to_numpy(), [40_000, 40_000, 40_000, 44_000, 44_000, 44_000])
    each = laid_out(bars, account, venue="24h")
    assert each.price_TC[0].tolist() == [4_000.0] * 4
    result = run(bars, HOLD, account=account, venue="24h")
    assert result.equity["equity"].tolist() == [10_000, 10_000, 11_000, 11_000, 11_000]
    assert result.figures["end_equity"] == 1_100_000
    bars["volume"] = 0.05
    room = laid_out(bars, account, venue="24h").fact_TC[:, ROOM]
    assert (room == 50).all()


def test_who_cannot_buy_a_single_lot_is_told() -> None:
    account = FREE.model_copy(update={"capital": 10_000})
    bars = flat(walk(6)["ts"].to_numpy(), [40_000] * 6)
    with pytest.warns(UserWarning, match="bars is never traded: 10000 do not buy a lot, which costs 40000"):
        assert not len(run(bars, HOLD, account=account, venue="24h").trades)


def test_prices_and_money_of_trades_are_in_the_currency_of_prices() -> None:
    account = COSTS.model_copy(update={"unit": 0.01, "lot": 0.001, "capital": 1_000_000})
    bars = walk(900, seed=4)
    trades = run(bars, rsi_reversion, account=account, venue="24h").trades
    assert len(trades) > 3
    assert trades["entry_price"].between(bars["low"].min() * 0.99, bars["high"].max() * 1.01).all()
    np.testing.assert_allclose(trades["value"], trades["shares"] * trades["entry_price"], atol=0.006)
    np.testing.assert_allclose(trades["proceeds"], trades["shares"] * trades["exit_price"], atol=0.006)
    sign = np.where(trades["side"] == "long", 1, -1)
    costs = trades["commission"] + trades["tax"] + trades["borrow"]
    np.testing.assert_allclose(trades["profit"], sign * (trades["proceeds"] - trades["value"]) - costs, atol=1e-6)
    np.testing.assert_allclose(trades["shares"] / 0.001, np.rint(trades["shares"] / 0.001), atol=1e-6)


def test_stamps_of_any_zone_and_unit_are_the_same_bars() -> None:
    bars = walk(300)
    expected = sweep(bars, rsi_reversion, {"rsi": [3, 5]}, venue="24h")
    utc = bars["ts"].dt.tz_localize("UTC")
    for ts in (
        utc,
        utc.dt.tz_convert("Asia/Seoul"),
        bars["ts"].astype("datetime64[ns]"),
        bars["ts"].astype("datetime64[s]"),
    ):
        found = sweep(bars.assign(ts=ts), rsi_reversion, {"rsi": [3, 5]}, venue="24h")
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def changed(row: int, **values: Any) -> pd.DataFrame:
    bars = daily(30)
    for name, value in values.items():
        bars.loc[row, name] = value
    return bars


BAD = {
    "a price that is missing": (changed(7, open=np.nan), {}, r"got open nan, .* in row 7 \(1 such rows\)"),
    "a close that is missing": (changed(7, close=np.nan), {}, "close nan"),
    "zero": (changed(7, low=0.0), {}, "expected positive prices .* low 0,"),
    "negative": (changed(7, close=-5.0), {}, "close -5"),
    "infinite": (changed(7, high=np.inf), {}, "high inf"),
    "high below low": (changed(7, high=1.0), {}, "high 1,"),
    "negative volume": (changed(7, volume=-1.0), {}, r"expected a volume of 0 or more .* -1 .*row 7"),
    "parts of a minute": (daily(9).assign(ts=lambda x: x["ts"] - np.timedelta64(1, "ms")), {}, "minutes .* in row 0"),
    "no stamp": (changed(7, ts=pd.NaT), {}, "expected a ts and a symbol for each bar, got none in row 7"),
    "unsorted": (daily(30)[::-1], {}, r"sorted by \(symbol, ts\), each once, .* in row 1; sort"),
    "twice": (pd.concat([daily(5), daily(5)[4:]]), {}, "in row 5; sort and drop duplicates"),
    "symbols out of order": (
        pd.concat([daily(5).assign(symbol="B"), daily(5).assign(symbol="A")]), {}, "got A .* in row 5"),
    "text stamps": (daily(5).assign(ts="2024-01-02"), {}, "expected ts as datetimes .*pandas.to_datetime"),
    "text prices": (daily(5).assign(close="a"), {}, "expected numbers as close .*pandas.to_numeric"),
    "no column": (daily(5).drop(columns=["high", "low"]), {}, "none of high, low"),
    "no bars": (daily(5)[:0], {}, "empty frame"),
    "no frame": (None, {}, "expected bars with ts"),
    "closes only": (daily(9).assign(open=np.nan, high=np.nan, low=np.nan), {}, "got closes only"),
    "one bar": (daily(1), {}, "at least two bars to tell their interval"),
    "a weekend": (frame(sessions(1)[0] + np.arange(9) * np.timedelta64(1, "D"), np.full(9, 9e3)), {},
                  "on sessions of the Korea Exchange, got one on 2024-01-06; give venue="),
    "small letters": (daily(9), {"venue": "krx"}, "did you mean 'KRX'"),
    "a market": (daily(9), {"venue": "KOSDAQ"}, "got 'KOSDAQ', which is a market of KRX; give venue='KRX'"),
    "finer bars": (walk(9), {"venue": "24h", "interval": "1h"}, "expected bars of 1h, got 15 minutes between"),
    "no venue": (daily(9), {"venue": ""}, "expected the name of a venue"),
    "no interval": (daily(9), {"interval": "15min"}, "expected an interval such as .* got '15min'"),
    "odd bars": (walk(9, 7), {"venue": "24h"}, "got 7 minutes between most of them"),
    "actions of another kind": (daily(9), {"actions": pd.DataFrame()}, "expected actions as an Arrow table"),
    "an action without sense": (daily(9), {"actions": action("2024-01-05", 0.0)}, "positive factors"),
    "an action of a name that bars lack": (daily(9), {"actions": action("2024-01-05", 2.0, "A")}, "actions of A"),
}  # fmt: skip


def test_numbers_of_any_kind_are_bars() -> None:
    bars = walk(300)
    for kind in (object, "Float64", np.float32):
        given = bars.assign(**{name: bars[name].astype(kind) for name in ("open", "high", "low", "close", "volume")})
        for name in ("open", "close", "volume"):
            assert instruments(given, FREE, venue="24h")[0].bars[name].dtype == np.float64


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_bar_is_refused_with_its_place(name: str) -> None:
    bars, more, message = BAD[name]
    with pytest.raises(StrategyError, match=message):
        instruments(bars, FREE, **more)


def test_instruments_are_those_of_their_account() -> None:
    found = instruments(walk(300), FREE, venue="24h")
    frame_equal = pd.testing.assert_frame_equal
    grid = {"rsi": [3, 5]}
    frame_equal(
        sweep(found, rsi_reversion, grid, account=FREE),
        sweep(walk(300), rsi_reversion, grid, account=FREE, venue="24h"),
    )
    with pytest.raises(StrategyError, match="lay it out again with this account"):
        sweep(found, rsi_reversion, grid, account=FREE.model_copy(update={"lot": 0.001}))
    with pytest.raises(StrategyError, match="expected no venue with instruments"):
        sweep(found, rsi_reversion, grid, account=FREE, venue="24h")
    for wrong in ([], [walk(9)]):
        with pytest.raises(StrategyError, match="expected a frame of bars or a list of instruments"):
            sweep(wrong, rsi_reversion, grid, account=FREE)


def test_the_frame_that_was_given_is_not_touched() -> None:
    bars = daily(60)
    bars.loc[20, "volume"] = 0.0
    before = bars.copy(deep=True)
    run(bars, rsi_reversion, account=FREE)
    pd.testing.assert_frame_equal(bars, before)
