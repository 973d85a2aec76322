"""Columns into rows of KIS's pages: the other direction of `kis/wire.py`, which gives these columns back."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import krx
from pipeline.kis.columns import Floats
from pipeline.kis.layouts import FLOWS, HOLIDAYS, INDEX_DAILY, INVESTORS, MINUTES_PAST
from pipeline.kis.wire import compact


def whole(values: Floats | Sequence[float]) -> list[str]:
    """Write numbers as KIS does: whole, unknown as "0"."""
    return list(map(str, np.nan_to_num(np.asarray(values, np.float64), nan=0.0).astype(np.int64).tolist()))


def decimal(values: Floats | Sequence[float]) -> list[str]:
    """Write ratios and index points with two decimals, unknown as "0.00"."""
    return [f"{value:.2f}" for value in np.nan_to_num(np.asarray(values, np.float64), nan=0.0).tolist()]


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


def minutes(rows: pa.Table) -> list[dict[str, str]]:
    """Write MINUTE_ROWS as the `output2` of FHKST03010200 and FHKST03010230; wire.parse_minutes gives them back."""
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


def index(rows: pa.Table) -> list[dict[str, str]]:
    """Write INDEX_ROWS as the `output2` of FHKUP03500100; wire.parse_index gives them back."""
    names = {"bstp_nmix_prpr": "close", "bstp_nmix_oprc": "open", "bstp_nmix_hgpr": "high", "bstp_nmix_lwpr": "low"}
    columns = {field: decimal(_floats(rows, name)) for field, name in names.items()}
    columns |= {"acml_vol": whole(_floats(rows, "volume")), "acml_tr_pbmn": whole(_floats(rows, "turnover"))}
    columns |= {"stck_bsop_date": compact(rows["date"].to_numpy()), "mod_yn": ["N"] * len(rows)}
    return _rows(INDEX_DAILY.fields, columns)


def investors(rows: pa.Table) -> list[dict[str, str]]:
    """Write INVESTOR_ROWS as the `output` of FHKST01010900, unknown flows blank; wire.parse_investors gives them
    back.
    """
    columns = {"stck_bsop_date": compact(rows["date"].to_numpy()), "prdy_vrss_sign": _sign(rows["sign"].to_numpy())}
    columns |= {"stck_clpr": whole(_floats(rows, "close")), "prdy_vrss": whole(_floats(rows, "change"))}
    for field, name in FLOWS.items():
        columns[field] = ["" if value is None else str(int(value)) for value in rows[name].to_pylist()]
    return _rows(INVESTORS.fields, columns)


def holidays(rows: pa.Table) -> list[dict[str, str]]:
    """Write HOLIDAY_ROWS as the `output` of CTCA0903R; wire.parse_holidays gives them back."""
    columns = {
        "bass_dt": compact(rows["date"].to_numpy()),
        "wday_dvsn_cd": [f"0{day}" for day in rows["weekday"].to_pylist()],
    }
    flags = {"bzdy_yn": "business", "tr_day_yn": "trading", "opnd_yn": "open", "sttl_day_yn": "settlement"}
    columns |= {field: _yes(rows[name].to_pylist()) for field, name in flags.items()}
    return _rows(HOLIDAYS.fields, columns)
