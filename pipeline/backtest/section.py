"""The backtest's settings, apart from the engine so that reading a configuration compiles nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from storage.section import Section, setting

from ..indicators import Spec, resolve
from ..indicators.columns import spec_of
from ..indicators.spec import IndicatorError

FEW_SYMBOLS = 20
LONGEST_REBALANCE = 260


class BacktestError(Exception):
    """Scores or bars that cannot be backtested: the message says expected, got, where, what to do."""


class FeatureColumn(Section):
    """Ask for a column of the features stage."""

    column: str = setting(..., "its name, as in columns.json", min_length=1)


class BacktestSection(Section):
    """How scores become a portfolio, and what trading costs."""

    scores: Literal["predictions"] | Spec | FeatureColumn = setting(
        "predictions",
        "what is traded: predictions; an indicator of daily bars, {indicator: roc, params: {n: 20}}; or a column of "
        "the features stage, {column: rsi_14}. The last two need no model",
    )
    invert: bool = setting(False, "trade an indicator or column the other way round: the lowest is the best")
    model: Literal["auto", "lstm", "tcn", "transformer", "ridge", "trees"] = setting(
        "auto",
        "whose scores are traded; auto = the model of the registry that predict takes, or the first of train.models, "
        "the baseline ridge last",
    )
    split: Literal["auto", "valid", "test"] = setting(
        "auto",
        "which part of the predictions is traded; auto: test. Other scores are traded in all sessions (auto) or in "
        "those of that part, which asks for predictions too",
    )
    first: date | None = setting(None, "first day that is traded; none = the first there is")
    last: date | None = setting(None, "last day; none = the last there is")
    mode: Literal["auto", "top_k", "quantile", "drop_out", "time_series"] = setting(
        "auto",
        "top_k: hold the k best scores; quantile: hold the best of so many quantiles; drop_out: hold k, of which a "
        "decision replaces the few worst; time_series: hold each symbol whose score is above a threshold fitted on the "
        "validation split; "
        f"auto: time_series below {FEW_SYMBOLS} symbols, else top_k",
    )
    direction: Literal["long", "long_short"] = setting(
        "long", "long_short: the worst scores are sold short as the best are bought, each side up to all of equity"
    )
    k: int = setting(10, "positions of a top-k or drop-out portfolio, a side", unit="symbols", ge=1, le=10_000)
    quantiles: int = setting(10, "quantiles that the scores are cut into by quantile", ge=2, le=100)
    quantiles_held: int = setting(1, "how many of the best are held, and of the worst sold short", ge=1, le=99)
    drop: int = setting(2, "most positions that a decision of drop_out replaces, a side", unit="symbols", ge=1, le=1000)
    weights: Literal["equal", "rank", "score", "inverse_volatility"] = setting(
        "equal",
        "how a side is shared out. rank: by place, the last chosen 1; score: by distance from the best not chosen; "
        "inverse_volatility: by 1 / standard deviation of daily returns",
    )
    volatility_window: int = setting(
        60, "sessions up to the decision whose returns inverse_volatility reads", unit="sessions", ge=5, le=520
    )
    max_weight: float = setting(
        1.0, "largest share of equity in one symbol; what it cuts stays cash", unit="ratio", gt=0, le=1
    )
    rebalance: int | Literal["weekly", "monthly", "quarterly"] = setting(
        5,
        f"sessions from one decision to the next, 1 to {LONGEST_REBALANCE}; weekly, monthly, quarterly: at the last "
        "session of the period by the calendar",
    )
    benchmark: str = setting(
        "equal",
        "what the portfolio is held against: equal or cap (by market value) weights of all symbols, none (money that "
        "earns nothing), or a symbol or index of the data",
        min_length=1,
    )
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
    borrow_bp: float = setting(
        250.0,
        "what borrowed shares cost a year, by calendar days on the last close; whole won, truncated",
        unit="bp",
        ge=0,
        le=10_000,
    )

    @field_validator("rebalance", mode="before")
    @classmethod
    def _schedule(cls, given: Any) -> Any:
        periods = ("weekly", "monthly", "quarterly")
        number = int(given) if str(given).isdecimal() else 0
        if given not in periods and not 1 <= number <= LONGEST_REBALANCE:
            raise ValueError(f"expected 1 to {LONGEST_REBALANCE} sessions, or {', '.join(periods)}, got '{given}'")
        return number or given

    @field_validator("scores", mode="before")
    @classmethod
    def _source(cls, given: Any) -> Any:
        if given == "predictions" or isinstance(given, FeatureColumn):
            return given
        column = given.get("column") if isinstance(given, Mapping) and len(given) == 1 else None
        if isinstance(column, str) and column:
            return given
        if not isinstance(given, Mapping | Spec) or "column" in dict(given):
            raise ValueError(
                "expected predictions, an indicator such as {indicator: roc, params: {n: 20}}, or a column of the "
                f"features stage, {{column: rsi_14}}, got {given!r}"
            )
        try:
            spec = spec_of(given)
            names = [column.name for column in resolve([spec])]
        except IndicatorError as error:
            raise ValueError(str(error)) from error
        if spec.names:
            raise ValueError(f"expected no names of one's own for what is traded, got {spec.names}; leave 'names' out")
        if len(names) != 1:
            raise ValueError(
                f"expected one column to trade, got {len(names)} of indicator '{spec.indicator}': {', '.join(names)}; "
                "name one of its outputs with outputs: [...], and one value of each parameter"
            )
        return spec

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the stages whose results are read besides those of ingest."""
        features = ("features",) if isinstance(self.scores, FeatureColumn) else ()
        predict = ("predict",) if self.scores == "predictions" or self.split != "auto" else ()
        return features + predict

    @property
    def part(self) -> str:
        """Return the part of the predictions whose sessions are traded; "all" = no part."""
        if self.split != "auto":
            return self.split
        return "test" if self.scores == "predictions" else "all"

    @model_validator(mode="after")
    def _together(self) -> Self:
        """Refuse settings that contradict each other, or that would have no effect."""
        predicted = self.scores == "predictions"
        given = "predictions" if predicted else "other scores"
        self._refuse("model", predicted, "backtest.scores predictions", given)
        self._refuse("invert", not predicted, "backtest.scores of an indicator or a column", given)
        if self.first and self.last and self.first > self.last:
            raise ValueError(f"expected backtest.first not after backtest.last, got {self.first} and {self.last}")
        for name, needed, meant in (
            ("k", "top_k or drop_out", self.mode in ("auto", "top_k", "drop_out")),
            ("quantiles", "quantile", self.mode == "quantile"),
            ("quantiles_held", "quantile", self.mode == "quantile"),
            ("drop", "drop_out", self.mode == "drop_out"),
        ):
            self._refuse(name, meant, f"backtest.mode {needed}", self.mode)
        if self.mode == "drop_out" and self.drop > self.k:
            raise ValueError(f"expected backtest.drop of at most backtest.k, got {self.drop} and {self.k}")
        self._refuse("borrow_bp", self.direction == "long_short", "backtest.direction long_short", self.direction)
        inverse = self.weights == "inverse_volatility"
        self._refuse("volatility_window", inverse, "backtest.weights inverse_volatility", self.weights)
        if self.mode == "drop_out" and self.weights != "equal":
            raise ValueError(
                "expected backtest.weights equal for backtest.mode drop_out, which leaves what it keeps as it is, "
                f"got {self.weights}"
            )
        sides = 2 if self.direction == "long_short" else 1
        if self.quantiles_held * sides > self.quantiles:
            raise ValueError(
                f"expected backtest.quantiles_held of at most {self.quantiles // sides} for {self.quantiles} quantiles "
                f"and direction {self.direction}, got {self.quantiles_held}: a symbol would be on both sides or in none"
            )
        return self

    def _refuse(self, name: str, meant: bool, needed: str, got: str) -> None:
        value = getattr(self, name)
        if not meant and value != type(self).model_fields[name].default:
            raise ValueError(f"expected {needed} for backtest.{name} {value}, got {got}, where it has no effect")
