"""Whole feature sets under audit: columns of coarser bars, operators among members, the universe itself; planted leaks
in each are found, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.audit import CHECKS, Audit, audit
from pipeline.audit import columns as audited
from pipeline.audit.bars import with_basis
from pipeline.audit.columns import Features, Known, told_by
from pipeline.audit.promises import promises_of
from pipeline.audit.result import Outcome
from pipeline.features import moments
from pipeline.indicators import Spec, resolve, timeframes
from pipeline.universe import UniverseSection
from storage.schema import ACTIONS, SYMBOLS
from tests.market import STAMP, bars

NAMES = [f"{i:06d}" for i in range(8)]
WEEK = {"indicator": "sma", "params": {"n": 4}, "at": "1w", "over": "close"}
SPECS: list[dict[str, Any]] = [
    {"indicator": "roc", "params": {"n": 5}},
    {"indicator": "rsi", "params": {"n": 2}, "at": "1w"},
    WEEK,
    {"indicator": "market", "params": {"n": 5}, "at": "1w"},
    {"indicator": "roc", "params": {"n": 5}, "cross": ["rank"]},
    {"indicator": "roc", "params": {"n": 10}, "cross": ["winsorise", {"neutralise": ["sector", "size"]}, "zscore"]},
    {**WEEK, "cross": ["zscore"]},
]
UNIVERSE = UniverseSection(min_history=30, largest=5, min_turnover=1e9)
EVERY = tuple(name for name in CHECKS if name != "C3")


def facts() -> pa.Table:
    """One symbol is flagged on a day, one delisted, one of a kind that does not belong, sizes change once."""
    known = {"name": "", "market": "KOSPI", "kind": "stock", "source": "test", "ingested_at": STAMP.as_py()}
    first, later = date(2020, 1, 1), date(2020, 8, 3)
    rows = []
    for i, name in enumerate(NAMES):
        said = {**known, "symbol": name, "sector": "abc"[i % 3], "kind": "etf" if i == 7 else "stock"}
        rows.append({**said, "as_of": first, "shares": 1e6 * (i + 1), "administrative": False})
        gone = date(2020, 11, 2) if i == 6 else None
        rows.append({**said, "as_of": later, "shares": 2e6, "administrative": i == 5, "delisted": gone})
    return pa.Table.from_pylist(rows, SYMBOLS)


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    """Eight symbols of 260 days, one listed late, one with halts, one split, and the market's index beside them."""
    found = bars(NAMES, 270).to_pandas().drop(columns=["venue", "interval", "source", "ingested_at"])
    found = found[krx.is_session(found["ts"].to_numpy().astype("datetime64[D]"))]
    found = found[~((found["ts"] < found["ts"].iloc[90]) & (found["symbol"] == NAMES[2]))]
    found = found[~(found["ts"].isin(found["ts"].iloc[140:147]) & (found["symbol"] == NAMES[3]))]
    found["market"] = found["ts"].map(2_500.0 + found.groupby("ts")["close"].mean() / 100)
    day = found["ts"].iloc[152].date()
    row = {"symbol": NAMES[1], "ex_date": day, "kind": "split", "factor": 4.0, "source": "", "ingested_at": STAMP}
    actions = ACTIONS.empty_table().from_pylist([{**row, "ingested_at": STAMP.as_py()}], ACTIONS)
    return with_basis(found.reset_index(drop=True), actions)


def features(specs: list[dict[str, Any]] = SPECS, universe: UniverseSection = UNIVERSE) -> Features:
    known = Known(since=date(2020, 1, 2), facts=facts(), universe=universe, stored="float32")
    return Features(resolve(Spec.model_validate(spec) for spec in specs), known)


def judged(of: Features, market: pd.DataFrame, *checks: str, tries: int = 8) -> Audit:
    return audit(of, market, promises=promises_of(of), checks=checks or EVERY, tries=tries)


def all_judged(of: Features, market: pd.DataFrame, *checks: str, tries: int) -> list[Outcome]:
    """Judge by these checks and by C4, which feeds bars one by one among others: each length of its chunks once."""
    return [*judged(of, market, *checks, tries=tries).outcomes, *judged(of, market, "C4", tries=4).outcomes]


def names_found(found: Audit) -> set[str]:
    return {finding.column for finding in found.findings}


def test_a_whole_set_is_judged_and_clean(market: pd.DataFrame) -> None:
    of = features()
    found = all_judged(of, market, *(name for name in EVERY if name != "C4"), tries=8)
    assert [str(outcome) for outcome in found if outcome.verdict != "clean"] == []
    assert {outcome.check for outcome in found} == set(EVERY)
    assert of.names[-1] == "member" and {"roc_5_rank", "rsi_2@1w", "sma_4_over_close@1w_zscore"} <= set(of.names)
    assert all(not outcome.refused and outcome.comparisons > 1000 for outcome in found)
    member = of(market)["member"]
    assert 0.2 < member.mean() < 0.7 and set(member) == {0.0, 1.0}


def test_warm_ups_of_coarser_bars_are_counted_in_these(market: pd.DataFrame) -> None:
    (found,) = judged(features([WEEK, SPECS[4]]), market, "C3").outcomes
    assert found.verdict == "clean", str(found)
    told = found.measured["sma_4_over_close@1w"]
    assert (told["declared"], told["unit"]) == (5, "bars at 1w") and 20 < told["longest"] < 52
    assert found.measured["roc_5_rank"]["measured"] == "not asked"


