"""The order semantics of one instrument, rule by rule: a few bars checked by hand (docs/order-semantics.md)."""

from __future__ import annotations

from math import nan

import pytest

from pipeline.backtest.single.event import FLAT, HALT, LONG, NO_SHORT, SHORT
from tests.event_cases import LATER

from .event_markets import traded

PERCENT = 100_000  # of 1e-7
ENTRY = ("entry", "entry_price", "shares")


# When a signal is known and when it fills


def test_decided_at_the_close_filled_at_the_next_open() -> None:
    result = traded([100, (110, 120, 90, 105), (95, 99, 91, 97)], {0: LONG, 1: FLAT}, capital=1_100)
    # 11 shares at the close of 100; at 110 the cash pays for 10
    assert result.closed("entry", "entry_price", "exit", "exit_price", "shares") == [(1, 110.0, 2, 95.0, 10)]
    assert result.equity == [1_100, 1_050, 950]


def test_the_last_bar_decides_nothing_and_what_is_held_is_valued_at_its_close() -> None:
    result = traded([100, 100, 120], {0: LONG, 2: FLAT}, commission=PERCENT, tax=PERCENT)
    assert result.trades == []
    assert result.equity == [1_000, 991, 1_171]  # nine shares, 9 won of commission, no costs of selling


def test_the_side_that_is_held_already_changes_nothing() -> None:
    result = traded([100, 100, 110, 120, 130], {0: LONG, 1: LONG, 2: LONG, 3: FLAT})
    assert result.closed() == [(1, 4, 10, 130.0, "signal")]


def test_a_reversal_closes_and_opens_at_the_same_open() -> None:
    result = traded([100, 100, 100, 80], {0: LONG, 1: SHORT, 2: FLAT})
    assert result.closed("entry", "exit", "side", "profit") == [(1, 2, 1, 0), (2, 3, -1, 200)]


def test_a_side_that_is_not_allowed_means_flat() -> None:
    result = traded([100, 100, 100, 80], {0: LONG, 1: SHORT}, shorts=0)
    assert result.closed() == [(1, 2, 10, 100.0, "signal")]
    assert traded([100, 100, 100, 80], {0: LONG, 1: SHORT}, longs=0).closed("side") == []


def test_an_order_with_a_number_that_is_not_known_is_no_entry_but_leaves_the_other_side() -> None:
    for bad in (nan, -1.0):
        result = traded([100, 100, 100, 80], {0: LONG, 1: SHORT}, stop={1: bad})
        assert result.closed() == [(1, 2, 10, 100.0, "signal")]
        assert result.equity[-1] == 1_000


def test_a_step_finds_its_order_empty_each_time() -> None:
    bars = [100, 100, 100, (100, 150, 50, 90)]
    result = traded(bars, {0: LONG, 1: SHORT}, stop={0: 5.0}, weight={0: 0.5, 1: 0.0})  # the script leaves out zeros
    assert result.closed("side", "shares", "reason") == [(1, 5, "signal")]
    assert result.equity[-1] == 1_100  # ten sold short, without a stop


def test_a_step_sleeps_until_its_trigger_something_held_or_its_own_state() -> None:
    bars, wants = [100] * 6, {0: LONG, 1: LONG, 2: LONG, 3: FLAT}
    result = traded(bars, wants, triggered=True, trigger=[0, nan, 1, 0, 0, 0])
    assert result.closed() == [(3, 4, 10, 100.0, "signal")]  # awake at 3 because it holds
    later = traded(bars, {0: LATER}, triggered=True, trigger=[1, 0, 0, 0, 0, 0], p=2.0)
    assert later.equity == [1_000] * 6
    assert later.outcome.book["held"] == 3  # decided at 2, which its state was awake for


def test_an_entry_that_does_not_fill_at_the_next_bar_lapses() -> None:
    assert traded([100] * 4, {0: LONG}, above={1: 100.0}).outcome.book["held"] == 0
    assert traded([100] * 4, {0: SHORT}, below={1: 100.0}).outcome.book["held"] == 0
    assert traded([100] * 4, {0: LONG}, flags={1: HALT}).outcome.book["held"] == 0
    assert traded([100] * 4, {0: SHORT}, flags={1: NO_SHORT}).outcome.book["held"] == 0
    assert traded([100] * 4, {0: LONG}, room={1: 0}).outcome.book["held"] == 0


def test_an_exit_that_does_not_fill_waits() -> None:
    bars = [100, 100, 90, 80, 70]
    assert traded(bars, {0: LONG, 1: FLAT}, below={2: 90.0}).closed() == [(1, 3, 10, 80.0, "signal")]
    assert traded(bars, {0: LONG, 1: FLAT}, flags={2: HALT}).closed() == [(1, 3, 10, 80.0, "signal")]
    assert traded(bars, {0: SHORT, 1: FLAT}, above={2: 90.0}).closed() == [(1, 3, 10, 80.0, "signal")]


