"""The order semantics, rule by rule: small markets whose trades can be checked by hand (docs/order-semantics.md)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backtest import BacktestSection
from pipeline.backtest.portfolio.engine import run
from pipeline.backtest.portfolio.kernel import simulate
from pipeline.backtest.portfolio.schedule import decisions
from pipeline.receipt import Receipt
from tests.stage_directories import World, write_predictions

from .backtests import EXACT, NAN, Result, traded


def test_decided_at_the_close_filled_at_the_next_open(tmp_path: Path) -> None:
    world = World(["A"], close=[[1000], [1100], [1200]], open=[[990], [1040], [1150]])
    result = traded(tmp_path, world, [[1], [1], [1]], capital=100_000)
    # 100 shares at the close of session 0; at 1,040 the cash pays for 96
    assert result.did(world)[0] == (1, "A", "buy", 96, 1040.0)
    assert result.column("equity")[:2] == [100_000, 100_000 - 96 * 1040 + 96 * 1100]


def test_the_last_session_decides_nothing_and_is_valued_at_its_close(tmp_path: Path) -> None:
    world = World(["A"], close=[[1000], [1000]], open=[[1000], [1000]])
    result = traded(tmp_path, world, [[1], [1]])
    assert len(result.trades) == 1
    assert result.column("n_positions") == [0, 1]
    assert decisions(np.ones((1, 1)), np.ones(1, bool)).tolist() == [False]


def test_close_only_data_fill_at_the_next_close(tmp_path: Path) -> None:
    world = World(["A"], close=[[1000], [1100], [1200]], close_only=True)
    result = traded(tmp_path, world, [[1], [NAN], [NAN]])
    assert result.did(world) == [(1, "A", "buy", 909, 1100.0)]
    assert result.metrics["fill"] == "close of the next session"


@pytest.mark.parametrize("opened", [13_000.0, 12_000.0], ids=["opens_at_limit", "opens_below"])
def test_a_price_at_the_upper_limit_cannot_be_bought(tmp_path: Path, opened: float) -> None:
    """Base 10,000: the limit is 13,000. The order stays and fills in the first session that is not locked."""
    world = World(["A"], close=[[10_000], [13_000], [13_100]], open=[[10_000], [opened], [13_050]])
    result = traded(tmp_path, world, [[1], [NAN], [NAN]])
    at = 2 if opened == 13_000 else 1
    assert [row[:3] for row in result.did(world)] == [(at, "A", "buy")]
    assert result.trades[0]["price"] == (13_050 if at == 2 else opened)


def test_limits_were_narrower_before_june_2015(tmp_path: Path) -> None:
    """15 % until 2015-06-12: 11,500 was the upper limit of a base of 10,000."""
    world = World(["A"], [[10_000], [11_500], [11_600]], [[10_000], [11_500], [11_600]], start="2015-06-10")
    assert traded(tmp_path, world, [[1], [NAN], [NAN]]).did(world) == [(2, "A", "buy", 86, 11_600.0)]


def test_a_price_at_the_lower_limit_cannot_be_sold(tmp_path: Path) -> None:
    closes = [[10_000, 10_000], [10_000, 10_000], [7_000, 10_000], [6_500, 10_000]]
    opens = [[10_000, 10_000], [10_000, 10_000], [7_000, 10_000], [6_800, 10_000]]
    result = traded(tmp_path, world := World(["A", "B"], closes, opens), [[2, 1], [1, 2], [1, 2], [1, 2]])
    sold = [row for row in result.did(world) if row[2] == "sell"]
    assert sold == [(3, "A", "sell", 100, 6_800.0)]
    assert not [row for row in result.did(world) if row[1] == "B" and row[0] < 3], "no money before the sale"


def test_limits_follow_the_base_price_of_a_split(tmp_path: Path) -> None:
    """After 5:1 the base is 2,000: an opening of 2,600 is the upper limit although far below the last close."""
    world = World(["A"], [[10_000], [2_600], [2_700]], [[10_000], [2_600], [2_650]])
    world.actions = [("A", str(world.days[1]), 5.0)]
    result = traded(tmp_path, world, [[1], [NAN], [NAN]])
    assert result.did(world) == [(2, "A", "buy", 377, 2_650.0)]  # wanted 100 x 5, cash for 377


@pytest.mark.parametrize("halt", ["no_bar", "no_open", "no_volume"])
def test_a_halted_symbol_is_not_traded_and_carried_at_its_last_close(tmp_path: Path, halt: str) -> None:
    closes = [[10_000.0, 5_000.0], [10_000, 5_000], [10_000, 5_000], [9_000, 5_000]]
    opens = [row.copy() for row in closes]
    volumes = [[1e9, 1e9] for _ in closes]
    if halt == "no_bar":
        closes[2][0] = opens[2][0] = NAN
    elif halt == "no_open":
        opens[2][0] = NAN
    else:
        volumes[2][0] = 0.0
    world = World(["A", "B"], closes, opens, volumes)
    result = traded(tmp_path, world, [[2, 1], [1, 2], [1, 2], [1, 2]])
    assert [row[:3] for row in result.did(world)] == [(1, "A", "buy"), (3, "A", "sell"), (3, "B", "buy")]
    assert result.column("equity") == [1_000_000, 1_000_000, 1_000_000, 900_000 - 1_800]  # tax


def test_a_session_without_a_bar_is_not_traded_whatever_the_slippage(tmp_path: Path) -> None:
    closes = [[1000, 1000], [1010, 1000], [1020, NAN], [1030, 1000], [1040, 1000]]
    world = World(["A", "B"], close=closes, close_only=True)
    scores = [[0, 1], [1, 0], [1, 0], [1, 0], [1, 0]]
    did = traded(tmp_path, world, scores, slippage_bp=5.0).did(world)
    assert [(t, symbol, side) for t, symbol, side, _, _ in did if symbol == "B"] == [(1, "B", "buy"), (3, "B", "sell")]


def test_a_score_of_a_halted_symbol_is_not_used(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 3, volume=[[0, 9e9], [9e9, 9e9], [9e9, 9e9]])
    result = traded(tmp_path, world, [[9, 1], [NAN, NAN], [NAN, NAN]])
    assert [row[1] for row in result.did(world)] == ["B"]


def test_a_split_multiplies_shares_and_pays_the_rest_in_cash(tmp_path: Path) -> None:
    """33 shares x 0.1: three are left and 0.3 of a share is paid at the base price of 300,000."""
    world = World(["A"], [[30_000], [30_000], [303_000]], [[30_000], [30_000], [303_000]])
    world.actions = [("A", str(world.days[2]), 0.1)]
    result = traded(tmp_path, world, [[1], [NAN], [NAN]])
    assert result.did(world) == [(1, "A", "buy", 33, 30_000.0), (2, "A", "sell", 0, 300_000.0)]
    rest = result.trades[1]
    assert (rest["value"], rest["reason"], rest["left"]) == (90_000, "fraction", 3)
    assert result.column("cash") == [1_000_000, 10_000, 100_000]
    assert result.column("equity")[2] == 100_000 + 3 * 303_000


def test_an_ex_date_without_a_session_counts_at_the_next_one(tmp_path: Path) -> None:
    world = World(["A"], [[1000]] * 3 + [[500]] * 2, start="2023-03-08")  # sessions 8, 9, 10, 13, 14 March
    world.actions = [("A", "2023-03-11", 2.0)]
    result = traded(tmp_path, world, [[1]] + [[NAN]] * 4)
    assert result.column("equity") == [1_000_000] * 5
    assert len(result.trades) == 1


def test_a_delisted_symbol_pays_its_last_close_after_costs(tmp_path: Path) -> None:
    """No bars from session 2 on, delisted on the day of session 3."""
    world = World(["A", "B"], [[5_000, 100], [4_000, 100], [NAN, 100], [NAN, 100], [NAN, 100]])
    world.facts = {"A": {"delisted": world.days[3].item(), "market": "KOSPI"}}
    result = traded(tmp_path, world, [[2, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN]], commission_bp=10.0)
    gone = result.trades[-1]
    assert result.did(world)[-1] == (3, "A", "delisted", 200, 4_000.0)
    assert (gone["value"], gone["commission"], gone["tax"]) == (800_000, 800, 1_600)
    assert gone["reason"] == "delisted"
    assert result.column("n_positions") == [0, 1, 1, 0, 0]


def test_sells_pay_for_buys_of_the_same_session(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 2000]] * 4)
    result = traded(tmp_path, world, [[2, 1], [1, 2], [1, 2], [1, 2]])
    assert result.did(world) == [
        (1, "A", "buy", 1000, 1000.0),
        (2, "A", "sell", 1000, 1000.0),
        (2, "B", "buy", 499, 2000.0),  # 0.2 % tax went first
    ]


def test_best_scores_buy_first_and_cash_is_never_negative(tmp_path: Path) -> None:
    """Both open 10 % higher: the better score gets its full half, the other what is left."""
    world = World(["A", "B"], [[1000, 1000], [1100, 1100]], [[1000, 1000], [1100, 1100]])
    result = traded(tmp_path, world, [[1, 2], [NAN, NAN]], k=2)
    assert result.did(world) == [(1, "B", "buy", 500, 1100.0), (1, "A", "buy", 409, 1100.0)]
    assert result.column("cash")[-1] == 100


def test_equal_scores_are_ordered_by_symbol(tmp_path: Path) -> None:
    world = World(["C", "A", "B"], [[1000, 1000, 1000]] * 2)
    result = traded(tmp_path, world, [[1, 1, 1], [NAN, NAN, NAN]], k=2)
    assert [row[1] for row in result.did(world)] == ["A", "B"]


def test_fewer_scores_than_k_leave_cash(tmp_path: Path) -> None:
    result = traded(tmp_path, World(["A", "B"], [[1000, 1000]] * 2), [[1, NAN], [NAN, NAN]], k=4)
    assert result.column("gross_exposure")[-1] == 0.25


def test_a_whole_number_of_shares_survives_binary_weights() -> None:
    """1/49 of 343,000 buys one share at 7,000, although 343000 * (1 / 49) / 7000 is a hair below one."""
    S = 49
    one = np.full((2, S), 7_000.0)
    assert 343_000 * (1 / S) / 7_000 < 1
    ledger = simulate(
        buy_TS=one,
        sell_TS=one,
        room_TS=np.full((2, S), 10**6),
        close_TS=one,
        factor_TS=np.ones((2, S)),
        tax_TS=np.zeros((2, S), np.int64),
        weight_TS=np.full((2, S), 1 / S),
        order_TS=np.tile(np.arange(S, dtype=np.int32), (2, 1)),
        decide_T=np.array([True, False]),
        shortable_T=np.zeros(2, bool),
        nights_T=np.zeros(2, np.int64),
        delist_S=np.full(S, 99),
        last_S=np.full(S, NAN),
        capital=343_000,
        commission_rate=0,
        borrow_rate=0,
    )
    assert ledger.positions_T.tolist() == [0, S]


def test_participation_caps_a_fill_and_the_rest_follows(tmp_path: Path) -> None:
    world = World(["A"], [[1000]] * 4, volume=[[1e9], [4_005], [4_000], [4_000]])
    result = traded(tmp_path, world, [[1], [NAN], [NAN], [NAN]], participation=0.1)
    assert [row[3] for row in result.did(world)] == [400, 400, 200]


def test_commission_and_tax_are_truncated_to_whole_won(tmp_path: Path) -> None:
    """1,333 x 300 = 399,900: 1.5 bp are 59.985 -> 59 won; 0.20 % tax are 799.8 -> 799 won."""
    world = World(["A", "B"], [[1333, 1], [1333, 1], [1333, 1]])
    result = traded(tmp_path, world, [[1, NAN], [NAN, 1], [NAN, NAN]], capital=400_000, commission_bp=1.5)
    buy, sell = result.trades[0], result.trades[1]
    assert (buy["shares"], buy["commission"], buy["tax"]) == (300, 59, 0)
    assert (sell["shares"], sell["commission"], sell["tax"]) == (300, 59, 799)
    assert sell["realised"] == -59 - 59 - 799


@pytest.mark.parametrize(
    ("start", "fact", "rate"),
    [
        ("2024-12-23", {"market": "KOSPI"}, 0.0018),  # sold on 2024-12-26, settled in 2024
        ("2024-12-24", {"market": "KOSPI"}, 0.0015),  # sold on 2024-12-27, settled in 2025
        ("2015-03-02", {"market": "KOSDAQ GLOBAL"}, 0.003),
        ("2024-12-23", {"market": "KONEX"}, 0.001),
        ("2024-12-23", {"market": "KOSPI", "kind": "etf"}, 0.0),
        ("2024-12-23", {"market": None}, 0.0018),
    ],
)
def test_sale_tax_follows_day_market_and_kind(tmp_path: Path, start: str, fact: dict[str, Any], rate: float) -> None:
    world = World(["A", "B"], [[1000, 1]] * 3, start=start, facts={"A": fact})
    result = traded(tmp_path, world, [[1, NAN], [NAN, 1], [NAN, NAN]])
    sell = next(row for row in result.trades if row["side"] == "sell")
    assert sell["tax"] == round(sell["value"] * rate)


def test_other_markets_have_no_tax_limit_or_tick(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1.25, 1], [1.75, 1], [1.75, 1]], market="other")
    result = traded(tmp_path, world, [[1, NAN], [NAN, 1], [NAN, NAN]], capital=100_000, slippage_bp=100.0)
    buy, sell = result.trades[0], result.trades[1]
    assert buy["price"] == pytest.approx(1.7675)
    assert sell["price"] == pytest.approx(1.7325)
    assert sell["tax"] == 0


def test_slippage_goes_to_the_worse_tick_and_stays_inside_the_limits(tmp_path: Path) -> None:
    """5 bp of 10,000 is 5 won, the tick is 10: bought at 10,010, sold at 9,990. At 12,990 the limit caps."""
    world = World(["A", "B"], [[10_000, 1], [10_000, 1], [10_000, 1]])
    result = traded(tmp_path / "a", world, [[1, NAN], [NAN, 1], [NAN, NAN]], slippage_bp=5.0)
    assert [row["price"] for row in result.trades[:2]] == [10_010, 9_990]
    assert result.metrics["metrics"]["costs"]["slippage"] == 10 * 99 + 10 * 99 + (2 - 1) * result.trades[2]["shares"]
    near = World(["A"], [[10_000], [12_990]])
    capped = traded(tmp_path / "b", near, [[1], [NAN]], slippage_bp=50.0)
    assert capped.trades[0]["price"] == 13_000


def test_a_halt_in_closes_with_volume_is_not_traded(tmp_path: Path) -> None:
    world = World(["A"], [[1000], [1000], [1100]], volume=[[9e9], [0], [9e9]])
    ingest = world.write(tmp_path)
    receipt = Receipt.load(ingest)
    receipt.model_copy(update={"close_only": True}).save(ingest)
    predict = write_predictions(tmp_path / "predict", world, {"lstm": [[1], [NAN], [NAN]]}, ["test"] * 3)
    (out := tmp_path / "out").mkdir()
    result = Result(out, run({"ingest": ingest, "predict": predict}, out, BacktestSection.model_validate(EXACT)))
    assert result.did(world) == [(2, "A", "buy", 909, 1100.0)]


def test_benchmark_is_the_mean_adjusted_return_of_all_symbols(tmp_path: Path) -> None:
    """A splits 2:1 and rises 10 %, B falls 10 %, C is halted on session 1 and D is delisted on it."""
    close = [[1000, 1000, 1000, 1000], [550, 900, NAN, 500], [550, 900, 1200, NAN]]
    world = World(["A", "B", "C", "D"], close)
    world.actions = [("A", str(world.days[1]), 2.0)]
    world.facts = {"D": {"delisted": world.days[1].item()}}
    result = traded(tmp_path, world, [[1, 1, 1, 1]] * 3)
    first = 1 + (0.1 - 0.1 + 0.0 - 0.5) / 4
    assert result.column("benchmark") == pytest.approx([1e6, 1e6 * first, 1e6 * first * (1 + 0.2 / 3)])


def test_a_symbol_halted_at_the_start_has_its_last_close_from_before(tmp_path: Path) -> None:
    """The base price, and with it the limit, comes from bars before the first traded session."""
    world = World(["A", "B"], [[1000, 1000], [1000, 1000], [NAN, 1000], [1300, 1000], [1310, 1000]])
    split = ["valid", "valid", "test", "test", "test"]
    result = traded(tmp_path, world, [[1, 1], [1, 1], [NAN, 1], [2, 1], [NAN, NAN]], split, rebalance=1)
    assert [row[:3] for row in result.did(world)] == [(3, "B", "buy"), (4, "B", "sell"), (4, "A", "buy")]
    assert result.equity[1]["benchmark"] == pytest.approx(1e6 * (1 + 0.3 / 2))


def test_every_rule_names_tests_that_exist(root: Path) -> None:
    """The page of rules is only worth something while its tests are there."""
    files = {
        "U": "tests/unit/test_backtest.py",
        "D": "tests/unit/test_backtest_decisions.py",
        "P": "tests/property/test_backtest_property.py",
        "M": "tests/unit/test_backtest_metrics.py",
        "S": "tests/unit/test_backtest_shorts.py",
        "H": "tests/unit/test_backtest_selection.py",
        "C": "tests/unit/test_backtest_schedule.py",
        "B": "tests/unit/test_backtest_benchmark.py",
        "K": "tests/unit/test_krx.py",
        "E": "tests/unit/test_event.py",
        "G": "tests/unit/test_event_money.py",
        "X": "tests/property/test_event_property.py",
        "F": "tests/unit/test_features_bars.py",
        "T": "tests/unit/test_tradable.py",
        "J": "tests/unit/test_backtest_scored.py",
    }
    named = re.findall(r"`([A-Z])::(\w+)`", (root / "docs" / "order-semantics.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    there = {key: set(re.findall(r"^def (test_\w+)", (root / path).read_text(), re.M)) for key, path in files.items()}
    assert not [f"{key}::{name}" for key, name in named if name not in there[key]]
