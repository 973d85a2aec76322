"""Whatever comes over the wire gives rows or a typed error: real pages that were damaged, and any JSON at all."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.kis import layouts, master, wire
from pipeline.kis.errors import Mask, judge
from pipeline.kis.simulator import render
from tests.kis_pages import render_daily

Parse = Callable[[Mapping[str, Any]], Any]
DAYS = krx.sessions("2024-03-04", "2024-03-15")
COUNT = len(DAYS)
PARSERS: dict[str, tuple[layouts.Tr, Parse]] = {
    "daily": (layouts.DAILY, wire.parse_daily),
    "minutes": (layouts.MINUTES_PAST, wire.parse_minutes),
    "today": (layouts.MINUTES_TODAY, lambda body: wire.parse_minutes(body, layouts.MINUTES_TODAY)),
    "index": (layouts.INDEX_DAILY, wire.parse_index),
    "investors": (layouts.INVESTORS, wire.parse_investors),
    "holidays": (layouts.HOLIDAYS, wire.parse_holidays),
    "price": (layouts.PRICE, wire.parse_price),
    "info": (layouts.STOCK_INFO, wire.parse_stock_info),
}


def _table(schema: pa.Schema, **given: Any) -> pa.Table:
    """Fill a schema with plain values, those given apart."""
    columns = []
    for field in schema:
        if field.name in given:
            columns.append(pa.array(given[field.name]).cast(field.type))
        elif pa.types.is_floating(field.type):
            columns.append(pa.array(np.arange(1.0, COUNT + 1) * 100))
        elif pa.types.is_boolean(field.type):
            columns.append(pa.array([False] * COUNT))
        elif pa.types.is_integer(field.type):
            columns.append(pa.array([2] * COUNT).cast(field.type))
        else:
            columns.append(pa.array(["00"] * COUNT))
    return pa.table(columns, schema=schema)


def _pages() -> dict[str, dict[str, Any]]:
    days = {"date": DAYS, "ts": krx.session_closes(DAYS)}
    minutes = {"date": DAYS, "ts": krx.session_closes(DAYS) - np.timedelta64(90, "m")}
    minute = render.minutes(_table(layouts.MINUTE_ROWS, **minutes))
    facts = dict.fromkeys(layouts.STOCK_INFO.summary_fields, "") | {"pdno": "00000A005930", "mket_id_cd": "STK"}
    facts |= {"scty_grp_id_cd": "ST", "stck_kind_cd": "101", "lstg_stqt": "5969782550", "scts_mket_lstg_dt": "19750611"}
    price = dict.fromkeys(layouts.PRICE.summary_fields, "1") | {"stck_shrn_iscd": "005930", "iscd_stat_cls_code": "55"}
    return {
        "daily": {"output1": {}, "output2": render_daily(_table(layouts.DAILY_ROWS, **days))},
        "minutes": {"output1": {}, "output2": minute},
        "today": {"output1": {}, "output2": minute},
        "index": {"output1": {}, "output2": render.index(_table(layouts.INDEX_ROWS, **days))},
        "investors": {"output": render.investors(_table(layouts.INVESTOR_ROWS, **days))},
        "holidays": {"output": render.holidays(_table(layouts.HOLIDAY_ROWS, date=DAYS))},
        "price": {"output": price},
        "info": {"output": facts},
    }


PAGES = _pages()
BYTES = {name: orjson.dumps({"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "", **page}) for name, page in PAGES.items()}
TEXT = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("0123456789-+. eE_,xNY\n\t\x00\u0661\uff11"), max_size=20),
    st.sampled_from(["", " ", "nan", "inf", "-", "-0", "1e308", "9" * 400, "0" * 17, "99999999", "20240230", "246060"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


def outcome(name: str, body: Any) -> str:
    """Parse a body; return "rows" or "error", or raise what a parser must never raise."""
    try:
        found = PARSERS[name][1](body)
    except wire.WireError as error:
        assert str(error) and error.tr and len(str(error)) < 1_000
        return "error"
    assert found is None or isinstance(found, pa.Table | dict)
    if isinstance(found, pa.Table):
        found.validate(full=True)
        assert found.num_rows <= len(body[PARSERS[name][0].array])
        for column in found.columns:
            if pa.types.is_floating(column.type):
                assert not np.isinf(column.to_numpy()).any()
    return "rows"


@pytest.mark.parametrize("name", PARSERS)
def test_the_pages_themselves_are_read(name: str) -> None:
    assert outcome(name, PAGES[name]) == "rows"
    if PARSERS[name][0].array:
        assert PARSERS[name][1](PAGES[name]).num_rows == COUNT


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=2_000)
@given(data=st.data())
def test_a_page_with_fields_changed_gives_rows_or_a_wire_error(name: str, data: st.DataObject) -> None:
    body = orjson.loads(BYTES[name])
    tr = PARSERS[name][0]
    rows = body[tr.array] if tr.array else [body[tr.summary]]
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.sampled_from(rows))
        if not isinstance(row, dict) or not row:
            continue
        field = data.draw(st.sampled_from(sorted(row)))
        match data.draw(st.sampled_from(["text", "text", "text", "json", "gone", "row", "empty"])):
            case "text":
                row[field] = data.draw(TEXT)
            case "json":
                row[field] = data.draw(JSON)
            case "gone":
                del row[field]
            case "row":
                rows[rows.index(row)] = data.draw(JSON)
            case "empty":
                row.clear()
    outcome(name, body)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60, deadline=2_000)
@given(value=JSON, top=st.booleans())
def test_any_json_gives_rows_or_a_wire_error(name: str, value: Any, top: bool) -> None:
    tr = PARSERS[name][0]
    body = value if top and isinstance(value, dict) else {tr.array or tr.summary: value}
    outcome(name, body)


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Change, cut, repeat or insert bytes."""
    out = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, max(len(out) - 1, 0)))
        match data.draw(st.sampled_from(["change", "change", "cut", "repeat", "insert"])):
            case "change":
                out[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del out[at : at + data.draw(st.integers(1, 300))]
            case "repeat":
                out[at:at] = out[at : at + data.draw(st.integers(1, 300))]
            case "insert":
                out[at:at] = data.draw(st.binary(max_size=8))
    return bytes(out)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=2_000)
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 403, 500, 503]))
def test_damaged_bytes_have_a_verdict_and_pages_among_them_rows_or_a_wire_error(
    name: str, data: st.DataObject, status: int
) -> None:
    verdict, code, text, body = judge(status, damaged(data, BYTES[name]), Mask())
    assert isinstance(code, str) and isinstance(text, str)
    if verdict == "page":
        outcome(name, body)
    else:
        assert body == {}


