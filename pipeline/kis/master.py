"""Symbol master files: fixed-width cp949 records of every listed issue, as KIS publishes them each morning in a zip
without login.

A record is code (9) + ISIN (12) + Korean name + a tail of fixed ASCII fields; parsers cut the tail from the right end
of the decoded line, because the name's width counts bytes. The tails are tables of (name, width); reader and writer
below both walk them.
"""

import io
import zipfile
import zlib
from datetime import date, datetime
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.kis.columns import WireError

MasterMarket = Literal["KOSPI", "KOSDAQ"]
FOLDER = "/common/master/"
LARGEST = 1 << 26  # bytes of a file; the real ones have about one million
FILES: dict[MasterMarket, str] = {"KOSPI": "kospi_code", "KOSDAQ": "kosdaq_code"}

MASTER_ROWS = pa.schema(
    [
        ("symbol", pa.string()),
        ("isin", pa.string()),
        ("name", pa.string()),
        ("market", pa.string()),
        ("kind", pa.string()),  # stock, preferred, spac, reit, etf, etn, elw, fund, dr or the group code itself
        ("sector", pa.string()),  # index sector code, the middle class where there is one ("0013")
        ("base", pa.float64()),  # KRW, base price of the day
        ("halted", pa.bool_()),
        ("administrative", pa.bool_()),
        ("previous_volume", pa.float64()),  # shares
        ("listed", pa.date32()),
        ("shares", pa.float64()),  # the file counts thousands
        ("market_cap", pa.float64()),  # KRW; the file counts 100 million
    ]
)

_SECTOR_FLAGS = (
    "auto",
    "semiconductor",
    "bio",
    "bank",
    "spac",
    "energy",
    "steel",
    "overheated_old",
    "media",
    "construction",
)
_STATE = (
    ("base", 9), ("lot", 5), ("after_hours_lot", 5), ("halted", 1), ("liquidation", 1), ("administrative", 1),
    ("warning", 2), ("warning_notice", 1), ("unfaithful", 1), ("back_door", 1), ("ex_class", 2), ("par_change", 2),
    ("increase", 2), ("margin", 3), ("credit", 1), ("credit_days", 3), ("previous_volume", 12), ("par", 12), ("listed",
    8), ("shares", 15), ("capital", 21), ("settlement_month", 2), ("offer_price", 7), ("preferred", 1), ("overheated",
    1), ("abnormal_rise", 1), ("krx300", 1),
)  # fmt: skip
_ACCOUNTS = (
    ("sales", 9), ("operating_profit", 9), ("ordinary_profit", 9), ("net_profit", 5), ("roe", 9), ("base_month", 8),
    ("market_cap", 9), ("group_company", 3), ("credit_exceeded", 1), ("collateral", 1), ("lending", 1),
)  # fmt: skip
_GROUP = (("group", 2), ("size", 1), ("sector_large", 4), ("sector_middle", 4), ("sector_small", 4))


def _flags(*names: str) -> tuple[tuple[str, int], ...]:
    return tuple((name, 1) for name in names)


TAILS: dict[MasterMarket, tuple[tuple[str, int], ...]] = {
    "KOSPI": (
        *_GROUP,
        *_flags("manufacturing", "illiquid", "governance", "kospi200_sector", "kospi100", "kospi50", "krx", "etp"),
        *_flags(
            "elw_issuer", "krx100", *_SECTOR_FLAGS, "non1", "securities", "shipping", "insurance", "transport", "sri"
        ),
        *_STATE,
        ("kospi", 1),
        *_ACCOUNTS,
    ),
    "KOSDAQ": (
        *_GROUP,
        *_flags("venture", "illiquid", "krx", "etp", "krx100", *_SECTOR_FLAGS, "attention", "securities", "shipping"),
        *_flags("insurance", "transport", "kosdaq150"),
        *_STATE,
        *_ACCOUNTS,
    ),
}
_NUMBERS = frozenset(
    {"base", "lot", "after_hours_lot", "previous_volume", "par", "shares", "capital", "offer_price", "market_cap"}
)
_KINDS = {
    "RT": "reit",
    "EF": "etf",
    "EN": "etn",
    "EW": "elw",
    "MF": "fund",
    "IF": "fund",
    "DR": "dr",
    "FS": "stock",
    "ST": "stock",
}
_GROUPS = {
    "stock": "ST",
    "preferred": "ST",
    "spac": "ST",
    "reit": "RT",
    "etf": "EF",
    "etn": "EN",
    "elw": "EW",
    "fund": "MF",
    "dr": "DR",
}


def isin(symbol: str) -> str:
    """Return the ISIN of a Korean share: KR7 + code + 00 + check digit (ISO 6166: Luhn over letters as 10 to 35)."""
    body = f"KR7{symbol}00"
    digits = "".join(str(int(letter, 36)) for letter in body)
    total = sum(sum(divmod(int(digit) * (2 - at % 2), 10)) for at, digit in enumerate(reversed(digits)))
    return f"{body}{-total % 10}"


