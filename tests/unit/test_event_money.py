"""Actions, delistings, costs and figures of one instrument: a few bars checked by hand (docs/order-semantics.md)."""

from __future__ import annotations

import pytest

from pipeline.backtest.single.event import FLAT, HALT, LAST, LONG, NO_SHORT, SHORT

from .event_markets import traded

PERCENT = 100_000  # of 1e-7


# Corporate actions and delistings


def test_a_split_multiplies_shares_and_pays_the_rest_in_cash() -> None:
    result = traded([100, 100, 40, 40], {0: LONG, 2: FLAT}, capital=300, factor={2: 2.5})
    # 3 shares become 7 and a half, which pays 20 at the last close of 100 / 2.5
    assert result.closed("shares", "proceeds", "profit", "entry_price") == [(7, 280, 0, 40.0)]
    assert result.equity[-1] == 300
    short = traded([100, 100, 40, 40], {0: SHORT, 2: FLAT}, capital=300, factor={2: 2.5})
    assert short.closed("shares", "proceeds", "profit") == [(7, 280, 0)]
    assert short.equity[-1] == 300


def test_a_split_divides_stop_target_and_trail() -> None:
    split = {"factor": {2: 2.0}}
    assert traded([100, 100, (50, 51, 46, 48)], {0: LONG}, stop=6.0, **split).closed() == [(1, 2, 20, 47.0, "stop")]
    assert traded([100, 100, (50, 54, 46, 48)], {0: LONG}, target=6.0, **split).closed() == [(1, 2, 20, 53.0, "target")]
    bars = [100, (100, 110, 100, 110), (55, 56, 55, 56), (56, 56, 50, 50)]
    trailing = traded(bars, {0: LONG}, trail_start=10.0, trail=8.0, **split)
    assert trailing.closed() == [(1, 3, 20, 52.0, "trailing stop")]  # 56 - 4


def test_a_waiting_entry_follows_a_split() -> None:
    result = traded([100, (50, 51, 46, 48)], {0: LONG}, stop=6.0, factor={1: 2.0})
    assert result.closed() == [(1, 1, 20, 47.0, "stop")]
    bars = [100, (50, 56, 50, 56), (56, 56, 50, 50)]
    result = traded(bars, {0: LONG}, trail_start=12.0, trail=8.0, factor={1: 2.0})
    assert result.closed() == [(1, 2, 20, 52.0, "trailing stop")]


def test_a_consolidation_that_leaves_no_share_pays_the_position_out() -> None:
    result = traded([100, 100, 1_000, 1_000], {0: LONG}, capital=500, factor={2: 0.1}, commission=PERCENT, tax=PERCENT)
    # four shares and 4 won of commission; 0.4 of a share at 1,000 without costs
    (row,) = result.trades
    assert (row["shares"], row["proceeds"], row["profit"], row["reason"]) == (0, 400, -4, "fraction")
    assert (row["exit_price"], row["commission"], row["tax"], row["exit"]) == (1_000.0, 4, 0, 2)
    assert result.equity[-1] == 496
    again = traded([100, 100, 1_000, 50, 50, 50], {0: LONG, 1: FLAT, 3: LONG}, capital=500, factor={2: 0.1})
    assert again.closed("reason") == [("fraction",)]  # the exit that waited is gone with it
    short = traded([100, 100, 1_000, 1_000], {0: SHORT}, capital=500, factor={2: 0.1})
    assert short.closed("shares", "proceeds", "profit", "reason") == [(0, 500, 0, "fraction")]


def test_a_delisted_position_is_closed_at_the_last_close_after_costs() -> None:
    given = {"commission": PERCENT, "tax": PERCENT, "size": 0.5}
    result = traded([100, 100, 90, 80], {0: LONG, 1: FLAT, 2: LONG}, flags={2: LAST | HALT}, **given)
    assert result.closed("exit", "exit_price", "proceeds", "commission", "tax", "reason") == [
        (2, 90.0, 450, 5 + 4, 4, "delisted")
    ]
    assert result.equity == [1_000, 995, 937]
    assert result.outcome.book["held"] == 1  # nothing follows


# Costs and money


