"""What a stage gets besides its sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.emit import Emit

if TYPE_CHECKING:  # a stage's result does not depend on how workers are started
    from .cluster import Cluster


@dataclass(frozen=True)
class Job:
    """Hold one stage's directory, its inputs, the cluster and a way to tell what happens.

    `out` may hold what a killed attempt left: reuse or overwrite it; the content must not depend on it. anew : take
    nothing of what other results left beside `out`.
    """

    out: Path
    inputs: Mapping[str, Path]
    cluster: Cluster
    emit: Emit
    anew: bool = False
