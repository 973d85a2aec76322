"""The first stage: bars from the broker or from files into the lake, and a receipt that says what is there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.emit import Emit
from storage.lake import Lake, LakeSection
from storage.schema import ACTIONS, QUARANTINE, SYMBOLS
from storage.section import digest_of
from storage.store import write_json

from . import quality
from .broker import from_broker
from .coverage import Coverage, by_symbol, days_of
from .importers import files_digest, load
from .job import Job
from .kis.columns import Days
from .kis.history import TORN
from .kis.section import KisSection
from .origin import Origin
from .provenance import code_digest
from .receipt import Receipt, take
from .request import IngestSection as IngestSection
from .request import RequestError
from .retention import tidy
from .summary import summary

QUALITY = "quality.json"
NAMED = 5  # torn days in a warning
SHOWN = ("symbol", "interval", "ts", "open", "close", "volume")  # what the description of the bars reads


def ingest(job: Job, lake: LakeSection, kis: KisSection, ingest: IngestSection) -> dict[str, Any]:
    """Bring the bars that are asked for into the lake, write the receipt and return the manifest.

    Rows that are no bars go to quarantine with their reason. A killed run that is started again in the same directory
    asks only for what was not committed and ends with the same content. Raises RequestError, SymbolError, KisError,
    CredentialsError, SimulatorError, FilesError or LakeError; each says what to do.
    """
    try:
        manifest = _ingest(job, Lake(lake.path), kis, ingest)
        tidy(Lake(lake.path), lake, job.out.parent, job.emit)
        return manifest
    except OSError as error:
        got = f"'{error.strerror or error}' at {error.filename or 'no name'}"
        raise RequestError(
            f"expected to read and write in {job.out}, got {got}; free space, mend the rights or give another folder "
            "with --run.data"
        ) from error


def _ingest(job: Job, store: Lake, kis: KisSection, ingest: IngestSection) -> dict[str, Any]:
    if ingest.path:
        receipt, told = _from_files(job, store, ingest)
    else:
        receipt, told = asyncio.run(from_broker(job, store, kis, ingest))
    torn = None
    if "1m" in receipt.intervals and not ingest.path:
        torn = _torn(receipt, Coverage(store, receipt.source, receipt.venue), job.emit)
        told["torn"] = {symbol: [str(day) for day in days] for symbol, days in torn.items()}
    described = {name: _described(receipt, name, torn if name == "1m" else None) for name in receipt.intervals}
    write_json(job.out / QUALITY, described)
    receipt.save(job.out)
    content = receipt.model_dump(mode="json", exclude={"lake", "versions"})
    return {
        **told,
        "content": digest_of(content),
        "source": receipt.source,
        "symbols": len(receipt.symbols),
        "rows": sum(receipt.rows.values()),
        "rows_by_interval": receipt.rows,
        "quarantined": receipt.quarantined,
    }


def _described(receipt: Receipt, interval: str, torn: dict[str, Days] | None) -> dict[str, Any]:
    market: quality.Market = "KRX" if receipt.market == "KRX" else "other"
    return summary(receipt.bars(interval, columns=SHOWN), market=market, actions=receipt.actions(), torn=torn)


def _torn(receipt: Receipt, coverage: Coverage, emit: Emit) -> dict[str, Days]:
    """Return by symbol the days of minutes that the broker has not answered in full, and warn of them."""
    held = {s: np.unique(days_of(own)) for s, own in by_symbol(receipt.bars("1m", columns=("symbol", "ts"))).items()}
    torn = {symbol: days[~coverage.covered("1m", symbol, days)] for symbol, days in held.items()}
    torn = {symbol: days for symbol, days in torn.items() if days.size}
    if torn:
        every = [f"{symbol} {day}" for symbol, days in torn.items() for day in days]
        more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
        text = (
            f"1m: expected all minutes of each day, got {len(every)} days without some, though pages were asked for up "
            f"to {TORN} times more: {', '.join(every[:NAMED])}{more} (all in manifest.json); `ingest.py repair` or the "
            "next ingest asks again"
        )
        emit("log", level="warning", text=text)
    return torn


def _from_files(job: Job, lake: Lake, ingest: IngestSection) -> tuple[Receipt, dict[str, Any]]:
    """Commit what the importers hand over, in chunks. The same files give the same rows: a killed run starts over."""
    began = time.perf_counter()
    origin = Origin(ingest.source or _files_source(ingest), ingest.files.venue, datetime.now(UTC))
    waiting: list[pa.Table] = []
    symbols, quarantine = [_without_origin(SYMBOLS).empty_table()], [_without_origin(QUARANTINE).empty_table()]
    actions = [_without_origin(ACTIONS).empty_table()]
    rows: Counter[tuple[str, str]] = Counter()  # by interval and symbol
    counts: Counter[str] = Counter()
    indices: set[str] = set()  # in the lake like the rest, but nothing that could be bought
    days: list[date] = []
    close_only = True
    for loaded in load(ingest.path, ingest.files, job.emit):
        bars = _asked(loaded.bars, ingest)
        quarantine.append(loaded.quarantined)
        symbols += [loaded.symbols] if loaded.symbols is not None else []
        actions += [loaded.actions] if loaded.actions is not None else []
        counts.update(loaded.counts, outside_the_dates_or_symbols=loaded.bars.num_rows - bars.num_rows)
        if not bars.num_rows:
            continue
        if loaded.symbols is not None:
            kind = loaded.symbols.filter(pc.equal(loaded.symbols["kind"], "index"))
            indices |= set(kind["symbol"].to_pylist())
        for symbol, own in by_symbol(bars).items():
            if symbol not in indices:
                rows[loaded.interval, symbol] += own.num_rows
                days += days_of(own.slice(0, 1)).tolist() + days_of(own.slice(own.num_rows - 1)).tolist()
        close_only &= loaded.close_only
        waiting.append(origin.stamp(bars))
        if sum(part.num_rows for part in waiting) >= ingest.chunk_size:
            lake.write("bars", pa.concat_tables(waiting))
            waiting = []
    if waiting:
        lake.write("bars", pa.concat_tables(waiting))
    for name, parts in (("actions", actions), ("symbols", symbols), ("quarantine", quarantine)):
        lake.write(name, origin.stamp(pa.concat_tables(parts)))
    seconds = time.perf_counter() - began
    present = sorted({symbol for _, symbol in rows})
    missing = sorted(set(ingest.symbols) - set(present))
    if missing or not present:
        raise RequestError(
            f"expected bars of {', '.join(missing[:10]) or 'some stock'} in {ingest.start or 'the first day'}.."
            f"{'the last day' if ingest.end == date.max else ingest.end} under {ingest.path}, got none; "
            "correct ingest.symbols or the dates"
        )
    receipt = take(
        lake,
        source=origin.source,
        venue=origin.venue,
        market=ingest.files.market,
        intervals=sorted({interval for interval, _ in rows}),
        symbols=present,
        indices=sorted(indices),
        start=min(days),
        end=max(days),
        close_only=close_only,
        quarantined=quality.reasons(pa.concat_tables(quarantine)),
    )
    _refuse_strangers(receipt, rows)
    told = {"seconds_import": round(seconds, 3), "counts": dict(sorted(counts.items())), "indices": sorted(indices)}
    return receipt, told


def _refuse_strangers(receipt: Receipt, rows: Mapping[tuple[str, str], int]) -> None:
    """Refuse a source of which the lake holds bars that these files do not have: they came from other files."""
    for interval, held in receipt.rows.items():
        given = sum(n for (kind, _), n in rows.items() if kind == interval)
        if held != given:
            raise RequestError(
                f"expected the lake {receipt.lake} to hold of the source '{receipt.source}' only the {given} bars "
                f"({interval}) of these files, found {held}; give another --ingest.source: two origins are never "
                "joined under one name"
            )


def _files_source(ingest: IngestSection) -> str:
    """Name the rows of files by content, not place: changed files, or another reading of them, are another source."""
    made_of = [files_digest(ingest.path), ingest.files.keyed(), code_digest("pipeline.importers")]
    return f"files-{digest_of(made_of)[:8]}"


def _asked(bars: pa.Table, ingest: IngestSection) -> pa.Table:
    """Keep the bars of the symbols and days that are asked for."""
    if not bars.num_rows:
        return bars
    day = days_of(bars)
    keep = day <= np.datetime64(ingest.end)
    if ingest.start is not None:
        keep &= day >= np.datetime64(ingest.start)
    if ingest.symbols:
        keep &= pc.is_in(bars["symbol"], pa.array(ingest.symbols)).to_numpy()
    return bars if keep.all() else bars.filter(pa.array(keep))


def _without_origin(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in ("source", "ingested_at")])
