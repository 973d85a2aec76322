"""What the numbers mean and what to distrust, in sentences made from the numbers."""

from __future__ import annotations

from typing import Any

from .audits import columns_found
from .words import benchmark_name, text

Facts = dict[str, Any]
FEW_SESSIONS = 120  # about half a year
JUDGEABLE = 60  # sessions below which no verdict is given
# Sections below which nothing is said about chance, however many sessions each of them pools: a Newey-West variance of
# few terms comes out too small. With 15 sections, scores learned from shuffled labels reached t = 3.
FEW_SECTIONS = 30
NAMED = 5  # symbols named in a sentence
SURVIVOR_YEARS = 3  # a universe of that many years normally loses somebody
SIMULATORS = ("sim",)


def percent(value: float, digits: int = 1) -> str:
    """Return a share as text, with a true minus sign."""
    return f"{value * 100:,.{digits}f} %".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def judge(facts: Facts, language: str) -> dict[str, str]:
    """Return the verdict's key, text and tone from the traded model's t on the test, what trading it earned and the
    difference from the benchmark.
    """
    numbers = facts["backtest"]["metrics"]
    test = traded(facts)
    t, n = test.get("t_newey_west"), test.get("n_days") or 0
    excess = numbers.get("excess_return")
    if numbers["sessions"] < JUDGEABLE:
        key = "short"
    elif n < _needed(facts):
        key = "few"
    elif t is None or excess is None:
        key = "unknown"
    elif t <= -2:
        key = "inverse"
    elif t >= 3 and numbers["total_return"] <= 0:
        key = "unpaid"
    elif t >= 3 and excess > 0:
        key = "evidence"
    elif t >= 2:
        key = "weak"
    else:
        key = "none"
    tone = {"evidence": "good", "weak": "fair", "inverse": "bad", "none": "bad"}.get(key, "fair")
    return {"key": key, "tone": tone, "text": text(language, f"v.{key}")}


def sentences(facts: Facts, language: str) -> list[dict[str, str]]:
    """Return the findings: kind "meaning" for the first paragraph, "distrust" for what weakens it."""

    def say(kind: str, key: str, **values: object) -> dict[str, str]:
        return {"kind": kind, "key": key, "text": text(language, key, **values)}

    meaning = [say("meaning", key, **values) for key, values in _meaning(facts, language)]
    distrust = [say("distrust", key, **values) for key, values in _distrust(facts)]
    return meaning + (distrust or [say("distrust", "d.nothing")])


def traded(facts: Facts) -> Facts:
    """Return the information coefficients of what is traded, on the part that a verdict is from."""
    return _tested(facts, facts["backtest"]["model"])


def shown_split(facts: Facts, model: str) -> str:
    """Return the part that judges a model's scores: the test; of scores that no model made, what is traded."""
    backtest = facts["backtest"]
    return "test" if backtest["scores"] == "predictions" or model != backtest["model"] else str(backtest["split"])


def _tested(facts: Facts, model: str) -> Facts:
    found: Facts = facts["forecast"].get(model, {}).get(shown_split(facts, model), {})
    return found


def _pooled(facts: Facts) -> int:
    return max(int(facts["timestamps_per_section"].get("test") or 1), 1)


