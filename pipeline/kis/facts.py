"""What the broker says beside histories: the facts of an issue, and on which days the market opens."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from .history import Asker
from .layouts import HOLIDAY_ROWS, HOLIDAYS, STOCK_INFO
from .wire import compact, parse_holidays, parse_stock_info

PAGES = 40  # of the calendar, each of some weeks: more than this is a server that does not stop


async def stock_info(kis: Asker, symbol: str) -> dict[str, Any]:
    """Fetch what KIS says about one stock, delisted ones included: one row of schema.SYMBOLS. Raises KisError."""
    answer = await kis.ask(STOCK_INFO, {"PRDT_TYPE_CD": "300", "PDNO": symbol})
    return parse_stock_info(answer.body)


async def holidays(kis: Asker, start: date, end: date) -> pa.Table:
    """Fetch HOLIDAY_ROWS of all days from start to end, oldest first, each day once; KIS asks for one such call a day.
    Raises KisError, WireError."""
    params = {"BASS_DT": compact(np.array([start], "datetime64[D]"))[0]}
    parts, cont = [HOLIDAY_ROWS.empty_table()], ""
    for _ in range(PAGES):
        answer = await kis.ask(HOLIDAYS, params, cont=cont)
        parts.append(parse_holidays(answer.body))
        reached = parts[-1].num_rows and parts[-1]["date"].to_pylist()[-1] >= end
        if reached or not answer.more:
            break
        params |= {
            "CTX_AREA_NK": str(answer.body.get("ctx_area_nk", "")),
            "CTX_AREA_FK": str(answer.body.get("ctx_area_fk", "")),
        }
        cont = "N"
    found = pa.concat_tables(parts).sort_by("date")
    days = found["date"].to_numpy().astype("datetime64[D]")
    first = np.append(True, days[1:] != days[:-1])[: len(days)]
    return found.filter(pa.array(first & (days >= np.datetime64(start)) & (days <= np.datetime64(end))))
