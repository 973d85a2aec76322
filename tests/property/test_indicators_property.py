"""Promises of all indicators at once over drawn bars: causal, independent of cuts, order and neighbours, whatever the
prices are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.indicators import ALL, Spec, compute, plan_of, reads, resolve, rows_of
from pipeline.recurrence import Carry, Series, run
from tests.walks import Array, Bars, flat, frame

SPECS = [Spec(indicator=one.name) for one in ALL] + [
    Spec(indicator="sma", params={"n": 5}, over="close"),
    Spec(indicator="bollinger", params={"n": 4, "k": 1}),
    Spec(indicator="volatility", params={"n": 3}),
    Spec(indicator="aroon", params={"n": 3}),
]
COLUMNS = resolve(SPECS)
PLAN = plan_of(COLUMNS)
PRICES = ("open", "high", "low", "close")
DECADES = [5e-324, 1e-310, 1e-9, 1.0, 999.0, 50_000.0, 1e12, 1e100]  # denormal to absurd

QUICK = settings(max_examples=40, deadline=None)


@st.composite
def series(draw: st.DrawFn, holes: bool = True) -> Bars:
    """Draw one series: a walk, a constant, steps of a tick or jumps between decades; volumes may be zero, rows may have
    holes.
    """
    n = draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    level = draw(st.sampled_from(DECADES))
    kind = draw(st.sampled_from(["walk", "constant", "ticks", "jumps"]))
    if kind == "walk":
        close = level * np.exp(np.cumsum(rng.normal(0, 0.05, n)))
    elif kind == "constant":
        close = np.full(n, level)
    elif kind == "ticks":
        close = 1000.0 + 5.0 * np.cumsum(rng.integers(-1, 2, n))
    else:
        close = rng.choice(DECADES, n)
    spread = draw(st.sampled_from([0.0, 0.03]))
    bars = {
        "open": close,
        "high": close * (1 + spread * rng.random(n)),
        "low": close * (1 - spread * rng.random(n)),
        "close": close,
        "volume": np.floor(rng.lognormal(8, 2, n)) * (rng.random(n) > draw(st.sampled_from([0.0, 0.3, 1.0]))),
        "market": 2_500.0 * np.exp(np.cumsum(rng.normal(0, 0.02, n))),
        "day": np.floor(np.arange(n) / draw(st.integers(1, 20))),
    }
    bars["turnover"] = bars["volume"] * bars["low"]
    if holes and draw(st.booleans()):
        for name in ("high", "close", "volume", "turnover"):
            bars[name] = np.where(rng.random(n) < 0.15, np.nan, bars[name])
    return bars


@st.composite
def markets(draw: st.DrawFn) -> pd.DataFrame:
    found = draw(st.lists(series(), min_size=1, max_size=5))
    return frame({f"{i:06d}": one for i, one in enumerate(found)})


def values(bars: pd.DataFrame) -> Array:
    return compute(bars, SPECS, dtype=np.float64).to_numpy()


@QUICK
@given(markets(), st.data())
def test_what_comes_later_changes_nothing(bars: pd.DataFrame, data: st.DataObject) -> None:
    """C1, C2: at t, the history up to t, the whole of it, and a poisoned future say the same, bit for bit."""
    whole = values(bars)
    cut = bars["ts"].min() + pd.Timedelta(days=data.draw(st.integers(0, 89), "last day"))
    past = (bars["ts"] <= cut).to_numpy()
    np.testing.assert_array_equal(values(bars[past]), whole[past])
    poisoned = bars.copy()
    for name in ("high", "low", "close", "volume", "turnover", "market"):
        poisoned.loc[~past, name] = data.draw(st.sampled_from([np.nan, np.inf, 0.0, -1.0, 1e300]), name)
    np.testing.assert_array_equal(values(poisoned)[past], whole[past])


@QUICK
@given(st.lists(series(holes=False), min_size=1, max_size=6), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_batch_is_incremental(found: list[Bars], longest: int, seed: int) -> None:
    """C4: any chunks, different ones for every series, give the bits of the whole."""
    src, places = flat(found, rows_of(COLUMNS))
    whole, parts = np.empty((2, len(COLUMNS), src.shape[1]))
    run(PLAN, src, places, whole)
    rng, carry = np.random.default_rng(seed), Carry.fresh(PLAN, len(found))
    at = np.zeros(len(found), np.int64)
    while (at < places.lengths).any():
        step = np.minimum(rng.integers(0, longest + 1, at.size), places.lengths - at)
        run(PLAN, src, Series(places.starts + at, step), parts, carry=carry)
        at += step
    np.testing.assert_array_equal(parts, whole)


@QUICK
@given(markets(), st.data())
def test_order_and_company_of_symbols_do_not_matter(bars: pd.DataFrame, data: st.DataObject) -> None:
    """C6: other names, so another order, and any part of the market give each symbol the same bits."""
    whole = values(bars)
    names = sorted(bars["symbol"].unique())
    other = dict(zip(names, data.draw(st.permutations([f"Z{i}" for i in range(len(names))]), "names")))
    renamed = bars.assign(symbol=bars["symbol"].map(other).astype("str")).sort_values(["symbol", "ts"])
    np.testing.assert_array_equal(values(renamed), whole[renamed.index])
    some = bars[bars["symbol"].isin(data.draw(st.sets(st.sampled_from(names), min_size=1), "part"))]
    np.testing.assert_array_equal(values(some), whole[some.index])


@QUICK
@given(series())
def test_rows_with_holes_hold_the_state(bars: Bars) -> None:
    """The bars around holes say what they say when the holes are not there at all."""
    whole, some = frame({"A": bars}), frame({"A": bars}).dropna(subset=list(reads(COLUMNS)))
    got = values(whole)
    np.testing.assert_array_equal(got[some.index], values(some))
    assert np.isnan(np.delete(got, some.index, axis=0)).all()
