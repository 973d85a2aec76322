"""What becomes of a fetched history before it is committed."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.kis.layouts import INDEX_ROWS
from pipeline.kis.pages import History
from pipeline.origin import Origin, Reading, checked
from pipeline.task import Task
from tests.unit.test_kis_history import days

SEAM = krx.sessions("2026-09-10", "2026-09-16")  # after-market trade begins on the 14th


@pytest.mark.parametrize(("evening", "ends"), [(False, "0630"), (True, "0630 0630 1100 1100 1100")])
def test_whether_a_day_holds_the_evening_is_a_setting(evening: bool, ends: str) -> None:
    origin = Origin("kis", "KRX", datetime.now(UTC), Reading(evening=evening))
    good, wrong = checked(History(days(SEAM), []), Task("daily", "005930", SEAM), origin)
    found = [f"{ts:%H%M}" for ts in good["ts"].to_pylist()]
    assert found == (ends.split() * 5)[:5] and wrong.num_rows == 0


def test_units_of_indices_are_settings() -> None:
    n = len(SEAM)
    price = pa.array(np.full(n, 2500.5))
    stamps = pa.array(krx.session_closes(SEAM)).cast(INDEX_ROWS.field("ts").type)
    columns = [pa.array(SEAM), stamps, *[price] * 4, pa.array(np.full(n, 7.0)), pa.array(np.full(n, 3.0))]
    origin = Origin("kis", "KRX", datetime.now(UTC), Reading(index_volume=10.0, index_turnover=100.0))
    good, _ = checked(History(pa.table(columns, schema=INDEX_ROWS), []), Task("index", "0001", SEAM), origin)
    assert set(good["volume"].to_pylist()) == {70.0} and set(good["turnover"].to_pylist()) == {300.0}


def test_a_row_that_cannot_be_read_goes_to_quarantine_with_its_text() -> None:
    found = History(days(SEAM), ['{"stck_bsop_date":"x"}'])
    good, wrong = checked(found, Task("daily", "005930", SEAM), Origin("kis", "KRX", datetime.now(UTC)))
    assert good.num_rows == 5
    row = wrong.to_pylist()[0]
    assert (row["reason"], row["row"], row["symbol"]) == ("unreadable", '{"stck_bsop_date":"x"}', "005930")
