"""The backtest stage: one task on a worker; files in, files out, a small summary back."""

from __future__ import annotations

from typing import Any

from pipeline.job import Job

from .section import BacktestSection


def backtest(job: Job, backtest: BacktestSection) -> dict[str, Any]:
    """Trade the scores and return the summary for the manifest.

    Inputs: "ingest" (receipt, lake) and those of `backtest.reads`. Output: equity.parquet (one row a session, KRW),
    trades.parquet (one row a trade, KRW), metrics.json, course.parquet (one row a session), analysis.json. Raises
    BacktestError when there is nothing to trade.
    """
    from .portfolio.engine import run  # compiles the engine, which a process that only reads the configuration need not

    job.out.mkdir(parents=True, exist_ok=True)
    job.emit("progress", done=0, total=1, unit="backtests")
    client = job.cluster.client()
    future = client.submit(
        job.measured(run),
        {name: str(job.inputs[name]) for name in ("ingest", *backtest.reads)},
        str(job.out),
        backtest,
        key=f"backtest-{job.out.name}",
        pure=False,
    )
    result: dict[str, Any] = future.result()
    job.emit("progress", done=1, total=1, unit="backtests")
    shown = {name: result[name] for name in ("total_return", "benchmark_total_return", "sharpe", "trades")}
    job.emit(
        "log",
        level="info",
        text=f"{result['model']}, {result['mode']}: " + ", ".join(f"{k} {_short(v)}" for k, v in shown.items()),
    )
    job.emit("log", level="info", text=f"metrics.json and analysis.json: {job.out}")
    return result


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