def test_coarser_bars_are_those_of_the_features_stage(market: pd.DataFrame) -> None:
    close = market[market["symbol"] == NAMES[0]].set_index("ts")["close"]
    week = close.index.isocalendar().week + 100 * close.index.isocalendar().year
    last = close.groupby(week.to_numpy()).agg(lambda one: one.index[-1])
    weeks = close[last[1:-1]]  # the first lacks its beginning, the last one its end
    mean = weeks.rolling(4).mean() / weeks - 1
    got = features([WEEK])(market[market["symbol"] == NAMES[0]])["sma_4_over_close@1w"]
    at = np.searchsorted(mean.index, close.index, "right")
    assert np.isfinite(got).sum() > 200
    np.testing.assert_allclose(got, np.append(np.nan, mean)[at], rtol=1e-9)


def test_bars_within_days_are_judged_with_an_action_between_two_of_them() -> None:
    """Poison within a day makes no action of that day, which would reach back to its beginning."""
    days = krx.sessions("2024-03-04", "2024-03-15")
    ends = (days[:, None] + np.timedelta64(0, "m") + np.arange(15, 391, 15).astype("m8[m]")).ravel()
    table = bars(NAMES[:3], ends.size, interval="15m").to_pandas()
    table["ts"] = pd.to_datetime(np.tile(ends, 3)).tz_localize("UTC").as_unit("us")
    row = {"symbol": NAMES[1], "ex_date": days[4].item(), "kind": "split", "factor": 4.0, "source": ""}
    actions = ACTIONS.empty_table().from_pylist([{**row, "ingested_at": STAMP.as_py()}], ACTIONS)
    specs = [{"indicator": "roc", "params": {"n": 3}}, {"indicator": "roc", "params": {"n": 2}, "at": "1h"}]
    specs += [{"indicator": "sma", "params": {"n": 2}, "at": "1d"}, {**specs[1], "cross": ["rank"]}]
    known = Known(interval="15m", since=days[0].item(), universe=UniverseSection())
    of = Features(resolve(Spec.model_validate(spec) for spec in specs), known)
    chosen = table.drop(columns=["venue", "interval", "source", "ingested_at"])
    found = all_judged(of, with_basis(chosen, actions), "C1", "C2", "C6", tries=9)
    assert [str(outcome) for outcome in found if outcome.verdict != "clean"] == []


def early(as_of: Callable[..., Any]) -> Callable[..., Any]:
    """Show a coarse bar one fine bar before it has ended."""
    return lambda ts, fine, end, *rest: as_of(ts, fine, end - 86_400_000_000, *rest)


def test_a_coarse_bar_that_is_seen_one_fine_bar_early_is_found(
    market: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeframes, "as_of", early(timeframes.as_of))
    coarse = {"rsi_2@1w", "sma_4_over_close@1w", "sma_4_over_close@1w_zscore", "beta_5@1w", "alpha_5@1w"}
    found = judged(features(), market, "C1", "C2", tries=20)
    assert all(outcome.verdict == "found" for outcome in found.outcomes)
    assert "sma_4_over_close@1w" in names_found(found) <= {name for name in features().names if "@1w" in name} | coarse


def test_a_universe_of_those_who_are_in_it_at_the_end_is_found(
    market: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are ranks among these: they include who was no member then."""

    def survivors(bars: Any, *rest: Any) -> Any:
        judged = judge(bars, *rest)
        last = judged.reason[bars.series.starts + bars.series.lengths - 1]
        return judged._replace(reason=np.repeat(last, bars.series.lengths))

    judge = audited.judged_of
    monkeypatch.setattr(audited, "judged_of", survivors)
    for check in ("C1", "C2"):
        assert {"member", "roc_5_rank"} <= names_found(judged(features(), market, check, tries=20)), check


def test_a_rank_among_values_of_tomorrow_is_found(market: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    def tomorrow(operators: Any, x: Any, section: Any) -> Any:
        out = apply(operators, np.append(x[1:], np.nan), section)
        return out if [one.name for one in operators] == ["rank"] else apply(operators, x, section)

    apply = moments.apply
    monkeypatch.setattr(moments, "apply", tomorrow)
    for check in ("C1", "C2"):
        assert names_found(judged(features(), market, check, tries=20)) == {"roc_5_rank"}, check


def test_a_flag_that_reaches_back_before_it_was_told_is_found(
    market: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reaching(bars: Any, told: pa.Table, *rest: Any) -> Any:
        place = told.schema.get_field_index("as_of")
        return judge(bars, told.set_column(place, "as_of", pa.array([date(2020, 1, 1)] * len(told))), *rest)

    judge = audited.judged_of
    monkeypatch.setattr(audited, "judged_of", reaching)
    found = judged(features(universe=UniverseSection()), market, "C1", tries=20)
    (finding,) = [one for one in found.findings if one.column == "member"]
    assert finding.symbol == NAMES[5]


def test_facts_are_those_of_their_day_and_what_hardly_changes() -> None:
    day = (date(2020, 7, 1) - date(1970, 1, 1)).days
    before, after = told_by(facts(), day).to_pylist()[10:12]
    assert before["administrative"] is False and before["shares"] == 6e6
    assert after["administrative"] is None and after["shares"] is None and after["kind"] == "stock"
    assert told_by(facts(), day + 200).equals(facts())
    assert told_by(facts(), day)["delisted"].null_count == 16
