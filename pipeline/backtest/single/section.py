"""Settings of strategies' runs and of their search, apart from the engine so that reading a configuration compiles
nothing.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator

from storage.section import Section, setting

from ..money import RATE


class AccountSection(Section):
    """Money, size of positions and costs of a strategy's run; the same for every combination and symbol."""

    capital: int = setting(100_000_000, "money at the start", unit="money units", ge=1_000, le=1_000_000_000_000)
    direction: Literal["both", "long", "short"] = setting(
        "long", "sides that may be taken; a step that wants the other one leaves what is held"
    )
    size: float = setting(1.0, "value of a position at its decision", unit="share of equity", gt=0, le=1)
    risk: float = setting(
        0.0,
        "loss at the stop, which makes positions smaller where the stop is far; 0 = not used, and without a stop",
        unit="share of equity",
        ge=0,
        le=1,
    )
    commission_bp: float = setting(
        1.5, "broker's commission, each way; truncated to whole units", unit="bp", ge=0, le=100
    )
    sale_tax_bp: float | None = setting(
        None, "tax on sales; none = the exchange's dated one in Korea, 0 elsewhere", unit="bp", ge=0, le=1_000
    )
    slippage_bp: float = setting(
        5.0,
        "how much worse than the price orders at the market and stops fill, before the tick",
        unit="bp",
        ge=0,
        le=500,
    )
    borrow_bp: float = setting(250.0, "cost of borrowed shares, a year by calendar days", unit="bp", ge=0, le=10_000)
    participation: float = setting(
        0.1, "largest share of a bar's volume that orders may take", unit="ratio", gt=0, le=1
    )
    unit: float = setting(1.0, "smallest unit of money: 1 = won, 0.01 = cents", unit="prices' currency", gt=0, le=1)
    lot: float = setting(1.0, "smallest amount that is traded, 0.001 of a coin", unit="shares", gt=0, le=1_000_000)

    def array(self) -> Any:
        """Return what the event loop reads, (8,) float64, see CAPITAL in event.py; money in units."""
        return np.array(
            [
                self.capital,
                round(self.commission_bp * RATE / 10_000),
                self.slippage_bp / 10_000,
                self.size,
                self.risk,
                self.direction != "short",
                self.direction != "long",
                round(self.borrow_bp * RATE / 10_000),
            ],
            np.float64,
        )


class MetaSection(Section):
    """How the meta-optimiser searches, and when it stops."""

    samples: int = setting(1_000, "combinations drawn in an iteration", unit="combinations", ge=16, le=100_000)
    iterations: int = setting(5, "iterations at most", ge=1, le=50)
    quantile: float = setting(
        0.1, "the best of an iteration, round which ranges are narrowed", unit="share", gt=0, le=0.5
    )
    gain: float = setting(
        0.02,
        "share by which the mean score of the best has to grow in an iteration; the search stops below it",
        unit="ratio",
        ge=0,
        le=1,
    )
    inside: float = setting(
        0.7, "sessions in which combinations are chosen; the others judge", unit="share", gt=0, lt=1
    )
    periods: int = setting(
        1, "parts of the inside whose Sharpe ratios are averaged: more ask for steadier results", ge=1, le=16
    )
    least_trades: int = setting(
        10, "trades that a combination must make inside, on the average of symbols", unit="trades", ge=0
    )
    top: int = setting(20, "combinations that the bank keeps", ge=1, le=10_000)
    seed: int = setting(0, "seed of the draws", ge=0)


class OptimizeSection(MetaSection):
    """Which strategy is searched, over which bars; scripts/optimize.py."""

    strategy: str = setting("moving_average_cross", "a strategy of pipeline/strategies", min_length=1)
    interval: str = setting("1d", "interval of the bars that are traded", min_length=2)
    symbols: tuple[str, ...] = setting((), "symbols; none = all that were ingested")
    first: date | None = setting(None, "first day that is traded; none = the first there is")
    last: date | None = setting(None, "last day; none = the last there is")
    ranges: dict[str, list[float | str]] = setting(
        dict, "narrower ranges by parameter: [low, high], a list of values, or one value; others as declared"
    )
    earlier: int = setting(
        0, "combinations that were tried on these bars in earlier searches; they count as trials", ge=0, unit="trials"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first and self.last and self.first > self.last:
            raise ValueError(f"expected optimize.first not after optimize.last, got {self.first} and {self.last}")
        return self
