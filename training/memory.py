"""What training takes of the memory of its device, said before it starts, and how running out of it is recognised."""

from __future__ import annotations

import ctypes
import mmap
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SAID = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "could not create a ")
_SMALL = (16, 64)  # windows of the batches from which the memory of a larger one is told
_HEAP = 1.8  # of the heap to its tensors; measured: 26 trainings on a CPU took 0.8 to 1.3 of what it tells
_MAPPED = 32 << 20  # bytes from which glibc maps a block of its own and gives it back at once
_LOOKED_AT = 1 << 17  # bytes of a storage from which its pages are looked at
_ATTENTION = re.compile(r"_scaled_dot_product_(\w+?)_?attention(?!.*backward)")
_ADAM = 2  # moments kept for each weight
_BEST = 1  # copy of the weights of the best epoch, on the host


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's memory was too small.

    oneDNN, which convolves on CPUs, says no more than that it could not create a primitive.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID)


def release(device: torch.device) -> None:
    """Give freed memory back, so that other allocators (of kernels, of libraries) find some."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc
        trim(0)


@dataclass(frozen=True)
class Forecast:
    """Say what training is going to take, bytes: the rows and targets that stay, the weights with their gradients and
    moments, and a batch with all that its backward pass needs. attention : the backend of scaled_dot_product_attention
    that the batches took (flash, efficient, cudnn), empty for plain operations.
    """

    data: int
    weights: int
    batch: int
    free: int
    attention: str

    @property
    def total(self) -> int:
        return self.data + self.weights + self.batch

    def text(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name) / 1e6:,.0f} MB" for name in ("data", "weights", "batch"))
        attention = f"; attention: {self.attention}" if self.attention else ""
        return f"memory forecast: {self.total / 1e6:,.0f} MB ({parts}); free {self.free / 1e6:,.0f} MB{attention}"


def touched(storage: torch.UntypedStorage) -> int:
    """Return the bytes of a storage on a CPU whose pages are in memory: those that were never written take none."""
    start = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = (storage.data_ptr() + storage.nbytes() - start) // mmap.PAGESIZE
    mincore = getattr(ctypes.CDLL(None), "mincore", None)
    here = np.zeros(max(pages, 0), np.uint8)
    where = (ctypes.c_void_p(start), ctypes.c_size_t(pages * mmap.PAGESIZE), ctypes.c_void_p(here.ctypes.data))
    if pages <= 0 or mincore is None or mincore(*where):
        return storage.nbytes()
    return storage.nbytes() - mmap.PAGESIZE * int((here & 1 == 0).sum())


class Peak(TorchDispatchMode):
    """Follow all storages that operations make, as long as they live: `events` has the number of a storage when it
    comes and its complement when it goes; sizes and touched bytes (on a CPU) are by number.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[int] = []
        self.sizes: list[int] = []
        self.touched: list[int] = []
        self.attention = ""
        self._held: dict[int, tuple[int, weakref.ref[Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if found := _ATTENTION.match(func.__name__):
            self.attention = found[1]
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._hold(leaf.untyped_storage())
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor):
                self._look(leaf.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, number = storage._cdata, len(self.sizes)
        if key in self._held:
            return

        def gone(_: object) -> None:
            del self._held[key]
            self.events.append(~number)

        self._held[key] = number, weakref.ref(storage, gone)
        self.events.append(number)
        self.sizes.append(storage.nbytes())
        self.touched.append(storage.nbytes())

    def _look(self, storage: torch.UntypedStorage) -> None:
        held = self._held.get(storage._cdata)
        if held and storage.device.type == "cpu" and storage.nbytes() >= _LOOKED_AT:
            self.touched[held[0]] = touched(storage)

    def most(self, weigh_S: Sequence[float]) -> float:
        """Return the most that was held at once of storages that weigh so much each."""
        now = most = 0.0
        for event in self.events:
            now += weigh_S[event] if event >= 0 else -weigh_S[~event]
            most = max(most, now)
        return most


def heap(few: Peak, more: Peak, batch: int) -> float:
    """Return what the storages of a batch of so many windows take of a CPU's memory under glibc, told from two small
    batches: sizes are lines in the number of windows.

    A block of 32 MiB or more is a mapping: its touched pages, as long as it lives. Smaller ones lie in the heap, whose
    holes stay in memory and do not serve every later block: it grows to about _HEAP times the tensors in it, a mean of
    what was measured.
    """
    far = (batch - _SMALL[0]) / (_SMALL[1] - _SMALL[0])
    same = len(few.sizes) == len(more.sizes)  # else other operations were chosen: all in proportion to the windows
    least = few.sizes if same else [size * _SMALL[0] // _SMALL[1] for size in more.sizes]
    weigh_S: list[float] = []
    for small, large, here in zip(least, more.sizes, more.touched, strict=True):
        size = max(small + far * (large - small), 0.0)
        weigh_S.append(size * (here / large if large else 1.0) * (1.0 if size >= _MAPPED else _HEAP))
    return more.most(weigh_S)


def watched(model: torch.nn.Module, x_BLF: torch.Tensor, precision: torch.dtype | None) -> Peak:
    """Return what the forward and backward pass of a batch take at most beside the batch and the weights.

    The model is left as it was, without gradients and with its chance put back.
    """
    random = getattr(model, "random", None)
    before = random.get_state() if random is not None else None
    if x_BLF.device.type == "cpu":
        release(x_BLF.device)  # pages in memory are this batch's, not left over
    peak = Peak()
    try:
        with peak:
            with torch.autocast(x_BLF.device.type, dtype=precision, enabled=precision is not None):
                score = model(x_BLF)
            score.float().square().sum().backward()
            del score
    finally:
        model.zero_grad(set_to_none=True)
        if random is not None:
            random.set_state(before)
    return peak


def forecast(
    model: torch.nn.Module, shape_LF: tuple[int, int], batch: int, data: int, precision: torch.dtype | None
) -> Forecast:
    """Predict the peak of training `model` on batches of so many windows (L, F).

    The memory of a batch is told from two small ones, on a GPU as a line in its size, on a CPU see `heap`. data : bytes
    of what stays on the device.
    """
    device = next(model.parameters()).device
    model.train()
    few, more = (watched(model, torch.zeros((n, *shape_LF), device=device), precision) for n in _SMALL)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    inputs = 4 * shape_LF[0] * shape_LF[1] * batch
    if device.type == "cpu":
        used = heap(few, more, batch) + inputs - weights  # gradients are counted with the weights
        kept = weights * (2 + _ADAM + _BEST)
        return Forecast(data, kept, int(max(used, inputs)), psutil.virtual_memory().available, more.attention)
    small, large = (peak.most(peak.sizes) for peak in (few, more))
    each = (large - small) / (_SMALL[1] - _SMALL[0])
    rest = max(small - each * _SMALL[0] - weights, 0)
    free = torch.cuda.mem_get_info(device)[0]
    return Forecast(data, weights * (2 + _ADAM), int(rest + each * batch) + inputs, free, few.attention)
