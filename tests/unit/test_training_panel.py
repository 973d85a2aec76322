"""Blocks become one matrix of rows without a value out of place, in memory or in a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.store import read_json, write_json, write_parquet
from tests.feature_blocks import edit, read_blocks, write_blocks
from training.columns import DataError, read_columns
from training.panel import UNKNOWN_END, Panel, matrix, read_panel, read_stamps
from training.windows import known, window_ends

SMALL = {"symbols": 6, "days": 60, "features": 3, "groups": 2}
ARRAYS = ("symbol_N", "ts_N", "x_NF", "y_NH", "end_N", "member_N")


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def stamps(values: np.ndarray, unknown: np.ndarray) -> pa.Array:
    return pa.array(values, mask=unknown).cast(pa.timestamp("us", tz="UTC"))


def same(a: Panel, b: Panel) -> bool:
    floats = ("x_NF", "y_NH")
    return a.symbols == b.symbols and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name in floats) for name in ARRAYS
    )


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))


def test_the_layout_of_blocks_changes_nothing(tmp_path: Path) -> None:
    a = read_panel(write_blocks(tmp_path / "a", **SMALL), read_columns(tmp_path / "a"))
    b = read_panel(write_blocks(tmp_path / "b", **{**SMALL, "groups": 4}, layout=3), read_columns(tmp_path / "b"))
    assert same(a, b) and a.symbols == tuple(sorted(a.symbols))


def test_rows_arrive_as_they_were_written(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    panel = read_panel(tmp_path, read_columns(tmp_path))
    table = read_blocks(tmp_path)
    assert [panel.symbols[i] for i in panel.symbol_N] == table.column("symbol").to_pylist()
    assert panel.ts_N.tolist() == table.column("ts").cast(pa.int64()).to_pylist()
    for f, name in enumerate(panel.features):
        assert np.array_equal(panel.x_NF[:, f], table.column(name).to_numpy(), equal_nan=True)
    assert np.array_equal(panel.y_NH, table.column("y_2").to_numpy()[:, None], equal_nan=True)
    assert panel.member_N.tolist() == table.column("member").to_pylist()
    unknown = pc.is_null(table.column("y_2_end")).to_numpy()
    assert (panel.end_N[unknown] == UNKNOWN_END).all()
    assert np.array_equal(panel.end_N[~unknown], table.column("y_2_end").cast(pa.int64()).drop_null().to_numpy())
    assert read_stamps(tmp_path).tolist() == sorted(set(panel.ts_N.tolist()))


def test_of_two_labels_the_last_end_counts(tmp_path: Path) -> None:
    """Row 0: both known; 1: the second alone; 2: the first alone; 3: none; 4: known, but not when."""
    write_blocks(tmp_path, **SMALL)
    columns = read_json(tmp_path / "columns.json")
    write_json(
        tmp_path / "columns.json",
        {**columns, "targets": [*columns["targets"], {"name": "y_9", "horizon": 9, "end": "y_9_end"}]},
    )
    nan = np.nan
    one, two = np.array([1, nan, 1, nan, 1], np.float32), np.array([2, 2, nan, nan, 2], np.float32)

    def both(table: pa.Table) -> pa.Table:
        rows = table.num_rows
        at = np.arange(rows) % 5
        table = set_column(table, "y_2", one[at])
        table = table.set_column(table.column_names.index("y_2_end"), "y_2_end", stamps(100 + np.arange(rows), at == 1))
        return table.append_column("y_9", pa.array(two[at])).append_column(
            "y_9_end", stamps(900 + np.arange(rows), (at == 2) | (at == 4))
        )

    for path in (tmp_path / "targets").glob("*"):
        write_parquet(path, both(pq.read_table(path)))
    panel = read_panel(tmp_path, read_columns(tmp_path, ("y_9", "y_2")))
    assert panel.y_NH.shape == (360, 2) and panel.y_NH[0].tolist() == [2.0, 1.0]
    expected = [900, 901, 102, UNKNOWN_END, UNKNOWN_END]
    assert panel.end_N[:5].tolist() == expected
    assert read_panel(tmp_path, read_columns(tmp_path, ("y_2",))).end_N[:5].tolist() == [
        100, UNKNOWN_END, 102, UNKNOWN_END, 104,
    ]  # fmt: skip


def test_blocks_of_several_periods_and_columns_among_symbols_are_put_together(tmp_path: Path) -> None:
    """Periods in files of their own, one feature and `member` in cross/: the same panel, windows end at members."""
    one = read_panel(write_blocks(tmp_path / "one", **SMALL), read_columns(tmp_path / "one"))
    out = write_blocks(tmp_path / "two", **SMALL)
    cut, left = int(np.median(one.ts_N)), np.random.default_rng(1).random(len(one.ts_N)) < 0.3
    keys = one.symbol_N.astype(np.int64) * 10**16 + one.ts_N
    for path in sorted((out / "blocks").glob("*.parquet")):
        tables = {place: pq.read_table(out / place / path.name) for place in ("blocks", "targets")}
        ts = tables["blocks"]["ts"].cast(pa.int64()).to_numpy()
        index = [one.symbols.index(name) for name in tables["blocks"]["symbol"].to_pylist()]
        member = ~left[np.searchsorted(keys, np.array(index) * 10**16 + ts)]
        tables["cross"] = pa.table({"member": member, "feature_2": tables["blocks"]["feature_2"]})
        tables["blocks"] = tables["blocks"].drop_columns(["feature_2"])
        for place, table in tables.items():
            (out / place / path.name).unlink(missing_ok=True)
            for year, mine in (("2020", ts <= cut), ("2021", ts > cut)):
                write_parquet(out / place / f"{path.name[:3]}-{year}.parquet", table.filter(pa.array(mine)))
    found = read_json(out / "columns.json")
    features = [{**f, "in": "cross" if f["name"] == "feature_2" else "blocks"} for f in found["features"]]
    write_json(out / "columns.json", {**found, "features": features, "member": "cross"})
    two = read_panel(out, read_columns(out))
    assert one.member_N.all() and np.array_equal(two.member_N, ~left)
    ends = window_ends(one, known(one.x_NF), 5, 0)
    assert np.array_equal(window_ends(two, known(two.x_NF), 5, 0), ends[~left[ends]])
    two.member_N[:] = True
    assert same(one, two)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=30), st.integers(0, 6))
def test_since_is_the_own_bar_so_many_before(drawn: list[tuple[int, int]], bars: int) -> None:
    symbol = np.array(sorted(s for s, _ in drawn), np.int32)
    ts = np.cumsum([step for _, step in drawn]) - 50 * symbol
    nothing = np.empty((len(ts), 0), np.float32)
    since = Panel(tuple("abcd"), (), symbol, ts, nothing, nothing, ts, symbol >= 0).since(bars)
    for row in range(len(ts)):
        own = [r for r in range(max(0, row - bars), row + 1) if symbol[r] == symbol[row]]
        assert since[row] == ts[own[0]]


def test_nulls_and_infinities_are_unknown(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)

    def spoil(table: pa.Table) -> pa.Table:
        x = table.column("feature_0").to_numpy().copy()
        x[10], x[11] = np.inf, -np.inf
        return set_column(table, "feature_0", pa.array(x, mask=np.arange(len(x)) == 12))

    edit(tmp_path, spoil)
    panel = read_panel(tmp_path, read_columns(tmp_path))
    rows = np.flatnonzero(panel.symbol_N == 0)
    assert np.isnan(panel.x_NF[rows[10:13], 0]).all()
    assert not known(panel.x_NF)[rows[10:13]].any()


@pytest.mark.usefixtures("short_of_memory")
def test_a_matrix_that_memory_does_not_hold_is_a_file_without_a_name(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert not isinstance(matrix(2, 3, scratch), np.memmap), "it fits"
    assert not isinstance(matrix(1000, 3, None), np.memmap), "there is no folder"
    columns = read_columns(write_blocks(tmp_path / "f", **SMALL))
    plain, mapped = read_panel(tmp_path / "f", columns), read_panel(tmp_path / "f", columns, scratch)
    assert isinstance(mapped.x_NF, np.memmap) and not isinstance(plain.x_NF, np.memmap)
    assert same(plain, mapped) and not list(scratch.iterdir())
    for panel in (plain, mapped):
        panel.keep(["feature_2", "feature_0"])
    assert isinstance(mapped.x_NF, np.memmap) and same(plain, mapped) and not list(scratch.iterdir())
    mapped.x_NF[:] = 7.0
    assert (mapped.x_NF == 7.0).all()


@pytest.mark.usefixtures("short_of_memory")
def test_a_disk_without_room_is_said_before_a_page_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"0\.1 GB of room in .* 10,000,000 rows of 3 features.*No space left"):
        matrix(10_000_000, 3, tmp_path)
    assert not list(tmp_path.iterdir())


def test_keep_takes_columns_in_the_order_asked_for(tmp_path: Path) -> None:
    panel = read_panel(write_blocks(tmp_path, **SMALL), read_columns(tmp_path))
    before = panel.x_NF
    panel.keep(panel.features)
    assert panel.x_NF is before
    panel.keep(["feature_2", "feature_0"])
    assert panel.features == ("feature_2", "feature_0")
    assert np.array_equal(panel.x_NF, before[:, [2, 0]], equal_nan=True) and panel.x_NF.flags.c_contiguous
    with pytest.raises(ValueError, match="not in tuple"):
        panel.keep(["feature_1"])


def targets(directory: Path) -> pa.Table:
    return pq.read_table(directory / "targets" / "001-2020.parquet")


def twice(directory: Path) -> None:
    for folder in ("blocks", "targets"):
        shutil.copy(directory / folder / "000-2020.parquet", directory / folder / "000-2021.parquet")


def typed(directory: Path, name: str, kind: pa.DataType) -> None:
    """Rewrite a column as another type, its fourth value unknown."""

    def change(table: pa.Table) -> pa.Table:
        values = pa.array([None if row == 3 else row % 2 for row in range(table.num_rows)], pa.int8())
        values = values.cast(pa.string()).cast(kind) if pa.types.is_large_binary(kind) else values.cast(kind)
        return table.set_column(table.column_names.index(name), name, values)

    edit(directory, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: [p.unlink() for p in (d / "blocks").glob("*")], "got 0 files"),
        (lambda d: edit(d, lambda t: t.drop_columns(["feature_1"])), "columns feature_1 in .*parquet"),
        (lambda d: edit(d, lambda t: t.drop_columns(["symbol"])), "columns symbol in .*blocks.*got ts, close"),
        (
            lambda d: edit(d, lambda t: t.sort_by([("symbol", "ascending"), ("ts", "descending")])),
            "step back in symbol 000000",
        ),
        (
            lambda d: edit(d, lambda t: t.sort_by([("ts", "ascending")])),
            "the rows of each symbol together in .*000-2020.parquet, got 180 runs of 3",
        ),
        (lambda d: edit(d, lambda t: t.slice(0, 0)), "without any"),
        (lambda d: (d / "targets" / "001-2020.parquet").unlink(), "targets/001-2020.parquet beside .*blocks"),
        (lambda d: write_parquet(d / "targets" / "001-2020.parquet", targets(d).slice(1)), "180 rows in .*, got 179"),
        (lambda d: edit(d, lambda t: t.drop_columns(["member"])), "columns member in .*targets"),
        (
            lambda d: edit(d, lambda t: t.drop_columns(["ts"])),
            "columns ts in .*blocks/000-2020.parquet.*features again",
        ),
        (lambda d: typed(d, "ts", pa.int64()), "a timestamp in column 'ts' of .*blocks.*, got int64"),
        (lambda d: typed(d, "symbol", pa.large_binary()), "text in column 'symbol' of .*, got large_binary"),
        (lambda d: typed(d, "feature_1", pa.string()), "floating-point numbers in column 'feature_1' of .*got string"),
        (lambda d: typed(d, "feature_1", pa.bool_()), "floating-point numbers in column 'feature_1' of .*, got bool"),
        (lambda d: typed(d, "feature_1", pa.int32()), "'feature_1' of .*blocks/000-2020.*got int32; make the features"),
        (lambda d: typed(d, "y_2", pa.string()), "floating-point numbers in column 'y_2' of .*targets.*, got string"),
        (lambda d: typed(d, "y_2_end", pa.float64()), "a timestamp in column 'y_2_end' of .*, got double"),
        (lambda d: typed(d, "member", pa.int8()), "true or false in column 'member' of .*, got int8"),
        (lambda d: (d / "blocks/000-2020.parquet").write_bytes(b"PAR1"), "a Parquet file at .*blocks/000-2020.parquet"),
        (lambda d: shutil.copy(d / "blocks/000-2020.parquet", d / "blocks/000-2021.parquet"), "no such file"),
        (twice, "step back in symbol 000000"),
    ],
)
def test_damaged_blocks_are_named(tmp_path: Path, damage: Any, message: str) -> None:
    write_blocks(tmp_path, **SMALL)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        read_panel(tmp_path, read_columns(tmp_path))


def test_blocks_without_time_are_named_before_the_folds_are_made(tmp_path: Path) -> None:
    edit(write_blocks(tmp_path, **SMALL), lambda t: t.drop_columns(["ts"]))
    with pytest.raises(DataError, match=r"columns ts in .*blocks/000-2020\.parquet"):
        read_stamps(tmp_path)


def test_fewer_symbols_are_no_damage(tmp_path: Path) -> None:
    (write_blocks(tmp_path, **SMALL) / "blocks" / "000-2020.parquet").unlink()
    assert len(read_panel(tmp_path, read_columns(tmp_path)).symbols) == 3
