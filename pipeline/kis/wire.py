"""Pages of KIS into columns and columns into pages: the one place where texts of the wire become numbers, dates and UTC
stamps.

The client parses with what the simulator renders with. The calls themselves are tables in `layouts.py`; symbol master
files, which are fixed-width text and not JSON, are in `master.py`. Nothing here does I/O.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

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


def whole(values: Floats | Sequence[float]) -> list[str]:
    """Write numbers as KIS does: whole, unknown as "0"."""
    return list(map(str, np.nan_to_num(np.asarray(values, np.float64), nan=0.0).astype(np.int64).tolist()))


def decimal(values: Floats | Sequence[float]) -> list[str]:
    """Write ratios and index points with two decimals, unknown as "0.00"."""
    return [f"{value:.2f}" for value in np.nan_to_num(np.asarray(values, np.float64), nan=0.0).tolist()]


def compact(days: Days) -> list[str]:
    """Write days as YYYYMMDD."""
    return [text.replace("-", "") for text in np.datetime_as_string(days, unit="D").tolist()]


def _yes(values: Any) -> list[str]:
    return ["Y" if value else "N" for value in values]


def _sign(values: Any) -> list[str]:
    return [str(value) if value else "" for value in values.tolist()]


def _floats(rows: pa.Table, name: str) -> Floats:
    return np.asarray(pc.fill_null(rows[name], np.nan).to_numpy(), np.float64)


def _rows(fields: Sequence[str], columns: Mapping[str, list[str]]) -> list[dict[str, str]]:
    return [dict(zip(fields, row)) for row in zip(*(columns[field] for field in fields))]


_DAILY_LINE = (
    '{"stck_bsop_date":"%d","stck_clpr":"%d","stck_oprc":"%d","stck_hgpr":"%d","stck_lwpr":"%d","acml_vol":"%d",'
    '"acml_tr_pbmn":"%d","flng_cls_code":"%s","prtt_rate":"%.2f","mod_yn":"%s","prdy_vrss_sign":"%s",'
    '"prdy_vrss":"%d","revl_issu_reas":"%s"}\n'
)
_SIGNS = np.array(["", "1", "2", "3", "4", "5"])


def daily_lines(columns: Mapping[str, Any]) -> list[bytes]:
    """Write columns named as in DAILY_ROWS (NumPy; `ts` is not needed) as rows of FHKST03010100, a JSON object each.

    One format over all rows and one split: a server of histories spends its time here. Unknown numbers are "0".
    """
    days = columns["date"]
    months = days.astype("datetime64[M]")
    dates = (months.astype(np.int64) // 12 + 1970) * 10_000 + (months.astype(np.int64) % 12 + 1) * 100
    dates += (days - months).astype(np.int64) + 1
    cells = (
        dates.tolist(),
        *(_integers(columns[name]) for name in ("close", "open", "high", "low", "volume", "turnover")),
        _escaped(columns["lock"]),
        np.nan_to_num(columns["ratio"]).tolist(),
        np.where(columns["untraded"], "Y", "N").tolist(),
        _SIGNS[columns["sign"]].tolist(),
        _integers(columns["close"] - columns["base"]),
        _escaped(columns["reason"]),
    )
    text = (_DAILY_LINE * len(dates)) % tuple(itertools.chain.from_iterable(zip(*cells)))
    return text.encode().splitlines()


def _integers(values: Floats) -> list[int]:
    return np.nan_to_num(values, nan=0.0).astype(np.int64).tolist()  # type: ignore[no-any-return]


def _escaped(texts: Any) -> list[str]:
    column: list[str] = texts.tolist()
    known = {text: orjson.dumps(text).decode()[1:-1] for text in set(column)}
    return [known[text] for text in column]


def render_minutes(rows: pa.Table) -> list[dict[str, str]]:
    """Write MINUTE_ROWS as the `output2` of FHKST03010200 and FHKST03010230; parse_minutes gives them back."""
    days = rows["date"].to_numpy()
    ts = rows["ts"].cast(pa.timestamp("us")).to_numpy()
    label = np.where(ts == krx.session_closes(days), ts, ts - np.timedelta64(1, "m"))
    # The last full minute and the closing auction end at different stamps (15:20 and 15:30), so that labels stay
    # unique.
    columns = {
        "stck_bsop_date": compact(days),
        "stck_cntg_hour": [
            t[11:].replace(":", "") for t in np.datetime_as_string(label + np.timedelta64(9, "h"), unit="s").tolist()
        ],
        "stck_prpr": whole(_floats(rows, "close")),
        "stck_oprc": whole(_floats(rows, "open")),
        "stck_hgpr": whole(_floats(rows, "high")),
        "stck_lwpr": whole(_floats(rows, "low")),
        "cntg_vol": whole(_floats(rows, "volume")),
        "acml_tr_pbmn": whole(_floats(rows, "cumulative")),
    }
    return _rows(MINUTES_PAST.fields, columns)


def render_index(rows: pa.Table) -> list[dict[str, str]]:
    """Write INDEX_ROWS as the `output2` of FHKUP03500100; parse_index gives them back."""
    names = {"bstp_nmix_prpr": "close", "bstp_nmix_oprc": "open", "bstp_nmix_hgpr": "high", "bstp_nmix_lwpr": "low"}
    columns = {field: decimal(_floats(rows, name)) for field, name in names.items()}
    columns |= {"acml_vol": whole(_floats(rows, "volume")), "acml_tr_pbmn": whole(_floats(rows, "turnover"))}
    columns |= {"stck_bsop_date": compact(rows["date"].to_numpy()), "mod_yn": ["N"] * len(rows)}
    return _rows(INDEX_DAILY.fields, columns)


def render_investors(rows: pa.Table) -> list[dict[str, str]]:
    """Write INVESTOR_ROWS as the `output` of FHKST01010900, unknown flows blank; parse_investors gives them back."""
    columns = {"stck_bsop_date": compact(rows["date"].to_numpy()), "prdy_vrss_sign": _sign(rows["sign"].to_numpy())}
    columns |= {"stck_clpr": whole(_floats(rows, "close")), "prdy_vrss": whole(_floats(rows, "change"))}
    for field, name in FLOWS.items():
        columns[field] = ["" if value is None else str(int(value)) for value in rows[name].to_pylist()]
    return _rows(INVESTORS.fields, columns)


def render_holidays(rows: pa.Table) -> list[dict[str, str]]:
    """Write HOLIDAY_ROWS as the `output` of CTCA0903R; parse_holidays gives them back."""
    columns = {
        "bass_dt": compact(rows["date"].to_numpy()),
        "wday_dvsn_cd": [f"0{day}" for day in rows["weekday"].to_pylist()],
    }
    flags = {"bzdy_yn": "business", "tr_day_yn": "trading", "opnd_yn": "open", "sttl_day_yn": "settlement"}
    columns |= {field: _yes(rows[name].to_pylist()) for field, name in flags.items()}
    return _rows(HOLIDAYS.fields, columns)
