"""What importers make of files: every layout gives the same bars, every trouble is named with file, line and reason."""

from __future__ import annotations

import gzip
import io
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import krx
from pipeline.importers import FilesError, ImportSection, Loaded, cells, files_digest, load, names
from pipeline.importers.section import BAR_COLUMNS, QUARANTINE_COLUMNS, SYMBOL_COLUMNS

ROWS = (  # date, open, high, low, close, volume
    ("2020-01-02", 55500, 56000, 55000, 55200, 12993228),
    ("2020-01-03", 56000, 56600, 54900, 55500, 15422255),
    ("2020-01-06", 54900, 55600, 54600, 55500, 10278951),
)
HEADER = "date,open,high,low,close,volume\n"
PLAIN = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
KOREAN = "날짜,시가,고가,저가,종가,거래량\n" + PLAIN


def _quoted(row: tuple[object, ...], delimiter: str = ",") -> str:
    return delimiter.join([str(row[0]), *(f'"{value:,}"' for value in row[1:])]) + "\n"


def _dated(change: Callable[[str], str]) -> str:
    return HEADER + "".join(",".join([change(row[0]), *map(str, row[1:])]) + "\n" for row in ROWS)


LAYOUTS: dict[str, bytes] = {
    "header": (HEADER + PLAIN).encode(),
    "no header": PLAIN.encode(),
    "capitals and adjusted close": (
        "Date,Open,High,Low,Close,Adj Close,Volume\n"
        + "".join(f"{d},{o},{h},{lo},{c},{c / 2},{v}\n" for d, o, h, lo, c, v in ROWS)
    ).encode(),
    "other order": (
        "거래량,종가(원),저가,고가,시가,일자\n" + "".join(f"{v},{c},{lo},{h},{o},{d}\n" for d, o, h, lo, c, v in ROWS)
    ).encode(),
    "Korean, UTF-8 with byte order mark": b"\xef\xbb\xbf" + KOREAN.encode(),
    "Korean, cp949": KOREAN.encode("cp949"),
    "Korean, UTF-16": KOREAN.encode("utf-16"),
    "quoted thousands without header": "".join(map(_quoted, ROWS)).encode(),
    "quoted thousands, BOM": b"\xef\xbb\xbf" + "".join(map(_quoted, ROWS)).encode(),
    "tabs": "".join(_quoted(row, "\t") for row in ROWS).encode(),
    "semicolons": (HEADER + PLAIN).replace(",", ";").encode(),
    "Windows line ends": (HEADER + PLAIN).replace("\n", "\r\n").encode(),
    "old Macintosh line ends": (HEADER + PLAIN).replace("\n", "\r").encode(),
    "no line end at the end": (HEADER + PLAIN).rstrip().encode(),
    "trailing empty rows": (HEADER + PLAIN + ",,,,,\n" * 5 + "\n\n").encode(),
    "blank lines within": (HEADER + PLAIN.replace("\n", "\n\n")).encode(),
    "blanks around": (HEADER + PLAIN.replace(",", " , ")).encode(),
    "a comment first": ("# from somewhere\n" + HEADER + PLAIN).encode(),
    "rows end with a delimiter": (HEADER + PLAIN.replace("\n", ",\n")).encode(),
    "numbered rows": (
        ",date,open,high,low,close,volume\n" + "".join(f"{i},{line}\n" for i, line in enumerate(PLAIN.split()))
    ).encode(),
    "more columns": ("date,open,high,low,close,volume,per,roe\n" + PLAIN.replace("\n", ", ,1.5\n")).encode(),
    "prices as floats": (
        HEADER + "".join(f"{d},{o}.0,{h}.00,{lo}.0,{c / 1000}e3,{v}.0\n" for d, o, h, lo, c, v in ROWS)
    ).encode(),
    "YYYYMMDD": _dated(lambda d: d.replace("-", "")).encode(),
    "YYYYMMDD as float": _dated(lambda d: d.replace("-", "") + ".0").encode(),
    "slashes, no zeros": _dated(lambda d: "/".join(str(int(p)) for p in d.split("-"))).encode(),
    "dots": _dated(lambda d: d.replace("-", ". ") + ".").encode(),
    "Korean dates": _dated(lambda d: "{}년 {}월 {}일".format(*map(int, d.split("-")))).encode(),
    "midnight": _dated(lambda d: d + " 00:00:00").encode(),
    "with a zone": _dated(lambda d: d + "T15:30:00+09:00").encode(),
}


def _write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def _table(text: str = HEADER + PLAIN) -> pa.Table:
    return pa.table(
        {
            "date": [row[0] for row in ROWS],
            **{name: [row[i] for row in ROWS] for i, name in enumerate(("open", "high", "low", "close", "volume"), 1)},
        }
    )


