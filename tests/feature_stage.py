"""The features stage on a small lake, over workers that are threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster

from pipeline.features.group import Maker, Order
from pipeline.features.pool import FOLDER
from pipeline.features.section import FeatureSection
from pipeline.features.stage import features
from pipeline.job import Job
from pipeline.labels import LabelSection
from pipeline.receipt import Receipt
from pipeline.universe import UniverseSection
from storage.emit import Emit, silent
from storage.lake import Backend

NAMES = [f"{i:06d}" for i in range(12)]
LABELS = LabelSection(horizons=(1, 5))
UNIVERSE = UniverseSection()


@dataclass
class Threads:
    """Stand where the cluster stands, over a worker of threads in this process or one of its own; as a context, end
    it.
    """

    threads: int = 2
    processes: bool = False
    cores: int = 2
    started: bool = True
    device: Literal["cpu"] = "cpu"
    backend: Literal["pandas"] = "pandas"
    used: Client | None = None
    prefixes: tuple[str, ...] = ()

    def client(self) -> Client:
        if self.used is None:
            local = LocalCluster(
                n_workers=1, threads_per_worker=self.threads, processes=self.processes, dashboard_address=":0"
            )
            self.used = Client(local)
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


class Alone(Threads):
    """Have no workers: what starts them fails."""

    def client(self) -> Client:
        raise AssertionError("a cluster was started for nothing")


def stage(
    folder: Path,
    cluster: Threads,
    section: FeatureSection | None = None,
    *,
    emit: Emit = silent,
    out: str = "features",
    universe: UniverseSection = UNIVERSE,
) -> dict[str, Any]:
    (folder / out).mkdir(exist_ok=True)
    job = cluster.job(folder / out, {"ingest": folder / "ingest"}, emit)
    return features(job, section or FeatureSection(), LABELS, universe)


def rows(folder: Path, out: str = "features") -> Any:
    """Return all blocks with their targets and columns among symbols beside them, sorted by (symbol, ts); of two
    columns `member` the one of cross/.
    """
    whole = []
    for path in sorted((folder / out / "blocks").glob("*.parquet")):
        table = pq.read_table(path)
        for beside in ("targets", "cross"):
            if (other := folder / out / beside / path.name).exists():
                found = pq.read_table(other)
                assert found.num_rows == table.num_rows, other
                table = table.drop_columns([name for name in found.column_names if name in table.column_names])
                for field, column in zip(found.schema, found.columns):
                    table = table.append_column(field, column)
        whole.append(table)
    return pa.concat_tables(whole).sort_by([("symbol", "ascending"), ("ts", "ascending")]).to_pandas()


class Counting(Maker):
    """Make blocks, and count the bars of any interval that reach the kernels."""

    bars = 0

    def _values(self, bars: dict[str, pa.Table], state: Any) -> Any:
        self.bars += sum(table.num_rows for table in bars.values())
        return super()._values(bars, state)


def order_of(
    folder: Path,
    section: FeatureSection | None = None,
    *,
    out: str = "features",
    backend: Backend = "pandas",
    labels: LabelSection = LABELS,
) -> Order:
    (folder / out).mkdir(exist_ok=True)
    return Order(
        folder / out, folder / FOLDER, folder / "ingest", backend, section or FeatureSection(), labels, UNIVERSE
    )


def block_of(order: Order, receipt: Receipt, symbols: list[str]) -> tuple[pa.Table, dict[str, Any]]:
    """Return all blocks of some symbols as one table, targets beside them, and the summary of their task."""
    summary = Maker(order, receipt, symbols).make(0)
    found = rows(order.out.parent, order.out.name) if summary["blocks"] else None
    return found, summary


def counted(folder: Path, section: FeatureSection | None = None, *, out: str = "counted") -> int:
    """Make the blocks of all groups and return how many bars reached the kernels."""
    order = order_of(folder, section, out=out)
    receipt, bars = Receipt.load(order.receipt), 0
    for group, symbols in receipt.groups(order.features.interval).items():
        maker = Counting(order, receipt, symbols)
        maker.make(group)
        bars += maker.bars
    return bars
