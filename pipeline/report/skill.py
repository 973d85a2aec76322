"""How well scores order what follows: information coefficients of models, and of scores that no model made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.metrics import newey_west_t

from .arrays import column
from .sources import Sources

LEARNED = ("mean_ic", "mean_rank_ic", "icir", "t_newey_west", "hit_rate", "n_days")


def forecast(predict: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return model -> split -> {mean_ic, mean_rank_ic, icir, t_newey_west, hit_rate, n_days} of the predict stage."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for model, by_split in predict.items():
        if not isinstance(by_split, dict):
            continue
        found = {s: by_split[s] for s in ("valid", "test") if isinstance(by_split.get(s), dict)}
        if found:
            out[model] = {s: {name: one.get(name) for name in LEARNED} for s, one in found.items()}
    return out


def of_factor(sources: Sources) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the same of scores that no model made, over the sessions that were traded; empty where models' are traded
    or there are too few symbols or sessions.
    """
    traded, curve = sources.backtest, sources.analysis["decay"]
    if traded["scores"] == "predictions" or curve is None:
        return {}
    at = curve["horizon"].index(curve["ic_span"])
    rank = column(sources.course, "rank_ic")
    rank = rank[np.isfinite(rank)]
    spread = float(rank.std(ddof=1))
    found = {
        "mean_ic": curve["ic"][at],
        "mean_rank_ic": curve["rank_ic"][at],
        "icir": curve["rank_ic"][at] / spread if spread > 0 else None,
        "t_newey_west": curve["t"][at],
        "hit_rate": float(np.mean(rank > 0)),
        "n_days": len(rank),
    }
    return {traded["model"]: {traded["split"]: found}}


def ics(sources: Sources) -> pa.Table:
    """Return the rank ICs of all models and of what is traded: ts, model, split, rank_ic."""
    traded = sources.backtest
    if traded["scores"] == "predictions" or "rank_ic" not in sources.course.column_names:
        return sources.ic
    n = sources.course.num_rows
    mine = sources.course.select(["ts", "rank_ic"])
    mine = mine.append_column("model", pa.array([traded["model"]] * n, pa.string()))
    mine = mine.append_column("split", pa.array([traded["split"]] * n, pa.string()))
    return pa.concat_tables([sources.ic.select(mine.column_names), mine], promote_options="permissive")


def against_ridge(sources: Sources) -> dict[str, Any] | None:
    """Return the mean difference of the traded model's and the ridge's rank IC on the test and its Newey-West t.

    Compared section by section where both are known; None where the ridge or no model is traded, and where the ridge
    was not fitted.
    """
    model, ic = sources.backtest["model"], sources.ic
    if sources.backtest["scores"] != "predictions":
        return None
    if "split" in ic.column_names:
        ic = ic.filter(pc.equal(ic["split"], "test"))
    mine, ridge = (ic.filter(pc.equal(ic["model"], name)) for name in (model, "ridge"))
    if model == "ridge" or not mine.num_rows or not ridge.num_rows:
        return None
    both = (
        mine.select(["ts", "rank_ic"]).join(ridge.select(["ts", "rank_ic"]), "ts", right_suffix="_ridge").sort_by("ts")
    )
    difference = column(both, "rank_ic") - column(both, "rank_ic_ridge")
    difference = difference[np.isfinite(difference)]
    pooled = int((sources.predict.get("timestamps_per_section") or {}).get("test") or 1)
    lags = math.ceil(int(sources.predict.get("horizon") or 1) / pooled)
    mean = float(difference.mean()) if len(difference) else math.nan
    return {"mean": mean, "t_newey_west": newey_west_t(difference, lags), "n": len(difference)}
