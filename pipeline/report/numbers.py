"""Every number of the report in one JSON-able tree: what report.html shows is in performance_report.json."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import krx
from pipeline.backtest.metrics import monthly
from pipeline.backtest.portfolio.positions import Position, closed_positions
from pipeline.provenance import environment
from storage.section import digest_of

from .arrays import column, days
from .audits import audited
from .findings import judge, sentences
from .section import ReportSection
from .skill import against_ridge, forecast, of_factor
from .sources import Sources
from .words import text

Floats = npt.NDArray[np.float64]
STEPS: dict[str, Callable[[Floats], Any]] = {  # what epochs say of their steps, and what stands for all of them
    "step_p50_ms": np.median,
    "step_p95_ms": np.median,
    "wait_share": np.median,
    "peak_memory_mb": np.max,
    "peak_device_mb": np.max,
    "gpu_use": np.median,
}


def collect(sources: Sources, section: ReportSection, device: str, now: datetime) -> dict[str, Any]:
    """Return the numbers, the verdict and the findings in words; NaN is None throughout, times are Asia/Seoul."""
    backtest = sources.backtest
    held = closed_positions(sources.trades)
    ranked = sorted(held, key=lambda p: p.profit)
    top = section.top_positions
    equity = column(sources.equity, "equity")
    facts: dict[str, Any] = {
        "generated": now.astimezone(krx.KST).strftime("%Y-%m-%d %H:%M KST"),
        "title": section.title,
        "language": section.language,
        "backtest": backtest,
        "monthly": [list(row) for row in monthly(equity, days(sources.equity))],
        "monthly_benchmark": [list(row) for row in monthly(column(sources.equity, "benchmark"), days(sources.equity))],
        "positions": {
            "best": [_position(p, sources) for p in reversed(ranked[-top:]) if top and p.profit > 0],
            "worst": [_position(p, sources) for p in ranked[:top] if p.profit <= 0],
            "best_share": _best_share(held),
            "delisted": sum(p.reason == "delisted" for p in held),
        },
        "analysis": sources.analysis,
        "forecast": forecast(sources.predict) | of_factor(sources),
        "against_ridge": against_ridge(sources),
        "horizon": sources.predict.get("horizon"),
        "timestamps_per_section": sources.predict.get("timestamps_per_section", {}),
        "training": _training(sources),
        "splits": {
            "folds": len(sources.folds),
            "looks_ahead": _looks_ahead(sources.folds),
            **(sources.folds[-1] if sources.folds else {}),
        },
        "features": {"count": len(sources.columns.get("features", [])), "interval": sources.columns.get("interval")},
        "data": _data(sources, section.language),
        "certificates": {"features": audited(sources.certificate)} if sources.columns else {},
        "tuning": _tuning(sources.trials),
        "stages": _stages(sources.manifests),
        "throughput": _throughput(sources),
        "provenance": _provenance(sources, device),
    }
    facts = clean(facts)
    facts["verdict"] = judge(facts, section.language)
    facts["findings"] = sentences(facts, section.language)
    return facts


def clean(value: Any) -> Any:
    """Return the same tree with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def _looks_ahead(folds: list[dict[str, Any]]) -> bool:
    """Say whether a model was trained on rows after those that it is tested on."""
    for fold in folds:
        parts = [span["part"] for span in fold["spans"]]
        if "test" in parts and "train" in parts[parts.index("test") :]:
            return True
    return False


def _made(when: Any) -> str | None:
    """Return the runner's time stamp as Asia/Seoul, or as it is when it is no time."""
    try:
        return datetime.strptime(str(when), "%Y-%m-%d %H:%M:%S%z").astimezone(krx.KST).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None if when is None else str(when)


def _position(position: Position, sources: Sources) -> dict[str, Any]:
    opened, closed = (moment.astimezone(krx.KST).date() for moment in (position.opened, position.closed))
    return {
        "symbol": position.symbol,
        "name": sources.names.get(position.symbol, ""),
        "opened": str(opened),
        "closed": str(closed),
        "days": (closed - opened) // timedelta(days=1),
        "spent": position.spent,
        "profit": position.profit,
        "return": position.profit / position.spent if position.spent else None,
        "reason": position.reason,
    }


def _best_share(held: list[Position]) -> float | None:
    """Return how much of all profit the three best closed positions made; None without profit."""
    gains = sorted((p.profit for p in held if p.profit > 0), reverse=True)
    return sum(gains[:3]) / sum(gains) if len(gains) > 3 else None


