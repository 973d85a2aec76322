"""`audit.py features | scores | split | strategies`: the first are checks over the columns of a feature set on bars of
the user's lake, and a certificate.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from storage.lake import framed
from storage.schema import content_digest
from storage.store import Store, write_json

from .. import certificates, cli
from .. import config as configuration
from ..events import RunLog
from ..features.stage import checked
from ..indicators import Column
from ..indicators.spec import nearest
from ..interrupt import Interrupted, Interrupts
from ..krx import KST
from ..provenance import code_digest, versions
from ..receipt import FILE as RECEIPT
from ..receipt import Receipt
from ..stages import STAGES
from ..verbs import CANNOT_TELL, CLEAN, UNCLEAN
from . import CHECKS, Audit, AuditError, audit, chosen
from .bars import with_basis
from .columns import Features, Known
from .options import options, parsed
from .promises import promises_of
from .scores import scores
from .split import split
from .strategies import strategies

ABOUT = (
    "Check the columns of a feature set and who belongs to the universe on the bars of the last ingest, all symbols at "
    "once: do they see the future, do they say the same however they are run? Leaves certificate.json in the run's "
    "folder and beside the data, where the report of a run with these features finds it. `scores --help`, `split "
    "--help`, `strategies --help`: the other audits, of trained models, of what training, validation and test share, "
    "and of strategies.\n"
    "Exit status: 0 clean, 1 found something, 3 cannot judge, 2 bad input.\n\n"
    "  --set NAME --interval 1d     short for --features.set, --features.interval\n"
    "  --start DAY --end DAY        days of bars, both included (all of them)\n"
    "  --symbols A,B                symbols (all)\n"
    f"  --checks {','.join(CHECKS)}  which checks (all)\n"
    "  --tries 20 --seed 0          random moments a check, and where they come from"
)
FILE = "certificate.json"
SHORT = ("--set", "--interval")
READ = ("symbol", "ts", "open", "high", "low", "close", "volume", "turnover")
COPIES = 6  # of the columns that a trial holds at its widest: the whole, the trial, what is compared


def main(arguments: list[str] | None = None) -> int:
    """Audit what the first word names; return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    what = words.pop(0) if words and not words[0].startswith("-") else ""
    words = [f"--features.{word[2:]}" if word.split("=")[0] in SHORT else word for word in words]

    def act(prog: str) -> int:
        if what == "split":
            return split(words, prog)
        verbs = {"features": _features, "scores": scores, "strategies": strategies}
        if what not in verbs and not {"-h", "--help"} & {*words}:
            raise AuditError(
                f"expected features, scores, split or strategies, got {what or 'nothing'!r}; --help lists the options"
            )
        try:
            with Interrupts():
                return verbs.get(what, _features)(words, prog)
        except Interrupted as error:
            sys.stderr.write(f"{prog}: ended before the last trial; no certificate was written\n")
            return error.code

    return cli.guarded(act)


def _features(words: list[str], prog: str) -> int:
    own = options(prog, CHECKS)
    own.add_argument("--start", type=_day)
    own.add_argument("--end", type=_day)
    mine, rest = parsed(own, words)
    config, _ = configuration.load(rest, f"{prog} features", ABOUT)
    mine.checks = chosen(mine.checks, mine.tries)
    receipt = last_receipt(config)
    columns = config.features.columns(close_only=receipt.close_only)
    checked(receipt, config.features, columns)
    bars = _bars(receipt, config, columns, mine)
    folder = cli.run_folder(config, configuration.as_yaml(config))
    with RunLog(folder, config.run.log_level) as log:
        log.stage = "audit"
        features = Features(columns, _known(config, receipt, mine))
        done = audit(
            features, bars, promises=promises_of(features), checks=mine.checks, tries=mine.tries, seed=mine.seed,
            emit=log.emit,
        )  # fmt: skip
        found = certificate(config, columns, bars, receipt, mine, done)
        write_json(folder / FILE, found)
        name = certificates.key(found["features"], found["universe"], receipt, found["code"]["features"])
        certificates.write(Path(config.run.data).absolute(), name, found)
        done.tell(log.emit, folder / FILE)
    return {"clean": CLEAN, "found": UNCLEAN}.get(done.verdict, CANNOT_TELL)


