"""What is written about a bar's time becomes its end in UTC, and its length."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.importers import ImportSection, cells, load
from tests.bar_files import EXPECTED, HEADER, PLAIN, bars_of, end_of, read_all, write


@pytest.mark.parametrize(
    ("day", "hour", "minute"),
    [("1995-03-11", 6, 0), ("2016-07-29", 6, 0), ("2016-08-01", 6, 30), ("2023-11-16", 7, 30)],
)
def test_daily_bar_ends_at_the_scheduled_close(tmp_path: Path, day: str, hour: int, minute: int) -> None:
    write(tmp_path, "005930.csv", f"date,close\n{day},100\n")
    assert read_all(tmp_path).bars["ts"].to_pylist() == [end_of(day, hour, minute)]


def test_day_without_a_session_is_quarantined_with_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN + "2020-01-05,1,1,1,1,1\n2020-01-27,1,1,1,1,1\n")
    found = read_all(tmp_path)
    wrong = found.quarantined.select(["file", "line", "symbol", "reason", "row"]).to_pylist()
    assert [(w["file"], w["line"], w["symbol"], w["reason"]) for w in wrong] == [
        ("005930.csv", 5, "005930", "not_a_session"),
        ("005930.csv", 6, "005930", "not_a_session"),
    ]
    assert wrong[0]["row"] == "2020-01-05,1,1,1,1,1" and bars_of(found) == EXPECTED
    assert read_all(tmp_path, market="other").quarantined.num_rows == 0


def test_minute_stamps_are_starts_or_ends_in_their_zone(tmp_path: Path) -> None:
    text = "일자,시간,시가,고가,저가,종가,거래량\n" + "".join(
        f"20200102,{t},1,1,1,1,1\n" for t in ("0900", "0901", "0902")
    )
    write(tmp_path, "005930.csv", text)
    first = datetime(2020, 1, 2, tzinfo=UTC)
    found = read_all(tmp_path)
    assert found.interval == "1m" and found.bars["ts"].to_pylist() == [first + timedelta(minutes=i) for i in range(3)]
    found = read_all(tmp_path, stamps="start")
    assert found.bars["ts"].to_pylist() == [first + timedelta(minutes=i) for i in range(1, 4)]


def test_other_exchange_with_daylight_saving(tmp_path: Path) -> None:
    rows = ["2020-03-08 00:00", "2020-03-08 01:00", "2020-03-08 03:00", "2020-03-08 04:00"]
    write(tmp_path, "XYZ.csv", "datetime,open,high,low,close\n" + "".join(f"{r},1,1,1,1\n" for r in rows))
    found = read_all(tmp_path, market="other", timezone="America/New_York", venue="NY", stamps="start")
    assert found.interval == "1h" and set(found.bars["symbol"].to_pylist()) == {"XYZ"}
    assert [ts.hour for ts in found.bars["ts"].to_pylist()] == [6, 7, 8, 9]  # 02:00 does not exist that night
    daily = write(tmp_path / "d", "XYZ.csv", "date,close\n2020-03-07,1\n2020-03-08,1\n")
    ends = read_all(daily, market="other", timezone="America/New_York").bars["ts"].to_pylist()
    assert [ts.isoformat()[:16] for ts in ends] == ["2020-03-08T05:00", "2020-03-09T04:00"]


def test_last_moments_end_with_the_minute_also_over_a_change_of_clocks(tmp_path: Path) -> None:
    # 2024-03-31 01:00 UTC: Berlin goes from 02:00 to 03:00
    stamps = ["2024-03-31 01:44:59.999", "2024-03-31 01:59:59.999", "2024-03-31 03:14:59.999", "2024-03-31 03:30:00"]
    path = write(tmp_path, "BTC.csv", "date,close\n" + "".join(f"{s},1\n" for s in stamps))
    found = read_all(path, market="other", timezone="Europe/Berlin", stamps="last", interval="15m")
    assert [(t.hour, t.minute) for t in found.bars["ts"].to_pylist()] == [(0, 45), (1, 0), (1, 15), (1, 30)]
    zoned = [f"{s}+0{1 + (i > 1)}:00" for i, s in enumerate(stamps)]
    path = write(tmp_path, "BTC.csv", "date,close\n" + "".join(f"{s},1\n" for s in zoned))
    again = read_all(path, market="other", timezone="UTC", stamps="last", interval="15m")
    assert again.bars["ts"].equals(found.bars["ts"])


def test_twelve_hour_clock(tmp_path: Path) -> None:
    rows = [("2019-10-17 12-AM", 0), ("2019-10-17 01-AM", 1), ("2019-10-17 12-PM", 12), ("2019-10-17 11-PM", 23)]
    path = write(tmp_path, "BTC.csv", "date,close\n" + "".join(f"{text},1\n" for text, _ in rows))
    found = read_all(path, market="other", timezone="UTC", interval="1h", date_format="%Y-%m-%d %I-%p")
    assert [t.hour for t in found.bars["ts"].to_pylist()] == [hour for _, hour in rows]


@pytest.mark.parametrize(
    ("interval", "first", "last"),
    [("1w", "2024-02-26", "2024-03-04"), ("1mo", "2024-02-01", "2024-03-01"), ("1d", "2024-02-29", "2024-03-01")],
)
def test_starts_of_days_weeks_and_months_elsewhere(tmp_path: Path, interval: str, first: str, last: str) -> None:
    path = write(tmp_path, "BTC.csv", f"date,close\n{first},1\n")
    found = read_all(path, market="other", timezone="UTC", stamps="start", interval=interval)
    assert found.bars["ts"].to_pylist() == [end_of(last, 0, 0)]


def test_epoch_milliseconds_are_utc(tmp_path: Path) -> None:
    start = 1_609_459_200_000
    text = "timestamp,open,high,low,close\n" + "".join(f"{start + i * 3_600_000},1,1,1,1\n" for i in range(3))
    found = read_all(write(tmp_path, "BTC.csv", text), market="other", stamps="end")
    assert found.interval == "1h" and found.bars["ts"][0].as_py() == datetime(2021, 1, 1, tzinfo=UTC)


def test_files_of_several_intervals_are_separate_batches(tmp_path: Path) -> None:
    write(tmp_path, "XYZd1.csv", "date,close\n2020-01-02,1\n2020-01-03,1\n")
    write(tmp_path, "XYZh1.csv", "date,close\n2020-01-02 01:00,1\n2020-01-02 02:00,1\n")
    parts = list(load(tmp_path, ImportSection(market="other")))
    assert {part.interval: part.bars.num_rows for part in parts} == {"1d": 2, "1h": 2}
    assert [set(part.bars["interval"].to_pylist()) for part in parts] == [{part.interval} for part in parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-01-02 09:01", "2020-01-02T09:01"),
        ("20200102090100", "2020-01-02T09:01"),
        ("202001020901", "2020-01-02T09:01"),
        ("2020-01-02T09:01:02.5", "2020-01-02T09:01:02.500"),
        ("2020.1.2 9:01", "2020-01-02T09:01"),
        ("1577923260", "2020-01-02T00:01"),
        ("20200102 24:00", None),
        ("2020-01-02 09:61", None),
        ("20201301", None),
        ("2019-02-29", None),
        ("2020-02-29", "2020-02-29"),
        ("02/01/2020", None),
        ("20-01-02", None),
    ],
)
def test_stamps(text: str, expected: str | None) -> None:
    found = cells.times(pa.array([text])).wall[0]
    assert np.isnat(found) if expected is None else found == np.datetime64(expected)
