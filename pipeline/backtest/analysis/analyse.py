"""What stands behind a backtest's result: what scores earn by quantile and horizon, what is held, what it could take.

Figures that the data cannot carry are left out, and `reasons` says why. Shapes: T sessions, Q quantiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.schema import TS

from ..metrics import sessions_a_year
from ..portfolio import books
from ..portfolio.kernel import Ledger
from ..portfolio.market import Market
from ..portfolio.targets import Targets
from ..section import BacktestSection
from . import decay, quantiles
from .capacity import capacity
from .exposure import (
    LEAST_KNOWN,
    Exposure,
    Groups,
    benchmark_weights,
    concentration,
    exposure,
    known_share,
    market_values,
    sectors,
    size_quantiles,
)
from .forward import Paths, forward_returns, paths

Floats = npt.NDArray[np.float64]

LEAST_SESSIONS = 20  # with a coefficient or a spread
LEAST_SYMBOLS = 20  # in the median session, for quantiles; two a quantile
RANK_LAGS = (1, 5, 20)


def analyse(
    market: Market,
    score_TS: Floats,
    targets: Targets,
    ledger: Ledger,
    section: BacktestSection,
    facts: pa.Table,
    *,
    threads: int = 1,
) -> tuple[dict[str, Any], pa.Table]:
    """Return the analysis of a backtest, ready for JSON, and its course as a table of one row a session.

    score_TS : (T, S) as they were traded; facts : SYMBOLS rows, for sectors. The table has `ts`, what was net, gross
    and long, the number of equal positions as concentrated, and, where there are enough symbols, what one unit in each
    quantile grew to (q1 = the lowest scores; `spread` = long the best, short the worst) and the rank IC of a session's
    score for the return over `ic_span` sessions: those between decisions, or as many as the data carry.
    """
    reasons: dict[str, str] = {}
    found = paths(market)
    columns: dict[str, Any] = {"ts": pa.array(market.ts_T, pa.timestamp("us")).cast(TS)}
    count = float(np.median(np.isfinite(score_TS).sum(axis=1)))
    span = _span(targets)
    by_quantile, by_horizon = None, None
    if count < LEAST_SYMBOLS:
        reasons["quantiles"] = reasons["decay"] = (
            f"needs {LEAST_SYMBOLS} symbols with a score in a session, got {count:.0f}"
        )
    else:
        by_quantile = _quantiles(score_TS, found, span, reasons, columns, threads)
        by_horizon = _decay(score_TS, found, span, reasons, columns, threads)
    value_TS = books.values(books.held(ledger, market), market)
    equity_T = ledger.equity_T.astype(np.float64)
    columns |= _course(value_TS, equity_T)
    spent = books.costs(ledger, market, section.direction == "long_short")
    out = {
        "span": span,
        "quantiles": by_quantile,
        "decay": by_horizon,
        "rank_autocorrelation": {
            str(lag): _mean(decay.rank_autocorrelation(score_TS, lag, threads=threads)) for lag in RANK_LAGS
        },
        "holding": books.holding(books.positions(ledger)),
        "costs": books.cost_shares(spent, ledger, sessions_a_year(market.day_T)),
        "exposure": _exposures(market, value_TS, equity_T, section, facts, reasons),
        "positions_alike": _mean(np.asarray(columns["positions_alike"])),
        "capacity": capacity(market, targets, section, ledger),
        "reasons": reasons,
    }
    return out, pa.table(columns)


def _span(targets: Targets) -> int:
    """Return the usual number of sessions from one decision to the next."""
    gaps = np.diff(np.flatnonzero(targets.decide_T))
    return max(int(np.median(gaps)), 1) if len(gaps) else 1


def _quantiles(
    score_TS: Floats, found: Paths, span: int, reasons: dict[str, str], columns: dict[str, Any], threads: int
) -> dict[str, Any] | None:
    place_TS = quantiles.quantiles(score_TS, threads=threads)
    each = quantiles.earned(place_TS, forward_returns(found, 1))
    if (known := int(np.isfinite(each.spread_T).sum())) < LEAST_SESSIONS:
        reasons["quantiles"] = f"needs {LEAST_SESSIONS} sessions with a return of the best and the worst, got {known}"
        return None
    grown_TQ, spread_T = quantiles.curves(each)
    columns |= {f"q{i + 1}": grown_TQ[:, i] for i in range(grown_TQ.shape[1])} | {"spread": spread_T}
    return {
        **quantiles.summary(quantiles.earned(place_TS, forward_returns(found, span)), span),
        "name_turnover": [_finite(x) for x in quantiles.name_turnover(place_TS, span)],
    }


def _decay(
    score_TS: Floats, found: Paths, span: int, reasons: dict[str, str], columns: dict[str, Any], threads: int
) -> dict[str, Any] | None:
    horizons = tuple(h for h in decay.HORIZONS if h + 1 + LEAST_SESSIONS <= len(score_TS))
    if not horizons:
        reasons["decay"] = f"needs {LEAST_SESSIONS + 2} sessions, got {len(score_TS)}"
        return None
    curve, rank_HT = decay.decay(score_TS, found, horizons, threads=threads)
    enough = curve.sessions >= LEAST_SESSIONS
    if not enough.any():
        reasons["decay"] = f"needs {LEAST_SESSIONS} sessions with a coefficient, got {curve.sessions.max()}"
        return None
    nearest = int(np.abs(np.where(enough, curve.horizon, np.inf) - span).argmin())
    columns["rank_ic"] = rank_HT[nearest]
    shown = {name: [_finite(x) for x in values[enough]] for name, values in curve._asdict().items()}
    life = decay.half_life(curve)
    if life is None:
        reasons["half_life"] = (
            f"needs a rank IC with |t| of at least {decay.SURE:g}, and a fit inside {decay.LIVES[0]:g} to "
            f"{decay.LIVES[-1]:g} sessions"
        )
    return {**shown, "half_life": life, "ic_span": int(curve.horizon[nearest])}


def _course(value_TS: Floats, equity_T: Floats) -> dict[str, Any]:
    equity = np.where(equity_T > 0, equity_T, np.nan)
    return {
        "gross": np.abs(value_TS).sum(axis=1) / equity,
        "net": value_TS.sum(axis=1) / equity,
        "long": np.maximum(value_TS, 0.0).sum(axis=1) / equity,
        "positions_alike": concentration(value_TS),
    }


def _exposures(
    market: Market,
    value_TS: Floats,
    equity_T: Floats,
    section: BacktestSection,
    facts: pa.Table,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """Return mean exposures by sector and size, those groups that the source tells."""
    out: dict[str, Any] = {}
    weight_TS = None
    kinds: dict[str, Groups] = {"sector": sectors(facts, market), "size": size_quantiles(market_values(market))}
    for kind, groups in kinds.items():
        told = known_share(groups, market)
        if len(groups.names) < 2 or told < LEAST_KNOWN:
            what = "shares" if kind == "size" else "sectors"
            reasons[kind] = (
                f"needs the {what} of at least {LEAST_KNOWN:.0%} of the symbols, the source tells {told:.0%}"
            )
            continue
        if weight_TS is None:
            weight_TS = benchmark_weights(market, section.benchmark)
        out[kind] = _mean_exposure(exposure(value_TS, equity_T, groups, weight_TS))
    return out


def _mean_exposure(found: Exposure) -> dict[str, Any]:
    """Return the means over sessions, and how far the net exposure to a group went; "" names what is not known."""
    first = max(int(np.argmax(np.abs(found.net_TG).sum(axis=1) > 0)), 0)  # before the first fill nothing is held
    net, other = found.net_TG[first:], found.benchmark_TG[first:]
    return {
        "names": [*found.names, ""],
        "net": [_finite(x) for x in np.nanmean(net, axis=0)],
        "benchmark": [_finite(x) for x in np.nanmean(other, axis=0)],
        "long": [_finite(x) for x in np.nanmean(found.long_TG[first:], axis=0)],
        "short": [_finite(x) for x in np.nanmean(found.short_TG[first:], axis=0)],
        "lowest": [_finite(x) for x in np.nanmin(net, axis=0)],
        "highest": [_finite(x) for x in np.nanmax(net, axis=0)],
    }


def _finite(value: float) -> float | int | None:
    """Return a NumPy number as Python's, None where it is not finite."""
    return np.asarray(value).item() if np.isfinite(value) else None


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
