"""Every layout of a file gives the same bars, and file names tell symbols, companies and indices."""

from __future__ import annotations

import gzip
import io
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.importers import FilesError, ImportSection, names
from tests.bar_files import EXPECTED, HEADER, KOREAN, PLAIN, ROWS, bars_of, end_of, read_all, table_of, write


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bars(tmp_path: Path, layout: str) -> None:
    write(tmp_path, "005930.csv", LAYOUTS[layout])
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED
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
        pa.array([end_of(d) for d, *_ in ROWS], pa.timestamp("ms", tz="Asia/Seoul")),
        pa.array([d for d, *_ in ROWS]).dictionary_encode(),
    ],
    ids=lambda a: str(a.type)[:40],
)
def test_parquet_with_dates_of_any_type(tmp_path: Path, dates: pa.Array) -> None:
    pq.write_table(table_of().set_column(0, "Date", dates), tmp_path / "A005930.parquet")
    assert bars_of(read_all(tmp_path)) == EXPECTED


def test_gzip_zip_and_folders_in_them(tmp_path: Path) -> None:
    text = (HEADER + PLAIN).encode()
    one, two, three = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    write(one, "005930.csv.gz", gzip.compress(text))
    two.mkdir()
    with zipfile.ZipFile(two / "all.zip", "w") as archive:
        archive.writestr("prices/005930_price.csv", text)
        archive.writestr("__MACOSX/prices/._005930_price.csv", b"\x00\x05")
    three.mkdir()
    table = io.BytesIO()
    pq.write_table(table_of(), table)
    with zipfile.ZipFile(three / "all.zip", "w") as archive:
        archive.writestr("005930.parquet", table.getvalue())
    assert [bars_of(read_all(path)) for path in (one, two, two / "all.zip", three)] == [EXPECTED] * 4


def test_one_file_is_a_path_too(tmp_path: Path) -> None:
    assert bars_of(read_all(write(tmp_path, "005930.csv", HEADER + PLAIN))) == EXPECTED


def test_panel_with_a_column_of_codes_pads_lost_zeros(tmp_path: Path) -> None:
    text = "Code,Name,Market,Date,Close\n5930,삼성전자,KOSPI,20200102,55200\n00680K,우선주,코스닥,20200102,9000\n"
    found = read_all(write(tmp_path, "all.csv", text.encode("cp949")))
    assert [(row[0], row[5]) for row in bars_of(found)] == [("005930", 55200.0), ("00680K", 9000.0)]
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
        write(tmp_path, "closes.csv", "Date,005930,000660\n2020-01-02,55200,\n2020-01-03,55500,94700\n")
    found = read_all(tmp_path)
    assert [(row[0], row[1], row[5]) for row in bars_of(found)] == [
        ("000660", end_of("2020-01-03"), 94700.0),
        ("005930", end_of("2020-01-02"), 55200.0),
        ("005930", end_of("2020-01-03"), 55500.0),
    ]
    assert found.close_only and found.quarantined.num_rows == 0


def test_close_only_files_with_an_unnamed_date_column(tmp_path: Path) -> None:
    write(tmp_path, "005930_price.csv", '"","Price"\n"2020-01-02",55200\n"2020-01-03",1e+05\n')
    found = read_all(tmp_path)
    assert [row[5] for row in bars_of(found)] == [55200.0, 100000.0]
    assert found.close_only and np.isnan(found.bars["volume"].to_numpy()).all()


def test_ohlcv_and_close_only_files_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    write(tmp_path, "000660.csv", "date,close\n2020-01-02,94700\n")
    assert not read_all(tmp_path).close_only


def test_columns_and_header_of_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, "a/005930.csv", "day;c1;c2;x\n02/01/2020;55200;7;1\n")
    found = read_all(tmp_path / "a", columns={"date": "day", "close": "c1", "volume": "c2"}, date_format="%d/%m/%Y")
    assert [(row[1], row[5], row[6]) for row in bars_of(found)] == [(end_of("2020-01-02"), 55200.0, 7.0)]
    write(tmp_path, "b/x.csv", "5930,1,20200102,55200\n")
    found = read_all(tmp_path / "b", header=("code", "", "date", "close"))
    assert [(row[0], row[5]) for row in bars_of(found)] == [("005930", 55200.0)]
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
    write(tmp_path, name, HEADER + PLAIN)
    found = read_all(tmp_path)
    assert set(found.bars["symbol"].to_pylist()) == {symbol}
    assert found.symbols is not None
    assert found.symbols.select(["name", "as_of"]).to_pylist() == [{"name": company, "as_of": date(2020, 1, 6)}]


def test_zip_of_korean_windows_has_cp949_names(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("005930_XXXXXXXX.csv", HEADER + PLAIN)
    name = "삼성전자".encode("cp949")
    write(tmp_path, "a.zip", data.getvalue().replace(b"XXXXXXXX", name))
    found = read_all(tmp_path)
    assert found.symbols is not None and found.symbols["name"].to_pylist() == ["삼성전자"]


def test_index_is_read_and_named_as_one(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    write(tmp_path, "kospi.csv", "".join(_quoted(row, "\t") for row in ROWS) + "\t\t\t\t\t\n" * 9)
    found = read_all(tmp_path)
    assert found.symbols is not None
    assert dict(zip(found.symbols["symbol"].to_pylist(), found.symbols["kind"].to_pylist())) == {
        "005930": "stock",
        "KOSPI": "index",
    }
    assert found.counts["blank"] == 9 and found.bars.num_rows == 6


def test_listing_gives_names_and_markets(tmp_path: Path) -> None:
    write(tmp_path, "data/005930.csv", HEADER + PLAIN)
    text = '"","종목코드","종목명","종가","시장구분","업종명"\n"1","005930","삼성전자",70400,"KOSPI","전기전자"\n'
    listing = write(tmp_path, "listing.csv", text.encode("cp949"))
    found = read_all(tmp_path / "data", listing=str(listing))
    assert found.symbols is not None
    last = found.symbols.to_pylist()[-1]
    assert (last["symbol"], last["name"], last["market"], last["sector"]) == ("005930", "삼성전자", "KOSPI", "전기전자")
    assert last["as_of"] == date(2020, 1, 6)
    with pytest.raises(FilesError, match="listing"):
        read_all(tmp_path / "data", listing=str(tmp_path / "data" / "005930.csv"))
    before = ImportSection(listing=str(listing)).keyed()
    listing.write_bytes(text.replace("전기전자", "반도체").encode("cp949"))
    assert ImportSection(listing=str(listing)).keyed() != before


def test_header_names_are_normalised() -> None:
    assert names.roles(["\ufeffDate", " Close (KRW) ", "VOL."], {}) == {"date": 0, "close": 1, "volume": 2}
    assert names.roles(["date", "Adj Close", "Close"], {}) == {"date": 0, "close": 2}
    assert names.roles(["", "x"], {"close": "x"}) == {"date": 0, "close": 1}
