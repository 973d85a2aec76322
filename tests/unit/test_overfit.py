"""Sharpe ratios that were chosen: the papers' examples, ffn, scipy's moments, searches without and with skill."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.backtest.cscv import overfitting
from pipeline.backtest.overfit import (
    LEAST,
    Moments,
    deflated,
    expected_maximum,
    independent_trials,
    judgement,
    minimum_track_record,
    moments,
    probabilistic_sharpe,
)
from pipeline.report.words import texts
from tests.searches import FFN, Known, block_sums, powers, search, sharpe_ratios


@pytest.mark.parametrize("seed", range(4))
def test_moments_are_scipy_s(seed: int) -> None:
    r = search(seed, 300, 1, 0.002, tail=True)[:, 0]
    found = moments(len(r), powers(r))
    assert found.sharpe == pytest.approx(r.mean() / r.std(ddof=1), rel=1e-10)
    assert found.skewness == pytest.approx(stats.skew(r), rel=1e-9)
    assert found.kurtosis == pytest.approx(stats.kurtosis(r, fisher=False), rel=1e-9)


@pytest.mark.parametrize(
    "returns", [[], [0.01], [0.0] * 100, [0.01] * 100, [0.1 + 1e-17] * 1000], ids=["none", "one", "flat", "same", "odd"]
)
def test_what_does_not_vary_has_no_ratio(returns: list[float]) -> None:
    found = moments(len(returns), powers(np.array(returns)))
    assert math.isnan(found.sharpe)
    assert math.isnan(probabilistic_sharpe(found))


def test_the_paper_s_example_of_a_deflated_ratio() -> None:
    """Bailey and Lopez de Prado 2014: a ratio of 2.5 a year from 5 years of 250 sessions, 100 trials of variance 1/2 a
    year, skewness -3, kurtosis 10: 90 %; with 46 trials 95 %, and normal returns would bear 88 trials.
    """
    daily, variance = 2.5 / math.sqrt(250), 0.5 / 250
    fat, normal = Moments(1250, daily, -3.0, 10.0), Moments(1250, daily, 0.0, 3.0)
    assert expected_maximum(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert probabilistic_sharpe(fat, expected_maximum(100, variance)) == pytest.approx(0.9004, abs=5e-5)
    assert probabilistic_sharpe(fat, expected_maximum(46, variance)) == pytest.approx(0.9505, abs=5e-5)
    assert probabilistic_sharpe(normal, expected_maximum(88, variance)) == pytest.approx(0.9505, abs=5e-5)


@pytest.mark.parametrize(("sharpe", "skewness", "kurtosis", "benchmark"), [(0.1, -1, 6, 0), (0.2, 0.5, 4, 0.05)])
def test_the_shortest_record_is_the_one_that_is_just_sure(
    sharpe: float, skewness: float, kurtosis: float, benchmark: float
) -> None:
    n = minimum_track_record(Moments(10, sharpe, skewness, kurtosis), benchmark)
    around = [probabilistic_sharpe(Moments(m, sharpe, skewness, kurtosis), benchmark) for m in (int(n), int(n) + 1)]
    assert around[0] < 0.95 <= around[1]
    assert minimum_track_record(Moments(10, benchmark, 0, 3), benchmark) == math.inf


@pytest.mark.parametrize("trials", [2, 10, 100, 1000, 10_000])
def test_the_best_of_many_is_where_the_formula_says(trials: int) -> None:
    """Exact: the integral of x N phi(x) Phi(x)^(N - 1); the formula is an approximation for large N."""
    x = np.linspace(-8, 9, 200_001)
    exact = np.trapezoid(x * trials * stats.norm.pdf(x) * stats.norm.cdf(x) ** (trials - 1), x)
    assert expected_maximum(trials, 4.0) == pytest.approx(2 * exact, rel={2: 0.1, 10: 0.03}.get(trials, 0.01))


def test_the_best_of_one_is_nothing_and_more_trials_expect_more() -> None:
    found = [expected_maximum(n, 1.0) for n in (0.5, 1, 1.2, 1.5, 2, 3, 10, 1e6, 1e15)]
    assert found[:2] == [0, 0] and found == sorted(found) and all(map(math.isfinite, found))


@pytest.mark.parametrize("known", FFN, ids=lambda k: str(k.made[0]))
def test_the_deflated_ratio_is_that_of_ffn(known: Known) -> None:
    """ffn corrects skewness and kurtosis for bias (G1, G2), which is undone here."""
    r_TC = search(*known.made)
    ratios = sharpe_ratios(r_TC)
    r, n = r_TC[:, known.best], len(r_TC)
    assert int(ratios.argmax()) == known.best
    hurdle = expected_maximum(len(ratios), ratios.var(ddof=1))
    assert hurdle == pytest.approx(known.hurdle, rel=1e-12)
    ours = moments(n, powers(r))
    corrected = Moments(n, ours.sharpe, stats.skew(r, bias=False), stats.kurtosis(r, fisher=False, bias=False))
    assert probabilistic_sharpe(corrected, hurdle) == pytest.approx(known.deflated, rel=1e-10)
    values, _ = deflated(n, powers(r), len(ratios), float(ratios.var(ddof=1)))
    assert values["deflated_sharpe"] == pytest.approx(known.deflated, abs=5e-4)


def test_ffn_still_says_what_the_table_says() -> None:
    ffn = pytest.importorskip("ffn", reason="make test-all installs it")
    import pandas as pd

    for known in FFN:
        frame = pd.DataFrame(search(*known.made))
        found = ffn.calc_deflated_sharpe_ratio(
            frame[known.best], sharpe_ratios(frame.to_numpy()), annualized_trials=False, nperiods=252
        )
        assert found == pytest.approx(known.deflated, rel=1e-9)
        for blocks, (pbo, rank, logits) in known.blocks.items():
            theirs = ffn.calc_prob_backtest_overfitting(frame, blocks, full_output=True)
            got = theirs["pbo"], theirs["mean_oos_rank"], theirs["logits"].sum()
            assert got == pytest.approx((pbo, rank, logits), rel=1e-9)


def best_of(returns_TC: Any, **more: Any) -> dict[str, Any]:
    ratios = sharpe_ratios(returns_TC)
    r = returns_TC[:, ratios.argmax()]
    return deflated(len(r), powers(r), len(ratios), float(ratios.var(ddof=1)), **more)[0]


def test_noise_is_rarely_taken_for_skill_and_skill_is_found() -> None:
    noise = [best_of(search(seed, 250, 100, tail=seed % 2 > 0)) for seed in range(200)]
    assert np.mean([v["deflated_sharpe"] > 0.95 for v in noise]) <= 0.05
    assert np.mean([v["probabilistic_sharpe"] > 0.95 for v in noise]) > 0.95, "without deflation all of them pass"
    skill = [best_of(search(seed, 1000, 100, 0.0025)) for seed in range(20)]
    assert np.mean([v["deflated_sharpe"] > 0.95 for v in skill]) > 0.9


def alike(rng: np.random.Generator, kind: str) -> Any:
    t, c = 240, 400
    common, own = rng.normal(size=(t, 1)), rng.normal(size=(t, c))
    if kind == "shared":  # equally correlated
        return math.sqrt(0.8) * common + math.sqrt(0.2) * own
    if kind == "twins":
        return np.repeat(own[:, :8], 50, axis=1)
    if kind == "families":
        return math.sqrt(0.9) * np.repeat(own[:, :8], 50, axis=1) + math.sqrt(0.1) * rng.normal(size=(t, c))
    if kind == "factors":  # mixtures of five things
        return own[:, :5] @ rng.normal(size=(5, c))
    grid = own.copy()  # neighbours differ little
    for i in range(1, c):
        grid[:, i] = 0.98 * grid[:, i - 1] + math.sqrt(1 - 0.98**2) * own[:, i]
    return grid


@pytest.mark.parametrize("kind", ["shared", "twins", "families", "factors", "grid"])
def test_the_best_of_trials_that_are_alike_is_where_their_effective_number_says(kind: str) -> None:
    rng = np.random.default_rng(11)
    got, said, plain = [], [], []
    for _ in range(60):
        r_TC = alike(rng, kind)
        ratios = sharpe_ratios(r_TC)
        got.append(ratios.max())
        said.append(expected_maximum(independent_trials(r_TC), ratios.var(ddof=1)))
        plain.append(expected_maximum(len(ratios), ratios.var(ddof=1)))
    error = np.std(got) / math.sqrt(len(got))
    assert np.mean(said) == pytest.approx(np.mean(got), abs=3 * error)
    assert np.mean(plain) > np.mean(got) - 3 * error, "all of them never say too much"


def test_the_effective_number_has_its_bounds() -> None:
    rng = np.random.default_rng(5)
    own = rng.normal(size=(250, 40))
    assert 20 < independent_trials(own) <= 40
    assert independent_trials(np.repeat(own[:, :1], 30, axis=1)) == 1
    assert independent_trials(np.hstack([own, np.zeros((250, 9)), np.full((250, 1), np.nan)])) == independent_trials(
        own
    )
    assert math.isnan(independent_trials(own[: LEAST - 1]))
    assert math.isnan(independent_trials(own[:, :1])) and math.isnan(independent_trials(np.zeros((250, 5))))
    wide = rng.normal(size=(64, 9000)).astype(np.float32)  # more than one chunk
    assert independent_trials(wide) == pytest.approx(independent_trials(wide[:, ::-1]), rel=0.05)


@pytest.mark.parametrize(
    ("n", "trials", "variance", "name", "reason"),
    [
        (59, 100, 0.01, "deflated_sharpe", "needs at least 60 returns, got 59"),
        (59, 100, 0.01, "skewness", "needs at least 60 returns, got 59"),
        (100, 100, None, "deflated_sharpe", "needs the variance of at least 10 Sharpe ratios, got 100 trials and None"),
        (100, 9, 0.01, "expected_maximum", "needs the variance of at least 10 Sharpe ratios, got 9 trials"),
        (100, 100, math.nan, "expected_maximum", "needs the variance"),
        (100, 100, 0.01, "deflated_sharpe_independent", "the correlations of the trials are not known"),
    ],
)
def test_too_little_is_a_reason_and_no_number(
    n: int, trials: int, variance: float | None, name: str, reason: str
) -> None:
    values, reasons = deflated(n, powers(search(1, n, 1)[:, 0]), trials, variance)
    assert values[name] is None and reasons[name].startswith(reason)
    assert {k for k, v in values.items() if v is None} == reasons.keys()


def test_sixty_returns_and_ten_trials_are_enough() -> None:
    values, _ = deflated(60, powers(search(1, 60, 1)[:, 0]), 10, 0.01)
    assert None not in (values["deflated_sharpe"], values["skewness"], values["expected_maximum"])


def test_special_records_are_reasons_too() -> None:
    values, reasons = deflated(100, [0.0] * 4, 20, 0.01)
    assert values["sharpe"] is None and reasons["deflated_sharpe"] == "returns do not vary"
    values, reasons = deflated(250, powers(search(1, 250, 1, -0.002)[:, 0]), 20, 0.01)
    assert reasons["minimum_track_record"] == "the Sharpe ratio is not above zero"
    values, reasons = deflated(250, powers(search(1, 250, 1)[:, 0]), 1, None)
    assert values["expected_maximum"] == 0 and values["deflated_sharpe"] == values["probabilistic_sharpe"]
    values, _ = deflated(250, powers(search(1, 250, 1)[:, 0]), 100, 0.005, independent=7.5)
    assert values["deflated_sharpe_independent"] > values["deflated_sharpe"]


def judged(returns_TC: Any, **changes: Any) -> list[tuple[str, dict[str, str]]]:
    numbers = {**best_of(returns_TC), **overfitting(*block_sums(returns_TC, 8))[0], **changes}
    return judgement(numbers)


def test_the_judgement_follows_the_numbers_in_words_that_exist() -> None:
    noise, skill = judged(search(3, 240, 60)), judged(search(3, 1600, 60, 0.004))
    assert noise[0][0] in ("o.verdict.none", "o.verdict.weak") and skill[0][0] == "o.verdict.evidence"
    assert {"o.trials.above", "o.deflated.clear", "o.pbo.low"} <= {key for key, _ in skill}
    few = judgement({**deflated(20, powers(search(1, 20, 1)[:, 0]), 100, 0.01)[0], "pbo": None})
    assert few == [("o.verdict.unknown", {})]
    told = [noise, skill, few]
    told += [judged(search(3, 240, 60), deflated_sharpe=d, pbo=p) for d in (0.3, 0.7, 0.99) for p in (0.01, 0.2, 0.6)]
    told += [judged(search(3, 240, 60), slope=-0.5, minimum_track_record=1000.5, sharpe=-0.01)]
    for language in ("en", "ko"):
        said = {k for one in told for k, values in one if texts(language)[k].format(**values)}
        assert said == {k for k in texts(language) if k.startswith("o.")}
    for key, values in (pair for one in told for pair in one):
        asked = {name for _, name, _, _ in string.Formatter().parse(texts("en")[key]) if name}
        assert asked == values.keys()


@pytest.mark.parametrize(
    ("chance", "pbo", "verdict"),
    [(0.99, 0.01, "evidence"), (0.99, 0.2, "weak"), (0.99, 0.5, "any"), (0.7, 0.01, "weak"), (0.7, 0.5, "none"),
     (0.3, 0.01, "none"), (None, 0.01, "unknown"), (0.99, None, "unknown")],
)  # fmt: skip
def test_a_verdict_needs_both(chance: float | None, pbo: float | None, verdict: str) -> None:
    assert judged(search(1, 240, 20), deflated_sharpe=chance, pbo=pbo)[0][0] == f"o.verdict.{verdict}"
