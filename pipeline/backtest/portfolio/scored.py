"""What is traded over which sessions: scores of a model, an indicator of the bars, or a column of the features.

Shapes: T sessions, S symbols.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import krx
from pipeline.indicators import Spec
from pipeline.indicators.spec import nearest
from pipeline.receipt import Receipt
from storage.store import read_json

from ..section import BacktestError, BacktestSection, FeatureColumn
from .factors import scores
from .market import Market, load
from .predictions import known_before, model_of, of_split, score_matrix, scores_of, span

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Folders = Mapping[str, Path]
Range = tuple[datetime, datetime | None]

TICK = timedelta(microseconds=1)


class Scored(NamedTuple):
    """Hold what is traded. score_TS : (T, S) float64, high = good, known after each close, NaN = none; name : the model
    or the column; symbols : how many there are to choose from; known_S : (S,) bool, had a score before the first
    session; earlier : the sessions before the first that a threshold is fitted on, and their scores, None = none.
    """

    market: Market
    score_TS: Floats
    name: str
    symbols: int
    known_S: Bools
    earlier: tuple[Market, Floats] | None


def scored(receipt: Receipt, inputs: Folders, section: BacktestSection) -> Scored:
    """Return what `section.scores` asks for; inputs : directories of stages, those that `section.reads` names.

    The sessions are those of the part of the predictions, or all from the first one with a score on; between
    `section.first` and `section.last`. Raises BacktestError where there is nothing to trade.
    """
    if section.scores == "predictions":
        return _predicted(receipt, inputs["predict"], section)
    return _factor(receipt, inputs, section)


def _predicted(receipt: Receipt, predict: Path, section: BacktestSection) -> Scored:
    model = model_of(predict, section.model)
    rows = scores_of(predict, model)
    traded = _within(of_split(rows, section.part), section)
    first, last = span(traded)
    market = load(receipt, first, _end(section) if section.part == "test" else last, section)
    score_TS = score_matrix(traded, market)
    if not np.isfinite(score_TS).any():
        raise BacktestError(
            f"expected scores of model '{model}' on sessions with bars in split '{section.part}', "
            f"got none in {predict}; check that predictions and bars are of the same source and interval"
        )
    valid = known_before(rows, market.ts_T[0], section)
    known_S = np.isin(np.array(market.symbols, object), pc.unique(valid["symbol"]).to_numpy(zero_copy_only=False))
    earlier = None
    if valid.num_rows and section.mode in ("auto", "time_series"):
        before = load(receipt, *span(valid), section)
        earlier = before, score_matrix(valid, before)
    return Scored(market, score_TS, model, len(pc.unique(traded["symbol"])), known_S, earlier)


def _factor(receipt: Receipt, inputs: Folders, section: BacktestSection) -> Scored:
    (first, last), ahead = _ranges(receipt, inputs, section)
    rows = column_rows(inputs["features"], section.scores) if isinstance(section.scores, FeatureColumn) else None
    sign = -1.0 if section.invert else 1.0

    def matrix(market: Market) -> tuple[str, Floats]:
        if rows is not None:
            since = pa.scalar(_midnight(market.day_T[0].item()))
            score_TS = score_matrix(rows[1].filter(pc.greater(rows[1]["ts"], since)), market)
            return rows[0], sign * score_TS
        assert isinstance(section.scores, Spec)
        ((name, found_TS),) = scores(receipt, [section.scores], market).items()
        return name, sign * found_TS.astype(np.float64)

    market = load(receipt, first, last, section)
    name, score_TS = matrix(market)
    begun = np.flatnonzero(np.isfinite(score_TS).any(axis=1))
    if not begun.size:
        raise BacktestError(
            f"expected scores of '{name}' in sessions from {market.day_T[0]} to {market.day_T[-1]}, got none; it may "
            "need more bars before them than there are: widen ingest's range or the one from backtest.first"
        )
    if begun[0]:
        market = load(receipt, market.ts_T[begun[0]].item().replace(tzinfo=UTC), last, section)
        score_TS = score_TS[begun[0] :]
    earlier = None
    known_S: Bools = np.zeros(len(market.symbols), bool)
    if ahead and section.mode in ("auto", "time_series"):
        before = load(receipt, *ahead, section)
        earlier = before, matrix(before)[1]
        known_S = np.asarray(np.isfinite(earlier[1]).any(axis=0))
    return Scored(market, score_TS, name, len(market.symbols), known_S, earlier if known_S.any() else None)


def _ranges(receipt: Receipt, inputs: Folders, section: BacktestSection) -> tuple[Range, Range | None]:
    """Return the range that is traded and the one before it, None = none: the parts of the predictions where they are
    asked for, else what ingest brought, cut by `first` and `last`.
    """
    if "predict" in section.reads:
        rows = scores_of(inputs["predict"], model_of(inputs["predict"], "auto"))
        first, last = span(_within(of_split(rows, section.part), section))
        valid = known_before(rows, np.datetime64(first.replace(tzinfo=None), "us"), section)
        return (first, _end(section) if section.part == "test" else last), span(valid) if valid.num_rows else None
    if (section.first or receipt.start) > receipt.end or (section.last or receipt.end) < receipt.start:
        raise BacktestError(
            f"expected backtest.first and backtest.last within the range of ingest, {receipt.start} to {receipt.end}, "
            f"got {section.first or 'none'} and {section.last or 'none'}; widen ingest's range or change them"
        )
    start = _midnight(receipt.start)
    first = max(start, _midnight(section.first)) if section.first else start
    return (first + TICK, _end(section)), (start + TICK, first) if start < first else None


def column_rows(features: Path, asked: FeatureColumn) -> tuple[str, pa.Table]:
    """Return a column's name and its values of members of the universe: symbol, ts, score, finite, sorted."""
    told = read_json(features / "columns.json")
    places = {one["name"]: one["in"] for one in told["features"]}
    if asked.column not in places:
        raise BacktestError(
            f"expected a column of the features (features.set, features.extra) in backtest.scores, got "
            f"'{asked.column}'{nearest(asked.column, list(places))}"
        )
    parts = []
    for block in sorted((features / "blocks").glob("*.parquet")):
        where = {"blocks": block, **{kind: features / kind / block.name for kind in ("cross", "targets")}}
        kept = {
            "symbol": pq.read_table(block, columns=["symbol", "ts"]),
            "score": pq.read_table(where[places[asked.column]], columns=[asked.column]),
            "member": pq.read_table(where[told["member"]], columns=["member"]),
        }
        table = kept["symbol"].append_column("score", kept["score"][asked.column])
        parts.append(table.filter(pc.and_(kept["member"]["member"], pc.is_finite(table["score"]))))
    order = [("symbol", "ascending"), ("ts", "ascending")]
    return asked.column, pa.concat_tables(parts).sort_by(order)


def _within(rows: pa.Table, section: BacktestSection) -> pa.Table:
    """Return the rows between `first` and `last`."""
    kept = rows
    if section.first:
        kept = kept.filter(pc.greater(kept["ts"], pa.scalar(_midnight(section.first))))
    if end := _end(section):
        kept = kept.filter(pc.less_equal(kept["ts"], pa.scalar(end)))
    if not kept.num_rows:
        have = span(rows)
        raise BacktestError(
            f"expected scores of the split '{section.part}' from {section.first or 'its first day'} to "
            f"{section.last or 'its last'} (backtest.first, backtest.last), got them from {_day(have[0])} to "
            f"{_day(have[1])}; leave the dates out, or choose some between"
        )
    return kept


def _midnight(day: date) -> datetime:
    """Return the moment at which a day begins in Korea. Stamps are ends: one at midnight is of the day before."""
    return datetime.combine(day, time(), krx.KST).astimezone(UTC)


def _end(section: BacktestSection) -> datetime | None:
    return _midnight(section.last + timedelta(days=1)) if section.last else None


def _day(moment: datetime) -> date:
    return moment.astimezone(krx.KST).date()
