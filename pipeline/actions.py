"""Corporate actions: found where the exchange's base price leaves the previous close, applied without looking ahead.

Prices are kept raw. An adjusted price is raw times the product of the factors up to that bar, so that a later action changes nothing
before it and nothing stored is ever rewritten. Prices adjusted the usual way, backwards from today, are for display only.
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
    """Return bars on one basis: open, high, low, close times the product of the factors with ex_date <= the bar's KST date.

    bars : pandas or cuDF frame sorted by (symbol, ts), with symbol, ts (UTC), prices (KRW, raw) and volume (shares); NaN stays NaN.
    actions : ACTIONS rows in any order, of any symbols. Volume is divided by the product, turnover stays as it is.
    Sees actions up to each bar's own day only: actions and bars that come later change no value before them. Raises ValueError
    for a factor that is not a positive number.
    """
    factors = np.asarray(actions["factor"].to_numpy(), np.float64)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise ValueError(f"expected positive factors in actions, got {factors.min() if factors.size else factors}; correct the rows")
    if len(bars) == 0 or factors.size == 0:
        return bars.copy()
    order = ["symbol", "ex_date", "kind", "source"]
    actions = actions.sort_by([(name, "ascending") for name in order if name in actions.column_names])
    symbol = bars["symbol"]
    starts = np.flatnonzero((symbol != symbol.shift(1)).to_numpy())
    ends = np.append(starts[1:], len(bars))
    first = symbol.iloc[starts]
    names = (first.to_pandas() if hasattr(first, "to_pandas") else first).tolist()
    place = {name: span for name, *span in zip(names, starts.tolist(), ends.tolist())}
    ts = np.asarray(bars["ts"].astype("int64").to_numpy()).view(f"datetime64[{np.datetime_data(_unit(bars))[0]}]")
    product = np.ones(len(bars))
    for name, day, factor in zip(
        actions["symbol"].to_pylist(), actions["ex_date"].to_numpy().astype("datetime64[D]"), actions["factor"].to_pylist()
    ):
        if name in place:
            start, end = place[name]
            product[start + int(np.searchsorted(ts[start:end], day - _KST)) : end] *= factor
    out = bars.copy()
    for name in PRICES:
        if name in out.columns:
            out[name] = out[name] * product
    if "volume" in out.columns:
        out["volume"] = out["volume"] / product
    return out
