"""Coarser bars of single cases: ends of sessions, halts, splits inside a week, what is complete, what is refused."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx, venues
from pipeline.resample import DERIVED, derive
from storage.schema import ACTIONS, BARS, content_digest

NAN = float("nan")


def bars(rows: list[dict[str, Any]], venue: str = "KRX", interval: str = "1m") -> pa.Table:
    usual = {"symbol": "005930", "venue": venue, "interval": interval, "open": 10.0, "high": 12.0, "low": 9.0}
    usual |= {
        "close": 11.0,
        "volume": 1.0,
        "turnover": 11.0,
        "source": "s",
        "ingested_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return pa.Table.from_pylist([usual | row for row in rows], schema=BARS)


def at(text: str) -> datetime:
    """Read a time of KST."""
    return datetime.fromisoformat(f"{text}+09:00").astimezone(UTC)


def minutes(day: str, venue: str = "KRX") -> pa.Table:
    ends = venues.minute_ends(venue, day).tolist()
    return bars([{"ts": end.replace(tzinfo=UTC), "close": float(n)} for n, end in enumerate(ends)], venue)


def days(closes: dict[str, float], **more: Any) -> pa.Table:
    return bars([{"ts": krx.session_close(day), "close": close} | more for day, close in closes.items()], interval="1d")


def split(day: str, factor: float) -> pa.Table:
    row = {"symbol": "005930", "ex_date": date.fromisoformat(day), "kind": "split", "factor": factor, "source": "s"}
    return pa.Table.from_pylist([row], schema=ACTIONS)


def stamps(table: pa.Table) -> list[str]:
    return [(ts + timedelta(hours=9)).strftime("%H:%M") for ts in table["ts"].to_pylist()]


@pytest.mark.parametrize(
    "day, interval, count, first, last",
    [
        ("2026-11-20", "5m", 77, "09:05", "15:30"),  # 15:20 to 15:25 has no trade
        ("2026-11-20", "3m", 128, "09:03", "15:30"),
        ("2026-11-20", "15m", 26, "09:15", "15:30"),
        ("2026-11-20", "1h", 7, "10:00", "15:30"),
        ("2026-11-19", "1h", 7, "11:00", "16:30"),  # examination day
        ("2026-11-19", "30m", 13, "10:30", "16:30"),
        ("2026-01-02", "1h", 6, "11:00", "15:30"),  # first session of the year
        ("2016-07-29", "1h", 6, "10:00", "15:00"),
        ("2026-11-20", "2h", 4, "11:00", "15:30"),
        ("2026-11-19", "2h", 4, "12:00", "16:30"),
        ("2026-11-20", "4h", 2, "13:00", "15:30"),
        ("2026-11-19", "4h", 2, "14:00", "16:30"),
        ("2016-07-29", "4h", 2, "13:00", "15:00"),
        ("2026-11-20", "1d", 1, "15:30", "15:30"),
    ],
)
def test_a_session_cut_into_buckets(day: str, interval: str, count: int, first: str, last: str) -> None:
    fine = minutes(day)
    made = derive(fine, interval, venue="KRX")
    assert made.num_rows == count and [stamps(made)[0], stamps(made)[-1]] == [first, last]
    assert made["close"][-1] == fine["close"][-1] and made["complete"].to_pylist() == [True] * count
    assert sum(made["turnover"].to_pylist()) == 11.0 * fine.num_rows
    if interval == "5m":  # the auction is alone in the last bar
        assert made["volume"][-1].as_py() == 1 and stamps(made)[-2] == "15:20"


def test_segments_end_buckets_of_both_venues_together() -> None:
    made = derive(minutes("2026-11-20", "UN"), "1h", venue="UN")
    hours = ["08:50", *(f"{hour}:00" for hour in range(10, 16)), "15:30", *(f"{hour}:00" for hour in range(16, 21))]
    assert stamps(made) == hours
    assert made["volume"].to_pylist() == [50.0, *[60.0] * 6, 21.0, 20.0, *[60.0] * 4]
    half = derive(minutes("2026-11-20", "UN"), "4h", venue="UN")
    assert stamps(half) == ["08:50", "13:00", "15:30", "17:00", "20:00"]
    assert half["volume"].to_pylist() == [50.0, 240.0, 141.0, 80.0, 180.0]
    assert stamps(derive(minutes("2026-11-20", "UN"), "1d", venue="UN")) == ["20:00"]
    assert stamps(derive(minutes("2026-11-20", "NXT"), "30m", venue="NXT"))[-11:-8] == ["15:00", "15:20", "16:00"]


def test_the_after_market_is_bars_of_its_own_and_no_part_of_the_day() -> None:
    evening = [{"ts": at(f"2026-11-20T{clock}"), "close": 99.0} for clock in ("16:01", "16:59", "17:00", "19:30")]
    fine = pa.concat_tables([minutes("2026-11-20"), bars(evening)])
    assert stamps(derive(fine, "1h", venue="KRX"))[-3:] == ["15:30", "17:00", "20:00"]
    day = derive(fine, "1d", venue="KRX").to_pylist()[0]
    assert day["volume"] == 381 and day["close"] == 380 and day["ts"] == at("2026-11-20T15:30")
    assert derive(bars(evening), "1d", venue="KRX").num_rows == 0


def test_a_print_at_the_close_may_carry_the_label_of_the_next_minute() -> None:
    fine = bars([{"ts": at(f"2026-11-20T{clock}")} for clock in ("15:20", "15:31")])
    for interval, ends in (("5m", ["15:20", "15:30"]), ("1h", ["15:30"]), ("1d", ["15:30"])):
        assert stamps(derive(fine, interval, venue="KRX")) == ends
    late = bars([{"ts": at(f"2026-11-20T{clock}")} for clock in ("19:59", "20:01")], "NXT")
    assert stamps(derive(late, "1h", venue="NXT")) == ["20:00"]
    assert derive(late, "1d", venue="NXT")["volume"].to_pylist() == [2.0]


def test_venues_that_never_close_count_from_midnight_utc() -> None:
    start = datetime(2026, 11, 20, 22, tzinfo=UTC)  # a Friday
    fine = bars([{"ts": start + timedelta(minutes=15 * n)} for n in range(1, 105)], "BINANCE", "15m")
    assert derive(fine, "1h", venue="BINANCE")["volume"].to_pylist() == [4.0] * 26
    for hours in (2, 4):
        made = derive(fine, f"{hours}h", venue="BINANCE")
        assert made["ts"][0].as_py() == datetime(2026, 11, 21, tzinfo=UTC) and made["volume"][0].as_py() == 8.0
        assert made["volume"].to_pylist()[1:-1] == [4.0 * hours] * (made.num_rows - 2)
        assert all(ts.hour % hours == 0 and ts.minute == 0 for ts in made["ts"].to_pylist())
    made = derive(fine, "1d", venue="BINANCE")
    assert [str(ts)[:16] for ts in made["ts"].to_pylist()] == ["2026-11-21 00:00", "2026-11-22 00:00"]
    week = derive(made.select(BARS.names), "1w", venue="BINANCE").to_pylist()[0]
    assert str(week["ts"])[:16] == "2026-11-23 00:00" and week["volume"] == 104 and not week["complete"]
    weekend = bars([{"ts": start}, {"ts": start + timedelta(hours=49)}], "FX", "1h")  # Friday, then Sunday evening
    made = derive(weekend, "1d", venue="FX")
    assert [str(ts)[:10] for ts in made["ts"].to_pylist()] == ["2026-11-21", "2026-11-24"]


def test_a_bucket_ends_with_its_day() -> None:
    """Hours count from 10:00 on the examination day and from 09:00 on the next: no bucket reaches from one into the
    other.
    """
    night = [{"ts": at(f"2026-11-{clock}")} for clock in ("19T23:30", "20T00:30", "20T09:30")]
    made = derive(bars(night), "4h", venue="KRX")
    assert [str(ts + timedelta(hours=9))[8:16] for ts in made["ts"].to_pylist()] == ["20 00:00", "20 01:00", "20 13:00"]


def test_halts_keep_the_close_and_move_no_extreme() -> None:
    rows = [
        {"open": NAN, "high": NAN, "low": NAN, "close": 50.0, "volume": 0.0, "turnover": 0.0},
        {"open": 60.0, "high": 66.0, "low": 55.0, "close": 61.0, "volume": 3.0, "turnover": 180.0},
        {"open": NAN, "high": NAN, "low": NAN, "close": 61.0, "volume": 0.0, "turnover": 0.0},
    ]
    table = bars([{"ts": krx.session_close(f"2026-11-{16 + n}")} | row for n, row in enumerate(rows)], interval="1d")
    week = derive(table, "1w", venue="KRX").to_pylist()[0]
    assert [week[name] for name in ("open", "high", "low", "close", "volume")] == [60.0, 66.0, 55.0, 61.0, 3.0]
    assert week["turnover"] == 180.0 and week["ts"] == at("2026-11-20T15:30")
    halted = derive(table.slice(0, 1), "1w", venue="KRX").to_pylist()[0]
    assert np.isnan([halted["open"], halted["high"], halted["low"]]).all() and halted["close"] == 50.0


def test_an_unknown_part_leaves_the_sum_unknown() -> None:
    rows = [{"ts": at("2026-11-20T09:01"), "turnover": None}, {"ts": at("2026-11-20T09:02"), "volume": NAN}]
    made = derive(bars([*rows, {"ts": at("2026-11-20T09:04")}]), "3m", venue="KRX")
    assert made["turnover"].to_pylist() == [None, 11.0] and made["turnover"].null_count == 1
    assert np.isnan(made["volume"][0].as_py()) and made["volume"][1].as_py() == 1.0


def test_complete_is_a_matter_of_time_not_of_rows() -> None:
    rows = [{"ts": at("2026-11-20T09:03"), "symbol": "000020"}, {"ts": at("2026-11-20T09:07")}]
    made = derive(bars(rows), "5m", venue="KRX")
    assert made["complete"].to_pylist() == [True, False]  # another symbol shows that 09:05 is over
    for clock, over in (("09:04", [False, False]), ("09:05", [True, False]), ("09:10", [True, True])):
        assert derive(bars(rows), "5m", venue="KRX", until=at(f"2026-11-20T{clock}"))["complete"].to_pylist() == over


@pytest.mark.parametrize(
    "last, complete", [("2026-12-28", [True, False]), ("2026-12-29", [True, False]), ("2026-12-30", [True, True])]
)
def test_a_week_is_over_with_its_last_session(last: str, complete: list[bool]) -> None:
    made = derive(days({"2026-12-24": 10.0, last: 11.0}), "1w", venue="KRX")  # 31 December is shut
    assert made["complete"].to_pylist() == complete
    assert derive(days({last: 11.0}), "1mo", venue="KRX")["complete"].to_pylist() == complete[1:]


@pytest.mark.parametrize(
    "interval, since, complete",
    [
        ("1w", "2026-09-01", [False, True]),  # from the Tuesday on
        ("1w", "2026-08-29", [True, True]),  # the Saturday before: no session of that week is left out
        ("1w", None, [True, True]),
        ("1mo", "2026-09-02", [False]),
        ("1mo", "2026-09-01", [True]),
    ],
)
def test_a_period_that_began_before_what_was_asked_for_is_not_complete(
    interval: str, since: str | None, complete: list[bool]
) -> None:
    held = days({"2026-09-02": 1.0, "2026-09-04": 2.0, "2026-09-07": 3.0, "2026-09-11": 4.0})
    first = None if since is None else date.fromisoformat(since)
    found = derive(held, interval, venue="KRX", since=first, until=at("2026-10-01T00:00"))
    assert found["complete"].to_pylist() == complete


def test_nextrade_days_stamped_at_the_exchanges_close_end_their_week() -> None:
    table = bars([{"ts": at("2026-11-20T15:30")}], "NXT", "1d")
    week = derive(table, "1w", venue="NXT").to_pylist()[0]
    assert week["ts"] == at("2026-11-20T20:00") and week["complete"]


def test_a_split_inside_a_week() -> None:
    """005930 on 2018-05-04: 50 for 1, after three days of halt."""
    table = days({"2018-04-30": 2_650_000.0, "2018-05-04": 51_900.0}, volume=100.0, turnover=5.0)
    table = table.set_column(4, "open", pa.array([2_669_000.0, 53_000.0]))
    table = table.set_column(5, "high", pa.array([2_682_000.0, 53_900.0]))
    table = table.set_column(6, "low", pa.array([2_622_000.0, 51_800.0]))
    before = content_digest(table)
    week = derive(table, "1w", venue="KRX", actions=split("2018-05-04", 50.0)).to_pylist()[0]
    assert [week[name] for name in ("open", "high", "low", "close")] == [53_380.0, 53_900.0, 51_800.0, 51_900.0]
    assert week["volume"] == 100 * 50 + 100 and week["turnover"] == 10.0
    assert content_digest(table) == before  # scaled in a copy
    mixed = derive(table, "1w", venue="KRX").to_pylist()[0]
    assert mixed["high"] == 2_682_000.0
    for day in ("2018-04-30", "2018-05-08", "2019-01-02"):  # no bar before it in the week, or none of the week's days
        untouched = derive(table, "1w", venue="KRX", actions=split(day, 50.0))
        assert content_digest(untouched) == content_digest(derive(table, "1w", venue="KRX"))
    other = derive(
        table, "1w", venue="KRX", actions=split("2018-05-04", 50.0).set_column(0, "symbol", pa.array(["000020"]))
    )
    assert content_digest(other) == content_digest(derive(table, "1w", venue="KRX"))


def test_a_bar_that_ends_at_midnight_has_the_basis_of_the_day_before() -> None:
    ends = [datetime(2026, 11, day, tzinfo=UTC) for day in (19, 20, 21)]
    table = bars([{"ts": end, "high": 8.0 * n} for n, end in enumerate(ends, 1)], "BINANCE", "1d")
    week = derive(table, "1w", venue="BINANCE", actions=split("2026-11-20", 4.0)).to_pylist()[0]
    assert week["high"] == 24.0 and week["volume"] == 4.0 + 4.0 + 1.0 and week["open"] == 10.0 / 4.0


def test_encoded_columns_and_empty_tables() -> None:
    fine = pa.concat_tables([minutes("2026-11-20"), minutes("2026-11-23")])
    encoded = fine
    for name in ("symbol", "venue", "interval", "source"):
        place = encoded.column_names.index(name)
        encoded = encoded.set_column(place, name, encoded[name].dictionary_encode())
    assert derive(encoded, "15m", venue="KRX").equals(derive(fine, "15m", venue="KRX"))
    assert derive(fine.slice(0, 0), "15m", venue="KRX").equals(DERIVED.empty_table())


@pytest.mark.parametrize(
    "rows, interval, venue, error",
    [
        ([{"ts": at("2026-11-20T09:02")}, {"ts": at("2026-11-20T09:01")}], "5m", "KRX", "sorted by"),
        ([{"ts": at("2026-11-20T09:01")}] * 2, "5m", "KRX", "005930 twice"),
        ([{"ts": at("2026-11-20T09:01"), "symbol": s} for s in ("B", "A")], "5m", "KRX", "out of order"),
        ([{"ts": at("2026-11-20T09:01")}], "5m", "NXT", "expected bars of NXT, got those of KRX"),
        ([{"ts": at("2026-11-20T09:01")}], "7m", "KRX", "expected an interval of 3m, 5m"),
        ([{"ts": at("2026-11-20T09:01")}], "1m", "KRX", "expected an interval of 3m, 5m"),
        ([{"ts": at("2026-11-20T09:01")}], "1w", "KRX", "expected 1d bars for 1w"),
        ([{"ts": at("2026-11-20T09:03"), "interval": "3m"}], "5m", "KRX", "minutes that divide 5m, got 3m"),
        ([{"ts": at("2026-11-20T13:00"), "interval": "4h"}], "2h", "KRX", "minutes that divide 2h, got 4h"),
        ([{"ts": at("2026-11-20T09:01")}], "3h", "KRX", "2h, 4h, 1d"),
        ([{"ts": at("2026-11-20T15:30"), "interval": "1d"}], "1d", "KRX", "got 1d"),
        ([{"ts": at("2026-11-20T09:01"), "source": s, "symbol": s} for s in "ab"], "5m", "KRX", "one source"),
        ([{"ts": at("2017-10-02T15:30"), "interval": "1d"}], "1w", "KRX", "2017-10-02"),
    ],
)
def test_what_is_refused(rows: list[dict[str, Any]], interval: str, venue: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        derive(bars(rows), interval, venue=venue)


def test_bad_factors_and_times_without_a_zone() -> None:
    with pytest.raises(ValueError, match="positive factors"):
        derive(days({"2026-11-20": 10.0}), "1w", venue="KRX", actions=split("2026-11-20", 0.0))
    with pytest.raises(ValueError, match="with its zone"):
        derive(days({"2026-11-20": 10.0}), "1w", venue="KRX", until=datetime(2026, 11, 20))


def test_millions_of_minutes_a_second() -> None:
    """The figure is 10 to 20 million rows a second of one core; a tenth of it would be a mistake."""
    one = minutes("2026-11-20")
    parts = [one.set_column(0, "symbol", pa.array([f"{n:06d}"] * one.num_rows)) for n in range(2_000)]
    table = pa.concat_tables(parts).combine_chunks()
    started = time.process_time()
    made = derive(table, "5m", venue="KRX")
    assert made.num_rows == 77 * 2_000 and table.num_rows / (time.process_time() - started) > 1e6
