"""How strong the planted signal is: the rank information coefficient that knowing the hidden state, or only volumes,
can reach.

A model that scores above `hidden` on unseen days has looked ahead; one that scores near `volume` has found what there
is to find.
"""

import numpy as np

from pipeline import krx
from pipeline.kis.simulator.market import Market
from pipeline.kis.simulator.paths import Floats


def panel(market: Market, start: krx.Day, end: krx.Day) -> tuple[krx.Days, dict[str, Floats]]:
    """Return (days, fields) with one column for each symbol, NaN where it does not trade: open (adjusted by the actions
    so far), volume (adjusted) and state (the hidden state)."""
    days = krx.sessions(start, end)
    shape = (len(days), len(market.listings))
    fields = {name: np.full(shape, np.nan) for name in ("open", "volume", "state")}
    for column, item in enumerate(market.listings):
        if item.listed > market.today():
            continue
        rows = market.daily(item.symbol, start, end)
        at = np.searchsorted(days, rows["date"])
        factor = np.ones(len(at))
        for action in market.actions(item.symbol).to_pylist():
            factor[rows["date"] >= np.datetime64(action["ex_date"])] *= action["factor"]
        fields["open"][at, column] = rows["open"] * factor
        fields["volume"][at, column] = np.where(rows["halted"], np.nan, rows["volume"] / factor)
        known, state = market.signal(item.symbol)
        inside = np.isin(days, known)
        fields["state"][inside, column] = state[np.searchsorted(known, days[inside])]
    return days, fields


def rank_ic(score: Floats, target: Floats) -> Floats:
    """Return the rank correlation of each day's cross-section, (T,); NaN where fewer than five symbols have both."""
    out = np.full(len(score), np.nan)
    for day, (left, right) in enumerate(zip(score, target)):
        both = ~(np.isnan(left) | np.isnan(right))
        if both.sum() >= 5:
            ranks = [np.argsort(np.argsort(values[both])).astype(np.float64) for values in (left, right)]
            out[day] = np.corrcoef(ranks[0], ranks[1])[0, 1]
    return out


def attainable_ic(market: Market, start: krx.Day, end: krx.Day, horizon: int = 5) -> dict[str, float]:
    """Measure the mean daily rank IC against the return from the next opening to the one `horizon` sessions later.

    hidden: of the state itself; volume: of log(mean volume of 3 days / mean of the 60 before them), which any client
    can compute.
    """
    _, fields = panel(market, start, end)
    opening = fields["open"]
    target = np.full_like(opening, np.nan)
    target[: -horizon - 1] = opening[horizon + 1 :] / opening[1:-horizon] - 1.0
    volume = fields["volume"]
    total = np.cumsum(np.nan_to_num(volume), axis=0)
    relative = np.full_like(volume, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative[63:] = np.log((total[63:] - total[60:-3]) / 3.0) - np.log((total[60:-3] - total[:-63]) / 60.0)
    relative[~np.isfinite(relative)] = np.nan
    return {
        "hidden": float(np.nanmean(rank_ic(fields["state"], target))),
        "volume": float(np.nanmean(rank_ic(relative, target))),
    }
