"""Layouts: what is rendered is parsed back, what is malformed is refused with its place, and nothing else ever
happens."""

import pickle
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx
from pipeline.kis import layouts, master, wire
from pipeline.kis.simulator import render
from tests.kis_pages import render_daily

MONEY = st.integers(1, 2**53 - 1).map(float)
PRICE = st.integers(1, 3_000_000).map(float)
KNOWN = PRICE | st.just(float("nan"))
SESSIONS = krx.sessions("1990-01-01", "2027-12-30")
NAN = float("nan")


def same(left: pa.Table, right: pa.Table) -> None:
    """Compare two tables, NaN equal to NaN."""
    assert left.schema.equals(right.schema)
    assert len(left) == len(right)
    for name in left.column_names:
        for one, other in zip(left[name].to_pylist(), right[name].to_pylist()):
            assert one == other or (one != one and other != other), (name, one, other)


def stamps(days: list[date]) -> pa.Array:
    return pa.array(krx.session_closes(np.array(days, "datetime64[D]"))).cast(layouts.STAMP)


@st.composite
def daily_rows(draw: st.DrawFn) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 6))):
        untraded = draw(st.booleans())
        volume = 0.0 if untraded else draw(MONEY)
        close = draw(PRICE)
        rows.append(
            {
                "date": draw(st.sampled_from(SESSIONS.tolist())),
                **{name: NAN if untraded else draw(KNOWN) for name in ("open", "high", "low")},
                "close": close,
                "volume": volume,
                "turnover": draw(MONEY | st.none()) if volume else 0.0,
                "base": max(close + draw(st.integers(-500_000, 500_000)), 1.0),
                "sign": draw(st.integers(0, 5)),
                "lock": draw(st.sampled_from(["00", "01", "04"])),
                "ratio": draw(st.integers(0, 1_000_000)) / 100,
                "untraded": untraded,
                "reason": draw(st.sampled_from(["", "00", "01"])),
            }
        )
    table = pa.Table.from_pylist([row | {"ts": None} for row in rows], layouts.DAILY_ROWS)
    return table.set_column(1, "ts", stamps([row["date"] for row in rows]))


@given(daily_rows())
def test_daily_rows_come_back(rows: pa.Table) -> None:
    page = {"output2": [*render_daily(rows), {}]}
    assert all(tuple(row) == layouts.DAILY.fields for row in page["output2"] if row)
    same(wire.parse_daily(page), rows)


@st.composite
def minute_rows(draw: st.DrawFn) -> pa.Table:
    day = draw(st.sampled_from(krx.sessions("2016-08-01", "2027-12-30").tolist()))
    opening, close = (f(np.array([day], "datetime64[D]"))[0] for f in (krx.session_opens, krx.session_closes))
    ends = [
        opening + np.timedelta64(minute, "m") for minute in draw(st.lists(st.integers(1, 320), unique=True, max_size=6))
    ]
    ends += [close] * draw(st.integers(0, 1))
    count = len(ends)
    columns = [draw(st.lists(KNOWN, min_size=count, max_size=count)) for _ in range(4)]
    flows = [draw(st.lists(st.integers(0, 2**53 - 1).map(float), min_size=count, max_size=count)) for _ in range(2)]
    stamp = pa.array(np.array(ends, "datetime64[us]")).cast(layouts.STAMP)
    return pa.table(
        [pa.array([day] * count, pa.date32()), stamp, *map(pa.array, (*columns, *flows))], schema=layouts.MINUTE_ROWS
    )


@given(minute_rows())
def test_minute_rows_come_back(rows: pa.Table) -> None:
    same(wire.parse_minutes({"output2": render.minutes(rows)}), rows)


@pytest.mark.parametrize(
    "day, label, end",
    [
        ("20261120", "090000", "00:01"),
        ("20261120", "151900", "06:20"),
        ("20261120", "153000", "06:30"),  # the closing auction keeps its time
        ("20261119", "153000", "06:31"),  # on an examination day it is one minute among others
        ("20261119", "163000", "07:30"),
    ],
)
def test_labels_become_ends(day: str, label: str, end: str) -> None:
    row = dict.fromkeys(layouts.MINUTES_PAST.fields, "1") | {"stck_bsop_date": day, "stck_cntg_hour": label}
    ts = wire.parse_minutes({"output2": [row]})["ts"][0].as_py()
    assert f"{ts:%Y%m%d %H:%M:%S}" == f"{day} {end}:00"