def zip_master(market: MasterMarket, text: bytes) -> bytes:
    """Pack a master file as KIS does: one .mst inside, with the same bytes for the same text."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{FILES[market]}.mst"), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unzip_master(data: bytes) -> bytes:
    """Take the one .mst out of a downloaded zip. Raises WireError when it is no such zip, or one that grows without
    bounds."""
    why = "a zip with one .mst inside"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".mst")]
            if len(names) == 1:
                with archive.open(names[0]) as file:
                    found = file.read(LARGEST + 1)
                if len(found) <= LARGEST:
                    return found
                why = f"a file of at most {LARGEST} bytes inside"
    # What zipfile raises of damaged bytes: besides its own error those of zlib, of seeks, of methods and passwords.
    except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, OSError, EOFError):
        names = []
    raise WireError("master file", "zip", -1, repr(data[:20]), f"{why} (found {names})")


def parse_master(data: bytes, market: MasterMarket) -> pa.Table:
    """Read the bytes of kospi_code.mst or kosdaq_code.mst into MASTER_ROWS, in the file's order. Raises WireError."""
    where, tail = f"{FILES[market]}.mst", TAILS[market]
    width = sum(size for _, size in tail)
    try:
        lines = data.decode("cp949").splitlines()
    except UnicodeDecodeError as error:
        raise WireError(where, "text", -1, repr(data[error.start : error.start + 8]), "cp949") from None
    cells: dict[str, list[str]] = {name: [] for name, _ in tail}
    heads: list[tuple[str, str, str]] = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        if len(line) < 21 + width or not line[-width:].isascii():
            raise WireError(where, "record", number, line, f"code, ISIN, name and an ASCII tail of {width} characters")
        heads.append((line[:9].strip(), line[9:21].strip(), line[21:-width].strip()))
        at = len(line) - width
        for name, size in tail:
            cells[name].append(line[at : at + size].strip())
            at += size
    return _table(market, heads, cells, where)


def _table(
    market: MasterMarket, heads: list[tuple[str, str, str]], cells: dict[str, list[str]], where: str
) -> pa.Table:
    def number(field: str, scale: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        for row, text in enumerate(cells[field]):
            if text and not (text.isascii() and text.isdigit()):
                raise WireError(where, field, row, text, "digits or blanks")
        return np.array([float(text) * scale if text else np.nan for text in cells[field]], np.float64)

    def listed() -> list[date | None]:
        days: list[date | None] = []
        for row, text in enumerate(cells["listed"]):
            try:
                days.append(datetime.strptime(text, "%Y%m%d").date() if text.strip("0") else None)
            except ValueError:
                raise WireError(where, "listed", row, text, "a date YYYYMMDD") from None
        return days

    kinds = [
        "spac"
        if spac == "Y"
        else "preferred"
        if preferred not in ("", "0") and group == "ST"
        else _KINDS.get(group, group)
        for group, preferred, spac in zip(cells["group"], cells["preferred"], cells["spac"])
    ]
    pairs = zip(cells["sector_large"], cells["sector_middle"])
    shares = number("shares", 1e3)
    return pa.table(
        [
            [head[0] for head in heads],
            [head[1] for head in heads],
            [head[2] for head in heads],
            [market] * len(heads),
            kinds,
            [middle if middle.strip("0") else large for large, middle in pairs],
            number("base", 1.0),
            [text == "Y" for text in cells["halted"]],
            [text == "Y" for text in cells["administrative"]],
            number("previous_volume", 1.0),
            pa.array(listed(), pa.date32()),
            pa.array(shares, mask=np.isnan(shares)),
            number("market_cap", 1e8),
        ],
        schema=MASTER_ROWS,
    )


def render_master(rows: pa.Table, market: MasterMarket) -> bytes:
    """Write MASTER_ROWS as a master file; parse_master gives them back. Fields that the rows do not hold are 0, N or
    blank.

    Shares are cut to thousands and capitalisation to 100 million, as the file has them. Raises WireError for a text
    that is too long.
    """
    lines = []
    for at, row in enumerate(rows.to_pylist()):
        day = row["listed"]
        values = {
            "group": _GROUPS.get(row["kind"], row["kind"]),
            "size": "0",
            "sector_large": "0000",
            "sector_middle": row["sector"],
            "sector_small": "0000",
            "spac": "Y" if row["kind"] == "spac" else "N",
            "base": _digits(row["base"], 1.0),
            "lot": "1",
            "after_hours_lot": "1",
            "halted": "Y" if row["halted"] else "N",
            "administrative": "Y" if row["administrative"] else "N",
            "warning": "00",
            "previous_volume": _digits(row["previous_volume"], 1.0),
            "listed": f"{day:%Y%m%d}" if day else "",
            "shares": _digits(row["shares"], 1e3),
            "market_cap": _digits(row["market_cap"], 1e8),
            "preferred": "1" if row["kind"] == "preferred" else "0",
        }
        cells = [_cell(values.get(name, "N" if size == 1 else ""), name, size, at) for name, size in TAILS[market]]
        name = row["name"].encode("cp949", "replace")[:40].decode("cp949", "ignore")
        padding = " " * (40 - len(name.encode("cp949")))
        lines.append(f"{row['symbol']:<9}{row['isin']:<12}{name}{padding}{''.join(cells)}\n")
    return "".join(lines).encode("cp949")


def _digits(value: float | None, unit: float) -> str:
    return "" if value is None or np.isnan(value) else str(int(value // unit))


def _cell(text: str, name: str, size: int, row: int) -> str:
    if len(text) > size:
        raise WireError("master file", name, row, text, f"at most {size} characters")
    return text.rjust(size, "0") if name in _NUMBERS and text else text.ljust(size)
