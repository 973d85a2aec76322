"""The search of a strategy's parameters: what it draws, when it stops, what it is judged on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import krx
from pipeline.backtest import AccountSection, MetaSection, optimize, run
from pipeline.backtest.single.bank import told
from pipeline.backtest.single.meta import Found
from pipeline.backtest.single.ranges import Ranges
from pipeline.strategies import StrategyError, moving_average_cross, rsi_reversion
from tests.walks import walk

ACCOUNT = AccountSection(direction="both")
SMALL = MetaSection(samples=64, iterations=3, gain=0.0, least_trades=2)


def bars(n: int, symbol: str = "A", seed: int = 3, skip: int = 0) -> pd.DataFrame:
    ts = pd.date_range("2018-01-01 06:30", periods=n, freq="D").astype("datetime64[us]")
    one = pd.DataFrame({"symbol": symbol, "ts": ts, **walk(n, seed)})
    return one[["symbol", "ts", "open", "high", "low", "close", "volume"]].iloc[skip:].reset_index(drop=True)


def searched(frame: pd.DataFrame, section: MetaSection = SMALL, **more: Any) -> Found:
    return optimize(frame, moving_average_cross, section, account=ACCOUNT, venue="24h", interval="1d", **more)


def same(a: Found, b: Found) -> bool:
    pd.testing.assert_frame_equal(a.samples.frame(), b.samples.frame(), check_exact=True)
    np.testing.assert_array_equal(a.score_C, b.score_C)
    for one, other in ((a.inside, b.inside), (a.outside, b.outside)):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    return (a.order == b.order).all() and a.ranges == b.ranges and a.numbers == b.numbers and a.why == b.why


def test_the_seed_decides_and_workers_and_memory_do_not() -> None:
    first = searched(bars(600))
    assert same(first, searched(bars(600), workers=1)) and same(first, searched(bars(600), memory=100_000))
    other = searched(bars(600), SMALL.model_copy(update={"seed": 1}))
    assert not first.samples.frame().equals(other.samples.frame())


def test_a_cluster_finds_the_same() -> None:
    from distributed import Client, LocalCluster

    frame = pd.concat([bars(500), bars(500, "B", 9, skip=120)], ignore_index=True)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        here: list[int] = []
        there: list[int] = []
        alone = searched(frame, progress=here.append)
        assert same(alone, searched(frame, client=client, progress=there.append))
    assert sum(here) == sum(there)


def test_narrowing_stays_within_what_was_asked_for_and_nothing_is_tried_twice() -> None:
    asked = {"fast": [10, 30], "slow": [40, 60, 100, 200], "atr": 14}
    found = searched(bars(600), SMALL.model_copy(update={"iterations": 5, "samples": 100}), ranges=asked)
    tried = found.samples.frame()
    assert not tried.duplicated().any() and tried["fast"].between(10, 30).all()
    assert set(tried["slow"]) <= {40, 60, 100, 200} and set(tried["atr"]) == {14}
    assert len(tried) == sum(step.combinations for step in found.iterations) == found.numbers["trials"]
    assert all(step.combinations <= 100 for step in found.iterations)
    for before, after in zip(found.iterations, found.iterations[1:]):
        assert min(before.ranges["fast"]) <= min(after.ranges["fast"])
        assert max(after.ranges["fast"]) <= max(before.ranges["fast"])


def test_it_stops_when_nothing_is_gained_and_when_everything_was_tried() -> None:
    greedy = searched(bars(600), SMALL.model_copy(update={"gain": 1.0, "iterations": 9}))
    assert len(greedy.iterations) < 9 and "gained less than 100%" in greedy.why
    few = {name: [value] for name, value in moving_average_cross.defaults.items()} | {"fast": [10, 30]}
    all_ = searched(bars(600), SMALL.model_copy(update={"iterations": 9}), ranges=few)
    assert len(all_.samples) == 5 and "was tried" in all_.why


def test_a_range_that_is_nearly_used_up_is_drawn_to_its_end() -> None:
    whole = Ranges.whole(rsi_reversion, {p.name: [p.default] for p in rsi_reversion.parameters} | {"rsi": [2, 30]})
    known: set[bytes] = set()
    assert [len(whole.draw(20, seed, known)) for seed in range(3)] == [20, 9, 0]


def test_combinations_that_trade_too_little_neither_lead_nor_stop_the_search() -> None:
    section = SMALL.model_copy(update={"least_trades": 8, "quantile": 0.5, "samples": 64})
    found = searched(bars(600), section, ranges={"slow": [20, 240]})
    kept = found.score_C[: found.iterations[0].combinations]
    assert np.isinf(kept).any() and np.isfinite(found.iterations[0].mean_best)
    nothing = searched(bars(600), SMALL.model_copy(update={"least_trades": 10_000}))
    assert np.isinf(nothing.score_C).all() and len(nothing.iterations) == 3
    assert nothing.ranges == Ranges.whole(moving_average_cross, None, "1d"), "nothing says where to look"
    assert set(nothing.numbers) == {"trials"} and "made 10000 trades" in nothing.reasons["deflated_sharpe"]


def test_periods_ask_for_steadiness() -> None:
    one, four = searched(bars(600)), searched(bars(600), SMALL.model_copy(update={"periods": 4}))
    first = one.iterations[0].combinations
    assert not np.array_equal(one.score_C[:first], four.score_C[:first])


def test_one_day_parts_inside_and_outside_for_old_and_young_symbols() -> None:
    frame = pd.concat([bars(700), bars(700, "B", 9, skip=300), bars(700, "C", 5, skip=600)], ignore_index=True)
    frame = pd.concat([frame, bars(200, "D", 6)], ignore_index=True)
    found = searched(frame)
    old, young, newest, gone = found.spans
    assert max(old[1], young[1]) < min(old[2], young[2], newest[2])
    assert newest[:2] == ("", "") and gone[2:] == ("", "")
    best, halves = int(found.order[0]), ((0, "ABD", found.inside), (2, "ABC", found.outside))
    for at, there, figures in halves:  # means over those that have the half
        days = dict(zip("ABCD", (each[at : at + 2] for each in found.spans)))
        own = [
            run(
                frame[frame["symbol"] == name], moving_average_cross, found.samples.values(best), account=ACCOUNT,
                venue="24h", interval="1d", first=days[name][0], last=days[name][1],
            ).figures
            for name in there
        ]  # fmt: skip
        for name in ("total_return", "trades", "costs"):
            assert figures[name][best] == pytest.approx(np.mean([each[name] for each in own]), rel=1e-12)
    pair = frame[frame["symbol"].isin(["A", "B"])].reset_index(drop=True)
    assert same(searched(pair), searched(pair, workers=1)) and searched(pair).numbers["pbo"] is not None


def test_days_that_leave_nothing_to_judge_are_refused() -> None:
    with pytest.raises(StrategyError, match="inside and outside"):
        searched(bars(3).iloc[:3], SMALL.model_copy(update={"inside": 0.1}))
    with pytest.raises(StrategyError, match="swap them"):
        searched(bars(300), first="2018-06-01", last="2018-02-01")


def test_bans_of_short_sales_are_spoken_of_where_shorts_are_allowed() -> None:
    days = np.arange("2022-01-03", "2025-10-01", dtype="datetime64[D]")
    days = days[krx.is_session(days)]
    one = bars(len(days)).assign(ts=days + np.timedelta64(390, "m"))
    found = optimize(one, moving_average_cross, SMALL, account=ACCOUNT, interval="1d")
    banned = 1 - krx.short_sales(days[moving_average_cross.lookback :]).mean()
    assert 0.3 < banned < 0.5 and found.banned == pytest.approx(banned)
    assert f"shorts were banned on {banned * 100:.1f} % of the bars" in told(found, SMALL)
    long = optimize(one, moving_average_cross, SMALL, account=AccountSection(direction="long"), interval="1d")
    assert long.banned == 0 and not any("banned" in line for line in told(long, SMALL))


PAIR = """
import sys
from pipeline.backtest import sweep
from pipeline.strategies import strategy_of
from tests.unit.test_meta import ACCOUNT, bars
for name in sys.argv[1:]:
    found = sweep(bars(400), strategy_of(name), {}, account=ACCOUNT, venue="24h", interval="1d")
    print(name, found["end_equity"].tolist())
"""


@pytest.mark.slow
def test_strategies_that_were_compiled_by_different_processes_keep_their_steps(tmp_path: Path, root: Path) -> None:
    def told(*names: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", PAIR, *names], capture_output=True, text=True, cwd=root, check=True,
            env={"NUMBA_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)},
        )  # fmt: skip
        return done.stdout.splitlines()

    one, other = told("moving_average_cross"), told("donchian_breakout")
    assert (
        told("moving_average_cross", "donchian_breakout") == [*one, *other]
        and one[0].split()[1:] != other[0].split()[1:]
    )
