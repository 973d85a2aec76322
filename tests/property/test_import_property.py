"""The importers on files that nobody would write by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.importers import FilesError, cells
from tests.bar_files import bars_of, read_all, write

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
    found = read_all(write(tmp_path, "005930.csv", data))
    assert found.quarantined.num_rows == 0
    expected = sorted((day, *map(float, numbers)) for day, *numbers in rows)
    got = [((row[1] + timedelta(hours=9)).date().isoformat(), *row[2:]) for row in bars_of(found)]  # type: ignore[operator]
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
    write(folder, name, data)
    try:
        found = read_all(folder)
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
