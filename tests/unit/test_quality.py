"""Which rows are bars: every rule, its order and what is counted; against a slow twin on random tables."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import krx, quality
from pipeline.summary import summary
from storage.schema import ACTIONS, BARS
from tests import market

VALUES = ("open", "high", "low", "close", "volume", "turnover")
NAN = float("nan")


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    base = {"symbol": "005930", "venue": "KRX", "interval": "1d", "open": 100.0, "high": 110.0, "low": 90.0}
    base |= {"close": 105.0, "volume": 10.0, "turnover": None, "day": "2020-01-02"}
    full = [base | row for row in rows]
    columns: dict[str, Any] = {name: [row[name] for row in full] for name in ("symbol", "venue", "interval", *VALUES)}
    days = np.array([row["day"] or "NaT" for row in full], "datetime64[D]")
    ends = krx.session_closes(np.where(np.isnat(days), np.datetime64("2020-01-02"), days))
    columns["ts"] = np.where(np.isnat(days), np.datetime64("NaT"), ends)
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in BARS if f.name in columns})


def _reason(**row: Any) -> str:
    good, wrong = quality.check(_table([row]), market="KRX")
    assert good.num_rows + wrong.num_rows == 1
    return "" if good.num_rows else str(wrong["reason"][0].as_py())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, ""),
        ({"open": 90.0, "close": 110.0}, ""),
        ({"open": 5.0, "high": 5.0, "low": 5.0, "close": 5.0, "volume": 0.0}, ""),
        ({"open": NAN, "high": NAN, "low": NAN}, ""),
        ({"open": None, "high": None, "low": None, "volume": None}, ""),
        ({"open": NAN}, ""),
        ({"open": 0.0, "high": 0.0, "low": 0.0}, ""),
        ({"volume": NAN, "turnover": 1.0}, ""),
        ({"day": None}, "not_a_date"),
        ({"close": NAN}, "missing_close"),
        ({"close": None}, "missing_close"),
        ({"high": math.inf}, "infinite"),
        ({"volume": math.inf}, "infinite"),
        ({"low": -1.0}, "negative_price"),
        ({"volume": -1.0}, "negative_volume"),
        ({"turnover": -1.0}, "negative_volume"),
        ({"close": 0.0}, "zero_price"),
        ({"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0}, "zero_price"),
        ({"open": 0.0}, "zero_price"),
        ({"low": 0.0}, "zero_price"),
        ({"high": 89.0}, "high_below_low"),
        ({"close": 111.0}, "outside_high_low"),
        ({"open": 89.0}, "outside_high_low"),
        ({"high": 105.0 * (1 - 1e-12)}, ""),
        ({"day": "2020-01-04"}, "not_a_session"),
        ({"day": "2020-01-27"}, "not_a_session"),
    ],
)
def test_every_rule(row: dict[str, Any], reason: str) -> None:
    assert _reason(**row) == reason


def test_days_without_a_session_matter_on_the_exchange_only() -> None:
    good, wrong = quality.check(_table([{"day": "2020-01-04"}]), market="other")
    assert (good.num_rows, wrong.num_rows) == (1, 0)


def test_halt_becomes_nan_and_keeps_its_close() -> None:
    halted = {"open": 0.0, "high": 0.0, "low": 0.0, "volume": 0.0, "day": "2020-01-03"}
    good, _ = quality.check(_table([{}, halted]), market="KRX")
    assert np.isnan([good[name][1].as_py() for name in ("open", "high", "low")]).all()
    assert [good[name][0].as_py() for name in ("open", "high", "low")] == [100.0, 110.0, 90.0]
    assert good["close"].to_pylist() == [105.0, 105.0] and good["volume"].to_pylist() == [10.0, 0.0]


def test_turnover_stays_null_and_other_nulls_become_nan() -> None:
    good, _ = quality.check(_table([{"open": None, "volume": None}]), market="KRX")
    assert good["turnover"].null_count == 1 and good["open"].null_count == 0 and good["volume"].null_count == 0
    assert good.schema.field("open").metadata == BARS.field("open").metadata


def test_order_and_duplicates() -> None:
    rows = [
        {"symbol": "B", "day": "2020-01-03"},
        {"symbol": "A", "day": "2020-01-03", "close": 101.0},
        {"symbol": "A", "day": "2020-01-02"},
        {"symbol": "A", "day": "2020-01-03", "close": 102.0},  # differs from the second
        {"symbol": "B", "day": "2020-01-03"},  # the same as the first
        {"symbol": "A", "day": "2020-01-03", "venue": "NXT"},  # another venue: another key
        {"symbol": "A", "day": "2020-01-02", "interval": "1w"},
        {"symbol": "B", "day": "2020-01-02", "open": NAN, "turnover": None},
        {"symbol": "B", "day": "2020-01-02", "open": NAN, "turnover": None},
    ]
    good, wrong = quality.check(_table(rows), market="KRX")
    key = [good[name].to_pylist() for name in ("symbol", "interval", "ts", "venue")]
    assert list(zip(*key)) == sorted(zip(*key)) and good.num_rows == 5
    assert sorted("close=101" in row for row in wrong["row"].to_pylist()) == [False, True]
    assert wrong["reason"].to_pylist() == ["duplicate"] * 2 and set(wrong["symbol"].to_pylist()) == {"A"}
    assert quality.reasons(wrong) == {"duplicate": 2}


def test_bad_twin_does_not_make_a_duplicate() -> None:
    good, wrong = quality.check(_table([{}, {"high": 1.0}]), market="KRX")
    assert good.num_rows == 1 and quality.reasons(wrong) == {"high_below_low": 1}


def test_provenance_goes_to_quarantine_and_other_columns_stay() -> None:
    table = _table([{}, {"close": NAN, "day": "2020-01-03"}])
    table = table.append_column("base", pa.array([1.0, 2.0])).append_column("file", pa.array(["f", "g"]))
    table = table.append_column("line", pa.array([7, 8])).append_column("row", pa.array(["a,b", "c,d"]))
    good, wrong = quality.check(table, market="KRX")
    assert good["base"].to_pylist() == [1.0] and not {"file", "line", "row"} & set(good.column_names)
    assert [wrong[name][0].as_py() for name in ("file", "line", "row", "reason")] == ["g", 8, "c,d", "missing_close"]
    _, wrong = quality.check(table.drop_columns(["file", "line", "row"]), market="KRX")
    assert wrong["line"].to_pylist() == [-1] and "close=nan" in wrong["row"][0].as_py()


def test_dictionary_encoded_and_chunked_texts_are_the_same() -> None:
    table = _table([{"symbol": "B"}, {"symbol": "A"}, {"symbol": "A", "day": "2020-01-03", "high": 1.0}])
    plain, wrong = quality.check(table, market="KRX")
    encoded = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    for name in ("symbol", "venue", "interval"):
        column = encoded[name].dictionary_encode()
        encoded = encoded.set_column(encoded.column_names.index(name), name, column)
    good, bad = quality.check(encoded, market="KRX")
    assert good.cast(plain.schema).equals(plain) and bad.equals(wrong)


def test_no_rows() -> None:
    good, wrong = quality.check(_table([]), market="KRX")
    assert good.num_rows == wrong.num_rows == 0 and quality.reasons(wrong) == {}
    assert summary(good, market="KRX") == {"rows": 0, "symbols": 0}


PRICE = st.one_of(st.sampled_from([0.0, -1.0, NAN, 100.0, 105.0, 110.0]), st.floats(1, 200))
ROW = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["A", "B"]),
        "day": st.sampled_from(["2020-01-02", "2020-01-03", "2020-01-04", "2020-01-06"]),
        "open": PRICE,
        "high": PRICE,
        "low": PRICE,
        "close": PRICE,
        "volume": st.sampled_from([0.0, 1.0, NAN]),
    }
)


def _slow(rows: list[dict[str, Any]]) -> tuple[list[tuple[Any, ...]], int]:
    """Apply the rules row by row. Return the good rows and how many are quarantined."""
    good: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    wrong = 0
    for row in rows:
        o, h, lo, c, v = (row[name] for name in ("open", "high", "low", "close", "volume"))
        if c > 0 and all(x == 0 or math.isnan(x) for x in (o, h, lo)):
            o = h = lo = NAN
        known = [x for x in (o, c) if not math.isnan(x)]
        fine = not math.isnan(c) and all(math.isnan(x) or x > 0 for x in (o, h, lo, c)) and not v < 0
        fine = fine and not h < lo and not any(x > h * (1 + 1e-9) or x < lo * (1 - 1e-9) for x in known)
        fine = fine and row["day"] != "2020-01-04"
        if fine:
            good.setdefault((row["symbol"], row["day"]), []).append((o, h, lo, c, v))
        else:
            wrong += 1
    kept = []
    for key, found in sorted(good.items()):
        if len({repr(one) for one in found}) == 1:
            kept.append((*key, *found[0]))
        else:
            wrong += len(found)
    return kept, wrong


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW, max_size=12))
def test_check_is_the_slow_twin(rows: list[dict[str, Any]]) -> None:
    good, wrong = quality.check(_table(rows), market="KRX")
    kept, count = _slow(rows)
    days = [str(t.date()) for t in good["ts"].to_pylist()]
    got = list(zip(good["symbol"].to_pylist(), days, *(good[n].to_pylist() for n in VALUES[:5])))
    assert repr(got) == repr(kept) and wrong.num_rows == count
    again, none = quality.check(good, market="KRX")
    assert none.num_rows == 0 and repr(again.to_pylist()) == repr(good.to_pylist())


# -- summary -----------------------------------------------------------------------------------------------------------


def _daily(closes: dict[str, dict[str, float]]) -> pa.Table:
    rows = [
        {"symbol": s, "day": d, "open": c, "high": c, "low": c, "close": c}
        for s, by in closes.items()
        for d, c in by.items()
    ]
    return quality.check(_table(rows), market="KRX")[0]


def test_summary_counts_gaps_halts_jumps_and_short_histories() -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2021-06-30")]
    steady = {d: 10_000.0 + 50 * (i % 3) for i, d in enumerate(days)}
    gappy = {d: c for i, (d, c) in enumerate(steady.items()) if i not in (5, 6, 300)}
    halted = {d: (10_000.0 if 40 <= i < 65 else c) for i, (d, c) in enumerate(steady.items())}
    split = {d: (c / 5 if i >= 100 else c) for i, (d, c) in enumerate(steady.items())}
    table = _daily({"A": steady, "B": gappy, "C": halted, "D": split, "E": dict(list(steady.items())[:3])})
    found = summary(table, market="KRX", limit=2)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["rows"], found["symbols"]) == (table.num_rows, 5)
    assert (found["start"], found["end"]) == ("2020-01-02", "2021-06-30")
    assert found["gaps"] == {"rows": 3, "symbols": 1, "worst": [{"symbol": "B", "sessions": 3}]}
    assert found["short"] == {"symbols": 1, "worst": [{"symbol": "E", "rows": 3}]}
    assert found["flat_runs"]["symbols"] == 1 and found["flat_runs"]["worst"][0]["symbol"] == "C"
    assert found["flat_runs"]["worst"][0]["sessions"] in (25, 26)
    assert found["beyond_limit"]["rows"] == found["basis_jumps"]["rows"] == 1
    assert found["basis_jumps"]["worst"][0] == {"symbol": "D", "date": days[100], "ratio": pytest.approx(0.2, abs=0.01)}
    assert found["returns"]["smallest"] == pytest.approx(-0.8, abs=0.01)


def test_jump_that_an_action_explains_is_no_basis_jump() -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2020-03-31")]
    table = _daily({"A": {d: 50_000.0 if i < 20 else 10_000.0 for i, d in enumerate(days)}})
    action = {
        "symbol": ["A"],
        "ex_date": [krx.sessions(days[20], days[20])[0].item()],
        "kind": ["split"],
        "factor": [5.0],
    }
    columns = {f.name: pa.array(action.get(f.name, [None]), f.type) for f in ACTIONS}
    found = summary(table, market="KRX", actions=pa.table(columns))
    assert found["beyond_limit"]["explained"] == 1 and found["basis_jumps"]["rows"] == 0
    assert summary(table, market="KRX")["basis_jumps"]["rows"] == 1


def test_limit_is_that_of_the_day() -> None:
    jump = {"1994-05-02": 10_000.0, "1994-05-03": 11_000.0}  # the limit was below 7 %
    assert summary(_daily({"A": jump}), market="KRX")["beyond_limit"]["rows"] == 1
    jump = {"2020-01-02": 10_000.0, "2020-01-03": 12_950.0}
    assert summary(_daily({"A": jump}), market="KRX")["beyond_limit"]["rows"] == 0


def test_prices_off_the_ticks_show_adjusted_files() -> None:
    days = [str(d) for d in krx.sessions("2020-01-02", "2020-01-31")]
    raw = {d: 50_000.0 + 100 * i for i, d in enumerate(days)}
    assert summary(_daily({"A": raw}), market="KRX")["off_tick"] == 0.0
    adjusted = {d: round(c * 0.8173) for d, c in raw.items()}
    assert summary(_daily({"A": adjusted}), market="KRX")["off_tick"] > 0.8


def test_summary_of_minutes_and_of_another_exchange() -> None:
    table = market.bars(["A"], 5, interval="1m")
    found = summary(table, market="KRX")
    assert found["rows"] == 5 and "gaps" not in found
    found = summary(market.bars(["A"], 300), market="other")
    assert "gaps" not in found and found["short"]["symbols"] == 0


def test_steps_longer_than_a_bar_are_counted_elsewhere() -> None:
    table = market.bars(["A", "B"], 10, interval="1m")
    minutes = pa.array([(i % 10) * 60_000_000 for i in range(20)]).cast(table["ts"].type)
    table = table.set_column(table.column_names.index("ts"), "ts", minutes)
    keep = [i for i in range(table.num_rows) if i not in (3, 4, 5, 17)]
    gaps = table.take(pa.array(keep))
    found = summary(gaps, market="other", limit=1)
    after = gaps["ts"][2].as_py().strftime("%Y-%m-%d %H:%M")
    worst = [{"symbol": "A", "after": after, "hours": pytest.approx(4 / 60, abs=0.01)}]
    assert found["uneven"] == {"rows": 2, "symbols": 2, "worst": worst}
    assert "uneven" not in summary(gaps, market="KRX")
    assert summary(table, market="other")["uneven"]["rows"] == 0


def test_saturdays_and_letters_are_noted() -> None:
    found = summary(_daily({"00680K": {"1998-12-04": 10.0, "1998-12-05": 10.0}}), market="KRX")
    assert (found["saturdays"], found["lettered"]) == (1, 1)
    notes = " | ".join(found["notes"])
    assert "1 bars are of Saturdays" in notes and "1 symbols have a letter" in notes
    found = summary(_daily({"005930": {"2020-01-02": 50_000.0, "2020-01-03": 50_100.0}}), market="KRX")
    assert found["saturdays"] == found["lettered"] == 0
    assert found["notes"] == ["1 symbols have fewer than 250 bars (symbol 005930, rows 2)"]
