"""Data frames and control messages of the WebSocket: known captures, wrong texts, speed."""

import time
from datetime import date, datetime

import pytest

from pipeline import krx
from pipeline.kis import control
from pipeline.kis.columns import WireError
from pipeline.kis.frames import parse_book, parse_frame, parse_trades
from pipeline.kis.records import BOOK, ORDER_BOOK, TRADE, TRADES
from pipeline.kis.simulator.frames import render_book, render_frame, render_trades

# As captured by a user on 2026-09-22; only the volume-weighted price is what turnover and volume say.
RECORD = (
    "005930^140610^277750^2^3750^1.37^280395.66^283000^283500^276500^278000^277500^5^11955000^3352130122500^83251^86830^"
    "3579^120.39^5217059^6280658^5^0.53^53.70^090023^5^-5250^090048^5^-5750^135824^2^1250^20260922^20^N^47588^70626^"
    "794823^496479^0.20^17123443^69.82^0^^283000^2"
)
LEGACY = RECORD.removesuffix("^2")
SIDES = "^".join(f"{278000 + 500 * level}" for level in range(10)), "^".join(f"{277500 - 500 * n}" for n in range(10))
SIZES = "^".join(["79483"] * 9 + ["79484"]), "^".join(["49648"] * 10)
TAIL = "794831^496484^0^0^0^0^457236^-274000^5^-100.00^11955000^13^5^0^0^0^277750^4831^2^2"
DEPTH = f"005930^140610^0^{SIDES[0]}^{SIDES[1]}^{SIZES[0]}^{SIZES[1]}^{TAIL}"


def frame(*records: str, tr_id: str = TRADE) -> str:
    return render_frame(tr_id, records)


def test_layouts_have_their_lengths() -> None:
    assert [len(TRADES["legacy"]), len(TRADES["current"])] == [46, 47]
    assert [len(BOOK["legacy"]), len(BOOK["current"])] == [59, 63]
    assert TRADES["current"][33] == "BSOP_DATE" and BOOK["current"][43] == "TOTAL_ASKP_RSQN"


def test_a_captured_trade_is_read_and_written_again() -> None:
    rows = parse_trades(parse_frame(frame(RECORD)))
    row = rows.to_pylist()[0]
    assert row["symbol"] == "005930" and row["price"] == 277750.0 and row["base"] == 274000.0
    assert row["ts"] == datetime(2026, 9, 22, 14, 6, 10, tzinfo=krx.KST) and row["side"] == -1
    assert row["high_ts"] == datetime(2026, 9, 22, 9, 0, 48, tzinfo=krx.KST) and not row["halted"]
    assert row["cumulative_turnover"] == 3352130122500.0 and row["market_class"] == "2"
    assert render_trades(rows) == [RECORD] and render_trades(rows, "legacy") == [LEGACY]
    assert parse_trades(parse_frame(frame(LEGACY))).to_pylist()[0] == row | {"market_class": ""}


def test_a_captured_book_is_read_and_written_again() -> None:
    rows = parse_book(parse_frame(frame(DEPTH, tr_id=ORDER_BOOK)), day=date(2026, 9, 22))
    row = rows.to_pylist()[0]
    assert row["asks"] == [278000.0 + 500 * n for n in range(10)] and row["bid_sizes"] == [49648.0] * 10
    assert row["base"] == 274000.0 and row["expected_price"] == 0.0 and row["mid_price"] == 277750.0
    assert row["ts"] == datetime(2026, 9, 22, 14, 6, 10, tzinfo=krx.KST) and row["cumulative_volume"] == 11955000.0
    assert render_book(rows) == [DEPTH]
    assert render_book(rows, "legacy") == ["^".join(DEPTH.split("^")[:59])]


def test_several_records_of_mixed_layouts_and_a_field_more() -> None:
    other = RECORD.replace("005930", "0193T0").replace("^277750^", "^277751^")
    texts = [frame(RECORD, other), frame(LEGACY, LEGACY, LEGACY), frame(other + "^NEW^X")]
    parsed = [parse_frame(text) for text in texts]
    rows = parse_trades(*parsed)
    assert rows["symbol"].to_pylist() == ["005930", "0193T0", "005930", "005930", "005930", "0193T0"]
    assert rows["market_class"].to_pylist() == ["2", "2", "", "", "", "2"] and rows["price"][5].as_py() == 277751.0
    assert [len(row) for row in parsed[2].rows] == [47] and parsed[1].rows == [LEGACY.split("^")] * 3
    assert len(parse_trades()) == 0


