"""Sweeps: the figures of each combination are those of its own run, however the work is cut, ordered and shared."""

from __future__ import annotations

import threading
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.backtest import forecast, instruments, optimize, run, sweep
from pipeline.backtest.single.chunks import chunks
from pipeline.backtest.single.samples import combinations_of
from pipeline.strategies import ALL, Parameter, Strategy, StrategyError, Use, moving_average_cross, wm_pattern
from tests.sweep_bars import COSTS, walk

BARS = walk(3_000)
SMALL: dict[str, list[Any]] = {"fast": [5, 10, 20], "slow": [40, 60], "stop_atr": [0.0, 2.0]}


def draws(count: int, seed: int = 3) -> pd.DataFrame:
    """Return random combinations of wm_pattern."""
    r = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "fast": r.choice([6, 8, 10], count),
            "slow": r.choice([20, 24, 30], count),
            "rsi": r.choice([7, 14, 21], count),
            "atr": r.choice([7, 10, 14], count),
            "stop_atr": r.uniform(1, 4, count),
            "trail_atr": r.uniform(0.5, 3, count),
            "filter_timeframe": r.choice(["1h", "4h"], count),
            "filter_ema": r.choice([20, 50], count),
            "entry_timeframe": r.choice(["15m", "30m"], count),
        }
    )


ROWS = draws(150)


def swept(rows: Any = ROWS, strategy: Strategy = wm_pattern, **more: Any) -> pd.DataFrame:
    return sweep(BARS, strategy, rows, **({"account": COSTS, "venue": "24h"} | more))


@pytest.fixture(scope="module")
def reference() -> pd.DataFrame:
    return swept()


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("which", ALL, ids=lambda s: s.name)
def test_a_row_is_the_run_of_its_combination(which: Strategy) -> None:
    rows = [which.defaults | ({"trend_timeframe": "4h"} if which.name == "template" else {})]
    stops = next(p for p in which.parameters if p.name == "stop_atr")
    rows += [rows[0] | {"stop_atr": value} for value in (stops.low, stops.high, (stops.low + stops.high) / 2)]
    found = swept(rows, which)
    assert found["trades"].sum() > 0
    for k, row in enumerate(rows):
        own = run(BARS, which, row, account=COSTS, venue="24h")
        for name, value in own.figures.items():
            np.testing.assert_array_equal(found[name][k], value, err_msg=name)
        assert own.figures["trades"] == len(own.trades)
        assert own.equity["equity"].iloc[-1] == own.figures["end_equity"]
        drawdown = own.equity["equity"] / own.equity["equity"].cummax() - 1
        assert own.figures["max_drawdown"] == pytest.approx(drawdown.min(), abs=1e-12)


def test_rows_are_in_the_order_of_the_combinations(reference: pd.DataFrame) -> None:
    assert reference["stop_atr"].tolist() == ROWS["stop_atr"].tolist()
    assert (reference["symbol"] == "bars").all()
    assert reference["trades"].sum() > 100


@pytest.mark.parametrize(("workers", "memory"), [(1, 1 << 28), (3, 1 << 28), (1, 300_000), (3, 300_000), (2, 1)])
def test_threads_and_memory_change_nothing(reference: pd.DataFrame, workers: int, memory: int) -> None:
    same(swept(workers=workers, memory=memory), reference)


def test_little_memory_makes_many_chunks() -> None:
    (each,) = instruments(BARS, COSTS, venue="24h")
    sizes = [len(c.x_UT) for c in chunks(each, combinations_of(wm_pattern, ROWS), 300_000, 1)]
    assert len(sizes) > 5
    assert max(sizes) * len(BARS) * 4 <= 300_000


def test_order_changes_nothing(reference: pd.DataFrame) -> None:
    order = np.random.default_rng(0).permutation(len(ROWS))
    same(swept(ROWS.iloc[order], memory=300_000), reference.iloc[order].reset_index(drop=True))


@pytest.mark.parametrize("by", ["sharpe", "total_return", "max_drawdown", "profit_factor"])
def test_the_best_are_the_same_however_they_come(reference: pd.DataFrame, by: str) -> None:
    order = np.random.default_rng(1).permutation(len(ROWS))
    best = swept(top=7, by=by)
    assert best[by].tolist() == reference[by].nlargest(7).tolist()
    same(swept(ROWS.iloc[order], top=7, by=by, memory=300_000, workers=3), best)
    same(swept(top=20, by=by)[:7], best)