@settings(max_examples=150, deadline=2_000)
@given(value=JSON, status=st.integers(100, 599))
def test_any_json_has_a_verdict(value: Any, status: int) -> None:
    for body in (value, {"rt_cd": value, "msg_cd": value, "msg1": value}, {"error_code": value}):
        verdict, code, text, _ = judge(status, json.dumps(body).encode(), Mask())
        assert verdict in ("page", "again", "slower", "token", "wait", "error")
        assert isinstance(code, str) and isinstance(text, str)


def _master(market: master.MasterMarket) -> bytes:
    rows = [
        {
            "symbol": symbol, "isin": master.isin(symbol), "name": name, "market": market, "kind": "stock",
            "sector": "0013", "base": 5000.0, "halted": False, "administrative": False, "previous_volume": 10.0,
            "listed": datetime.date(1990, 1, 3), "shares": 1e6, "market_cap": 5e9,
        }
        for symbol, name in (("005930", "삼성전자"), ("00680K", "한빛우B"))
    ]  # fmt: skip
    return master.render_master(pa.Table.from_pylist(rows, master.MASTER_ROWS), market)


@pytest.mark.parametrize("market", list(master.FILES))
@settings(max_examples=200, deadline=2_000)
@given(data=st.data(), zipped=st.booleans())
def test_a_damaged_master_file_gives_rows_or_a_wire_error(
    market: master.MasterMarket, data: st.DataObject, zipped: bool
) -> None:
    text = _master(market)
    try:
        if zipped:
            text = master.unzip_master(damaged(data, master.zip_master(market, text)))
        else:
            text = damaged(data, text)
        found = master.parse_master(text, market)
    except wire.WireError as error:
        assert str(error)
        return
    found.validate(full=True)
    assert found.schema.equals(master.MASTER_ROWS)


def test_a_zip_that_grows_without_bounds_is_refused() -> None:
    bomb = master.zip_master("KOSPI", b"0" * (master.LARGEST + 1))
    assert len(bomb) < 100_000
    with pytest.raises(wire.WireError, match="at most 67108864 bytes"):
        master.unzip_master(bomb)
