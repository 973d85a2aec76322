"""Windows of one matrix of rows, batch by batch, without a Python object a sample.

A window is named by the row at which it ends and is the L rows up to and including it. It never crosses a symbol, an
incomplete row or a gap in time.

Shapes: N rows of all symbols sorted by (symbol, ts), F features, W windows, B batch, L window length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .columns import DataError
from .gather import gather, gather_on_gpu
from .panel import Panel

Place = Literal["device", "host"]
DAY_US = 86_400_000_000
_CHUNK = 1 << 18
_ROOM = 0.5  # share of the free memory of a GPU that the matrix may take; the rest is the step's
_AHEAD = 2  # batches made while one is used


def known(x_NF: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say for each row (N,) whether all features are finite, a chunk at a time."""
    out_N = np.empty(len(x_NF), np.bool_)
    for a in range(0, len(x_NF), _CHUNK):
        out_N[a : a + _CHUNK] = np.isfinite(x_NF[a : a + _CHUNK]).all(axis=1)
    return out_N


def run_lengths(panel: Panel, known_N: NDArray[np.bool_], max_gap_days: float) -> NDArray[np.int64]:
    """Count the complete rows (N,) of the same symbol that end at each row without a break; 0 at an incomplete row.

    A break is an incomplete row or more than `max_gap_days` (0 = any) from one bar's end to the next one's.
    """
    at_N = np.arange(len(known_N), dtype=np.int64)
    fresh_N = np.ones(len(known_N), np.bool_)
    fresh_N[1:] = panel.symbol_N[1:] != panel.symbol_N[:-1]
    if max_gap_days:
        fresh_N[1:] |= np.diff(panel.ts_N) > max_gap_days * DAY_US
    before_N = np.where(fresh_N, at_N - 1, -1)
    before_N[~known_N] = at_N[~known_N]
    return at_N - np.maximum.accumulate(before_N)


def window_ends(panel: Panel, known_N: NDArray[np.bool_], length: int, max_gap_days: float) -> NDArray[np.int64]:
    """Return the rows (W,), members of the universe, that end `length` complete bars in a row; DataError when there is
    none.
    """
    runs_N = run_lengths(panel, known_N, max_gap_days)
    ends_W = np.flatnonzero((runs_N >= length) & panel.member_N)
    if ends_W.size == 0:
        best = int(np.argmax(runs_N))
        share_F = [float(np.isfinite(panel.x_NF[:, f]).mean()) for f in range(len(panel.features))]
        poor = ", ".join(f"{panel.features[f]} ({share_F[f]:.0%} known)" for f in np.argsort(share_F)[:3])
        raise DataError(
            f"expected a symbol with {length} complete bars in a row, got at most {int(runs_N[best])} "
            f"({panel.symbols[panel.symbol_N[best]]}); shorten train.window, ingest a longer history, raise "
            f"train.max_gap_days ({max_gap_days:g}), or drop the sparsest features: {poor}"
        )
    return ends_W


