"""The importers on real files: every set is read whole, and its known troubles are found and named."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import quality
from pipeline.importers import FilesError, ImportSection, Loaded, load
from pipeline.summary import summary
from storage.schema import KEYS, content_digest

KEY = [name for name in KEYS["bars"] if name != "source"]


def _loaded(path: Path, **section: Any) -> list[Loaded]:
    return list(load(path, ImportSection(**section)))


def _bars(parts: list[Loaded]) -> pa.Table:
    return pa.concat_tables([part.bars for part in parts])


def _reasons(parts: list[Loaded]) -> dict[str, int]:
    return quality.reasons(pa.concat_tables([part.quarantined for part in parts]))


def _counts(parts: list[Loaded]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.counts)
    return total


def _of(bars: pa.Table, symbol: str) -> dict[date, dict[str, float]]:
    mine = bars.filter(pc.equal(bars["symbol"], symbol)).to_pylist()
    return {row["ts"].date(): row for row in mine}


def test_seven_stocks_and_an_index_without_headers(market_data: Path) -> None:
    parts = _loaded(market_data / "krx_daily_raw" / "v1")
    bars, counts = _bars(parts), _counts(parts)
    # 64,059 rows: 1,880 empty ones at the ends of two files, 16,289 that a second file of the same symbol repeats
    assert (counts["rows"], counts["blank"], counts["duplicate"], counts["unsorted"]) == (64_059, 1_880, 16_289, 0)
    assert bars.num_rows == 45_890 and _reasons(parts) == {}
    told = {row["symbol"]: row["kind"] for part in parts if part.symbols for row in part.symbols.to_pylist()}
    assert told.pop("KOSPI") == "index" and set(told.values()) == {"stock"}
    assert set(told) == {"005380", "005490", "005930", "009240", "015760", "030200", "035420"}
    first = _of(bars, "005930")[date(1985, 1, 4)]
    assert [first[name] for name in ("open", "high", "low", "close", "volume")] == [6511, 6511, 6473, 6473, 2232]
    assert first["ts"] == datetime(1985, 1, 4, 6, tzinfo=UTC) and not any(part.close_only for part in parts)
    naver = [row for row in _of(bars, "035420").values() if row["volume"] == 0]
    assert len(naver) == 21 and all(row["open"] == row["high"] == row["low"] == row["close"] for row in naver)
    assert _of(bars, "KOSPI")[date(2015, 11, 4)]["close"] == 2053


def test_later_sets_with_headers_and_company_names(market_data: Path) -> None:
    second = _loaded(market_data / "krx_daily_raw" / "v2")
    assert _bars(second).num_rows == 3_910 and _reasons(second) == {}
    third = _loaded(market_data / "krx_daily_raw" / "v3")
    assert _bars(third).num_rows == 1_972 and _reasons(third) == {"missing_column": 1}  # marketfeatures.csv
    told = {row["symbol"]: row["name"] for part in third if part.symbols for row in part.symbols.to_pylist()}
    assert told == {"005380": "현대자동차", "005930": "삼성전자"}
    samsung = _of(_bars(third), "005930")
    halted = [day for day, row in samsung.items() if row["volume"] == 0]
    assert halted == [date(2018, 4, 30), date(2018, 5, 2), date(2018, 5, 3)]
    assert not set(halted) & set(_of(_bars(second), "005930"))


def test_sets_of_different_bases_are_never_joined(market_data: Path) -> None:
    folder = market_data / "krx_daily_raw"
    with pytest.raises(FilesError, match=r"3 places .* choose one with --ingest\.path"):
        _loaded(folder)
    with pytest.raises(FilesError, match="choose one"):
        _loaded(market_data)
    with pytest.raises(FilesError, match=r"\['v1', 'v2', 'v3'\]"):
        _loaded(market_data / "krx_daily.parquet")
    old, new = (_of(_bars(_loaded(folder / name)), "005930") for name in ("v1", "v2"))
    ratio = {round(old[day]["close"] / new[day]["close"]) for day in old.keys() & new.keys()}
    assert ratio == {50}


@pytest.mark.parametrize(("year", "rows", "symbols"), [(2021, 1_257_407, 1_785), (2019, 788_381, 1_633)])
def test_close_panels_from_archive_and_parquet_are_the_same(
    market_data: Path, year: int, rows: int, symbols: int
) -> None:
    raw = _loaded(market_data / f"krx_close_{year}_raw.zip")
    bars = _bars(raw)
    assert bars.num_rows == rows == _counts(raw)["rows"] and _reasons(raw) == {}
    assert len(pc.unique(bars["symbol"])) == symbols and all(part.close_only for part in raw)
    assert np.isnan(bars["open"].to_numpy()).all() and np.isnan(bars["volume"].to_numpy()).all()
    found = _bars(_loaded(market_data / f"krx_close_{year}.parquet"))
    assert content_digest(found, KEY) == content_digest(bars, KEY)


def test_what_the_close_panels_hide_is_in_the_summary(market_data: Path) -> None:
    found = summary(_bars(_loaded(market_data / "krx_close_2021.parquet")), market="KRX")
    assert found["flat_runs"]["symbols"] >= 100 and found["flat_runs"]["worst"][0]["sessions"] > 700
    assert found["short"]["symbols"] == 67 and found["short"]["worst"][0]["rows"] == 3
    assert found["gaps"]["rows"] == 0
    assert 5 <= found["beyond_limit"]["rows"] <= 8 and found["beyond_limit"]["worst"][0]["symbol"] == "260970"
    naver = summary(_bars(_loaded(market_data / "krx_daily_raw" / "v1")), market="KRX")
    assert naver["basis_jumps"]["worst"][0]["symbol"] == "035420" and naver["off_tick"] > 0.2


def test_two_vintages_of_one_series_disagree(market_data: Path, tmp_path: Path) -> None:
    for year in (2019, 2021):
        shutil.copy(market_data / f"krx_close_{year}.parquet", tmp_path)
    with pytest.raises(FilesError, match="expected files that agree"):
        _loaded(tmp_path)


def test_listing_in_cp949_names_the_panel(market_data: Path) -> None:
    parts = _loaded(market_data / "krx_close_2021_raw.zip", listing=str(market_data / "krx_ticker_2021_raw.csv"))
    told = {row["symbol"]: row for part in parts if part.symbols for row in part.symbols.to_pylist()}
    assert told["005930"]["name"] == "삼성전자" and told["005930"]["market"] == "KOSPI"
    assert told["005930"]["sector"] == "전기전자" and told["005930"]["as_of"] == date(2021, 11, 5)
    assert len(told) == 1_785


def _of_other(path: Path, **section: Any) -> tuple[pa.Table, Counter[str]]:
    parts = _loaded(path, market="other", timezone="UTC", **section)
    assert _reasons(parts) == {}
    return _bars(parts), _counts(parts)


def test_hourly_candles_of_41_pairs(market_data: Path) -> None:
    bars, counts = _of_other(market_data / "crypto_1h_freqtrade_raw.zip", venue="BINANCE", stamps="start")
    assert counts["files"] == 41 and counts["rows"] == bars.num_rows == 164_753
    lengths = bars.group_by("symbol").aggregate([("ts", "count"), ("ts", "min"), ("ts", "max")])
    assert (pc.min(lengths["ts_count"]).as_py(), pc.max(lengths["ts_count"]).as_py()) == (2_334, 4_090)
    assert pc.min(bars["ts"]).as_py() == datetime(2021, 1, 1, 1, tzinfo=UTC), "the start was midnight"
    assert set(pc.unique(bars["interval"]).to_pylist()) == {"1h"} and "BTC/USDT" in lengths["symbol"].to_pylist()
    found = summary(bars, market="other")
    assert found["uneven"]["rows"] > 0 and any("longer than a bar" in text for text in found["notes"])


def test_quarter_hours_in_local_time_whose_clock_changes(market_data: Path) -> None:
    bars, counts = _of_other(
        market_data / "BTCUSDT_15m_raw.zip",
        venue="BINANCE",
        stamps="last",
        columns={"date": "close_datetime", "turnover": "quote_volume"},
        file_name=r"^(?P<symbol>[A-Z]+)_",
    )
    assert bars.num_rows == 22_748 == counts["rows"] and set(bars["symbol"].to_pylist()) == {"BTCUSDT"}
    ends = bars["ts"].to_pylist()
    assert ends[0] == datetime(2023, 12, 31, 23, 15, tzinfo=UTC), "00:14:59.999 one hour east of Greenwich"
    assert {b - a for a, b in pairwise(ends)} == {timedelta(minutes=15)}, "no hour is lost or doubled on 2024-03-31"
    found = summary(bars, market="other")
    assert found["uneven"]["rows"] == 0 == found["without_volume"] and found["notes"] == []


def test_hourly_bars_newest_first_after_a_comment(market_data: Path) -> None:
    bars, counts = _of_other(
        market_data / "Coinbase_BTCUSD_1h.csv",
        venue="COINBASE",
        stamps="start",
        date_format="%Y-%m-%d %I-%p",
        columns={"volume": "volume_btc", "turnover": "volume"},
    )
    assert bars.num_rows == 20_111 and (counts["newest_first"], counts["unsorted"]) == (1, 5)
    last = bars.slice(bars.num_rows - 1).to_pylist()[0]
    assert last["ts"] == datetime(2019, 10, 17, 10, tzinfo=UTC) and last["close"] == 8035.88
    assert (last["volume"], last["turnover"]) == (61.25, 492394.56), "coins, and the dollars paid for them"
    found = summary(bars, market="other")
    assert found["without_volume"] == 28 and "28 bars have no volume" in found["notes"]


def test_currencies_with_scaled_prices_and_weekends(market_data: Path) -> None:
    parts = _loaded(
        market_data / "fx_h1_d1_raw.zip",
        market="other",
        venue="FX",
        timezone="UTC",
        stamps="start",
        file_name=r"^(?P<symbol>[A-Z]{6})[hd]1$",
        price_scale={"USDJPY": 1_000, "*": 100_000},
    )
    rows = Counter({part.interval: part.bars.num_rows for part in parts})
    assert rows["1h"] == 115_200 and _reasons(parts) == {}
    for part in parts:
        assert set(pc.unique(part.bars["symbol"]).to_pylist()) == {"AUDUSD", "USDJPY"}
        yen = part.bars.filter(pc.equal(part.bars["symbol"], "USDJPY"))["close"]
        assert 75 < pc.min(yen).as_py() < pc.max(yen).as_py() < 130
    hourly = next(part.bars for part in parts if part.interval == "1h")
    assert hourly.slice(0, 1)["volume"][0].as_py() > 0, "ticks are counted as volume"
    found = summary(hourly.filter(pc.equal(hourly["symbol"], "USDJPY")), market="other")
    assert 450 <= found["uneven"]["rows"] <= 550 and 70 < found["uneven"]["worst"][0]["hours"] <= 80


def test_one_source_of_a_table_of_several(market_data: Path) -> None:
    parts = _loaded(market_data / "krx_daily.parquet", basis="v2")
    assert _bars(parts).num_rows == 3_910
    raw = _bars(_loaded(market_data / "krx_daily_raw" / "v2"))
    assert content_digest(_bars(parts), KEY) == content_digest(raw, KEY)


def test_known_troubles_of_daily_files_are_notes(market_data: Path) -> None:
    bars = _bars(_loaded(market_data / "krx_daily_raw" / "v1"))
    index = pc.equal(bars["symbol"], "KOSPI")
    found = summary(bars.filter(pc.invert(index)), market="KRX")
    assert found["saturdays"] == 2_346
    notes = " | ".join(found["notes"])
    assert "2,346 bars are of Saturdays" in notes and "off any price tick" in notes
    assert "beyond the price limit" in notes and "symbol 035420" in notes
    assert _counts(_loaded(market_data / "krx_daily_raw" / "v1"))["whole_points"] == int(pc.sum(index).as_py())
    both = summary(_bars(_loaded(market_data / "krx_daily_raw" / "v3")), market="KRX")
    assert both["without_volume"] == 3 and "3 bars have no volume" in both["notes"]
