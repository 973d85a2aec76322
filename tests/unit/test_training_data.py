"""Blocks become windows without a value out of place, and nothing about the test reaches what is fitted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storage.emit import silent
from storage.store import read_json, write_json, write_parquet
from tests.feature_blocks import Recorder, edit, read_blocks, write_blocks
from training.data import (
    UNKNOWN_END,
    DataError,
    Resident,
    check_columns,
    known,
    read_columns,
    read_panel,
    run_lengths,
    window_ends,
)
from training.dataset import prepare
from training.scaler import Scaler
from training.section import TrainSection
from training.splits import TEST, TRAIN, VALID, SplitError, SplitSection
from training.targets import choose_kind, shuffle, transform

SMALL = {"symbols": 6, "days": 60, "features": 3, "groups": 2}


def set_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60), st.integers(1, 6))
def test_windows_are_those_that_a_loop_finds(rows: list[tuple[int, bool]], length: int) -> None:
    rows = sorted(rows, key=lambda r: r[0])
    symbol = np.array([r[0] for r in rows], np.int32)
    ok = np.array([r[1] for r in rows])
    expected = [
        end
        for end in range(len(rows))
        if end - length + 1 >= 0
        and ok[end - length + 1 : end + 1].all()
        and len(set(symbol[end - length + 1 : end + 1])) == 1
    ]
    assert np.flatnonzero(run_lengths(ok, symbol) >= length).tolist() == expected


@pytest.mark.parametrize("length", [1, 7, 20])
def test_a_batch_is_the_rows_before_each_end(tmp_path: Path, length: int) -> None:
    panel = read_panel(write_blocks(tmp_path, **SMALL), read_columns(tmp_path))
    ends = window_ends(panel, known(panel.x_NF), length)
    order = np.random.default_rng(0).permutation(ends)[:50]
    batch = Resident(panel.x_NF, length, "cpu").batch(torch.from_numpy(order)).numpy()
    naive = np.stack([panel.x_NF[e - length + 1 : e + 1] for e in order])
    assert np.array_equal(batch, naive)
    assert np.isfinite(batch).all()
    for e in order:
        assert len(set(panel.symbol_N[e - length + 1 : e + 1].tolist())) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_batch_on_a_gpu_is_the_same(tmp_path: Path) -> None:
    panel = read_panel(write_blocks(tmp_path, **SMALL), read_columns(tmp_path))
    ends = torch.from_numpy(window_ends(panel, known(panel.x_NF), 7))
    on_gpu = Resident(panel.x_NF, 7, "gpu").batch(ends.cuda()).cpu()
    assert torch.equal(on_gpu, Resident(panel.x_NF, 7, "cpu").batch(ends))


def test_the_layout_of_blocks_changes_nothing(tmp_path: Path) -> None:
    a = read_panel(write_blocks(tmp_path / "a", **SMALL), read_columns(tmp_path / "a"))
    b = read_panel(write_blocks(tmp_path / "b", **{**SMALL, "groups": 4}, layout=3), read_columns(tmp_path / "b"))
    assert a.symbols == b.symbols == tuple(sorted(a.symbols))
    for name in ("symbol_N", "ts_N", "x_NF", "y_N", "end_N"):
        assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name in ("x_NF", "y_N"))


def test_rows_arrive_as_they_were_written(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    panel = read_panel(tmp_path, read_columns(tmp_path))
    table = read_blocks(tmp_path)
    assert [panel.symbols[i] for i in panel.symbol_N] == table.column("symbol").to_pylist()
    assert panel.ts_N.tolist() == table.column("ts").cast(pa.int64()).to_pylist()
    for f, name in enumerate(panel.features):
        assert np.array_equal(panel.x_NF[:, f], table.column(name).to_numpy(), equal_nan=True)
    assert np.array_equal(panel.y_N, table.column("y_2").to_numpy(), equal_nan=True)
    assert panel.member_N.tolist() == table.column("member").to_pylist()
    unknown = pc.is_null(table.column("y_2_end")).to_numpy()
    assert (panel.end_N[unknown] == UNKNOWN_END).all()
    assert np.array_equal(panel.end_N[~unknown], table.column("y_2_end").cast(pa.int64()).drop_null().to_numpy())


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
    assert two.symbols == one.symbols
    for name in ("symbol_N", "ts_N", "x_NF", "y_N", "end_N"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=name in ("x_NF", "y_N"))
    assert one.member_N.all() and np.array_equal(two.member_N, ~left)
    ends = window_ends(one, known(one.x_NF), 5)
    assert np.array_equal(window_ends(two, known(two.x_NF), 5), ends[~left[ends]])


def test_nulls_and_infinities_are_unknown(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)

    def spoil(table: pa.Table) -> pa.Table:
        x = table.column("feature_0").to_numpy().copy()
        x[10], x[11] = np.inf, -np.inf
        masked = pa.array(x, mask=np.arange(len(x)) == 12)
        return set_column(table, "feature_0", masked)

    edit(tmp_path, spoil)
    panel = read_panel(tmp_path, read_columns(tmp_path))
    rows = np.flatnonzero(panel.symbol_N == 0)
    assert np.isnan(panel.x_NF[rows[10:13], 0]).all()
    assert not known(panel.x_NF)[rows[10:13]].any()


def test_poisoned_test_rows_change_neither_scaler_nor_targets(tmp_path: Path) -> None:
    train = TrainSection(window=5)
    clean = prepare(write_blocks(tmp_path / "a", **SMALL), SplitSection(), train, silent)
    write_blocks(tmp_path / "b", **SMALL)
    first_test = clean.splits.test_start

    def poison(table: pa.Table) -> pa.Table:
        late = table.column("ts").cast(pa.int64()).to_numpy() >= first_test
        for name in ("feature_0", "feature_1", "feature_2", "y_2"):
            values = table.column(name).to_numpy().copy()
            values[late] = 1e9
            table = set_column(table, name, values)
        return table

    edit(tmp_path / "b", poison)
    poisoned = prepare(tmp_path / "b", SplitSection(), train, silent)
    assert poisoned.scaler.to_json() == clean.scaler.to_json()
    assert np.array_equal(poisoned.target_N, clean.target_N, equal_nan=True)
    assert poisoned.kind == clean.kind
    for split in (TRAIN, VALID):
        assert np.array_equal(poisoned.windows(split, 5), clean.windows(split, 5))
    assert np.isnan(clean.target_N[clean.split_N == TEST]).all()


def test_poisoned_validation_rows_do_not_change_the_scaler_either(tmp_path: Path) -> None:
    clean = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), TrainSection(window=5), silent)

    def poison(table: pa.Table) -> pa.Table:
        late = table.column("ts").cast(pa.int64()).to_numpy() >= clean.splits.train_end
        values = table.column("feature_0").to_numpy().copy()
        values[late] = 1e9
        return set_column(table, "feature_0", values)

    edit(tmp_path, poison)
    assert prepare(tmp_path, SplitSection(), TrainSection(window=5), silent).scaler.to_json() == clean.scaler.to_json()


def test_the_scaler_measures_what_it_says() -> None:
    random = np.random.default_rng(0)
    x = random.normal(3.0, 2.0, (4000, 4)).astype(np.float32)
    x[:, 1] = 5.0
    x[::5, 2] = np.nan
    x[:3, 3] = 1e6
    names = ("a", "constant", "holes", "outliers")
    rows = np.ones(4000, np.bool_)
    robust, standard = (Scaler.fit(x, rows, names, kind, 5.0) for kind in ("robust", "standard"))
    np.testing.assert_allclose(standard.center_F[:3], np.nanmean(x.astype(np.float64), axis=0)[:3], rtol=1e-6)
    np.testing.assert_allclose(standard.scale_F[[0, 2]], np.nanstd(x.astype(np.float64), axis=0)[[0, 2]], rtol=1e-6)
    assert standard.scale_F[1] == robust.scale_F[1] == 1.0
    np.testing.assert_allclose(robust.scale_F[[0, 2, 3]], 2.0, rtol=0.1)
    assert standard.scale_F[3] > 1000
    scaled = x.copy()
    robust.apply(scaled)
    assert np.isnan(scaled[::5, 2]).all()
    assert np.nanmax(np.abs(scaled)) == 5.0
    assert (scaled[:, 1] == 0).all()
    again = Scaler.from_json(robust.to_json())
    assert np.array_equal(again.center_F, robust.center_F)
    assert np.array_equal(again.scale_F, robust.scale_F)


def test_targets_compare_within_a_timestamp_only() -> None:
    ts = np.repeat(np.arange(10), 20)
    y = np.random.default_rng(0).normal(0, 0.02, 200).astype(np.float32)
    y[3] = np.nan
    fit = ts < 6
    rank = transform("rank", y, ts, fit)
    assert np.isnan(rank[3])
    moved = transform("rank", np.where(ts == 4, 10 * y + 1, y).astype(np.float32), ts, fit)
    assert np.array_equal(rank, moved, equal_nan=True)
    for t in range(1, 10):
        mine = rank[ts == t]
        assert np.array_equal(np.argsort(mine), np.argsort(y[ts == t]))
        assert abs(mine.mean()) < 1e-6
        assert mine.std() == pytest.approx(1.0, abs=0.01)
    excess = transform("excess", y, ts, fit)
    np.testing.assert_allclose([np.nanmean(excess[ts == t]) for t in range(10)], 0, atol=1e-6)
    plain = transform("return", y, ts, fit)
    assert np.nanmean(plain[fit]) == pytest.approx(0, abs=1e-6)
    assert np.nanstd(plain[fit]) == pytest.approx(1, abs=0.02)
    later = y.copy()
    later[ts >= 6] *= 100
    assert np.array_equal(transform("return", later, ts, fit)[fit], plain[fit], equal_nan=True)
    assert choose_kind("auto", ts) == "rank"
    assert choose_kind("auto", np.arange(50)) == "return"
    assert choose_kind("excess", np.arange(50)) == "excess"


def test_shuffled_targets_keep_their_split_and_their_values() -> None:
    target = np.arange(100, dtype=np.float32)
    target[::9] = np.nan
    train, valid = np.arange(100) < 60, (np.arange(100) >= 60) & (np.arange(100) < 80)
    mixed = target.copy()
    shuffle(mixed, [train, valid], 3)
    for part in (train, valid):
        assert sorted(mixed[part & np.isfinite(mixed)].tolist()) == target[part & np.isfinite(target)].tolist()
    assert np.array_equal(mixed[80:], target[80:], equal_nan=True)
    assert np.array_equal(np.isnan(mixed), np.isnan(target))
    assert (mixed[train] != target[train]).sum() > 45


def test_columns_without_values_are_dropped_and_named(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    edit(tmp_path, lambda t: set_column(t, "feature_2", np.full(t.num_rows, np.nan, np.float32)))
    emit = Recorder()
    data = prepare(tmp_path, SplitSection(), TrainSection(window=5), emit)
    assert data.panel.features == ("feature_0", "feature_1")
    assert data.panel.x_NF.shape[1] == 2
    assert emit.said("dropped: feature_2")
    assert data.columns_json()["offered"] == ["feature_0", "feature_1", "feature_2"]


def test_a_column_known_only_after_training_is_dropped_as_well(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    boundary = prepare(tmp_path, SplitSection(), TrainSection(window=5), silent).splits.train_end

    def hide(table: pa.Table) -> pa.Table:
        early = table.column("ts").cast(pa.int64()).to_numpy() < boundary
        return set_column(table, "feature_2", np.where(early, np.nan, 1.0).astype(np.float32))

    edit(tmp_path, hide)
    assert prepare(tmp_path, SplitSection(), TrainSection(window=5), silent).panel.features == (
        "feature_0",
        "feature_1",
    )


def test_only_empty_columns_are_an_error(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)

    def clear(table: pa.Table) -> pa.Table:
        for name in ("feature_0", "feature_1", "feature_2"):
            table = set_column(table, name, np.full(table.num_rows, np.nan, np.float32))
        return table

    edit(tmp_path, clear)
    with pytest.raises(DataError, match="only NaN in all 3"):
        prepare(tmp_path, SplitSection(), TrainSection(window=5), silent)


def test_labels_that_are_all_unknown_are_an_error(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    edit(tmp_path, lambda t: set_column(t, "y_2", np.full(t.num_rows, np.nan, np.float32)))
    with pytest.raises(DataError, match=r"known labels y_2 in the train split, got .* 0 have a label"):
        prepare(tmp_path, SplitSection(), TrainSection(window=5), silent)


def test_a_window_longer_than_every_history_is_an_error(tmp_path: Path) -> None:
    data = prepare(write_blocks(tmp_path, **SMALL), SplitSection(), TrainSection(), silent)
    with pytest.raises(DataError, match=r"58 complete bars in a row, got at most 57 .*feature_1 \(95% known\)"):
        data.windows(TRAIN, 58)
    with pytest.raises(SplitError, match="in the train split, got none"):
        data.windows(TRAIN, 50)


def test_a_label_that_ends_in_the_next_split_is_purged(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    clean = prepare(tmp_path, SplitSection(), TrainSection(window=5), silent)

    def delay(table: pa.Table) -> pa.Table:
        ends = table.column("y_2_end").cast(pa.int64()).to_pandas()
        halted = (table.column("symbol").to_pandas() == "000001") & (
            table.column("ts").cast(pa.int64()).to_pandas() < clean.splits.train_end
        )
        ends = ends.where(~halted, clean.splits.valid_start)
        index = table.column_names.index("y_2_end")
        return table.set_column(index, "y_2_end", pa.array(ends, pa.int64()).cast(pa.timestamp("us", tz="UTC")))

    edit(tmp_path, delay)
    data = prepare(tmp_path, SplitSection(), TrainSection(window=5), silent)
    mine = data.panel.symbol_N == data.panel.symbols.index("000001")
    assert np.isnan(data.target_N[mine & (data.split_N == TRAIN)]).all()
    assert data.counts["purged"] > clean.counts["purged"]
    assert not mine[data.windows(TRAIN, 5)].any()


def targets(directory: Path) -> pa.Table:
    return pq.read_table(directory / "targets" / "001-2020.parquet")


def twice(directory: Path) -> None:
    for folder in ("blocks", "targets"):
        shutil.copy(directory / folder / "000-2020.parquet", directory / folder / "000-2021.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "blocks" / "000-2020.parquet").unlink(), None),
        (lambda d: [p.unlink() for p in (d / "blocks").glob("*")], "got 0 files"),
        (lambda d: edit(d, lambda t: t.drop_columns(["feature_1"])), "columns feature_1 in .*parquet"),
        (lambda d: edit(d, lambda t: t.drop_columns(["symbol"])), "a column 'symbol'"),
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
        (lambda d: shutil.copy(d / "blocks/000-2020.parquet", d / "blocks/000-2021.parquet"), "no such file"),
        (twice, "step back in symbol 000000"),
        (
            lambda d: write_json(d / "columns.json", {**read_json(d / "columns.json"), "features": []}),
            "at least one feature",
        ),
        (
            lambda d: write_json(d / "columns.json", {**read_json(d / "columns.json"), "targets": []}),
            "at least one label",
        ),
    ],
)
def test_damaged_blocks_are_named(tmp_path: Path, damage: Any, message: str | None) -> None:
    write_blocks(tmp_path, **SMALL)
    damage(tmp_path)
    if message is None:  # fewer symbols are not damage
        assert len(read_panel(tmp_path, read_columns(tmp_path)).symbols) == 3
        return
    with pytest.raises(DataError, match=message):
        read_panel(tmp_path, read_columns(tmp_path))


def test_a_label_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_blocks(tmp_path, **SMALL)
    assert read_columns(tmp_path).target == "y_2"
    with pytest.raises(DataError, match=r"one of y_2 .* got 'y_9'"):
        read_columns(tmp_path, "y_9")


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (["a", "c"], "missing: b"),
        (["a", "b", "c", "d"], "unknown to the checkpoint: d"),
        (["b", "a", "c"], "column 0 is 'b', the checkpoint has 'a' there"),
    ],
)
def test_columns_other_than_the_checkpoint_s_are_refused(got: list[str], message: str) -> None:
    check_columns(["a", "b", "c"], ["a", "b", "c"], Path("x"))
    with pytest.raises(DataError, match=message):
        check_columns(["a", "b", "c"], got, Path("x"))
