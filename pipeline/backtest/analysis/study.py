"""A study of factors in one call: each factor's quantiles, what they earned before costs and what was left of it after.

Shapes: T sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from pipeline.indicators import Spec
from pipeline.receipt import Receipt

from ..portfolio.benchmark import benchmark
from ..portfolio.factors import scores, trade_quantiles
from ..portfolio.market import load
from ..portfolio.numbers import numbers_of
from ..portfolio.schedule import decisions, due
from ..section import BacktestSection
from .forward import forward_returns, paths
from .quantiles import QUANTILES, earned, quantiles, summary


class Study(NamedTuple):
    """Hold one factor: `returns` of its quantiles before costs, see quantiles.summary; `portfolios` : for each
    quantile, lowest first, the report's numbers of holding it, after costs; `reasons` : why numbers of it are None.
    """

    returns: dict[str, Any]
    portfolios: list[dict[str, Any]]
    reasons: list[dict[str, str]]


def study(
    receipt: Receipt,
    specs: Iterable[Spec | Mapping[str, Any]],
    section: BacktestSection,
    first: datetime,
    last: datetime | None = None,
    *,
    parts: int = QUANTILES,
    threads: int = 1,
) -> dict[str, Study]:
    """Return a study of each column that `specs` ask for, over the sessions from `first` to `last` (UTC). Of `section`
    count rebalance, benchmark and what trading costs; threads change no number. Raises BacktestError, IndicatorError.
    """
    market = load(receipt, first, last, section)
    due_T = due(section.rebalance, market.ts_T, market.venue)
    known = paths(market)
    benchmark_T = benchmark(market, section.capital, section.benchmark)
    out = {}
    for name, score_TS in scores(receipt, specs, market, threads=threads).items():
        decide_T = decisions(score_TS.astype(np.float64), due_T)
        rows = np.flatnonzero(decide_T)
        span = int(np.median(np.diff(rows))) if len(rows) > 1 else 1
        returns = earned(quantiles(score_TS[rows], parts), forward_returns(known, span)[rows], parts)
        ledgers = trade_quantiles(market, score_TS, decide_T, section, parts=parts, threads=threads)
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda ledger: numbers_of(ledger, market, benchmark_T), ledgers))
        out[name] = Study(summary(returns, span, every=span), [one for one, _ in found], [why for _, why in found])
    return out
