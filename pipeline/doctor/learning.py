"""Can the device compute what training asks for?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .finding import Finding

if TYPE_CHECKING:
    from pipeline.config import Config


def precision(config: Config) -> Iterator[Finding]:
    """Compare train.mixed_precision, and what a search may draw for it, with the device that cluster.device gives."""
    # Late, because the doctor also runs where nothing is installed; then there is no configuration.
    from pipeline.cluster import gpu_count
    from training.precision import PrecisionError, check_precision, resolved_precision

    device = "gpu" if config.cluster.device != "cpu" and gpu_count() else "cpu"
    if config.cluster.device == "gpu" and device == "cpu":
        return  # the finding about GPUs says what is missing
    try:
        check_precision(config.train, device, config.search.space if config.run.tune else None)
    except PrecisionError as error:
        yield Finding("precision", "fail", str(error), "set train.mixed_precision=auto")
        return
    yield Finding("precision", "ok", f"{resolved_precision(config.train, device)} on the {device}")
