"""The CPU driver: the same bits for any tile, chunk, neighbour, number of threads and cut in time; compiled once."""

from __future__ import annotations

import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.indicators import ALL, Spec, plan_of, resolve, rows_of
from pipeline.recurrence import Carry, Pass, Plan, Series, Write, compile, run
from pipeline.recurrence.tiles import run_tiles
from tests.walks import Array, flat, walk

COLUMNS = resolve([Spec(indicator=one.name) for one in ALL] + [Spec(indicator="sma", params={"n": 60}, over="close")])
PLAN = plan_of(COLUMNS)
LENGTHS = (300, 1, 2, 77, 300, 8, 513, 64, 65, 3, 200, 19, 20, 21, 300, 5, 130, 300, 40, 1000, 12)
WALKS = [walk(n, i) for i, n in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def src() -> tuple[Array, Series]:
    return flat(WALKS, rows_of(COLUMNS))


@pytest.fixture(scope="module")
def whole(src: tuple[Array, Series]) -> Array:
    out = np.full((len(COLUMNS), src[0].shape[1]), 7.0)
    run_tiles(PLAN, *src, out)
    return out


@pytest.mark.parametrize(("lanes", "chunk", "threads"), [(8, 64, 1), (32, 256, 1), (24, 8, 2), (16, 512, 3)])
def test_tiles_chunks_and_threads_change_no_bit(
    src: tuple[Array, Series], whole: Array, lanes: int, chunk: int, threads: int
) -> None:
    out = np.full_like(whole, 3.0)
    run_tiles(PLAN, *src, out, lanes=lanes, chunk=chunk, threads=threads)
    np.testing.assert_array_equal(out, whole)


def test_neighbours_change_no_bit(src: tuple[Array, Series], whole: Array) -> None:
    columns, series = src
    for i in range(len(LENGTHS)):
        out = np.full_like(whole, 3.0)
        run_tiles(PLAN, columns, Series(series.starts[[i]], series.lengths[[i]]), out)
        rows = slice(series.starts[i], series.starts[i] + series.lengths[i])
        np.testing.assert_array_equal(out[:, rows], whole[:, rows])
        out[:, rows] = 3.0
        assert (out == 3.0).all(), "rows of other series were written"


@pytest.mark.parametrize("longest", [1, 40, 700])
def test_any_cut_in_time_gives_the_same_bits_and_state(src: tuple[Array, Series], whole: Array, longest: int) -> None:
    """Feed each series in pieces of its own random length, some empty; longest = 1 is one live bar at a time."""
    columns, series = src
    rng = np.random.default_rng(longest)
    out, carry = np.full_like(whole, 3.0), Carry.fresh(PLAN, len(LENGTHS))
    at = np.zeros_like(series.lengths)
    while (at < series.lengths).any():
        step = np.minimum(rng.integers(0 if longest > 1 else 1, longest + 1, at.size), series.lengths - at)
        run(PLAN, columns, Series(series.starts + at, step), out, carry=carry)
        at += step
    np.testing.assert_array_equal(out, whole)
    once = Carry.fresh(PLAN, len(LENGTHS))
    run(PLAN, columns, series, np.empty_like(whole), carry=once)
    assert bits(carry) == bits(once)


def bits(carry: Carry) -> list[bytes]:
    return [np.ascontiguousarray(part).tobytes() for part in (carry.past_CHN, carry.own_QHN, carry.state_KN)]


@pytest.mark.parametrize(("lanes", "chunk"), [(8, 64), (32, 512)])
def test_neighbours_and_tiles_change_no_bit_of_the_state(
    src: tuple[Array, Series], whole: Array, lanes: int, chunk: int
) -> None:
    columns, series = src
    together, out = Carry.fresh(PLAN, len(LENGTHS)), np.full_like(whole, 3.0)
    run_tiles(PLAN, columns, series, out, carry=together, lanes=lanes, chunk=chunk)
    np.testing.assert_array_equal(out, whole)
    for i in range(len(LENGTHS)):
        alone, one = Carry.fresh(PLAN, 1), Series(series.starts[[i]], series.lengths[[i]])
        run_tiles(PLAN, columns, one, out, carry=alone)
        mine = Carry(together.past_CHN[..., i], together.own_QHN[..., i], together.state_KN[..., i])
        assert bits(alone) == bits(mine)


def test_a_new_series_may_join_those_that_go_on(src: tuple[Array, Series], whole: Array) -> None:
    columns, series = src
    first = np.where(np.arange(len(LENGTHS)) % 2 == 0, series.lengths // 2, 0)
    out, carry = np.empty_like(whole), Carry.fresh(PLAN, len(LENGTHS))
    run(PLAN, columns, Series(series.starts, first), out, carry=carry)
    run(PLAN, columns, Series(series.starts + first, series.lengths - first), out, carry=carry)
    np.testing.assert_array_equal(out, whole)


def test_kernels_are_plain_python(whole: Array) -> None:
    """The undecorated functions, run by the interpreter on one series, give the same bits as the machine code."""
    columns, _ = flat([WALKS[11]], rows_of(COLUMNS))  # 19 bars
    bars, H = columns.shape[1], PLAN.past
    start = sum(LENGTHS[:11])
    for step in PLAN.passes:
        x = np.zeros((step.inputs, H + bars, 1))
        x[:, H:, 0] = columns[step.first_input : step.first_input + step.inputs]
        out = np.full((step.outputs, H + bars, 1), np.nan)
        with np.errstate(all="ignore"):
            step.kernel(x, np.array([*step.params, 0.0]), np.zeros((step.state, 1)), out, H)
        for write in step.writes:
            if write.over == 0:
                np.testing.assert_array_equal(out[write.output, H:, 0], whole[write.column, start : start + bars])


def test_state_is_zero_until_a_series_begins() -> None:
    """Kernels see zeros before a short series in a tile; nothing of them may stay."""
    for step in PLAN.passes:
        state = np.zeros((step.state, 1))
        state[0] = -40.0
        x, out = np.zeros((step.inputs, PLAN.past + 40, 1)), np.full((step.outputs, PLAN.past + 40, 1), np.nan)
        with np.errstate(all="ignore"):
            step.kernel(x, np.array([*step.params, 0.0]), state, out, PLAN.past)
        assert (state[1:] == 0.0).all(), step.kernel.__name__


def test_lanes_and_chunks_must_be_whole_blocks(src: tuple[Array, Series], whole: Array) -> None:
    with pytest.raises(ValueError, match="multiples of 8, got 12 and 512"):
        run_tiles(PLAN, *src, whole, lanes=12)


def test_arrays_that_do_not_fit_are_refused(src: tuple[Array, Series], whole: Array) -> None:
    """Compiled code has no bounds: it would write beside them."""
    columns, series = src
    for wrong, message in (
        ((columns[:-1], series, whole), "src_CN"),
        ((columns, series, whole[:-1]), "dst_ON"),
        ((columns[:, :-1], series, whole[:, :-1]), "series"),
    ):
        with pytest.raises(ValueError, match=f"expected {message} of shape"):
            run(PLAN, *wrong)
    with pytest.raises(ValueError, match=r"carry\.past_CHN of shape"):
        run(PLAN, columns, series, whole, carry=Carry.fresh(PLAN, len(LENGTHS) + 1))


def test_nothing_to_do_is_done(src: tuple[Array, Series]) -> None:
    out = np.full((len(COLUMNS), 4), 3.0)
    run_tiles(PLAN, src[0][:, :4], Series(np.zeros(2, np.int64), np.zeros(2, np.int64)), out)
    assert (out == 3.0).all()


def test_the_cache_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compile.cache_folder()
    assert folder.is_relative_to(tmp_path) and stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert not compile.cache_folder().is_relative_to(tmp_path), "a link is not a folder of ours"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert compile.cache_folder() == tmp_path / "mine"


RACE = """
import numpy as np
from pipeline.indicators import Spec, plan_of, resolve
from pipeline.recurrence.compile import addresses, compiled
kernels = [p.kernel for p in plan_of(resolve([Spec(indicator="roc"), Spec(indicator="obv")])).passes]
assert addresses(kernels).all()
out = np.zeros((1, 50, 1))
compiled(kernels[0])(np.arange(1.0, 51.0).reshape(1, 50, 1), np.array([10.0]), np.zeros((1, 1)), out, 10)
print(out[0, -1, 0])
print(sum(sum(compiled(k).stats.cache_hits.values()) for k in kernels))
"""


def test_processes_share_a_cold_cache_without_a_race(tmp_path: Path, root: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(root)}
    started = [
        subprocess.Popen([sys.executable, "-c", RACE], env=env, cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0].split("\n") for process in started]
    assert said[0][0] == said[1][0] == str(50 / 40 - 1)
    assert sum(int(lines[1]) for lines in said) == 2, "each kernel is compiled by one process and loaded by the other"
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def _double(x_CTS: Array, p: Array, state_KS: Array, out_OTS: Array, first: int) -> None:
    for t in range(first, x_CTS.shape[1]):
        for s in range(x_CTS.shape[2]):
            out_OTS[0, t, s] = p[0] * x_CTS[0, t, s]
            out_OTS[1, t, s] = math.nan


def test_a_plan_needs_no_indicator() -> None:
    """The drivers know kernels only; outputs that nobody stores go nowhere."""
    plan = Plan(
        (Pass(_double, 1, 1, (2.0,), 1, 2, 0, 0, (Write(0, 0), Write(0, 1, over=1), Write(0, 2, over=2))),), 2, 0
    )
    src = np.stack([np.full(10, 4.0), np.arange(10.0)])
    out = np.empty((3, 10))
    run(plan, src, Series(np.array([0, 3]), np.array([3, 7])), out)
    np.testing.assert_array_equal(out, [2 * src[1], src[1] / 2, src[1] / 2 - 1])
