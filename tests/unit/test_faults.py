"""Scripted faults: read with clear errors, repeatable by their seed, and never in the way of the eventual answer."""

from datetime import datetime
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import krx
from pipeline.kis.layouts import DAILY, HOLIDAYS
from pipeline.kis.simulator.charts import Asked, Charts
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.faults import FaultError, Faults, Mischief, load
from pipeline.kis.simulator.market import Market

ROWS = [orjson.dumps({"stck_bsop_date": str(20261120 - at), "stck_clpr": str(at)}) for at in range(12)]
SHAPES = ("repeated", "reordered", "duplicated", "empty", "missing", "extra")


def test_file_and_command_line_together(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text("{seed: 3, reset: 0.1, slow: 0.5}")
    faults = load(file, ["reset=0.2", "maintenance=05:30-06:00", "quota=7", "window=fixed"])
    assert (faults.seed, faults.reset, faults.slow, faults.quota, faults.window) == (3, 0.2, 0.5, 7, "fixed")
    assert load(None, ["cut=0.25"]).cut == 0.25


@pytest.mark.parametrize(
    "text, part",
    [
        ("reste=0.1", "reste"),
        ("reset", "name=value"),
        ("reset=2", "less than or equal to 1"),
        ("reset=much", "valid number"),
        ("window=round", "sliding"),
        ("maintenance=5-6", "05:30-06:00"),
        ("rewritten_factor=0", "greater than 0"),
        ("reset=[", "YAML"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, part: str) -> None:
    with pytest.raises(FaultError, match=r"--fault") as caught:
        load(None, [text])
    assert part in str(caught.value)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text("- reset")
    with pytest.raises(FaultError, match="expected YAML"):
        load(tmp_path / "faults.yaml")


def test_hours_of_maintenance_may_pass_midnight() -> None:
    def closed(hours: str, text: str) -> bool:
        return Faults(maintenance=hours).closed_at(datetime.fromisoformat(f"2026-11-20T{text}").replace(tzinfo=krx.KST))

    assert [closed("05:30-06:00", at) for at in ("05:29:59", "05:30", "05:59:59", "06:00")] == [
        False,
        True,
        True,
        False,
    ]
    assert [closed("23:50-00:10", at) for at in ("23:49", "23:50", "00:09", "00:10")] == [False, True, True, False]
    assert not Faults().closed_at(datetime.now(krx.KST))


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_does_what_it_says(name: str) -> None:
    dice = Mischief(Faults(**{name: 1.0}))
    first = dice.spoil(DAILY, {"FID_INPUT_ISCD": "1", "FID_INPUT_DATE_2": "a"}, ROWS)
    again = dice.spoil(DAILY, {"FID_INPUT_ISCD": "1", "FID_INPUT_DATE_2": "b"}, ROWS[:3])
    other = dice.spoil(DAILY, {"FID_INPUT_ISCD": "2", "FID_INPUT_DATE_2": "b"}, ROWS[:3])
    if name == "repeated":
        assert first == ROWS and again == ROWS and other == ROWS[:3]
    elif name == "reordered":
        assert first != ROWS and sorted(first) == sorted(ROWS)
    elif name == "duplicated":
        assert len(first) == 13 and set(first) == set(ROWS)
    elif name == "empty":
        assert first.count(b"{}") == 2 and [row for row in first if row != b"{}"] == ROWS
    elif name == "missing":
        assert len(first) < 12 and first[0] == ROWS[0] and first[-1] == ROWS[-1] and set(first) < set(ROWS)
    else:
        assert [orjson.loads(row) for row in first] == [orjson.loads(row) | {"new_field": "1"} for row in ROWS]


def test_the_calendar_loses_no_rows() -> None:
    dice = Mischief(Faults(repeated=1.0, missing=1.0))
    for number in range(5):
        rows = ROWS[number : number + 5]
        assert dice.spoil(HOLIDAYS, {"BASS_DT": "20261101", "CTX_AREA_NK": str(number)}, rows) == rows


@given(st.integers(0, 2**32), st.lists(st.sampled_from(SHAPES), unique=True), st.floats(0.05, 0.9))
def test_asking_again_brings_every_row(seed: int, names: list[str], rate: float) -> None:
    faults = Faults(seed=seed, **dict.fromkeys(names, rate))
    dice, twin = Mischief(faults), Mischief(faults)
    seen: set[str] = set()
    for asked in range(400):
        query = {"FID_INPUT_ISCD": "1", "FID_INPUT_DATE_2": str(asked % 2)}
        page = ROWS[:6] if asked % 2 else ROWS[6:]
        rows = dice.spoil(DAILY, query, page)
        assert rows == twin.spoil(DAILY, query, page)
        seen |= {orjson.loads(row)["stck_clpr"] for row in rows if row != b"{}"}
        if len(seen) == len(ROWS):
            return
    raise AssertionError(f"only {sorted(seen)} came")


def test_a_token_serves_before_it_is_taken() -> None:
    dice = Mischief(Faults(expired=1.0))
    assert [dice.takes("a") for _ in range(65)] == [None] * 64 + ["expired"]
    assert dice.takes("b") is None


def test_rewritten_history_is_old_and_of_some_symbols() -> None:
    market = Market(7, 20, clock=Clock(moment("2026-11-20"), 0.0))
    faults = Faults(rewritten=0.5, rewritten_sessions=5, rewritten_factor=0.5)
    honest, liar = Charts(market), Charts(market, faults.rewriting)
    struck = 0
    for item in market.listings:
        asked = Asked(item.symbol, np.datetime64("2026-11-02"), np.datetime64("2026-11-20"))
        left, right = ([orjson.loads(row) for row in charts.daily(asked, 100)] for charts in (honest, liar))
        if left == right:
            continue
        struck += 1
        assert left[:5] == right[:5] and len(left) == 15
        for true, shown in zip(left[5:], right[5:]):
            assert (
                int(shown["stck_clpr"]) == round(int(true["stck_clpr"]) / 2) and shown["acml_vol"] == true["acml_vol"]
            )
    assert 3 < struck < 17
