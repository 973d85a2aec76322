"""Every trouble is named with file, line and reason, and two bases are never joined."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import krx
from pipeline.importers import FilesError, ImportSection, files_digest, load
from tests.bar_files import EXPECTED, HEADER, KOREAN, PLAIN, ROWS, bars_of, read_all, write


@pytest.mark.parametrize("content", [{}, {"readme.md": "x", "prices.xlsx": "x"}], ids=["nothing", "other kinds"])
def test_empty_folder(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        write(tmp_path, name, text)
    with pytest.raises(FilesError, match=r"expected files ending in \.csv") as error:
        read_all(tmp_path)
    assert str(tmp_path) in str(error.value) and "--ingest.path" in str(error.value)
    assert not content or "1 .xlsx" in str(error.value)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="got nothing there"):
        read_all(tmp_path / "nowhere")


def test_missing_column_says_which_what_was_found_and_what_is_accepted(tmp_path: Path) -> None:
    write(tmp_path, "000660.csv", "date,open,high,low,volume\n2020-01-02,1,1,1,1\n")
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED
    row = found.quarantined.to_pylist()[0]
    assert (row["file"], row["line"], row["reason"]) == ("000660.csv", 1, "missing_column")
    with pytest.raises(FilesError, match="missing_column") as error:
        read_all(tmp_path / "000660.csv")
    for word in ("expected columns for close", "종가", "found 'date', 'open'", "ingest.files.columns"):
        assert word in str(error.value)


def test_columns_that_no_bar_needs_alone_are_no_bars(tmp_path: Path) -> None:
    write(tmp_path, "marketfeatures.csv", "date,kospi_ma5,bond_ma5\n20200102,0.1,0.2\n")
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    found = read_all(tmp_path)
    assert found.quarantined["reason"].to_pylist() == ["missing_column"] and bars_of(found) == EXPECTED


def test_file_without_code_in_name_or_columns(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match=r"unknown_symbol.*005930\.csv.*market=other"):
        read_all(write(tmp_path, "prices.csv", HEADER + PLAIN))


def test_identical_rows_are_dropped_and_counted_conflicting_ones_quarantined(tmp_path: Path) -> None:
    line = PLAIN.splitlines()[1]
    write(tmp_path, "005930.csv", HEADER + PLAIN + line + "\n" + line + "\n")
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED and found.counts["duplicate"] == 2 and found.quarantined.num_rows == 0
    write(tmp_path, "005930.csv", HEADER + PLAIN + line.replace("15422255", "1") + "\n")
    found = read_all(tmp_path)
    assert bars_of(found) == [EXPECTED[0], EXPECTED[2]]
    assert sorted(found.quarantined["line"].to_pylist()) == [3, 5]
    assert set(found.quarantined["reason"].to_pylist()) == {"duplicate"}


def test_same_rows_in_two_files_of_a_symbol(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    write(tmp_path, "005930_rich.csv", "date,open,high,low,close,volume,a\n" + PLAIN.replace("\n", ",7\n"))
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED and found.counts["duplicate"] == 3


def test_unsorted_rows_are_sorted_and_counted(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + "".join(reversed(PLAIN.splitlines(keepends=True))))
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED and (found.counts["unsorted"], found.counts["newest_first"]) == (0, 1)
    first, second, third = PLAIN.splitlines(keepends=True)
    write(tmp_path, "005930.csv", HEADER + first + third + second)
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED and (found.counts["unsorted"], found.counts["newest_first"]) == (1, 0)


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
    write(tmp_path, "000660.csv", HEADER + PLAIN)
    write(tmp_path, "005930.csv", HEADER + "\n".join([lines[0], row, *lines[1:]]) + "\n")
    write(tmp_path, "005940.csv", HEADER + PLAIN)
    found = read_all(tmp_path)
    assert bars_of(found) == [("000660", *e[1:]) for e in EXPECTED] + EXPECTED + [("005940", *e[1:]) for e in EXPECTED]
    wrong = found.quarantined.to_pylist()
    assert [(w["file"], w["line"], w["reason"], w["row"]) for w in wrong] == [("005930.csv", 3, reason, row)]


def test_halted_day_with_zero_open_high_low_keeps_its_close(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN + "2020-01-07,0,0,0,55500,0\n")
    found = read_all(tmp_path)
    assert found.quarantined.num_rows == 0
    last = found.bars.to_pylist()[-1]
    assert last["close"] == 55500.0 and last["volume"] == 0.0
    assert all(np.isnan(last[name]) for name in ("open", "high", "low"))


def test_columns_in_another_order_than_taken_for_granted(tmp_path: Path) -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2020-02-28")]
    text = "".join(f"{d},{100 + i},{90 + i},{95 + i},{110 + i},{1000 + i}\n" for i, d in enumerate(days))
    write(tmp_path, "005930.csv", text)
    with pytest.raises(FilesError, match=f"columns_out_of_order {len(days)}"):
        read_all(tmp_path)


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
    write(tmp_path, f"bad/{name}", data)
    with pytest.raises(FilesError, match=rf"got none that can be used \({reason} 1\)"):
        read_all(tmp_path / "bad")
    write(tmp_path, "bad/000660.csv", HEADER + PLAIN)
    found = read_all(tmp_path / "bad")
    assert [(w["file"], w["reason"]) for w in found.quarantined.to_pylist()] == [(name, reason)]
    assert bars_of(found) == [("000660", *e[1:]) for e in EXPECTED]


def test_damaged_member_of_an_archive(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("005930.csv", HEADER + PLAIN)
        archive.writestr("000660.csv", HEADER + PLAIN)
    broken = data.getvalue().replace(b"55200", b"55201", 1)  # the checksum no longer fits
    write(tmp_path, "all.zip", broken)
    found = read_all(tmp_path)
    assert [(w["file"], w["reason"]) for w in found.quarantined.to_pylist()] == [("all.zip/005930.csv", "broken_zip")]
    assert set(found.bars["symbol"].to_pylist()) == {"000660"}


def test_unreadable_file(tmp_path: Path) -> None:
    write(tmp_path, "000660.csv", HEADER + PLAIN)
    (tmp_path / "005930.csv").symlink_to(tmp_path / "gone.csv")
    found = read_all(tmp_path)
    assert [(w["file"], w["reason"]) for w in found.quarantined.to_pylist()] == [("005930.csv", "unreadable")]


def test_symbol_with_three_bars_and_one_with_one(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    write(tmp_path, "000660.csv", HEADER + PLAIN.splitlines()[0])
    assert len(bars_of(read_all(tmp_path))) == 4


def test_columns_without_any_value(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + "".join(f"{d},{o},{h},{lo},,{v}\n" for d, o, h, lo, _, v in ROWS))
    with pytest.raises(FilesError, match="missing_close 3"):
        read_all(tmp_path)
    write(tmp_path, "005930.csv", HEADER + "".join(f"{d},NaN,NaN,NaN,{c},\n" for d, *_, c, _ in ROWS))
    found = read_all(tmp_path)
    assert found.close_only and found.bars.num_rows == 3 and np.isnan(found.bars["volume"].to_numpy()).all()


def test_mixed_encodings_in_a_folder_and_in_a_file(tmp_path: Path) -> None:
    write(tmp_path, "a/005930.csv", KOREAN.encode("cp949"))
    write(tmp_path, "a/000660.csv", KOREAN.encode())
    assert len(bars_of(read_all(tmp_path / "a"))) == 6
    rows = [f"005930,삼성전자,{d},{c}\n" for d, *_, c, _ in ROWS]
    mixed = (
        "종목코드,종목명,날짜,종가\n".encode()
        + rows[0].encode("cp949")
        + rows[1].encode()
        + b"005930,\xff\xff,2020-01-06,1\n"
    )
    found = read_all(write(tmp_path, "b.csv", mixed))
    assert [row[5] for row in bars_of(found)] == [55200.0, 55500.0]
    assert [(w["line"], w["reason"]) for w in found.quarantined.to_pylist()] == [(4, "undecodable")]
    assert found.symbols is not None and found.symbols["name"].to_pylist() == ["삼성전자"] * 2
    assert [row["as_of"].day for row in found.symbols.to_pylist()] == [2, 3], "its first day and its last"


def test_folders_with_the_same_symbols_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "v1/005930.csv", HEADER + PLAIN)
    write(tmp_path, "v2/005930.csv", HEADER + PLAIN)
    with pytest.raises(FilesError, match=r"choose one with --ingest\.path") as error:
        read_all(tmp_path)
    assert str(tmp_path / "v1") in str(error.value) and str(tmp_path / "v2") in str(error.value)
    assert bars_of(read_all(tmp_path / "v1")) == EXPECTED
    assert bars_of(read_all(tmp_path, join_folders=True)) == EXPECTED


def test_panels_in_folders_with_the_same_symbols_are_refused(tmp_path: Path) -> None:
    for folder in ("v1", "v2"):
        write(tmp_path, f"{folder}/panel.csv", "code,date,close\n005930,20200102,1\n")
    with pytest.raises(FilesError, match=r"choose one with --ingest\.path"):
        read_all(tmp_path)


def test_symbol_in_a_file_of_its_own_and_in_a_panel_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    panel = write(tmp_path, "panel.csv", "code,date,close\n005930,20200102,1\n000660,20200102,1\n")
    with pytest.raises(FilesError, match=r"choose one with --ingest\.path") as error:
        read_all(tmp_path)
    assert str(panel) in str(error.value)
    found = read_all(tmp_path, join_folders=True)
    assert found.bars.num_rows == 3 and found.quarantined["reason"].to_pylist() == ["duplicate"] * 2


def test_folders_with_different_symbols_are_one_source(tmp_path: Path) -> None:
    write(tmp_path, "KOSPI/005930.csv", HEADER + PLAIN)
    write(tmp_path, "KOSDAQ/035760.csv", HEADER + PLAIN)
    assert len(bars_of(read_all(tmp_path))) == 6


def test_column_source_with_several_bases(tmp_path: Path) -> None:
    text = "source,code,date,close\nv1,005930,20200102,50\nv2,005930,20200102,1\n"
    path = write(tmp_path, "all.csv", text)
    with pytest.raises(FilesError, match=r"\['v1', 'v2'\].*ingest.files.basis"):
        read_all(path)
    assert [row[5] for row in bars_of(read_all(path, basis="v2"))] == [1.0]
    with pytest.raises(FilesError, match="'v3'"):
        read_all(path, basis="v3")


def test_files_of_one_symbol_that_disagree_are_two_bases(tmp_path: Path) -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2020-03-31")]
    for name, scale in (("005930_old.csv", 50), ("005930_new.csv", 1)):
        write(tmp_path, name, "date,close\n" + "".join(f"{d},{1000 * scale}\n" for d in days))
    with pytest.raises(FilesError, match="expected files that agree"):
        read_all(tmp_path)


def test_files_digest_names_bytes_and_names_not_places(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write(tmp_path, f"{place}/x/005930.csv", HEADER + PLAIN)
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")
    write(tmp_path, "b/x/005930.csv", HEADER + PLAIN.replace("55200", "55201"))
    assert files_digest(tmp_path / "a") != files_digest(tmp_path / "b")
    assert files_digest(tmp_path / "nothing") == files_digest(tmp_path / "nothing else")


def test_events_tell_progress_and_troubles(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    write(tmp_path, "000660.csv", b"PAR1" + b"x" * 99)
    events: list[tuple[str, dict[str, object]]] = []
    list(load(tmp_path, ImportSection(), lambda kind, /, **fields: events.append((kind, fields))))
    assert ("progress", {"done": 2, "total": 2, "unit": "files"}) in events
    assert any(kind == "log" and "000660.csv" in str(fields["text"]) for kind, fields in events)
