"""Which bars have features and labels: short and blank histories, closes only, halts, limits, delisted symbols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import krx
from pipeline.features.section import FeatureError, FeatureSection, feature_set
from pipeline.indicators import compute
from storage.schema import SYMBOLS
from tests.feature_stage import NAMES, Threads, block_of, order_of, rows, stage
from tests.market import STAMP, bars, ingested


@pytest.fixture(scope="module")
def cluster() -> Iterator[Threads]:
    with Threads() as found:
        yield found


def blank(table: pa.Table, holes: dict[str, tuple[str, float]]) -> pa.Table:
    """Give all bars of some symbols one value in a column."""
    frame = table.to_pandas()
    for symbol, (name, value) in holes.items():
        frame.loc[frame["symbol"] == symbol, name] = value
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_short_symbols_are_kept_and_named(cluster: Threads, tmp_path: Path) -> None:
    said: list[str] = []

    def emit(kind: str, /, **fields: object) -> None:
        if kind == "log":
            said.append(str(fields["text"]))

    table = pa.concat_tables([bars(NAMES[:3], 100), bars(["999999"], 3)])
    ingested(tmp_path, table)
    manifest = stage(tmp_path, cluster, emit=emit)
    assert manifest["short"] == {"999999": 3} and manifest["rows"] == 303
    assert any("999999 (3)" in text for text in said)
    ingested(tmp_path / "mixed", pa.concat_tables([bars(NAMES[:2], 100), bars(["999999"], 3, interval="1m")]))
    stage(tmp_path / "mixed", cluster, emit=emit)
    assert any("1 of 3 symbols have no bars of 1d" in text for text in said)
    none = bars(NAMES[:2], 100)
    turnover = none.column_names.index("turnover")
    ingested(tmp_path / "none", none.set_column(turnover, "turnover", pa.nulls(200, pa.float64())))
    with pytest.raises(FeatureError, match=r"bars of 1d with turnover, .* none in all 200 bars"):
        stage(tmp_path / "none", cluster, FeatureSection(set="alpha158"))
    ingested(tmp_path / "all", bars(NAMES[:2], 20))
    with pytest.raises(FeatureError, match=r"at least 61 complete bars .* got at most 20 among 2 symbols"):
        stage(tmp_path / "all", cluster)


def test_a_symbol_without_a_column_is_named_with_it(cluster: Threads, tmp_path: Path) -> None:
    said: list[str] = []

    def emit(kind: str, /, **fields: object) -> None:
        if kind == "log":
            said.append(f"{fields['level']}: {fields['text']}")

    holes = {NAMES[1]: ("high", np.nan), NAMES[2]: ("volume", np.nan), NAMES[3]: ("volume", 0.0)}
    ingested(tmp_path, blank(bars(NAMES[:5], 100), {**holes, NAMES[4]: ("open", np.nan)}))
    manifest = stage(tmp_path, cluster, emit=emit)
    expected = {symbol: [name] for symbol, (name, _) in holes.items()} | {NAMES[4]: ["open"]}
    assert manifest["empty"] == expected and manifest["short"] == {}
    named = ", ".join(f"{symbol} ({name})" for symbol, (name,) in expected.items())
    assert f"warning: 4 symbols have no value at all in a column and take no part in what reads it: {named}" in said
    found = rows(tmp_path).groupby("symbol")
    assert found["natr_14"].count().gt(0).tolist() == [True, False, False, False, True]
    assert found["y_5"].count().gt(0).tolist() == [True, True, True, False, False]
    closes = stage(tmp_path, cluster, FeatureSection(set="close"), out="closes")
    assert closes["empty"] == {NAMES[3]: ["volume"], NAMES[4]: ["open"]}, "the other columns are not read"


def test_no_high_or_no_open_anywhere_is_said_to_be_the_cause(cluster: Threads, tmp_path: Path) -> None:
    table = bars(NAMES[:2], 100)
    ingested(tmp_path / "high", blank(table, dict.fromkeys(NAMES[:2], ("high", np.nan))))
    with pytest.raises(FeatureError, match=r"bars of 1d with high, .* none in all 200 bars; .*set close"):
        stage(tmp_path / "high", cluster)
    ingested(tmp_path / "open", blank(table, dict.fromkeys(NAMES[:2], ("open", np.nan))))
    with pytest.raises(FeatureError, match=r"1d with an open, .* got none in all 200 bars, so that no label"):
        stage(tmp_path / "open", cluster)


def test_zeros_become_nan_and_are_counted(cluster: Threads, tmp_path: Path) -> None:
    table = bars(NAMES[:1], 140).to_pandas()
    table.loc[70, ["open", "high", "low", "close"]] = 0.0
    ingested(tmp_path, pa.Table.from_pandas(table, preserve_index=False))
    manifest = stage(tmp_path, cluster)
    numbers = rows(tmp_path).select_dtypes("number")
    assert manifest["infinite"] > 0 and not np.isinf(numbers).any(axis=None)
    assert numbers.drop(columns=["y_1", "y_5"]).iloc[-1].notna().all(), "it recovers"


def test_closes_only_choose_their_set(cluster: Threads, tmp_path: Path) -> None:
    receipt = ingested(tmp_path, bars(NAMES[:4], 100))
    receipt.model_copy(update={"close_only": True}).save(tmp_path / "ingest")
    stage(tmp_path, cluster)
    found = rows(tmp_path)
    one = found[found["symbol"] == NAMES[0]]
    assert "skew_20" in found.columns and "natr_14" not in found.columns
    np.testing.assert_allclose(one["y_1"].iloc[0], one["close"].iloc[2] / one["close"].iloc[1] - 1, rtol=1e-6)
    with pytest.raises(FeatureError, match=r"closes only.*natr_14"):
        stage(tmp_path, cluster, FeatureSection(set="basic"), out="wrong")


def test_delisted_symbols_have_labels_to_the_end(cluster: Threads, tmp_path: Path) -> None:
    table = bars(NAMES[:2], 120)
    last = table["ts"].to_pylist()[119].date()
    known = {
        "symbol": NAMES[0],
        "name": "gone",
        "market": "KOSPI",
        "kind": "stock",
        "delisted": last,
        "as_of": last,
        "source": "test",
    }
    ingested(tmp_path, table, symbols=pa.Table.from_pylist([{**known, "ingested_at": STAMP.as_py()}], SYMBOLS))
    stage(tmp_path, cluster)
    found = rows(tmp_path)
    assert found[found["symbol"] == NAMES[0]]["y_5"].isna().sum() == 1  # the last bar can't be bought any more
    assert found[found["symbol"] == NAMES[1]]["y_5"].isna().sum() == 6


def block(folder: Path, table: pa.Table, section: FeatureSection | None = None, *, close_only: bool = False) -> Any:
    """Return the block of one small market as a frame."""
    receipt = ingested(folder, table).model_copy(update={"close_only": close_only})
    found, _ = block_of(order_of(folder, section), receipt, list(receipt.symbols))
    return found


HALT = slice(70, 76)


def halted(table: pa.Table, *, volume: float = 0.0) -> Any:
    """Return the bars as a frame with a halt written as a repeated close without volume."""
    frame = table.to_pandas()
    frame.loc[70:75, ["open", "high", "low", "close"]] = frame["close"].iloc[69]
    frame.loc[70:75, ["volume", "turnover"]] = volume
    return frame


def test_a_halt_written_as_flat_bars_is_no_bar(tmp_path: Path) -> None:
    """The same columns and targets as with the other way of writing a halt: no open, high and low."""
    flat = halted(bars(NAMES[:1], 150))
    empty = flat.copy()
    empty.loc[70:75, ["open", "high", "low"]] = np.nan
    one, two = (
        block(tmp_path / name, pa.Table.from_pandas(frame, preserve_index=False))
        for name, frame in (("flat", flat), ("empty", empty))
    )
    assert one.equals(two)
    names = [c.name for c in FeatureSection().columns(close_only=False)]
    assert one[names].iloc[HALT].isna().all(axis=None) and one["close"].iloc[HALT].notna().all()
    assert one["y_1"].iloc[69:75].isna().all() and one["y_1"].notna().iloc[75], "nobody bought during the halt"
    assert one["y_5_end"].iloc[66] == one["ts"].iloc[76], "the exit waits for the end of the halt"


@pytest.mark.parametrize("close_only", [False, True])
def test_columns_of_closes_leave_halts_out_too(tmp_path: Path, close_only: bool) -> None:
    section = FeatureSection(set="close", dtype="float64")
    frame = halted(bars(NAMES[:1], 150))
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), section, close_only=close_only)
    left = frame.drop(index=range(70, 76)).reset_index(drop=True)
    expected = compute(left, feature_set("close"), dtype=np.float64)
    kept = found.drop(index=range(70, 76))[list(expected.columns)].reset_index(drop=True)
    np.testing.assert_array_equal(kept, expected)
    assert found[list(expected.columns)].iloc[HALT].isna().all(axis=None)


@pytest.mark.parametrize("everywhere", [0.0, np.nan])
def test_a_source_without_volume_has_no_halts_to_tell(tmp_path: Path, everywhere: float) -> None:
    frame = halted(bars(NAMES[:1], 150))
    frame["volume"] = everywhere
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), FeatureSection(set="close"))
    assert found["y_1"].iloc[69:75].notna().all()
    assert found["roc_5"].iloc[HALT].notna().all()


def at_limits(frame: Any, rows: range, side: int) -> None:
    """Let these rows open and close at their upper (1) or lower (0) limit, and leave it in between."""
    for row in rows:
        day = frame["ts"].iloc[row].to_datetime64()
        price = float(krx.limits(frame["close"].iloc[row - 1], day)[side])
        frame.loc[row, ["open", "high", "low", "close"]] = price
        frame.loc[row, "low" if side else "high"] = price * (0.99 if side else 1.01)


@pytest.mark.parametrize("close_only", [False, True])
def test_nobody_buys_in_a_run_of_upper_limits(tmp_path: Path, close_only: bool) -> None:
    frame = bars(NAMES[:1], 130).to_pandas()
    at_limits(frame, range(100, 103), 1)
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), close_only=close_only)
    assert found["y_1"].isna().to_numpy().nonzero()[0].tolist() == [99, 100, 101, 128, 129]


@pytest.mark.parametrize("close_only", [False, True])
def test_nobody_sells_in_a_run_of_lower_limits(tmp_path: Path, close_only: bool) -> None:
    frame = bars(NAMES[:1], 130).to_pandas()
    at_limits(frame, range(100, 103), 0)
    found = block(tmp_path, pa.Table.from_pandas(frame, preserve_index=False), close_only=close_only)
    price = frame["close" if close_only else "open"]
    for row in (98, 99, 100, 101):
        assert found["y_1_end"].iloc[row] == found["ts"].iloc[103]
        np.testing.assert_allclose(found["y_1"].iloc[row], price[103] / price[row + 1] - 1, rtol=1e-6)
