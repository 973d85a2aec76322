"""What a frame must be to be the bars of instruments; everything else is refused with the row and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline import krx
from pipeline.indicators.timeframes import length_of
from pipeline.strategies.declare import StrategyError
from pipeline.tradable import MARKETS

Array = npt.NDArray[Any]
PRICES = ("open", "high", "low", "close")
UNNAMED = "bars"  # the symbol of bars that have none


def of_symbol(symbol: str) -> str:
    """Return " of SYMBOL" for a message about its bars; nothing for bars without a symbol."""
    return "" if symbol == UNNAMED else f" of {symbol}"


def interval_of(bars: Any) -> str:
    """Return the interval of a frame of bars by the commonest distance of its stamps."""
    if "interval" in bars and len(bars):
        return str(bars["interval"].iloc[0])
    gaps = np.diff(bars["ts"].to_numpy().astype("datetime64[m]").astype(np.int64))
    if not gaps.size:
        raise StrategyError("expected at least two bars to tell their interval, got one; give interval=")
    values, counts = np.unique(gaps, return_counts=True)
    minutes = int(values[np.argmax(counts)])
    for known in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "1d", "1w", "1mo"):
        if length_of(known) == minutes:
            return known
    raise StrategyError(
        f"expected bars of a known interval, got {minutes} minutes between most of them; give interval="
    )


def check_interval(symbol: str, bars: Any, interval: str) -> None:
    """Refuse bars that are much finer than what they are said to be; sparse ones, and a short last one, are fine."""
    gaps = np.diff(bars["ts"].to_numpy().astype("datetime64[m]").astype(np.int64))
    if interval and gaps.size and 2 * np.median(gaps) <= length_of(interval):
        raise StrategyError(
            f"expected bars of {interval}{of_symbol(symbol)}, got {np.median(gaps):g} minutes between them; correct "
            "interval="
        )


def check_venue(venue: Any) -> None:
    """Refuse what is no name, and another spelling of a venue with rules of its own."""
    known = (*krx.VENUES, "FX")
    if not isinstance(venue, str) or not venue:
        raise StrategyError(
            f"expected the name of a venue ({', '.join(known)}, or 24h for one without hours), got {venue!r}"
        )
    if venue not in known and venue.upper() in known:
        raise StrategyError(f"expected a venue, got '{venue}'; did you mean '{venue.upper()}'?")
    if venue.upper() in ("KOSPI", *MARKETS):
        raise StrategyError(
            f"expected a venue, got '{venue}', which is a market of KRX; give venue='KRX', and the market of a symbol "
            "with listing="
        )


def _numbers(frame: Any, name: str) -> Array:
    try:
        return np.asarray(frame[name].to_numpy(np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        raise StrategyError(
            f"expected numbers as {name} of bars, got {error}; convert with pandas.to_numeric"
        ) from error


def checked(frame: Any) -> Any:
    """Refuse what is no frame of bars; return it with symbol, and ts in UTC without a zone."""
    missing = [name for name in ("ts", *PRICES) if name not in getattr(frame, "columns", ())]
    if missing:
        raise StrategyError(f"expected bars with ts, open, high, low, close, got none of {', '.join(missing)}")
    if not len(frame):
        raise StrategyError("expected bars, got an empty frame; widen the range or check the symbol")
    out = frame.copy(deep=False)
    if "symbol" not in out:
        out["symbol"] = UNNAMED
    ts = out["ts"]
    if not pd.api.types.is_datetime64_any_dtype(ts):
        raise StrategyError(f"expected ts as datetimes (UTC), got {ts.dtype}; convert with pandas.to_datetime")
    if ts.isna().any() or out["symbol"].isna().any():
        row = int(np.flatnonzero((ts.isna() | out["symbol"].isna()).to_numpy())[0])
        raise StrategyError(f"expected a ts and a symbol for each bar, got none in row {row}; drop or mend it")
    out["ts"] = (ts if ts.dt.tz is None else ts.dt.tz_convert("UTC").dt.tz_localize(None)).dt.as_unit("us")
    stamp = out["ts"].to_numpy()
    if (part := stamp.astype(np.int64) % 60_000_000).any():  # coarser bars would come a bar too late
        row = int(np.flatnonzero(part)[0])
        raise StrategyError(
            f"expected the ends of bars on whole minutes as ts, got {ts.iloc[row]} in row {row}; round them up with "
            ".dt.ceil('min')"
        )
    out = out.reset_index(drop=True)
    code, found = pd.factorize(out["symbol"])
    names = np.array([str(name) for name in found])
    place = np.searchsorted(np.unique(names), names)[code]
    symbol = names[code]
    if not pd.api.types.is_string_dtype(out["symbol"]):
        out["symbol"] = symbol
    wrong = np.flatnonzero((place[1:] < place[:-1]) | ((place[1:] == place[:-1]) & (stamp[1:] <= stamp[:-1])))
    if wrong.size:
        row = int(wrong[0]) + 1
        raise StrategyError(
            f"expected bars sorted by (symbol, ts), each once, got {symbol[row]} {stamp[row]} after {stamp[row - 1]} "
            f"in row "
            f"{row}; sort and drop duplicates"
        )
    values = np.stack([_numbers(out, name) for name in PRICES], 1)
    for name, column in zip(PRICES, values.T):
        if out[name].dtype != np.float64:
            out[name] = column
    good = np.isfinite(values) & (values > 0)
    halted = good[:, 3] & np.isnan(values[:, :3]).all(axis=1)
    with np.errstate(invalid="ignore"):
        whole = good.all(axis=1) & (values[:, 1] >= values.max(axis=1)) & (values[:, 2] <= values.min(axis=1))
    bad = np.flatnonzero(~whole & ~halted)
    if bad.size:
        row = int(bad[0])
        told = ", ".join(f"{name} {value:g}" for name, value in zip(PRICES, values[row]))
        raise StrategyError(
            f"expected positive prices with low <= open, close <= high (or open, high and low NaN together: a halt), "
            f"got "
            f"{told} for {symbol[row]} at {stamp[row]} in row {row} ({bad.size} such rows); drop or mend them"
        )
    if halted.all():
        raise StrategyError(
            "expected bars with open, high and low, got closes only; stops cannot be told by closes: the portfolio "
            "backtest trades them"
        )
    if "volume" in out:
        out["volume"] = _numbers(out, "volume")
        bad = np.flatnonzero((out["volume"] < 0) | np.isinf(out["volume"]))
        if bad.size:
            row = int(bad[0])
            raise StrategyError(
                f"expected a volume of 0 or more shares (or NaN: not known), got {out['volume'][row]:g} for "
                f"{symbol[row]} at {stamp[row]} in row {row} ({bad.size} such rows); drop or mend them"
            )
    return out
