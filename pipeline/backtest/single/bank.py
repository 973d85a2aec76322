"""What a search leaves: bank.json with the best combinations and what to make of them, every trial, the best one's
trades.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline.report.words import text

from ..overfit import judgement
from .figures import FIGURES
from .instrument import Instrument
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
                "inside": _of(found.inside, c),
                "outside": _of(found.outside, c),
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
    for half, figures in (("inside", found.inside), ("outside", found.outside)):
        for name in FIGURES:
            out[f"{half}_{name}"] = figures[name]
    return out


def told(found: Found, section: MetaSection) -> list[str]:
    """Return the result in sentences for a terminal."""
    numbers, best = found.numbers, int(found.order[0])
    banned = [f"shorts were banned on {found.banned * 100:.1f} % of the bars"] if found.banned else []
    if not np.isfinite(found.score_C[best]):
        return [
            f"none of {len(found.score_C):,} combinations made {section.least_trades} trades inside; widen the "
            f"ranges or the days, or "
            "lower optimize.least_trades",
            *banned,
        ]
    inside, outside = (_of(half, best) for half in (found.inside, found.outside))
    lines = [
        f"{len(found.score_C):,} combinations tried; stopped because {found.why}",
        "best: " + ", ".join(f"{name} {value}" for name, value in found.samples.values(best).items()),
    ]
    for name in ("total_return", "sharpe", "max_drawdown", "trades"):
        label = "sharpe (a year, mean over symbols)" if name == "sharpe" else name
        lines.append(f"  {label}: {_short(inside[name])} inside, {_short(outside[name])} outside")
    for name in ("deflated_sharpe", "pbo"):
        value = numbers.get(name)
        lines.append(f"  {name}: {_short(value) if value is not None else found.reasons.get(name, 'not known')}")
    return lines + banned + _judged(found)


def _judged(found: Found) -> list[str]:
    """Return what the numbers on overfitting mean, in sentences."""
    verdict, *why = (text("en", key, **values) for key, values in judgement(found.numbers, found.year))
    count = sum(1 for inside_first, *_ in found.spans if inside_first)
    # Their mean moves less than each of them does: its Sharpe ratio is not the mean of theirs.
    basis = [f"This judges the returns of sessions inside, averaged over {count} symbols."] if count > 1 and why else []
    return [verdict, *basis, *why]


def _of(figures: dict[str, Any], c: int) -> dict[str, float | None]:
    return {name: _known(float(figures[name][c])) for name in FIGURES}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def ranges_file(found: Found, section: OptimizeSection, key: str) -> str:
    """Return the final ranges as a configuration that a next search takes; what was tried to find them counts there.
    Its comments say which bars they are from; key : of the search's result.
    """
    inside = [days[:2] for days in found.spans if days[0]]
    first, last = min(days[0] for days in inside), max(days[1] for days in inside)
    told = {"strategy": section.strategy, "interval": section.interval, "ranges": found.ranges.told()}
    earlier = len(found.score_C) + section.earlier
    return (
        f"# Left by search {key} with seed {section.seed}.\n"
        f"# Chosen on bars of {section.interval} of {len(inside)} symbols, {first} to {last}.\n"
        + yaml.safe_dump({"optimize": {**told, "earlier": earlier}})
    )


def with_part(frame: pd.DataFrame, each: Instrument, cut: Any) -> pd.DataFrame:
    """Return trades or equity of a symbol with a column `part`: inside or outside, by the day of the entry or of the
    bar; cut : the first day of the outside.
    """
    stamp = frame["entry_ts" if "entry_ts" in frame else "ts"].to_numpy()
    day = each.day_T[np.searchsorted(each.bars["ts"].to_numpy(), stamp)]
    return frame.assign(part=np.where(day >= cut, "outside", "inside"))
