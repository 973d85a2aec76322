"""A trace of a few steps of training by torch.profiler, where one is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WAIT, WARMUP, STEPS = 2, 2, 4  # steps that are let go by, that warm the profiler up, that are recorded
TRACE, OPS = "-trace.json", "-ops.txt"
ROWS = 50
_tracing: ContextVar[profile | None] = ContextVar("tracing", default=None)


def loaded() -> None:
    """Import what the first optimiser would: seconds that are not training's, and many under a profiler."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


@contextlib.contextmanager
def traced(stem: Path) -> Iterator[None]:
    """Record steps 5 to 8 of the first network that this thread trains in the block: <stem>-trace.json
    (chrome://tracing, ui.perfetto.dev) and <stem>-ops.txt (the operators by time). Fewer where training ends before,
    no files where it has fewer than 5.
    """
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]

    def write(found: profile) -> None:
        found.export_chrome_trace(f"{stem}{TRACE}")
        by = "self_device_time_total" if cuda else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=by, row_limit=ROWS)
        Path(f"{stem}{OPS}").write_text(table, encoding="utf-8")

    plan = schedule(wait=WAIT, warmup=WARMUP, active=STEPS, repeat=1)
    with profile(
        activities=activities, schedule=plan, on_trace_ready=write, record_shapes=True, profile_memory=True
    ) as tracing:
        token = _tracing.set(tracing)
        try:
            yield
        finally:
            _tracing.reset(token)


def step() -> None:
    """Tell the trace of this thread, where there is one, that a step has ended."""
    if tracing := _tracing.get():
        tracing.step()
