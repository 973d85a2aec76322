"""How good the scores of a prediction are, by model, part and time.

Shapes: W windows, S sections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.schema import TS

from .metrics import Sections, decile_means, information_coefficients, make_sections, spread_by_section, summary

PARTS = ("valid", "test")


@dataclass(frozen=True)
class Evaluated:
    """Hold the figures of a prediction.

    metrics : by model and part, for reports; coefficients : a row for each section, model and part: ts, model, split,
    ic, rank_ic, spread (mean label of the highest tenth of scores minus that of the lowest), n; deciles : model, split,
    decile (0 = lowest scores), y (mean label), n.
    """

    metrics: dict[str, Any]
    coefficients: pa.Table
    deciles: pa.Table


def evaluate(
    table: pa.Table, judged_W: NDArray[np.bool_], models: list[str], horizon: int, min_names: int
) -> Evaluated:
    """Judge the scores of the first label by the rows (W,) of a prediction that may count.

    table : ts, split, y and score_<model>.
    """
    ts_W = table["ts"].cast(pa.int64()).to_numpy()
    y_W = table["y"].to_numpy()
    metrics: dict[str, Any] = {"horizon": horizon, "timestamps_per_section": {}}
    coefficients, deciles = [], []
    for part in PARTS:
        mine = pc.equal(table["split"], part).to_numpy() & judged_W
        sections = make_sections(ts_W[mine], min_names)
        metrics["timestamps_per_section"][part] = sections.timestamps
        for name in models:
            score_W = table[f"score_{name}"].to_numpy()[mine]
            found = information_coefficients(score_W, y_W[mine], sections)
            spread_S = spread_by_section(score_W, y_W[mine], sections)
            mean_D, count_D = decile_means(score_W, y_W[mine], sections)
            figures = summary(found, sections.lags(horizon))
            known = spread_S[np.isfinite(spread_S)]
            figures["decile_spread"] = float(known.mean()) if known.size else None
            metrics.setdefault(name, {})[part] = figures
            coefficients.append(
                _rows(sections, name, part, ic=found.ic_S, rank_ic=found.rank_ic_S, spread=spread_S, n=found.n_S)
            )
            deciles.append(
                pa.table(
                    {
                        "model": [name] * len(mean_D),
                        "split": [part] * len(mean_D),
                        "decile": np.arange(len(mean_D)),
                        "y": mean_D,
                        "n": count_D,
                    }
                )
            )
    by_time = pa.concat_tables(coefficients).sort_by([("ts", "ascending"), ("model", "ascending")])
    return Evaluated(metrics, by_time, pa.concat_tables(deciles))


def _rows(sections: Sections, name: str, part: str, **values_S: NDArray[Any]) -> pa.Table:
    size = len(sections.ts_S)
    text = {"model": pa.array([name] * size, pa.string()), "split": pa.array([part] * size, pa.string())}
    return pa.table({"ts": pa.array(sections.ts_S).cast(TS), **text, **values_S})
