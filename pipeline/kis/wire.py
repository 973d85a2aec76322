"""Pages of KIS into columns: the one place where texts of the wire become numbers, dates and UTC stamps.

The calls themselves are tables in `layouts.py`; symbol master files, which are fixed-width text and not JSON, are in
`master.py`. Nothing here does I/O.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import krx
from pipeline.kis.columns import Days, Floats, object_of, rows_of
from pipeline.kis.columns import WireError as WireError
from pipeline.kis.layouts import (
    DAILY,
    DAILY_ROWS,
    FLOWS,
    HOLIDAY_ROWS,
    HOLIDAYS,
    INDEX_DAILY,
    INDEX_ROWS,
    INVESTOR_ROWS,
    INVESTORS,
    KINDS,
    MARKETS,
    MINUTE_ROWS,
    MINUTES_PAST,
    PRICE,
    QUOTE,
    STAMP,
    STOCK_INFO,
    Tr,
)

LAST_LABEL = np.timedelta64(20, "h")  # KST


def day_ends(days: Days, venue: str = "KRX", *, evening: bool = False) -> pa.Array:
    """Return the moments at which the daily bars of days are over: the scheduled close, on NXT and both venues as one,
    and where `evening` is asked for, the end of the evening's trade, if the day has one."""
    ends = krx.session_closes(days)
    if venue != "KRX" or evening:
        after = krx.segments(venue, days)["after"][1]
        ends = np.where(np.isnat(after), ends, after)
    return pa.array(ends).cast(STAMP)


def _nullable(values: Floats) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def parse_daily(body: Mapping[str, Any], venue: str = "KRX") -> pa.Table:
    """Read a page of FHKST03010100 (period D) into DAILY_ROWS, in the page's order (newest first); empty `{}` rows are
    left out.

    On days without a trade (mod_yn Y) and where KIS sends 0, open, high and low are NaN and the close is kept. `ts` is
    the end of the day's trade at the venue. Raises WireError.
    """
    page = rows_of(DAILY, body)
    days = page.dates("stck_bsop_date")
    close = page.numbers_of("stck_clpr", zero=False)
    volume, untraded = page.numbers_of("acml_vol"), page.flags("mod_yn")
    turnover = page.numbers_of("acml_tr_pbmn")
    turnover[(turnover == 0.0) & (volume > 0.0)] = np.nan
    prices = [page.numbers_of(field, zero=False) for field in ("stck_oprc", "stck_hgpr", "stck_lwpr")]
    for price in prices:
        price[untraded] = np.nan
    return pa.table(
        [
            pa.array(days),
            day_ends(days, venue),
            *prices,
            close,
            volume,
            _nullable(turnover),
            close - page.numbers_of("prdy_vrss"),
            page.signs("prdy_vrss_sign"),
            page.texts("flng_cls_code"),
            page.numbers_of("prtt_rate", decimal=True),
            untraded,
            page.texts("revl_issu_reas"),
        ],
        schema=DAILY_ROWS,
    )


def parse_minutes(body: Mapping[str, Any], tr: Tr = MINUTES_PAST) -> pa.Table:
    """Read a page of FHKST03010200 or FHKST03010230 (the same rows; `tr` is for messages) into MINUTE_ROWS, newest
    first.

    A label is the start of its minute, so that `ts` is label + 1 minute; the label of the closing auction equals the
    scheduled close and stays (153000 -> 15:30:00 KST), as does 200000, the end of all trade. `cumulative` becomes a
    minute's own turnover in `minute_bars`. Raises WireError.
    """
    page = rows_of(tr, body)
    days = page.dates("stck_bsop_date")
    labels = page.texts("stck_cntg_hour", "a time HHMMSS")
    seconds = np.array([int(t[:2]) * 3600 + int(t[2:4]) * 60 + int(t[4:]) for t in labels], "timedelta64[s]")
    start = days.astype("datetime64[us]") + seconds - np.timedelta64(9, "h")
    last = (start == krx.session_closes(days)) | (seconds == LAST_LABEL)
    ts = np.where(last, start, start + np.timedelta64(1, "m"))
    columns = [page.numbers_of(field, zero=False) for field in ("stck_oprc", "stck_hgpr", "stck_lwpr", "stck_prpr")]
    arrays = [
        pa.array(days),
        pa.array(ts).cast(STAMP),
        *columns,
        page.numbers_of("cntg_vol"),
        page.numbers_of("acml_tr_pbmn"),
    ]
    return pa.table(arrays, schema=MINUTE_ROWS)