def _needed(facts: Facts) -> int:
    """Return how many sections a statement about chance takes."""
    return max(FEW_SECTIONS, JUDGEABLE // _pooled(facts))


def _meaning(facts: Facts, language: str) -> list[tuple[str, Facts]]:
    backtest, numbers = facts["backtest"], facts["backtest"]["metrics"]
    model = backtest["model"].upper() if backtest["model"] == "lstm" else backtest["model"]
    fill = "close" if backtest["fill"].startswith("close") else "open"
    threshold, shorts = backtest["threshold"], backtest["direction"] == "long_short"
    which = "predictions" if backtest["scores"] == "predictions" else "inverted" if backtest["inverted"] else "factor"
    when = backtest["rebalance"]
    scope = {
        "split": text(language, backtest["split"]),
        "sessions": f"{numbers['sessions']:,}",
        "first": numbers["first_day"],
        "last": numbers["last_day"],
        **{name: backtest[name] for name in ("k", "quantiles", "drop")},
        "held": backtest["quantiles_held"],
        "symbols": f"{backtest['symbols']:,}",
        "scores": text(language, f"f.scores.{which}", model=model),
        "when": text(language, "f.when.sessions" if isinstance(when, int) else f"f.when.{when}", n=when),
        "fill": text(language, f"f.fill.{fill}"),
        "threshold": signed(threshold["value"], 4) if threshold else "",
        "below": signed(threshold["below"], 4) if threshold and threshold["below"] is not None else "",
        "fitted": text(language, "f.threshold.fitted" if threshold and threshold["tried"] else "f.threshold.zero"),
    }
    out: list[tuple[str, Facts]] = [(f"f.scope.{backtest['mode']}{'.short' if shorts else ''}", scope)]
    excess = numbers["excess_return"]
    outcome = {
        "total": percent(numbers["total_return"]),
        "against": benchmark_name(backtest, language, "f.against"),
        "bench": percent(numbers["benchmark_total_return"]),
        "difference": f"{abs(excess) * 100:.1f}",
    }
    compared = "alone" if backtest["benchmark"] == "none" else "more" if excess >= 0 else "less"
    out.append((f"f.outcome.{compared}", outcome))
    out += _forecast(facts, model)
    if numbers["sharpe"] is not None:
        clear = abs(numbers["sharpe"]) >= 2 * numbers["sharpe_standard_error"]
        values = {"sharpe": signed(numbers["sharpe"], 2), "error": signed(numbers["sharpe_standard_error"], 2)}
        out.append(("f.sharpe.clear" if clear else "f.sharpe.unclear", values))
    if numbers["max_drawdown"] < 0:
        back = numbers["drawdown_recovered"]
        recovered = text(language, "f.recovered.yes", day=back) if back else text(language, "f.recovered.no")
        fall = {"peak": numbers["drawdown_peak"], "trough": numbers["drawdown_trough"], "recovered": recovered}
        out.append(("f.drawdown", {"depth": percent(-numbers["max_drawdown"]), **fall}))
    costs = {k: v for k, v in numbers["costs"].items() if k != "total"}
    if numbers["costs"]["total"] > 0:
        most = text(language, max(costs, key=lambda k: costs[k])).lower()
        values = {"share": percent(numbers["costs_of_capital"]), "most": most}
        turnover = numbers["turnover_a_year"]
        if turnover is None:
            out.append(("f.costs.short", values))
        else:
            out.append(("f.costs", {**values, "turnover": f"{turnover:.1f}"}))
    return out


def _forecast(facts: Facts, shown: str) -> list[tuple[str, Facts]]:
    mine = traded(facts)
    ic, t = mine.get("mean_rank_ic"), mine.get("t_newey_west")
    if ic is None or t is None:
        return []
    n, needed = mine["n_days"] or 0, _needed(facts)
    level = "few" if n < needed else "strong" if t >= 3 else "weak" if t >= 2 else "inverse" if t <= -2 else "none"
    values = {"model": shown, "ic": signed(ic), "t": signed(t, 2), "n": f"{n:,}", "needed": needed}
    if facts["backtest"]["scores"] != "predictions":
        return [(f"f.factor.{level}", {**values, "span": facts["analysis"]["decay"]["ic_span"]})]
    out: list[tuple[str, Facts]] = [(f"f.ic.{level}", values)]
    ridge, against = _tested(facts, "ridge"), facts["against_ridge"]
    if against and against["t_newey_west"] is not None and ridge.get("mean_rank_ic") is not None:
        t_difference, t_ridge = against["t_newey_west"], ridge.get("t_newey_west")
        which = "better" if t_difference >= 2 else "worse" if t_difference <= -2 else "same"
        which = "few" if against["n"] < needed else which
        values = {
            "n": f"{against['n']:,}",
            "ic": signed(ridge["mean_rank_ic"]),
            "t": "?" if t_ridge is None else signed(t_ridge, 2),
            "model": shown,
            "difference": signed(t_difference, 2),
        }
        out.append((f"f.baseline.{which}", values))
    return out


def _distrust(facts: Facts) -> list[tuple[str, Facts]]:
    numbers, data = facts["backtest"]["metrics"], facts["data"]
    out: list[tuple[str, Facts]] = []
    if any(word in data["source"].lower() for word in SIMULATORS):
        out.append(("d.simulated", {}))
    if facts["splits"].get("looks_ahead") and facts["backtest"]["scores"] == "predictions":
        out.append(("d.kfold", {}))
    if broken := columns_found(facts["certificates"].get("features", {})):
        named = ", ".join(name or "?" for name in broken[:NAMED]) + (", …" if len(broken) > NAMED else "")
        out.append(("d.audit", {"named": named}))
    if numbers["trades"] == 0:
        out.append(("d.no_trades", {}))
    if numbers["sessions"] < FEW_SESSIONS:
        out.append(("d.short", {"sessions": numbers["sessions"]}))
    if numbers["return_before_costs"] > 0 >= numbers["total_return"]:
        out.append(("d.gross", {}))
    mine = facts["forecast"].get(facts["backtest"]["model"], {})
    valid, test = (mine.get(split, {}).get("mean_rank_ic") for split in ("valid", "test"))
    if valid is not None and test is not None and valid > 0.01 and test < valid / 2:
        out.append(("d.overfit", {"valid": signed(valid), "test": signed(test)}))
    fitted = facts["training"].get(facts["backtest"]["model"], {})
    if fitted.get("best_epoch") == 0 and fitted.get("epochs", 0) > 2:
        out.append(("d.first_epoch", {"epochs": fitted["epochs"]}))
    if data["close_only"]:
        out.append(("d.close_only", {}))
    if _pooled(facts) > 1:
        out.append(("d.few_symbols", {"symbols": facts["backtest"]["symbols"]}))
    share = facts["positions"]["best_share"]
    if share is not None and share > 0.5:
        out.append(("d.concentrated", {"share": percent(share, 0)}))
    if facts["positions"]["delisted"]:
        out.append(("d.delisted", {"n": facts["positions"]["delisted"]}))
    out_of = [one for one in data["left_out"] if one["why"] != "short"]
    if out_of:
        named = ", ".join(f"{one['symbol']} ({one['text']})" for one in out_of[:NAMED])
        out.append(("d.left_out", {"n": len(out_of), "named": named + (", …" if len(out_of) > NAMED else "")}))
    if (data["quarantined_share"] or 0) > 0.01:
        out.append(
            ("d.quarantine", {"share": percent(data["quarantined_share"]), "most": next(iter(data["quarantined"]))})
        )
    daily = data["quality"].get("1d") or data["quality"].get("") or {}
    if (daily.get("off_tick") or 0) > 0.05:
        out.append(("d.off_tick", {"share": percent(daily["off_tick"], 0)}))
    jumps = (daily.get("basis_jumps") or {}).get("rows", 0)
    if jumps:
        out.append(("d.jumps", {"n": jumps}))
    years = int(data["end"][:4]) - int(data["start"][:4])
    if years >= SURVIVOR_YEARS and not data["delisted"]:
        out.append(("d.survivors", {}))
    return out
