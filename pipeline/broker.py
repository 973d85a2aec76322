"""One ingest from the broker: symbols, what to fetch of each, the fetching, and the receipt of what is there then."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from storage.emit import Emit
from storage.lake import Lake
from storage.section import digest_of

from . import krx
from .collect import DAILY, MINUTE, Collector, Origin, Task
from .job import Job
from .journal import Journal
from .kis.client import KisClient
from .kis.embedded import simulator
from .kis.section import KisSection
from .receipt import Receipt, take
from .request import IngestSection, RequestError, check_closed
from .symbols import Directory, directory

KEPT = np.timedelta64(365, "D")  # minutes older than this the broker does not have


async def from_broker(job: Job, lake: Lake, kis: KisSection, ingest: IngestSection) -> tuple[Receipt, dict[str, Any]]:
    """Fetch what is asked for and return the receipt and what it took; an earlier attempt's journal is gone on with."""
    source = ingest.source or _source(kis)
    async with contextlib.AsyncExitStack() as stack:
        place = rest = folder = None
        if kis.embedded:
            place = await stack.enter_async_context(simulator(kis.simulator, ingest.end, job.emit))
            rest, folder = place.rest, str(place.folder)
        client = await stack.enter_async_context(KisClient(kis, job.emit, rest=rest or "", folder=folder or ""))
        now = place.now if place else datetime.now(UTC)
        if place:
            check_closed(ingest, now)
        today = now.astimezone(krx.KST).date()
        began = time.perf_counter()
        journal = Journal(
            job.out,
            {"kis": kis.keyed(), "ingest": ingest.keyed(), "lake": str(lake.path), "source": source},
            {"at": datetime.now(UTC).isoformat(), "as_of": str(today)},
        )
        origin = Origin(source, ingest.venue, datetime.fromisoformat(journal.facts["at"]))
        gone = {*ingest.also, *(place.delisted if place else ())}
        found = await directory(client, lake, source, markets=ingest.markets, asked=ingest.symbols, gone=gone)
        chosen = _chosen(found, ingest)
        as_of = pa.scalar(date.fromisoformat(journal.facts["as_of"]))
        lake.write("symbols", origin.stamp(found.table().append_column("as_of", pa.repeat(as_of, len(found.rows)))))
        journal.verify(lake, source=source, venue=ingest.venue)
        if journal.units:
            text = f"{len(journal.units)} histories are in the lake already and are not asked for again"
            job.emit("log", level="info", text=text)
        tasks = _tasks(found, chosen, ingest, today, job.emit)
        collector = Collector(client, lake, journal, origin, job.emit, chunk=ingest.chunk_size)
        await collector.run(tasks, at_once=kis.max_workers)
        seconds, counts = time.perf_counter() - began, client.counts
    receipt = take(
        lake,
        source=source,
        venue=ingest.venue,
        market="KRX",
        intervals=sorted({unit.interval for unit in journal.units.values() if unit.rows}),
        symbols=_present(chosen, journal, ingest, job.emit),
        start=ingest.first,
        end=ingest.end,
        close_only=False,
        quarantined=_quarantined(journal),
    )
    told = {
        "calls": counts.calls,
        "calls_refused": counts.refused,
        "calls_repeated": counts.repeated,
        "bytes": counts.bytes,
        "seconds_http": round(seconds, 3),
    }
    text = "{calls} calls in {seconds_http} s, {calls_refused} refused by the rate limit, {calls_repeated} made again"
    job.emit("log", level="info", text=text.format(**told))
    return receipt, told


def _source(kis: KisSection) -> str:
    """Name the rows of an environment; another simulated market has another name, so that two are never mixed."""
    if kis.environment != "simulator":
        return {"live": "kis", "paper": "kis-paper"}[kis.environment]
    return f"simulator-{kis.simulator.seed}-{digest_of([kis.rest_url, kis.keyed()['simulator']])[:8]}"


def _chosen(found: Directory, ingest: IngestSection) -> list[str]:
    if ingest.symbols:
        return sorted(set(ingest.symbols))
    largest = ingest.order == "market_cap"
    chosen = found.pick(ingest.first, ingest.end, kinds=ingest.kinds, count=ingest.count, largest=largest)
    if not chosen:
        raise RequestError(
            f"expected symbols of the kinds {', '.join(ingest.kinds)} listed within {ingest.first}..{ingest.end}, "
            f"got none of {len(found.rows)}; correct ingest.kinds or the dates"
        )
    return chosen


def _tasks(found: Directory, chosen: list[str], ingest: IngestSection, today: date, emit: Emit) -> list[Task]:
    """Say what to fetch: daily bars of the days on which a symbol was listed, minutes of the largest that still are."""
    sessions = krx.sessions(ingest.first, ingest.end)
    tasks = []
    for symbol in chosen if ingest.daily else ():
        row = found.rows[symbol]
        days = sessions[sessions >= np.datetime64(row["listed"], "D")] if row["listed"] else sessions
        days = days[days <= np.datetime64(row["delisted"], "D")] if row["delisted"] else days
        if days.size:
            tasks.append(Task(DAILY, symbol, days))
    recent = sessions[-ingest.minute_days :]
    old = recent < np.datetime64(today, "D") - KEPT
    if ingest.minute_symbols and old.any():
        text = f"no minute bars of {old.sum()} sessions to {recent[old][-1]}: the broker keeps them for a year"
        emit("log", level="warning", text=text)
        recent = recent[~old]
    whole = [s for s in found.alive(chosen) if recent.size and found.listed(s, recent[0].item(), recent[0].item())]
    return tasks + [Task(MINUTE, symbol, recent) for symbol in whole[: ingest.minute_symbols]]


def _present(chosen: list[str], journal: Journal, ingest: IngestSection, emit: Emit) -> list[str]:
    """Return the symbols that have bars; of those that have none, named ones are an error, others are said."""
    present = sorted({symbol for (_, symbol), unit in journal.units.items() if unit.rows})
    without = sorted(set(chosen) - set(present)) if ingest.daily else []
    if (without and ingest.symbols) or not present:
        raise RequestError(
            f"expected bars of {', '.join(without[:10] or chosen[:10])} in {ingest.first}..{ingest.end}, got none; "
            "choose other dates or leave these symbols out (what was found is kept and not asked for again)"
        )
    if without:
        emit("log", level="warning", text=f"no bars in {ingest.first}..{ingest.end}, left out: {', '.join(without)}")
    return present


def _quarantined(journal: Journal) -> dict[str, int]:
    total: Counter[str] = Counter()
    for unit in journal.units.values():
        total.update(unit.quarantined)
    return dict(sorted(total.items()))
