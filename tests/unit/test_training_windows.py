"""Windows cross nothing, and a batch holds the same bits wherever the matrix lies and however many threads fill it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.feature_blocks import write_blocks
from training.columns import DataError, read_columns
from training.gather import gather
from training.panel import Panel, matrix, read_panel
from training.windows import DAY_US, Windows, cut, known, run_lengths, window_ends

SMALL = {"symbols": 6, "days": 60, "features": 3, "groups": 2}


def panel_of(symbol: list[int], ts: list[int], member: list[bool] | None = None) -> Panel:
    """Make a panel of one feature, known everywhere."""
    n = len(symbol)
    return Panel(
        symbols=tuple("abcd"),
        features=("x",),
        symbol_N=np.array(symbol, np.int32),
        ts_N=np.array(ts, np.int64),
        x_NF=np.zeros((n, 1), np.float32),
        y_NH=np.zeros((n, 1), np.float32),
        end_N=np.array(ts, np.int64),
        member_N=np.array(member if member else [True] * n),
    )


def random_matrix(rows: int = 4000, width: int = 7, seed: int = 0) -> np.ndarray:
    """Return features of very different sizes, one that never moves and one that moves in a few rows only."""
    x = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    x[:, 1] = 3.25
    x[:, 2] = x[:, 2] * 100 + 40
    x[:, 3] = np.where(np.arange(rows) % 97 == 0, 1.0, -5.0)
    return x


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(rows, st.integers(1, 6), st.sampled_from([0.0, 1.0, 2.5, 5.0]))
def test_windows_are_those_that_a_loop_finds(
    drawn: list[tuple[int, int, bool, bool]], length: int, max_gap_days: float
) -> None:
    """The gap rule, symbols, unknown rows and membership, row by row."""
    drawn = sorted(drawn, key=lambda r: r[0])
    symbol, ok = [r[0] for r in drawn], np.array([r[2] for r in drawn])
    ts = np.cumsum([r[1] * DAY_US // 2 for r in drawn]).tolist()  # steps of half days
    panel = panel_of(symbol, ts, [r[3] for r in drawn])
    runs = []
    for end in range(len(drawn)):
        run = 0
        while end - run >= 0 and ok[end - run] and symbol[end - run] == symbol[end]:
            run += 1
            before = end - run
            if before >= 0 and max_gap_days and ts[before + 1] - ts[before] > max_gap_days * DAY_US:
                break
        runs.append(run)
    assert run_lengths(panel, ok, max_gap_days).tolist() == runs
    expected = [i for i, run in enumerate(runs) if run >= length and panel.member_N[i]]
    if expected:
        assert window_ends(panel, ok, length, max_gap_days).tolist() == expected
    else:
        with pytest.raises(DataError, match=f"{length} complete bars in a row"):
            window_ends(panel, ok, length, max_gap_days)


@pytest.mark.parametrize("length", [1, 7, 20])
@pytest.mark.parametrize("place", ["device", "host"])
def test_a_batch_is_the_rows_before_each_end(tmp_path: Path, length: int, place: str) -> None:
    panel = read_panel(write_blocks(tmp_path, **SMALL), read_columns(tmp_path))
    ends = window_ends(panel, known(panel.x_NF), length, 15)
    order = np.random.default_rng(0).permutation(ends)[:50]
    ((batch, at),) = Windows(panel.x_NF, length, "cpu", place=place).batches([order])
    naive = np.stack([panel.x_NF[e - length + 1 : e + 1] for e in order])
    assert np.array_equal(batch.numpy(), naive) and np.array_equal(at.numpy(), order)
    assert np.isfinite(naive).all()
    for e in order:
        assert len(set(panel.symbol_N[e - length + 1 : e + 1].tolist())) == 1


def test_a_window_longer_than_every_history_names_what_to_do(tmp_path: Path) -> None:
    panel = read_panel(write_blocks(tmp_path, **SMALL), read_columns(tmp_path))
    with pytest.raises(DataError, match=r"58 complete bars .* at most 57 .*gap_days \(15\).*feature_1 \(95%"):
        window_ends(panel, known(panel.x_NF), 58, 15)


def mapped(x: np.ndarray, folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Return the same matrix as a file, as it is read when memory is short."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    out = matrix(*x.shape, folder)
    assert isinstance(out, np.memmap)
    out[:] = x
    return out


@pytest.mark.parametrize("normalise", [False, True])
def test_a_matrix_in_a_file_gives_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalise: bool
) -> None:
    x = random_matrix()
    parts = cut(np.random.default_rng(1).permutation(np.arange(19, 4000)), 300)
    parts[3] = np.concatenate([parts[3], parts[4]])  # a larger one after smaller ones
    near = Windows(x, 20, "cpu", normalise=normalise)
    far = Windows(mapped(x, tmp_path, monkeypatch), 20, "cpu", normalise=normalise)
    assert (near.place, far.place) == ("device", "host")
    here, there = near.batches(parts), far.batches(parts)
    for part in parts:
        (a, a_ends), (b, b_ends) = next(here), next(there)
        assert torch.equal(a, b), "and the batch before the last one asked for is not needed any more"
        assert a_ends.tolist() == b_ends.tolist() == part.tolist()
    assert next(here, None) is None and next(there, None) is None
    assert list(far.batches([])) == list(near.batches([])) == []


def test_a_batch_holds_until_the_next_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are made ahead must not be written over the one in use, however long its use takes."""
    x, length = random_matrix(), 20
    parts = cut(np.random.default_rng(2).permutation(np.arange(19, 4000)), 100)
    made = [threading.Event() for _ in parts]
    windows = Windows(mapped(x, tmp_path, monkeypatch), length, "cpu")
    whole = windows._gathered

    def gathered(end_B: np.ndarray, slot: int) -> torch.Tensor:
        out = whole(end_B, slot)
        made[next(i for i, part in enumerate(parts) if part is end_B)].set()
        return out

    monkeypatch.setattr(windows, "_gathered", gathered)
    for number, (batch, _) in enumerate(windows.batches(parts)):
        if number + 1 < len(parts):
            assert made[number + 1].wait(10), "the next one is made while this one is used"
        naive = np.stack([x[e - length + 1 : e + 1] for e in parts[number]])
        assert np.array_equal(batch.numpy(), naive)


