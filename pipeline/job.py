"""What a stage gets besides its sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.emit import Emit

if TYPE_CHECKING:  # a stage's result does not depend on how workers are started
    from .cluster import Cluster

Measure = Callable[[Callable[..., Any]], Callable[..., Any]]


def unmeasured(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return the work as it is."""
    return work


@dataclass(frozen=True)
class Job:
    """Hold one stage's directory, its inputs, the cluster and a way to tell what happens.

    `out` may hold what a killed attempt left: reuse or overwrite it; the content must not depend on it. anew : take
    nothing of what other results left beside `out`. measured : gives what is run for a task, so that it can be profiled
    where it runs.
    """

    out: Path
    inputs: Mapping[str, Path]
    cluster: Cluster
    emit: Emit
    anew: bool = False
    measured: Measure = unmeasured
