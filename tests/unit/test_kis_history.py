"""Histories stay whole when pages misbehave in ways that users of the broker have seen."""

import asyncio
import random
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import krx
from pipeline.kis import history
from pipeline.kis.client import Answer
from pipeline.kis.layouts import DAILY, DAILY_ROWS, MINUTE_ROWS, Tr
from pipeline.kis.simulator import render
from tests.kis_pages import render_daily

START, END = date(2025, 3, 3), date(2026, 2, 27)
SESSIONS = krx.sessions(START, END)


def days(sessions: np.ndarray[Any, Any]) -> pa.Table:
    n = len(sessions)
    price = np.arange(10_000.0, 10_000.0 + n)
    stamps = pa.array(krx.session_closes(sessions)).cast(pa.timestamp("us", tz="UTC"))
    prices = [pa.array(price)] * 4
    rest = [[2] * n, ["00"] * n, [0.0] * n, [False] * n, [""] * n]
    return pa.table([pa.array(sessions), stamps, *prices, price + 5, price * 7, price - 1, *rest], schema=DAILY_ROWS)


def minutes(sessions: np.ndarray[Any, Any]) -> pa.Table:
    parts = []
    for day in sessions:
        ends = krx.session_opens(day.reshape(1))[0] + np.arange(1, 381).astype("timedelta64[m]")
        ends = np.append(ends, krx.session_closes(day.reshape(1)))
        n = len(ends)
        price = pa.array(np.full(n, 500.0))
        total = np.cumsum(np.full(n, 1000.0))
        stamps = pa.array(ends).cast(pa.timestamp("us", tz="UTC"))
        parts.append(
            pa.table(
                [pa.array(np.repeat(day, n)), stamps, *[price] * 4, pa.array(np.full(n, 2.0)), total],
                schema=MINUTE_ROWS,
            )
        )
    return pa.concat_tables(parts)


