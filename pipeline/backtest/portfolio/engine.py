"""The backtest as one task: scores and bars in, equity, trades and numbers out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.receipt import Receipt
from storage.schema import TS, content_digest
from storage.section import digest_of
from storage.store import write_json, write_parquet

from .. import metrics
from ..analysis.analyse import analyse
from ..section import BacktestError, BacktestSection, FeatureColumn
from .benchmark import benchmark
from .kernel import COLUMNS, Ledger
from .market import Market
from .numbers import numbers_of
from .scored import Scored, scored
from .targets import fit_threshold, resolved_mode, sleeves, trade, wanted
from .threshold import Threshold

SIDES = ("buy", "sell", "delisted", "sell", "short", "cover")
REASONS = ("entry", "rebalance", "exit", "delisted", "fraction")
ASSUMPTIONS = (
    "decided after the close of a session from scores known then; orders go in at the next session",
    "whole shares at raw prices; money in whole won; commission and tax truncated to whole won",
    "sale proceeds buy on the same session (the broker settles the net amount two sessions later)",
    "a corporate action multiplies shares by its factor, also rights and spin-offs; fractions are paid in cash",
    "dividends are not counted, in the portfolio and in the benchmark; cash earns no interest",
    "a delisted symbol is sold at its last close, which may be more than holders really got",
    "open positions at the end are valued at their last close, without costs of selling",
)
OF_SHORTS = (
    "every share can be borrowed at one rate; proceeds of short sales are set aside, buy nothing and earn no interest; "
    "cash below zero owes none",
    "a short is bought back at the last close when it is delisted; nobody calls for more money in between",
)
BENCHMARKS = {
    "equal": "benchmark: equal weights of all symbols, rebalanced every session, without costs",
    "cap": "benchmark: weights by market value, shares from the symbols table, without costs",
    "none": "benchmark: money that earns nothing",
}


def run(inputs: Mapping[str, str | Path], out: str | Path, section: BacktestSection) -> dict[str, Any]:
    """Trade the scores of `section.scores`, write equity.parquet, trades.parquet, metrics.json, and what
    analysis/analyse.py says as course.parquet and analysis.json, and return a summary.

    inputs : directories of stages, "ingest" and those of `section.reads`; out : a directory. Raises BacktestError when
    the scores or bars to trade are not there.
    """
    folders = {name: Path(path) for name, path in inputs.items()}
    receipt = Receipt.load(folders["ingest"])
    found = scored(receipt, folders, section)
    market, score_TS = found.market, found.score_TS
    sleeves_T = sleeves(score_TS, found.known_S)
    predicted = section.scores == "predictions"
    mode = resolved_mode(section, int(sleeves_T[0]) if predicted else found.symbols)
    if mode == "quantile":
        _check_quantiles(score_TS, section)
    threshold: Threshold | None = None
    upper, lower = 0.0, np.nan
    if mode == "time_series":
        threshold = _threshold(found, section)
        upper, lower = threshold.value, np.nan if threshold.below is None else threshold.below
    targets = wanted(market, score_TS, section, mode, upper=upper, lower=lower, sleeves_T=sleeves_T)
    ledger = trade(market, targets, section)
    benchmark_T = benchmark(market, section.capital, section.benchmark)
    trades = _trades(ledger, market)
    equity = _equity(ledger, market, benchmark_T)
    shorts = section.direction == "long_short"
    numbers, reasons = numbers_of(ledger, market, benchmark_T, shorts=shorts)
    facts = receipt.opened.read("symbols", symbols=receipt.symbols, source=receipt.source)
    analysis, course = analyse(market, score_TS, targets, ledger, section, facts)
    report = {
        "scores": "predictions"
        if predicted
        else "column"
        if isinstance(section.scores, FeatureColumn)
        else "indicator",
        "model": found.name,
        "inverted": section.invert,
        "split": section.part,
        "mode": mode,
        "direction": section.direction,
        "k": section.k if mode in ("top_k", "drop_out") else None,
        "quantiles": section.quantiles if mode == "quantile" else None,
        "quantiles_held": section.quantiles_held if mode == "quantile" else None,
        "drop": section.drop if mode == "drop_out" else None,
        "weights": section.weights,
        "max_weight": section.max_weight,
        "rebalance": section.rebalance,
        "benchmark": section.benchmark,
        "symbols": found.symbols,
        "capital": section.capital,
        "commission_bp": section.commission_bp,
        "slippage_bp": section.slippage_bp,
        "participation": section.participation,
        "borrow_bp": section.borrow_bp if shorts else None,
        "fill": "close of the next session" if receipt.close_only else "open of the next session",
        "threshold": None if threshold is None else threshold._asdict(),
        "metrics": numbers,
        "reasons": reasons,
        "assumptions": _assumptions(section),
    }
    folder = Path(out)
    write_parquet(folder / "equity.parquet", equity)
    write_parquet(folder / "trades.parquet", trades)
    write_json(folder / "metrics.json", report)
    write_parquet(folder / "course.parquet", course)
    write_json(folder / "analysis.json", analysis)
    keys = ("ts", "symbol", "side", "reason")
    content = digest_of([content_digest(equity, ("ts",)), content_digest(trades, keys), report, analysis])
    kept = ("total_return", "benchmark_total_return", "sharpe", "max_drawdown", "trades", "costs", "sessions")
    return {
        "content": content,
        "rows": equity.num_rows,
        "mode": mode,
        "model": found.name,
        **{name: numbers[name] for name in kept},
    }


def _assumptions(section: BacktestSection) -> list[str]:
    against = BENCHMARKS.get(section.benchmark, f"benchmark: {section.benchmark}, held throughout, without costs")
    return [*ASSUMPTIONS, *(OF_SHORTS if section.direction == "long_short" else ()), against]


def _check_quantiles(score_TS: npt.NDArray[np.float64], section: BacktestSection) -> None:
    """Refuse quantiles so many that none of them ever holds a whole symbol."""
    most, least = int(np.isfinite(score_TS).sum(axis=1).max()), -(-section.quantiles // section.quantiles_held)
    if most < least:
        raise BacktestError(
            f"expected at least {least} symbols with a score in some session for backtest.quantiles "
            f"{section.quantiles}, of which {section.quantiles_held} are held, got at most {most}; choose fewer"
        )


def _threshold(found: Scored, section: BacktestSection) -> Threshold:
    """Fit on sessions that ended before the first traded one."""
    if found.earlier is None:
        below = 0.0 if section.direction == "long_short" else None
        return Threshold(0.0, (), "no validation scores lie before the traded sessions: zero is used", below)
    return fit_threshold(*found.earlier, section)


def _equity(ledger: Ledger, market: Market, benchmark_T: npt.NDArray[np.float64]) -> pa.Table:
    equity_T = ledger.equity_T.astype(np.float64)
    gross, net = (
        np.divide(value_T, equity_T, out=np.zeros(len(equity_T)), where=equity_T > 0)
        for value_T in (ledger.gross_T, ledger.gross_T - 2 * ledger.short_T)
    )
    return pa.table(
        {
            "ts": pa.array(market.ts_T, pa.timestamp("us")).cast(TS),
            "equity": ledger.equity_T,
            "cash": ledger.cash_T,
            "benchmark": benchmark_T,
            "gross_exposure": gross,
            "turnover": metrics.turnover(ledger.traded_T.astype(np.float64), equity_T),
            "commission": ledger.commission_T,
            "tax": ledger.tax_T,
            "n_positions": ledger.positions_T,
            "net_exposure": net,
            "borrow": ledger.borrow_T,
        }
    )


def _trades(ledger: Ledger, market: Market) -> pa.Table:
    """Return the trades in the order in which they happened; `realised` is the profit of what was closed after
    costs, `left` shares held, negative = short.
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
