"""Short positions, rule by rule, in markets that can be checked by hand (docs/order-semantics.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stage_directories import World

from .backtests import NAN, Result, traded

HALF = {"direction": "long_short", "borrow_bp": 0.0}
# Two symbols, of which A is best: half of the scores a side, one long and one short.
AB = [[2.0, 1.0]]


def short(tmp_path: Path, world: World, scores: Any, **settings: Any) -> Result:
    return traded(tmp_path, world, scores, **{**HALF, **settings})


def only(result: Result, world: World, symbol: str) -> list[tuple[int, str, str, int, float]]:
    return [row for row in result.did(world) if row[1] == symbol]


def test_the_worst_are_sold_short_and_bought_back(tmp_path: Path) -> None:
    """B falls from 1,000 to 800: 1,000 shares earn 200 won each, less 0.2 % tax on what was sold."""
    world = World(["A", "B"], [[1000, 1000], [1000, 1000], [1000, 800], [1000, 800]])
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN]])
    assert only(result, world, "B")[:2] == [(1, "B", "short", 1000, 1000.0), (3, "B", "cover", 1000, 800.0)]
    sold, back = (row for row in result.trades if row["symbol"] == "B" and row["side"] in ("short", "cover"))
    assert (sold["tax"], sold["left"], sold["reason"]) == (2_000, -1000, "entry")
    assert (back["tax"], back["left"], back["reason"]) == (0, 0, "exit")
    assert back["realised"] == 200_000 - 2_000
    assert result.column("equity")[:3] == [1_000_000, 998_000, 1_198_000]
    assert result.column("net_exposure")[1] == pytest.approx(0, abs=0.01)
    assert result.column("gross_exposure")[1] == pytest.approx(2, abs=0.01)


def test_long_only_never_sells_short_and_pays_no_lender(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 3)
    result = traded(tmp_path, world, AB * 3)
    assert {row["side"] for row in result.trades} == {"buy"}
    assert result.column("borrow") == [0, 0, 0]
    assert result.column("net_exposure") == result.column("gross_exposure")
    assert "borrow" not in result.metrics["metrics"]["costs"]


def test_costs_of_a_short_are_commission_twice_and_tax_once(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 4)
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN]], commission_bp=1.5)
    sold, back = [row for row in result.trades if row["symbol"] == "B"][:2]
    assert (sold["commission"], sold["tax"], back["commission"], back["tax"]) == (150, 2_000, 150, 0)
    assert back["realised"] == -150 - 2_000 - 150


def test_borrowing_costs_calendar_days_on_the_last_close(tmp_path: Path) -> None:
    """Sold short on Friday 2023-03-03: three nights to Monday at 1,000, one to Tuesday at 1,100, all truncated."""
    close = [[1000, 1000], [1000, 1000], [1000, 1100], [1000, 1100]]
    world = World(["A", "B"], close, start="2023-03-02")
    assert [str(day) for day in world.days] == ["2023-03-02", "2023-03-03", "2023-03-06", "2023-03-07"]
    result = short(tmp_path, world, AB * 4, rebalance=10, borrow_bp=250.0)
    first, second = 1_000_000 * 0.025 * 3 // 365, 1_100_000 * 0.025 * 1 // 365
    assert result.column("borrow") == [0, 0, first, second]
    assert result.metrics["metrics"]["costs"]["borrow"] == first + second
    assert result.metrics["borrow_bp"] == 250.0


def test_borrowing_lessens_the_profit_of_the_position(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 4)
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN]], borrow_bp=1000.0)
    back = next(row for row in result.trades if row["side"] == "cover")
    assert sum(result.column("borrow")[:4]) == -back["realised"] - 2_000 > 0


def test_proceeds_of_short_sales_buy_nothing(tmp_path: Path) -> None:
    """A opens 10 % above the close at which its shares were counted: the cash for it is the capital, not the proceeds
    of B.
    """
    world = World(["A", "B"], [[1000, 1000], [1100, 1000]], [[1000, 1000], [1100, 1000]])
    result = short(tmp_path, world, [*AB, [NAN, NAN]])
    assert result.did(world) == [(1, "B", "short", 1000, 1000.0), (1, "A", "buy", 907, 1100.0)]  # 998,000 / 1,100
    assert result.column("cash")[-1] == 1_000_000 + 998_000 - 907 * 1100


def test_shorts_are_worth_no_more_than_equity_when_they_are_sold(tmp_path: Path) -> None:
    """B opens 25 % higher than at the decision: 800 of the 1,000 shares are worth the equity."""
    world = World(["A", "B"], [[1000, 1000], [1000, 1250]], [[1000, 1000], [1000, 1250]])
    result = short(tmp_path, world, [*AB, [NAN, NAN]])
    assert only(result, world, "B") == [(1, "B", "short", 800, 1250.0)]


def test_what_is_closed_makes_room_for_what_is_opened(tmp_path: Path) -> None:
    """All changes places in one session: sale, buy-back, short sale, purchase."""
    world = World(["A", "B"], [[1000, 1000]] * 3)
    result = short(tmp_path, world, [*AB, [1, 2], [NAN, NAN]])
    assert [row[1:4] for row in result.did(world) if row[0] == 2] == [
        ("A", "sell", 998),
        ("B", "cover", 1000),
        ("A", "short", 998),  # the tax on B went first
        ("B", "buy", 994),  # and that on A
    ]


def test_a_buy_back_is_cut_to_the_cash_there_is(tmp_path: Path) -> None:
    """B rises threefold: the capital and the proceeds pay for a part of the shares, and the rest stays short."""
    close = [[1000, 1000], [1000, 1000], [1000, 3000], [1000, 3000]]
    world = World(["A", "B"], close, close, market="other")
    result = short(tmp_path, world, [*AB, [NAN, NAN], [NAN, NAN], [NAN, NAN]])
    back = next(row for row in result.trades if row["side"] == "cover")
    assert result.column("equity")[2] == -1_000_000
    assert (back["shares"], back["left"], back["reason"]) == (666, -334, "exit")
    assert result.column("cash")[-1] == 2_000


def test_ruin_closes_everything_and_decides_nothing_more(tmp_path: Path) -> None:
    close = [[1000, 1000], [1000, 1000], [1000, 3000], [1000, 3000], [1000, 500], [1000, 500]]
    world = World(["A", "B"], close, close, market="other")
    result = short(tmp_path, world, AB * 6)
    assert [row[:4] for row in result.did(world)] == [
        (1, "B", "short", 1000),
        (1, "A", "buy", 1000),
        (3, "A", "sell", 1000),
        (3, "B", "cover", 666),
        (4, "B", "cover", 4),  # with what the first left, and then there is nothing
    ]
    assert result.column("equity")[-1] == -330 * 500


def test_no_short_is_opened_in_a_ban_and_one_may_be_closed(tmp_path: Path) -> None:
    """The ban of 2023-11-06: what was sold short before it may be bought back in it."""
    world = World(["A", "B"], [[1000, 1000]] * 5, start="2023-11-02")
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN], [NAN, NAN]])
    assert str(world.days[2]) == "2023-11-06"
    assert [row[:3] for row in result.did(world)] == [
        (1, "B", "short"),
        (1, "A", "buy"),
        (3, "A", "sell"),
        (3, "B", "cover"),
        (3, "B", "buy"),
    ]


def test_limits_and_halts_hold_for_shorts(tmp_path: Path) -> None:
    """Base 10,000: at 7,000 nobody buys what would be sold short; at 13,000 nobody sells what would be bought back; a
    halted symbol is neither.
    """
    close = [[10_000, 10_000], [10_000, 7_000], [10_000, 7_100], [10_000, 9_230], [10_000, NAN], [10_000, 9_300]]
    world = World(["A", "B"], close, close)
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN], [NAN, NAN], [NAN, NAN]])
    assert [row[:3] for row in only(result, world, "B")][:2] == [(2, "B", "short"), (5, "B", "cover")]


def test_participation_is_shared_by_closing_and_opening(tmp_path: Path) -> None:
    """400 shares a session: 100 held are sold, and 300 of the wanted 1,000 go short."""
    world = World(["A", "B"], [[1000, 1000]] * 4, volume=[[1e9, 1e9], [1e9, 1000], [1e9, 4000], [1e9, 4000]])
    result = short(tmp_path, world, [[1, 2], [2, 1], [NAN, NAN], [NAN, NAN]], participation=0.1)
    assert [row[:4] for row in only(result, world, "B")][:3] == [
        (1, "B", "buy", 100),
        (2, "B", "sell", 100),
        (2, "B", "short", 300),
    ]


def test_a_short_pays_the_fraction_of_a_split(tmp_path: Path) -> None:
    """33 shares short x 0.1: three are left, and 0.3 of a share is paid at the base price of 300,000."""
    world = World(["A", "B"], [[30_000, 30_000], [30_000, 30_000], [30_000, 303_000]])
    world.actions = [("B", str(world.days[2]), 0.1)]
    result = short(tmp_path, world, [*AB, [NAN, NAN], [NAN, NAN]])
    rest = result.trades[-1]
    assert (rest["side"], rest["reason"], rest["shares"]) == ("cover", "fraction", 0)
    assert (rest["value"], rest["left"]) == (90_000, -3)
    assert result.column("cash")[2] == result.column("cash")[1] - 90_000
    assert result.column("equity")[2] == result.column("equity")[1] - 3 * 3_000


def test_a_short_without_a_whole_share_left_is_closed(tmp_path: Path) -> None:
    world = World(["A", "B"], [[30_000, 30_000], [30_000, 30_000], [30_000, 3_000_000]])
    world.actions = [("B", str(world.days[2]), 0.01)]
    result = short(tmp_path, world, [*AB, [NAN, NAN], [NAN, NAN]])
    rest = result.trades[-1]
    assert (rest["value"], rest["left"]) == (990_000, 0)
    assert rest["realised"] == -1_980  # the tax on 990,000


def test_a_delisted_short_is_bought_back_at_its_last_close(tmp_path: Path) -> None:
    world = World(["A", "B"], [[100, 5_000], [100, 4_000], [100, NAN], [100, NAN], [100, NAN]])
    world.facts = {"B": {"delisted": world.days[3].item(), "market": "KOSPI"}}
    result = short(tmp_path, world, [*AB, *[[NAN, NAN]] * 4], commission_bp=10.0)
    gone = result.trades[-1]
    assert only(result, world, "B") == [(1, "B", "short", 200, 4_000.0), (3, "B", "cover", 200, 4_000.0)]
    assert (gone["value"], gone["commission"], gone["tax"], gone["reason"]) == (800_000, 800, 0, "delisted")
    assert gone["realised"] == -800 - 1_600 - 800


def test_closed_shorts_are_positions_of_the_report(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000], [1000, 1000], [1000, 800], [1000, 800]])
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN]])
    numbers = result.metrics["metrics"]
    assert numbers["closed_positions"] == 2
    assert numbers["hit_rate"] == 0.5  # A paid its tax


def test_slippage_makes_a_short_sale_cheaper_and_a_buy_back_dearer(tmp_path: Path) -> None:
    world = World(["A", "B"], [[10_000, 10_000]] * 4)
    result = short(tmp_path, world, [*AB, [NAN, NAN], [1, 2], [NAN, NAN]], slippage_bp=5.0)
    assert [row[4] for row in only(result, world, "B")][:2] == [9_990.0, 10_010.0]


def test_time_series_sells_short_what_is_below_its_lower_threshold(tmp_path: Path) -> None:
    """Thirty sessions in which high scores precede rises and low ones falls: both sides earn."""
    rng = np.random.default_rng(5)
    score = rng.uniform(0, 1, (40, 2))
    moves = np.where(score[:-1] > 0.5, 1.03, 0.97)
    close = np.rint(50_000 * np.cumprod(np.vstack([np.ones(2), moves]), axis=0))
    world = World(["A", "B"], close, np.vstack([close[:1], close[:-1]]))
    result = short(tmp_path, world, score, split=["valid"] * 30 + ["test"] * 10, mode="time_series")
    found = result.metrics["threshold"]
    assert 0.35 < found["below"] <= found["value"] < 0.65
    assert len(found["tried"]) == 5
    assert {"short", "cover", "buy", "sell"} == {row["side"] for row in result.trades}
    assert result.summary["total_return"] > 0
