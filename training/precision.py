"""What `train.mixed_precision: auto` means on this machine, known without torch: it belongs in the keys of results.

Apart from the trainer, because the client settles it for all workers and does not import torch.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .section import PredictSection, Range, TrainSection

Precision = Literal["off", "partly", "bf16", "fp16"]
_UNITS: dict[str, Precision] = {"amx_bf16": "bf16", "avx512_bf16": "partly"}  # flag of a CPU, the best first
_CPUINFO = Path("/proc/cpuinfo")
_AMPERE, _VOLTA = 8, 7  # major compute capability from which bf16, and from which fp16, is fast


class PrecisionError(ValueError):
    """A precision that the device does not have."""


def resolved_precision(section: TrainSection, device: str) -> Precision:
    """Return the precision that training on `device` ("cpu" or "gpu") takes; PrecisionError for fp16 on a CPU.

    `auto` is bf16 where the hardware multiplies it natively, on a CPU with AVX-512 alone partly, fp16 on GPUs that only
    have that, else off.
    """
    asked = section.mixed_precision
    if asked == "fp16" and device == "cpu":
        raise PrecisionError("expected a GPU because train.mixed_precision is 'fp16', got a CPU; use off, bf16 or auto")
    if asked != "auto":
        return asked
    if device == "cpu":
        return next((precision for flag, precision in _UNITS.items() if flag in _cpu_flags()), "off")
    major = _least_capability()
    return "bf16" if major >= _AMPERE else "fp16" if major >= _VOLTA else "off"


def check_precision(section: TrainSection, device: str, space: Mapping[str, Range] | None = None) -> None:
    """Raise PrecisionError when training, or a trial of the search `space`, asks for what `device` does not have."""
    drawn = (space or {}).get("mixed_precision")
    for value in (section.mixed_precision, *(drawn.choices if drawn else ())):
        resolved_precision(section.model_copy(update={"mixed_precision": value}), device)


def check_scoring(section: PredictSection, device: str) -> None:
    """Raise PrecisionError when scoring on `device` cannot have predict.precision."""
    needs = {"fp16": "gpu", "int4": "gpu", "int8": "cpu"}.get(section.precision, device)
    if needs != device:
        there = "float32, bf16 or int8" if device == "cpu" else "float32, bf16, fp16 or int4"
        raise PrecisionError(
            f"expected a {needs.upper()} because predict.precision is '{section.precision}', got a {device.upper()}; "
            f"use {there}"
        )
    if section.precision == "int4" and importlib.util.find_spec("torchao") is None:
        raise PrecisionError(
            "expected torchao because predict.precision is 'int4', got no such package; install the extra: "
            "pip install -e '.[quantise]'"
        )


def settled(section: TrainSection, device: str) -> TrainSection:
    """Return the section with its precision resolved, so that every worker computes what the key says."""
    return section.model_copy(update={"mixed_precision": resolved_precision(section, device)})


@functools.cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return frozenset()  # not Linux: float32 is right everywhere
    return frozenset(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


@functools.cache
def _least_capability() -> int:
    """Return the least major compute capability of the GPUs that the driver shows, without touching CUDA; 0 = none.

    The least, because any of them may get the work.
    """
    if importlib.util.find_spec("pynvml") is None:
        return 0
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return min((int(pynvml.nvmlDeviceGetCudaComputeCapability(handle)[0]) for handle in handles), default=0)
    finally:
        pynvml.nvmlShutdown()
