"""The features stage on a small lake, over workers that are threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster

from pipeline.features import FeatureSection, features
from pipeline.job import Job
from pipeline.labels import LabelSection
from storage.emit import Emit, silent

NAMES = [f"{i:06d}" for i in range(12)]
LABELS = LabelSection(horizons=(1, 5))


@dataclass
class Threads:
    """Stand where the cluster stands, over workers that are threads of this process; as a context, end them."""

    threads: int = 2
    device: Literal["cpu"] = "cpu"
    backend: Literal["pandas"] = "pandas"
    used: Client | None = None
    prefixes: tuple[str, ...] = ()

    def client(self) -> Client:
        if self.used is None:
            self.used = Client(
                LocalCluster(n_workers=1, threads_per_worker=self.threads, processes=False, dashboard_address=":0")
            )
        return self.used

    def job(self, out: Path, inputs: dict[str, Path], emit: Emit = silent) -> Job:
        return Job(out, inputs, cast(Any, self), emit)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        if self.used is not None:
            local = self.used.cluster
            self.used.close()
            local.close()


def stage(
    folder: Path, cluster: Threads, section: FeatureSection | None = None, *, emit: Emit = silent, out: str = "features"
) -> dict[str, Any]:
    (folder / out).mkdir(exist_ok=True)
    job = cluster.job(folder / out, {"ingest": folder / "ingest"}, emit)
    return features(job, section or FeatureSection(), LABELS)


def rows(folder: Path, out: str = "features") -> Any:
    tables = [pq.read_table(path) for path in sorted((folder / out / "blocks").glob("*.parquet"))]
    return pa.concat_tables(tables).sort_by([("symbol", "ascending"), ("ts", "ascending")]).to_pandas()