def test_the_lowest_costs_and_the_smallest_fall_are_the_best(reference: pd.DataFrame) -> None:
    least = int(reference["trades"].median())
    active = reference[reference["trades"] >= least]
    cheap = swept(top=7, by="costs", least_trades=least)
    assert cheap["costs"].tolist() == active["costs"].nsmallest(7).tolist()
    same(swept(top=7, by="costs", least_trades=least, memory=300_000, workers=3), cheap)
    calm = swept(top=7, by="max_drawdown", least_trades=least)
    assert calm["max_drawdown"].tolist() == sorted(active["max_drawdown"], key=abs)[:7]
    assert active["costs"].max() > cheap["costs"].max() and active["max_drawdown"].min() < calm["max_drawdown"].min()


def test_the_best_of_many_are_kept_while_others_come() -> None:
    rows = {"fast": list(range(5, 61, 5)), "slow": list(range(80, 241, 20)), "stop_atr": [0.5 * k for k in range(13)]}
    every = swept(rows, moving_average_cross)
    assert len(every) > 1_000
    best = swept(rows, moving_average_cross, top=5, memory=200_000)
    assert best["sharpe"].tolist() == every["sharpe"].nlargest(5).tolist()


def test_who_trades_too_little_is_not_among_the_best(reference: pd.DataFrame) -> None:
    least = int(reference["trades"].median())
    found = swept(top=1_000, least_trades=least)
    assert len(found) == (reference["trades"] >= least).sum()
    assert found["trades"].min() >= least
    assert not len(swept(top=3, least_trades=10**6))


def test_symbols_are_swept_one_after_the_other() -> None:
    two = pd.concat([BARS.assign(symbol="A"), walk(3_000, seed=9).assign(symbol="B")], ignore_index=True)
    found = sweep(two, moving_average_cross, SMALL, account=COSTS, venue="24h")
    assert found["symbol"].tolist() == ["A"] * 12 + ["B"] * 12
    alone = sweep(two[two["symbol"] == "B"], moving_average_cross, SMALL, account=COSTS, venue="24h")
    same(found[12:].reset_index(drop=True), alone)


def short_lived(count: int = 1) -> list[Any]:
    """Return a symbol whose bars go on and some whose bars end after two days."""
    parts = [BARS.assign(symbol="A"), *(walk(192, seed=k).assign(symbol=f"B{k}") for k in range(count))]
    return instruments(pd.concat(parts, ignore_index=True), COSTS, venue="24h")


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_symbol_without_bars_in_the_days_is_left_out_with_a_warning(executor: Any) -> None:
    both, told, more = short_lived(), [], {"first": "2025-01-05", "last": "2025-01-20"}
    message = r"1 of 2 symbols are left out, .* fewer than two bars to trade in these days: B0; widen"
    with pytest.warns(UserWarning, match=message) as caught:
        found = sweep(
            both, moving_average_cross, SMALL, account=COSTS, executor=executor, workers=2,
            progress=lambda done, total: told.append((done, total)), **more,
        )  # fmt: skip
    assert [w.filename for w in caught] == [__file__]
    same(found, sweep(both[:1], moving_average_cross, SMALL, account=COSTS, **more))
    assert told[-1] == (12, 12)
    with pytest.warns(UserWarning, match="1 of 2 symbols"):
        best = sweep(both[::-1], moving_average_cross, SMALL, account=COSTS, top=3, **more)
    assert set(best["symbol"]) == {"A"}


def test_a_forecast_leaves_out_what_a_sweep_leaves_out() -> None:
    first, *others = short_lived(7)
    days = {"first": "2025-01-05"}
    named = "7 of 8 symbols .*: B0, B1, B2, B3, B4 and 2 more; widen"
    with pytest.warns(UserWarning, match=named) as caught:
        told = forecast([*others, first], moving_average_cross, SMALL, account=COSTS, **days)
    assert [w.filename for w in caught] == [__file__]
    assert told.combinations == 12
    with pytest.warns(UserWarning, match=named), pytest.raises(StrategyError, match="got 12 combinations"):
        sweep([first, *others], moving_average_cross, SMALL, account=COSTS, patience=1e-9, **days)
    for call in (sweep, forecast):
        with pytest.raises(StrategyError, match=r"at least two bars of B0 to trade, got 0 of 192"):
            call(others, moving_average_cross, SMALL, account=COSTS, **days)


