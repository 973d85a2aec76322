"""Files of bars through the whole stage: rows, quarantine, receipt, and no two origins under one name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import actions, krx, request
from pipeline.importers import FilesError
from pipeline.request import IngestSection, RequestError
from storage.lake import Lake
from storage.store import read_json
from tests import marcap_files

from .kis_server import Stage

HEADER = "date,open,high,low,close,volume\n"
ROWS = [
    "2024-03-04,100,110,95,105,1000",
    "2024-03-05,105,112,101,110,1500",
    "2024-03-06,0,0,0,110,0",
    "2024-03-07,110,111,104,108,900",
]


def files(folder: Path, **more: list[str]) -> Path:
    folder.mkdir()
    for symbol, rows in ({"A005930": ROWS, "A000270": ROWS[:3]} | more).items():
        (folder / f"{symbol.removeprefix('A')}.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return folder


def stage(tmp_path: Path, path: Path, **ingest: object) -> Stage:
    return Stage(tmp_path, ingest={"path": str(path), "source": "", "start": None, "end": "2026-10-30"} | ingest)


def test_bars_quarantine_and_receipt(tmp_path: Path) -> None:
    path = files(
        tmp_path / "prices", A000660=["2024-03-04,100,90,95,105,1000", "2024-03-05,100,x,95,99,1", *ROWS[2:], ROWS[3]]
    )
    one = stage(tmp_path, path)
    manifest = one.run()
    receipt = one.receipt
    assert receipt.source.startswith("files-") and receipt.market == "KRX" and not receipt.close_only
    assert receipt.symbols == ("000270", "000660", "005930")
    assert (receipt.start, receipt.end) == (date(2024, 3, 4), date(2024, 3, 7))
    assert manifest["rows"] == 4 + 3 + 2 == receipt.bars("1d").num_rows
    assert sum(receipt.quarantined.values()) == 2 and receipt.quarantined["high_below_low"] == 1
    assert receipt.quarantined == manifest["quarantined"]
    wrong = Lake(one.lake).read("quarantine", source=receipt.source).to_pylist()
    assert {(row["file"], row["line"]) for row in wrong} == {("000660.csv", 2), ("000660.csv", 3)}
    halt = receipt.bars("1d", symbols=["005930"]).slice(2, 1).to_pylist()[0]
    assert halt["close"] == 110 and halt["open"] != halt["open"] and halt["volume"] == 0
    assert receipt.symbol_table()["symbol"].to_pylist() == list(receipt.symbols)
    assert stage(tmp_path, path, chunk_size=1).run()["content"] == manifest["content"], "again, row by row: the same"


def test_changed_files_are_another_source_and_another_key(tmp_path: Path) -> None:
    path = files(tmp_path / "prices")
    first = stage(tmp_path, path)
    key = first.sections()[1].keyed()
    content = first.run()["content"]
    source = first.receipt.source
    (path / "005930.csv").write_text(HEADER + "\n".join(ROWS[:2]) + "\n")
    second = stage(tmp_path, path)
    assert second.sections()[1].keyed() != key
    assert second.run()["content"] != content
    assert second.receipt.source != source and second.receipt.rows == {"1d": 5}
    key, content = second.sections()[1].keyed(), second.run()["content"]
    moved = stage(tmp_path, path.rename(tmp_path / "elsewhere"))
    assert moved.sections()[1].keyed() == key and moved.run()["content"] == content, "the place is not the content"


def test_only_what_files_are_asked_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files(tmp_path / "prices")

    def key(**ingest: object) -> dict[str, object]:
        return IngestSection.model_validate({"path": str(path)} | ingest).keyed()

    one = key()
    for broker in ({"count": 7}, {"order": "market_cap"}, {"years": 9}, {"daily": False}, {"minute_symbols": 3}):
        assert key(**broker) == one
        assert IngestSection.model_validate(broker).keyed() != IngestSection().keyed()
    for own in ({"symbols": ["005930"]}, {"start": "2024-03-05"}, {"end": "2024-03-06"}, {"source": "mine"}):
        assert key(**own) != one
    assert key(files={"market": "other"}) != one
    today = krx.last_closed_session(datetime.now(UTC))
    assert key(end=today) == one
    saved = IngestSection.model_validate({"path": str(path), "end": today}).model_dump(mode="json")
    monkeypatch.setattr(request, "_yesterday_or_today", lambda: today + timedelta(days=1))
    assert key(end=today + timedelta(days=1)) == one, "tomorrow's `today`, the same files"
    assert IngestSection.model_validate(saved).keyed() == one, "a saved configuration, read tomorrow"


def test_files_without_an_end_are_read_to_their_last_bar(tmp_path: Path) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date()
    path = files(tmp_path / "prices", A000660=["2024-03-04,100,110,95,105,1000", f"{tomorrow},1,1,1,1,1"])
    today = krx.last_closed_session(datetime.now(UTC))
    one = stage(tmp_path, path, end=today, files={"market": "other"})
    one.run()
    assert one.receipt.end == tomorrow


def test_two_origins_are_not_joined_under_one_name(tmp_path: Path) -> None:
    path = files(tmp_path / "prices")
    stage(tmp_path, path, source="mine").run()
    (path / "005930.csv").write_text(HEADER + f"{ROWS[0]}\n{ROWS[3]}\n")
    with pytest.raises(RequestError, match=r"'mine' only the 5 bars.*found 7"):
        stage(tmp_path, path, source="mine").run()


def test_symbols_and_days_can_be_chosen(tmp_path: Path) -> None:
    path = files(tmp_path / "prices")
    one = stage(tmp_path, path, symbols=["005930"], start="2024-03-05", end="2024-03-06")
    manifest = one.run()
    assert one.receipt.symbols == ("005930",) and manifest["rows"] == 2
    assert manifest["counts"]["outside_the_dates_or_symbols"] == 5
    with pytest.raises(RequestError, match="bars of 068270"):
        stage(tmp_path, path, symbols=["005930", "068270"]).run()


def test_nothing_to_read_is_explained(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(FilesError, match=str(path)):
            stage(tmp_path, path).run()


def test_real_files_of_seven_stocks_and_an_index(tmp_path: Path, market_data: Path) -> None:
    one = stage(tmp_path, market_data / "krx_daily_raw" / "v1")
    manifest = one.run()
    assert len(one.receipt.symbols) == 7 and manifest["indices"] == ["KOSPI"]
    assert "KOSPI" not in one.receipt.symbols and manifest["rows"] > 40_000
    assert one.receipt.start.year == 1985 and not one.receipt.close_only


def test_base_prices_of_yearly_files_become_actions(tmp_path: Path) -> None:
    folder = tmp_path / "years"
    folder.mkdir()
    old, new = krx.sessions("2022-12-26", "2022-12-29"), krx.sessions("2023-01-02", "2023-01-06")
    row = marcap_files.row
    marcap_files.write(folder, 2022, [row(str(d), "005930", 50_000, 0) for d in old])
    split = [row(str(d), "005930", 1_010 if i else 1_000, 0 if i != 1 else 10) for i, d in enumerate(new)]
    marcap_files.write(folder, 2023, [*split, *(row(str(d), "112240", 700, 0, market="KONEX") for d in new)])
    one = stage(tmp_path, folder, files={"markets": ["KOSPI"], "complete": True})
    manifest = one.run()
    assert manifest["counts"]["other_market"] == 5 and one.receipt.symbols == ("005930",)
    found = one.receipt.actions().to_pylist()
    assert [(a["symbol"], a["ex_date"], a["factor"]) for a in found] == [("005930", date(2023, 1, 2), 50.0)]
    bars = one.receipt.bars("1d")
    assert bars["close"].to_pylist() == [50_000.0] * 4 + [1_000.0] + [1_010.0] * 4, "raw in the lake"
    adjusted = actions.adjust(bars.to_pandas(), one.receipt.actions())
    assert adjusted["close"].tolist() == [50_000.0] * 5 + [50_500.0] * 4
    described = read_json(one.out / "quality.json")["1d"]
    assert described["beyond_limit"]["explained"] == 1 and described["basis_jumps"]["rows"] == 0
    assert one.run()["content"] == manifest["content"]


def test_candles_of_pairs(tmp_path: Path, market_data: Path) -> None:
    candles = {"market": "other", "venue": "BINANCE", "timezone": "UTC", "stamps": "start"}
    one = stage(tmp_path, market_data / "crypto_1h_freqtrade_raw.zip", files=candles, symbols=["BTC/USDT", "ETH/USDT"])
    manifest = one.run()
    assert one.receipt.intervals == ("1h",) and one.receipt.venue == "BINANCE" and one.receipt.market == "other"
    assert one.receipt.symbols == ("BTC/USDT", "ETH/USDT") and manifest["rows"] == one.receipt.bars("1h").num_rows
    assert one.receipt.bars("1h", symbols=["BTC/USDT"])["ts"][0].as_py() == datetime(2021, 1, 1, 1, tzinfo=UTC)
    assert "taken for their starts" in one.logs
    assert read_json(one.out / "quality.json")["1h"]["notes"]
