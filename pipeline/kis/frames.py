"""Data frames of KIS's WebSocket into Arrow rows.

A feed of a hundred thousand trades a second has to become
columns on one core, so that a frame is only measured when it comes and its fields are cut by Arrow, many frames at
once. The layouts are in `records.py`; what is said beside the data (subscribe, acknowledge, keep alive) is in
`control.py`. Nothing here does I/O.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kis.columns import Floats, WireError
from pipeline.kis.layouts import STAMP
from pipeline.kis.records import (
    BOOK,
    BOOK_CODES,
    BOOK_NUMBERS,
    BOOK_ROWS,
    BOOK_SIDES,
    KNOWN,
    LEVELS,
    ORDER_BOOK,
    TRADE,
    TRADE_CODES,
    TRADE_NUMBERS,
    TRADE_ROWS,
    TRADES,
)

_SYMBOL, _A_SYMBOL = "[0-9A-Za-z]{1,9}", "a code of at most 9 letters and digits"
_CODE, _A_CODE = "[0-9A-Za-z]{0,2}", "at most two letters or digits"
_EXACT = 2.0**53  # from here on a float64 no longer holds every won


@dataclass(frozen=True)
class Frame:
    """The records of one data frame: `count` times `stride` fields joined by ^. The content of an encrypted frame is
    the cipher text, its stride 0."""

    tr_id: str
    encrypted: bool
    count: int
    stride: int
    content: str

    @property
    def rows(self) -> list[list[str]]:
        """The records as lists of texts, cut to the fields that are known here; none of an encrypted frame."""
        if self.encrypted:
            return []
        fields, known = self.content.split("^"), self.stride
        if self.tr_id in KNOWN:
            known = min(known, len(KNOWN[self.tr_id]["current"]))
        return [fields[at : at + known] for at in range(0, len(fields), self.stride)]


def parse_frame(text: str) -> Frame:
    """Find the records of a data frame. Raises WireError.

    Fields of a record = all fields / count. Fields behind the known ones are kept out of rows and columns, since KIS
    adds some now and then; so many that they could be another record are an error. Records of TR ids without a layout
    here may be of any length.
    """
    parts = text.split("|", 3)
    if len(parts) != 4 or parts[0] not in ("0", "1") or not text.isascii():
        raise WireError("frame", "flag", -1, text, "<0 or 1>|<TR id>|<count>|<fields> in ASCII")
    flag, tr_id, digits, content = parts
    if not (tr_id.isalnum() and len(tr_id) == 8):
        raise WireError("frame", "tr_id", -1, tr_id, "a TR id of 8 letters and digits")
    if len(digits) != 3 or not digits.isdigit() or digits == "000":
        raise WireError(tr_id, "count", -1, digits, "a count of three digits from 001")
    count = int(digits)
    if flag == "1":
        return Frame(tr_id, True, count, 0, content)
    fields = content.count("^") + 1
    stride, left = divmod(fields, count)
    known = KNOWN.get(tr_id)
    least, most = (1, fields) if known is None else (len(known["legacy"]), 2 * len(known["legacy"]) - 1)
    if left or not least <= stride <= most:
        wanted = f"{count} x {least} to {most} fields"
        raise WireError(tr_id, "fields", -1, f"{fields}: {text}", wanted)
    return Frame(tr_id, False, count, stride, content)


class _Records:
    """The records of frames of one stride, read column by column."""

    def __init__(self, tr_id: str, names: tuple[str, ...], frames: Sequence[Frame]) -> None:
        self.tr_id, self.names, self.stride = tr_id, names, frames[0].stride
        self.count = sum(frame.count for frame in frames)
        joined = pa.array(["^".join([frame.content for frame in frames])])
        self._fields = pc.split_pattern(joined, "^").flatten()
        self._starts = np.arange(0, self.count * self.stride, self.stride)

    def error(self, field: str, column: pa.Array, wrong: Callable[[str], bool], expected: str) -> WireError:
        found = ((at, text) for at, text in enumerate(column.to_pylist()) if wrong(text))
        at, text = next(found, (-1, "a column that Arrow cannot read"))
        return WireError(self.tr_id, field, at * self.count // max(len(column), 1), text, expected)

    def texts(self, field: str, width: int = 1) -> pa.Array:
        """Read `width` columns from a field on, record by record; blank where a record is shorter, in the legacy
        layout."""
        at = self.names.index(field)
        if at >= self.stride:
            return pa.repeat(pa.scalar(""), self.count * width)
        return self._fields.take(pa.array((self._starts[:, None] + np.arange(at, at + width)).ravel()))

    def codes(self, field: str, pattern: str, expected: str) -> pa.Array:
        """Read a column of few different texts."""
        column, right = self.texts(field), re.compile(pattern)
        if not all(right.fullmatch(text) for text in column.unique().to_pylist()):
            raise self.error(field, column, lambda text: right.fullmatch(text) is None, expected)
        return column

    def numbers(self, field: str, width: int = 1) -> Floats:
        """Read numbers; blank is NaN."""
        column = self.texts(field, width)
        if not _only(column, _NUMBER):
            raise self.error(field, column, lambda text: bool(text) and not _is_number(text), _A_NUMBER)
        try:
            values = column.cast(pa.float64())
        except pa.ArrowInvalid:
            given = pc.if_else(pc.equal(column, ""), None, column)
            try:
                values = pc.fill_null(given.cast(pa.float64()), np.nan)
            except pa.ArrowInvalid:
                raise self.error(field, column, lambda text: bool(text) and not _is_number(text), _A_NUMBER) from None
        found: Floats = values.to_numpy(zero_copy_only=False)
        if (np.abs(found) >= _EXACT).any():
            expected = "a number that float64 holds exactly (below 2**53)"
            raise self.error(field, column, lambda text: bool(text) and abs(float(text)) >= _EXACT, expected)
        return found

    def levels(self, first: str) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(self.numbers(first, LEVELS), LEVELS)

    def signs(self, field: str) -> pa.Array:
        return self.codes(field, "[1-5]", "a sign code 1 to 5").cast(pa.int8())

    def days(self, field: str) -> npt.NDArray[np.datetime64]:
        column = self.codes(field, "[0-9]{8}", "a date YYYYMMDD").dictionary_encode()
        written = [f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in column.dictionary.to_pylist()]
        try:
            known = np.array(written, "datetime64[us]")
        except ValueError:
            raise WireError(self.tr_id, field, -1, " ".join(written), "dates that exist") from None
        days: npt.NDArray[np.datetime64] = known[column.indices.to_numpy()]
        return days

    def times(self, field: str, days: npt.NDArray[np.datetime64]) -> pa.Array:
        """Read KST times HHMMSS of days as UTC."""
        column = self.texts(field)
        if _only(column, _DIGIT) and pc.all(pc.equal(pc.binary_length(column), 6)).as_py():
            number = column.cast(pa.int32()).to_numpy()
            hour, minute, second = number // 10_000, number // 100 % 100, number % 100
            if (hour < 24).all() and (minute < 60).all() and (second < 60).all():
                seconds = (hour - 9) * 3600 + minute * 60 + second
                return pa.array(days + seconds.astype("timedelta64[s]")).cast(STAMP)
        right = re.compile("(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]")
        raise self.error(field, column, lambda text: right.fullmatch(text) is None, "a time HHMMSS")


_A_NUMBER = "a decimal number or blank"
_DIGIT, _NUMBER = (np.isin(np.arange(256), list(allowed)) for allowed in (b"0123456789", b"0123456789-."))


def _only(column: pa.Array, allowed: npt.NDArray[np.bool_]) -> bool:
    """Say whether all characters of a column are allowed: Arrow would also take nan, inf and exponents."""
    _, offsets, data = column.buffers()
    if data is None or not data.size:
        return True
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return bool(allowed[np.frombuffer(data, np.uint8)[places[0] : places[-1]]].all())


def _is_number(text: str) -> bool:
    try:
        return text.isascii() and not set(text) - set("0123456789-.") and float(text) is not None
    except ValueError:
        return False


def _by_stride(tr_id: str, names: tuple[str, ...], frames: Sequence[Frame]) -> Iterator[_Records]:
    """Yield the records of neighbouring frames of the same stride, in order."""
    for frame in frames:
        if frame.encrypted or KNOWN.get(frame.tr_id) is not KNOWN[tr_id]:
            got = f"{'encrypted ' * frame.encrypted}{frame.tr_id}"
            raise WireError(frame.tr_id, "tr_id", -1, got, f"plain frames in the layout of {tr_id}")
    for _, same in groupby(frames, key=lambda frame: frame.stride):
        yield _Records(tr_id, names, list(same))


def parse_trades(*frames: Frame) -> pa.Table:
    """Read the trades of plain frames into TRADE_ROWS, in their order. Prices are taken as they come: midpoint orders
    trade between ticks. Raises WireError, with the row counted from the first frame of the same record length."""
    parts = [_trades(records) for records in _by_stride(TRADE, TRADES["current"], frames)]
    return pa.concat_tables(parts) if parts else TRADE_ROWS.empty_table()


def parse_book(*frames: Frame, day: date) -> pa.Table:
    """Read the order books of plain frames into BOOK_ROWS, in their order; `day` is the KST day on which they came,
    which they do not carry. Raises WireError as parse_trades does."""
    parts = [_books(records, day) for records in _by_stride(ORDER_BOOK, BOOK["current"], frames)]
    return pa.concat_tables(parts) if parts else BOOK_ROWS.empty_table()


def _trades(records: _Records) -> pa.Table:
    days = records.days("BSOP_DATE")
    price = records.numbers("STCK_PRPR")
    side = records.codes("CCLD_DVSN", "[0-9]?", "a digit or blank")
    columns = {name: records.numbers(field) for field, name in TRADE_NUMBERS.items()}
    columns |= {name: records.codes(field, _CODE, _A_CODE) for field, name in TRADE_CODES.items()}
    columns |= {
        "symbol": records.codes("MKSC_SHRN_ISCD", _SYMBOL, _A_SYMBOL),
        "ts": records.times("STCK_CNTG_HOUR", days),
        "price": price,
        "sign": records.signs("PRDY_VRSS_SIGN"),
        "base": price - records.numbers("PRDY_VRSS"),
        "side": pc.subtract(pc.equal(side, "1").cast(pa.int8()), pc.equal(side, "5").cast(pa.int8())),
        "open_ts": records.times("OPRC_HOUR", days),
        "high_ts": records.times("HGPR_HOUR", days),
        "low_ts": records.times("LWPR_HOUR", days),
        "halted": pc.equal(records.codes("TRHT_YN", "[YN]?", "Y or N"), "Y"),
    }
    return pa.table([columns[name] for name in TRADE_ROWS.names], schema=TRADE_ROWS)


def _books(records: _Records, day: date) -> pa.Table:
    expected = records.numbers("ANTC_CNPR")
    columns = {name: records.numbers(field) for field, name in BOOK_NUMBERS.items()}
    columns |= {name: records.codes(field, _CODE, _A_CODE) for field, name in BOOK_CODES.items()}
    columns |= {name: records.levels(f"{stem}1") for stem, name in BOOK_SIDES.items()}
    columns |= {
        "symbol": records.codes("MKSC_SHRN_ISCD", _SYMBOL, _A_SYMBOL),
        "ts": records.times("BSOP_HOUR", np.full(records.count, np.datetime64(day, "us"))),
        "base": expected - records.numbers("ANTC_CNTG_VRSS"),
        "sign": records.signs("ANTC_CNTG_VRSS_SIGN"),
    }
    return pa.table([columns[name] for name in BOOK_ROWS.names], schema=BOOK_ROWS)
