"""No strategy sees the future (C1, C2), and one that does is found: with halts, actions, sessions, coarser bars."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.audit import Audit, AuditError
from pipeline.audit.bars import with_basis
from pipeline.audit.played import Played
from pipeline.audit.strategies import causal, combinations
from pipeline.backtest import AccountSection, run
from pipeline.backtest.single.instrument import Instrument
from pipeline.backtest.single.samples import one
from pipeline.strategies import ALL, Strategy, moving_average_cross, template, wm_pattern
from pipeline.tradable import Listing
from storage.schema import ACTIONS
from tests import leaks
from tests.walks import halted, walk

BOTH = AccountSection(direction="both", participation=0.5)
QUARTER = np.timedelta64(15, "m")


def market(seed: int, interval: str, venue: str, n: int) -> dict[str, Any]:
    """Return two symbols' bars with halts and missing bars, actions of one and the delisting of the other."""
    rng = np.random.default_rng(seed)
    days = np.arange(np.datetime64("2022-01-03"), np.datetime64("2024-12-31"))
    days = days[krx.is_session(days)] if venue == "KRX" else days
    if interval == "1d":
        ts = days[:n].astype("datetime64[us]") + np.timedelta64(390, "m")
    else:
        many = 26 if venue == "KRX" else 96
        ts = (days[:, None].astype("datetime64[us]") + (1 + np.arange(many)) * QUARTER).ravel()[:n]
    parts = []
    for k, symbol in enumerate(("000010", "000020")):
        one = walk(len(ts), seed + k, step=0.02 if interval == "1d" else 0.004)
        at = int(rng.integers(n // 4, n // 2))
        rows = pd.DataFrame({"symbol": symbol, "ts": ts, **halted(one, at, at + 5)})[
            ["symbol", "ts", "open", "high", "low", "close", "volume"]
        ]
        rows.loc[at + 30 : at + 33, ["open", "high", "low"]] = np.nan  # the other way to tell a halt
        keep = rng.random(len(rows)) > 0.02
        parts.append(rows[keep])
    bars = pd.concat(parts, ignore_index=True)
    bars["ts"] = bars["ts"].dt.tz_localize("UTC").astype("datetime64[us, UTC]")
    row = {"symbol": "000010", "ex_date": date(2022, 1, 3), "kind": "split", "factor": 5.0, "source": "t"}
    stamp = ts[2 * len(ts) // 3].astype("datetime64[D]").item()
    actions = pa.Table.from_pylist([{**row, "ex_date": stamp, "ingested_at": None}], ACTIONS)
    gone = Listing(("KOSDAQ",), ("stock",), (ts[-n // 10].astype("datetime64[D]").item(),))
    return {"bars": bars, "actions": actions, "interval": interval, "venue": venue, "listed": {"000020": gone}}


MARKETS = {
    "days": ("1d", "KRX", 320),
    "sessions": ("15m", "KRX", 700),
    "round the clock": ("15m", "24h", 1_200),
}


def audited(strategy: Strategy, name: str, **more: Any) -> Audit:
    given = market(5, *MARKETS[name])
    return causal(strategy, given.pop("bars"), account=BOTH, **given, **{"draws": 5, "tries": 6, **more})


# Each strategy's recorder is compiled for a quarter of a minute: one in the quick tests, all in the long ones.
EACH = [pytest.param(one, id=one.name, marks=() if one.name == "wm_pattern" else pytest.mark.slow) for one in ALL]


@pytest.mark.parametrize("name", MARKETS)
@pytest.mark.parametrize("strategy", EACH)
def test_no_strategy_sees_the_future(strategy: Strategy, name: str) -> None:
    done = audited(strategy, name)
    assert not done.findings, done.findings[0]
    for outcome in done.outcomes:
        assert outcome.comparisons > 10_000 and not outcome.refused and outcome.trials >= 6, outcome
    if strategy is not wm_pattern:  # few of its patterns are entered in so short a time
        assert done.verdict == "clean" and done.outcomes[0].measured["that want a side"] >= 1


@pytest.mark.parametrize("name", MARKETS)
def test_a_step_that_reads_the_next_bar_is_found(name: str) -> None:
    done = audited(leaks.next_close, name, tries=4)
    assert done.verdict == "found"
    for outcome in done.outcomes:
        (first, *_) = outcome.found.values()
        assert first.column.startswith("next_close #") and first.column.endswith(" want"), first
        assert "with n " in first.what and first.whole != first.got
    assert not any("ema" in finding.column for finding in done.findings), "its columns look at nothing that comes later"


def test_a_step_that_looks_back_beyond_the_first_bar_is_found() -> None:
    done = audited(leaks.wrapped, "days", checks=["C1"], tries=12)
    assert done.verdict == "found" and all(finding.column.startswith("wrapped #") for finding in done.findings)
    declared = Strategy("declared", (leaks.N,), leaks.wrapped.columns, leaks.wrapped.step, lookback=30)
    assert audited(declared, "days", checks=["C1"], tries=12).verdict == "clean"


def test_a_coarser_bar_that_is_seen_before_it_closes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def early(self: Instrument, interval: str) -> Any:
        return np.minimum(whole(self, interval) + 1, len(self.coarser(interval)) - 1)

    whole = Instrument.place
    monkeypatch.setattr(Instrument, "place", early)
    done = audited(template, "round the clock", ranges={"trend_timeframe": ["1h"], "trend": [10, 20]})
    assert done.verdict == "found"
    assert any("@1h" in finding.column for finding in done.findings), [str(f) for f in done.findings[:3]]


def test_what_is_audited_is_what_a_run_trades() -> None:
    given = market(5, *MARKETS["days"])
    mine = given["bars"][given["bars"]["symbol"] == "000010"].reset_index(drop=True)
    values = {"fast": 5, "slow": 20}
    played = Played(one(moving_average_cross, values), BOTH, "1d")
    told = played(with_basis(mine, given["actions"]))
    found = run(mine, moving_average_cross, values, account=BOTH, venue="KRX", interval="1d", actions=given["actions"])
    assert (told["#0 equity"].to_numpy()[1:] == found.equity["equity"].to_numpy()).all()
    assert told["#0 trades"].iloc[-1] == len(found.trades) > 3
    assert told["#0 profit"].sum() == found.trades["profit"].sum()
    exits = mine["ts"].dt.tz_localize(None).isin(found.trades["exit_ts"]).to_numpy()
    assert (told["#0 profit"].to_numpy()[~exits][1:] == 0).all()


def test_the_same_seed_says_the_same_and_groups_of_symbols_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    first = audited(leaks.next_close, "days", tries=3)
    assert audited(leaks.next_close, "days", tries=3).summary() == first.summary()
    monkeypatch.setattr("pipeline.audit.strategies.BUDGET", 1)
    apart = audited(leaks.next_close, "days", tries=3)
    assert apart.verdict == "found" and apart.outcomes[0].trials == 2 * first.outcomes[0].trials


def test_what_wants_nothing_cannot_be_judged() -> None:
    done = audited(leaks.still, "days", tries=2)
    assert done.verdict == "cannot judge" and "none of 6 combinations wants a side" in done.outcomes[0].reason


def test_defaults_come_first_and_what_cannot_be_made_of_the_bars_gives_way() -> None:
    chosen = combinations(wm_pattern, None, "1d", 20, 0)
    assert len(chosen) == 21 and len(np.unique(chosen.code_CP, axis=0)) == 21
    assert chosen.values(0)["fast"] == wm_pattern.defaults["fast"] and chosen.values(0)["entry_timeframe"] == "1d"
    assert combinations(template, None, "15m", 3, 0).values(0) == {**template.defaults, "trend_timeframe": "1w"}


def test_bad_input_is_told() -> None:
    for given, message in (({"checks": ["C3"]}, "checks among C1, C2"), ({"tries": 0}, "at least one try")):
        with pytest.raises(AuditError, match=message):
            audited(template, "days", **given)
