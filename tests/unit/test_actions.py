"""Adjusting looks only back, and actions are found exactly where the base price leaves the previous close."""

import math
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.actions import adjust, detect
from storage.schema import ACTIONS, BARS

SESSIONS = krx.sessions(date(2024, 1, 2), date(2024, 3, 29))
CLOSES = krx.session_closes(SESSIONS)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def actions_of(rows: list[tuple[str, date, float]]) -> pa.Table:
    columns = [[r[0] for r in rows], [r[1] for r in rows], ["split"] * len(rows), [r[2] for r in rows]]
    return pa.table([*columns, ["x"] * len(rows), [NOW] * len(rows)], schema=ACTIONS)


def bars_of(
    symbol: str, close: list[float], base: list[float], skip: tuple[int, ...] = (), **codes: list[str]
) -> pa.Table:
    kept = [i for i in range(len(close)) if i not in skip]
    ts = pa.array(CLOSES[: len(close)][kept]).cast(pa.timestamp("us", tz="UTC"))
    price = pa.array([close[i] for i in kept], pa.float64())
    n = len(kept)
    columns = [
        [symbol] * n,
        ["KRX"] * n,
        ["1d"] * n,
        ts,
        price,
        price,
        price,
        price,
        [10.0] * n,
        price,
        ["x"] * n,
        [NOW] * n,
    ]
    table = pa.table(columns, schema=BARS).append_column("base", pa.array([base[i] for i in kept], pa.float64()))
    for name, values in codes.items():
        table = table.append_column(name, pa.array([values[i] for i in kept]))
    return table


def frame_of(symbols: dict[str, int]) -> pd.DataFrame:
    parts = []
    for number, (symbol, bars) in enumerate(sorted(symbols.items())):
        price = 100.0 + 7 * number + np.arange(bars)
        table = bars_of(symbol, price.tolist(), price.tolist())
        parts.append(table.drop_columns(["base"]))
    frame: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return frame


def naive(frame: pd.DataFrame, rows: list[tuple[str, date, float]]) -> pd.DataFrame:
    days = [stamp.date() for stamp in (frame.ts + pd.Timedelta(hours=9))]
    names = frame.symbol.tolist()
    factor = np.array([math.prod(f for s, d, f in rows if s == name and d <= day) for name, day in zip(names, days)])
    prices = {name: frame[name] * factor for name in ("open", "high", "low", "close")}
    return frame.assign(**prices, volume=frame.volume / factor)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["000030", "00680K", "zz"]),
        st.dates(date(2023, 12, 20), date(2024, 4, 5)),
        st.sampled_from([0.1, 0.5, 2.0, 50.0, 1.25, 1 / 3]),
    ),
    max_size=8,
)


@given(rows=ROWS, lengths=st.tuples(st.integers(0, 20), st.integers(1, 60)))
@settings(max_examples=40, deadline=None)
def test_product_of_factors_up_to_the_day(rows: list[tuple[str, date, float]], lengths: tuple[int, int]) -> None:
    frame = frame_of({"000030": lengths[0], "00680K": lengths[1]})
    found, expected = adjust(frame, actions_of(rows)), naive(frame, rows)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


@given(rows=ROWS, later=ROWS, cut=st.integers(1, 59))
@settings(max_examples=60, deadline=None)
def test_later_actions_and_bars_change_nothing_before(
    rows: list[tuple[str, date, float]], later: list[tuple[str, date, float]], cut: int
) -> None:
    whole = frame_of({"000030": 60, "00680K": 60})
    end = pd.Timestamp(CLOSES[cut], tz="UTC")
    past = whole[whole.ts <= end].reset_index(drop=True)
    after = [(s, max(d, SESSIONS[cut].item()) + pd.Timedelta(days=1).to_pytimedelta(), f) for s, d, f in later]
    known = adjust(past, actions_of(rows))
    full = adjust(whole, actions_of(rows + after))
    pd.testing.assert_frame_equal(known, full[full.ts <= end].reset_index(drop=True), check_exact=True)


