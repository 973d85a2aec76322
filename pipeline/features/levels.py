"""What computes the columns: plain libraries, the kernels in this process, the kernels on Dask workers or on GPUs.

The kernels give the same bits at numba and dask; pandas and polars are there to compare with and agree within the
tolerances that the indicators declare, as far as they can express them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..cluster import Cluster
from ..indicators import Column, IndicatorError
from ..indicators.libraries import LIBRARIES, check
from ..receipt import Receipt
from .section import FeatureError, FeatureSection, stored

SMALL = 20_000_000  # values; below it a cluster takes longer to start than the columns to compute


class Level(NamedTuple):
    """Name a level and say in one line what was chosen and why."""

    name: str
    said: str


def possible(section: FeatureSection, device: str) -> None:
    """Raise FeatureError for cuda without a GPU."""
    if section.level == "cuda" and device != "gpu":
        raise FeatureError(
            "expected a GPU for features.level cuda, got none; use --features.level auto, or see doctor for what is "
            "missing"
        )


def chosen(section: FeatureSection, receipt: Receipt, cluster: Cluster, columns: Sequence[Column]) -> Level:
    """Choose the level by device, cores and size, or take the one that is forced. Raises FeatureError for cuda without
    a GPU and for a library that is not installed or cannot express a column.
    """
    read = section.interval if section.interval in receipt.rows else receipt.finer(section.interval)
    rows = receipt.rows.get(read, 0)
    size = f"{rows:,} bars of {read} x {len(columns)} columns, {cluster.cores} cores, device {cluster.device}"
    possible(section, cluster.device)
    if section.level != "auto":
        if section.level in LIBRARIES:
            try:
                check(section.level, stored(columns))
            except IndicatorError as error:
                raise FeatureError(f"{error} (--features.level numba)") from error
            said = f"features.level {section.level} as asked, all periods at once, to compare with the kernels: {size}"
            return Level(section.level, said)
        return Level(section.level, f"features.level {section.level} as asked: {size}")
    if cluster.device == "gpu":
        return Level("cuda", f"features.level auto: cuda, because there is a GPU: {size}")
    if cluster.started or cluster.section.address or cluster.section.max_workers > 1:
        return Level("dask", f"features.level auto: dask, because its workers are there: {size}")
    if rows * len(columns) < SMALL:
        return Level("numba", f"features.level auto: numba in this process, too little for a cluster: {size}")
    return Level("dask", f"features.level auto: dask: {size}")
