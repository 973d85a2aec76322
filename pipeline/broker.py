"""One ingest from the broker: symbols, what to fetch of each, the fetching, and the receipt of what is there then."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.emit import Emit
from storage.lake import Lake
from storage.schema import SESSIONS, SYMBOLS
from storage.section import digest_of

from . import krx
from .collect import Collector
from .coverage import Coverage
from .job import Job
from .kis import facts
from .kis.client import KisClient
from .kis.embedded import simulator
from .kis.layouts import HOLIDAYS
from .kis.section import KisSection
from .origin import Origin, Reading
from .receipt import Receipt, take
from .request import IngestSection, RequestError, check_broker, check_closed
from .symbols import Directory, directory
from .task import Task
from .wanted import on_paper, plan, wanted

INDICES = {"0001": "KOSPI", "1001": "KOSDAQ", "2001": "KOSPI 200"}
FEW = 3  # corporate actions on one day, however few the symbols
AHEAD = timedelta(days=60)  # how far the broker's calendar is asked for


@dataclass(frozen=True)
class Broker:
    """Hold an open connection and what was settled about it."""

    client: KisClient
    lake: Lake
    kis: KisSection
    ingest: IngestSection
    origin: Origin
    coverage: Coverage
    now: datetime
    delisted: tuple[str, ...]
    emit: Emit

    @property
    def today(self) -> date:
        return self.now.astimezone(krx.KST).date()

    async def choose(self, *, keep: bool) -> tuple[Directory, list[str]]:
        """Read the list of symbols and return it with those that the run takes; `keep` writes what it has new into the
        lake."""
        gone = {*self.ingest.also, *self.delisted}
        source = self.origin.source
        found = await directory(
            self.client, self.lake, source, markets=self.ingest.markets, asked=self.ingest.symbols, gone=gone
        )
        if keep:
            rows = _news(pa.concat_tables([found.table(), _indices(self.ingest)]), self.lake, source)
            as_of = pa.repeat(pa.scalar(self.today), rows.num_rows)
            self.lake.write("symbols", self.origin.stamp(rows.append_column("as_of", as_of)))
        return found, _chosen(found, self.ingest)

    def tasks(self, found: Directory, chosen: list[str], *, holes: bool = False) -> list[Task]:
        """Return what is asked for and not in the lake; `holes` looks before each symbol's last day in any case."""
        ingest = self.ingest.model_copy(update={"since": ""}) if holes else self.ingest
        tasks = wanted(found, chosen, ingest, self.coverage, self.today, self.emit)
        return on_paper(tasks, self.today) if self.kis.environment == "paper" else tasks

    def collector(self) -> Collector:
        """Return what fetches tasks."""
        return Collector(
            self.client,
            self.lake,
            self.coverage,
            self.origin,
            self.emit,
            chunk=self.ingest.chunk_size,
            archive=self.ingest.archive,
            take=self.ingest.rewritten == "take",
        )

    async def calendar(self) -> None:
        """Ask the broker, once a day, on which days the market opens, and say where our calendar is wrong."""
        can = HOLIDAYS.paper or self.kis.environment != "paper"
        known = self.lake.read("sessions", columns=["ingested_at"], venue=self.ingest.venue, source=self.origin.source)
        latest = pc.max(known["ingested_at"]).as_py()
        if not (self.ingest.holidays and can) or (
            latest is not None and latest.astimezone(krx.KST).date() == self.today
        ):
            return
        end = min(self.today + AHEAD, krx.LAST.item())
        rows = await facts.holidays(self.client, self.today, end)
        days, opened = rows["date"].to_numpy().astype("datetime64[D]"), rows["open"].to_numpy(zero_copy_only=False)
        for day, broker in zip(days, opened):
            if bool(krx.is_session(day)) != bool(broker):
                says = "a session" if broker else "no session"
                text = f"the broker has {says} on {day} and our calendar has not; add it by scripts/build_calendar.py"
                self.emit("log", level="warning", text=text)
        table = pa.table(
            [pa.repeat(self.ingest.venue, len(days)), rows["date"], rows["open"]],
            schema=pa.schema([SESSIONS.field(name) for name in ("venue", "date", "open")]),
        )
        now = Origin(self.origin.source, self.origin.venue, self.now)
        self.lake.write("sessions", now.stamp(table))


@contextlib.asynccontextmanager
async def connected(lake: Lake, kis: KisSection, ingest: IngestSection, emit: Emit) -> AsyncIterator[Broker]:
    """Connect to the broker, or to a simulator that is started for it. Raises RequestError, SimulatorError,
    CredentialsError."""
    check_broker(kis, ingest)
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(simulator(kis.simulator, ingest.end, emit)) if kis.embedded else None
        rest, folder = (place.rest, str(place.folder)) if place else ("", "")
        client = await stack.enter_async_context(KisClient(kis, emit, rest=rest, folder=folder))
        now = place.now if place else datetime.now(UTC)
        check_closed(kis, ingest, now)
        if place and ingest.end > datetime.now(krx.KST).date():
            text = f"{ingest.end} lies ahead: the simulated market plays that this day has come"
            emit("log", level="warning", text=text)
        source = ingest.source or source_of(kis)
        origin = Origin(source, ingest.venue, datetime.now(UTC), Reading.of(kis))
        coverage = Coverage(lake, source, ingest.venue)
        for (interval, symbol), rows in coverage.distrust().items():
            text = f"the lake has lost {rows} rows of {symbol} {interval}; they are asked for again"
            emit("log", level="warning", text=text)
        delisted = place.delisted if place else ()
        yield Broker(client, lake, kis, ingest, origin, coverage, now, delisted, emit)


