"""The auditor: what keeps its promises passes every check; what was planted is found, and where it is.

No planted function shares code with the auditor or with the indicators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.actions import adjust
from pipeline.audit import AuditError, Backend, Promises, Warmup, audit
from pipeline.audit.bars import actions_of, with_basis
from pipeline.audit.columns import Features, Known
from pipeline.audit.promises import promises_of
from pipeline.indicators import ALL, Spec, compute, resolve
from storage.schema import ACTIONS
from tests.feature_blocks import Recorder
from tests.market import bars
from tests.walks import frame, walk

Frame = pd.DataFrame
Values = Callable[[Frame], Frame]
NONE = ACTIONS.empty_table()
SYMBOLS = ("000000", "000001", "000002", "000003")


@pytest.fixture(scope="module")
def market() -> Frame:
    """Four symbols of 260 days, two of them listed late, one split on the way."""
    found = bars(SYMBOLS, 260).to_pandas()[["symbol", "ts", "open", "high", "low", "close", "volume"]]
    late = found["ts"] < found["ts"].iloc[40]
    found = found[~(late & found["symbol"].isin(SYMBOLS[1:3]))].reset_index(drop=True)
    return with_basis(found, actions(found["ts"].iloc[150].date()))


def actions(day: Any, factor: float = 4.0) -> Any:
    stamp = datetime(2020, 1, 1, tzinfo=UTC)
    row = {"symbol": SYMBOLS[1], "ex_date": day, "kind": "split", "factor": factor, "source": "", "ingested_at": stamp}
    return ACTIONS.empty_table().from_pylist([row], ACTIONS)


def by_symbol(bars: Frame, of: Callable[[Any], Any]) -> Any:
    return bars.groupby("symbol", sort=False)["close"].transform(of)


def roc(bars: Frame) -> Any:
    return by_symbol(bars, lambda close: close / close.shift(5) - 1)


def ranked_tomorrow(bars: Frame) -> Any:
    """Rank the closes of each day, with tomorrow's in place of today's for one symbol."""
    close = bars["close"].copy()
    other = bars["symbol"] == SYMBOLS[2]
    close[other] = close[other].shift(-1)
    return close.groupby(bars["ts"]).rank()


LEAKS: dict[str, Callable[[Frame], Any]] = {
    "tomorrow": lambda bars: by_symbol(bars, lambda close: close.shift(-1)),
    "zscore": lambda bars: by_symbol(bars, lambda close: (close - close.mean()) / close.std()),
    "centred": lambda bars: by_symbol(bars, lambda close: close.rolling(5, center=True).mean()),
    "scaled": lambda bars: by_symbol(bars, lambda close: (close - close.min()) / (close.max() - close.min())),
    "ranked": ranked_tomorrow,
    "back_adjusted": lambda bars: bars["close"] / by_basis(bars),
    "filled": lambda bars: by_symbol(bars, lambda close: close.where(close % 3 > 0).bfill()),
}


def by_basis(bars: Frame) -> Any:
    return bars.groupby("symbol", sort=False)["basis"].transform("last") / bars["basis"]


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_look_ahead_is_found_where_it_is(market: Frame, name: str) -> None:
    def values(bars: Frame) -> Frame:
        return pd.DataFrame({"roc": roc(bars), name: LEAKS[name](bars)})

    found = audit(values, market, checks=["C1", "C2"], tries=12)
    assert found.verdict == "found"
    whole = values(market)
    for outcome in found.outcomes:
        (finding,) = outcome.found.values()
        assert finding.column == name
        at = (market["symbol"] == finding.symbol) & (market["ts"] == pd.Timestamp(finding.ts))
        assert whole.loc[at, name].item() == pytest.approx(finding.whole, nan_ok=True)
        assert finding.got != finding.whole and str(finding.got) in str(finding)


def test_both_values_of_a_finding_are_those_at_the_cut(market: Frame) -> None:
    found = audit(lambda bars: Frame({"y": LEAKS["tomorrow"](bars)}), market, checks=["C1"], tries=1, seed=5)
    (finding,) = found.findings
    moment = pd.Timestamp(finding.ts)  # the last bar before the cut is the one that lacks its tomorrow
    assert f"up to {moment}" in finding.what and np.isnan(finding.got)
    close = market[market["symbol"] == finding.symbol].set_index("ts")["close"]
    assert finding.whole == close[close.index > moment].iloc[0]
    assert finding.values == (market["ts"] == moment).sum() and finding.trials == 1


def test_only_the_whole_cross_section_shows_what_one_symbol_takes_from_another(market: Frame) -> None:
    def values(bars: Frame) -> Frame:
        return Frame({"ranked": ranked_tomorrow(bars)})

    alone = market[market["symbol"] == SYMBOLS[0]]
    assert audit(values, alone, checks=["C1", "C2"]).verdict == "clean"
    assert audit(values, market, checks=["C1"]).verdict == audit(values, market, checks=["C2"]).verdict == "found"


def test_noise_is_no_finding_where_a_tolerance_is_declared_and_a_leak_above_it_is(market: Frame) -> None:
    def values(bars: Frame) -> Frame:
        return Frame({"noisy": roc(bars) * (1 + 1e-13 * len(bars))})

    allowed = Promises(noise={"noisy": 1e-9})
    assert audit(values, market, checks=["C1"]).verdict == "found"
    assert audit(values, market, checks=["C1"], promises=allowed).verdict == "clean"
    leaky = audit(lambda b: values(b) + 1e-6 * len(b), market, checks=["C1"], promises=allowed)
    assert leaky.verdict == "found"


@pytest.fixture(scope="module")
def long() -> Frame:
    """Five symbols of 760 bars: long enough for every warm-up."""
    found = frame({name: walk(760, i) for i, name in enumerate((*SYMBOLS, "000004"))})
    found.loc[found.index % 97 == 50, "close"] = np.nan
    return with_basis(found, actions(found["ts"].iloc[150].date()))


def test_all_indicators_see_no_future_and_do_not_mind_how_they_are_run(long: Frame) -> None:
    columns = resolve([*(Spec(indicator=one.name) for one in ALL), Spec(indicator="roc", names={"roc": "MyROC{n}"})])
    some, checks = long.groupby("symbol").head(300), ["C1", "C2", "C4", "C5", "C6"]
    features = Features(columns, Known())
    found = audit(features, some, promises=promises_of(features), checks=checks, tries=3)
    assert [str(outcome) for outcome in found.outcomes if outcome.verdict != "clean"] == []
    assert all(outcome.trials and outcome.comparisons and not outcome.refused for outcome in found.outcomes)


def test_all_indicators_forget_where_they_began_after_their_warm_up() -> None:
    bars = with_basis(frame({name: walk(6400, i) for i, name in enumerate(SYMBOLS[:2])}), NONE)
    features = Features(resolve(Spec(indicator=one.name) for one in ALL), Known())
    (found,) = audit(features, bars, promises=promises_of(features), checks=["C3"], tries=2).outcomes
    assert [str(finding) for finding in found.found.values()] == [] and found.verdict == "clean", str(found)
    assert found.measured["kama_10"]["longest"] > found.measured["kama_10"]["declared"] > 4000


def test_bars_on_which_nothing_changes_are_no_warm_up_of_a_ratio_of_two_smoothings() -> None:
    bars = with_basis(frame({name: walk(5000, i) for i, name in enumerate(SYMBOLS[:2])}), NONE)
    still = np.arange(len(bars)) % 1000 >= 300
    bars["close"] = bars["close"].where(~still).ffill()
    for name in ("open", "high", "low"):
        bars[name] = bars[name].where(~still, bars["close"])
    short = {"atr_ratio": {"m": 20}}  # of these bars, too few change for its usual window
    asked = [Spec(indicator=one.name, params=short.get(one.name, {})) for one in ALL if one.counts == "changes"]
    features = Features(resolve(asked), Known())
    told = promises_of(features)
    (found,) = audit(features, bars, promises=told, checks=["C3"]).outcomes
    assert [str(finding) for finding in found.found.values()] == [] and found.verdict == "clean", str(found)
    assert found.measured["rsi_14"]["unit"] == "changes of close" and found.measured["rsi_14"]["longest"] < 1300
    bars_only = replace(told, warmups={name: one._replace(unit="bars") for name, one in told.warmups.items()})
    counted = replace(bars_only, counted={"bars": partial(features.counted, "", ())})
    (found,) = audit(features, bars, promises=counted, checks=["C3"]).outcomes
    assert {"rsi_14", "cmo_14", "plus_di_14", "stoch_rsi_k_14_5_3", "keltner_place_20_10_2"} <= found.found.keys()


CLOSELY = ("sma", "ema", "rsi", "macd", "adx", "bollinger", "atr", "obv")


def test_indicators_pass_every_check_and_their_warm_ups_are_measured(long: Frame) -> None:
    columns = resolve([*(Spec(indicator=name) for name in CLOSELY), Spec(indicator="sma", over="close")])
    events = Recorder()
    features = Features(columns, Known())
    found = audit(features, long, promises=promises_of(features), tries=4, emit=events)
    assert [outcome.check for outcome in found.outcomes] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert [str(outcome) for outcome in found.outcomes if outcome.verdict != "clean"] == []
    told = found.outcomes[2].measured
    assert told["sma_20"]["measured"] == 19 and told["sma_20"]["declared"] == 20
    assert told["obv"]["declared"] == "never"
    done = [(e["done"], e["total"]) for e in events.of("progress")]
    assert done == [(i, done[-1][1]) for i in range(done[-1][1] + 1)]


def test_the_same_seed_finds_the_same_and_a_check_does_not_depend_on_the_others(market: Frame) -> None:
    def values(bars: Frame) -> Frame:
        return Frame({name: of(bars) for name, of in LEAKS.items()})

    one = audit(values, market, tries=5, seed=3).summary()
    assert one == audit(values, market, tries=5, seed=3).summary()
    assert one["checks"]["C2"] == audit(values, market, checks=["C2"], tries=5, seed=3).summary()["checks"]["C2"]
    assert one != audit(values, market, tries=5, seed=4).summary()


def mean(bars: Frame) -> Frame:
    return Frame({"mean": by_symbol(bars, lambda close: close.ewm(alpha=0.1, adjust=False).mean())})


@pytest.mark.parametrize(("declared", "verdict"), [(20, "found"), (200, "clean"), (np.inf, "cannot judge")])
def test_a_warm_up_is_measured_and_held_to_what_is_declared(market: Frame, declared: float, verdict: str) -> None:
    told = Promises(warmups={"mean": Warmup(declared, 1e-9)})
    (outcome,) = audit(mean, market, checks=["C3"], promises=told).outcomes
    assert outcome.verdict == verdict
    if np.isfinite(declared):  # a tenth of what is left goes with each bar
        assert 140 < outcome.measured["mean"]["measured"] < 200
    if verdict == "found":
        assert "21 bars later, where the declared warm-up is 20 bars" in str(outcome.found["mean"])


def test_a_history_shorter_than_the_warm_up_cannot_be_judged(market: Frame) -> None:
    told = Promises(warmups={"mean": Warmup(600, 1e-9)})
    (outcome,) = audit(mean, market, checks=["C3"], promises=told).outcomes
    assert outcome.verdict == "cannot judge" and "needs a longer history" in outcome.reason


def summing(symbols: Sequence[str], *, forgetful: bool) -> Values:
    total = dict.fromkeys(symbols, 0.0)

    def step(bars: Frame) -> Frame:
        out = np.empty(len(bars))
        for i, (name, volume) in enumerate(zip(bars["symbol"], bars["volume"])):
            total[name] += volume
            out[i] = total[name]
        if forgetful:
            total.update(dict.fromkeys(total, 0.0))
        return Frame({"total": out})

    return step


def test_state_that_is_lost_between_chunks_is_found(market: Frame) -> None:
    def values(bars: Frame) -> Frame:
        return Frame({"total": bars.groupby("symbol", sort=False)["volume"].cumsum()})

    kept = Promises(carried=lambda symbols: summing(symbols, forgetful=False))
    lost = Promises(carried=lambda symbols: summing(symbols, forgetful=True))
    assert audit(values, market, checks=["C4"], promises=kept).verdict == "clean"
    (finding,) = audit(values, market, checks=["C4"], promises=lost).findings
    assert finding.column == "total" and finding.symbol in SYMBOLS and "chunks" in finding.what


def sorted_only(bars: Frame) -> Frame:
    if not (bars["ts"].diff()[bars["symbol"] == bars["symbol"].shift()] > pd.Timedelta(0)).all():
        raise ValueError("unsorted")
    return Frame({"roc": roc(bars)})


def test_backends_are_held_to_values_nan_and_the_refusal_of_disorder(market: Frame) -> None:
    def verdict(values: Values, backend: Values, tolerance: float = 0.0) -> str:
        told = Promises(inputs=("close",), backends={"other": Backend(backend, tolerance)})
        return audit(values, market, checks=["C5"], promises=told).verdict

    assert verdict(sorted_only, lambda b: sorted_only(b).astype(np.float32)) == "clean"
    assert verdict(sorted_only, lambda b: sorted_only(b) * (1 + 1e-9)) == "found"
    assert verdict(sorted_only, lambda b: sorted_only(b) * (1 + 1e-9), 1e-6) == "clean"
    assert verdict(sorted_only, lambda b: sorted_only(b).fillna(0.0)) == "found"
    assert verdict(lambda b: Frame({"roc": roc(b)}), sorted_only) == "found"
    assert verdict(sorted_only, lambda b: Frame({"roc": roc(b)})) == "found"


def test_a_backend_that_alone_refuses_odd_bars_is_found(market: Frame) -> None:
    def picky(bars: Frame) -> Frame:
        if (bars["close"] == 0).any():
            raise ValueError("zero")
        return sorted_only(bars)

    told = Promises(inputs=("close",), backends={"picky": Backend(picky)})
    (finding,) = audit(sorted_only, market, checks=["C5"], promises=told).findings
    assert "only picky refused odd bars: ValueError: zero" in str(finding)


def test_partitions_names_and_schedules_change_nothing_or_are_found(market: Frame) -> None:
    def rank(bars: Frame) -> Frame:
        return Frame({"rank": bars.groupby("ts")["close"].rank(), "roc": roc(bars)})

    def place(bars: Frame) -> Frame:
        return Frame({"place": bars["symbol"].astype(str).astype(np.int64) * 1.0})

    def judged(values: Values, schedule: Values | None = None, across: tuple[str, ...] = ()) -> Any:
        told = Promises(schedules={"4 threads": schedule or values}, across=frozenset(across))
        return audit(values, market, checks=["C6"], promises=told)

    (finding,) = judged(rank).findings
    assert finding.column == "rank" and "group of symbols alone" in finding.what
    assert judged(rank, across=("rank",)).verdict == "clean"
    (finding,) = judged(place).findings
    assert "another name" in finding.what
    (finding,) = judged(rank, lambda b: rank(b) + 1e-12, ("rank",)).findings[:1]
    assert "4 threads" in finding.what


def test_what_cannot_be_judged_is_not_called_clean(market: Frame) -> None:
    def known(bars: Frame) -> Frame:
        return Frame({"roc": roc(bars)})

    def never(bars: Frame) -> Frame:
        return Frame({"roc": roc(bars), "never": np.nan})

    def short(bars: Frame) -> Frame:
        if len(bars) < len(market):
            raise ValueError("too few bars")
        return known(bars)

    bare = audit(known, market)
    verdicts = {outcome.check: outcome.verdict for outcome in bare.outcomes}
    assert verdicts == {"C1": "clean", "C2": "clean"} | dict.fromkeys(("C3", "C4"), "cannot judge") | {
        "C5": "found",  # it takes rows in any order
        "C6": "cannot judge",
    }
    (blank,) = audit(never, market, checks=["C1"]).outcomes
    assert blank.verdict == "cannot judge" and blank.reason == "never: has no value in this range"
    (refused,) = audit(short, market, checks=["C1"], tries=3).outcomes
    assert refused.verdict == "cannot judge" and "every trial was refused: ValueError: too few bars" in refused.reason
    assert len(refused.refused) == refused.trials == 3
    (moment,) = audit(known, market.iloc[:1].assign(close=1.0), checks=["C1"]).outcomes
    assert moment.verdict == "cannot judge"


def test_bars_that_cannot_be_audited_are_refused(market: Frame) -> None:
    def values(bars: Frame) -> Frame:
        return Frame({"roc": roc(bars)})

    with pytest.raises(AuditError, match=r"got 000000 at .* after 000003 at .* in row 40"):
        audit(values, pd.concat([market.iloc[-40:], market]))
    with pytest.raises(AuditError, match="each once, got 000000"):
        audit(values, pd.concat([market.iloc[:1], market]))
    with pytest.raises(AuditError, match="got none"):
        audit(values, market[:0])
    with pytest.raises(AuditError, match=r"checks among C1, .* got C9"):
        audit(values, market, checks=["C9"])
    with pytest.raises(AuditError, match=f"expected {len(market)} rows .*got {len(market) - 1} rows"):
        audit(lambda b: values(b)[1:], market)


def test_the_basis_stands_for_the_actions(market: Frame) -> None:
    """What is read back from the bars are the actions that went in, cut with the bars."""
    day = market["ts"].iloc[150].date()
    raw, columns = market.drop(columns="basis"), resolve([Spec(indicator="sma"), Spec(indicator="mfi")])
    expected = compute(adjust(raw, actions(day)), [Spec(indicator="sma"), Spec(indicator="mfi")], dtype=np.float64)
    pd.testing.assert_frame_equal(Features(columns, Known())(market), expected)
    (row,) = actions_of(market).to_pylist()
    assert (row["symbol"], row["ex_date"], row["factor"]) == (SYMBOLS[1], day, 4.0)
    assert actions_of(market[market["ts"].dt.date < day]).num_rows == 0
    after = market[market["ts"].dt.date > day].reset_index(drop=True)
    (row,) = actions_of(after).to_pylist()
    assert row["factor"] == 4.0 and row["ex_date"] == after["ts"].iloc[0].date()