def test_days_are_inclusive_and_earlier_bars_are_seen_by_columns_only() -> None:
    days = {"first": "2025-01-10", "last": date(2025, 1, 20)}
    result = run(BARS, moving_average_cross, account=COSTS, venue="24h", **days)
    assert result.equity["ts"].iloc[0] == pd.Timestamp("2025-01-10 00:15")
    assert result.equity["ts"].iloc[-1] == pd.Timestamp("2025-01-21 00:00")  # the bar that ends the day
    shorter = BARS[BARS["ts"] <= "2025-01-21"]
    same(run(shorter, moving_average_cross, account=COSTS, venue="24h", **days).trades, result.trades)
    for first in (
        pd.Timestamp("2025-01-10 15:00"),
        pd.Timestamp("2025-01-10", tz="Asia/Seoul"),
        np.datetime64("2025-01-10"),
    ):
        same(
            run(BARS, moving_average_cross, account=COSTS, venue="24h", first=first, last=days["last"]).trades,
            result.trades,
        )


@pytest.mark.parametrize("workers", [1, 4])
def test_progress_counts_every_combination_once(workers: int) -> None:
    told: list[tuple[int, int]] = []
    threads: set[int] = set()

    def progress(done: int, total: int) -> None:
        threads.add(threading.get_ident())
        told.append((done, total))

    swept(draws(1_000), workers=workers, progress=progress)
    assert told[-1] == (1_000, 1_000)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_who_interrupts_hears_it_and_no_thread_is_left(error: type[BaseException]) -> None:
    def progress(done: int, total: int) -> None:
        if done > 100:
            raise error

    before = threading.active_count()
    with pytest.raises(error):
        swept(draws(1_000), workers=3, progress=progress)
    assert threading.active_count() == before