def minute_bars(rows: pa.Table) -> pa.Table:
    """Put MINUTE_ROWS of whole days of one symbol (pages concatenated, any order) in order, with each minute's own
    `turnover`.

    Rows that repeat a stamp are dropped (pages overlap at their borders). The turnover of a day's first row is its
    cumulative value; it is null where `cumulative` is NaN or falls, since then a row is missing or wrong. Columns:
    MINUTE_ROWS without `cumulative`, plus turnover (KRW), oldest first.
    """
    rows = rows.sort_by("ts")
    ts = rows["ts"].to_numpy()
    rows = rows.filter(pa.array(np.append(True, ts[1:] != ts[:-1])[: len(ts)]))
    day, total = rows["date"].to_numpy(), rows["cumulative"].to_numpy()
    before = np.where(day[1:] == day[:-1], total[:-1], 0.0)
    own = np.diff(total, prepend=0.0)
    own[1:] = total[1:] - before
    own[own < 0.0] = np.nan
    return rows.drop_columns(["cumulative"]).append_column("turnover", _nullable(own))


def parse_index(body: Mapping[str, Any]) -> pa.Table:
    """Read a page of FHKUP03500100 into INDEX_ROWS, newest first. Raises WireError."""
    page = rows_of(INDEX_DAILY, body)
    days = page.dates("stck_bsop_date")
    fields = ("bstp_nmix_oprc", "bstp_nmix_hgpr", "bstp_nmix_lwpr", "bstp_nmix_prpr")
    prices = [page.numbers_of(field, decimal=True, zero=False) for field in fields]
    arrays = [pa.array(days), day_ends(days), *prices, page.numbers_of("acml_vol"), page.numbers_of("acml_tr_pbmn")]
    return pa.table(arrays, schema=INDEX_ROWS)


def parse_investors(body: Mapping[str, Any], tr: Tr = INVESTORS) -> pa.Table:
    """Read FHKST01010900 or FHPTJ04160001 (`tr`) into INVESTOR_ROWS, newest first; before a day's close its flows are
    blank and null. Raises WireError."""
    page = rows_of(tr, body)
    days = page.dates("stck_bsop_date")
    arrays = [pa.array(days), day_ends(days), page.numbers_of("stck_clpr", zero=False), page.numbers_of("prdy_vrss")]
    arrays += [page.signs("prdy_vrss_sign"), *(_nullable(page.numbers_of(field)) for field in FLOWS)]
    return pa.table(arrays, schema=INVESTOR_ROWS)


def parse_holidays(body: Mapping[str, Any]) -> pa.Table:
    """Read a page of CTCA0903R into HOLIDAY_ROWS, oldest first; `open` says whether the market opens. Raises
    WireError."""
    page = rows_of(HOLIDAYS, body)
    weekday = np.array([int(text) for text in page.texts("wday_dvsn_cd", "a weekday 01 to 07")], np.int8)
    flags = [page.flags(field) for field in ("bzdy_yn", "tr_day_yn", "opnd_yn", "sttl_day_yn")]
    return pa.table([pa.array(page.dates("bass_dt")), weekday, *flags], schema=HOLIDAY_ROWS)


def parse_price(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read FHKST01010100: close, open, high, low, base, upper, lower, volume, turnover, shares, tick (KRW, shares; NaN
    unknown), symbol, status (iscd_stat_cls_code), halted, administrative. None for a symbol that KIS does not know.
    Raises WireError."""
    page = object_of(PRICE, body)
    quote: dict[str, Any] = {
        name: float(page.numbers_of(field, zero=name in ("volume", "turnover"))[0]) for field, name in QUOTE.items()
    }
    if np.isnan(quote["close"]):
        return None
    status = page.texts("iscd_stat_cls_code")[0]
    quote |= {"symbol": page.texts("stck_shrn_iscd")[0], "status": status}
    return quote | {"halted": status == "58" or page.texts("temp_stop_yn")[0] == "Y", "administrative": status == "51"}


def parse_stock_info(body: Mapping[str, Any]) -> dict[str, Any]:
    """Read CTPF1002R: the fields of schema.SYMBOLS but as_of, source and ingested_at, as one row. Raises WireError.

    listed and delisted are datetime.date or None, shares a float or None, sector an index sector code ("0013").
    """
    page = object_of(STOCK_INFO, body)

    def text(field: str) -> str:
        return page.texts(field)[0].strip()

    def day(*fields: str) -> Any:
        found = next((field for field in fields if text(field).strip("0")), None)
        return page.dates(found)[0].item() if found else None

    group, shares = text("scty_grp_id_cd"), page.numbers_of("lstg_stqt", zero=False)[0]
    preferred = text("stck_kind_cd").startswith("2")
    return {
        "symbol": text("pdno")[-6:],
        "name": text("prdt_abrv_name"),
        "market": MARKETS.get(text("mket_id_cd"), text("mket_id_cd")),
        "sector": text("idx_bztp_mcls_cd"),
        "kind": "preferred" if preferred and group == "ST" else KINDS.get(group, group),
        "listed": day("scts_mket_lstg_dt", "kosdaq_mket_lstg_dt"),
        "delisted": day("lstg_abol_dt"),
        "shares": None if np.isnan(shares) else float(shares),
        "halted": text("tr_stop_yn") == "Y",
        "administrative": text("admn_item_yn") == "Y",
    }


def compact(days: Days) -> list[str]:
    """Write days as YYYYMMDD."""
    return [text.replace("-", "") for text in np.datetime_as_string(days, unit="D").tolist()]
