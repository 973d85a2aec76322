"""Two sources of one market: every known reason for which they differ is told from the others and from nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.compare import audit, compare
from pipeline.importers import ImportSection, load
from storage.lake import Lake
from storage.schema import BARS

DAY = timedelta(days=1)


def bars(symbol: str = "005930", rows: int = 60, *, step: timedelta = DAY, interval: str = "1d", seed: int = 1) -> Any:
    """Return bars of a random walk in whole won, as columns."""
    rng = np.random.default_rng(seed)
    close = np.round(50_000 * np.exp(np.cumsum(rng.normal(0, 0.02, rows)))) * 10
    begin = datetime(2024, 1, 2, 6, 30, tzinfo=UTC)
    return {
        "symbol": [symbol] * rows,
        "interval": [interval] * rows,
        "ts": [begin + n * step for n in range(rows)],
        "open": close * 1.0,
        "high": close + 100,
        "low": close - 100,
        "close": close,
        "volume": np.round(rng.uniform(1e5, 1e6, rows)) * 50,
        "turnover": close * 1e5,
    }


def table(*parts: dict[str, Any], source: str = "a") -> pa.Table:
    whole = []
    for part in parts:
        rows = len(part["symbol"])
        columns = {"venue": ["KRX"] * rows, "source": [source] * rows, "ingested_at": [part["ts"][0]] * rows}
        whole.append(pa.table(part | columns).select(BARS.names).cast(BARS))
    return pa.concat_tables(whole)


def without(part: dict[str, Any], *places: int) -> dict[str, Any]:
    keep = [n for n in range(len(part["symbol"])) if n not in places]
    return {name: [values[n] for n in keep] for name, values in part.items()}


def test_the_same_is_the_same_in_any_order() -> None:
    left = table(bars(), bars("000660", seed=2))
    found = compare(left, left.take(pa.array(np.random.default_rng(0).permutation(left.num_rows))))
    assert (found.verdict, found.common, found.symbols, found.unexplained) == ("same", 120, 2, 0)
    assert not found.examples and not found.bases and not found.shifts and not found.differing


@pytest.mark.parametrize("right", [[], [bars("000660")]])
def test_without_common_rows_nothing_can_be_said(right: list[dict[str, Any]]) -> None:
    found = compare(table(bars()), table(*right) if right else BARS.empty_table())
    assert found.verdict == "cannot judge" and found.common == 0
    assert found.left.missing == {"005930": 60}
    assert next(iter(found.lines())).startswith("cannot judge: 60 rows of left")


def test_a_split_that_one_source_has_worked_in_is_one_basis() -> None:
    left, right = bars(), bars()
    for name in ("open", "high", "low", "close"):
        right[name] = np.where(np.arange(60) < 40, right[name] / 50, right[name])
    right["volume"] = np.where(np.arange(60) < 40, right["volume"] * 50, right["volume"])
    found = compare(table(left), table(right))
    (basis,) = found.bases
    assert (basis.ratio, basis.rows, basis.volume) == (50.0, 40, "inverse")
    assert (basis.first, basis.last) == ("2024-01-02T06:30:00Z", "2024-02-10T06:30:00Z")
    assert found.verdict == "differs" and found.unexplained == 0
    assert {column: dict(reasons) for column, reasons in found.differing.items()} == {
        column: {"basis": 40} for column in ("open", "high", "low", "close", "volume")
    }
    text = "\n".join(found.lines("v1", "v2"))
    assert (
        "005930 1d: v1 is 50 x v2 from 2024-01-02T06:30:00Z to 2024-02-10T06:30:00Z (40 rows, volume inverse)" in text
    )


def test_two_bases_after_one_another_and_rounding_of_adjusted_closes() -> None:
    left, right = bars(), bars()
    factor = np.select([np.arange(60) < 20, np.arange(60) < 45], [0.2463, 1.7], 1.0)
    for name in ("open", "high", "low", "close"):
        right[name] = np.round(right[name] * factor)
    found = compare(table(left), table(right))
    assert [(basis.rows, basis.volume) for basis in found.bases] == [(20, "same"), (25, "same")]
    assert [basis.ratio for basis in found.bases] == pytest.approx([1 / 0.2463, 1 / 1.7], rel=1e-4)
    assert found.unexplained == 0


def test_rounded_and_wrong_values_are_no_basis() -> None:
    left, right = bars(), bars()
    right["close"] = right["close"].copy()
    right["close"][[3, 4]] += 10  # these prices are whole tens, and ten is ten units of one won
    right["high"] = right["high"].copy()
    right["high"][10] += 1
    right["volume"] = right["volume"].copy()
    right["volume"][20] *= 2
    found = compare(table(left), table(right), limit=3)
    assert found.bases == [] and found.by_symbol == {"005930": 4}
    assert found.differing["high"] == {"rounded": 1}
    assert found.differing["close"] == {"unexplained": 2} and found.differing["volume"] == {"unexplained": 1}
    assert [(one["ts"], one["column"]) for one in found.examples] == [
        ("2024-01-05T06:30:00Z", "close"),
        ("2024-01-06T06:30:00Z", "close"),
        ("2024-01-22T06:30:00Z", "volume"),
    ]
    assert found.examples[0]["right"] == found.examples[0]["left"] + 10


def test_halted_days_that_one_leaves_out() -> None:
    left = bars()
    left["volume"][[7, 8]] = 0.0
    found = compare(table(left), table(without(left, 7, 8, 30)))
    assert (found.left.rows, found.left.halted, found.left.outside) == (3, 2, 0)
    assert found.left.symbols == {"005930": 3} and found.right.rows == 0 and found.verdict == "differs"


def test_what_one_side_does_not_know_is_counted_and_no_difference() -> None:
    left, right = bars(), bars()
    for name in ("open", "high", "low", "volume", "turnover"):
        right[name] = np.full(60, np.nan)
    found = compare(table(left), table(right))
    assert found.verdict == "same" and found.known_by_one["open"] == 60 and not found.examples


@pytest.mark.parametrize(
    ("interval", "step", "moved", "seconds"),
    [
        ("1m", timedelta(minutes=1), timedelta(minutes=1), 60.0),
        ("1d", DAY, timedelta(minutes=-30), -1800.0),
        ("1d", DAY, DAY, 86400.0),
        ("1h", timedelta(hours=1), timedelta(hours=9), 32400.0),
    ],
)
def test_stamps_that_mean_another_moment(interval: str, step: timedelta, moved: timedelta, seconds: float) -> None:
    left, right = (bars(interval=interval, step=step) for _ in range(2))
    right["ts"] = [ts + moved for ts in right["ts"]]
    found = compare(table(left), table(right))
    (shift,) = found.shifts
    assert shift.seconds == seconds and shift.bars == 0 and shift.share == 1.0
    assert found.unexplained == 0 and found.bases == []


def test_two_bars_of_one_key_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one bar of 005930 1d .* got several; choose one venue"):
        compare(table(bars(), bars()), table(bars()))


def test_parts_add_up_to_the_whole_and_everything_is_json() -> None:
    left, right = bars(), bars("000660", seed=2)
    other = {**right, "close": right["close"] * 2, "open": right["open"] + 5}
    whole = compare(table(left, right), table(without(left, 5), other))
    parts = compare(table(left), table(without(left, 5)))
    parts.add(compare(table(right), table(other)))
    assert json.loads(json.dumps(parts.summary())) == json.loads(json.dumps(whole.summary()))
    assert list(parts.lines()) == list(whole.lines())


def test_sources_of_a_lake_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.compare.DAILY_AT_ONCE", 3)
    names = [f"{number:06d}" for number in range(0, 400, 10)]
    left = [bars(name, seed=n) for n, name in enumerate(names)]
    right = [bars(name, seed=n) for n, name in enumerate(names) if name != "000020"]
    right[5] = without(right[5], 11)
    lake = Lake(tmp_path)
    lake.write("bars", table(*left, source="one"))
    lake.write("bars", table(*right, bars("999999"), source="other"))
    found = audit(lake, "one", "other", interval="1d")
    assert found.summary() == compare(table(*left), table(*right, bars("999999"))).summary()
    assert (found.left.missing, found.right.missing) == ({"000020": 60}, {"999999": 60})
    assert found.left.symbols == {names[6]: 1} and found.common == 39 * 60 - 1
    begin, end = datetime(2024, 1, 10, tzinfo=UTC), datetime(2024, 1, 20, tzinfo=UTC)
    part = audit(lake, "one", "other", interval="1d", symbols=["000000", "000010"], start=begin, end=end)
    assert part.verdict == "same" and part.common == 20
    assert audit(lake, "one", "nobody", interval="1d").verdict == "cannot judge"


def real(path: Path) -> pa.Table:
    """Return bars with plain texts, as the lake gives them back."""
    bars = pa.concat_tables([part.bars for part in load(path, ImportSection())])
    return bars.cast(pa.schema([BARS.field(name) for name in bars.column_names]))


def test_real_sets_of_two_bases(market_data: Path) -> None:
    v1, v2, v3 = (real(market_data / "krx_daily_raw" / name) for name in ("v1", "v2", "v3"))
    found = compare(v1, v2)
    told = {basis.symbol: (basis.ratio, basis.rows, basis.volume, basis.first[:10]) for basis in found.bases}
    assert told == {"005930": (50.0, 521, "inverse", "2016-01-04"), "035420": (5.0, 507, "inverse", "2016-01-04")}
    assert found.unexplained == 0 and found.symbols == 4, "two of four agree, the others but for the basis"
    later = compare(v2, v3)
    assert (later.right.rows, later.right.halted, later.right.symbols) == (3, 3, {"005930": 3})
    assert later.differing == {} and later.common == 977


def test_two_real_vintages_of_one_series(market_data: Path) -> None:
    old, new = (real(market_data / f"krx_close_{year}.parquet") for year in (2019, 2021))
    found = compare(old, new)
    assert (len(found.left.missing), len(found.right.missing), found.symbols) == (31, 183, 1602)
    assert len(found.by_symbol) == 345
    assert len({basis.symbol for basis in found.bases}) == len(found.bases) == 343, "one basis a symbol"
    ratio = {basis.symbol: basis.ratio for basis in found.bases}
    assert ratio["000040"] == pytest.approx(0.2463, abs=1e-4) and ratio["000520"] == 2.0
    assert found.differing["close"] == {"basis": 56_145, "unexplained": 165, "rounded": 3}
    (unexplained,) = {one["symbol"] for one in found.examples if one["reason"] == "unexplained"}
    assert unexplained == "221610", "whose prices were rounded to price ticks before and after the adjustment"
    assert found.rows == [788_381, 1_257_407]
