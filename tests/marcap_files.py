"""Files in the yearly layout of FinanceData/marcap, with rows of our own: both column orders, gzip and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

OLD = (  # "Chages" is their spelling
    "Code,Name,Market,Dept,Close,ChangeCode,Changes,ChagesRatio,Open,High,Low,Volume,Amount,Marcap,Stocks,"
    "MarketId,Rank,Date"
)
NEW = (
    "Code,Name,Close,Dept,ChangeCode,Changes,ChagesRatio,Volume,Amount,Open,High,Low,Marcap,Stocks,Market,"
    "MarketId,Rank,Date"
)
IDS = {"KOSPI": "STK", "KONEX": "KNX"}


def row(day: str, code: str, close: int, changes: int, *, halted: bool = False, **other: Any) -> dict[str, Any]:
    """Return one row; a halted stock has neither volume nor open, high and low."""
    stocks, market = other.pop("stocks", 1_000), other.pop("market", "KOSPI")
    traded = {"Open": 0, "High": 0, "Low": 0, "Volume": 0, "Amount": 0}
    if not halted:
        traded = {"Open": close, "High": close + 5, "Low": close - 5, "Volume": 10, "Amount": 10 * close}
    return {
        "Date": day,
        "Code": code,
        "Name": f"회사{code}",
        "Market": market,
        "Dept": "",
        "Close": close,
        "ChangeCode": 1 if changes > 0 else 2 if changes < 0 else 0,
        "Changes": changes,
        "ChagesRatio": round(100 * changes / (close - changes), 2),
        **traded,
        "Marcap": close * stocks,
        "Stocks": stocks,
        "MarketId": IDS.get(market, "KSQ"),
        "Rank": 1,
        **other,
    }


def write(folder: Path, year: int, rows: Iterable[dict[str, Any]]) -> Path:
    """Write a year as that year's files are: the old order to 2022, the new from 2023, Parquet from 2026."""
    rows = list(rows)
    if year >= 2026:
        columns = {name: [r[name] for r in rows] for name in NEW.split(",")}
        columns["Date"] = [datetime.fromisoformat(day) for day in columns["Date"]]
        columns["ChangeCode"] = [str(code) for code in columns["ChangeCode"]]
        columns["ChangesRatio"] = columns["ChagesRatio"]
        path = folder / f"marcap-{year}.parquet"
        pq.write_table(pa.table(columns), path)
        return path
    text = io.StringIO()
    writer = csv.DictWriter(text, (NEW if year >= 2023 else OLD).split(","))
    writer.writeheader()
    writer.writerows(rows)
    path = folder / f"marcap-{year}.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode()))
    return path
