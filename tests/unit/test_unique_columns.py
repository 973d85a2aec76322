"""Columns that combinations share: what the indicators give when asked directly, seen once their bars have closed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import krx
from pipeline.backtest import instruments
from pipeline.backtest.single.instrument import Instrument
from pipeline.backtest.single.samples import grid, one
from pipeline.backtest.single.unique import fill, wanted
from pipeline.indicators import compute
from pipeline.strategies import ALL, Parameter, Strategy, StrategyError, Use, wm_pattern
from tests.sweep_bars import FREE, action, daily, frame, walk

CLOSE_4H = Use("close", at="4h")


def nothing(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 0


def strategy(*uses: Use) -> Strategy:
    return Strategy("columns", (Parameter("n", 5, 2, 60),), uses, nothing)


def laid_out(bars: pd.DataFrame, venue: str = "24h", **more: Any) -> Instrument:
    (found,) = instruments(bars, FREE, venue=venue, **more)
    return found


def columns(each: Instrument, *uses: Use, threads: int = 1) -> Any:
    """Return the columns that the uses ask for, (J, T) float32."""
    want = wanted(one(strategy(*uses), {}), each.interval)
    out = np.empty((len(want.columns), len(each)), np.float32)
    fill(out, range(len(want.columns)), each, want.columns, threads)
    return out[want.at_CJ[0]]


@pytest.mark.parametrize("which", ALL, ids=lambda s: s.name)
def test_columns_are_those_of_the_indicators_asked_directly(which: Strategy) -> None:
    each = laid_out(walk(1_500))
    values = which.defaults | ({"trend_timeframe": "4h"} if which.name == "template" else {})
    want = wanted(one(which, values), "15m")
    out = np.empty((len(want.columns), len(each)), np.float32)
    fill(out, range(len(want.columns)), each, want.columns, 2)
    for j, use in enumerate(which.columns):
        mine, spec = out[want.at_CJ[0, j]], use.spec(values, "15m")
        bars = (each.coarser(spec.at) if spec.at else each.bars).assign(symbol="bars")
        if spec.indicator == "close":
            direct = bars["close"].to_numpy(np.float32)
        else:
            direct = compute(bars, [spec.model_copy(update={"at": ""})]).iloc[:, 0].to_numpy(np.float32)
        if spec.at:
            place = np.searchsorted(bars["ts"].to_numpy(), each.bars["ts"].to_numpy(), side="right") - 1
            direct = np.where(place >= 0, direct[np.maximum(place, 0)], np.nan)
            if use.once:
                direct = np.where(np.diff(place, prepend=-1) > 0, direct, 0)
        np.testing.assert_array_equal(mine, direct)


def test_each_distinct_column_is_there_once() -> None:
    chosen = grid(wm_pattern, {"rsi": [7, 14], "stop_atr": [1.0, 2.0, 3.0], "filter_timeframe": ["1h", "4h"]})
    want = wanted(chosen, "15m")
    names = [(column.name, once) for column, once in want.columns]
    assert len(names) == len(set(names)) == 1 + 2 + 1 + 1 + 2
    assert want.at_CJ.shape == (12, 5)


def test_a_coarse_value_is_seen_from_the_bar_on_with_which_its_own_closes() -> None:
    bars = walk(40)
    each = laid_out(bars)
    (seen,) = columns(each, CLOSE_4H)
    assert np.isnan(seen[:15]).all()  # 03:45 is the 15th bar
    closes = bars["close"].to_numpy(np.float32)
    assert (seen[15:31] == closes[15]).all()
    assert (seen[31:] == closes[31]).all()


def test_a_coarse_bar_without_its_last_part_is_seen_with_the_next_bar_there_is() -> None:
    bars = walk(40).drop(index=[14, 15, 16]).reset_index(drop=True)  # 03:45, 04:00, 04:15
    (seen,) = columns(laid_out(bars), CLOSE_4H)
    assert np.isnan(seen[:14]).all()
    assert seen[14] == np.float32(bars["close"][13])  # at 04:30, the close of 03:30


def test_what_happens_after_a_coarse_bar_changes_none_of_its_values() -> None:
    bars = walk(200)
    before = columns(laid_out(bars), CLOSE_4H, Use("rsi", {"n": "n"}, at="1h"))
    for t in (16, 17, 100, 131):
        changed = bars.copy()
        changed.loc[t:, ["open", "high", "low", "close"]] *= 3.0
        after = columns(laid_out(changed), CLOSE_4H, Use("rsi", {"n": "n"}, at="1h"))
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        shorter = columns(laid_out(bars[:t]), CLOSE_4H)
        np.testing.assert_array_equal(shorter, before[:1, :t])


def test_buckets_of_the_exchange_count_from_its_opening_and_the_last_may_be_short() -> None:
    day = np.datetime64("2024-01-03T00:00", "us")  # 09:00 in Seoul
    ts = np.concatenate([day + d * np.timedelta64(1, "D") + np.arange(1, 14) * np.timedelta64(30, "m") for d in (0, 1)])
    bars = frame(ts, np.arange(100.0, 126.0), digits=0)
    each = laid_out(bars, "KRX")
    (seen,) = columns(each, CLOSE_4H)
    assert np.isnan(seen[:7]).all()
    assert (seen[7:12] == 107).all()  # 09:00-13:00
    assert (seen[12:20] == 112).all()  # 13:00-15:30, seen with the bar that ends at 15:30
    assert (seen[20:25] == 120).all()
    assert seen[25] == 125


def test_days_and_weeks_are_made_of_intraday_bars_of_the_exchange() -> None:
    days = krx.sessions("2024-02-05", "2024-02-16")  # 9th and 12th: holidays
    opens = krx.session_opens(days)
    ts = (opens[:, None] + np.arange(1, 14) * np.timedelta64(30, "m")).ravel()
    each = laid_out(frame(ts, np.arange(1_000.0, 1_000 + len(ts)), digits=0), "KRX")
    day, week = columns(each, Use("close", at="1d"), Use("close", at="1w"))
    assert np.isnan(day[:12]).all()
    assert day[12] == 1_012
    last = 13 * 4 - 1  # Thursday the 8th ends the week
    assert np.isnan(week[:last]).all()
    assert (week[last : len(ts) - 1] == 1_000 + last).all()
    assert week[-1] == 1_000 + len(ts) - 1


def test_a_week_that_has_not_ended_is_not_seen() -> None:
    each = laid_out(daily(8, "2024-03-04"), "KRX")  # Monday
    (week,) = columns(each, Use("close", at="1w"))
    assert np.isnan(week[:4]).all()
    assert (week[4:] == np.float32(each.bars["close"][4])).all()


def test_an_event_is_there_once_and_zero_afterwards() -> None:
    each = laid_out(walk(100))
    once, always = columns(each, Use("close", at="1h", once=True), Use("close", at="1h"))
    at = np.flatnonzero(once)
    assert (at == np.arange(3, 100, 4)).all()
    assert (once[at] == always[at]).all()
    (same,) = columns(each, Use("close", once=True))
    assert (same == each.bars["close"].to_numpy(np.float32)).all()  # of the bars themselves it says nothing


def test_a_timeframe_of_the_bars_themselves_is_the_bars() -> None:
    each = laid_out(walk(60))
    own, plain = columns(each, Use("rsi", {"n": "n"}, at="15m"), Use("rsi", {"n": "n"}))
    np.testing.assert_array_equal(own, plain)


HALT_USES = (Use("ema", {"n": "n"}), Use("atr", {"n": "n"}, "atr"), Use("close"), Use("ema", {"n": "n"}, at="1w"),
             Use("rsi", {"n": "n"}), Use("obv"))  # fmt: skip


def halted(how: str) -> pd.DataFrame:
    bars = daily(80)
    bars.loc[30:33, "close"] = bars["close"][29]
    for name in ("open", "high", "low"):
        bars.loc[30:33, name] = np.nan if how == "nan" else bars["close"][29]
    bars.loc[30:33, "volume"] = 0.0
    return bars


def test_a_halt_is_no_bar_however_it_is_written() -> None:
    by_nan, by_volume = (columns(laid_out(halted(how), "KRX"), *HALT_USES) for how in ("nan", "volume"))
    np.testing.assert_array_equal(by_nan, by_volume)
    assert np.isnan(by_nan[[0, 1, 2, 4], 30:34]).all()
    left_out = columns(laid_out(halted("nan").drop(index=range(30, 34)).reset_index(drop=True), "KRX"), *HALT_USES[:3])
    np.testing.assert_array_equal(np.delete(by_nan[:3], range(30, 34), axis=1), left_out)


@pytest.mark.parametrize("gap", ["halt", "volume"])
def test_a_column_is_the_same_alone_and_beside_others_on_any_number_of_threads(gap: str) -> None:
    bars = halted("nan")
    if gap == "volume":
        bars.loc[40:45, "volume"] = np.nan
    each = laid_out(bars, "KRX")
    alone = np.concatenate([columns(each, use) for use in HALT_USES])
    for threads in (1, 2, 3, 8):
        np.testing.assert_array_equal(columns(each, *HALT_USES, threads=threads), alone)


def test_a_split_leaves_columns_as_they_were() -> None:
    bars = daily(120)
    split = bars.copy()
    for name in ("open", "high", "low", "close"):
        split.loc[60:, name] /= 10
    actions = action(str(bars["ts"][60].date()), 10.0)
    uses = (Use("ema", {"n": "n"}), Use("atr", {"n": "n"}, "atr"), Use("close", at="1w"))
    with_it = columns(laid_out(split, "KRX", actions=actions), *uses)
    np.testing.assert_allclose(with_it, columns(laid_out(bars, "KRX"), *uses), rtol=1e-6)


def test_what_cannot_be_computed_is_said() -> None:
    each = laid_out(walk(100, 60))
    with pytest.raises(StrategyError, match=r"expected a timeframe that bars of 1h .* got '30m'"):
        columns(each, Use("rsi", {"n": "n"}, at="30m"))
    with pytest.raises(StrategyError, match="expected an interval"):
        columns(each, Use("rsi", {"n": "n"}, at="3h"))
    with pytest.raises(StrategyError, match=r"strategy .columns.: .*did you mean .rsi."):
        columns(each, Use("rsii", {"n": "n"}))
    with pytest.raises(StrategyError, match="expected one output"):
        columns(each, Use("macd"))
    with pytest.raises(StrategyError, match="none of volume"):
        columns(laid_out(walk(100).drop(columns="volume")), Use("obv"))
    with pytest.warns(UserWarning, match="NaN throughout: ema_60 needs 60 bars, there are 20"):
        columns(laid_out(walk(20)), Use("ema", {"n": 60}))