def test_chunks_adjust_like_the_whole_and_nan_stays() -> None:
    frame = frame_of({"000030": 40, "00680K": 40})
    frame.loc[5, ["open", "high", "low"]] = np.nan
    known = actions_of([("000030", date(2024, 1, 10), 50.0), ("00680K", date(2024, 2, 1), 0.5)])
    whole = adjust(frame, known)
    parts = pd.concat([adjust(frame.iloc[a:b], known) for a, b in ((0, 13), (13, 55), (55, 80))])
    pd.testing.assert_frame_equal(whole, parts, check_exact=True)
    assert whole.open.isna().sum() == 1
    assert (whole.turnover == frame.turnover).all()


def test_the_day_is_the_korean_one() -> None:
    frame = pd.DataFrame(
        {
            "symbol": ["a", "a"],
            "ts": pd.to_datetime(["2024-01-09T14:59:59Z", "2024-01-09T15:00:00Z"]),  # 23:59:59 and 00:00:00 in Seoul
            "close": [10.0, 10.0],
        }
    )
    assert adjust(frame, actions_of([("a", date(2024, 1, 10), 2.0)])).close.tolist() == [10.0, 20.0]


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_factors_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="positive factors"):
        adjust(frame_of({"a": 3}), actions_of([("a", date(2024, 1, 3), factor)]))


def test_unsorted_symbols_are_refused() -> None:
    frame = frame_of({"a": 4, "b": 4}).iloc[[0, 4, 1, 5]]
    with pytest.raises(ValueError, match="4 runs of 2 symbols"):
        adjust(frame, actions_of([("a", date(2024, 1, 3), 2.0)]))


def test_split_and_rights_are_found() -> None:
    close = [50000.0, 51000.0, 1050.0, 1100.0, 1000.0, 1010.0]
    base = [49000.0, 50000.0, 1020.0, 1050.0, 1012.0, 1000.0]
    lock = ["00", "00", "00", "00", "01", "02"]
    found = detect(bars_of("000030", close, base, lock=lock, reason=[""] * 6))
    assert found.select(["symbol", "ex_date", "kind", "factor"]).to_pylist() == [
        {"symbol": "000030", "ex_date": SESSIONS[2].item(), "kind": "split", "factor": 50.0},
        {"symbol": "000030", "ex_date": SESSIONS[4].item(), "kind": "rights", "factor": 1100.0 / 1012.0},
    ]


@pytest.mark.parametrize(
    ("lock", "reason", "kind"),
    [("00", "01", "spin_off"), ("00", "02", "capital_reduction"), ("02", "", "other"), ("00", "03", "other")],
)
def test_codes_name_the_kind(lock: str, reason: str, kind: str) -> None:
    table = bars_of("a", [100.0, 200.0], [100.0, 210.0], lock=["00", lock], reason=["", reason])
    assert detect(table)["kind"].to_pylist() == [kind]


def test_a_gap_is_no_action_unless_the_ratio_says_so() -> None:
    close, base = [100.0, 130.0, 65.0, 66.0], [100.0, 100.0, 65.0, 65.0]
    assert detect(bars_of("a", close, [100.0, 100.0, 130.0, 65.0], skip=(1,))).num_rows == 0, (
        "the close of the missing day is unknown"
    )
    table = bars_of("a", close, base, skip=(1,)).append_column("ratio", pa.array([0.0, 50.0, 0.0]))
    assert detect(table)["factor"].to_pylist() == [2.0]


def test_symbols_are_apart_and_unknown_bases_ignored() -> None:
    both = pa.concat_tables([bars_of("b", [10.0, 10.0], [10.0, float("nan")]), bars_of("a", [500.0], [500.0])])
    assert detect(both).num_rows == 0
    assert detect(both.slice(0, 0)).num_rows == 0


@given(factors=st.lists(st.sampled_from([1.0, 1.0, 1.0, 2.0, 5.0, 0.5]), min_size=2, max_size=30))
@settings(max_examples=40, deadline=None)
def test_adjusting_by_what_is_detected_restores_the_returns(factors: list[float]) -> None:
    close, base = [1000.0], [1000.0]
    for i, factor in enumerate(factors):
        base.append(close[-1] / factor)
        close.append(base[-1] * (1.01 if i % 2 else 0.99))
    table = bars_of("a", close, base)
    adjusted = adjust(table.drop_columns(["base"]).to_pandas(), detect(table)).close.to_numpy()
    assert adjusted[1:] / adjusted[:-1] == pytest.approx(np.array(close[1:]) / np.array(base[1:]), rel=1e-12)