def test_minutes_get_their_own_turnover_whatever_the_order_of_pages() -> None:
    def page(*labels: tuple[str, str, str]) -> pa.Table:
        base = dict.fromkeys(layouts.MINUTES_PAST.fields, "5")
        return wire.parse_minutes(
            {"output2": [base | {"stck_bsop_date": d, "stck_cntg_hour": h, "acml_tr_pbmn": t} for d, h, t in labels]}
        )

    late = page(("20261120", "153000", "100"), ("20261120", "090100", "70"))
    early = page(("20261120", "090100", "70"), ("20261120", "090000", "30"), ("20261119", "163000", "999"))
    bars = wire.minute_bars(pa.concat_tables([late, early]))
    assert bars["turnover"].to_pylist() == [999.0, 30.0, 40.0, 30.0]
    falling = page(("20261120", "090100", "10"), ("20261120", "090000", "30"))
    assert wire.minute_bars(falling)["turnover"].to_pylist() == [30.0, None]
    assert len(wire.minute_bars(falling.slice(0, 0))) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SESSIONS.tolist()),
            *[st.integers(1, 10**7).map(lambda v: v / 100)] * 4,
            *[st.integers(0, 2**53 - 1).map(float)] * 2,
        ),
        max_size=5,
    )
)
def test_index_rows_come_back(rows: list[tuple[Any, ...]]) -> None:
    days = [row[0] for row in rows]
    columns = [pa.array([row[at] for row in rows], pa.float64()) for at in range(1, 7)]
    table = pa.table([pa.array(days, pa.date32()), stamps(days), *columns], schema=layouts.INDEX_ROWS)
    same(wire.parse_index({"output2": render.index(table)}), table)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SESSIONS.tolist()),
            PRICE,
            st.integers(-9, 9).map(float),
            st.booleans(),
            st.integers(-(10**9), 10**9),
        ),
        max_size=4,
    )
)
def test_investor_rows_come_back(rows: list[tuple[Any, ...]]) -> None:
    flows = {name: [float(row[4]) if row[3] else None for row in rows] for name in layouts.FLOWS.values()}
    days = [row[0] for row in rows]
    table = pa.table(
        {"date": pa.array(days, pa.date32()), "ts": stamps(days)}
        | {
            "close": pa.array([row[1] for row in rows], pa.float64()),
            "change": pa.array([row[2] for row in rows], pa.float64()),
        }
        | {"sign": pa.array([2] * len(rows), pa.int8())}
        | {name: pa.array(values, pa.float64()) for name, values in flows.items()},
        schema=layouts.INVESTOR_ROWS,
    )
    same(wire.parse_investors({"output": render.investors(table)}), table)


@given(
    st.lists(
        st.tuples(st.dates(date(1985, 1, 1), date(2099, 1, 1)), st.integers(1, 7), *[st.booleans()] * 4), max_size=5
    )
)
def test_holiday_rows_come_back(rows: list[tuple[Any, ...]]) -> None:
    table = pa.Table.from_pylist([dict(zip(layouts.HOLIDAY_ROWS.names, row)) for row in rows], layouts.HOLIDAY_ROWS)
    same(wire.parse_holidays({"output": render.holidays(table)}), table)


GOOD = {
    "stck_bsop_date": "20260922", "stck_clpr": "277750", "stck_oprc": "283000", "stck_hgpr": "283500", "stck_lwpr":
    "276500", "acml_vol": "11955000", "acml_tr_pbmn": "3352130122500", "flng_cls_code": "00", "prtt_rate": "0.00",
    "mod_yn": "N", "prdy_vrss_sign": "2", "prdy_vrss": "3750", "revl_issu_reas": "",
}  # fmt: skip


def test_zero_and_blank_are_unknown_and_surplus_fields_ignored() -> None:
    odd = GOOD | {"stck_oprc": "0", "stck_hgpr": "", "acml_tr_pbmn": "0", "new_field": "x", "acml_vol": "   12"}
    rows = wire.parse_daily({"output2": [{}, odd, {}], "output1": {}})
    row = rows.to_pylist()[0]
    assert np.isnan([row["open"], row["high"]]).all()
    assert row["turnover"] is None and row["volume"] == 12 and row["base"] == 274_000
    assert wire.parse_daily({"output2": [{}]}).num_rows == 0


@pytest.mark.parametrize(
    "field, text",
    [
        ("stck_clpr", "12x"),
        ("stck_clpr", "1,000"),
        ("stck_clpr", "1_000"),
        ("stck_clpr", "１２"),
        ("stck_clpr", "nan"),
        ("stck_clpr", "1e5"),
        ("stck_clpr", "0x1f"),
        ("stck_clpr", "1\n2"),
        ("stck_clpr", "9" * 17),
        ("acml_tr_pbmn", "9007199254740993"),
        ("prtt_rate", "1.2.3"),
        ("stck_bsop_date", "20260230"),
        ("stck_bsop_date", "2026092"),
        ("mod_yn", "J"),
        ("prdy_vrss_sign", "6"),
        ("stck_oprc", "--5"),
    ],
)
def test_malformed_texts_are_named(field: str, text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.parse_daily({"output2": [{}, GOOD, GOOD | {field: text}]})
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.tr, error.field, error.row, error.text) == ("FHKST03010100", f"output2.{field}", 2, text)
    assert field in str(error) and "row 2" in str(error) and "expected" in str(error)


