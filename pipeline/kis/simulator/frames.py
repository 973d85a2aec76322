"""Rows into data frames of KIS's WebSocket: the other direction of `kis/frames.py`, which gives the rows back."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.kis.columns import Floats
from pipeline.kis.records import (
    BOOK,
    BOOK_CODES,
    BOOK_NUMBERS,
    BOOK_SIDES,
    LEVELS,
    MOST,
    TRADE_CODES,
    TRADE_NUMBERS,
    TRADES,
    Layout,
)
from pipeline.kis.wire import compact


def render_trades(rows: pa.Table, layout: Layout = "current") -> list[str]:
    """Write TRADE_ROWS as records of H0STCNT0; parse_trades gives them back. What follows from other columns (volume-
    weighted price, changes, strength) is computed."""
    values = {name: rows[name].to_numpy() for name in ("price", "base", *TRADE_NUMBERS.values())}
    price, total = values["price"], values["cumulative_volume"]
    fields = {field: _texts(values[name]) for field, name in TRADE_NUMBERS.items()}
    fields |= {"VOL_TNRT": _decimals(values["turnover_rate"])}
    fields |= {"PRDY_VOL_VRSS_ACML_VOL_RATE": _decimals(values["volume_ratio"])}
    fields |= {"MKSC_SHRN_ISCD": rows["symbol"].to_pylist(), "BSOP_DATE": _days(rows["ts"])}
    fields |= {"STCK_PRPR": _texts(price), "PRDY_VRSS_SIGN": _texts(rows["sign"].to_numpy())}
    fields |= {"PRDY_VRSS": _texts(price - values["base"])}
    fields |= {"PRDY_CTRT": _ratio(price - values["base"], values["base"])}
    fields |= {"WGHN_AVRG_STCK_PRC": _ratio(values["cumulative_turnover"], total, 1.0)}
    fields |= {"NTBY_CNTG_CSNU": _texts(values["buys"] - values["sells"])}
    fields |= {"CTTR": _ratio(values["buy_volume"], values["sell_volume"])}
    fields |= {"SHNU_RATE": _ratio(values["buy_volume"], total, 1.0)}
    fields |= {"PRDY_SMNS_HOUR_ACML_VOL_RATE": _ratio(total, values["same_time_volume"])}
    fields |= {"STCK_CNTG_HOUR": _times(rows["ts"]), "MRKT_TRTM_CLS_CODE": [""] * len(rows)}
    fields |= {"CCLD_DVSN": [{1: "1", -1: "5"}.get(side, "3") for side in rows["side"].to_pylist()]}
    fields |= {"TRHT_YN": ["Y" if halted else "N" for halted in rows["halted"].to_pylist()]}
    for stem, name in (("OPRC", "open"), ("HGPR", "high"), ("LWPR", "low")):
        change = price - values[name]
        fields |= {f"{stem}_HOUR": _times(rows[f"{name}_ts"]), f"{stem}_VRSS_PRPR": _texts(change)}
        fields[f"{stem}_VRSS_PRPR_SIGN"] = _directions(change)
    for field, name in TRADE_CODES.items():
        fields[field] = rows[name].to_pylist()
    return _records(TRADES[layout], fields)


def render_book(rows: pa.Table, layout: Layout = "current") -> list[str]:
    """Write BOOK_ROWS as records of H0STASP0; parse_book gives them back. After-hours totals are 0."""
    values = {name: rows[name].to_numpy() for name in ("base", *BOOK_NUMBERS.values())}
    expected = values["expected_price"]
    fields = {field: _texts(values[name]) for field, name in BOOK_NUMBERS.items()}
    fields |= {"MKSC_SHRN_ISCD": rows["symbol"].to_pylist(), "BSOP_HOUR": _times(rows["ts"])}
    for stem, name in BOOK_SIDES.items():
        levels = rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(len(rows), LEVELS)
        fields |= {f"{stem}{level + 1}": _texts(levels[:, level]) for level in range(LEVELS)}
    fields |= {
        "ANTC_CNTG_VRSS": _texts(expected - values["base"]),
        "ANTC_CNTG_VRSS_SIGN": _texts(rows["sign"].to_numpy()),
    }
    fields |= {"ANTC_CNTG_PRDY_CTRT": _ratio(expected - values["base"], values["base"])}
    for field in ("TOTAL_ASKP_RSQN", "TOTAL_BIDP_RSQN", "TOTAL_ASKP_ICDC", "TOTAL_BIDP_ICDC"):
        fields[f"OVTM_{field}"] = ["0"] * len(rows)
    for field, name in BOOK_CODES.items():
        fields[field] = rows[name].to_pylist()
    return _records(BOOK[layout], fields)


def render_frame(tr_id: str, records: Sequence[str]) -> str:
    """Put records into one plain data frame. Raises ValueError when they are none or too many for the count."""
    if not 1 <= len(records) <= MOST:
        raise ValueError(f"expected 1 to {MOST} records for a frame of {tr_id}, got {len(records)}; split them")
    return f"0|{tr_id}|{len(records):03d}|{'^'.join(records)}"


def _records(names: tuple[str, ...], fields: dict[str, list[str]]) -> list[str]:
    return list(map("^".join, zip(*(fields[name] for name in names))))


def _texts(values: npt.NDArray[np.generic]) -> list[str]:
    """Write numbers: whole where they are, else with two decimals; unknown is blank."""
    return ["" if v != v else str(int(v)) if v == int(v) else f"{v:.2f}" for v in values.tolist()]


def _decimals(values: Floats) -> list[str]:
    return ["" if v != v else f"{v:.2f}" for v in values.tolist()]


def _ratio(part: Floats, whole: Floats, scale: float = 100.0) -> list[str]:
    known = np.isfinite(part) & np.isfinite(whole) & (whole != 0.0)
    return _decimals(np.where(known, scale * part / np.where(known, whole, 1.0), 0.0))


def _directions(change: Floats) -> list[str]:
    return ["2" if value > 0 else "5" if value < 0 else "3" for value in change.tolist()]


def _local(ts: pa.ChunkedArray) -> npt.NDArray[np.datetime64]:
    stamps: npt.NDArray[np.datetime64] = ts.cast(pa.timestamp("us")).to_numpy() + np.timedelta64(9, "h")
    return stamps


def _days(ts: pa.ChunkedArray) -> list[str]:
    return compact(_local(ts))


def _times(ts: pa.ChunkedArray) -> list[str]:
    seconds = (_local(ts).astype("datetime64[s]").astype(np.int64) % 86_400).tolist()
    return [f"{s // 3600:02d}{s // 60 % 60:02d}{s % 60:02d}" for s in seconds]
