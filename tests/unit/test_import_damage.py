"""Files that break in their middle or would fill the memory are named, and the others are read."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from pipeline.importers import FilesError, files
from tests.bar_files import EXPECTED, HEADER, PLAIN, ROWS, bars_of, read_all, table_of, write

MANY = HEADER + "".join(f"2020-01-02,{100 + i},{200 + i},50,{100 + i},{i * 7919 % 997}\n" for i in range(2000))


def _parquet(columns: int = 3000) -> bytes:
    rng = np.random.default_rng(0)
    table = pa.table({"date": ["2020-01-02"] * columns, "close": rng.random(columns), "volume": rng.random(columns)})
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(255 - b for b in data[at : at + 64]) + data[at + 64 :]


def _feather() -> bytes:
    out = io.BytesIO()
    feather.write_feather(table_of(), out)
    return out.getvalue()


def _zip(data: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000020.csv", data)
        archive.writestr("000040.csv", HEADER + PLAIN)
    return out.getvalue()


DAMAGED = {
    "gzip that ends early": ("000020.csv.gz", gzip.compress(MANY.encode())[:-200], "not_gzip"),
    "gzip with another byte": ("000020.csv.gz", _flipped(gzip.compress(MANY.encode()), 2000), "not_gzip"),
    "Parquet that ends early": ("000020.parquet", _parquet()[:-300], "not_parquet"),
    "Parquet with another page": ("000020.parquet", _flipped(_parquet(), 9000), "not_parquet"),
    "Feather that ends early": ("000020.feather", _feather()[:-40], "not_feather"),
    "text as Feather": ("000020.feather", PLAIN.encode(), "not_feather"),
    "member of an archive with another byte": ("all.zip", _flipped(_zip(MANY), 2000), "broken_zip"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_file_is_named_and_the_others_are_read(tmp_path: Path, case: str) -> None:
    name, data, reason = DAMAGED[case]
    write(tmp_path, name, data)
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    found = read_all(tmp_path)
    wrong = found.quarantined.to_pylist()
    shown = "all.zip/000020.csv" if name == "all.zip" else name
    assert [(w["file"], w["line"], w["reason"]) for w in wrong] == [(shown, -1, reason)]
    assert "expected" in wrong[0]["row"] and "got" in wrong[0]["row"]
    assert [row for row in bars_of(found) if row[0] == "005930"] == EXPECTED
    assert found.bars.num_rows == len(ROWS) * (2 if name == "all.zip" else 1)


def test_lists_in_a_column_are_no_prices(tmp_path: Path) -> None:
    pq.write_table(pa.table({"date": ["2020-01-02"], "close": [[1.0, 2.0]]}), tmp_path / "005930.parquet")
    with pytest.raises(FilesError, match="nested_column 1"):
        read_all(tmp_path)


def test_what_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FREE_BYTES", 2**20)
    blanks = HEADER + PLAIN + ",,,,,\n" * 10**6
    write(tmp_path, "000080.csv.gz", gzip.compress(blanks.encode()))
    write(tmp_path, "all.zip", _zip(blanks))
    rows = 2**23
    same = pa.table({"date": pa.repeat("2020-01-02", rows), "close": pa.repeat(1.0, rows)})
    pq.write_table(same, tmp_path / "000060.parquet", compression="zstd")
    stamped = same.set_column(0, "date", pa.repeat(1_577_923_200_000, rows))
    feather.write_feather(stamped, str(tmp_path / "000070.feather"), compression="zstd")
    write(tmp_path, "005930.csv", HEADER + PLAIN)
    found = read_all(tmp_path)
    assert sorted((w["file"], w["reason"]) for w in found.quarantined.to_pylist()) == [
        ("000060.parquet", "grows_too_much"),
        ("000070.feather", "grows_too_much"),
        ("000080.csv.gz", "grows_too_much"),
        ("all.zip/000020.csv", "grows_too_much"),
    ]
    assert found.bars.num_rows == 2 * len(ROWS)


def test_blank_rows_alone_are_not_absurd(tmp_path: Path) -> None:
    write(tmp_path, "005930.csv.gz", gzip.compress((HEADER + PLAIN + ",,,,,\n" * 200_000).encode()))
    found = read_all(tmp_path)
    assert bars_of(found) == EXPECTED and found.counts["blank"] == 200_000