def test_an_encrypted_frame_keeps_its_text() -> None:
    found = parse_frame("1|H0STCNI0|001|TGV0IHRoZSBib29r")
    assert found.encrypted and found.content == "TGV0IHRoZSBib29r" and found.rows == []
    with pytest.raises(WireError, match="plain frames"):
        parse_trades(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "flag"),
        ("0|H0STCNT0|001", "flag"),
        ("2|H0STCNT0|001|" + RECORD, "flag"),
        ("0|H0STCNT0|000|" + RECORD, "count"),
        ("0|H0STCNT0|1|" + RECORD, "count"),
        ("0|H0STCNT0|-01|" + RECORD, "count"),
        ("0|H0STCNT|001|" + RECORD, "TR id"),
        ("0|H0STCNT0|002|" + RECORD, "fields"),
        ("0|H0STCNT0|001|" + RECORD[: len(RECORD) // 2], "fields"),
        ("0|H0STCNT0|001|" + RECORD + "^" + RECORD, "fields"),  # a record hidden behind a wrong count
        ("0|H0STCNT0|002|" + RECORD + "^" + LEGACY, "fields"),
        ("0|H0STCNT0|001|" + RECORD.replace("005930", "００５９３０"), "ASCII"),
    ],
)
def test_wrong_frames_are_typed_errors(text: str, message: str) -> None:
    with pytest.raises(WireError, match=message):
        parse_frame(text)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("^277750^", "^nan^", "STCK_PRPR"),
        ("^277750^", "^1e5^", "STCK_PRPR"),
        ("^277750^", "^27-7^", "STCK_PRPR"),
        ("^277750^", "^1.2.3^", "STCK_PRPR"),
        ("^11955000^", "^9007199254740992^", "ACML_VOL"),
        ("^140610^", "^240610^", "STCK_CNTG_HOUR"),
        ("^140610^", "^14061^", "STCK_CNTG_HOUR"),
        ("^140610^", "^^", "STCK_CNTG_HOUR"),
        ("^20260922^", "^20260931^", "BSOP_DATE"),
        ("^277750^2^", "^277750^7^", "PRDY_VRSS_SIGN"),
        ("005930^", "^", "MKSC_SHRN_ISCD"),
        ("^N^", "^?^", "TRHT_YN"),
    ],
)
def test_wrong_fields_are_named_with_their_row(old: str, new: str, field: str) -> None:
    assert old in RECORD
    with pytest.raises(WireError, match=field) as caught:
        parse_trades(parse_frame(frame(RECORD, RECORD, RECORD.replace(old, new, 1))))
    assert caught.value.row == (-1 if field == "BSOP_DATE" else 2)


def test_blank_numbers_are_unknown_and_half_ticks_are_taken() -> None:
    text = RECORD.replace("^278000^277500^", "^^277500^").replace("^277750^2^3750^", "^1002.50^2^2.50^")
    row = parse_trades(parse_frame(frame(text))).to_pylist()[0]
    assert row["ask"] != row["ask"] and row["price"] == 1002.5 and row["base"] == 1000.0


def test_frames_of_many_records_are_split_by_the_caller() -> None:
    with pytest.raises(ValueError, match="999"):
        frame(*[RECORD] * 1000)


def test_a_core_reads_a_feed_quickly() -> None:
    texts, best = [frame(RECORD, RECORD, RECORD)] * 2_000, 0.0
    for _ in range(3):
        started = time.process_time()
        rows = parse_trades(*map(parse_frame, texts))
        best = max(best, len(rows) / (time.process_time() - started))
    assert best > 50_000  # 250,000 a second are usual


def test_control_messages_round() -> None:
    ack = control.parse_control(control.render_ack(control.TOO_MANY, TRADE, "005930", "i" * 16, "k" * 32))
    assert (ack.tr_id, ack.tr_key, ack.code, ack.rt_cd) == (TRADE, "005930", "OPSP0008", "1")
    assert (ack.text, ack.iv, ack.key, ack.encrypted) == ("MAX SUBSCRIBE OVER", "i" * 16, "k" * 32, False)
    assert control.parse_control(control.render_ping(datetime(2026, 11, 20, 9))) == control.Control("PINGPONG")
    asked = control.parse_request(control.render_request("key", TRADE, "005930", subscribe=False))
    assert asked == control.Request("key", False, TRADE, "005930")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"header":1}', '{"header":{"tr_id":1}}', '{"header":{"tr_id":"X"}}'])
def test_wrong_control_messages_are_typed_errors(text: str) -> None:
    with pytest.raises(WireError):
        control.parse_control(text)