def test_a_reversal_that_cannot_leave_does_not_enter() -> None:
    result = traded([100, 100, 100, 100], {0: LONG, 1: SHORT}, room={2: 4})
    assert result.closed() == [(1, 2, 4, 100.0, "signal"), (1, 3, 6, 100.0, "signal")]


# How much


def test_shares_are_the_part_of_equity_at_the_close_rounded_down() -> None:
    bars = [100, 90, 90]
    assert traded(bars, {0: LONG, 1: FLAT}, size=0.55).closed(*ENTRY) == [(1, 90.0, 5)]
    assert traded(bars, {0: LONG, 1: FLAT}, weight=0.25).closed(*ENTRY) == [(1, 90.0, 2)]
    assert traded(bars, {0: LONG, 1: FLAT}, weight=3.0).closed(*ENTRY) == [(1, 90.0, 10)]
    assert traded(bars, {0: LONG, 1: FLAT}, size=0.05).closed(*ENTRY) == []


def test_a_whole_number_of_shares_survives_binary_sizes() -> None:
    assert traded([1, 1, 1], {0: LONG, 1: FLAT}, capital=100, size=0.29).closed("shares") == [
        (29,)
    ]  # 28.999999999999996


def test_risk_caps_what_the_stop_may_lose() -> None:
    bars = [100, 100, 100]
    assert traded(bars, {0: LONG, 1: FLAT}, risk=0.02, stop=5.0).closed("shares") == [(4,)]  # 20 won at 5 a share
    assert traded(bars, {0: LONG, 1: FLAT}, risk=0.9, stop=5.0).closed("shares") == [(10,)]
    assert traded(bars, {0: LONG, 1: FLAT}, risk=0.02).closed("shares") == [(10,)]  # without a stop
    assert traded(bars, {0: LONG, 1: FLAT}, risk=0.02, stop=10.0, unit=0.5).closed("shares") == [(4,)]


def test_an_entry_is_cut_to_what_cash_and_its_costs_cover() -> None:
    long = traded([100, 120, 120], {0: LONG, 1: FLAT}, commission=PERCENT)
    assert long.closed("shares", "value") == [(8, 960)]  # 10 wanted; 8 and 9 won of commission
    short = traded([100, 100, 100], {0: SHORT, 1: FLAT}, tax=20 * PERCENT)
    assert short.closed("shares") == [(8,)]  # a short sale too, with its tax


def test_room_cuts_an_entry_and_the_rest_is_not_bought() -> None:
    result = traded([100, 100, 100, 100], {0: LONG, 2: FLAT}, room={1: 3})
    assert result.closed() == [(1, 3, 3, 100.0, "signal")]


def test_room_of_a_bar_is_shared_by_all_its_fills() -> None:
    reversal = traded([100, 100, 100, 100], {0: LONG, 1: SHORT, 2: FLAT}, room={2: 14})
    assert reversal.closed("side", "shares") == [(1, 10), (-1, 4)]
    stopped = traded([100, (100, 100, 90, 90), 90], {0: LONG}, stop=5.0, room={1: 13})
    assert stopped.closed() == [(1, 1, 3, 95.0, "stop"), (1, 2, 7, 90.0, "stop")]


# Inside a bar


def test_a_stop_fills_at_its_price() -> None:
    assert traded([100, 100, (99, 101, 94, 96)], {0: LONG}, stop=5.0).closed() == [(1, 2, 10, 95.0, "stop")]
    assert traded([100, 100, (99, 106, 98, 100)], {0: SHORT}, stop=5.0).closed() == [(1, 2, 10, 105.0, "stop")]


def test_a_gap_through_the_stop_fills_at_the_open() -> None:
    assert traded([100, 100, (90, 96, 89, 96)], {0: LONG}, stop=5.0).closed() == [(1, 2, 10, 90.0, "stop")]
    assert traded([100, 100, (110, 111, 99, 99)], {0: SHORT}, stop=5.0).closed() == [(1, 2, 10, 110.0, "stop")]


def test_a_target_fills_at_its_price_and_a_gap_beyond_it_at_the_open() -> None:
    bars = [100, 100]
    assert traded([*bars, (101, 106, 99, 100)], {0: LONG}, target=5.0).closed() == [(1, 2, 10, 105.0, "target")]
    assert traded([*bars, (108, 109, 99, 100)], {0: LONG}, target=5.0).closed() == [(1, 2, 10, 108.0, "target")]
    assert traded([*bars, (99, 101, 94, 100)], {0: SHORT}, target=5.0).closed() == [(1, 2, 10, 95.0, "target")]
    assert traded([*bars, (92, 101, 91, 100)], {0: SHORT}, target=5.0).closed() == [(1, 2, 10, 92.0, "target")]


