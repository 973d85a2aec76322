"""What an equity curve says about itself. Formulas and sources stand with each number; too little data gives None and
a reason.

A figure that a short sample cannot carry is not computed: a year's return from three weeks or a Sharpe ratio of ten
sessions reads as knowledge and is none. Returns are simple returns of one session, close to close; the risk-free rate
is taken as zero.

Shapes: T sessions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.datetime64]

LEAST_FOR_RISK = 20  # returns below which volatility and ratios say nothing
LEAST_FOR_YEAR = 60  # returns below which nothing is scaled to a year's return
FLAT = 1e-12


class Sheet:
    """Collect numbers by name; one that cannot be known is None and has its reason beside it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def put(self, name: str, value: float | None, why: str = "") -> None:
        """Record a number, or None with the reason."""
        if value is None or not math.isfinite(value):
            self.values[name] = None
            self.reasons[name] = why or "not a finite number"
        else:
            self.values[name] = float(value)


def sessions_a_year(days_T: Days) -> int:
    """Return 365 where weekends are traded as well, else 252 (the usual convention; the KRX has about 246)."""
    weekday = (days_T.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 0 = Monday
    return 365 if len(days_T) and np.mean(weekday >= 5) > 0.1 else 252


def returns(equity_T: Floats) -> Floats:
    """Return the T - 1 simple returns of an equity curve; a curve that reached zero returns zero afterwards."""
    before, after = equity_T[:-1], equity_T[1:]
    return np.divide(after, before, out=np.ones_like(after), where=before > 0) - 1.0


def drawdown(equity_T: Floats) -> Floats:
    """Return equity over its running maximum minus one: zero at a peak, negative below it."""
    return np.asarray(equity_T / np.maximum.accumulate(equity_T) - 1.0, np.float64)


def performance(
    equity_T: Floats, days_T: Days, benchmark_T: Floats | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the numbers of a curve and the reasons for those that are None.

    equity_T, benchmark_T : (T,) KRW after each close. days_T : (T,) dates.

    total_return = E_T / E_0 - 1; annual_return = (E_T / E_0)^(year / n) - 1; volatility = sd(r, ddof 1) sqrt(year);
    sharpe = mean(r) / sd(r) sqrt(year) (Sharpe 1994) and its standard error sqrt((1 + s^2 / 2) / n) sqrt(year) with s
    per session (Lo 2002, independent returns); sortino = mean(r) / sqrt(mean(min(r, 0)^2)) sqrt(year) (Sortino and
    Price 1994); max_drawdown = min(E / running max - 1); calmar = annual_return / |max_drawdown| (Young 1991).
    """
    sheet = Sheet()
    r = returns(equity_T)
    n, year = len(r), sessions_a_year(days_T)
    sheet.values |= {"sessions": len(equity_T), "sessions_a_year": year}
    sheet.values |= {
        "first_day": str(days_T[0]),
        "last_day": str(days_T[-1]),
        "start_equity": float(equity_T[0]),
        "end_equity": float(equity_T[-1]),
    }
    few = f"needs at least {LEAST_FOR_RISK} returns, got {n}"
    few_year = f"needs at least {LEAST_FOR_YEAR} returns to speak of a year, got {n}"
    growth = float(equity_T[-1] / equity_T[0])
    sheet.put("total_return", growth - 1.0)
    sheet.put("annual_return", growth ** (year / n) - 1.0 if n >= LEAST_FOR_YEAR else None, few_year)

    risky = n >= LEAST_FOR_RISK
    sd = float(np.std(r, ddof=1)) if risky else math.nan
    why = few if not risky else "returns do not vary"
    moving = risky and sd > FLAT
    mean = float(r.mean()) if n else math.nan
    sharpe = mean / sd if moving else math.nan
    sheet.put("volatility", sd * math.sqrt(year) if risky else None, few)
    sheet.put("sharpe", sharpe * math.sqrt(year) if moving else None, why)
    sheet.put("sharpe_standard_error", math.sqrt((1 + sharpe**2 / 2) / n * year) if moving else None, why)
    down = math.sqrt(float(np.mean(np.minimum(r, 0.0) ** 2))) if risky else math.nan
    sheet.put(
        "sortino",
        mean / down * math.sqrt(year) if risky and down > FLAT else None,
        few if not risky else "no session lost money",
    )
    sheet.put("best_session", float(r.max()) if n else None, "needs at least one return")
    sheet.put("worst_session", float(r.min()) if n else None, "needs at least one return")
    sheet.put("positive_sessions", float(np.mean(r > 0)) if risky else None, few)

    fall_T = drawdown(equity_T)
    low = int(np.argmin(fall_T))
    deepest = float(fall_T[low])
    sheet.put("max_drawdown", deepest)
    if deepest < 0:
        peak = int(np.argmax(equity_T[: low + 1]))
        back = np.flatnonzero(equity_T[low:] >= equity_T[peak])
        sheet.values |= {"drawdown_peak": str(days_T[peak]), "drawdown_trough": str(days_T[low])}
        sheet.values["drawdown_recovered"] = str(days_T[low + int(back[0])]) if len(back) else None
        if not len(back):
            sheet.reasons["drawdown_recovered"] = "not recovered by the last session"
    else:
        for name in ("drawdown_peak", "drawdown_trough", "drawdown_recovered"):
            sheet.values[name], sheet.reasons[name] = None, "equity never fell"
    annual = sheet.values["annual_return"]
    sheet.put(
        "calmar",
        annual / -deepest if annual is not None and deepest < 0 else None,
        few_year if annual is None else "equity never fell",
    )
    if benchmark_T is not None:
        _against(sheet, r, benchmark_T, year)
    return sheet.values, sheet.reasons


def _against(sheet: Sheet, r: Floats, benchmark_T: Floats, year: int) -> None:
    """Add beta = cov(r, b) / var(b); alpha = (mean(r) - beta mean(b)) year (Jensen 1968, zero risk-free rate);

    tracking_error = sd(r - b) sqrt(year); information_ratio = mean(r - b) / sd(r - b) sqrt(year) (Grinold and Kahn).
    """
    b = returns(benchmark_T)
    n = len(r)
    few = f"needs at least {LEAST_FOR_RISK} returns, got {n}"
    risky = n >= LEAST_FOR_RISK
    growth = float(benchmark_T[-1] / benchmark_T[0])
    sheet.put("benchmark_total_return", growth - 1.0)
    sheet.put("excess_return", sheet.values["total_return"] - (growth - 1.0))
    sheet.put(
        "benchmark_annual_return",
        growth ** (year / n) - 1.0 if n >= LEAST_FOR_YEAR else None,
        f"needs at least {LEAST_FOR_YEAR} returns to speak of a year, got {n}",
    )
    sheet.put("benchmark_max_drawdown", float(drawdown(benchmark_T).min()))
    spread_b = float(np.std(b, ddof=1)) if risky else 0.0
    sheet.put(
        "benchmark_sharpe",
        float(b.mean()) / spread_b * math.sqrt(year) if spread_b > FLAT else None,
        few if not risky else "does not vary",
    )
    moving = spread_b > FLAT
    beta = float(np.cov(r, b, ddof=1)[0, 1]) / spread_b**2 if moving else None
    why = few if not risky else "the benchmark does not vary"
    sheet.put("beta", beta, why)
    sheet.put("alpha", (float(r.mean()) - beta * float(b.mean())) * year if beta is not None else None, why)
    both = moving and float(np.std(r)) > FLAT
    sheet.put(
        "correlation", float(np.corrcoef(r, b)[0, 1]) if both else None, why if not moving else "returns do not vary"
    )
    active = r - b
    error = float(np.std(active, ddof=1)) if risky else 0.0
    sheet.put("tracking_error", error * math.sqrt(year) if risky else None, few)
    same = few if not risky else "moves exactly as the benchmark does"
    sheet.put("information_ratio", float(active.mean()) / error * math.sqrt(year) if error > FLAT else None, same)


def trading(
    equity_T: Floats,
    traded_T: Floats,
    gross_T: Floats,
    positions_T: Floats,
    costs: Mapping[str, int],
    realised: Sequence[int],
    trades: int,
    year: int,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what trading cost and how often it paid.

    traded_T : (T,) KRW bought and sold in a session; costs : KRW by kind; realised : profit of each closed position
    after costs, KRW. turnover of a session is half of what was traded over the equity before it; turnover_a_year is
    its mean times the sessions of a year; hit_rate is the share of closed positions that made money; exposure is the
    mean of invested value over equity.
    """
    sheet = Sheet()
    n = len(equity_T) - 1
    few = f"needs at least {LEAST_FOR_RISK} sessions, got {n}"
    turnover_T = turnover(traded_T, equity_T)
    sheet.put("turnover_a_year", float(turnover_T[1:].mean()) * year if n >= LEAST_FOR_RISK else None, few)
    sheet.put("turnover_total", float(turnover_T.sum()))
    exposure = np.divide(gross_T, equity_T, out=np.zeros(len(equity_T)), where=equity_T > 0)
    sheet.put("exposure", float(exposure[1:].mean()) if n else None, "needs a session after the first decision")
    sheet.put("positions", float(positions_T[1:].mean()) if n else None, "needs a session after the first decision")
    closed = np.asarray(realised, np.float64)
    sheet.values |= {"trades": trades, "closed_positions": len(closed)}
    none = "no position was closed"
    sheet.put("hit_rate", float(np.mean(closed > 0)) if len(closed) else None, none)
    sheet.put(
        "mean_profit", float(closed[closed > 0].mean()) if (closed > 0).any() else None, "no closed position made money"
    )
    sheet.put(
        "mean_loss",
        float(closed[closed <= 0].mean()) if (closed <= 0).any() else None,
        "no closed position lost money" if len(closed) else none,
    )
    total = sum(costs.values())
    start = float(equity_T[0])
    gain = float(equity_T[-1]) - start + total
    sheet.values["costs"] = {**{k: int(v) for k, v in costs.items()}, "total": int(total)}
    sheet.put("costs_of_capital", total / start)
    sheet.put("costs_of_gross_profit", total / gain if gain > 0 else None, "before costs nothing was gained")
    sheet.put("return_before_costs", gain / start)
    return sheet.values, sheet.reasons


def turnover(traded_T: Floats, equity_T: Floats) -> Floats:
    """Return half of what was traded in each session over the equity after the session before; (T,), zero at the
    first.
    """
    before = np.concatenate([equity_T[:1], equity_T[:-1]])
    return np.asarray(np.divide(traded_T / 2.0, before, out=np.zeros(len(equity_T)), where=before > 0), np.float64)


def monthly(equity_T: Floats, days_T: Days) -> list[tuple[int, int, float]]:
    """Return (year, month, return) for each calendar month; the first starts at the first equity, others at the last
    of the month before.
    """
    months = days_T.astype("datetime64[M]")
    out, before = [], float(equity_T[0])
    for month in np.unique(months):
        last = float(equity_T[np.flatnonzero(months == month)[-1]])
        number = int(month.astype(np.int64))
        out.append((1970 + number // 12, number % 12 + 1, last / before - 1.0 if before > 0 else 0.0))
        before = last
    return out
