"""Who is held and how much of each: modes, drop-out, weights and their cap (docs/order-semantics.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backtest.portfolio import selection
from pipeline.backtest.portfolio.selection import Choice
from pipeline.backtest.portfolio.weights import volatility, weigh
from pipeline.backtest.section import BacktestSection
from tests.stage_directories import World

from .backtests import NAN, traded


def _placed(rows: Any) -> tuple[Any, Any]:
    score_DS = np.array(rows, np.float64)
    return score_DS, selection.places(selection.ranked(score_DS))


def _chosen(choice: Choice) -> list[list[int]]:
    return choice.side_DS.astype(int).tolist()


def test_long_short_takes_as_many_worst_as_best_and_nobody_twice() -> None:
    """With fewer than two k scores each side takes half of them; the middle one of three is in neither."""
    score_DS, place_DS = _placed([[5, 4, 3, 2, 1], [NAN, 3, 2, NAN, 1], [NAN, 1, NAN, NAN, NAN]])
    choice = selection.top_k(score_DS, place_DS, 2, True)
    assert _chosen(choice) == [[1, 1, 0, -1, -1], [0, 1, 0, 0, -1], [0, 0, 0, 0, 0]]
    assert choice.slots_D.tolist() == [2, 2, 2]


def test_quantiles_are_of_those_with_a_score() -> None:
    """Of nine scores a quarter is two, of three none."""
    score_DS, place_DS = _placed([[9, 8, 7, 6, 5, 4, 3, 2, 1, NAN], [3, 2, 1] + [NAN] * 7])
    choice = selection.quantile(score_DS, place_DS, 4, 1, True)
    assert _chosen(choice) == [[1, 1, 0, 0, 0, 0, 0, -1, -1, 0], [0] * 10]
    assert _chosen(selection.quantile(score_DS, place_DS, 4, 2, False))[0] == [1] * 4 + [0] * 6


def test_a_quantile_portfolio_holds_the_best_and_is_short_the_worst(tmp_path: Path) -> None:
    world = World(["A", "B", "C", "D"], [[1000] * 4] * 3)
    result = traded(
        tmp_path, world, [[1, 2, 3, 4], [NAN] * 4, [NAN] * 4], mode="quantile", quantiles=2, direction="long_short"
    )
    assert [row[1:4] for row in result.did(world)] == [
        ("A", "short", 500),
        ("B", "short", 500),
        ("D", "buy", 500),
        ("C", "buy", 498),  # the tax on short sales went first
    ]
    assert (result.metrics["quantiles"], result.metrics["quantiles_held"], result.metrics["k"]) == (2, 1, None)


def test_drop_out_replaces_the_few_worst_by_better_ones_only() -> None:
    """Held A, B, C of five: one may go. E, the best of the others, comes in for C; D has to wait for its turn."""
    score_DS = np.array(
        [[5, 4, 3, 2, 1], [3, 2, 1, 4, 5], [3, 2, 1, 4, 5], [9, 8, 1, 2, 5], [9, 8, 1, 2, 7]], np.float64
    )
    choice = selection.drop_out(score_DS, np.ones((5, 5), bool), 3, 1, False)
    assert _chosen(choice) == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 0, 1, 1], [1, 1, 0, 0, 1], [1, 1, 0, 0, 1]]
    assert choice.kept_DS.astype(int).tolist()[:2] == [[0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    alone = selection.drop_out(np.array([[2.0, 1, NAN], [2, NAN, NAN]]), np.ones((2, 3), bool), 2, 2, False)
    assert _chosen(alone) == [[1, 1, 0], [1, 1, 0]], "nobody goes where no better one is there"


def test_drop_out_gives_the_place_of_a_delisted_symbol_to_others() -> None:
    score_DS = np.array([[3, 2, 1, 0], [NAN, 2, 1, 0]], np.float64)
    alive_DS = np.array([[True] * 4, [False, True, True, True]])
    assert _chosen(selection.drop_out(score_DS, alive_DS, 2, 1, False)) == [[1, 1, 0, 0], [0, 1, 1, 0]]


def _qlib(held: list[int], score: dict[int, float], k: int, drop: int) -> list[int]:
    """TopkDropoutStrategy (method_buy "top", method_sell "bottom"), as its source reads, for scores without ties."""
    last = sorted(held, key=lambda s: -score[s])
    others = sorted((s for s in score if s not in last), key=lambda s: -score[s])
    today = others[: drop + k - len(last)]
    both = sorted(last + today, key=lambda s: -score[s])
    sell = [s for s in last if s in both[-drop:]]
    buy = today[: len(sell) + k - len(last)]
    return sorted([s for s in last if s not in sell] + buy)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_drop_out_is_that_of_qlib(seed: int, k: int, drop: int, shorts: bool) -> None:
    """With enough symbols to choose from; the long side of long-short leaves out who is short."""
    rng = np.random.default_rng(seed)
    score_DS = rng.permuted(np.tile(np.arange(24.0), (12, 1)), axis=1)
    found = selection.drop_out(score_DS, np.ones(score_DS.shape, bool), k, drop, shorts).side_DS
    assert (np.abs(found).sum(axis=1) == (2 * k if shorts else k)).all()
    held: dict[int, list[int]] = {1: [], -1: []}
    for d, row in enumerate(score_DS):
        for side in (1, -1) if shorts else (1,):
            taken = set(held[-side])
            if side < 0:  # longs have been chosen by now, and those that just left may not turn round at once
                taken |= set(np.flatnonzero(found[d - 1] == 1)) if d else set()
            may = {s: side * row[s] for s in range(24) if s not in taken or s in held[side]}
            held[side] = _qlib(held[side], may, k, drop)
            assert held[side] == np.flatnonzero(found[d] == side).tolist()


def test_drop_out_leaves_what_it_keeps_as_it_is(tmp_path: Path) -> None:
    """A doubles and would be halved by an equal weight; drop-out does not touch it while it stays."""
    close = [[1000, 1000, 1000], [1000, 1000, 1000], [2000, 1000, 1000], [2000, 1000, 1000], [2000, 1000, 1000]]
    world = World(["A", "B", "C"], close, market="other")
    scores = [[3, 2, 1], [3, 2, 1], [3, 1, 2], [3, 1, 2], [3, 1, 2]]
    result = traded(tmp_path, world, scores, mode="drop_out", k=2, drop=1)
    assert [row[:4] for row in result.did(world)] == [
        (1, "A", "buy", 500),
        (1, "B", "buy", 500),
        (3, "B", "sell", 500),
        (3, "C", "buy", 500),  # half of 1,500,000 is wanted, the cash pays for 500
    ]
    assert result.metrics["drop"] == 1


def test_drop_out_brings_shorts_back_to_their_size(tmp_path: Path) -> None:
    """B rises by half: equity is half of what it was, and so is what may be short."""
    close = [[1000, 1000], [1000, 1000], [1000, 1500], [1000, 1500]]
    world = World(["A", "B"], close, close, market="other")
    given_ = {"mode": "drop_out", "k": 1, "drop": 1, "direction": "long_short", "borrow_bp": 0.0, "rebalance": 2}
    result = traded(tmp_path, world, [[2, 1]] * 4, **given_)
    assert [row[:4] for row in result.did(world)] == [
        (1, "B", "short", 1000),
        (1, "A", "buy", 1000),
        (3, "B", "cover", 666),  # 333 are wanted; the cash pays for one less
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(("top_k", "quantile", "drop_out")),
    st.sampled_from(("equal", "rank", "score", "inverse_volatility")),
    st.sampled_from((0.1, 0.5, 1.0)),
)
def test_no_side_is_wanted_beyond_equity(seed: int, mode: str, how: str, most: float) -> None:
    rng = np.random.default_rng(seed)
    score_DS = np.where(rng.random((6, 9)) < 0.3, NAN, rng.integers(-3, 4, (6, 9)).astype(np.float64))
    place_DS = selection.places(selection.ranked(score_DS))
    choice = {
        "top_k": lambda: selection.top_k(score_DS, place_DS, 3, True),
        "quantile": lambda: selection.quantile(score_DS, place_DS, 4, 2, True),
        "drop_out": lambda: selection.drop_out(score_DS, rng.random((6, 9)) < 0.9, 3, 1, True),
    }[mode]()
    found = weigh("equal" if mode == "drop_out" else how, choice, score_DS, place_DS, rng.random((6, 9)), most)
    assert np.nansum(np.maximum(found, 0), axis=1).max() <= 1 + 1e-12
    assert np.nansum(np.minimum(found, 0), axis=1).min() >= -1 - 1e-12
    assert np.nanmax(np.abs(found)) <= most
    assert (np.isnan(found) == choice.kept_DS).all()
    assert (np.sign(np.nan_to_num(found, nan=1.0)) * choice.side_DS >= 0).all()


def _weights(how: str, rows: Any, k: int, *, shorts: bool = False, most: float = 1.0, vol: Any = None) -> list[float]:
    score_DS, place_DS = _placed(rows)
    choice = selection.top_k(score_DS, place_DS, k, shorts)
    volatility_DS = np.full(score_DS.shape, NAN) if vol is None else np.array(vol, np.float64)
    return weigh(how, choice, score_DS, place_DS, volatility_DS, most)[0].tolist()


def test_weights_by_rank_fall_by_place() -> None:
    assert _weights("rank", [[4, 9, 7, 1]], 3) == pytest.approx([1 / 6, 3 / 6, 2 / 6, 0])
    assert _weights("rank", [[4, 9, 7, 1]], 2, shorts=True) == pytest.approx([-1 / 3, 2 / 3, 1 / 3, -2 / 3])


def test_weights_by_score_are_distances_from_the_best_not_chosen() -> None:
    assert _weights("score", [[4, 9, 7, 1]], 2) == pytest.approx([0, 5 / 8, 3 / 8, 0])
    assert _weights("score", [[4, 9, 7, 1]], 4) == pytest.approx([3 / 17, 8 / 17, 6 / 17, 0]), "all: from the last"
    assert _weights("score", [[10, 6, 5, 4, 0]], 2, shorts=True) == pytest.approx([5 / 6, 1 / 6, 0, -1 / 6, -5 / 6])
    assert _weights("score", [[5, 5, 5, 5]], 2) == [0.5, 0.5, 0, 0], "no distances: equal"


def test_weights_by_volatility_are_inverse_and_an_unknown_one_is_the_largest() -> None:
    vol = [[0.01, 0.04, NAN, 0.0, 0.9]]
    found = _weights("inverse_volatility", [[5, 4, 3, 2, 1]], 4, vol=vol)
    assert found == pytest.approx([4 / 7, 1 / 7, 1 / 7, 1 / 7, 0])
    assert _weights("inverse_volatility", [[2, 1, 0]], 2) == [0.5, 0.5, 0], "nothing known: equal"


@pytest.mark.parametrize("how", ["equal", "rank", "score", "inverse_volatility"])
def test_fewer_than_k_leave_their_slots_as_cash_and_the_cap_cuts(how: str) -> None:
    some = _weights(how, [[3, 2, NAN, NAN]], 4, vol=[[0.1, 0.3, NAN, NAN]])
    assert sum(some) == pytest.approx(0.5)
    capped = _weights(how, [[3, 2, 1, 0]], 2, most=0.4, vol=[[0.1, 0.1, 0.1, 0.1]])
    assert max(capped) == 0.4 and sum(capped) <= 0.8


def test_the_cap_leaves_cash(tmp_path: Path) -> None:
    world = World(["A", "B"], [[1000, 1000]] * 2)
    result = traded(tmp_path, world, [[2, 1], [NAN, NAN]], max_weight=0.25)
    assert result.column("gross_exposure")[-1] == 0.25


def test_volatility_sees_the_window_up_to_the_decision_and_splits_are_no_moves(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    return_TS = rng.normal(0, [0.01, 0.03], (30, 2))
    return_TS[5:22, 1] = NAN
    past_VS = rng.normal(0, 0.02, (10, 2))
    rows_D = np.array([0, 12, 29])
    found = volatility(past_VS, return_TS, rows_D, 10)
    every = np.vstack([past_VS, return_TS])
    for d, t in enumerate(rows_D):
        window = every[t + 1 : t + 11]
        for s in range(2):
            known = window[np.isfinite(window[:, s]), s]
            assert found[d, s] == pytest.approx(known.std(ddof=1)) if len(known) >= 5 else np.isnan(found[d, s])
    assert np.isnan(found[1, 1])
    cut = volatility(past_VS, return_TS[:13], rows_D[:2], 10)
    assert cut.tobytes() == found[:2].tobytes()

    quiet = [[10_000 + 10 * (t % 2), (10_000 + 300 * (t % 2)) / (5 if t > 20 else 1)] for t in range(45)]
    world = World(["A", "B"], quiet, actions=[])
    world.actions = [("B", str(world.days[21]), 5.0)]
    settings = {"mode": "top_k", "k": 2, "weights": "inverse_volatility", "volatility_window": 10, "rebalance": 100}
    scores = [[1, 1]] * 45
    result = traded(tmp_path, world, scores, ["valid"] * 30 + ["test"] * 15, **settings)
    held = {row["symbol"]: row["value"] for row in result.trades}
    assert held["A"] / held["B"] == pytest.approx(30, rel=0.05), "ten returns lie before the first traded session"


@pytest.mark.parametrize("direction", ["long", "long_short"])
@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "top_k", "k": 2, "weights": "inverse_volatility", "volatility_window": 5},
        {"mode": "top_k", "k": 2, "weights": "score", "rebalance": "weekly"},
        {"mode": "quantile", "quantiles": 3, "weights": "rank", "rebalance": 3},
        {"mode": "drop_out", "k": 2, "drop": 1},
        {"mode": "time_series"},
    ],
    ids=["inverse_volatility", "score", "rank", "drop_out", "time_series"],
)
def test_no_mode_looks_ahead(tmp_path: Path, settings: dict[str, Any], direction: str) -> None:
    """A market that ends earlier gives the same sessions up to there."""
    rng = np.random.default_rng(8)
    close = np.rint(20_000 * np.cumprod(rng.normal(1, 0.02, (30, 6)), axis=0))
    score = np.where(rng.random((30, 6)) < 0.1, NAN, rng.normal(size=(30, 6)))
    names = list("ABCDEF")
    whole = traded(tmp_path / "whole", World(names, close), score, direction=direction, **settings)
    assert len(whole.trades) > 10
    for t in (7, 19):
        cut = traded(tmp_path / str(t), World(names, close[:t]), score[:t], direction=direction, **settings)
        assert cut.equity == whole.equity[:t]


def test_settings_without_effect_or_that_contradict_are_refused() -> None:
    for given_, needed in (
        ({"quantiles": 5}, "backtest.mode quantile"),
        ({"mode": "top_k", "quantiles_held": 2}, "backtest.mode quantile"),
        ({"drop": 1}, "backtest.mode drop_out"),
        ({"borrow_bp": 100.0}, "backtest.direction long_short"),
        ({"volatility_window": 20}, "backtest.weights inverse_volatility"),
        ({"mode": "drop_out", "weights": "rank"}, "backtest.weights equal"),
        ({"mode": "quantile", "quantiles": 3, "quantiles_held": 4}, "of at most 3"),
        ({"mode": "quantile", "quantiles": 3, "quantiles_held": 2, "direction": "long_short"}, "of at most 1"),
        ({"rebalance": "yearly"}, "1 to 260 sessions, or weekly, monthly, quarterly, got 'yearly'"),
        ({"rebalance": 261}, "got '261'"),
    ):
        with pytest.raises(ValueError, match=needed):
            BacktestSection.model_validate(given_)