def _all(path: Path, **section: object) -> Loaded:
    """Load everything under a path, as one batch."""
    parts = list(load(path, ImportSection(**section)))
    for part in parts:
        assert part.bars.schema.equals(BAR_COLUMNS, check_metadata=False)
        assert part.quarantined.schema.equals(QUARANTINE_COLUMNS, check_metadata=False)
        assert part.symbols is None or part.symbols.schema.equals(SYMBOL_COLUMNS, check_metadata=False)
    with_bars = [part for part in parts if part.bars.num_rows]
    told = [part.symbols for part in parts if part.symbols is not None]
    return Loaded(
        pa.concat_tables([part.bars for part in parts]),
        pa.concat_tables([part.quarantined for part in parts]),
        pa.concat_tables(told) if told else None,
        parts[0].market,
        all(part.close_only for part in with_bars),
        "/".join(dict.fromkeys(part.interval for part in with_bars)),
        {name: sum(part.counts.get(name, 0) for part in parts) for name in parts[0].counts},
    )


def _bars(loaded: Loaded) -> list[tuple[object, ...]]:
    return [
        tuple(row.values())
        for row in loaded.bars.select(["symbol", "ts", "open", "high", "low", "close", "volume"]).to_pylist()
    ]


def _end(day: str, hour: int = 6, minute: int = 30) -> datetime:
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).replace(hour=hour, minute=minute)


EXPECTED = [("005930", _end(d), *map(float, numbers)) for d, *numbers in ROWS]


# -- layouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bars(tmp_path: Path, layout: str) -> None:
    _write(tmp_path, "005930.csv", LAYOUTS[layout])
    found = _all(tmp_path)
    assert _bars(found) == EXPECTED
    assert found.quarantined.num_rows == 0
    assert (found.market, found.interval, found.close_only) == ("KRX", "1d", False)
    assert found.bars["turnover"].null_count == 3
    assert set(found.bars["venue"].to_pylist()) == {"KRX"}


@pytest.mark.parametrize(
    "dates",
    [
        pa.array([d for d, *_ in ROWS]),
        pa.array([int(d.replace("-", "")) for d, *_ in ROWS]),
        pa.array([date.fromisoformat(d) for d, *_ in ROWS]),
        pa.array([datetime.fromisoformat(d) for d, *_ in ROWS], pa.timestamp("ns")),
        pa.array([_end(d) for d, *_ in ROWS], pa.timestamp("ms", tz="Asia/Seoul")),
        pa.array([d for d, *_ in ROWS]).dictionary_encode(),
    ],
    ids=lambda a: str(a.type)[:40],
)
def test_parquet_with_dates_of_any_type(tmp_path: Path, dates: pa.Array) -> None:
    pq.write_table(_table().set_column(0, "Date", dates), tmp_path / "A005930.parquet")
    assert _bars(_all(tmp_path)) == EXPECTED


def test_gzip_zip_and_folders_in_them(tmp_path: Path) -> None:
    text = (HEADER + PLAIN).encode()
    one, two, three = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    _write(one, "005930.csv.gz", gzip.compress(text))
    two.mkdir()
    with zipfile.ZipFile(two / "all.zip", "w") as archive:
        archive.writestr("prices/005930_price.csv", text)
        archive.writestr("__MACOSX/prices/._005930_price.csv", b"\x00\x05")
    three.mkdir()
    table = io.BytesIO()
    pq.write_table(_table(), table)
    with zipfile.ZipFile(three / "all.zip", "w") as archive:
        archive.writestr("005930.parquet", table.getvalue())
    assert [_bars(_all(path)) for path in (one, two, two / "all.zip", three)] == [EXPECTED] * 4


def test_one_file_is_a_path_too(tmp_path: Path) -> None:
    assert _bars(_all(_write(tmp_path, "005930.csv", HEADER + PLAIN))) == EXPECTED


