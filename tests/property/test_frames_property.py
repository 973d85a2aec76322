"""parse(render(rows)) = rows in both layouts, and whatever comes is a row or a typed error."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.kis.columns import WireError
from pipeline.kis.control import Refusal, parse_control, parse_request
from pipeline.kis.frames import parse_book, parse_frame, parse_trades
from pipeline.kis.records import BOOK_ROWS, ORDER_BOOK, TRADE, TRADE_ROWS, Layout
from pipeline.kis.simulator.frames import render_book, render_frame, render_trades

DAY = date(2026, 9, 22)
symbols = st.text("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", min_size=6, max_size=7)
whole = st.integers(0, 10**12).map(float)
ratio = st.integers(0, 10**6).map(lambda cents: cents / 100.0)
codes = st.text("0123456789AB", max_size=1)
times = st.integers(0, 86_399).map(
    lambda s: (datetime(2026, 9, 22, tzinfo=krx.KST) + timedelta(seconds=s)).astimezone(UTC)
)
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "symbol": symbols,
    "price": st.integers(1, 4 * 10**6).map(lambda half: half / 2.0),  # midpoint orders trade at half ticks
    "sign": st.integers(1, 5),
    "side": st.integers(-1, 1),
    "volume_ratio": ratio,
    "turnover_rate": ratio,
    "phase": st.text("0123456789", min_size=2, max_size=2),
    "mid_price": st.integers(0, 10**6).map(lambda half: half / 2.0),
}


def value(field: pa.Field, layout: Layout) -> st.SearchStrategy[Any]:
    since_current = field.name in ("market_class", "mid_class", "mid_size", "mid_price")
    if since_current and layout == "legacy":
        return st.just("") if field.type == pa.string() else st.just(None)
    if field.name in SPECIAL:
        return SPECIAL[field.name]
    if pa.types.is_fixed_size_list(field.type):
        return st.lists(whole, min_size=10, max_size=10)
    if pa.types.is_timestamp(field.type):
        return times
    return {pa.string(): codes, pa.bool_(): st.booleans()}.get(field.type, whole)


def tables(schema: pa.Schema, layout: Layout) -> st.SearchStrategy[pa.Table]:
    row = st.fixed_dictionaries({field.name: value(field, layout) for field in schema})
    return st.lists(row, min_size=1, max_size=6).map(lambda rows: pa.Table.from_pylist(rows, schema))


def filled(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with unknown numbers as None, so that they compare."""
    return [{name: None if value != value else value for name, value in row.items()} for row in table.to_pylist()]


@pytest.mark.parametrize("layout", ["legacy", "current"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_trades_come_back(layout: Layout, data: st.DataObject) -> None:
    rows = data.draw(tables(TRADE_ROWS, layout))
    back = parse_trades(parse_frame(render_frame(TRADE, render_trades(rows, layout))))
    assert filled(back) == filled(rows)


@pytest.mark.parametrize("layout", ["legacy", "current"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_books_come_back(layout: Layout, data: st.DataObject) -> None:
    rows = data.draw(tables(BOOK_ROWS, layout))
    back = parse_book(parse_frame(render_frame(ORDER_BOOK, render_book(rows, layout))), day=DAY)
    assert filled(back) == filled(rows)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_frame_is_rows_or_a_typed_error(data: st.DataObject) -> None:
    rows = data.draw(tables(TRADE_ROWS, "current"))
    text = render_frame(TRADE, render_trades(rows))
    for _ in range(data.draw(st.integers(1, 3))):
        at, width = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 4))
        text = text[:at] + data.draw(st.text(max_size=4)) + text[at + width :]
    try:
        frame = parse_frame(text)
        if frame.tr_id == TRADE and not frame.encrypted:
            assert len(parse_trades(frame)) == frame.count == len(frame.rows)
    except WireError as error:
        assert str(error)


@settings(deadline=None, max_examples=200)
@given(text=st.one_of(st.text(), st.from_regex(r"\A[01]\|H0ST(CNT|ASP)0\|00[0-3]\|[0-9^.-]*\Z")))
def test_any_text_is_a_frame_or_a_typed_error(text: str) -> None:
    for parse in (parse_frame, parse_control):
        try:
            parse(text)
        except WireError as error:
            assert str(error)
    try:
        parse_request(text)
    except Refusal as refusal:
        assert refusal.code.startswith("OPSP")