def dashed(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


class Broker:
    """Answer as KIS does from known rows, with trouble on top; stands for the client."""

    def __init__(self, rows: pa.Table, *, page: int, trouble: str = "", seed: int = 0) -> None:
        self.rows, self.page, self.trouble, self.dice = rows, page, trouble, random.Random(seed)
        self.calls = 0
        self.before: list[Any] = []

    async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
        self.calls += 1
        shown = self.rows["date"].cast(pa.string()).to_numpy()
        if tr is DAILY:
            first, last = (dashed(params[f"FID_INPUT_DATE_{side}"]) for side in (1, 2))
            inside, written = (shown >= first) & (shown <= last), render_daily
        else:
            day, hour = dashed(params["FID_INPUT_DATE_1"]), params["FID_INPUT_HOUR_1"]
            label = np.datetime64(f"{day}T{hour[:2]}:{hour[2:4]}:{hour[4:]}") - np.timedelta64(9, "h")
            ends = self.rows["ts"].to_numpy()
            auction = ends == krx.session_closes(self.rows["date"].to_numpy().astype("datetime64[D]"))
            inside = np.where(auction, ends, ends - np.timedelta64(1, "m")) <= label
            written = render.minutes
        chosen = self.rows.filter(pa.array(inside)).sort_by([("ts", "descending")]).slice(0, self.page)
        rows: list[Any] = written(chosen)
        if self.trouble == "stale" and self.before and self.calls % 3 == 0:
            rows = self.before
        if self.trouble == "empty" and self.calls % 4 == 0:
            rows = [{}]
        if self.trouble == "repeated":
            rows = [row for row in rows for _ in range(self.dice.choice((1, 1, 2)))] + [{}]
        if self.trouble == "shuffled":
            self.dice.shuffle(rows)
        if self.trouble == "dropped" and self.calls <= 2 and len(rows) > 10:
            rows = rows[:3] + rows[7:]
        if self.trouble == "extra":
            rows = [row | {"new_field": "x"} for row in rows]
        self.before = rows
        return Answer({tr.array: rows, tr.summary: {}}, False)


TROUBLES = ["", "stale", "empty", "repeated", "shuffled", "extra"]


@pytest.mark.parametrize("trouble", [*TROUBLES, "dropped"])
def test_daily_history_is_whole(trouble: str) -> None:
    broker = Broker(days(SESSIONS), page=100, trouble=trouble)
    moved: list[int] = []
    found = asyncio.run(history.daily(broker, "005930", SESSIONS, venue="KRX", moved=moved.append))  # type: ignore[arg-type]
    assert found.rows.equals(days(SESSIONS)) and found.unread == []
    assert sum(moved) == len(SESSIONS)
    if not trouble:
        assert broker.calls == 3


def test_days_that_the_broker_does_not_have_are_asked_for_twice_and_left_out() -> None:
    known = np.concatenate([SESSIONS[40:100], SESSIONS[110:]])
    broker = Broker(days(known), page=100)
    found = asyncio.run(history.daily(broker, "005930", SESSIONS, venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert found.rows["date"].to_numpy().tolist() == known.tolist()
    assert broker.calls <= 3 + 2 * 2


def test_rows_that_cannot_be_read_are_set_aside_and_rows_that_differ_both_kept() -> None:
    class Odd(Broker):
        async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
            answer = await super().ask(tr, params, cont=cont)
            rows = answer.body[tr.array]
            for row in rows:
                if row["stck_bsop_date"] == "20250604":
                    row["stck_clpr"] = "n/a"
            version = [rows[0] | {"stck_clpr": "1"}] if self.calls == 1 else []
            return Answer({tr.array: [*rows, *version], tr.summary: {}}, False, b"")

    broker = Odd(days(SESSIONS[:120]), page=120)
    found = asyncio.run(history.daily(broker, "005930", SESSIONS[:120], venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert len(found.unread) == 1 and '"stck_clpr":"n/a"' in found.unread[0]
    assert found.rows.num_rows == 120, "119 readable days, of which one came in two versions"


@pytest.mark.parametrize("trouble", TROUBLES)
def test_minutes_of_whole_days(trouble: str) -> None:
    held = SESSIONS[-8:]
    wanted = held[2:]
    broker = Broker(minutes(held), page=120, trouble=trouble)
    moved: list[int] = []
    found = asyncio.run(history.minutes(broker, "005930", wanted, venue="KRX", moved=moved.append))  # type: ignore[arg-type]
    assert found.rows["ts"].to_numpy().tolist() == minutes(wanted)["ts"].to_numpy().tolist()
    assert set(found.rows["turnover"].to_pylist()) == {1000.0}
    assert sum(moved) == found.rows.num_rows
    if not trouble:
        assert broker.calls <= 381 * 6 // 120 + 2


def test_a_halted_day_among_minutes_is_passed_over() -> None:
    held = SESSIONS[-4:]
    rows = minutes(held).filter(pc.field("date") != held[2].item())
    broker = Broker(rows, page=120)
    found = asyncio.run(history.minutes(broker, "005930", held, venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert found.rows.num_rows == 3 * 381
    nothing = Broker(rows.slice(0, 0), page=120)
    found = asyncio.run(history.minutes(nothing, "005930", held, venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert found.rows.num_rows == 0 and nothing.calls == 8


def test_no_sessions_no_calls() -> None:
    broker = Broker(days(SESSIONS), page=100)
    found = asyncio.run(history.daily(broker, "005930", SESSIONS[:0], venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert found.rows.num_rows == 0 and broker.calls == 0


def test_bars_of_the_evening_venues_end_with_the_evening() -> None:
    broker = Broker(days(SESSIONS[-5:]), page=100)
    for venue, closes in (("KRX", "15:30"), ("NXT", "20:00"), ("UN", "20:00")):
        broker = Broker(days(SESSIONS[-5:]), page=100)
        found = asyncio.run(history.daily(broker, "005930", SESSIONS[-5:], venue=venue, moved=lambda rows: None))  # type: ignore[arg-type]
        ends = found.rows["ts"].to_pandas().dt.tz_convert("Asia/Seoul").dt.strftime("%H:%M")
        assert set(ends) == {closes}


def test_a_torn_day_of_minutes_is_asked_for_again() -> None:
    """A minute that is gone leaves its turnover to the next, which is then more than price times shares."""
    held = SESSIONS[-2:]

    class Torn(Broker):
        async def ask(self, tr: Tr, params: Mapping[str, str], *, cont: str = "") -> Answer:
            answer = await super().ask(tr, params, cont=cont)
            rows = answer.body[tr.array]
            if self.calls in (2, 5):
                rows = [*rows[:30], *rows[33:]]
            return Answer({tr.array: rows, tr.summary: {}}, False)

    broker = Torn(minutes(held), page=120)
    found = asyncio.run(history.minutes(broker, "005930", held, venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert found.rows.num_rows == 2 * 381 and set(found.rows["turnover"].to_pylist()) == {1000.0}


def test_minutes_that_never_come_are_proved_by_the_turnover_of_the_next() -> None:
    held = SESSIONS[-3:]
    labels = np.unique(minutes(held)["ts"].to_numpy().reshape(3, 381)[1, 100:104])
    rows = minutes(held).filter(pa.array(~np.isin(minutes(held)["ts"].to_numpy(), labels)))
    broker = Broker(rows, page=120)
    found = asyncio.run(history.minutes(broker, "005930", held, venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert found.rows.num_rows == 3 * 381 - 4
    assert history.torn_days(found.rows).tolist() == [held[1].item()]
    assert broker.calls <= 2 * (3 * 381 // 120 + 1) + history.TORN
    quiet = rows.set_column(rows.column_names.index("cumulative"), "cumulative", pa.array(np.zeros(rows.num_rows)))
    found = asyncio.run(history.minutes(Broker(quiet, page=120), "005930", held, venue="KRX", moved=lambda rows: None))  # type: ignore[arg-type]
    assert not history.torn_days(found.rows).size, "minutes without a trade have no row either"
    assert not history.torn_days(found.rows.slice(0, 0)).size
