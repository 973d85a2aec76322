"""The backtest's settings, apart from the engine so that reading a configuration compiles nothing."""

from __future__ import annotations

from typing import Literal

from storage.section import Section, setting

FEW_SYMBOLS = 20


class BacktestError(Exception):
    """Scores or bars that cannot be backtested: the message says expected, got, where, what to do."""


class BacktestSection(Section):
    """How scores become a portfolio, and what trading costs."""

    model: Literal["auto", "lstm", "tcn", "transformer", "ridge", "trees"] = setting(
        "auto",
        "whose scores are traded; auto = the model of the registry that predict takes, or the first of train.models, "
        "the baseline ridge last",
    )
    split: Literal["valid", "test"] = setting("test", "which part of the predictions is traded")
    mode: Literal["auto", "top_k", "time_series"] = setting(
        "auto",
        "top_k: hold the k best scores; time_series: hold each symbol whose score is above a threshold fitted on the "
        "validation split; "
        f"auto: time_series below {FEW_SYMBOLS} symbols, else top_k",
    )
    k: int = setting(10, "positions of a top-k portfolio", unit="symbols", ge=1, le=10_000)
    rebalance: int = setting(5, "sessions from one decision to the next", unit="sessions", ge=1, le=260)
    capital: int = setting(100_000_000, "money at the start", unit="KRW", ge=100_000, le=1_000_000_000_000)
    commission_bp: float = setting(1.5, "broker's commission, each way; whole won, truncated", unit="bp", ge=0, le=100)
    slippage_bp: float = setting(
        5.0,
        "how much worse than the printed price an order fills, before rounding to the tick",
        unit="bp",
        ge=0,
        le=500,
    )
    participation: float = setting(
        0.1, "largest share of a session's volume that an order may take", unit="ratio", gt=0, le=1
    )
