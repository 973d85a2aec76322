"""The broker's side of the pipeline: the limiter at its quota, HTTP to committed rows, memory; and files to the lake.

The simulator is a process of its own. Where its speed is not what is measured it has been asked for everything once, so
that its pages are rendered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import krx
from pipeline.kis.client import KisClient
from pipeline.kis.layouts import PRICE
from pipeline.kis.section import KisSection
from storage.emit import silent

from .main import tree
from .measure import Measure

ROOT = Path(__file__).resolve().parents[2]
DAY = "2026-10-30"
QUOTA, MINUTE_S = 18, 60.0
REPEATS = 3
FILES, FILE_ROWS = 40, 125_000


@contextlib.contextmanager
def simulator(*words: object) -> Iterator[str]:
    command = [sys.executable, ROOT / "scripts" / "simulate_kis.py", "--with-parent", "--clock", DAY, "--token-gap", 0]
    process = subprocess.Popen([*map(str, command), *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["rest"]
    finally:
        process.terminate()
        process.wait(10)


def ingest(folder: Path, *words: object) -> tuple[dict[str, object], float]:
    """Run the ingest stage with its data under `folder`; return its manifest and the peak of its process tree in MB."""
    command = [sys.executable, str(ROOT / "scripts" / "ingest.py"), "run", "--run.data", folder / "data"]
    command += ["--run.runs", folder / "runs", "--kis.token_folder", folder / "tokens", *words]
    peak = 0.0
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env=os.environ)
        while process.poll() is None:
            peak = max(peak, tree(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"the ingest failed: {(folder / 'out.txt').read_text()[-2000:]}")
    manifest = next((folder / "data" / "stages" / "ingest").glob("*/manifest.json"))
    return json.loads(manifest.read_text()), peak / 1e6


def asked(url: str, *, start: str, count: int, workers: int = 16) -> list[object]:
    """Return the words that ask a running simulator for daily bars without a limit."""
    words = ["--kis.environment", "simulator", "--kis.rest_url", url, "--kis.calls_per_second", 0]
    words += ["--kis.max_workers", workers, "--ingest.start", start, "--ingest.end", DAY, "--ingest.count", count]
    return [*words, "--ingest.minute_symbols", 0, "--ingest.indices", "[]", "--ingest.holidays", "false"]


async def _minute(url: str, folder: str) -> tuple[int, int]:
    """Ask for as long as a minute as fast as the limiter permits; return calls answered and refused."""
    section = KisSection.model_validate(
        {"environment": "simulator", "rest_url": url, "calls_per_second": QUOTA, "token_folder": folder}
    )
    symbol = {"FID_COND_MRKT_DIV_CODE": "J", "FID_INPUT_ISCD": "005940"}
    answered = 0
    async with KisClient(section, silent) as kis:
        await kis.ask(PRICE, symbol)
        await asyncio.sleep(1.1)
        end = time.monotonic() + MINUTE_S

        async def ask() -> None:
            nonlocal answered
            while time.monotonic() < end:
                await kis.ask(PRICE, symbol)
                answered += time.monotonic() < end

        await asyncio.gather(*(ask() for _ in range(section.max_workers)))
        return answered, kis.counts.refused


def columnar(folder: Path) -> None:
    """Write daily OHLCV files, one a few symbols, as a vendor would: 5 M rows."""
    rng = np.random.default_rng(1)
    sessions = krx.sessions("2016-11-01", DAY)[-2_400:]
    each = FILE_ROWS // len(sessions)
    for file in range(FILES):
        parts = []
        for at in range(each):
            n = len(sessions)
            close = np.round(20_000 * np.exp(np.cumsum(0.01 * rng.standard_normal(n))))
            high, low = close + rng.integers(0, 200, n), close - rng.integers(0, 200, n)
            parts.append(
                pa.table(
                    {
                        "date": sessions,
                        "code": [f"{file * each + at + 1:05d}0"] * n,
                        "open": close,
                        "high": high,
                        "low": np.maximum(low, 1.0),
                        "close": close,
                        "volume": rng.integers(1, 10**7, n).astype(float),
                    }
                )
            )
        pq.write_table(pa.concat_tables(parts), folder / f"part-{file:03d}.parquet")


def run() -> Iterator[Measure]:
    with simulator("--symbols", 20, "--quota", QUOTA) as url, tempfile.TemporaryDirectory() as folder:
        answered, refused = asyncio.run(_minute(url, folder))
    share = answered / (QUOTA * MINUTE_S)
    yield Measure("ingest.quota_used", share, share)
    yield Measure("ingest.rejections", refused, refused)

    rates = []
    with simulator("--symbols", 140, "--quota", 0) as url:
        for repeat in range(REPEATS + 1):
            with tempfile.TemporaryDirectory() as folder:
                told, _ = ingest(Path(folder), *asked(url, start="2016-11-01", count=100))
                if repeat:  # the first one has the pages rendered
                    rates.append(float(str(told["rows"])) / float(str(told["seconds_http"])))
    rate = statistics.median(rates)
    yield Measure("ingest.http_rows_per_s", rate, rate)

    ours, theirs = [], []
    with simulator("--symbols", 140, "--quota", 0, "--fault", "slow=1", "--fault", "slow_seconds=0.05") as url:
        for _ in range(REPEATS):
            for workers, seconds in ((16, ours), (1, theirs)):
                with tempfile.TemporaryDirectory() as folder:
                    told, _ = ingest(Path(folder), *asked(url, start="2024-11-01", count=40, workers=workers))
                    seconds.append(float(str(told["seconds_http"])))
    a, b = statistics.median(ours), statistics.median(theirs)
    yield Measure("ingest.parallel_vs_sequential", b / a, a, b)

    rates = []
    with tempfile.TemporaryDirectory() as files:
        columnar(Path(files))
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as folder:
                told, _ = ingest(Path(folder), "--ingest.path", files, "--ingest.files.venue", "KRX")
                rates.append(float(str(told["rows"])) / float(str(told["seconds_import"])))
    rate = statistics.median(rates)
    yield Measure("ingest.import_rows_per_s", rate, rate)

    with simulator("--symbols", 3_900, "--quota", 0) as url, tempfile.TemporaryDirectory() as folder:
        told, peak = ingest(Path(folder), *asked(url, start="2025-11-01", count=2_700))
    yield Measure("ingest.peak_memory_mb", peak, peak)
