"""The backtest as one task: predictions and bars in, equity, trades and numbers out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.receipt import Receipt
from storage.schema import TS, content_digest
from storage.section import digest_of
from storage.store import write_json, write_parquet

from . import metrics
from .kernel import COLUMNS, Ledger
from .market import Market, load
from .portfolio import Threshold, above, benchmark, fit_threshold, resolved_mode, sleeves, top_k, trade
from .positions import closed_positions
from .section import BacktestError, BacktestSection

SIDES = ("buy", "sell", "delisted", "sell")
REASONS = ("entry", "rebalance", "exit", "delisted", "fraction")
KST = timedelta(hours=9)
ASSUMPTIONS = (
    "decided after the close of a session from scores known then; orders go in at the next session",
    "whole shares at raw prices; money in whole won; commission and tax truncated to whole won",
    "sale proceeds buy on the same session (the broker settles the net amount two sessions later)",
    "a corporate action multiplies shares by its factor, also rights and spin-offs; fractions are paid in cash",
    "dividends are not counted, in the portfolio and in the benchmark",
    "a delisted symbol is sold at its last close, which may be more than holders really got",
    "open positions at the end are valued at their last close, without costs of selling",
    "benchmark: equal weights of all symbols, rebalanced every session, without costs",
)


def run(ingest: str, predict: str, out: str, section: BacktestSection) -> dict[str, Any]:
    """Trade the scores of `section.model`, write equity.parquet, trades.parquet and metrics.json, and return a summary.

    ingest, predict, out : directories. Raises BacktestError when the scores or bars to trade are not there.
    """
    receipt = Receipt.load(ingest)
    section = section.model_copy(update={"model": _model(Path(predict), section.model)})
    scores = _scores(Path(predict), section.model)
    traded = _split(scores, section.split)
    symbols = len(pc.unique(traded["symbol"]))
    first, last = _span(traded)
    market = load(receipt, first, None if section.split == "test" else last, section)
    score_TS = score_matrix(traded, market)
    if not np.isfinite(score_TS).any():
        raise BacktestError(
            f"expected scores of model '{section.model}' on sessions with bars in split '{section.split}', "
            f"got none in {predict}; check that predictions and bars are of the same source and interval"
        )
    valid = _before(scores, market.ts_T[0], section)
    known_S = np.isin(np.array(market.symbols, object), pc.unique(valid["symbol"]).to_numpy(zero_copy_only=False))
    sleeves_T = sleeves(score_TS, known_S)
    mode = resolved_mode(section, int(sleeves_T[0]))
    threshold: Threshold | None = None
    if mode == "top_k":
        targets = top_k(score_TS, section.k, section.rebalance)
    else:
        threshold = _threshold(receipt, valid, section)
        targets = above(score_TS, threshold.value, sleeves_T, section.rebalance)
    ledger = trade(market, targets, section)
    benchmark_T = benchmark(market, section.capital)
    trades = _trades(ledger, market)
    equity = _equity(ledger, market, benchmark_T)
    numbers, reasons = _numbers(ledger, market, benchmark_T, trades)
    report = {
        "model": section.model,
        "split": section.split,
        "mode": mode,
        "k": section.k if mode == "top_k" else None,
        "rebalance": section.rebalance,
        "symbols": symbols,
        "capital": section.capital,
        "commission_bp": section.commission_bp,
        "slippage_bp": section.slippage_bp,
        "participation": section.participation,
        "fill": "close of the next session" if receipt.close_only else "open of the next session",
        "threshold": None if threshold is None else threshold._asdict(),
        "metrics": numbers,
        "reasons": reasons,
        "assumptions": list(ASSUMPTIONS),
    }
    folder = Path(out)
    write_parquet(folder / "equity.parquet", equity)
    write_parquet(folder / "trades.parquet", trades)
    write_json(folder / "metrics.json", report)
    keys = ("ts", "symbol", "side", "reason")
    content = digest_of([content_digest(equity, ("ts",)), content_digest(trades, keys), report])
    kept = ("total_return", "benchmark_total_return", "sharpe", "max_drawdown", "trades", "costs", "sessions")
    return {"content": content, "rows": equity.num_rows, "mode": mode, **{name: numbers[name] for name in kept}}


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


def _model(directory: Path, asked: str) -> str:
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


def _scores(directory: Path, model: str) -> pa.Table:
    """Read symbol, ts, split and score, sorted by (symbol, ts)."""
    found = pq.read_table(directory / "predictions.parquet", columns=["symbol", "ts", "split", f"score_{model}"])
    return found.rename_columns(["symbol", "ts", "split", "score"]).sort_by(
        [("symbol", "ascending"), ("ts", "ascending")]
    )


def _split(scores: pa.Table, split: str) -> pa.Table:
    rows = scores.filter(pc.equal(scores["split"], split))
    rows = rows.filter(pc.is_finite(rows["score"]))
    if rows.num_rows == 0:
        raise BacktestError(
            f"expected scores for the split '{split}', got none; "
            "give it more sessions (split.*) or symbols with longer histories"
        )
    return rows


def _span(scores: pa.Table) -> tuple[datetime, datetime]:
    """Return the first instant of the first KST day of the scores and the last of the last."""
    bounds = pc.min_max(scores["ts"]).as_py()
    first = (bounds["min"].astimezone(UTC) + KST).replace(hour=0, minute=0, second=0, microsecond=0) - KST
    last = (bounds["max"].astimezone(UTC) + KST).replace(hour=23, minute=59, second=59, microsecond=999_999) - KST
    return first, last


def _before(scores: pa.Table, first: np.datetime64, section: BacktestSection) -> pa.Table:
    """Return the validation scores that were known before the first traded session; none where validation is traded."""
    start = pa.scalar(first.astype(np.int64)).cast(TS)
    valid = scores.filter(pc.and_(pc.equal(scores["split"], "valid"), pc.less(scores["ts"], start)))
    return valid.slice(0, 0) if section.split == "valid" else valid.filter(pc.is_finite(valid["score"]))


def _threshold(receipt: Receipt, valid: pa.Table, section: BacktestSection) -> Threshold:
    """Fit on validation sessions that ended before the first traded one."""
    if valid.num_rows == 0:
        return Threshold(0.0, (), "no validation scores lie before the traded sessions: zero is used")
    market = load(receipt, *_span(valid), section)
    return fit_threshold(market, score_matrix(valid, market), section)


def _equity(ledger: Ledger, market: Market, benchmark_T: npt.NDArray[np.float64]) -> pa.Table:
    equity_T = ledger.equity_T.astype(np.float64)
    exposure = np.divide(ledger.gross_T, equity_T, out=np.zeros(len(equity_T)), where=equity_T > 0)
    return pa.table(
        {
            "ts": pa.array(market.ts_T, pa.timestamp("us")).cast(TS),
            "equity": ledger.equity_T,
            "cash": ledger.cash_T,
            "benchmark": benchmark_T,
            "gross_exposure": exposure,
            "turnover": metrics.turnover(ledger.traded_T.astype(np.float64), equity_T),
            "commission": ledger.commission_T,
            "tax": ledger.tax_T,
            "n_positions": ledger.positions_T,
        }
    )


def _trades(ledger: Ledger, market: Market) -> pa.Table:
    """Return the trades in the order in which they happened; `realised` is the profit of what was sold after costs,
    `left` shares held.
    """
    column = {name: ledger.trades_NC[:, i] for i, name in enumerate(COLUMNS)}
    names, sides, reasons = np.array(market.symbols, object), np.array(SIDES, object), np.array(REASONS, object)
    return pa.table(
        {
            "ts": pa.array(market.ts_T[column["t"]], pa.timestamp("us")).cast(TS),
            "symbol": pa.array(names[column["s"]], pa.string()),
            "side": pa.array(sides[column["side"]], pa.string()),
            "shares": column["shares"],
            "price": ledger.price_N,
            "value": column["value"],
            "commission": column["commission"],
            "tax": column["tax"],
            "reason": pa.array(reasons[column["reason"]], pa.string()),
            "realised": column["realised"],
            "left": column["left"],
        }
    )


def _numbers(
    ledger: Ledger, market: Market, benchmark_T: npt.NDArray[np.float64], trades: pa.Table
) -> tuple[dict[str, Any], dict[str, str]]:
    equity_T = ledger.equity_T.astype(np.float64)
    numbers, reasons = metrics.performance(equity_T, market.day_T, benchmark_T)
    t, s, shares = ledger.trades_NC[:, 0], ledger.trades_NC[:, 1], ledger.trades_NC[:, 3]
    filled = ledger.trades_NC[:, 2] < 2
    slipped = np.abs(ledger.price_N - market.print_TS[t, s])[filled] * shares[filled]
    costs = {
        "commission": int(ledger.commission_T.sum()),
        "tax": int(ledger.tax_T.sum()),
        "slippage": int(np.rint(slipped.sum())),
    }
    more, why = metrics.trading(
        equity_T,
        ledger.traded_T.astype(np.float64),
        ledger.gross_T.astype(np.float64),
        ledger.positions_T.astype(np.float64),
        costs,
        [position.profit for position in closed_positions(trades)],
        int((shares > 0).sum()),
        numbers["sessions_a_year"],
    )
    return {**numbers, **more}, {**reasons, **why}