def test_a_bar_that_touches_both_fills_the_stop() -> None:
    bar = (100, 106, 94, 100)
    assert traded([100, 100, bar], {0: LONG}, stop=5.0, target=5.0).closed() == [(1, 2, 10, 95.0, "stop")]
    assert traded([100, 100, bar], {0: SHORT}, stop=5.0, target=5.0).closed() == [(1, 2, 10, 105.0, "stop")]


def test_an_open_beyond_the_target_comes_before_the_stop() -> None:
    long, short = (106, 107, 94, 95), (94, 106, 93, 105)
    assert traded([100, 100, long], {0: LONG}, stop=5.0, target=5.0).closed() == [(1, 2, 10, 106.0, "target")]
    assert traded([100, 100, short], {0: SHORT}, stop=5.0, target=5.0).closed() == [(1, 2, 10, 94.0, "target")]


def test_the_bar_of_the_entry_can_touch_stop_and_target() -> None:
    bar = (102, 108, 99, 104)
    assert traded([100, bar], {0: LONG}, stop=3.0).closed() == [(1, 1, 9, 99.0, "stop")]
    assert traded([100, bar], {0: LONG}, target=6.0).closed() == [(1, 1, 9, 108.0, "target")]


def test_distances_count_from_the_fill_and_go_to_the_farther_tick() -> None:
    ticks = ((0.0, 5.0),)
    bars = [100, 110, (110, 112, 100, 104)]
    assert traded(bars, {0: LONG}, stop=7.0, ticks=ticks).closed("entry_price", "exit_price") == [(110.0, 100.0)]  # 103
    bars = [100, 110, (110, 120, 100, 104)]
    assert traded(bars, {0: LONG}, target=7.0, ticks=ticks).closed("entry_price", "exit_price") == [
        (110.0, 120.0)
    ]  # 117
    assert traded(bars, {0: SHORT}, stop=7.0, ticks=ticks).closed("exit_price") == [(120.0,)]
    assert traded(bars, {0: SHORT}, target=7.0, ticks=ticks).closed("exit_price") == [(100.0,)]
    assert traded(bars, {0: LONG}, stop=14.0, unit=0.5, ticks=ticks).closed("exit_price") == [(100.0,)]  # 7 in money


def test_a_distance_of_whole_ticks_is_not_rounded_to_the_next() -> None:
    given = {"ticks": ((0.0, 0.1),), "unit": 0.1}
    for side, name, level in ((LONG, "stop", 0.7), (SHORT, "target", 0.7), (SHORT, "stop", 2.4), (LONG, "target", 2.4)):
        result = traded([1.0, 1.0, (1.0, 2.5, 0.6, 1.0)], {0: side}, **given, **{name: 14.0 if level > 1.0 else 3.0})
        assert result.closed("exit_price", "reason") == [(pytest.approx(level), name)]  # 2.4 / 0.1 > 24, 0.7 / 0.1 < 7


def test_a_stop_at_a_locked_limit_waits_for_the_next_open() -> None:
    bars = [100, 100, (100, 100, 70, 70), (60, 65, 55, 60)]
    locked = traded(bars, {0: LONG}, stop=30.0, below={2: 70.0})
    assert locked.closed() == [(1, 3, 10, 60.0, "stop")]
    assert traded(bars, {0: LONG}, stop=20.0, below={2: 70.0}).closed() == [(1, 2, 10, 80.0, "stop")]  # on its way down
    bars = [100, 100, (100, 130, 100, 130), (140, 145, 135, 140)]
    assert traded(bars, {0: SHORT}, stop=30.0, above={2: 130.0}).closed() == [(1, 3, 10, 140.0, "stop")]


def test_nothing_happens_on_a_halt() -> None:
    result = traded([100, 100, 50, 90, 80], {0: LONG}, stop=5.0, bars=2.0, flags={2: HALT, 3: HALT})
    assert result.closed() == [(1, 4, 10, 80.0, "stop")]
    assert result.equity == [1_000, 1_000, 500, 900, 800]


