"""Indicators and columns of the features traded as predictions are: which sessions, which scores, what is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline import config as configuration
from pipeline.backtest import BacktestError, BacktestSection
from pipeline.backtest.analysis.forward import paths
from pipeline.backtest.portfolio.engine import run
from pipeline.backtest.portfolio.market import load
from pipeline.backtest.portfolio.scored import scored
from pipeline.config import Config
from pipeline.receipt import Receipt
from pipeline.report import ReportSection, report
from pipeline.stages import wanted
from storage.schema import TS
from storage.store import read_json, write_json
from tests.stage_directories import World, write_manifest, write_predictions

from .backtests import Result
from .test_report import Page, job

T, S, N = 70, 24, 5
ROC = {"indicator": "roc", "params": {"n": N}}
COSTS = {"rebalance": 3, "capital": 50_000_000, "mode": "top_k", "k": 4}


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(5)
    close = np.rint(20_000 * np.cumprod(rng.normal(1, 0.03, (T, S)), axis=0) / 10) * 10
    return World([f"{i:05d}0" for i in range(S)], close)


@pytest.fixture(scope="module")
def ingest(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = world.write(tmp_path_factory.mktemp("scored"))
    write_manifest(folder, seconds=1.0, rows=T * S)
    return folder


@pytest.fixture(scope="module")
def momentum(world: World) -> np.ndarray:
    close = np.asarray(world.close)
    out = np.full(close.shape, np.nan)
    out[N:] = close[N:] / close[:-N] - 1
    return out


def features_of(folder: Path, world: World, values: np.ndarray, member: np.ndarray) -> Path:
    """Leave a column `mine` as the features stage does, in two blocks."""
    t, s = np.nonzero(np.isfinite(np.asarray(world.close)))
    order = np.lexsort((t, s))
    t, s = t[order], s[order]
    for kind in ("blocks", "targets"):
        (folder / kind).mkdir(parents=True)
    for name, mine in (("000-2023", s < S // 2), ("001-2023", s >= S // 2)):
        rows = {
            "symbol": pa.array(np.array(world.symbols, object)[s[mine]], pa.string()),
            "ts": pa.array(world.ts[t[mine]], pa.timestamp("us")).cast(TS),
            "mine": values[t[mine], s[mine]].astype(np.float32),
        }
        pq.write_table(pa.table(rows), folder / "blocks" / f"{name}.parquet")
        pq.write_table(pa.table({"member": member[t[mine], s[mine]]}), folder / "targets" / f"{name}.parquet")
    told = {"interval": "1d", "features": [{"name": "mine", "in": "blocks"}], "targets": [], "member": "targets"}
    write_json(folder / "columns.json", told)
    write_manifest(folder, seconds=1.0, rows=T * S, made_of={"sections": {}, "code": "c" * 32})
    return folder


def traded(out: Path, inputs: dict[str, Path], **settings: Any) -> Result:
    out.mkdir()
    return Result(out, run(inputs, out, BacktestSection.model_validate(COSTS | settings)))


def test_an_indicator_is_traded_as_predictions_of_the_same_scores_are(
    tmp_path: Path, world: World, ingest: Path, momentum: np.ndarray
) -> None:
    predict = write_predictions(tmp_path / "predict", world, {"lstm": momentum}, ["test"] * T)
    features = features_of(tmp_path / "features", world, momentum, np.ones((T, S), bool))
    one = traded(tmp_path / "one", {"ingest": ingest, "predict": predict})
    for name, inputs, scores in (
        ("indicator", {"ingest": ingest}, ROC),
        ("column", {"ingest": ingest, "features": features}, {"column": "mine"}),
    ):
        other = traded(tmp_path / name, inputs, scores=scores)
        assert other.trades == one.trades and other.equity == one.equity and len(one.trades) > 50
        assert other.metrics["scores"] == name and other.metrics["split"] == "all"
    assert one.metrics["scores"] == "predictions" and one.metrics["split"] == "test"


def test_inverted_scores_are_those_with_another_sign(
    tmp_path: Path, world: World, ingest: Path, momentum: np.ndarray
) -> None:
    predict = write_predictions(tmp_path / "predict", world, {"lstm": -momentum}, ["test"] * T)
    one = traded(tmp_path / "one", {"ingest": ingest, "predict": predict})
    other = traded(tmp_path / "other", {"ingest": ingest}, scores=ROC, invert=True)
    assert other.trades == one.trades and other.metrics["inverted"]


def test_sessions_begin_with_the_first_score_and_dates_cut_them(tmp_path: Path, world: World, ingest: Path) -> None:
    whole = traded(tmp_path / "whole", {"ingest": ingest}, scores=ROC)
    assert whole.metrics["metrics"]["first_day"] == str(world.days[N])
    some = traded(
        tmp_path / "some", {"ingest": ingest}, scores=ROC, first=str(world.days[20]), last=str(world.days[40])
    )
    m = some.metrics["metrics"]
    assert (m["first_day"], m["last_day"], m["sessions"]) == (str(world.days[20]), str(world.days[40]), 21)
    assert some.trades[0]["ts"].date() == world.days[21].item()  # bars before the first session are seen


def test_a_part_of_the_predictions_gives_its_sessions(
    tmp_path: Path, world: World, ingest: Path, momentum: np.ndarray
) -> None:
    split = ["train"] * 20 + ["valid"] * 20 + ["test"] * 30
    predict = write_predictions(tmp_path / "predict", world, {"lstm": -momentum}, split)
    inputs = {"ingest": ingest, "predict": predict}
    for part, first, last in (("valid", 20, 39), ("test", 40, T - 1)):
        found = traded(tmp_path / part, inputs, scores=ROC, split=part).metrics
        assert (found["metrics"]["first_day"], found["metrics"]["last_day"]) == (
            str(world.days[first]),
            str(world.days[last]),
        )
        assert found["model"] == f"roc_{N}" and found["split"] == part


def test_a_threshold_is_fitted_on_the_sessions_before(tmp_path: Path, world: World, ingest: Path) -> None:
    free = {"mode": "time_series", "scores": ROC}
    section = BacktestSection.model_validate(free | {"first": str(world.days[40])})
    found = scored(Receipt.load(ingest), {}, section)
    assert found.earlier is not None
    before, score_TS = found.earlier
    assert before.day_T[-1] == world.days[39] and found.market.day_T[0] == world.days[40]
    assert np.isfinite(score_TS[N:]).all() and found.known_S.all()
    assert scored(Receipt.load(ingest), {}, BacktestSection.model_validate(free)).earlier is None


def test_who_is_no_member_has_no_score_from_a_column(
    tmp_path: Path, world: World, ingest: Path, momentum: np.ndarray
) -> None:
    member = np.ones((T, S), bool)
    member[30:, 3] = False
    features = features_of(tmp_path / "features", world, momentum, member)
    section = BacktestSection.model_validate({"scores": {"column": "mine"}})
    found = scored(Receipt.load(ingest), {"features": features}, section)
    at = np.flatnonzero(found.market.day_T == world.days[30])[0]
    assert np.isfinite(found.score_TS[:at, 3]).all() and np.isnan(found.score_TS[at:, 3]).all()
    late = section.model_copy(update={"first": date.fromisoformat(str(world.days[10]))})
    cut = scored(Receipt.load(ingest), {"features": features}, late)
    np.testing.assert_array_equal(cut.score_TS, found.score_TS[10 - N :])  # nothing older slips into the first session


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"scores": "momentum"}, r"expected predictions, an indicator such as .*, got 'momentum'"),
        ({"scores": {"indicator": "rok"}}, "did you mean 'roc'"),
        ({"scores": {"indicator": "macd"}}, "expected one column to trade, got 3 of indicator 'macd'"),
        ({"scores": {"indicator": "roc", "params": {"n": [5, 10]}}}, "got 2 of indicator 'roc'"),
        ({"scores": {"column": ""}}, "expected predictions, an indicator"),
        ({"scores": {"indicator": "roc", "names": {"roc": "lstm"}}}, "leave 'names' out"),
        ({"scores": ROC, "model": "lstm"}, "expected backtest.scores predictions for backtest.model"),
        ({"invert": True}, "for backtest.invert True, got predictions"),
        ({"first": "2024-02-01", "last": "2024-01-01"}, "expected backtest.first not after backtest.last"),
        ({"mode": "quantile", "k": 5}, "expected backtest.mode top_k or drop_out for backtest.k 5, got quantile"),
        ({"mode": "drop_out", "k": 3, "drop": 4}, "expected backtest.drop of at most backtest.k, got 4 and 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        BacktestSection.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"first": "2030-01-02"}, "within the range of ingest, 2023-03-02 to .*, got 2030-01-02 and none"),
        ({"last": "2020-01-02"}, "within the range of ingest"),
        ({"scores": {"indicator": "roc", "params": {"n": 500}}}, "expected scores of 'roc_500' .*, got none"),
        ({"scores": {"indicator": "rsi", "at": "1w"}}, "symbol's own daily bars"),
        ({"mode": "quantile", "quantiles": 50}, "at least 50 symbols .* got at most 24; choose fewer"),
        ({"benchmark": "999999"}, "expected backtest.benchmark equal, cap, none"),
    ],
)
def test_what_the_bars_cannot_give_is_said(tmp_path: Path, ingest: Path, settings: dict[str, Any], told: str) -> None:
    section = BacktestSection.model_validate({"scores": ROC} | settings)
    with pytest.raises(BacktestError, match=told):
        run({"ingest": ingest}, tmp_path, section)


def test_an_unknown_column_is_said(tmp_path: Path, world: World, ingest: Path, momentum: np.ndarray) -> None:
    features = features_of(tmp_path / "features", world, momentum, np.ones((T, S), bool))
    section = BacktestSection.model_validate({"scores": {"column": "mime"}})
    with pytest.raises(BacktestError, match="got 'mime'; did you mean 'mine'"):
        run({"ingest": ingest, "features": features}, tmp_path, section)


def test_stages_follow_from_what_is_traded() -> None:
    def names(last: str, **settings: Any) -> list[str]:
        config = Config(backtest=BacktestSection.model_validate(settings), run={"tune": True})
        return [stage.name for stage in wanted([last], config)]

    trained = ["ingest", "features", "tune", "train", "predict"]
    assert names("backtest") == [*trained, "backtest"]
    assert names("backtest", scores=ROC) == ["ingest", "backtest"]
    assert names("report", scores=ROC) == ["ingest", "backtest", "report"]
    assert names("report", scores={"column": "rsi_14"}) == ["ingest", "features", "backtest", "report"]
    assert names("report", scores=ROC, split="test") == [*trained, "backtest", "report"]
    assert names("features") == ["ingest", "features"]


def test_the_example_trains_nothing() -> None:
    config, _ = configuration.load(["--config", "configs/factor.yaml"], "t", "")
    assert [stage.name for stage in wanted(["report"], config)] == ["ingest", "backtest", "report"]
    assert config.backtest.mode == "quantile" and config.backtest.rebalance == "monthly"


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "quantile", "direction": "long_short", "rebalance": "weekly", "benchmark": "none"},
        {"mode": "drop_out", "invert": True, "benchmark": "000010"},
    ],
)
def test_a_report_needs_no_model(tmp_path: Path, ingest: Path, settings: dict[str, Any], language: Any) -> None:
    section = BacktestSection.model_validate({"scores": ROC, "capital": 50_000_000} | settings)
    out = tmp_path / "backtest"
    out.mkdir()
    write_manifest(out, **{k: v for k, v in run({"ingest": ingest}, out, section).items() if k != "content"})
    left = report(job(tmp_path / "report", {"ingest": ingest, "backtest": out}), ReportSection(language=language))
    numbers = read_json(tmp_path / "report" / "performance_report.json")
    assert left["verdict"] == numbers["verdict"]["key"] and numbers["training"] == numbers["certificates"] == {}
    curve, mine = numbers["analysis"]["decay"], numbers["forecast"][f"roc_{N}"]["all"]
    at = curve["horizon"].index(curve["ic_span"])
    assert mine["mean_rank_ic"] == curve["rank_ic"][at] and mine["t_newey_west"] == curve["t"][at]
    raw = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"roc_{N}" in Page(raw).text and 'id="analysis"' in raw
    assert 'id="training"' not in raw and 'href="#audit"' not in raw
    assert ("borrow" in numbers["backtest"]["metrics"]["costs"]) == ("direction" in settings)


def test_a_symbol_that_left_before_the_first_session_has_no_path(tmp_path: Path) -> None:
    close = np.full((60, 3), 1000.0)
    close[20:, 2] = np.nan
    gone = World(["A", "B", "C"], close)
    gone.facts = {"C": {"delisted": gone.days[20].item()}}
    receipt = Receipt.load(gone.write(tmp_path))
    market = load(receipt, gone.ts[55].item().astimezone(), None, BacktestSection())
    assert market.delist_S[2] < -len(market.ts_T)
    found = paths(market)
    assert np.isfinite(found.entry_TS[:, :2]).all() and np.isnan(found.entry_TS[:, 2]).all()
