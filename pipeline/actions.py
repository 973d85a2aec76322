"""Corporate actions: found where the exchange's base price leaves the previous close, applied without looking ahead.

Prices are kept raw. An adjusted price is raw times the product of the factors up to that bar, so that a later
action changes nothing before it and nothing stored is ever rewritten. Prices adjusted the usual way, backwards from
today, are for display only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.schema import ACTIONS

from . import krx

PRICES = ("open", "high", "low", "close")
REASONS = {"01": "spin_off", "02": "capital_reduction"}  # revl_issu_reas
RIGHTS = frozenset({"01", "04", "06", "07"})  # flng_cls_code: ex-rights, alone or with a dividend
WHOLE = 0.02  # a split's base is rounded to a tick: so far may its factor be from a whole number or the inverse of one
_KST = np.timedelta64(9, "h")


def adjust(bars: Any, actions: pa.Table) -> Any:
    """Return bars on one basis: prices times the product of the factors with ex_date <= the bar's KST date.

    bars : pandas or cuDF frame sorted by (symbol, ts): symbol, ts (UTC), prices (KRW, raw; NaN stays), volume (shares).
    actions : ACTIONS rows in any order, of any symbols; without any the frame itself is returned. Volume is divided by
    the product, turnover stays as it is.
    Sees actions up to each bar's own day only: actions and bars that come later change no value before them.
    Raises ValueError for a factor that is not a positive number and for bars whose symbols are not sorted.
    """
    factors = np.asarray(actions["factor"].to_numpy(), np.float64)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(
            f"expected positive factors in actions, got {factors.min() if factors.size else factors}; correct the rows"
        )
    if len(bars) == 0 or factors.size == 0:
        return bars
    order = ["symbol", "ex_date", "kind", "source"]
    actions = actions.sort_by([(name, "ascending") for name in order if name in actions.column_names])
    symbol = bars["symbol"]
    starts = np.flatnonzero((symbol != symbol.shift(1)).fillna(True).to_numpy())
    ends = np.append(starts[1:], len(bars))
    first = symbol.iloc[starts]
    names = (first.to_pandas() if hasattr(first, "to_pandas") else first).tolist()
    if len(set(names)) != len(names):
        raise ValueError(
            f"expected bars sorted by (symbol, ts), got {len(names)} runs of {len(set(names))} symbols; sort them"
        )
    place = {name: span for name, *span in zip(names, starts.tolist(), ends.tolist())}
    ts = bars["ts"].dt.tz_localize(None).to_numpy()
    product = np.ones(len(bars))
    days = actions["ex_date"].to_numpy().astype("datetime64[D]")
    for name, day, factor in zip(actions["symbol"].to_pylist(), days, actions["factor"].to_pylist()):
        if name in place:
            start, end = place[name]
            product[start + int(np.searchsorted(ts[start:end], day - _KST)) : end] *= factor
    column = type(symbol)(product, index=bars.index)
    out = bars.copy()
    for name in PRICES:
        if name in out.columns:
            out[name] = out[name] * column
    if "volume" in out.columns:
        out["volume"] = out["volume"] / column
    return out


def detect(daily: pa.Table) -> pa.Table:
    """Return the ACTIONS that a table of daily bars shows: factor = previous close / base price where the two differ.

    daily : BARS rows (raw, KRW) with a column base (KRW, close - change; NaN = unknown), any order, any number of
    symbols. Columns lock (flng_cls_code), ratio (base / previous close in %, 0 = none) and reason (revl_issu_reas)
    name the kind where present. A previous close counts only from the session just before, since across a gap the two
    prices differ anyway, and only if its bar ended with the regular session: base prices follow from that close and not
    from the last price of an evening. Elsewhere the ratio decides, if given. The first bar of a symbol has no previous
    close.
    """
    order = [("symbol", "ascending"), ("ts", "ascending")]
    daily = daily.sort_by(order).combine_chunks()
    symbol = daily["symbol"].to_numpy(zero_copy_only=False)
    days = (daily["ts"].to_numpy().astype("datetime64[us]") + _KST).astype("datetime64[D]")
    close, base = daily["close"].to_numpy(), daily["base"].to_numpy()
    same = np.append(False, symbol[1:] == symbol[:-1]) if len(symbol) else np.zeros(0, bool)
    before = np.append(np.nan, close[:-1])
    follows = same & np.append(False, _sessions_between(days[:-1], days[1:]) == 1) if len(symbol) else same
    regular = daily["ts"].to_numpy().astype("datetime64[us]") <= krx.session_closes(days.astype("datetime64[D]"))
    follows = follows & np.append(False, regular[:-1])[: len(symbol)]
    ratio = daily["ratio"].to_numpy() if "ratio" in daily.column_names else np.zeros(len(symbol))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(follows, before / base, np.where(same & (ratio > 0), 100 / ratio, np.nan))
    found = np.flatnonzero(np.isfinite(factor) & (factor > 0) & (factor != 1))
    picked = daily.take(pa.array(found))
    empty = [""] * len(found)
    codes = {n: picked[n].to_pylist() if n in picked.column_names else empty for n in ("lock", "reason")}
    kinds = [_kind(*values) for values in zip(factor[found].tolist(), codes["lock"], codes["reason"])]
    return pa.table(
        [
            picked["symbol"],
            pa.array(days[found]),
            pa.array(kinds, pa.string()),
            factor[found],
            picked["source"],
            picked["ingested_at"],
        ],
        schema=ACTIONS,
    )


def _sessions_between(earlier: npt.NDArray[np.datetime64], later: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    if not earlier.size:
        return np.zeros(0, np.int64)
    every = krx.sessions(
        max(min(earlier.min(), later.min()), krx.FIRST), min(max(earlier.max(), later.max()), krx.LAST)
    )
    return np.searchsorted(every, later) - np.searchsorted(every, earlier)


def _kind(factor: float, lock: str, reason: str) -> str:
    if reason in REASONS:
        return REASONS[reason]
    if lock in RIGHTS:
        return "rights"
    times = max(factor, 1 / factor)
    if lock in ("", "00") and reason in ("", "00") and round(times) > 1 and abs(times / round(times) - 1) < WHOLE:
        return "split"
    return "other"