def _training(sources: Sources) -> dict[str, Any]:
    out: dict[str, Any] = {}
    history = sources.history
    for model in pc.unique(history["model"]).to_pylist():
        rows = history.filter(pc.equal(history["model"], model))
        seconds = column(rows, "seconds")
        out[model] = {
            "epochs": rows.num_rows,
            "seconds": float(np.nansum(seconds)),
            "samples_per_s": float(np.nanmedian(column(rows, "samples_per_s"))),
            **{name: _over(column(rows, name), of) for name, of in STEPS.items()},
            **{k: v for k, v in sources.train.get(model, {}).items() if k != "fits"},
            "fits": len(sources.train.get(model, {}).get("fits", ())),
        }
    return out


def _over(values: Floats, of: Callable[[Floats], Any]) -> float | None:
    """Return a figure of those values that are known."""
    known = values[np.isfinite(values)]
    return float(of(known)) if known.size else None


def _left_out(features: dict[str, Any], language: str) -> list[dict[str, str]]:
    """Return the symbols that take no part in the features or cannot be traded, each with why: those whose bars are in
    disorder, those with an empty column, those with too few bars.
    """
    found: list[tuple[str, str, dict[str, str]]] = [(symbol, "broken", {}) for symbol in features.get("broken", {})]
    found += [(symbol, "empty", {"columns": ", ".join(names)}) for symbol, names in features.get("empty", {}).items()]
    found += [(symbol, "short", {"bars": f"{bars:,}"}) for symbol, bars in features.get("short", {}).items()]
    return [
        {"symbol": symbol, "why": why, "text": text(language, f"left_out.{why}", **values)}
        for symbol, why, values in found
    ]


def _data(sources: Sources, language: str) -> dict[str, Any]:
    receipt = sources.receipt
    rows, bad = sum(receipt.rows.values()), sum(receipt.quarantined.values())
    return {
        "source": receipt.source,
        "venue": receipt.venue,
        "market": receipt.market,
        "close_only": receipt.close_only,
        "symbols": len(receipt.symbols),
        "delisted": sources.delisted,
        "start": str(receipt.start),
        "end": str(receipt.end),
        "rows": dict(receipt.rows),
        "quarantined": dict(sorted(receipt.quarantined.items(), key=lambda item: -item[1])),
        "quarantined_share": bad / (rows + bad) if rows + bad else None,
        "quality": sources.quality,
        "left_out": _left_out(sources.manifests.get("features", {}), language),
    }


def _tuning(trials: pa.Table | None) -> list[dict[str, Any]]:
    """Return the best ten complete trials; maximised values first."""
    if trials is None:
        return []
    done = [row for row in trials.to_pylist() if row["state"] == "COMPLETE" and row["value"] is not None]
    done.sort(key=lambda row: -row["value"])
    return [{k: row.get(k) for k in ("number", "value", "params")} for row in done[:10]]


def _stages(manifests: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for name, manifest in manifests.items():
        seconds, rows = manifest.get("seconds"), manifest.get("rows")
        rows = rows if isinstance(rows, int) else sum(rows.values()) if isinstance(rows, dict) else None
        out.append(
            {
                "stage": name,
                "seconds": seconds,
                "rows": rows,
                "rows_per_s": rows / seconds if rows and seconds else None,
                "peak_memory_mb": manifest.get("peak_memory_mb"),
                "made": _made(manifest.get("made")),
            }
        )
    return out


def _throughput(sources: Sources) -> dict[str, Any]:
    stages = {row["stage"]: row for row in _stages(sources.manifests)}
    samples = {model: one["samples_per_s"] for model, one in _training(sources).items()}
    memory = [row["peak_memory_mb"] for row in stages.values() if row["peak_memory_mb"]]
    return {
        "rows_per_s": {name: row["rows_per_s"] for name, row in stages.items()},
        "samples_per_s": samples,
        "total_seconds": sum(row["seconds"] or 0.0 for row in stages.values()),
        "peak_memory_mb": max(memory, default=None),
    }


def _provenance(sources: Sources, device: str) -> dict[str, Any]:
    made_of = {name: manifest.get("made_of") or {} for name, manifest in sources.manifests.items()}
    settings = {k: v for one in made_of.values() for k, v in (one.get("sections") or {}).items()}
    return {
        **environment(device),
        "settings": settings,
        "settings_digest": digest_of(settings),
        "keys": {name: manifest.get("key") for name, manifest in sources.manifests.items()},
        "contents": {name: manifest.get("content") for name, manifest in sources.manifests.items()},
        "code": {name: one.get("code") for name, one in made_of.items()},
    }
