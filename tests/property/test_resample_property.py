"""Coarser bars against an obvious twin that reads row by row, and what must hold whatever the bars are."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import actions, krx, resample, venues
from storage.schema import ACTIONS, BARS, content_digest

VALUES = ("open", "high", "low", "close", "volume", "turnover")
MINUTES = {"3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240}
KST, MINUTE = timedelta(hours=9), timedelta(minutes=1)
# usual, examination day, first of the year, before and after the exchange's own after-market, old close at 15:00
DAYS = [date(2026, 11, 18), date(2026, 11, 19), date(2026, 1, 2), date(2026, 1, 5), date(2025, 3, 4), date(2016, 7, 29)]
QUICK = settings(max_examples=60, deadline=None)


def of(rows: list[dict[str, Any]], venue: str, interval: str) -> pa.Table:
    filled = [{"venue": venue, "interval": interval, "source": "s", "ingested_at": datetime.now(UTC)} | r for r in rows]
    return pa.Table.from_pylist(filled, schema=BARS)


def a_row(draw: st.DrawFn, symbol: str, ts: datetime) -> dict[str, Any]:
    price = draw(st.integers(1, 10_000)) * 8.0
    halted = draw(st.integers(0, 5)) == 0
    open_, high, low = (float("nan"),) * 3 if halted else (price, price + 8, price - 4)
    volume = draw(st.sampled_from([0.0, 8.0, 800.0, 1e6, float("nan")]))
    turnover = draw(st.sampled_from([None, 0.0, 1e5, 3e9]))
    return {"symbol": symbol, "ts": ts, "open": open_, "high": high, "low": low, "close": price} | {
        "volume": volume,
        "turnover": turnover,
    }


@st.composite
def minute_bars(draw: st.DrawFn, venue: str) -> pa.Table:
    """Draw some minutes of some symbols on some days; some outside the hours, some labelled at the close itself."""
    rows = []
    held = [day for day in DAYS if venue != "NXT" or day >= krx.NXT_FIRST.item()]  # no hours before its first day
    for symbol in draw(st.lists(st.sampled_from(["000020", "005930", "0193T0"]), min_size=1, max_size=3, unique=True)):
        for day in sorted(draw(st.lists(st.sampled_from(held), min_size=1, max_size=3, unique=True))):
            midnight = datetime.combine(day, datetime.min.time(), UTC) - (KST if venue in krx.VENUES else timedelta())
            some = draw(st.lists(st.integers(1, 1440), max_size=40, unique=True))
            near = draw(st.lists(st.sampled_from([530, 531, 540, 541, 600, 601, 920, 921, 930, 931, 1200, 1201])))
            rows += [a_row(draw, symbol, midnight + MINUTE * m) for m in sorted({*some, *near})]
    rows.sort(key=lambda row: (row["symbol"], row["ts"]))
    return of(rows, venue, "1m")


def same(one: pa.Table, other: pa.Table) -> None:
    assert content_digest(one) == content_digest(other), (one.to_pylist(), other.to_pylist())


def naive_end(ts: datetime, venue: str, interval: str) -> datetime | None:
    """Say where a minute bar goes: step from the opening in whole intervals until its stamp is reached, then cut at the
    first close, or at midnight.
    """
    if venue not in krx.VENUES:
        end = datetime(ts.year, ts.month, ts.day, tzinfo=UTC) - timedelta(days=1)
        step = timedelta(days=1) if interval == "1d" else MINUTE * MINUTES[interval]
        while end < ts:
            end += step
        return end
    day = (ts + KST - timedelta(microseconds=1)).date()
    hours = [
        pair for pair in krx.segments(venue, np.array([day], "datetime64[D]")).values() if not np.isnat(pair[0][0])
    ]
    ends = [close[0].item().replace(tzinfo=UTC) for _, close in hours]
    if interval == "1d":
        close = ends[0] if venue == "KRX" else max(ends)
        return close if ts <= close + MINUTE else None
    end = krx.session_opens(np.array([day], "datetime64[D]"))[0].item().replace(tzinfo=UTC) - timedelta(days=1)
    while end < ts:
        end += MINUTE * MINUTES[interval]
    midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC) - KST
    return min((close for close in [*ends, midnight] if ts <= close + MINUTE and end > close), default=end)


def naive(bars: pa.Table, interval: str, venue: str) -> pa.Table:
    groups: dict[tuple[str, datetime], list[dict[str, Any]]] = defaultdict(list)
    for row in bars.to_pylist():
        end = naive_end(row["ts"], venue, interval)
        if end is not None:
            groups[row["symbol"], end].append(row)
    latest = max((row["ts"] for row in bars.to_pylist()), default=None)
    rows = []
    for (symbol, end), parts in sorted(groups.items()):
        known = [part for part in parts if part["open"] == part["open"]]
        money = [part["turnover"] for part in parts]
        rows.append(
            {
                "symbol": symbol,
                "ts": end,
                "open": known[0]["open"] if known else float("nan"),
                "high": max((part["high"] for part in known), default=float("nan")),
                "low": min((part["low"] for part in known), default=float("nan")),
                "close": parts[-1]["close"],
                "volume": sum(part["volume"] for part in parts),
                "turnover": None if None in money else sum(money),
                "complete": end <= latest,
            }
        )
    complete = pa.array([row.pop("complete") for row in rows], pa.bool_())
    return of(rows, venue, interval).append_column("complete", complete)


@QUICK
@given(st.data(), st.sampled_from(["KRX", "NXT", "UN", "BINANCE"]), st.sampled_from([*MINUTES, "1d"]))
def test_bars_from_minutes_are_those_of_the_twin(data: st.DataObject, venue: str, interval: str) -> None:
    bars = data.draw(minute_bars(venue))
    same(resample.derive(bars, interval, venue=venue), naive(bars, interval, venue))


@QUICK
@given(st.data(), st.sampled_from(["KRX", "NXT", "UN", "BINANCE"]))
def test_the_way_over_finer_bars_leads_to_the_same(data: st.DataObject, venue: str) -> None:
    bars = data.draw(minute_bars(venue))
    until = bars["ts"].to_pylist()[-1] if bars.num_rows else datetime.now(UTC)
    for way in (
        ("5m", "15m", "30m", "1h", "2h", "4h"), ("3m", "15m", "1h"), ("15m", "2h"), ("3m", "30m"), ("1h", "4h"),
    ):  # fmt: skip
        step = bars
        for interval in way:
            step = resample.derive(step.select(BARS.names), interval, venue=venue, until=until)
        same(step, resample.derive(bars, way[-1], venue=venue, until=until))


@QUICK
@given(st.data(), st.sampled_from(["KRX", "UN", "BINANCE"]), st.sampled_from([*MINUTES, "1d"]))
def test_each_symbol_and_every_cut_between_them_gives_the_same(data: st.DataObject, venue: str, interval: str) -> None:
    bars = data.draw(minute_bars(venue))
    until = datetime(2026, 11, 18, 6, tzinfo=UTC)
    whole = resample.derive(bars, interval, venue=venue, until=until)
    names = sorted(set(bars["symbol"].to_pylist()))
    parts = [
        resample.derive(bars.filter(pa.compute.equal(bars["symbol"], name)), interval, venue=venue, until=until)
        for name in names
    ]
    same(pa.concat_tables(parts) if parts else resample.DERIVED.empty_table(), whole)
    cut = data.draw(st.integers(0, bars.num_rows))
    chunked = pa.concat_tables([bars.slice(0, cut), bars.slice(cut)])
    same(resample.derive(chunked, interval, venue=venue, until=until), whole)


@QUICK
@given(st.data(), st.sampled_from(["KRX", "NXT", "UN", "BINANCE"]), st.sampled_from(list(MINUTES)))
def test_nothing_is_lost_and_no_bar_ends_before_its_rows(data: st.DataObject, venue: str, interval: str) -> None:
    bars = data.draw(minute_bars(venue))
    filled = bars.set_column(8, "volume", pa.array(np.arange(bars.num_rows) + 1.0))
    made = resample.derive(filled, interval, venue=venue)
    assert sum(made["volume"].to_pylist()) == sum(filled["volume"].to_pylist())
    rows = iter(filled.to_pylist())
    for bar in made.to_pylist():  # both are in order of symbol and time, so the sums say which rows are in it
        total = 0.0
        while total < bar["volume"]:
            row = next(rows)
            total += row["volume"]
            assert row["symbol"] == bar["symbol"]
            assert row["ts"] <= bar["ts"] + MINUTE and bar["ts"] - row["ts"] < MINUTE * MINUTES[interval]
        assert total == bar["volume"]


@st.composite
def daily_bars(draw: st.DrawFn) -> tuple[pa.Table, pa.Table]:
    """Draw daily bars of some weeks and corporate actions inside and outside of them."""
    every = krx.sessions("2026-01-28", "2026-03-13")  # Seollal, a month end and the holiday of March
    rows, acts = [], []
    for symbol in draw(st.lists(st.sampled_from(["000020", "005930", "0193T0"]), min_size=1, max_size=3, unique=True)):
        days = every[sorted(draw(st.sets(st.integers(0, len(every) - 1), max_size=25)))]
        rows += [a_row(draw, symbol, end.replace(tzinfo=UTC)) for end in krx.session_closes(days).tolist()]
        for day in draw(st.lists(st.sampled_from(every.tolist()), max_size=4)):
            factor = draw(st.sampled_from([50.0, 2.0, 0.5, 1.25]))
            acts.append({"symbol": symbol, "ex_date": day, "kind": "split", "factor": factor, "source": "s"})
    rows.sort(key=lambda row: (row["symbol"], row["ts"]))
    return of(rows, "KRX", "1d"), pa.Table.from_pylist(acts, schema=ACTIONS)


@QUICK
@given(daily_bars(), st.sampled_from(["1w", "1mo"]))
def test_adjusting_coarse_bars_is_making_them_of_adjusted_ones(drawn: tuple[pa.Table, pa.Table], interval: str) -> None:
    bars, acts = drawn

    def adjusted(table: pa.Table) -> pa.Table:
        return pa.Table.from_pandas(actions.adjust(table.to_pandas(), acts), schema=table.schema, preserve_index=False)

    coarse = adjusted(resample.derive(bars, interval, venue="KRX", actions=acts))
    fine = resample.derive(adjusted(bars), interval, venue="KRX")
    for name in VALUES:
        np.testing.assert_allclose(coarse[name].to_numpy(), fine[name].to_numpy(), rtol=1e-12)
    assert coarse["ts"].to_pylist() == fine["ts"].to_pylist()
    assert coarse["complete"].to_pylist() == fine["complete"].to_pylist()


@QUICK
@given(daily_bars())
def test_a_week_holds_its_own_sessions(drawn: tuple[pa.Table, pa.Table]) -> None:
    bars, _ = drawn
    weeks: dict[tuple[str, tuple[int, int]], list[dict[str, Any]]] = defaultdict(list)
    for row in bars.to_pylist():
        weeks[row["symbol"], row["ts"].date().isocalendar()[:2]].append(row)
    made = resample.derive(bars, "1w", venue="KRX").to_pylist()
    assert len(made) == len(weeks)
    for bar, ((symbol, week), parts) in zip(made, sorted(weeks.items())):
        last = max(d for d in krx.sessions("2026-01-01", "2026-04-30").tolist() if d.isocalendar()[:2] == week)
        assert bar["symbol"] == symbol and bar["ts"] == krx.session_close(last) and bar["close"] == parts[-1]["close"]
        assert bar["volume"] == pytest.approx(sum(part["volume"] for part in parts), nan_ok=True)


@given(st.sampled_from(["KRX", "NXT", "UN"]), st.dates(date(2010, 1, 4), date(2027, 12, 1)))
def test_minutes_lie_in_the_segments_and_end_with_the_day(venue: str, day: date) -> None:
    ends, hours = venues.minute_ends(venue, day), venues.segments(venue, day)
    assert bool(ends.size) is bool(venues.is_session(venue, day)) is bool(hours)
    if not ends.size:
        return
    assert (np.diff(ends) > np.timedelta64(0)).all() and ends.dtype == np.dtype("datetime64[us]")
    assert ends[-1] == venues.closes(venue, np.array([day], "datetime64[D]"))[0]
    assert all(any(opens < end <= close for opens, close in hours.values()) for end in ends)
    assert (venues.days_of(venue, ends) == np.datetime64(day)).all()