def test_an_abandoned_or_failed_epoch_leaves_no_thread() -> None:
    def running() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("batches")]

    windows = Windows(random_matrix(), 20, "cpu", place="host")
    batches = windows.batches(cut(np.arange(19, 4000), 50))
    next(batches)
    assert running()
    batches.close()
    assert not running()
    with pytest.raises(RuntimeError, match="stop"):
        for _ in windows.batches(cut(np.arange(19, 4000), 50)):
            raise RuntimeError("stop")
    assert not running()
    broken = windows.batches([np.arange(19, 40), None])
    next(broken)
    with pytest.raises(TypeError):
        next(broken)
    assert not running()


@pytest.mark.parametrize("length", [2, 20, 250])
def test_normalised_is_the_z_score_of_each_window(length: int) -> None:
    x = random_matrix()
    ends = np.arange(length - 1, 4000, 13)
    out = np.empty((len(ends), length, x.shape[1]), np.float32)
    gather(x, ends, out, normalise=True, threads=1)
    for b, end in enumerate(ends):
        window = x[end - length + 1 : end + 1].astype(np.float64)
        flat = np.ptp(window, axis=0) == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            naive = (window - window.mean(axis=0)) / window.std(axis=0)
        assert (out[b][:, flat] == 0).all() and flat[1]
        np.testing.assert_allclose(out[b][:, ~flat], naive[:, ~flat], rtol=1e-5, atol=1e-5)


def test_a_window_of_one_bar_is_normalised_to_nothing() -> None:
    out = np.full((5, 1, 7), 9.0, np.float32)
    gather(random_matrix(), np.arange(5), out, normalise=True, threads=1)
    assert (out == 0).all()


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("count", [1, 2, 1999, 3980])
def test_threads_change_no_bit(normalise: bool, count: int) -> None:
    x, ends = random_matrix(), np.random.default_rng(3).integers(19, 4000, count)
    found = []
    for threads in (1, 2, 3, 7):
        out = np.full((count, 20, 7), np.nan, np.float32)
        gather(x, ends, out, normalise=normalise, threads=threads)
        found.append(out.tobytes())
    assert len(set(found)) == 1


SCRIPT = """
import json
import numpy as np
from numba import cuda
from training.gather import _on_gpu, gather
from tests.unit.test_training_windows import random_matrix

assert "simulator" in cuda.jit.__module__
x, found = random_matrix(200, 5), {}
for length in (1, 2, 9):
    ends = np.random.default_rng(length).permutation(np.arange(length - 1, 200))[:11]
    for normalise in (False, True):
        host, lanes = np.full((2, len(ends), length, 5), 7.0, np.float32)
        gather(x, ends, host, normalise=normalise, threads=1)
        _on_gpu()[-(-host.shape[0] * host.shape[2] // 32), 32](x, ends, lanes, normalise)
        found[f"{length} {normalise}"] = [host.tobytes() == lanes.tobytes(), float(np.abs(host - lanes).max())]
print(json.dumps(found))
"""


def test_the_kernel_of_the_gpu_gives_the_bits_of_the_host(root: Path) -> None:
    """In Numba's CUDA simulator, which is chosen before Numba is imported, hence the subprocess."""
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 6 and [name for name, (same, _) in found.items() if not same] == [], found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("place", ["device", "host"])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_batch_on_a_gpu_is_the_same(place: str, normalise: bool) -> None:
    x, parts = random_matrix(), cut(np.random.default_rng(4).permutation(np.arange(19, 4000)), 300)
    there = Windows(x, 20, "gpu", normalise=normalise, place=place).batches(parts)
    for (a, a_ends), (b, b_ends) in zip(there, Windows(x, 20, "cpu", normalise=normalise).batches(parts), strict=True):
        assert torch.equal(a_ends.cpu(), b_ends)
        assert torch.allclose(a.cpu(), b, rtol=1e-5, atol=1e-5) if normalise else torch.equal(a.cpu(), b)
