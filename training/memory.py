"""What training takes of the memory of its device, said before it starts, and how running out of it is recognised."""

from __future__ import annotations

import ctypes
import re
import weakref
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SAID = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "could not create a ")
_SMALL = (16, 64)  # windows of the batches from which the memory of a larger one is told
_HEAP = 1.4  # a CPU's heap keeps pieces of freed tensors: 1.2 to 1.55 times their peak was measured for the networks
_ATTENTION = re.compile(r"_scaled_dot_product_(\w+?)_?attention(?!.*backward)")
_ADAM = 2  # moments kept for each weight


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


class Peak(TorchDispatchMode):
    """Add up the bytes of all tensors that operations make, each storage once and as long as it lives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self.attention = ""
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if found := _ATTENTION.match(func.__name__):
            self.attention = found[1]
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._hold(leaf.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return

        def gone(_: object) -> None:
            del self._held[key]
            self.now -= size

        self._held[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def watched(model: torch.nn.Module, x_BLF: torch.Tensor, precision: torch.dtype | None) -> Peak:
    """Return what the forward and backward pass of a batch take at most beside the batch and the weights.

    The model is left as it was, without gradients and with its chance put back.
    """
    random = getattr(model, "random", None)
    before = random.get_state() if random is not None else None
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

    The memory of a batch is a line in its size, which two small ones tell. data : bytes of what stays on the device.
    """
    device = next(model.parameters()).device
    model.train()
    seen = [watched(model, torch.zeros((n, *shape_LF), device=device), precision) for n in _SMALL]
    small, large = (peak.most for peak in seen)
    each = (large - small) / (_SMALL[1] - _SMALL[0])
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
    window = each + 4 * shape_LF[0] * shape_LF[1]
    rest = max(small - each * _SMALL[0] - weights, 0)  # gradients are counted with the weights
    used = (rest + window * batch) * (1.0 if cuda else _HEAP)
    return Forecast(data, weights * (2 + _ADAM), int(used), free, seen[0].attention)