def test_missing_fields_and_wrong_shapes_are_named() -> None:
    lacking = {name: text for name, text in GOOD.items() if name != "acml_vol"}
    for body in (
        {"output2": [lacking]},
        {"output2": [GOOD | {"acml_vol": 5}]},
        {"output2": "x"},
        {},
        {"output2": [None]},
    ):
        with pytest.raises(wire.WireError):
            wire.parse_daily(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(list(GOOD.values())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GOOD, "output", "output2", "bass_dt"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.sampled_from(["output", "output2"]),
    JSON,
    st.dictionaries(st.sampled_from(list(GOOD)), st.text(max_size=6), max_size=3),
)
def test_any_body_gives_rows_or_a_wire_error(name: str, value: Any, change: dict[str, str]) -> None:
    bodies = [{name: value}, {"output2": [GOOD | change]}]
    for body in bodies:
        for parse in (
            wire.parse_daily,
            wire.parse_minutes,
            wire.parse_index,
            wire.parse_investors,
            wire.parse_holidays,
        ):
            try:
                assert isinstance(parse(body), pa.Table)
            except wire.WireError:
                continue


def test_quote_of_an_unknown_symbol_is_none() -> None:
    blank = dict.fromkeys(layouts.PRICE.summary_fields, "0")
    assert wire.parse_price({"output": blank}) is None
    known = wire.parse_price(
        {"output": blank | {"stck_prpr": "128500", "iscd_stat_cls_code": "58", "stck_shrn_iscd": "000660"}}
    )
    assert known is not None and known["close"] == 128_500 and known["halted"] and np.isnan(known["base"])


def test_stock_info() -> None:
    facts = dict.fromkeys(layouts.STOCK_INFO.summary_fields, "") | {
        "pdno": "00000A005935", "mket_id_cd": "KSQ", "scty_grp_id_cd": "ST", "stck_kind_cd": "201", "lstg_stqt": "1000",
        "kosdaq_mket_lstg_dt": "19750611", "lstg_abol_dt": "20250117", "tr_stop_yn": "Y", "prdt_abrv_name": "이름우",
        "idx_bztp_mcls_cd": "1024",
    }  # fmt: skip
    row = wire.parse_stock_info({"output": facts})
    assert row == {
        "symbol": "005935", "name": "이름우", "market": "KOSDAQ", "sector": "1024", "kind": "preferred", "listed":
        date(1975, 6, 11), "delisted": date(2025, 1, 17), "shares": 1000.0, "halted": True, "administrative": False,
    }  # fmt: skip
    with pytest.raises(wire.WireError, match="lstg_abol_dt"):
        wire.parse_stock_info({"output": facts | {"lstg_abol_dt": "soon"}})


NAMES = st.text(st.sampled_from("가나다라한빛전자우 ABC1"), min_size=1, max_size=19).map(str.strip).filter(bool)


@st.composite
def master_rows(draw: st.DrawFn) -> tuple[str, pa.Table]:
    market = draw(st.sampled_from(list(master.FILES)))
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        symbol = draw(st.sampled_from(["005930", "000030", "0193T0", "005935"]))
        rows.append(
            {
                "symbol": symbol, "isin": master.isin(symbol), "name": draw(NAMES), "market": market,
                "kind": draw(st.sampled_from(["stock", "preferred", "spac", "etf", "etn", "reit"])), "sector":
                draw(st.sampled_from(["0013", "1024"])), "base": float(draw(st.integers(0, 10**9 - 1))), "halted":
                draw(st.booleans()), "administrative": draw(st.booleans()), "previous_volume": float(draw(st.integers(0,
                10**12 - 1))), "listed": draw(st.none() | st.dates(date(1956, 3, 3), date(2027, 1, 1))), "shares":
                draw(st.none() | st.integers(0, 10**9).map(lambda v: v * 1e3)), "market_cap": draw(st.integers(0, 10**9
                - 1)) * 1e8,
            }
        )  # fmt: skip
    return market, pa.Table.from_pylist(rows, master.MASTER_ROWS)


@given(master_rows())
def test_master_rows_come_back(case: tuple[Any, pa.Table]) -> None:
    market, rows = case
    text = master.render_master(rows, market)
    same(master.parse_master(master.unzip_master(master.zip_master(market, text)), market), rows)


def test_master_layouts_have_the_documented_widths() -> None:
    assert {name: (len(tail), sum(width for _, width in tail)) for name, tail in master.TAILS.items()} == {
        "KOSPI": (70, 227),
        "KOSDAQ": (64, 221),
    }
    assert master.isin("005930") == "KR7005930003"


@given(st.binary(max_size=600))
def test_any_bytes_as_a_master_file_give_rows_or_a_wire_error(data: bytes) -> None:
    for attempt in (lambda: master.parse_master(data, "KOSPI"), lambda: master.unzip_master(data)):
        try:
            attempt()
        except wire.WireError:
            continue
