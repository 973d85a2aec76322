"""How torch uses this machine: threads and mixed precision."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from .precision import resolved_precision
from .section import ModelName, TrainSection

_WIDE = 128  # below, threads mostly wait for each other: one is 1.2 to 1.6 times as fast on two idle cores


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[int]:
    """Set torch's threads (0 = all cores of this process) and restore them: Dask's nanny exports OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    chosen = count or len(os.sched_getaffinity(0))
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def threads_for(name: ModelName, train: TrainSection, beside: int = 1) -> int:
    """Return the threads for a model where none are asked for; 0 = all cores. beside : ranks that share them."""
    narrow = name == "ridge" or (name == "lstm" and train.hidden_size < _WIDE)
    share = max(1, len(os.sched_getaffinity(0)) // beside) if beside > 1 else 0
    return train.threads or (1 if narrow else share)


def autocast_type(train: TrainSection, device: str, name: ModelName) -> tuple[torch.dtype | None, str]:
    """Return the type of mixed precision of a network (None = float32) and its name. Raises PrecisionError."""
    precision = resolved_precision(train, device)
    if precision == "partly":  # a transformer took 1.2 to 1.6 times as long in bf16, an LSTM half
        precision = "off" if name == "transformer" else "bf16"
    return {
        "off": (None, "float32"),
        "bf16": (torch.bfloat16, "bf16"),
        "fp16": (torch.float16, "fp16 with a gradient scaler"),
    }[precision]
