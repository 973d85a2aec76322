"""`ingest.py plan | run | verify | repair | audit`: market data seen and kept in order from the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.emit import Emit
from storage.lake import Lake, LakeError

from . import cli
from . import config as configuration
from .broker import connected, source_of
from .compare import audit as compared
from .coverage import Coverage
from .events import RunLog
from .origin import Reading
from .repair import discard, repair
from .request import RequestError
from .verify import verify
from .wanted import plan

Say = Callable[..., None]
ABOUT = {
    "plan": "Say what a run would fetch: calls, rows and time.",
    "verify": "Compare the lake with the calendar and read every file: present, rightly empty, missing, damaged.",
    "repair": "Take damaged files out and bring back what is missing, from kept answers or from the broker.",
    "audit": "Compare the bars of two sources row by row.",
}
CLEAN, UNCLEAN, CANNOT_TELL = 0, 1, 3  # exit states of verify and audit; 2 is bad input


def main(arguments: list[str] | None = None) -> int:
    """Do what the first word says, `run` without one; return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    verb = words.pop(0) if words and not words[0].startswith("-") else "run"
    words = [f"--ingest.{word[2:]}" if word.split("=")[0] == "--since" else word for word in words]
    if verb == "run":
        return cli.main("ingest", words)
    return cli.guarded(lambda prog: _verb(verb, words, prog))


def _verb(verb: str, words: list[str], prog: str) -> int:
    if verb not in ABOUT:
        raise RequestError(f"expected plan, run, verify, repair or audit, got {verb!r}; --help lists the options")
    own = argparse.ArgumentParser(prog=f"{prog} {verb}", add_help=False, allow_abbrev=False)
    own.add_argument("--json", action="store_true")
    if verb == "audit":
        own.add_argument("--against", default="", metavar="SOURCE")
        own.add_argument("--interval", default="1d")
    mine, rest = own.parse_known_args(words)
    about = (
        ABOUT[verb]
        + " --json: one JSON object a line."
        + (" --against SOURCE [--interval 1d]: the other source." if verb == "audit" else "")
    )
    config, _ = configuration.load(rest, f"{prog} {verb}", about)
    if config.ingest.path and verb in ("plan", "repair"):
        raise RequestError(
            f"expected a broker's source, got files (ingest.path); {verb} is for brokers, import them again"
        )
    say = _json if mine.json else _text
    lake = Lake(config.lake.path or Path(config.run.data).absolute() / "lake")
    match verb:
        case "plan":
            return asyncio.run(_plan(config, lake, say))
        case "verify":
            return _verify(config, lake, say)
        case "repair":
            return _repair(config, lake, say)
        case _:
            return _audit(config, lake, mine.against, mine.interval, say)


def _text(text: str, **fields: Any) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _json(text: str, **fields: Any) -> None:
    _text(json.dumps({"text": text, **fields}, default=str, ensure_ascii=False))


def _warnings(kind: str, /, **fields: object) -> None:
    if kind == "log" and fields.get("level") != "info":
        sys.stderr.write(f"{fields['text']}\n")


async def _plan(config: configuration.Config, lake: Lake, say: Say) -> int:
    async with connected(lake, config.kis, config.ingest, _warnings) as broker:
        found = plan(broker.tasks(*await broker.choose(keep=False)), rate=config.kis.rate * config.kis.keys)
    for line in found.lines()[:-1]:
        say(line)
    say(str(found), calls=found.calls, rows=found.rows, seconds=found.seconds)
    return 0


def _verify(config: configuration.Config, lake: Lake, say: Say) -> int:
    source, clean, seen = _source(config, lake), True, False
    for damage in lake.damaged():
        clean = False
        say(f"damaged: {damage.table}/{damage.file}: {damage.reason}", table=damage.table, file=damage.file)
    if clean:
        start, end = config.ingest.first, config.ingest.end
        for one in verify(lake, source=source, venue=config.ingest.venue, start=start, end=end):
            seen, clean = True, clean and one.clean
            numbers = {n: getattr(one, n) for n in ("interval", "symbols", "expected", "present", "empty")}
            gaps = {symbol: [str(day) for day in days] for symbol, days in one.lacking.items()}
            say(str(one), **numbers, missing=one.missing, partial=one.partial, days=gaps)
        if not seen:
            say(f"cannot tell: the source '{source}' was never asked for anything; run ingest first")
            return CANNOT_TELL
    say("clean" if clean else "not clean: `ingest.py repair` brings back what is missing", clean=clean)
    return CLEAN if clean else UNCLEAN


def _repair(config: configuration.Config, lake: Lake, say: Say) -> int:
    source, venue = _source(config, lake), config.ingest.venue
    for line in discard(lake, lake.damaged(), source=source, venue=venue, reading=Reading.of(config.kis)):
        say(line)
    if not Coverage(lake, source, venue):
        say(f"cannot tell: nothing is known to have been asked of the source '{source}'; run ingest")
        return CANNOT_TELL
    directory = cli.run_folder(config, configuration.as_yaml(config))
    with RunLog(directory, config.run.log_level) as log:
        log.stage = "repair"
        told = asyncio.run(_repaired(config, lake, log.emit))
    say(f"{told['archive']} rows from kept answers, {told['broker']} from the broker", **told)
    return _verify(config, lake, say)


async def _repaired(config: configuration.Config, lake: Lake, emit: Emit) -> dict[str, int]:
    async with connected(lake, config.kis, config.ingest, emit) as broker:
        return await repair(broker, config.ingest.first, config.ingest.end)


def _audit(config: configuration.Config, lake: Lake, against: str, interval: str, say: Say) -> int:
    source = _source(config, lake)
    places = lake.read("bars", columns=["source", "venue"]).group_by(["source", "venue"]).aggregate([]).to_pylist()
    held = sorted({place["source"] for place in places})
    for name in (source, against):
        if name not in held:
            raise LakeError(
                f"expected a source of the lake {lake.path} (--ingest.source and --against), got {name!r}; it holds "
                f"{', '.join(held) or 'none'}"
            )
    several = len({place["venue"] for place in places if place["source"] in (source, against)}) > 1
    venue = config.ingest.venue if several else None
    found = compared(lake, source, against, interval=interval, venue=venue, symbols=config.ingest.symbols or None)
    first, *rest = found.lines(source, against)
    say(first, **found.summary())
    for line in rest:
        say(line)
    return {"same": CLEAN, "cannot judge": CANNOT_TELL}.get(found.verdict, UNCLEAN)


def _source(config: configuration.Config, lake: Lake) -> str:
    return config.ingest.source or source_of(config.kis)