def test_slippage_goes_to_the_worse_tick_and_stays_inside_the_limits() -> None:
    given = {"slippage": 0.01, "ticks": ((0.0, 5.0),), "size": 0.5}
    wants = {0: LONG, 1: FLAT}
    assert traded([100, 100, 100], wants, **given).closed("entry_price", "exit_price") == [(105.0, 95.0)]
    limited = traded([100, 100, 100], wants, **given, high_limit=103.0, low_limit=98.0)
    assert limited.closed("entry_price", "exit_price") == [(103.0, 98.0)]
    short = traded([100, 100, 100], {0: SHORT, 1: FLAT}, **given)
    assert short.closed("entry_price", "exit_price") == [(95.0, 105.0)]
    exact = traded([102, 102, 102], wants, **(given | {"slippage": 0.0}))
    assert exact.closed("entry_price", "exit_price") == [(102.0, 102.0)]  # as it was printed
    tiny = traded([100, 100, 3], wants, **given)
    assert tiny.closed("exit_price") == [(3.0,)]  # there is no tick below


def test_a_stop_pays_slippage_and_a_target_does_not() -> None:
    given = {"slippage": 0.0625, "size": 0.5}
    bars = [160, 160, (160, 190, 90, 160)]
    assert traded(bars, {0: LONG}, stop=10.0, **given).closed("entry_price", "exit_price") == [(170.0, 150.0)]
    assert traded(bars, {0: LONG}, target=20.0, **given).closed("entry_price", "exit_price") == [(170.0, 190.0)]


# After the close


def test_a_trailing_stop_starts_at_its_profit_and_follows_the_best_price() -> None:
    bars = [100, 100, (100, 109, 95, 105), (105, 110, 100, 108), (108, 120, 106, 118), (118, 119, 112, 113)]
    result = traded(bars, {0: LONG}, trail_start=10.0, trail=6.0)
    # from 110 on the stop is 104, which counts after that bar; from 120 on it is 114
    assert result.closed() == [(1, 5, 10, 114.0, "trailing stop")]
    bars = [100, 100, (100, 105, 91, 95), (95, 100, 90, 92), (92, 94, 80, 82), (82, 88, 81, 87)]
    result = traded(bars, {0: SHORT}, trail_start=10.0, trail=6.0)
    assert result.closed() == [(1, 5, 10, 86.0, "trailing stop")]
    again = traded([100, 100, (100, 110, 100, 110), 103, 103, 103, 96], {0: LONG, 3: LONG}, trail=6.0, stop={3: 5.0})
    assert again.closed("entry", "exit_price", "reason") == [(1, 103.0, "trailing stop"), (4, 96.0, "stop")]


def test_a_trailing_stop_never_moves_back_and_lies_on_a_tick() -> None:
    bars = [100, 100, (100, 110, 100, 110), (110, 110, 104, 105), (105, 106, 99, 100)]
    result = traded(bars, {0: LONG}, stop=3.0, trail=8.0, ticks=((0.0, 5.0),))
    assert result.closed() == [(1, 4, 10, 100.0, "trailing stop")]  # 110 - 8 = 102, to 100; the first stop was 95
    nearer = traded(bars, {0: LONG}, stop=1.0, trail=15.0)
    assert nearer.closed() == [(1, 4, 10, 99.0, "stop")]


def test_the_time_stop_counts_closes_and_leaves_at_the_next_open() -> None:
    bars = [100, 101, 102, 103, 104]
    assert traded(bars, {0: LONG}, bars=2.0).closed() == [(1, 3, 9, 103.0, "time")]
    assert traded(bars, {0: LONG}, bars=2.0, flags={2: HALT}).closed() == [(1, 4, 9, 104.0, "time")]
    assert traded(bars, {0: LONG, 2: FLAT}, bars=2.0).closed() == [(1, 3, 9, 103.0, "time")]


def test_who_lost_everything_leaves_and_never_enters_again() -> None:
    bars = [100, 100, 210, 100, 50, 50, 50, 50]
    result = traded(bars, {0: SHORT, 4: LONG, 5: SHORT}, flags={3: HALT})
    assert result.closed() == [(1, 4, 10, 50.0, "ruin")]
    assert result.equity == [1_000, 1_000, -100, 1_000, 1_500, 1_500, 1_500, 1_500]
    assert result.outcome.moment_MC[0, 0] == pytest.approx(-1.1 + 0.5)  # who has nothing has no return


def test_an_exit_that_waits_keeps_its_reason_until_a_stop_is_touched() -> None:
    bars = [100, 100, 100, (100, 101, 94, 96), 96]
    waiting = traded(bars, {0: LONG, 1: FLAT, 2: FLAT}, bars=2.0, below={2: 100.0, 3: 100.0}, stop=5.0)
    assert waiting.closed() == [(1, 4, 10, 96.0, "stop")]
    assert traded(bars, {0: LONG, 1: FLAT}, bars=2.0, below={2: 100.0}).closed() == [(1, 3, 10, 100.0, "signal")]