def _known(config: configuration.Config, receipt: Receipt, mine: argparse.Namespace) -> Known:
    return Known(
        interval=config.features.interval,
        venue=receipt.venue,
        since=max(receipt.start, mine.start or receipt.start),
        receipt=receipt,
        facts=receipt.opened.read("symbols", symbols=receipt.symbols, source=receipt.source),
        universe=config.universe,
        stored=config.features.dtype,
    )


def last_receipt(config: configuration.Config) -> Receipt:
    """Return what the last finished ingest into this lake left; AuditError where there is none, or the lake has
    changed since.
    """
    data = Path(config.run.data).absolute()
    lake, store = str(Path(config.lake.path or data / "lake").absolute()), Store(data / "stages")
    finished = sorted((store.root / "ingest").glob(f"*/{RECEIPT}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(finished):
        if store.done("ingest", path.parent.name) is None:
            continue
        receipt = Receipt.load(path.parent)
        if receipt.lake == lake:
            if not receipt.current():
                raise AuditError(
                    f"expected the rows that the last ingest named, got others in {lake}; run ingest.py, which makes a "
                    "new receipt"
                )
            return receipt
    raise AuditError(f"expected a finished ingest into {lake} in {store.root}, got none; run ingest.py first")


def _bars(
    receipt: Receipt, config: configuration.Config, columns: tuple[Column, ...], mine: argparse.Namespace
) -> pd.DataFrame:
    """Read the bars of the range and symbols that were asked for with their basis and, where a column compares with
    the market, the close of its index.
    """
    interval = config.features.interval
    for name in mine.symbols:
        if name not in receipt.symbols:
            raise AuditError(f"expected symbols of the last ingest, got '{name}'{nearest(name, list(receipt.symbols))}")
    if mine.start and mine.end and mine.start > mine.end:
        raise AuditError(f"expected --start before --end, got {mine.start} and {mine.end}")
    span = {"start": _midnight(mine.start, timedelta(microseconds=1)), "end": _midnight(mine.end, timedelta(days=1))}
    table = receipt.bars(interval, symbols=sorted({*mine.symbols}) or None, columns=READ, **span)
    if not table.num_rows:
        raise AuditError(f"expected bars of {interval} in the range, got none; it has {receipt.start} to {receipt.end}")
    needs, free = table.num_rows * 8.0 * (COPIES * len(columns) + 3 * len(READ)), psutil.virtual_memory().available
    if needs > free:
        raise AuditError(
            f"expected about {needs / 1e9:.1f} GB of free memory for {table.num_rows} bars and {len(columns)} columns, "
            f"got {free / 1e9:.1f}; give fewer --symbols, a later --start or a smaller --set"
        )
    bars: pd.DataFrame = framed(table)
    if any("market" in column.indicator.inputs for column in columns):
        name = config.features.index(receipt)
        index = framed(receipt.bars(interval, symbols=[name], columns=["ts", "close"], **span))
        bars["market"] = bars["ts"].map(index.set_index("ts")["close"])
    return with_basis(bars, receipt.actions())


def _midnight(day: date | None, after: timedelta) -> datetime | None:
    return datetime.combine(day, clock(), KST).astimezone(UTC) + after if day else None


def certificate(
    config: configuration.Config,
    columns: tuple[Column, ...],
    bars: pd.DataFrame,
    receipt: Receipt,
    mine: argparse.Namespace,
    done: Audit,
) -> dict[str, Any]:
    """Say what was checked, on what, by which code, and what came out; the same input gives the same but for `made`."""
    import pyarrow as pa

    (stage,) = [one.function for one in STAGES if one.name == "features"]
    known = receipt.model_dump(mode="json", include={"source", "venue", "market", "digests", "close_only"})
    return {
        "about": "features",
        "made": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        **done.summary(),
        "features": config.features.keyed(),
        "universe": config.universe.keyed(),
        "columns": [column.name for column in columns],
        "bars": {
            "interval": config.features.interval,
            "rows": len(bars),
            "symbols": int(bars["symbol"].nunique()),
            "first": str(bars["ts"].min()),
            "last": str(bars["ts"].max()),
            "content": content_digest(pa.Table.from_pandas(bars, preserve_index=False)),
        },
        "receipt": known,
        "asked": {"checks": mine.checks, "tries": mine.tries, "seed": mine.seed},
        "code": {"features": code_digest(stage.split(":")[0]), "audit": code_digest(__name__)},
        "versions": versions(),
    }


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2024-03-15, got '{text}'") from None
