"""Columns of texts into columns of numbers, dates and flags, with one typed error that says where a text is wrong.

A page has a hundred rows of a dozen fields and there are thousands of pages, so that each column is checked by one pass
of one regular expression and not cell by cell; only a column that fails is looked at again to name its row.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.kis.layouts import Tr

Floats = npt.NDArray[np.float64]
Days = npt.NDArray[np.datetime64]

_INTEGER = r" *(?:-?[0-9]{1,16})?\n"
_DECIMAL = r" *(?:-?[0-9]{1,16}(?:\.[0-9]{1,8})?)?\n"
_PATTERNS = {
    text: re.compile(f"(?:{pattern})*", re.ASCII)
    for text, pattern in {
        "a whole number of at most 16 digits": _INTEGER,
        "a decimal number": _DECIMAL,
        "a date YYYYMMDD": r"[0-9]{8}\n",
        "a time HHMMSS": r"(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]\n",
        "Y or N": r"[YN]?\n",
        "a sign code 1 to 5 or blank": r"[1-5]?\n",
        "a weekday 01 to 07": r"0[1-7]\n",
    }.items()
}
_EXACT = 2.0**53  # from here on a float64 no longer holds every won


class WireError(ValueError):
    """A page that does not follow its layout. Names TR, field, row of the page (-1: no row) and the text found
    there."""

    def __init__(self, tr: str, field: str, row: int, text: str, expected: str) -> None:
        super().__init__(tr, field, row, text, expected)
        self.tr, self.field, self.row, self.text, self.expected = tr, field, row, text, expected

    def __str__(self) -> str:
        """Say what was expected, what came, where, and what to do."""
        where = f"{self.tr} {self.field}" + (f" row {self.row}" if self.row >= 0 else "")
        return f"{where}: expected {self.expected}, got {self.text[:80]!r}; keep the page and quarantine the row"


def _fast(column: list[str]) -> Floats | None:
    """Read whole numbers at the speed of C; None when any cell is something else."""
    joined = "".join(column)
    if joined.isascii() and joined.replace("-", "").isdigit():
        with contextlib.suppress(ValueError, OverflowError):
            return np.array(list(map(int, column)), np.float64)
    return None


@dataclass(frozen=True)
class Page:
    """The non-empty rows of a page with their numbers in it, read column by column."""

    tr: Tr
    name: str
    rows: list[Mapping[str, Any]]
    numbers: list[int]

    def error(self, field: str, at: int, text: str, expected: str) -> WireError:
        return WireError(self.tr.tr_id, f"{self.name}.{field}", self.numbers[at], text, expected)

    def texts(self, field: str, expected: str = "") -> list[str]:
        """Read a column, checked against the pattern named by `expected`; one pass of one regular expression over all
        of it."""
        try:
            column = [row[field] for row in self.rows]
            joined = "\n".join([*column, ""])
        except (KeyError, TypeError):
            for at, row in enumerate(self.rows):
                if not isinstance(row.get(field), str):
                    raise self.error(field, at, repr(row.get(field)), "the field with a text in it") from None
            raise
        if expected:
            pattern = _PATTERNS[expected]
            if pattern.fullmatch(joined) is None or joined.count("\n") != len(column):
                for at, text in enumerate(column):
                    if "\n" in text or pattern.fullmatch(text + "\n") is None:
                        raise self.error(field, at, text, expected)
        return column

    def numbers_of(self, field: str, *, decimal: bool = False, zero: bool = True) -> Floats:
        """Read a column of numbers: blank is NaN; with zero=False 0, KIS's word for unknown, is NaN too."""
        column = self.texts(field)
        values = _fast(column)
        if values is None:
            column = self.texts(field, "a decimal number" if decimal else "a whole number of at most 16 digits")
            values = np.array([float(text) if text.strip(" ") else np.nan for text in column], np.float64)
        beyond = np.abs(values) >= _EXACT
        if beyond.any():
            at = int(beyond.argmax())
            raise self.error(field, at, column[at], "a number that float64 holds exactly (below 2**53)")
        if not zero:
            values[values == 0.0] = np.nan
        return values

    def dates(self, field: str) -> Days:
        column = self.texts(field, "a date YYYYMMDD")
        days = [f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in column]
        try:
            return np.array(days, "datetime64[D]")
        except ValueError:
            for at, day in enumerate(days):
                try:
                    np.datetime64(day, "D")
                except ValueError:
                    raise self.error(field, at, column[at], "a date that exists") from None
            raise

    def flags(self, field: str) -> npt.NDArray[np.bool_]:
        return np.array([text == "Y" for text in self.texts(field, "Y or N")], bool)

    def signs(self, field: str) -> npt.NDArray[np.int8]:
        return np.array([int(text or "0") for text in self.texts(field, "a sign code 1 to 5 or blank")], np.int8)


def rows_of(tr: Tr, body: Mapping[str, Any]) -> Page:
    rows = body.get(tr.array)
    if not isinstance(rows, list) or not all(type(row) is dict or isinstance(row, Mapping) for row in rows):
        raise WireError(tr.tr_id, tr.array, -1, repr(rows), "an array of objects")
    kept = [number for number, row in enumerate(rows) if row]
    return Page(tr, tr.array, [rows[number] for number in kept], kept)


def object_of(tr: Tr, body: Mapping[str, Any]) -> Page:
    row = body.get(tr.summary)
    if not isinstance(row, Mapping):
        raise WireError(tr.tr_id, tr.summary, -1, repr(row), "an object")
    return Page(tr, tr.summary, [row], [-1])