class Windows:
    """Give batches of windows of a matrix: on the device that holds it, or from the host while the device computes.

    place "device": x_NF lies where the model is and a batch is one gather there. "host": it stays where it is, in
    memory or a memory-mapped file; batches are gathered ahead on a thread and sent through pinned memory on a stream of
    their own. normalise : each feature of each window has mean 0 and deviation 1 over the window, see gather.py.
    """

    def __init__(
        self,
        x_NF: NDArray[np.float32],
        length: int,
        device: str,
        *,
        normalise: bool = False,
        place: Place | None = None,
        threads: int = 1,
    ) -> None:
        self.length, self.normalise, self.threads = length, normalise, threads
        self.device = torch.device("cuda" if device == "gpu" else "cpu")
        self.place = place or fitting(x_NF, self.device)
        self.host_NF = x_NF
        self.x_NF = to_device(torch.from_numpy(x_NF), self.device) if self.place == "device" else torch.empty(0)
        self._buffers: dict[int, torch.Tensor] = {}

    @property
    def n_features(self) -> int:
        return int(self.host_NF.shape[1])

    def batches(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (x_BLF, end_B), on the device, for each part: the windows that end at its rows (B,) int64.

        A batch holds until the next one is asked for: its memory is used again.
        """
        if self.place == "host":
            yield from self._ahead(parts)
        elif self.device.type == "cpu":
            for end_B in parts:
                yield self._gathered(end_B, 0), torch.from_numpy(end_B)
        else:
            ends = to_device(torch.from_numpy(np.concatenate(parts)), self.device) if parts else torch.empty(0)
            for end_B in ends.split([len(part) for part in parts]):
                out_BLF = torch.empty((len(end_B), self.length, self.n_features), device=self.device)
                gather_on_gpu(self.x_NF, end_B, out_BLF, normalise=self.normalise)
                yield out_BLF, end_B

    def _gathered(self, end_B: NDArray[np.int64], slot: int) -> torch.Tensor:
        """Return windows on the host, in the memory of a slot."""
        shape = (len(end_B), self.length, self.n_features)
        held = self._buffers.get(slot)
        if held is None or len(held) < len(end_B):
            with torch.inference_mode(False):  # memory first needed for scoring must serve training as well
                held = self._buffers[slot] = torch.empty(shape, pin_memory=self.device.type == "cuda")
        out_BLF = held[: len(end_B)]
        gather(self.host_NF, end_B, out_BLF.numpy(), normalise=self.normalise, threads=self.threads)
        return out_BLF

    def _ahead(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Gather the next batches on a thread while the caller computes, each in memory of its own."""
        cuda = self.device.type == "cuda"
        stream = torch.cuda.Stream(self.device) if cuda else None
        sent: dict[int, torch.cuda.Event] = {}

        def made(number: int) -> tuple[torch.Tensor, torch.Tensor]:
            slot, end_B = number % (_AHEAD + 1), parts[number]
            if slot in sent:
                sent[slot].synchronize()  # the copy out of this memory must have ended before it is filled again
            x_BLF, ends = self._gathered(end_B, slot), torch.from_numpy(end_B)
            if stream is None:
                return x_BLF, ends
            with torch.cuda.stream(stream):
                moved = x_BLF.to(self.device, non_blocking=True), ends.pin_memory().to(self.device, non_blocking=True)
                sent[slot] = torch.cuda.Event()
                sent[slot].record()
            return moved

        with ThreadPoolExecutor(1, "batches") as pool:
            coming: list[Future[tuple[torch.Tensor, torch.Tensor]]] = []
            try:
                for number in range(len(parts)):
                    while len(coming) < _AHEAD and number + len(coming) < len(parts):
                        coming.append(pool.submit(made, number + len(coming)))
                    x_BLF, end_B = coming.pop(0).result()
                    if stream is not None:
                        here = torch.cuda.current_stream(self.device)
                        here.wait_event(sent[number % (_AHEAD + 1)])
                        x_BLF.record_stream(here)
                        end_B.record_stream(here)
                    yield x_BLF, end_B
            finally:
                for future in coming:
                    future.cancel()


def cut(end_W: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut rows (W,) into parts of `size`, the last one maybe smaller."""
    return [end_W[a : a + size] for a in range(0, len(end_W), size)]


def whole_moments(end_W: NDArray[np.int64], ts_N: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut rows (W,), those of a moment next to each other, into parts of whole moments, each as small as `size` allows;
    the last one maybe smaller.
    """
    edges = np.append(np.flatnonzero(np.diff(ts_N[end_W])) + 1, len(end_W))
    parts: list[NDArray[np.int64]] = []
    begin = 0
    while begin < len(end_W):
        stop = int(edges[min(int(np.searchsorted(edges, begin + size)), len(edges) - 1)])
        parts.append(end_W[begin:stop])
        begin = stop
    return parts


def fitting(x_NF: NDArray[np.float32], device: torch.device) -> Place:
    """Return where a matrix is kept: on a GPU as long as half of its free memory holds it; a memory-mapped one stays
    where it is, so that its pages come in while others are used.
    """
    if device.type == "cpu":
        return "host" if isinstance(x_NF, np.memmap) else "device"
    return "device" if x_NF.nbytes < _ROOM * torch.cuda.mem_get_info(device)[0] else "host"


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a host tensor; to a GPU through pinned memory, so that the copy runs beside the host's work."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)
