"""Candles in JSON, Feather and Parquet as freqtrade names them, and columns that only the configuration can explain."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline import config
from pipeline.importers import FilesError, ImportSection, load
from tests.bar_files import read_all, write

START = 1_609_459_200_000  # 2021-01-01, ms
HOUR = 3_600_000
CANDLES = [[START + i * HOUR, 88.35 + i, 90.5 + i, 85.376, 88.5, 15866.765 * i] for i in range(3)]
ENDS = [datetime(2021, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3)]


def example(name: str) -> dict[str, Any]:
    """Return the settings of an example configuration."""
    found = config.load(["--config", str(config.ROOT / "configs" / name)], "test", "")[0]
    return found.ingest.files.model_dump()


def _table() -> pa.Table:
    columns = dict(zip(("date", "open", "high", "low", "close", "volume"), zip(*CANDLES)))
    dates = pa.array(columns.pop("date"), pa.timestamp("ms", tz="UTC"))
    return pa.table({"date": dates, **{name: pa.array(values) for name, values in columns.items()}})


def _written(folder: Path, name: str) -> Path:
    path, text = folder / name, json.dumps(CANDLES)
    if name.endswith(".feather"):
        feather.write_feather(_table(), path, compression="lz4")
    elif name.endswith(".parquet"):
        pq.write_table(_table(), path)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("BTC_USDT-1h.json", text.replace(" ", ""))
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("ending", ["json", "json.gz", "feather", "parquet", "zip"])
def test_candles_of_every_format_are_the_same_bars(tmp_path: Path, ending: str) -> None:
    found = read_all(_written(tmp_path, f"BTC_USDT-1h.{ending}"), **example("freqtrade.yaml"))
    assert found.interval == "1h" and found.quarantined.num_rows == 0
    rows = found.bars.to_pylist()
    assert [row["ts"] for row in rows] == ENDS, "stamps are starts, the lake holds ends"
    assert {(row["symbol"], row["venue"]) for row in rows} == {("BTC/USDT", "BINANCE")}
    assert [[row[n] for n in ("open", "high", "low", "close", "volume")] for row in rows] == [c[1:] for c in CANDLES]


def test_name_tells_pair_and_length_even_of_one_candle(tmp_path: Path) -> None:
    for name in ("ETH_BTC-5m", "BTC_USDT_USDT-1h-futures", "BTC_USDT-1d", "BTC_USDT-1w", "BTC_USDT-1M"):
        (tmp_path / f"{name}.json").write_text(json.dumps(CANDLES[:1]))
    parts = list(load(tmp_path, ImportSection(**example("freqtrade.yaml"))))
    rows = [row for part in parts for row in part.bars.to_pylist()]
    assert {(r["symbol"], r["interval"], r["ts"].isoformat()) for r in rows} == {
        ("ETH/BTC", "5m", "2021-01-01T00:05:00+00:00"),
        ("BTC/USDT:USDT", "1h", "2021-01-01T01:00:00+00:00"),
        ("BTC/USDT", "1d", "2021-01-02T00:00:00+00:00"),
        ("BTC/USDT", "1w", "2021-01-08T00:00:00+00:00"),
        ("BTC/USDT", "1mo", "2021-02-01T00:00:00+00:00"),
    }


def test_what_is_not_traded_and_what_is_not_whole_is_named_and_the_rest_read(tmp_path: Path) -> None:
    _written(tmp_path, "BTC_USDT-1h.json")
    write(tmp_path, "BTC_USDT_USDT-1h-mark.json", json.dumps(CANDLES))
    write(tmp_path, "BTC_USDT_USDT-8h-funding_rate.json", json.dumps(CANDLES))
    write(tmp_path, "ETH_USDT-1h.json", json.dumps(CANDLES)[:-20])
    write(tmp_path, "pairs.json", '{"pairs": ["BTC/USDT"]}')
    broken = [*CANDLES, [START + 3 * HOUR, "x", 1, 1, 1, 1], [START + 4 * HOUR, 1, 1, 1, None, 1], [1, 2, 3]]
    write(tmp_path, "XRP_USDT-1h.json", json.dumps(broken, indent=1))
    found = read_all(tmp_path, **example("freqtrade.yaml"))
    assert set(found.bars["symbol"].to_pylist()) == {"BTC/USDT", "XRP/USDT"} and found.bars.num_rows == 6
    assert sorted((w["file"], w["line"], w["reason"]) for w in found.quarantined.to_pylist()) == [
        ("BTC_USDT_USDT-1h-mark.json", -1, "not_traded"),
        ("BTC_USDT_USDT-8h-funding_rate.json", -1, "not_traded"),
        ("ETH_USDT-1h.json", -1, "broken_json"),
        ("XRP_USDT-1h.json", 4, "not_a_number"),
        ("XRP_USDT-1h.json", 5, "missing_close"),
        ("XRP_USDT-1h.json", 6, "wrong_number_of_cells"),
        ("pairs.json", -1, "not_candles"),
    ]


def test_candles_need_to_be_said_to_be_stamped_at_their_start(tmp_path: Path) -> None:
    path = _written(tmp_path, "BTC_USDT-1h.json")
    for section in ({}, {"market": "other", "timezone": "UTC"}):
        with pytest.raises(FilesError, match=r"market=other and stamps=start.*freqtrade\.yaml"):
            read_all(path, **section)


def test_mapping_of_the_example(tmp_path: Path) -> None:
    text = (
        "Timestamps are UTC timezone\nwhen,pair,o,h,l,c,volume_btc,volume\n"
        "2019-10-17 12-PM,BTCUSD,8051000,8056830,8021230,8035880,61.25,492394.56\n"
        "2019-10-17 11-AM,BTCUSD,7975890,8070000,7975890,8051000,370.45,2971610.86\n"
    )
    found = read_all(write(tmp_path, "hours.csv", text), **(example("mapping.yaml") | {"interval": "1h"}))
    first, second = (tuple(row.values()) for row in found.bars.to_pylist())
    who = ("BTCUSD", "COINBASE", "1h")
    assert first == (*who, datetime(2019, 10, 17, 12, tzinfo=UTC), 7975.89, 8070.0, 7975.89, 8051.0, 370.45, 2971610.86)
    assert second == (*who, datetime(2019, 10, 17, 13, tzinfo=UTC), 8051.0, 8056.83, 8021.23, 8035.88, 61.25, 492394.56)
    assert (found.counts["newest_first"], found.counts["unsorted"]) == (1, 0)


def test_scale_is_by_symbol_and_exact(tmp_path: Path) -> None:
    for name in ("USDJPYh1", "AUDUSDh1"):
        write(tmp_path, f"{name}.csv", "date,close,volume\n2012-11-16 12:00,112345,7\n2012-11-16 13:00,112346,7\n")
    section = {"market": "other", "timezone": "UTC", "file_name": r"^(?P<symbol>[A-Z]{6})"}
    found = read_all(tmp_path, price_scale={"USDJPY": 1000, "*": 100000}, **section)
    assert [(r["symbol"], r["close"], r["volume"]) for r in found.bars.to_pylist()] == [
        ("AUDUSD", 1.12345, 7.0),
        ("AUDUSD", 1.12346, 7.0),
        ("USDJPY", 112.345, 7.0),
        ("USDJPY", 112.346, 7.0),
    ]


def test_pattern_of_file_names(tmp_path: Path) -> None:
    write(tmp_path, "candles-btc-15m-part.csv", "date,close\n2024-01-01 00:15,1\n")
    section = {"market": "other", "timezone": "UTC"}
    found = read_all(tmp_path, file_name=r"candles-(?P<symbol>\w+)-(?P<interval>\w+)-", **section)
    assert found.interval == "15m" and found.bars["symbol"].to_pylist() == ["btc"]
    with pytest.raises(FilesError, match=r"interval such as 15m.*'part'"):
        read_all(tmp_path, file_name=r"(?P<symbol>\w+)-15m-(?P<interval>\w+)", **section)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"file_name": "("}, "regular expression"),
        ({"file_name": "(?P<name>x)"}, "group"),
        ({"price_scale": {"A": 0}}, "positive"),
        ({"price_scale": {"A": float("nan")}}, "positive"),
    ],
)
def test_settings_that_cannot_be(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ImportSection(**section)


def test_every_import_says_what_its_stamps_are(tmp_path: Path) -> None:
    _written(tmp_path, "BTC_USDT-1h.json")
    told: list[str] = []

    def emit(kind: str, /, **fields: object) -> None:
        told.append(str(fields.get("text", "")))

    list(load(tmp_path, ImportSection(**example("freqtrade.yaml")), emit))
    assert any("stamps of 1h bars are taken for their starts" in text for text in told)
