"""How long the steps of an epoch take, what they wait for, and how much of the machine they use.

Nothing here waits for a GPU: its times are read where the trainer looks at the loss anyway.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import torch

EVERY_S = 0.25  # between looks at memory and GPU
FIGURES = ("step_p50_ms", "step_p95_ms", "wait_share", "peak_memory_mb", "peak_device_mb", "gpu_use")


class Meter:
    """Measure the steps of an epoch between `start` and `figures`: `begin` and `end` around each step, `read` where
    the device has been waited for. Memory and the GPU are sampled on a thread within `with`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._ms: list[float] = []
        self._began = self._waited_s = 0.0
        self._events: list[torch.cuda.Event] = []  # begin and end of the steps that are not yet read
        self._spare: list[torch.cuda.Event] = []
        self._peak = 0
        self._use: list[int] = []
        self._process = psutil.Process()
        self._stop = threading.Event()

    def __enter__(self) -> Meter:
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def start(self) -> None:
        """Begin an epoch."""
        self._ms, self._waited_s, self._peak, self._use = [], 0.0, 0, []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def begin(self) -> None:
        if self.device.type == "cuda":
            if len(self._events) % 2:  # a step before this one was broken off
                self._spare.append(self._events.pop())
            self._mark()
        else:
            self._began = time.perf_counter()

    def end(self) -> None:
        if self.device.type == "cuda":
            self._mark()
        else:
            self._ms.append((time.perf_counter() - self._began) * 1e3)

    def _mark(self) -> None:
        event = self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def waits(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield batches and count the time that is spent waiting for them."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self._waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def read(self) -> None:
        """Take over the times of steps that the GPU has finished."""
        self._ms += [a.elapsed_time(b) for a, b in zip(self._events[::2], self._events[1::2])]
        self._spare += self._events
        self._events.clear()

    def figures(self) -> dict[str, float]:
        """Return those of FIGURES that are known, of the epoch's steps in this process: step_p50_ms, step_p95_ms (on a
        GPU by its own clock), wait_share (of their time, spent waiting for batches), peak_memory_mb (resident),
        peak_device_mb (allocated by torch), gpu_use (share of time with a kernel running).
        """
        self._look()
        out = {"peak_memory_mb": self._peak / 1e6}
        if self._ms:
            out["step_p50_ms"], out["step_p95_ms"] = map(float, np.percentile(self._ms, [50, 95]))
            out["wait_share"] = min(1.0, self._waited_s * 1e3 / sum(self._ms))
        if self.device.type == "cuda":
            out["peak_device_mb"] = torch.cuda.max_memory_allocated(self.device) / 1e6
        if self._use:
            out["gpu_use"] = float(np.mean(self._use)) / 100
        return out

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)
        if self.device.type == "cuda":
            with contextlib.suppress(Exception):  # no NVML, or a part of a GPU, of which it tells no use
                self._use.append(torch.cuda.utilization(self.device))

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._look()