def test_commission_both_ways_and_the_tax_of_a_sale_are_truncated_to_whole_won() -> None:
    result = traded([199, 199, 209], {0: LONG, 1: FLAT}, commission=PERCENT, tax=2 * PERCENT, size=0.6)
    # three at 199 = 597 and 5.97; three at 209 = 627, 6.27 and 12.54
    assert result.closed("value", "proceeds", "commission", "tax", "profit") == [(597, 627, 5 + 6, 12, 30 - 11 - 12)]
    assert result.equity[-1] == 1_007


def test_a_short_sale_pays_tax_at_its_entry_and_for_borrowing_by_the_day() -> None:
    given = {"capital": 100_000, "size": 0.5, "tax": PERCENT, "borrow": 730 * PERCENT, "day": [0, 3, 8]}
    result = traded([100, 100, 90], {0: SHORT, 1: FLAT}, **given)
    # 50,000 sold less 500 of tax; 45,000 paid, and 50,000 * 730 % * 5 / 365
    assert result.closed("value", "proceeds", "tax", "borrow", "profit") == [(50_000, 45_000, 500, 5_000, -500)]
    assert result.equity == [100_000, 99_500, 99_500]


def test_parts_share_the_costs_of_the_entry_and_the_last_takes_the_rest() -> None:
    result = traded([99, 99, 99, 99, 99], {0: LONG, 1: FLAT}, commission=PERCENT, room={2: 3, 3: 3})
    # ten at 99 = 990 and 9.90 of commission; in parts of 3, 3 and 4
    assert result.closed("shares", "value", "commission", "profit") == [
        (3, 297, 2 + 2, -4),
        (3, 297, 3 + 2, -5),
        (4, 396, 4 + 3, -7),
    ]
    assert result.equity[-1] == 1_000 - 16


def test_half_a_won_is_rounded_up() -> None:
    result = traded([0.5, 0.5, 0.5], {0: LONG, 1: FLAT}, capital=2, size=0.75)
    assert result.closed("shares", "value", "proceeds") == [(3, 2, 2)]
    assert traded([0.5, 0.5, 0.5], {0: SHORT}, capital=2, size=0.75).equity == [2, 2, 2]


def test_a_short_that_is_held_is_bought_back_where_short_sales_are_forbidden() -> None:
    result = traded([100, 100, 90], {0: SHORT, 1: FLAT}, flags={2: NO_SHORT})
    assert result.closed() == [(1, 2, 10, 90.0, "signal")]


def test_book_drawdown_and_moments_of_sessions() -> None:
    bars, wants = [100, 100, 120, 60, 60, 90], {0: LONG, 4: FLAT}
    result = traded(bars, wants, end=[1, 3, 5], block=[0, 0, 0, 0, 1, 1]).outcome
    assert result.worst == 0.5
    unfinished = traded(bars, wants, end=[1, 3], block=[0, 0, 0, 0, 1, 1]).outcome
    assert unfinished.moment_MC.tolist() == result.moment_MC.tolist()  # the last bar ends a session
    # the sessions end at 1,000, 600 and 900
    assert result.moment_MC[0].tolist() == pytest.approx([-0.4, 0.16, -0.064, 0.0256])
    assert result.moment_MC[1].tolist() == pytest.approx([0.5, 0.25, 0.125, 0.0625])
    book = result.book
    assert (book["trades"], book["wins"], book["gained"], book["lost"], book["held"]) == (1, 0, 0, 100, 4)
    assert book["equity"] == 900


def test_sessions_count_once_when_bars_are_left_out() -> None:
    bars = [100, 100, 120, 120, 120, 120, 90, 90, 90, 100, 100, 110, 110]
    # gains 20 and loses 30 a share in one session
    wants = {0: LONG, 1: FLAT, 4: LONG, 5: FLAT}
    result = traded(bars, wants, triggered=True, trigger=dict.fromkeys(wants, 1.0), end=[7, 12]).outcome
    assert result.moment_MC[0].tolist() == pytest.approx([-0.1, 0.01, -0.001, 0.0001])
    # gains 20 % in the first session, nothing in the second, 10 % in the third
    wants, blocks = {0: LONG, 1: FLAT, 9: LONG, 10: FLAT}, [0] * 4 + [1] * 4 + [2] * 5
    given = {"triggered": True, "trigger": dict.fromkeys(wants, 1.0), "end": [3, 7, 12], "block": blocks}
    assert traded(bars, wants, **given).outcome.moment_MC[:, 0].tolist() == pytest.approx([0.2, 0.0, 0.1])