def test_panel_with_a_column_of_codes_pads_lost_zeros(tmp_path: Path) -> None:
    text = "Code,Name,Market,Date,Close\n5930,삼성전자,KOSPI,20200102,55200\n00680K,우선주,코스닥,20200102,9000\n"
    found = _all(_write(tmp_path, "all.csv", text.encode("cp949")))
    assert [(row[0], row[5]) for row in _bars(found)] == [("005930", 55200.0), ("00680K", 9000.0)]
    assert found.close_only and np.isnan(found.bars["open"].to_numpy()).all() and found.counts["padded"] == 1
    assert found.symbols is not None
    told = found.symbols.select(["symbol", "name", "market", "kind"]).to_pylist()
    assert told == [
        {"symbol": "005930", "name": "삼성전자", "market": "KOSPI", "kind": "stock"},
        {"symbol": "00680K", "name": "우선주", "market": "KOSDAQ", "kind": "preferred"},
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_wide_panel_of_closes(tmp_path: Path, ending: str) -> None:
    table = pa.table({"Date": ["2020-01-02", "2020-01-03"], "005930": [55200.0, 55500.0], "000660": [None, 94700.0]})
    if ending == "parquet":
        pq.write_table(table, tmp_path / "closes.parquet")
    else:
        _write(tmp_path, "closes.csv", "Date,005930,000660\n2020-01-02,55200,\n2020-01-03,55500,94700\n")
    found = _all(tmp_path)
    assert [(row[0], row[1], row[5]) for row in _bars(found)] == [
        ("000660", _end("2020-01-03"), 94700.0),
        ("005930", _end("2020-01-02"), 55200.0),
        ("005930", _end("2020-01-03"), 55500.0),
    ]
    assert found.close_only and found.quarantined.num_rows == 0


def test_close_only_files_with_an_unnamed_date_column(tmp_path: Path) -> None:
    _write(tmp_path, "005930_price.csv", '"","Price"\n"2020-01-02",55200\n"2020-01-03",1e+05\n')
    found = _all(tmp_path)
    assert [row[5] for row in _bars(found)] == [55200.0, 100000.0]
    assert found.close_only and np.isnan(found.bars["volume"].to_numpy()).all()


def test_ohlcv_and_close_only_files_are_told_apart(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    _write(tmp_path, "000660.csv", "date,close\n2020-01-02,94700\n")
    assert not _all(tmp_path).close_only


def test_columns_and_header_of_the_configuration(tmp_path: Path) -> None:
    _write(tmp_path, "a/005930.csv", "day;c1;c2;x\n02/01/2020;55200;7;1\n")
    found = _all(tmp_path / "a", columns={"date": "day", "close": "c1", "volume": "c2"}, date_format="%d/%m/%Y")
    assert [(row[1], row[5], row[6]) for row in _bars(found)] == [(_end("2020-01-02"), 55200.0, 7.0)]
    _write(tmp_path, "b/x.csv", "5930,1,20200102,55200\n")
    found = _all(tmp_path / "b", header=("code", "", "date", "close"))
    assert [(row[0], row[5]) for row in _bars(found)] == [("005930", 55200.0)]
    with pytest.raises(ValidationError, match="expected roles"):
        ImportSection(columns={"clsoe": "c1"})
    with pytest.raises(ValidationError, match="time zone"):
        ImportSection(timezone="Seoul/Asia")


@pytest.mark.parametrize(
    ("name", "symbol", "company"),
    [
        ("005930_삼성전자.csv", "005930", "삼성전자"),
        (unicodedata.normalize("NFD", "005930_삼성전자.csv"), "005930", "삼성전자"),
        ("삼성전자(005930).csv", "005930", "삼성전자"),
        ("A005930.csv", "005930", None),
        ("005930.KS.csv", "005930", None),
        ("035420_NAVER_일봉.csv", "035420", "NAVER"),
        ("00680K.csv", "00680K", None),
        ("0126Z0_daily.csv", "0126Z0", None),
    ],
)
def test_code_and_company_in_the_file_name(tmp_path: Path, name: str, symbol: str, company: str | None) -> None:
    _write(tmp_path, name, HEADER + PLAIN)
    found = _all(tmp_path)
    assert set(found.bars["symbol"].to_pylist()) == {symbol}
    assert found.symbols is not None
    assert found.symbols.select(["name", "as_of"]).to_pylist() == [{"name": company, "as_of": date(2020, 1, 6)}]


def test_zip_of_korean_windows_has_cp949_names(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("005930_XXXXXXXX.csv", HEADER + PLAIN)
    name = "삼성전자".encode("cp949")
    _write(tmp_path, "a.zip", data.getvalue().replace(b"XXXXXXXX", name))
    found = _all(tmp_path)
    assert found.symbols is not None and found.symbols["name"].to_pylist() == ["삼성전자"]


def test_index_is_read_and_named_as_one(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    _write(tmp_path, "kospi.csv", "".join(_quoted(row, "\t") for row in ROWS) + "\t\t\t\t\t\n" * 9)
    found = _all(tmp_path)
    assert found.symbols is not None
    assert dict(zip(found.symbols["symbol"].to_pylist(), found.symbols["kind"].to_pylist())) == {
        "005930": "stock",
        "KOSPI": "index",
    }
    assert found.counts["blank"] == 9 and found.bars.num_rows == 6


def test_listing_gives_names_and_markets(tmp_path: Path) -> None:
    _write(tmp_path, "data/005930.csv", HEADER + PLAIN)
    text = '"","종목코드","종목명","종가","시장구분","업종명"\n"1","005930","삼성전자",70400,"KOSPI","전기전자"\n'
    listing = _write(tmp_path, "listing.csv", text.encode("cp949"))
    found = _all(tmp_path / "data", listing=str(listing))
    assert found.symbols is not None
    last = found.symbols.to_pylist()[-1]
    assert (last["symbol"], last["name"], last["market"], last["sector"]) == ("005930", "삼성전자", "KOSPI", "전기전자")
    assert last["as_of"] == date(2020, 1, 6)
    with pytest.raises(FilesError, match="listing"):
        _all(tmp_path / "data", listing=str(tmp_path / "data" / "005930.csv"))
    before = ImportSection(listing=str(listing)).keyed()
    listing.write_bytes(text.replace("전기전자", "반도체").encode("cp949"))
    assert ImportSection(listing=str(listing)).keyed() != before


# -- stamps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "hour", "minute"),
    [("1995-03-11", 6, 0), ("2016-07-29", 6, 0), ("2016-08-01", 6, 30), ("2023-11-16", 7, 30)],
)
def test_daily_bar_ends_at_the_scheduled_close(tmp_path: Path, day: str, hour: int, minute: int) -> None:
    _write(tmp_path, "005930.csv", f"date,close\n{day},100\n")
    assert _all(tmp_path).bars["ts"].to_pylist() == [_end(day, hour, minute)]


def test_day_without_a_session_is_quarantined_with_file_and_line(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN + "2020-01-05,1,1,1,1,1\n2020-01-27,1,1,1,1,1\n")
    found = _all(tmp_path)
    wrong = found.quarantined.select(["file", "line", "symbol", "reason", "row"]).to_pylist()
    assert [(w["file"], w["line"], w["symbol"], w["reason"]) for w in wrong] == [
        ("005930.csv", 5, "005930", "not_a_session"),
        ("005930.csv", 6, "005930", "not_a_session"),
    ]
    assert wrong[0]["row"] == "2020-01-05,1,1,1,1,1" and _bars(found) == EXPECTED
    assert _all(tmp_path, market="other").quarantined.num_rows == 0


def test_minute_stamps_are_starts_or_ends_in_their_zone(tmp_path: Path) -> None:
    text = "일자,시간,시가,고가,저가,종가,거래량\n" + "".join(
        f"20200102,{t},1,1,1,1,1\n" for t in ("0900", "0901", "0902")
    )
    _write(tmp_path, "005930.csv", text)
    first = datetime(2020, 1, 2, tzinfo=UTC)
    found = _all(tmp_path)
    assert found.interval == "1m" and found.bars["ts"].to_pylist() == [first + timedelta(minutes=i) for i in range(3)]
    found = _all(tmp_path, stamps="start")
    assert found.bars["ts"].to_pylist() == [first + timedelta(minutes=i) for i in range(1, 4)]


def test_other_exchange_with_daylight_saving(tmp_path: Path) -> None:
    rows = ["2020-03-08 00:00", "2020-03-08 01:00", "2020-03-08 03:00", "2020-03-08 04:00"]
    _write(tmp_path, "XYZ.csv", "datetime,open,high,low,close\n" + "".join(f"{r},1,1,1,1\n" for r in rows))
    found = _all(tmp_path, market="other", timezone="America/New_York", venue="NY", stamps="start")
    assert found.interval == "1h" and set(found.bars["symbol"].to_pylist()) == {"XYZ"}
    assert [ts.hour for ts in found.bars["ts"].to_pylist()] == [6, 7, 8, 9]  # 02:00 does not exist that night
    daily = _write(tmp_path / "d", "XYZ.csv", "date,close\n2020-03-07,1\n2020-03-08,1\n")
    ends = _all(daily, market="other", timezone="America/New_York").bars["ts"].to_pylist()
    assert [ts.isoformat()[:16] for ts in ends] == ["2020-03-08T05:00", "2020-03-09T04:00"]


def test_epoch_milliseconds_are_utc(tmp_path: Path) -> None:
    start = 1_609_459_200_000
    text = "timestamp,open,high,low,close\n" + "".join(f"{start + i * 3_600_000},1,1,1,1\n" for i in range(3))
    found = _all(_write(tmp_path, "BTC.csv", text), market="other", stamps="end")
    assert found.interval == "1h" and found.bars["ts"][0].as_py() == datetime(2021, 1, 1, tzinfo=UTC)


def test_files_of_several_intervals_are_separate_batches(tmp_path: Path) -> None:
    _write(tmp_path, "XYZd1.csv", "date,close\n2020-01-02,1\n2020-01-03,1\n")
    _write(tmp_path, "XYZh1.csv", "date,close\n2020-01-02 01:00,1\n2020-01-02 02:00,1\n")
    parts = list(load(tmp_path, ImportSection(market="other")))
    assert {part.interval: part.bars.num_rows for part in parts} == {"1d": 2, "1h": 2}
    assert [set(part.bars["interval"].to_pylist()) for part in parts] == [{part.interval} for part in parts]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [{}, {"readme.md": "x", "prices.xlsx": "x"}], ids=["nothing", "other kinds"])
def test_empty_folder(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        _write(tmp_path, name, text)
    with pytest.raises(FilesError, match=r"expected files ending in \.csv") as error:
        _all(tmp_path)
    assert str(tmp_path) in str(error.value) and "--ingest.path" in str(error.value)
    assert not content or "1 .xlsx" in str(error.value)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="got nothing there"):
        _all(tmp_path / "nowhere")


def test_missing_column_says_which_what_was_found_and_what_is_accepted(tmp_path: Path) -> None:
    _write(tmp_path, "000660.csv", "date,open,high,low,volume\n2020-01-02,1,1,1,1\n")
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    found = _all(tmp_path)
    assert _bars(found) == EXPECTED
    row = found.quarantined.to_pylist()[0]
    assert (row["file"], row["line"], row["reason"]) == ("000660.csv", 1, "missing_column")
    with pytest.raises(FilesError, match="missing_column") as error:
        _all(tmp_path / "000660.csv")
    for word in ("expected columns for close", "종가", "found 'date', 'open'", "ingest.files.columns"):
        assert word in str(error.value)


def test_columns_that_no_bar_needs_alone_are_no_bars(tmp_path: Path) -> None:
    _write(tmp_path, "marketfeatures.csv", "date,kospi_ma5,bond_ma5\n20200102,0.1,0.2\n")
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    found = _all(tmp_path)
    assert found.quarantined["reason"].to_pylist() == ["missing_column"] and _bars(found) == EXPECTED


def test_file_without_code_in_name_or_columns(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match=r"unknown_symbol.*005930\.csv.*market=other"):
        _all(_write(tmp_path, "prices.csv", HEADER + PLAIN))


def test_identical_rows_are_dropped_and_counted_conflicting_ones_quarantined(tmp_path: Path) -> None:
    line = PLAIN.splitlines()[1]
    _write(tmp_path, "005930.csv", HEADER + PLAIN + line + "\n" + line + "\n")
    found = _all(tmp_path)
    assert _bars(found) == EXPECTED and found.counts["duplicate"] == 2 and found.quarantined.num_rows == 0
    _write(tmp_path, "005930.csv", HEADER + PLAIN + line.replace("15422255", "1") + "\n")
    found = _all(tmp_path)
    assert _bars(found) == [EXPECTED[0], EXPECTED[2]]
    assert sorted(found.quarantined["line"].to_pylist()) == [3, 5]
    assert set(found.quarantined["reason"].to_pylist()) == {"duplicate"}


def test_same_rows_in_two_files_of_a_symbol(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    _write(tmp_path, "005930_rich.csv", "date,open,high,low,close,volume,a\n" + PLAIN.replace("\n", ",7\n"))
    found = _all(tmp_path)
    assert _bars(found) == EXPECTED and found.counts["duplicate"] == 3


def test_unsorted_rows_are_sorted_and_counted(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + "".join(reversed(PLAIN.splitlines(keepends=True))))
    found = _all(tmp_path)
    assert _bars(found) == EXPECTED and found.counts["unsorted"] == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2020-01-07,55000,54000,55500,55200,1", "high_below_low"),
        ("2020-01-07,55000,56000,54000,57000,1", "outside_high_low"),
        ("2020-01-07,57000,56000,54000,55000,1", "outside_high_low"),
        ("2020-01-07,55000,56000,abc,55000,1", "not_a_number"),
        ('2020-01-07,55000,56000,54000,"55,00",1', "not_a_number"),
        ("2020-01-07,0x10,56000,54000,55000,1", "not_a_number"),
        ("2020-01-07,true,56000,54000,55000,1", "not_a_number"),
        ("2020-01-07,55000,inf,54000,55000,1", "not_a_number"),
        ("2020-01-07,55000,56000,54000,,1", "missing_close"),
        ("2020-01-07,,,,,", "missing_close"),
        ("2020-01-07,-55000,56000,54000,55000,1", "negative_price"),
        ("2020-01-07,0,56000,54000,55000,1", "zero_price"),
        ("2020-01-07,55000,56000,54000,0,1", "zero_price"),
        ("2020-01-07,55000,56000,54000,55000,-1", "negative_volume"),
        (",55000,56000,54000,55000,1", "not_a_date"),
        ("2020-13-07,55000,56000,54000,55000,1", "not_a_date"),
        ("2020-02-30,55000,56000,54000,55000,1", "not_a_date"),
        ("yesterday,55000,56000,54000,55000,1", "not_a_date"),
        ("2020-01-07,55000,56000", "wrong_number_of_cells"),
        ("2020-01-07,55000,56000,54000,55000,1,2,3", "wrong_number_of_cells"),
        ('2020-01-07,55000,"56000,54000,55000,1', "open_quote"),
    ],
)
def test_bad_row_goes_to_quarantine_and_the_others_stay(tmp_path: Path, row: str, reason: str) -> None:
    lines = PLAIN.splitlines()
    _write(tmp_path, "000660.csv", HEADER + PLAIN)
    _write(tmp_path, "005930.csv", HEADER + "\n".join([lines[0], row, *lines[1:]]) + "\n")
    _write(tmp_path, "005940.csv", HEADER + PLAIN)
    found = _all(tmp_path)
    assert _bars(found) == [("000660", *e[1:]) for e in EXPECTED] + EXPECTED + [("005940", *e[1:]) for e in EXPECTED]
    wrong = found.quarantined.to_pylist()
    assert [(w["file"], w["line"], w["reason"], w["row"]) for w in wrong] == [("005930.csv", 3, reason, row)]


def test_halted_day_with_zero_open_high_low_keeps_its_close(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN + "2020-01-07,0,0,0,55500,0\n")
    found = _all(tmp_path)
    assert found.quarantined.num_rows == 0
    last = found.bars.to_pylist()[-1]
    assert last["close"] == 55500.0 and last["volume"] == 0.0
    assert all(np.isnan(last[name]) for name in ("open", "high", "low"))


def test_columns_in_another_order_than_taken_for_granted(tmp_path: Path) -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2020-02-28")]
    text = "".join(f"{d},{100 + i},{90 + i},{95 + i},{110 + i},{1000 + i}\n" for i, d in enumerate(days))
    _write(tmp_path, "005930.csv", text)
    with pytest.raises(FilesError, match=f"columns_out_of_order {len(days)}"):
        _all(tmp_path)


NOT_WHAT_IT_SAYS = {
    "binary as CSV": ("005930.csv", bytes(range(256)) * 8, "not_text"),
    "Excel as CSV": ("005930.csv", b"PK\x03\x04" + b"x" * 99, "not_text"),
    "Parquet as CSV": ("005930.csv", b"PAR1" + b"\x00" * 99, "not_text"),
    "empty CSV": ("005930.csv", b"", "empty_file"),
    "header only": ("005930.csv", HEADER.encode(), "empty_file"),
    "only blanks": ("005930.csv", b" \n\n", "empty_file"),
    "text as Parquet": ("005930.parquet", PLAIN.encode(), "not_parquet"),
    "half a Parquet file": ("005930.parquet", b"PAR1" + b"\x07" * 50, "not_parquet"),
    "broken zip": ("all.zip", b"PK\x03\x04 and no more", "broken_zip"),
    "text as zip": ("all.zip", PLAIN.encode(), "broken_zip"),
    "text as gzip": ("005930.csv.gz", PLAIN.encode(), "not_gzip"),
    "half a gzip file": ("005930.csv.gz", gzip.compress(PLAIN.encode() * 50)[:60], "not_gzip"),
    "prose": ("005930.csv", b"These are not, by any means,\nthe bars, you look for\n", "missing_column"),
    "HTML": ("005930.csv", b"<html><body><table><tr><td>1</td></tr></table></body></html>\n", "missing_column"),
}


@pytest.mark.parametrize("case", NOT_WHAT_IT_SAYS)
def test_file_that_is_not_what_its_ending_says(tmp_path: Path, case: str) -> None:
    name, data, reason = NOT_WHAT_IT_SAYS[case]
    _write(tmp_path, f"bad/{name}", data)
    with pytest.raises(FilesError, match=rf"got none that can be used \({reason} 1\)"):
        _all(tmp_path / "bad")
    _write(tmp_path, "bad/000660.csv", HEADER + PLAIN)
    found = _all(tmp_path / "bad")
    assert [(w["file"], w["reason"]) for w in found.quarantined.to_pylist()] == [(name, reason)]
    assert _bars(found) == [("000660", *e[1:]) for e in EXPECTED]


def test_damaged_member_of_an_archive(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("005930.csv", HEADER + PLAIN)
        archive.writestr("000660.csv", HEADER + PLAIN)
    broken = data.getvalue().replace(b"55200", b"55201", 1)  # the checksum no longer fits
    _write(tmp_path, "all.zip", broken)
    found = _all(tmp_path)
    assert [(w["file"], w["reason"]) for w in found.quarantined.to_pylist()] == [("all.zip/005930.csv", "broken_zip")]
    assert set(found.bars["symbol"].to_pylist()) == {"000660"}


def test_unreadable_file(tmp_path: Path) -> None:
    _write(tmp_path, "000660.csv", HEADER + PLAIN)
    (tmp_path / "005930.csv").symlink_to(tmp_path / "gone.csv")
    found = _all(tmp_path)
    assert [(w["file"], w["reason"]) for w in found.quarantined.to_pylist()] == [("005930.csv", "unreadable")]


def test_symbol_with_three_bars_and_one_with_one(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    _write(tmp_path, "000660.csv", HEADER + PLAIN.splitlines()[0])
    assert len(_bars(_all(tmp_path))) == 4


def test_columns_without_any_value(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + "".join(f"{d},{o},{h},{lo},,{v}\n" for d, o, h, lo, _, v in ROWS))
    with pytest.raises(FilesError, match="missing_close 3"):
        _all(tmp_path)
    _write(tmp_path, "005930.csv", HEADER + "".join(f"{d},NaN,NaN,NaN,{c},\n" for d, *_, c, _ in ROWS))
    found = _all(tmp_path)
    assert found.close_only and found.bars.num_rows == 3 and np.isnan(found.bars["volume"].to_numpy()).all()


def test_mixed_encodings_in_a_folder_and_in_a_file(tmp_path: Path) -> None:
    _write(tmp_path, "a/005930.csv", KOREAN.encode("cp949"))
    _write(tmp_path, "a/000660.csv", KOREAN.encode())
    assert len(_bars(_all(tmp_path / "a"))) == 6
    rows = [f"005930,삼성전자,{d},{c}\n" for d, *_, c, _ in ROWS]
    mixed = (
        "종목코드,종목명,날짜,종가\n".encode()
        + rows[0].encode("cp949")
        + rows[1].encode()
        + b"005930,\xff\xff,2020-01-06,1\n"
    )
    found = _all(_write(tmp_path, "b.csv", mixed))
    assert [row[5] for row in _bars(found)] == [55200.0, 55500.0]
    assert [(w["line"], w["reason"]) for w in found.quarantined.to_pylist()] == [(4, "undecodable")]
    assert found.symbols is not None and found.symbols["name"].to_pylist() == ["삼성전자"]


# -- bases are never joined --------------------------------------------------------------------------------------------


def test_folders_with_the_same_symbols_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "v1/005930.csv", HEADER + PLAIN)
    _write(tmp_path, "v2/005930.csv", HEADER + PLAIN)
    with pytest.raises(FilesError, match=r"choose one with --ingest\.path") as error:
        _all(tmp_path)
    assert str(tmp_path / "v1") in str(error.value) and str(tmp_path / "v2") in str(error.value)
    assert _bars(_all(tmp_path / "v1")) == EXPECTED
    assert _bars(_all(tmp_path, join_folders=True)) == EXPECTED


def test_panels_in_folders_with_the_same_symbols_are_refused(tmp_path: Path) -> None:
    for folder in ("v1", "v2"):
        _write(tmp_path, f"{folder}/panel.csv", "code,date,close\n005930,20200102,1\n")
    with pytest.raises(FilesError, match=r"choose one with --ingest\.path"):
        _all(tmp_path)


def test_symbol_in_a_file_of_its_own_and_in_a_panel_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    panel = _write(tmp_path, "panel.csv", "code,date,close\n005930,20200102,1\n000660,20200102,1\n")
    with pytest.raises(FilesError, match=r"choose one with --ingest\.path") as error:
        _all(tmp_path)
    assert str(panel) in str(error.value)
    found = _all(tmp_path, join_folders=True)
    assert found.bars.num_rows == 3 and found.quarantined["reason"].to_pylist() == ["duplicate"] * 2


def test_folders_with_different_symbols_are_one_source(tmp_path: Path) -> None:
    _write(tmp_path, "KOSPI/005930.csv", HEADER + PLAIN)
    _write(tmp_path, "KOSDAQ/035760.csv", HEADER + PLAIN)
    assert len(_bars(_all(tmp_path))) == 6


def test_column_source_with_several_bases(tmp_path: Path) -> None:
    text = "source,code,date,close\nv1,005930,20200102,50\nv2,005930,20200102,1\n"
    path = _write(tmp_path, "all.csv", text)
    with pytest.raises(FilesError, match=r"\['v1', 'v2'\].*ingest.files.basis"):
        _all(path)
    assert [row[5] for row in _bars(_all(path, basis="v2"))] == [1.0]
    with pytest.raises(FilesError, match="'v3'"):
        _all(path, basis="v3")


def test_files_of_one_symbol_that_disagree_are_two_bases(tmp_path: Path) -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2020-03-31")]
    for name, scale in (("005930_old.csv", 50), ("005930_new.csv", 1)):
        _write(tmp_path, name, "date,close\n" + "".join(f"{d},{1000 * scale}\n" for d in days))
    with pytest.raises(FilesError, match="expected files that agree"):
        _all(tmp_path)


def test_files_digest_names_bytes_and_names_not_places(tmp_path: Path) -> None:
    for place in ("a", "b"):
        _write(tmp_path, f"{place}/x/005930.csv", HEADER + PLAIN)
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")
    _write(tmp_path, "b/x/005930.csv", HEADER + PLAIN.replace("55200", "55201"))
    assert files_digest(tmp_path / "a") != files_digest(tmp_path / "b")
    assert files_digest(tmp_path / "nothing") == files_digest(tmp_path / "nothing else")


def test_events_tell_progress_and_troubles(tmp_path: Path) -> None:
    _write(tmp_path, "005930.csv", HEADER + PLAIN)
    _write(tmp_path, "000660.csv", b"PAR1" + b"x" * 99)
    events: list[tuple[str, dict[str, object]]] = []
    list(load(tmp_path, ImportSection(), lambda kind, /, **fields: events.append((kind, fields))))
    assert ("progress", {"done": 2, "total": 2, "unit": "files"}) in events
    assert any(kind == "log" and "000660.csv" in str(fields["text"]) for kind, fields in events)


# -- properties --------------------------------------------------------------------------------------------------------

SESSIONS = [str(d) for d in krx.sessions("1990-01-01", "2021-12-31")]
SPELLED: list[Callable[[str], str]] = [
    lambda d: d,
    lambda d: d.replace("-", ""),
    lambda d: d.replace("-", "/"),
    lambda d: d.replace("-", "."),
    lambda d: "{}년 {}월 {}일".format(*map(int, d.split("-"))),
    lambda d: d + " 00:00:00",
]


@st.composite
def bars_as_text(draw: st.DrawFn) -> tuple[list[tuple[str, int, int, int, int, int]], bytes]:
    days = draw(st.lists(st.sampled_from(SESSIONS), min_size=1, max_size=20, unique=True))
    rows = []
    for day in days:
        low = draw(st.integers(1, 3_000_000))
        high = low + draw(st.integers(0, 100_000))
        rows.append(
            (day, draw(st.integers(low, high)), high, low, draw(st.integers(low, high)), draw(st.integers(0, 10**9)))
        )
    delimiter = draw(st.sampled_from([",", "\t", ";"]))
    spelled = draw(st.sampled_from(SPELLED))
    number = draw(st.sampled_from(["{}", '"{:,}"', '"{}"', " {} "]))
    header = draw(
        st.sampled_from(
            ["", "date{0}open{0}high{0}low{0}close{0}volume\n", "일자{0}시가{0}고가{0}저가{0}종가{0}거래량\n"]
        )
    )
    text = header.format(delimiter) + "".join(
        delimiter.join([spelled(day), *(number.format(n) for n in numbers)]) + "\n" for day, *numbers in rows
    )
    ends = draw(st.sampled_from(["\n", "\r\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "cp949", "utf-16"]))
    return rows, (text + draw(st.sampled_from(["", "\n", delimiter * 5 + "\n"]))).replace("\n", ends).encode(encoding)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bars_as_text())
def test_what_was_written_is_read(
    tmp_path: Path, case: tuple[list[tuple[str, int, int, int, int, int]], bytes]
) -> None:
    rows, data = case
    found = _all(_write(tmp_path, "005930.csv", data))
    assert found.quarantined.num_rows == 0
    expected = sorted((day, *map(float, numbers)) for day, *numbers in rows)
    got = [((row[1] + timedelta(hours=9)).date().isoformat(), *row[2:]) for row in _bars(found)]  # type: ignore[operator]
    assert got == expected


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=300).map(str.encode),
        st.lists(
            st.sampled_from(["2020-01-02", "55,200", '"', ",", "\t", "\n", "0", "-1", "nan", "date", "close", "é", " "])
        ).map(lambda words: ("date,close\n" + "".join(words)).encode()),
    ),
    st.sampled_from(["005930.csv", "005930.parquet", "005930.zip", "005930.csv.gz", "x.csv"]),
)
def test_any_bytes_end_in_bars_or_a_clear_error(tmp_path: Path, data: bytes, name: str) -> None:
    folder = tmp_path / "any"
    for old in folder.glob("*"):
        old.unlink()
    _write(folder, name, data)
    try:
        found = _all(folder)
    except FilesError as error:
        assert "expected" in str(error) and "got" in str(error)
    else:
        assert found.bars.num_rows > 0 and (found.bars["close"].to_numpy() > 0).all()


def _strictly(text: str) -> float | None:
    """Read a number as the importer promises; None = no number. A slow twin."""
    word = text.strip()
    if word in names_of_missing():
        return float("nan")
    digits = word.lstrip("+-")
    if "," in word:
        whole, _, fraction = digits.partition(".")
        head, *groups = whole.split(",")
        if len(word) - len(digits) > 1 or not 1 <= len(head) <= 3 or any(len(g) != 3 for g in groups):
            return None
        if not all(c in "0123456789" for c in head + "".join(groups) + fraction):
            return None
        word = word.replace(",", "")
    if not all(c in "0123456789.eE+-" for c in word):
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return None if np.isinf(value) else value


def names_of_missing() -> set[str]:
    return set(cells.MISSING.to_pylist())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(alphabet="0123456789,.-+eE ", max_size=9),
            st.integers(-(10**12), 10**12).map(lambda n: f"{n:,}"),
            st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
            st.sampled_from(["nan", "NA", "-", "", " ", "null", "1e999", "0x10", "१२", "12원"]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_are_read_strictly(texts: list[str]) -> None:
    values, wrong = cells.numbers(pa.chunked_array([pa.array(texts, pa.string())]))
    for text, value, bad in zip(texts, values, wrong):
        expected = _strictly(text)
        assert bad == (expected is None), text
        assert np.isnan(value) if expected is None or np.isnan(expected) else value == expected, text


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


def test_header_names_are_normalised() -> None:
    assert names.roles(["\ufeffDate", " Close (KRW) ", "VOL."], {}) == {"date": 0, "close": 1, "volume": 2}
    assert names.roles(["date", "Adj Close", "Close"], {}) == {"date": 0, "close": 2}
    assert names.roles(["", "x"], {"close": "x"}) == {"date": 0, "close": 1}
