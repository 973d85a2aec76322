"""The stage that searches the parameters of a strategy over the bars that ingest left."""

from __future__ import annotations

import math
import shutil
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.job import Job
from storage.schema import content_digest
from storage.section import digest_of
from storage.store import replacing, write_json, write_parquet

from .section import AccountSection, OptimizeSection

KEPT = "iterations"  # folder of those that are done, while the search runs


def optimize(job: Job, account: AccountSection, optimize: OptimizeSection) -> dict[str, Any]:
    """Search, and leave bank.json (the best, and what to make of it), trials.parquet (all), trades.parquet and
    equity.parquet (of the best, all symbols) and ranges.yaml, which a next search takes with --config.

    Input: "ingest" (receipt, lake). Iterations are kept on the way: after a kill it goes on from the last of them.
    Raises StrategyError for what cannot be run.
    """
    from pipeline.strategies import strategy_of

    from .bank import bank, ranges_file, told, trials, with_part
    from .driver import compiling, runner
    from .lake_bars import of_receipt
    from .meta import optimize as search
    from .run import run

    strategy = strategy_of(optimize.strategy)
    found = of_receipt(job.inputs["ingest"], account, optimize.interval, optimize.symbols)
    total = optimize.samples * optimize.iterations * len(found)
    done = 0

    def moved(more: int) -> None:
        nonlocal done
        done += more
        job.emit("progress", done=min(done // 2, total), total=total, unit="combinations")  # inside and outside

    def iterated(step: Any) -> None:
        told = f"best score {step.best:.3g}, mean of the best {optimize.quantile:.0%} {step.mean_best:.3g}"
        job.emit("log", level="info", text=f"{step.combinations:,} combinations: {told}")

    several = job.cluster.section.address or job.cluster.section.max_workers > 1
    client = job.cluster.client() if several else None  # threads of this process share more than workers do
    with compiling(strategy.step, lambda text: job.emit("log", level="info", text=text)):
        runner(strategy.step)  # now: a profile would show little else
    result = job.measured(search)(
        found, strategy, optimize, ranges=optimize.ranges, account=account, first=optimize.first, last=optimize.last,
        earlier=optimize.earlier, kept=job.out / KEPT, emit=job.emit, told=iterated, progress=moved, client=client,
        workers=job.cluster.cores,
    )  # fmt: skip
    for line in told(result, optimize):
        job.emit("log", level="info", text=line)
    symbols = [each.symbol for each in found]
    report = bank(result, optimize, account, symbols)
    table = pa.Table.from_pandas(trials(result), preserve_index=False)
    write_json(job.out / "bank.json", report)
    write_parquet(job.out / "trials.parquet", table)
    with replacing(job.out / "ranges.yaml") as temporary:
        temporary.write_text(ranges_file(result, optimize, job.out.name), encoding="utf-8")
    if report["top"]:
        days = {"first": optimize.first, "last": optimize.last}
        there = [each for each, halves in zip(found, result.spans) if any(halves)]  # others had no sessions in the days
        runs = {e.symbol: run([e], strategy, report["top"][0]["parameters"], account=account, **days) for e in there}
        for name in ("trades", "equity"):
            frames = [with_part(getattr(runs[e.symbol], name), e, result.cut).assign(symbol=e.symbol) for e in there]
            write_parquet(job.out / f"{name}.parquet", pa.Table.from_pandas(pd.concat(frames), preserve_index=False))
    shutil.rmtree(job.out / KEPT)
    numbers = {name: result.numbers.get(name) for name in ("deflated_sharpe", "pbo")}
    best = report["top"][0] if report["top"] else None
    return {
        "content": digest_of([content_digest(table), report]),
        "rows": table.num_rows,
        "strategy": strategy.name,
        **{name: value if value is None or math.isfinite(value) else None for name, value in numbers.items()},
        "best": best and {"parameters": best["parameters"], "score": best["score"]},
    }
