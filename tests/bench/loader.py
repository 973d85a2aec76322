"""The way from rows to batches beside PyTorch's own: windows of 60 bars x 20 features out of 2,000 series x 1,260 bars.

Both sides are timed in turn in one process. PyTorch's is the better of a Dataset with `__getitem__` and one with
`__getitems__`, which makes a batch at once, each with 0, 1 and 2 workers. A batch is touched by nobody on either side.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from tests.feature_blocks import write_blocks
from training.windows import Windows, cut

from .measure import Measure

ROOT = Path(__file__).resolve().parents[2]
SERIES, BARS, FEATURES, LENGTH, BATCH = 2_000, 1_260, 20, 60, 1_024
BATCHES, FEW, REPEATS, THREADS, WORKERS = 100, 12, 15, 2, (0, 1, 2)
PANEL = {"symbols": 250, "days": 1_260, "features": 20, "groups": 4}  # of the memory's measure
OURS = """
import sys
import numpy as np
from pathlib import Path
from tests.bench.loader import peak_mb
from training.columns import read_columns
from training.panel import read_panel
from training.windows import Windows, cut, known, window_ends
import torch
before = peak_mb()
folder = Path(sys.argv[1])
panel = read_panel(folder, read_columns(folder))
ends = np.random.default_rng(0).permutation(window_ends(panel, known(panel.x_NF), 60, 0))
for x, _ in Windows(panel.x_NF, 60, "cpu").batches(cut(ends, 1024)):
    x.sum()
print(peak_mb() - before, len(ends))
"""
FRAMES = """
import sys
import numpy as np
import pandas as pd
from pathlib import Path
from tests.bench.loader import peak_mb
import torch
before = peak_mb()
frame = pd.concat([pd.read_parquet(path) for path in sorted(Path(sys.argv[1]).glob("blocks/*.parquet"))])
names = [name for name in frame.columns if name.startswith("feature_")]
frame[names] = frame[names].astype("float64")
windows = []
for _, one in frame.groupby("symbol"):
    values = one[names].to_numpy()
    for end in range(60, len(values) + 1):
        if np.isfinite(values[end - 60 : end]).all():
            windows.append(values[end - 60 : end].astype("float32"))
whole = torch.from_numpy(np.stack(windows))
count = len(windows)
del windows
for rows in torch.randperm(count).split(1024):
    whole[rows].sum()
print(peak_mb() - before, count)
"""


def peak_mb() -> float:
    """Return the largest memory that this process has had, MB."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1e3


class One(Dataset[torch.Tensor]):
    """A Dataset as it is usually written: a window an item."""

    def __init__(self, x_NF: torch.Tensor, ends: list[int]) -> None:
        self.x_NF, self.ends = x_NF, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, item: int) -> torch.Tensor:
        end = self.ends[item]
        return self.x_NF[end - LENGTH + 1 : end + 1]


class Many(One):
    """One that makes the items of a batch at once."""

    def __init__(self, x_NF: torch.Tensor, ends: list[int]) -> None:
        super().__init__(x_NF, ends)
        shape, stride = (len(x_NF) - LENGTH + 1, LENGTH, FEATURES), (FEATURES, FEATURES, 1)
        self.view = torch.as_strided(x_NF, shape, stride)
        self.starts = torch.tensor(ends) - LENGTH + 1

    def __getitems__(self, items: list[int]) -> torch.Tensor:
        return self.view[self.starts[items]]


def _kept(batch: Any) -> Any:
    return batch


def seconds(tasks: dict[str, Callable[[], int]], repeats: int = REPEATS) -> dict[str, float]:
    """Return each task's median seconds a window; they run in turn, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            windows = task()
            times[name].append((time.perf_counter() - start) / windows)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def loaders(x_NF: torch.Tensor, ends: NDArray[np.int64]) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield PyTorch's ways; workers live on from one round to the next."""
    for kind, whole in ((One, ends[: BATCH * FEW]), (Many, ends)):
        for workers in WORKERS:
            collate = _kept if kind is Many else default_collate
            loader = DataLoader(
                kind(x_NF, whole.tolist()),
                BATCH,
                num_workers=workers,
                collate_fn=collate,
                persistent_workers=workers > 0,
            )
            yield f"{kind.__name__} {workers}", lambda loader=loader: sum(len(batch) for batch in loader)


def zscored(x_NF: torch.Tensor, ends: NDArray[np.int64]) -> int:
    """Gather and normalise batch by batch with torch's operations."""
    view = torch.as_strided(x_NF, (len(x_NF) - LENGTH + 1, LENGTH, FEATURES), (FEATURES, FEATURES, 1))
    for rows in torch.from_numpy(ends - LENGTH + 1).split(BATCH):
        x_BLF = view[rows]
        deviation, mean = torch.std_mean(x_BLF, dim=1, keepdim=True, correction=0)
        x_BLF.sub_(mean).div_(deviation.clamp_(min=1e-6))
    return len(ends)


def memory(script: str, folder: Path) -> tuple[float, int]:
    """Return the MB that a new process took at most, above its imports, and the windows it saw."""
    found = subprocess.run([sys.executable, "-c", script, str(folder)], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(found.stderr)
    megabytes, windows = found.stdout.split()
    return float(megabytes), int(windows)


def run() -> Iterator[Measure]:
    torch.set_num_threads(THREADS)
    random = np.random.default_rng(0)
    x_NF = random.standard_normal((SERIES * BARS, FEATURES), dtype=np.float32)
    ends = random.permutation(SERIES * BARS - LENGTH)[: BATCH * BATCHES] + LENGTH
    plain, fused = (Windows(x_NF, LENGTH, "cpu", normalise=normalise, threads=THREADS) for normalise in (False, True))
    tensor, target = torch.from_numpy(x_NF), np.empty((THREADS, 1 << 26), np.uint8)
    source = np.ones_like(target)

    def through(windows: Windows) -> int:
        return sum(len(end_B) for _, end_B in windows.batches(cut(ends, BATCH)))

    with ThreadPoolExecutor(THREADS) as pool:

        def copied() -> int:
            list(pool.map(np.copyto, target, source))
            return target.nbytes

        peers = dict(loaders(tensor, ends))
        took = seconds({"ours": lambda: through(plain), "copy": copied, **peers})
        best = min(peers, key=lambda name: took[name])
        usual = min((name for name in peers if name.startswith("One")), key=lambda name: took[name])
        note = ", ".join(f"{name} {1 / took[name]:,.0f}/s" for name in ("ours", *peers))
        yield Measure(
            "loader.windows_vs_dataloader", took[usual] / took["ours"], 1 / took["ours"], 1 / took[usual],
            f"against the best of all, {best}: {took[best] / took['ours']:.2f}; {note}",
        )  # fmt: skip
        size = LENGTH * FEATURES * 4
        rate, bound = size / took["ours"], 1 / took["copy"]
        yield Measure("loader.copy_bound_share", rate / bound, rate, bound)
        took = seconds({"ours": lambda: through(fused), "torch": lambda: zscored(tensor, ends[: BATCH * FEW])})
        yield Measure("loader.zscore_vs_torch", took["torch"] / took["ours"], 1 / took["ours"], 1 / took["torch"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_blocks(Path(temporary), **PANEL)
        ours, windows = memory(OURS, folder)
        frames, same = memory(FRAMES, folder)
        assert windows == same, (windows, same)
        yield Measure("loader.memory_share", ours / frames, ours, frames, f"{windows:,} windows")
