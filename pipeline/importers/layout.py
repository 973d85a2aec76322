"""Find out from the first lines of a text file which column is what: delimiter, header or none, one symbol or many."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .cells import looks_like_date
from .files import BadFile
from .names import ACCEPTED, NUMBERS, code_in, roles
from .section import ImportSection

DELIMITERS = (",", "\t", ";", "|")
HEAD_LINES, HEAD_BYTES = 12, 65536  # a header further down is not looked for
# Files without a header, by the number of their columns; what follows the sixth is not read.
UNNAMED = {
    2: ("date", "close"),
    5: ("date", "open", "high", "low", "close"),
    6: ("date", "open", "high", "low", "close", "volume"),
}


@dataclass(frozen=True)
class Layout:
    """Say where a role's column is; equal layouts are read together.

    kind : "bars", "wide" (a date and one column of closes a symbol) or "listing" (symbols without dates).
    """

    kind: Literal["bars", "wide", "listing"]
    roles: tuple[tuple[str, int], ...]
    width: int
    delimiter: str = ","
    wide: tuple[tuple[int, str], ...] = ()

    def has(self, role: str) -> bool:
        return any(role == name for name, _ in self.roles)


def of_columns(
    names: Sequence[str], given: Mapping[str, str], *, width: int = 0, delimiter: str = ","
) -> Layout | None:
    """Return the layout that a list of column names tells, None where it holds neither closes nor a listing."""
    found = roles(names, given)
    width = max(width, len(names))
    if "code" in found and "name" in found and "date" not in found:
        return Layout("listing", tuple(sorted(found.items())), width, delimiter)
    if "date" in found and "close" in found:
        return Layout("bars", tuple(sorted(found.items())), width, delimiter)
    wide = tuple((i, code) for i, name in enumerate(names) if (code := code_in(name)) and i not in found.values())
    if "date" in found and len(wide) >= 2:
        return Layout("wide", (("date", found["date"]),), width, delimiter, wide)
    return None


def of_text(lines: Sequence[str], section: ImportSection) -> tuple[Layout, int]:
    """Return the layout of a text file from its first lines, and how many lines go before its data. BadFile says what
    is missing.
    """
    given = tuple(sorted(section.columns.items()))
    found: list[tuple[int, Layout, int]] = []  # how much of the line was understood, the layout, lines before the data
    for delimiter in DELIMITERS:
        first = True  # only the first line with the delimiter can be data: what comes before data is their header
        for i, line in enumerate(lines):
            if delimiter not in line:
                continue
            below = next((other for other in lines[i + 1 :] if other.strip()), "")
            if layout := _by_header(line, _skeleton(below), delimiter, given):
                found.append((10 + len(layout.roles) + len(layout.wide), layout, i + 1))
            elif first and (layout := _without_header(line, delimiter, section.header)):
                found.append((len(layout.roles), layout, i))
            if layout:
                break
            first = False
    if not found:
        raise _unknown(lines, section)
    _, best, skip = max(found, key=lambda one: one[0])
    return best, skip


def needed(found: Sequence[str], header: Sequence[str]) -> str:
    """Say which columns are missing, what was found and which names are accepted."""
    missing = [role for role in ("date", "close") if role not in found]
    accepted = "; ".join(f"{role}: {', '.join(ACCEPTED[role][:8])}" for role in missing)
    return (
        f"expected columns for {' and '.join(missing)} (accepted names: {accepted}), "
        f"found {', '.join(map(repr, header[:12])) or 'none'}; "
        "rename the column or name it in ingest.files.columns, or give ingest.files.header for files without a header"
    )


@functools.lru_cache(maxsize=4096)
def _by_header(line: str, below: str, delimiter: str, given: tuple[tuple[str, str], ...]) -> Layout | None:
    cells = _cells(line, delimiter)
    if any(looks_like_date(cell) for cell in cells):
        return None
    # Some exports end each row, but not the header, with a delimiter.
    width = len(cells) + (1 if below.count(delimiter) == len(cells) and below.endswith(delimiter) else 0)
    return of_columns(cells, dict(given), width=width, delimiter=delimiter)


def _skeleton(line: str) -> str:
    """Reduce a line to what matters for its width, so that the layouts of a thousand files need one look."""
    return re.sub(r'"[^"]*"|[^,;|\t]', "", line) if line[-1:] in DELIMITERS else ""


def _without_header(line: str, delimiter: str, header: Sequence[str]) -> Layout | None:
    cells = _cells(line, delimiter)
    known = header or UNNAMED.get(min(len(cells), 6), ())
    found = {role: i for i, role in enumerate(known[: len(cells)]) if role}
    if "date" not in found or "close" not in found or not looks_like_date(cells[found["date"]]):
        return None
    if not any(re.search(r"\d", cells[i]) for role, i in found.items() if role in NUMBERS):
        return None
    return Layout("bars", tuple(sorted(found.items())), len(cells), delimiter)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _unknown(lines: Sequence[str], section: ImportSection) -> BadFile:
    at, cells = 1, [""]
    for i, line in enumerate(lines):
        for delimiter in DELIMITERS:
            row = _cells(line, delimiter)
            if len(row) > len(cells):
                at, cells = i + 1, row
    return BadFile("missing_column", needed(sorted(roles(cells, section.columns)), cells), at)
