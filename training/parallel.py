"""One network on several processes, each with its share of every step's windows (DistributedDataParallel).

Gradients are averaged before the optimiser moves, so all ranks hold the same weights at every step and the windows of a
step are those that one process would take. gloo between CPUs, NCCL between GPUs.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=2)  # how long a rank waits: the first one fits the baselines, judges and writes alone
MEETING = timedelta(seconds=60)  # how long it waits for them to begin


class RankLost(Exception):
    """The connection to another rank broke, or it never came."""


class Ranks:
    """One of `count` processes that train together, `beside` of them on this machine; alone, it does nothing."""

    def __init__(self, rank: int = 0, count: int = 1, beside: int = 1) -> None:
        self.rank, self.count, self.beside = rank, count, beside

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, group: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        """Return this rank's rows of a step and their weight, which is 0 where there are fewer rows than ranks: a rank
        cannot stay away, because the others wait for its gradients.
        """
        mine = group[self.rank :: self.count]
        return (mine, 1.0) if len(mine) else (group[:1], 0.0)

    def wrap(self, model: Any, device: torch.device) -> Any:
        """Return what is called instead of the model."""
        if self.count == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def apart(self, forward: Any, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Keep gradients to oneself until the last part of a step."""
        return contextlib.nullcontext() if self.count == 1 or last else forward.no_sync()

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over the ranks."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def told(self, values: list[float], device: torch.device) -> list[float]:
        """Return what the first rank says."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.broadcast(tensor, 0)
        return [float(value) for value in tensor.cpu()]

    def each(self, state: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
        """Return the states of all ranks' generators; every rank must call it."""
        if self.count == 1:
            return [state]
        found = [torch.empty_like(state, device=device) for _ in range(self.count)]
        dist.all_gather(found, state.to(device))
        return [one.cpu() for one in found]


@contextlib.contextmanager
def ranks(rank: int, count: int, address: str, device: str) -> Iterator[Ranks]:
    """Join `count` processes that meet at `address` (tcp://host:port of the first one) for as long as the block runs.

    RankLost where one of the others ended or never came.
    """
    if count == 1:
        yield Ranks()
        return
    backend, place = "nccl" if device == "gpu" else "gloo", urlsplit(address)
    try:
        store = dist.TCPStore(str(place.hostname), int(place.port or 0), count, rank == 0, MEETING)  # type: ignore[attr-defined]
        store.add(here := f"ranks on {socket.gethostname()}", 1)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
        dist.barrier()  # all are counted
        yield Ranks(rank, count, store.add(here, 0))
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise RankLost(str(error)) from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
