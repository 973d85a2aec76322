"""The predictions that are traded: which model's, of which part, and as a matrix of the sessions of a market."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.schema import TS

from ..section import BacktestError, BacktestSection
from .market import Market

KST = timedelta(hours=9)


def model_of(directory: Path, asked: str) -> str:
    """Return the model to trade; auto = the first that has scores, before others and the baseline."""
    path = directory / "predictions.parquet"
    if not path.exists():
        raise BacktestError(f"expected predictions at {path}, found none; run the predict stage first")
    have: list[str] = [n.removeprefix("score_") for n in pq.read_schema(path).names if n.startswith("score_")]
    if have and asked == "auto":
        return have[0]
    if asked not in have:
        raise BacktestError(
            f"expected scores of model '{asked}' in {path}, got models {have}; set backtest.model to one of them"
        )
    return asked


def scores_of(directory: Path, model: str) -> pa.Table:
    """Read symbol, ts, split and score, sorted by (symbol, ts)."""
    found = pq.read_table(directory / "predictions.parquet", columns=["symbol", "ts", "split", f"score_{model}"])
    return found.rename_columns(["symbol", "ts", "split", "score"]).sort_by(
        [("symbol", "ascending"), ("ts", "ascending")]
    )


def of_split(scores: pa.Table, split: str) -> pa.Table:
    """Return the finite scores of a part. Raises BacktestError where there are none."""
    rows = scores.filter(pc.equal(scores["split"], split))
    rows = rows.filter(pc.is_finite(rows["score"]))
    if rows.num_rows == 0:
        raise BacktestError(
            f"expected scores for the split '{split}', got none; "
            "give it more sessions (split.*) or symbols with longer histories"
        )
    return rows


def span(scores: pa.Table) -> tuple[datetime, datetime]:
    """Return the first instant of the first KST day of the scores and the last of the last."""
    bounds = pc.min_max(scores["ts"]).as_py()
    first = (bounds["min"].astimezone(UTC) + KST).replace(hour=0, minute=0, second=0, microsecond=0) - KST
    last = (bounds["max"].astimezone(UTC) + KST).replace(hour=23, minute=59, second=59, microsecond=999_999) - KST
    return first, last


def known_before(scores: pa.Table, first: np.datetime64, section: BacktestSection) -> pa.Table:
    """Return the validation scores that were known before the first traded session; none where validation is traded."""
    start = pa.scalar(first.astype(np.int64)).cast(TS)
    valid = scores.filter(pc.and_(pc.equal(scores["split"], "valid"), pc.less(scores["ts"], start)))
    return valid.slice(0, 0) if section.part == "valid" else valid.filter(pc.is_finite(valid["score"]))


def score_matrix(scores: pa.Table, market: Market) -> npt.NDArray[np.float64]:
    """Return the score known after each close, (T, S) float64; NaN = none, or a symbol that did not trade on that
    session.

    A score belongs to the first close at or after its own time; of several in one session the last counts. Nothing
    later is seen.
    """
    at = np.searchsorted(market.ts_T, scores["ts"].to_numpy().astype("datetime64[us]"))
    column = pc.index_in(scores["symbol"], value_set=pa.array(market.symbols, pa.string()))
    value = scores["score"].to_numpy().astype(np.float64)
    inside = (at < len(market.ts_T)) & np.asarray(pc.is_valid(column).to_numpy())
    out = np.full((len(market.ts_T), len(market.symbols)), np.nan)
    places = pc.fill_null(column, 0).to_numpy()
    out[at[inside], places[inside]] = value[inside]
    return np.where(np.isfinite(market.print_TS), out, np.nan)