async def from_broker(job: Job, lake: Lake, kis: KisSection, ingest: IngestSection) -> tuple[Receipt, dict[str, Any]]:
    """Fetch what is asked for and not in the lake; return the receipt of what is there then, and what it took."""
    async with connected(lake, kis, ingest, job.emit) as broker:
        began = time.perf_counter()
        found, chosen = await broker.choose(keep=True)
        await broker.calendar()
        tasks = broker.tasks(found, chosen)
        job.emit("log", level="info", text=str(plan(tasks, rate=kis.rate * kis.keys)))
        collector = broker.collector()
        await collector.run(tasks, at_once=kis.max_workers)
        seconds, counts, source = time.perf_counter() - began, broker.client.counts, broker.origin.source
        rewritten = [one.symbol for one in collector.rewritten]
        _tell_of_evenings(broker, chosen)
    intervals = [
        name for name, asked in (("1d", ingest.daily), ("1m", ingest.minute_symbols), ("1w", ingest.weekly)) if asked
    ]
    receipt = take(
        lake,
        source=source,
        venue=ingest.venue,
        market="KRX",
        intervals=intervals,
        symbols=_present(lake, source, chosen, ingest, job.emit),
        indices=ingest.indices,
        start=ingest.first,
        end=ingest.end,
        close_only=False,
        quarantined=_quarantined(lake, source, chosen),
    )
    told = {
        "calls": counts.calls,
        "calls_refused": counts.refused,
        "calls_repeated": counts.repeated,
        "bytes": counts.bytes,
        "seconds_http": round(seconds, 3),
        "rewritten": sorted(set(rewritten)),
    }
    text = (
        "{calls} calls in {seconds_http} s, {calls_refused} of them made again because the rate was refused and "
        "{calls_repeated} after faults"
    )
    job.emit("log", level="info", text=text.format(**told))
    return receipt, told


def source_of(kis: KisSection) -> str:
    """Name the rows of an environment; another simulated market has another name, so that two are never mixed."""
    evening = "-evening" if kis.day_ends == "evening" else ""  # closes and volumes on another basis
    if kis.environment != "simulator":
        return {"live": "kis", "paper": "kis-paper"}[kis.environment] + evening
    market = {name: value for name, value in kis.keyed()["simulator"].items() if name != "clock"}  # it shows how far
    return f"simulator-{kis.simulator.seed}-{digest_of([kis.rest_url, market])[:8]}{evening}"


def _tell_of_evenings(broker: Broker, chosen: list[str]) -> None:
    """Warn where the broker's daily bars of KRX seem to end in the evening though they are read as ending before it:
    then the base price of nearly every symbol leaves the close of the day before, as after a corporate action."""
    if broker.ingest.venue != "KRX" or broker.origin.reading.evening:
        return
    found = broker.lake.read("actions", columns=["ex_date"], symbols=chosen, source=broker.origin.source)
    days = Counter(found["ex_date"].to_pylist())
    odd = [day for day, count in days.items() if day > krx.AFTER_FIRST.item() and count > max(FEW, len(chosen) / 2)]
    if odd:
        text = (
            f"expected corporate actions of a few symbols a day, got them of more than half of {len(chosen)} on "
            f"{len(odd)} days since {min(odd)}: the broker's daily bars seem to hold the evening's trade; use "
            "--kis.day_ends evening, which keeps them apart from these"
        )
        broker.emit("log", level="warning", text=text)


def _news(rows: pa.Table, lake: Lake, source: str) -> pa.Table:
    """Return the rows that say something else than the lake does; the table is a history of changes."""
    before = lake.read("symbols", columns=[*rows.column_names, "as_of"], source=source)
    known = {row["symbol"]: row for row in before.drop_columns(["as_of"]).to_pylist()}  # the latest comes last
    return rows.filter(pa.array([known.get(row["symbol"]) != row for row in rows.to_pylist()], pa.bool_()))


def _indices(ingest: IngestSection) -> pa.Table:
    schema = pa.schema([field for field in SYMBOLS if field.name not in ("as_of", "source", "ingested_at")])
    rows = [
        {"symbol": code, "name": INDICES.get(code, code), "market": "KRX", "kind": "index"} for code in ingest.indices
    ]
    return pa.Table.from_pylist(rows, schema)


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


def _present(lake: Lake, source: str, chosen: list[str], ingest: IngestSection, emit: Emit) -> list[str]:
    """Return the symbols that have bars; of those that have none, named ones are an error, others are said."""
    start = datetime.combine(ingest.first, datetime.min.time(), krx.KST)
    end = datetime.combine(ingest.end, datetime.max.time(), krx.KST)
    bars = lake.read(
        "bars", columns=["symbol"], symbols=chosen, source=source, venue=ingest.venue, start=start, end=end
    )
    present = sorted(pc.unique(bars["symbol"]).to_pylist())
    without = sorted(set(chosen) - set(present)) if ingest.daily else []
    if (without and ingest.symbols) or not present:
        raise RequestError(
            f"expected bars of {', '.join(without[:10] or chosen[:10])} in {ingest.first}..{ingest.end}, got none; "
            "choose other dates or leave these symbols out (what was found is kept and not asked for again)"
        )
    if without:
        emit("log", level="warning", text=f"no bars in {ingest.first}..{ingest.end}, left out: {', '.join(without)}")
    return present


def _quarantined(lake: Lake, source: str, chosen: list[str]) -> dict[str, int]:
    found = lake.read("quarantine", columns=["reason"], symbols=chosen, source=source)
    return dict(sorted(Counter(found["reason"].to_pylist()).items()))
