"""What a search leaves: bank.json with the best combinations and what to make of them, every trial, the best one's
trades.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.words import text

from ..overfit import judgement
from .figures import FIGURES
from .meta import Found
from .section import AccountSection, MetaSection, OptimizeSection


def bank(found: Found, section: MetaSection, account: AccountSection, symbols: list[str]) -> dict[str, Any]:
    """Return the best combinations, inside and outside beside each other, the final ranges and the numbers on
    overfitting, ready for JSON; figures are means over the symbols.
    """
    strategy = found.samples.strategy
    best = [int(c) for c in found.order[: section.top] if np.isfinite(found.score_C[c])]
    return {
        "strategy": strategy.name,
        "seed": section.seed,
        "symbols": symbols,
        "sessions": {
            symbol: dict(zip(("inside_first", "inside_last", "outside_first", "outside_last"), days))
            for symbol, days in zip(symbols, found.spans)
        },
        "settings": section.model_dump(mode="json"),
        "account": account.model_dump(mode="json"),
        "trials": len(found.score_C),
        "stopped": found.why,
        "iterations": [
            {**step._asdict(), "best": _known(step.best), "mean_best": _known(step.mean_best)}
            for step in found.iterations
        ],
        "ranges": found.ranges.told(),
        "overfitting": {
            "numbers": found.numbers,
            "reasons": found.reasons,
            "judgement": _judged(found),
        },
        "top": [
            {
                "parameters": found.samples.values(c),
                "score": float(found.score_C[c]),
                "inside": _means(found.inside, c),
                "outside": _means(found.outside, c),
            }
            for c in best
        ],
    }


def trials(found: Found) -> pd.DataFrame:
    """Return every combination that was tried, in order: parameters, score, figures inside and outside (means over the
    symbols).
    """
    out = found.samples.frame()
    out["score"] = found.score_C
    with np.errstate(invalid="ignore"):
        for half, figures in (("inside", found.inside), ("outside", found.outside)):
            for name in FIGURES:
                out[f"{half}_{name}"] = _mean(figures[name])
    return out


def told(found: Found, section: MetaSection) -> list[str]:
    """Return the result in sentences for a terminal."""
    numbers = found.numbers
    best = int(found.order[0])
    if not np.isfinite(found.score_C[best]):
        return [
            f"none of {len(found.score_C):,} combinations made {section.least_trades} trades inside; widen the "
            f"ranges or the days, or "
            "lower optimize.least_trades"
        ]
    inside, outside = (_means(half, best) for half in (found.inside, found.outside))
    lines = [
        f"{len(found.score_C):,} combinations tried; stopped because {found.why}",
        "best: " + ", ".join(f"{name} {value}" for name, value in found.samples.values(best).items()),
    ]
    for name in ("total_return", "sharpe", "max_drawdown", "trades"):
        lines.append(f"  {name}: {_short(inside[name])} inside, {_short(outside[name])} outside")
    for name in ("deflated_sharpe", "pbo"):
        value = numbers.get(name)
        lines.append(f"  {name}: {_short(value) if value is not None else found.reasons.get(name, 'not known')}")
    return lines + _judged(found)


def _judged(found: Found) -> list[str]:
    """Return what the numbers on overfitting mean, in sentences."""
    return [text("en", key, **values) for key, values in judgement(found.numbers, found.year)]


def _means(figures: dict[str, Any], c: int) -> dict[str, float | None]:
    out = {}
    for name in FIGURES:
        value = float(_mean(figures[name][:, c : c + 1])[0])
        out[name] = value if math.isfinite(value) else None
    return out


def _mean(values_IC: Any) -> Any:
    """Return the mean over symbols of those that are known; NaN where none is."""
    known = np.isfinite(values_IC)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values_IC, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def strategy_ranges(found: Found, section: OptimizeSection) -> dict[str, Any]:
    """Return the final ranges as a configuration that a next search takes; what was tried to find them counts there."""
    earlier = len(found.score_C) + section.earlier
    told = {"strategy": section.strategy, "interval": section.interval, "ranges": found.ranges.told()}
    return {"optimize": {**told, "earlier": earlier}}
