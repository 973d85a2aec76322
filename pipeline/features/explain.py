"""`features.py --explain`: what the stage would do with these settings, without computing anything or starting a
cluster. Bars are read, because what they hold decides which blocks are reused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.emit import silent

from .. import cli
from .. import config as configuration
from ..cluster import Cluster
from ..job import Job
from ..receipt import Receipt
from ..stages import Runner, wanted
from . import explanation
from .explanation import Look
from .group import Maker
from .levels import chosen
from .section import FeatureError
from .stage import checked, ordered

FLAG = "--explain"
MORE = f" {FLAG}: say what it would read, compute, reuse and hold, and where; do nothing."


def main(arguments: list[str] | None = None) -> int:
    """Run the stage, or explain it where that is asked for; return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if FLAG not in words:
        return cli.main("features", words, MORE)
    rest = [word for word in words if word != FLAG]

    def act(prog: str) -> int:
        config, _ = configuration.load(rest, prog, MORE.strip())
        with Cluster(config.cluster) as cluster:
            for line in explained(config, cluster):
                sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        return 0

    return cli.guarded(act)


def explained(config: configuration.Config, cluster: Cluster) -> Iterator[str]:
    """Yield the lines. Raises FeatureError where ingest has not run with these settings."""
    runner, section = Runner(config, cluster, silent), config.features
    plan = {planned.stage.name: planned for planned in runner.plan(wanted(["features"], config))}
    ingest, stage = plan["ingest"], plan["features"]
    if ingest.manifest is None:
        raise FeatureError(
            f"expected a finished ingest with these settings in {runner.store.root}, got none ({ingest.why}); run "
            "scripts/ingest.py with the same options first"
        )
    inputs = {"ingest": runner.store.path("ingest", str(ingest.key))}
    receipt = Receipt.load(inputs["ingest"])
    columns = section.columns(close_only=receipt.close_only)
    checked(receipt, section, columns)
    level = chosen(section, receipt, cluster, columns)
    job = Job(runner.store.path("features", str(stage.key)), inputs, cluster, silent)
    order = ordered(job, level.name, section, config.labels, config.universe)
    makers = [Maker(order, receipt, names) for names in receipt.groups(section.interval).values()]
    with ThreadPoolExecutor(cluster.cores) as pool:
        groups = list(pool.map(lambda maker: list(_looked(maker)), makers))
    looks = [look for group in groups for look in group]
    parts = makers[0].parts if makers else {}
    yield from explanation.head(stage, receipt, order, section.set, columns, looks)
    yield from explanation.graph(order, makers, columns, looks)
    yield from explanation.columns(columns, parts, looks)
    yield from explanation.reads(receipt, order, parts, looks)
    yield from explanation.memory(order, makers, columns, groups)
    yield from explanation.where(order, level, cluster, runner.store.root, columns, looks)


def _looked(maker: Maker) -> Iterator[Look]:
    """Yield for each block of a group what its task would do."""
    for period, bars, block in maker.blocks():
        rows = run = bars[""].num_rows
        step = "computed"
        if block.facts() is not None:
            step, run = "reused", 0
        elif other := next(maker.begun(block, bars), None):
            ts = bars[""]["ts"]
            step, run = "goes on", int(pc.sum(pc.greater(ts, pa.scalar(other[1]["last"], ts.type))).as_py() or 0)
        ends = {at: np.unique(table["ts"].cast(pa.int64()).to_numpy()) for at, table in bars.items()}
        read = {at: tuple(table.column_names) for at, table in bars.items()}
        symbols = frozenset(pc.unique(bars[""]["symbol"]).to_pylist())
        yield Look(period.name, symbols, step, rows, run, ends, bars[""].nbytes, read)
