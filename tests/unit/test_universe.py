"""Who belongs to the universe: the rules one by one, against a slow twin, and that nothing later is seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.recurrence import Series
from pipeline.universe import FACTS, REASONS, Bars, Judged, UniverseSection, facts_of, judge, largest, why
from storage.schema import SYMBOLS
from tests.market import bars as lake_bars
from tests.market import days, ingested

EVERYONE: dict[str, Any] = {"leave_out": (), "leave_out_administrative": False, "leave_out_halted": False}
FIRST = date(2024, 1, 1)


@dataclass
class Market:
    """Hold bars of symbols in rows of (symbol, KST end, close, volume, turnover, halted), and facts."""

    rows: list[tuple[str, datetime, float, float, float, bool]]
    facts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return sorted({row[0] for row in self.rows})

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(
            [dict.fromkeys(FACTS) | fact for fact in self.facts], pa.schema([SYMBOLS.field(name) for name in FACTS])
        )

    def judged(self, *, intraday: bool = False, **section: Any) -> Judged:
        columns = [list(column) for column in zip(*self.rows)]
        ts = np.array(columns[1], "datetime64[us]").astype(np.int64) - 9 * 3_600_000_000
        close, volume, turnover = np.array(columns[2:5], np.float64)
        bars = Bars(ts, close, volume, turnover, np.array(columns[5], bool))
        places = np.array([self.names.index(symbol) for symbol in columns[0]])
        starts = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
        series = Series(starts, np.diff(np.append(starts, places.size)))
        return judge(bars, series, self.names, self.table(), UniverseSection(**section), intraday=intraday)

    def reasons(self, *, intraday: bool = False, **section: Any) -> list[str]:
        return [REASONS[code] for code in self.judged(intraday=intraday, **section).reason]


def day(n: int) -> date:
    return FIRST + timedelta(days=n)


def close_of(n: int) -> datetime:
    return datetime(2024, 1, 1, 15, 30) + timedelta(days=n)


def daily(symbol: str = "A", n: int = 6, volume: Any = 10.0, close: Any = 1_000.0, **more: Any) -> Market:
    """Return n daily bars of one symbol; a volume of zero is a halt."""
    volumes, closes = np.broadcast_to(volume, n), np.broadcast_to(close, n)
    rows = [(symbol, close_of(i), float(c), float(v), np.nan, v == 0) for i, (c, v) in enumerate(zip(closes, volumes))]
    return Market(rows, [{"symbol": symbol, "as_of": FIRST, "kind": "stock", **more}])


def test_a_delisted_symbol_belongs_until_it_goes() -> None:
    market = daily(delisted=day(4))
    market.facts[0]["as_of"] = day(90)  # told only afterwards
    assert market.reasons() == [""] * 4 + ["not_listed"] * 2


def test_a_symbol_belongs_from_its_listing_on_or_from_its_first_trade() -> None:
    waiting = daily(volume=[0.0, np.nan, 0.0, 10, 10, 10], close=[1, np.nan, 1, 1, 1, 1], listed=day(3))
    assert waiting.reasons(**EVERYONE) == ["not_listed"] * 3 + [""] * 3
    moved = daily(volume=[0.0, 10, 0, 10, 10, 10], listed=day(4))
    assert moved.reasons(**EVERYONE) == ["not_listed"] + [""] * 5


@pytest.mark.parametrize("volume", [np.nan, 0.0])
def test_where_no_volume_is_known_a_close_is_trade(volume: float) -> None:
    """A listing date that was told after a move between markets takes nothing of the history away."""
    market = daily(volume=volume, close=[np.nan, 1, np.nan, 1, 1, 1], listed=day(5))
    market.rows = [(*row[:5], False) for row in market.rows]  # zeros that say nothing are no halts
    assert market.reasons(**EVERYONE) == ["not_listed"] + [""] * 5


def test_an_administrative_flag_is_never_taken_back_in_time() -> None:
    market = daily()
    market.facts = [
        {"symbol": "A", "as_of": day(2), "administrative": True},
        {"symbol": "A", "as_of": day(3), "administrative": None},  # says nothing
        {"symbol": "A", "as_of": day(4), "administrative": False},
        {"symbol": "Z", "as_of": day(0), "administrative": True},
    ]
    assert market.reasons() == ["", "", "administrative", "administrative", "", ""]
    assert market.judged().unknown == {"kind": 4, "administrative": 2}
    assert market.reasons(leave_out_administrative=False) == [""] * 6


@pytest.mark.parametrize(
    ("fact", "belongs"),
    [
        ({"kind": "stock"}, True),
        ({"kind": None}, True),
        ({"kind": "etf"}, False),
        ({"kind": "preferred"}, False),
        ({"kind": "spac"}, False),
        ({"kind": "reit"}, True),
        ({"kind": "stock", "name": "한빛제5호스팩"}, False),
        ({"kind": None, "name": "한빛제5호기업인수목적"}, False),
    ],
)
def test_kinds(fact: dict[str, Any], belongs: bool) -> None:
    market = daily(**fact)
    market.facts[0]["as_of"] = day(9)  # a kind reaches back
    assert market.reasons(leave_out_administrative=False) == ["" if belongs else "kind"] * 6


def test_a_spac_that_merges_becomes_a_stock() -> None:
    market = daily(name="한빛스팩")
    market.facts.append({"symbol": "A", "as_of": day(3), "kind": "stock", "name": "한빛전자"})
    assert market.reasons() == ["kind"] * 3 + [""] * 3


def test_markets_reach_back_and_are_counted() -> None:
    market = daily(market="KOSDAQ GLOBAL")
    market.facts = [
        {"symbol": "A", "as_of": day(2), "market": "KOSDAQ GLOBAL"},
        {"symbol": "A", "as_of": day(4), "market": "KOSPI"},
    ]
    judged = market.judged(**EVERYONE, markets=("KOSDAQ",))
    assert [REASONS[code] for code in judged.reason] == [""] * 4 + ["market"] * 2
    assert judged.unknown == {"market, taken from a later day": 2}
    assert why(judged) == {"members": 4, "market": 2, "unknown market, taken from a later day": 2}
    market.facts = []
    assert market.judged(**EVERYONE, markets=("KONEX",)).unknown == {"market": 6}


def test_halts_and_bars_without_a_price() -> None:
    market = daily(volume=[10, 0, 10, 10, 10, 10], close=[1, 1, np.nan, 1, 1, 1])
    assert market.reasons() == ["", "halted", "halted", "", "", ""]
    assert market.reasons(min_history=3) == ["history", "halted", "halted", "history", "", ""]
    assert market.reasons(leave_out_halted=False) == [""] * 6


def test_floors_of_price_and_turnover() -> None:
    market = daily(close=[900, 1_000, 1_100, 1_000, 999, 1_000], volume=[1, 1, 1, 4, 4, 0])
    assert market.reasons(**EVERYONE, min_price=1_000) == ["price", "", "", "", "price", ""]
    judged = market.judged(**EVERYONE, min_turnover=2_500, liquidity_window=2)
    np.testing.assert_array_equal(judged.turnover, [900, 950, 1_050, 2_550, 3_998, 1_998])
    assert judged.member.tolist() == [False, False, False, True, True, False]
    market.rows[3] = (*market.rows[3][:4], 7_000.0, False)  # what the source says goes before close x volume
    assert market.judged(liquidity_window=2, largest=9).turnover[3] == (1_100 + 7_000) / 2


@pytest.mark.parametrize("volume", [np.nan, 0.0])
def test_without_volumes_no_floor_is_judged(volume: float) -> None:
    market = daily(volume=volume)
    market.rows = [(*row[:5], False) for row in market.rows]  # zeros that say nothing are no halts
    judged = market.judged(min_turnover=1e9)
    assert judged.member.all() and np.isnan(judged.turnover).all()
    assert judged.unknown == {"administrative": 6, "turnover": 6}


def test_bars_of_a_day_are_judged_by_the_day_before() -> None:
    def minutes(n: int, volume: float, close: float) -> list[tuple[str, datetime, float, float, float, bool]]:
        at = datetime(2024, 1, 1, 9, 1) + timedelta(days=n)
        return [("A", at + timedelta(minutes=i), close + i, volume, np.nan, volume == 0) for i in range(3)]

    market = Market([*minutes(0, 10, 98), *minutes(1, 10, 1_000), *minutes(2, 0, 1_000), *minutes(3, 10, 1_000)])
    market.facts = [{"symbol": "A", "as_of": day(2), "administrative": True, "listed": day(0), "delisted": day(4)}]

    def by_day(**section: Any) -> list[str]:
        reasons = market.reasons(intraday=True, **{**EVERYONE, **section})
        assert all(reasons[i] == reasons[i // 3 * 3] for i in range(12))
        return reasons[::3]

    assert by_day(min_price=101) == ["", "price", "", ""]
    assert by_day(min_history=1) == ["history", "", "", ""]
    assert by_day(leave_out_halted=True) == ["", "", "", "halted"]
    assert by_day(leave_out_administrative=True) == ["", "", "", "administrative"]
    turnover = market.judged(intraday=True, largest=9).turnover[::3]
    first = 10 * (98 + 99 + 100)
    np.testing.assert_array_equal(turnover, [np.nan, first, (first + 30_030) / 2, (first + 30_030) / 3])
    market.facts[0]["delisted"] = day(3)
    assert by_day() == ["", "", "", "not_listed"]


def test_midnight_ends_the_day_before() -> None:
    market = Market([("A", datetime(2024, 1, 2), 1.0, 1.0, np.nan, False)], [{"symbol": "A", "as_of": FIRST}])
    market.facts[0]["delisted"] = day(1)
    assert market.reasons() == [""]
    market.rows[0] = ("A", datetime(2024, 1, 2, 0, 1), *market.rows[0][2:])
    assert market.reasons() == ["not_listed"]


def test_no_bars() -> None:
    empty = np.zeros(0)
    bars = Bars(empty.astype(np.int64), empty, empty, empty, empty.astype(bool))
    none = Series(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for intraday in (False, True):
        section = UniverseSection(markets=("KOSPI",), min_price=1, min_turnover=1)
        judged = judge(bars, none, [], Market([]).table(), section, intraday=intraday)
        assert judged.reason.size == 0 and why(judged) == {"members": 0}


def random_market(seed: int) -> Market:
    rng = np.random.default_rng(seed)
    rows, facts = [], []

    def one_of(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    for symbol in "ABCD"[: rng.integers(1, 5)]:
        for n in sorted(rng.choice(12, rng.integers(1, 12), replace=False).tolist()):
            for minute in range(rng.integers(1, 4)):
                close = float(rng.choice([np.nan, 90.5, 100, 110], p=[0.1, 0.3, 0.3, 0.3]))
                volume = float(rng.choice([np.nan, 0, 5, 20]))
                worth = float(rng.choice([np.nan, 0, 700.25]))
                halted = volume == 0 and rng.random() < 0.7
                rows.append((symbol, close_of(n) + timedelta(minutes=minute), close, volume, worth, halted))
        for n in rng.choice(np.arange(-2, 14), rng.integers(0, 4), replace=False).tolist():
            facts.append({
                "symbol": symbol,
                "as_of": day(n),
                "name": one_of(None, "가나", "가나스팩"),
                "market": one_of(None, "KOSPI", "KOSDAQ GLOBAL"),
                "kind": one_of(None, "stock", "etf"),
                "listed": one_of(None, day(3)),
                "delisted": one_of(None, day(9)),
                "administrative": one_of(None, True, False),
            })  # fmt: skip
    return Market(rows, facts)


def random_section(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed + 1)
    return {
        "markets": [(), ("KOSDAQ",)][rng.integers(2)],
        "leave_out_halted": bool(rng.integers(2)),
        "min_history": int(rng.integers(4)),
        "min_price": float(rng.choice([0, 95])),
        "min_turnover": float(rng.choice([0, 800])),
        "liquidity_window": int(rng.integers(1, 5)),
    }


def slow(market: Market, section: UniverseSection, *, intraday: bool) -> list[str]:
    """Judge each bar alone, from the rows and facts that it may see."""
    ends = [row[1] for row in market.rows]

    def one(symbol: str, end: datetime) -> str:
        today = end.date()
        own = [row for row in market.rows if row[0] == symbol]
        seen = [row for row in own if (row[1].date() < today if intraday else row[1] <= end)]
        units = sorted({row[1].date() for row in seen}) if intraday else [row[1] for row in seen]
        parts = [[row for row in seen if unit in (row[1], row[1].date())] for unit in units]
        facts = sorted((f for f in market.facts if f["symbol"] == symbol), key=lambda f: f["as_of"])
        until = today - timedelta(days=intraday)

        def latest(values: list[Any], back: bool) -> Any:
            said = [(f["as_of"], v) for f, v in zip(facts, values) if v is not None]
            here = [v for as_of, v in said if as_of <= until]
            return here[-1] if here else said[0][1] if said and back else None

        def last(name: str) -> Any:
            return next((f[name] for f in reversed(facts) if f[name]), None)

        def none(row: Any) -> bool:
            return bool(row[5] or not np.isfinite(row[2]))

        def worth(row: Any) -> float:
            found = row[4] if row[4] > 0 else row[2] * row[3]
            return float(found) if found > 0 else 0.0 if row[5] else np.nan

        if last("listed") and today < last("listed") and not any(row[3] > 0 or not none(row) for row in seen):
            return "not_listed"
        if last("delisted") and today >= last("delisted"):
            return "not_listed"
        place = latest([f["market"] and f["market"].split()[0] for f in facts], True)
        if section.markets and place is not None and place not in section.markets:
            return "market"
        named = [
            "spac" if f["kind"] in (None, "stock") and "스팩" in (f["name"] or "") else f["kind"] for f in facts
        ]  # fmt: skip
        if latest(named, True) in section.leave_out:
            return "kind"
        if latest([f["administrative"] for f in facts], False):
            return "administrative"
        if section.leave_out_halted and parts and all(none(row) for row in parts[-1]):
            return "halted"
        if sum(not all(none(row) for row in part) for part in parts) < section.min_history:
            return "history"
        if parts and parts[-1][-1][2] < section.min_price:
            return "price"
        sums = [sum(worth(row) for row in part) for part in parts[-section.liquidity_window :]]
        known = [one for one in sums if np.isfinite(one)]
        if section.min_turnover > 0 and known and np.mean(known) < section.min_turnover:
            return "turnover"
        return ""

    return [one(row[0], end) for row, end in zip(market.rows, ends)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), intraday=st.booleans())
def test_the_universe_equals_its_slow_twin(seed: int, intraday: bool) -> None:
    market, asked = random_market(seed), random_section(seed)
    assert market.reasons(intraday=intraday, **asked) == slow(market, UniverseSection(**asked), intraday=intraday)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), intraday=st.booleans())
def test_what_comes_later_changes_no_bar(seed: int, intraday: bool) -> None:
    market, asked = random_market(seed), {**random_section(seed), "markets": (), "leave_out": ()}
    expected = market.judged(intraday=intraday, **asked)
    end = sorted(row[1] for row in market.rows)[len(market.rows) // 2]
    rows = [i for i, row in enumerate(market.rows) if row[1] <= end]
    past = [fact for fact in market.facts if fact["as_of"] <= end.date()]
    # Days of listing and delisting are told at any time, so that their absence is another market and no other past.
    later = [{**fact, "administrative": True} for fact in market.facts if fact["as_of"] > end.date()]
    found = replace(market, rows=[market.rows[i] for i in rows], facts=[*past, *later]).judged(
        intraday=intraday, **asked
    )
    np.testing.assert_array_equal(found.reason, expected.reason[rows])
    np.testing.assert_array_equal(found.turnover, expected.turnover[rows])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), intraday=st.booleans())
def test_other_symbols_change_no_bit(seed: int, intraday: bool) -> None:
    market, asked = random_market(seed), random_section(seed)
    expected = market.judged(intraday=intraday, **asked)
    rows = [i for i, row in enumerate(market.rows) if row[0] == market.names[-1]]
    rng = np.random.default_rng(seed)
    facts = [market.facts[i] for i in rng.permutation(len(market.facts))]
    found = Market([market.rows[i] for i in rows], facts).judged(intraday=intraday, **asked)
    np.testing.assert_array_equal(found.reason, expected.reason[rows])
    np.testing.assert_array_equal(found.turnover, expected.turnover[rows])


def test_a_mean_that_nobody_asks_for_is_not_computed() -> None:
    assert np.isnan(daily().judged().turnover).all() and np.isfinite(daily().judged(largest=1).turnover).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 4))
def test_the_largest_of_each_moment(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    ts, symbol = np.divmod(rng.permutation(24)[: rng.integers(0, 25)], 6)
    turnover = rng.choice([np.nan, 1.0, 2.0, 3.0], ts.size)
    member = rng.random(ts.size) < 0.8
    expected = member.copy()
    for i in np.flatnonzero(member & np.isfinite(turnover)):
        rivals = (
            member & (ts == ts[i]) & ((turnover > turnover[i]) | ((turnover == turnover[i]) & (symbol < symbol[i])))
        )
        expected[i] = not count or rivals.sum() < count
    np.testing.assert_array_equal(largest(ts, symbol, turnover, member, count), expected)


def test_facts_of_a_receipt_are_a_history_of_its_source(tmp_path: Path) -> None:
    rows = [
        {"symbol": symbol, "as_of": as_of.item(), "administrative": flag, "source": source, "ingested_at": 0}
        for symbol, source in (("000010", "test"), ("000020", "test"), ("000010", "other"))
        for as_of, flag in zip(days(2).astype("datetime64[D]"), (True, False))
    ]
    receipt = ingested(tmp_path, lake_bars(["000010"], 2), symbols=pa.Table.from_pylist(rows, SYMBOLS))
    found = facts_of(receipt, ["000010"])
    assert found.column_names == list(FACTS)
    assert found["administrative"].to_pylist() == [True, False]