def test_a_forecast_says_what_a_sweep_takes_and_a_sweep_keeps_to_it() -> None:
    told = forecast(BARS, wm_pattern, draws(30_000), account=COSTS, venue="24h")
    assert told.combinations == 30_000
    assert 0 < told.seconds < 600
    assert told.bytes > 30_000 * 8 * 16
    with pytest.raises(
        StrategyError, match=r"expected a sweep within 0 s, got 30,000 combinations, about .* s and .* MB"
    ):
        swept(draws(30_000), patience=0.001)
    with pytest.raises(StrategyError, match=r"expected a sweep within 1 MB, got 30,000 .*top="):
        swept(draws(30_000), limit=1_000_000)
    with pytest.raises(StrategyError, match="expected a sweep within 0 s, got 200 combinations"):
        swept(draws(200), patience=1e-9)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "reversed days": ({"first": "2025-01-05", "last": "2025-01-02"}, r"got 2025-01-05..2025-01-02; swap them"),
    "no bars in the days": ({"first": "2026-01-05"}, r"got 0 of 3000 .*2025-01-01..2025-02-01.*; widen the range"),
    "no day": ({"first": "yesterday"}, "expected a day such as 2024-01-31 as first or last, got 'yesterday'"),
    "a number as a day": ({"last": 20250102}, "got 20250102"),
    "no figure": ({"by": "sharp"}, "expected a figure .*total_return, sharpe, .* got 'sharp'"),
    "a figure that says nothing of better": ({"by": "trades"}, "got 'trades'; leave top= out .*least_trades="),
    "another one": ({"by": "exposure"}, "expected a figure of which more or less is better .* got 'exposure'"),
    "figures": ({"by": ["sharpe"]}, "to choose by"),
    "top 0": ({"top": 0}, "as top, got 0"),
    "top 1.5": ({"top": 1.5}, "as top, got 1.5"),
    "no workers": ({"workers": 0}, "as workers, got 0"),
    "fewer than no workers": ({"workers": -1}, "as workers, got -1"),
    "no memory": ({"memory": 0}, "as memory, got 0"),
    "executor": ({"executor": "threads"}, "expected executor .*thread.*process.* got 'threads'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_sweep_can_be_is_refused(name: str) -> None:
    more, message = BAD[name]
    with pytest.raises(StrategyError, match=message):
        swept(SMALL, moving_average_cross, **more)


def test_a_run_is_of_one_symbol_and_knows_its_parameters() -> None:
    two = pd.concat([BARS.assign(symbol="A"), BARS.assign(symbol="B")], ignore_index=True)
    with pytest.raises(StrategyError, match="expected bars of one symbol, got 2"):
        run(two, moving_average_cross, venue="24h")
    with pytest.raises(StrategyError, match="did you mean 'fast'"):
        run(BARS, moving_average_cross, {"fats": 5}, venue="24h")
    wrong: Any = "moving_average_cross"
    for call in (run, optimize):
        with pytest.raises(StrategyError, match="expected a Strategy, got 'moving_average_cross'"):
            call(BARS, wrong, venue="24h")
    values: Any = [5, 20]
    with pytest.raises(StrategyError, match="expected values by parameter"):
        run(BARS, moving_average_cross, values, venue="24h")
    account: Any = {"direction": "both"}
    with pytest.raises(StrategyError, match="expected an AccountSection as account"):
        run(BARS, moving_average_cross, account=account, venue="24h")
    with pytest.raises(StrategyError, match=r"at least two bars .*to trade, got 1 of 2"):
        run(BARS[:2], moving_average_cross, venue="24h")


# Steps that cannot be run

LEVEL = 60.0


def seven(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 7


def silent(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> Any:
    if x[at[0], i] > 50.0:
        return 1
    return None


def real(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> Any:
    return 1.0


def method(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return int(x.rolling(3))


def raising(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    if i > 5:
        raise ValueError("no")
    return 0


def over_level(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 1 if x[at[0], i] > LEVEL else 2


def declared(step: Any) -> Strategy:
    return Strategy("own", (Parameter("n", 5, 2, 9),), (Use("rsi", {"n": "n"}),), step)


STEPS = {
    seven: r"expected 0 \(STAY\).* got another number",
    silent: "got TypeError.*got None",
    real: "expected a step that can be compiled .*it returns float64",
    method: r"Unknown attribute 'rolling' .* in .*test_sweep.py:\d+",
    raising: r"ValueError\('no'\)",
}


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
def test_a_step_that_cannot_run_is_one_sentence_with_its_place(step: Any, executor: str) -> None:
    if executor == "process" and step is not method:
        pytest.skip("one of them shows the way")
    with pytest.raises(StrategyError, match=STEPS[step]) as caught:
        swept({}, declared(step), executor=executor, workers=1)
    assert "test_sweep.py:" in str(caught.value)
    assert "\n" not in str(caught.value)
    if step is seven:
        with pytest.raises(StrategyError, match="got another number"):
            run(BARS, declared(step), venue="24h")


def test_a_step_of_a_notebook_sees_its_constants_as_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    before = swept({}, declared(over_level))["trades"][0]
    monkeypatch.setitem(globals(), "LEVEL", 80.0)
    after = swept({}, declared(over_level))["trades"][0]
    monkeypatch.setitem(globals(), "LEVEL", 60.0)
    assert after < before == swept({}, declared(over_level))["trades"][0]


def counting(i: int, x: Any, at: Any, p: Any, order: Any, state: Any, side: int) -> int:
    return 1 if sum([1 if x[at[0], i - back] > LEVEL else 0 for back in range(2)]) == 2 else 2


@pytest.mark.slow
def test_a_constant_that_only_a_comprehension_reads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = swept({}, declared(counting))["trades"][0]
    monkeypatch.setitem(globals(), "LEVEL", 75.0)
    assert swept({}, declared(counting))["trades"][0] < before
    monkeypatch.setitem(globals(), "LEVEL", [75.0])
    with pytest.raises(StrategyError, match=r"got LEVEL \(list\)"):
        declared(counting)


def test_a_lambda_runs_on_threads_and_not_on_processes() -> None:
    own = declared(lambda i, x, at, p, order, state, side: 1 if x[at[0], i] > 60.0 else 2)
    assert swept({}, own)["trades"][0] == swept({}, declared(over_level))["trades"][0]
    with pytest.raises(StrategyError, match=r"at the top of a file for executor='process'.*or use executor='thread'"):
        swept({}, own, executor="process")
