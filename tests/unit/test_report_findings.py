"""What the report says of its numbers: the verdict, the sentences and the warnings."""

from __future__ import annotations

import copy
import string
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.report import ReportSection
from pipeline.report.findings import judge, sentences
from pipeline.report.numbers import collect
from pipeline.report.sources import read
from pipeline.report.words import FILES, texts
from tests.stage_directories import everything
from tests.unit.test_report import traded

Facts = dict[str, Any]
THRESHOLD = {"value": -0.25, "tried": [[-0.25, 1]], "why": "", "below": None}


def test_texts_of_all_languages_have_the_same_keys_and_placeholders() -> None:
    def fields(line: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(line) if name}

    english = texts("en")
    for language in FILES:
        other = texts(language)
        assert other.keys() == english.keys()
        for key, line in other.items():
            assert line.strip()
            # a language may leave out a value that it does not need, never ask for one that is not given
            assert fields(line) == fields(english[key]), key


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    inputs = traded(everything(tmp_path_factory.mktemp("run"), sessions=400, count=24))
    return collect(read(inputs), ReportSection(), "cpu", datetime.now(UTC))


def changed(facts: Facts, **changes: Any) -> Facts:
    """Return a copy with some numbers changed: path with __ -> value."""
    out = copy.deepcopy(facts)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = out
        for name in parents:
            place = place[name]
        place[last] = value
    return out


@pytest.mark.parametrize(
    ("t", "excess", "sessions", "verdict"),
    [
        (4.0, 0.1, 200, "evidence"),
        (4.0, -0.1, 200, "weak"),
        (2.5, 0.1, 200, "weak"),
        (1.9, 0.5, 200, "none"),
        (-3.0, 0.5, 200, "inverse"),
        (9.0, 0.5, 30, "short"),
        (None, 0.5, 200, "unknown"),
    ],
)
def test_the_verdict_follows_from_the_numbers(
    facts: Facts, t: float | None, excess: float, sessions: int, verdict: str
) -> None:
    numbers = changed(
        facts,
        forecast__lstm__test__t_newey_west=t,
        backtest__metrics__excess_return=excess,
        backtest__metrics__sessions=sessions,
    )
    assert judge(numbers, "en")["key"] == verdict
    assert judge(numbers, "ko")["text"] == texts("ko")[f"v.{verdict}"]


@pytest.mark.parametrize(
    ("sections", "pooled", "verdict"), [(15, 10, "few"), (29, 10, "few"), (30, 10, "evidence"), (59, 1, "few")]
)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_few_sections_are_no_evidence_whatever_they_pool(
    facts: Facts, sections: int, pooled: int, verdict: str, language: str
) -> None:
    """Two symbols pool ten sessions a section: with 15 of them even shuffled labels reach t = 3."""
    numbers = changed(
        facts,
        forecast__lstm__test__t_newey_west=7.09,
        forecast__lstm__test__n_days=sections,
        timestamps_per_section={"test": pooled},
        against_ridge={"mean": 0.2, "t_newey_west": 3.7, "n": sections},
        backtest__metrics__sessions=200,
        backtest__metrics__excess_return=0.1,
        backtest__metrics__total_return=0.2,
    )
    found = judge(numbers, language)
    assert (found["key"], found["text"]) == (verdict, texts(language)[f"v.{verdict}"])
    assert (found["tone"] == "good") == (verdict == "evidence")
    said = {f["key"] for f in sentences(numbers, language)}
    few = {"f.ic.few", "f.baseline.few"}
    assert said & {*few, "f.ic.strong", "f.baseline.better"} == (
        few if verdict == "few" else {"f.ic.strong", "f.baseline.better"}
    )


@pytest.mark.parametrize("excess", [0.1, -0.1])
def test_scores_whose_trading_lost_are_not_good(facts: Facts, excess: float) -> None:
    numbers = changed(
        facts,
        forecast__lstm__test__t_newey_west=7.09,
        backtest__metrics__sessions=200,
        backtest__metrics__excess_return=excess,
        backtest__metrics__total_return=-0.04,
    )
    text = "Scores order the symbols, but trading them lost"
    assert judge(numbers, "en") == {"key": "unpaid", "tone": "fair", "text": text}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data__source": "simulator-1-ab"}, "d.simulated"),
        ({"data__close_only": True}, "d.close_only"),
        ({"backtest__metrics__trades": 0}, "d.no_trades"),
        ({"forecast__lstm__valid__mean_rank_ic": 0.5}, "d.overfit"),
        ({"data__quarantined_share": 0.02}, "d.quarantine"),
        ({"positions__best_share": 0.8}, "d.concentrated"),
        ({"positions__delisted": 2}, "d.delisted"),
        ({"timestamps_per_section": {"test": 6}}, "d.few_symbols"),
        ({"data__quality": {"1d": {"off_tick": 0.3}}}, "d.off_tick"),
        ({"data__quality": {"1d": {"basis_jumps": {"rows": 3}}}}, "d.jumps"),
        ({"data__delisted": 0, "data__start": "2015-01-02"}, "d.survivors"),
        ({"backtest__metrics__return_before_costs": 0.01, "backtest__metrics__total_return": -0.02}, "d.gross"),
        ({"against_ridge__t_newey_west": -2.5}, "f.baseline.worse"),
        ({"against_ridge__t_newey_west": 2.5}, "f.baseline.better"),
        ({"against_ridge__t_newey_west": 1.5}, "f.baseline.same"),
        ({"training__lstm__best_epoch": 0}, "d.first_epoch"),
        ({"forecast__lstm__test__t_newey_west": 0.3}, "f.ic.none"),
        ({"backtest__metrics__sharpe": 0.1}, "f.sharpe.unclear"),
        ({"backtest__metrics__drawdown_recovered": None}, "f.drawdown"),
        ({"backtest__metrics__turnover_a_year": None}, "f.costs.short"),
        ({"backtest__mode": "time_series", "backtest__threshold": THRESHOLD}, "f.scope.time_series"),
    ],
)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_each_warning_comes_with_its_cause_and_not_without(
    facts: Facts, changes: dict[str, Any], key: str, language: str
) -> None:
    with_cause = sentences(changed(facts, **changes), language)
    assert key in {f["key"] for f in with_cause}
    assert not any("{" in f["text"] or "None" in f["text"] for f in with_cause)
    if key.startswith("d."):
        without = {f["key"] for f in sentences(facts, language)}
        assert key not in without
