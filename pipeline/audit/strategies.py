"""`audit.py strategies`: does a strategy see the future? On bars of the user's lake, with many combinations each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.emit import Emit, silent
from storage.lake import framed
from storage.section import digest_of
from storage.store import write_json

from .. import cli
from .. import config as configuration
from ..backtest.single.section import AccountSection
from ..events import RunLog
from ..provenance import code_digest, versions
from ..tradable import Listing, listing
from ..verbs import CANNOT_TELL, CLEAN, UNCLEAN
from . import NO_PROMISES, Audit, AuditError, Outcome, chosen, held
from .bars import with_basis
from .causality import poison, truncation
from .options import options, parsed

if TYPE_CHECKING:
    from ..backtest.single.samples import Samples
    from ..receipt import Receipt
    from ..strategies import Strategy

CHECKS = {"C1": truncation, "C2": poison}
FILE = "certificate.json"
MOST = 20  # symbols of a lake that are taken when none is named
BUDGET = 1 << 30  # bytes of what is held of a group of symbols
READ = ("symbol", "ts", "open", "high", "low", "close", "volume", "turnover")
ABOUT = (
    "Run strategies, all of them or those named, on the bars of the last ingest: with the bars up to random moments "
    "alone (C1), and with what follows missing, huge or shuffled (C2), every column, what is wanted after each bar, "
    "its trades and its equity have to be the same up to that moment. Half of the moments are such at which something "
    "is wanted. --optimize.interval and --optimize.symbols choose the bars. Leaves certificate.json in the run's "
    "folder.\nExit status: 0 clean, 1 found something, 3 cannot judge, 2 bad input.\n\n"
    f"  --symbols A,B                symbols (those of optimize.symbols, or up to {MOST} of the last ingest)\n"
    f"  --checks {','.join(CHECKS)}               which checks (all)\n"
    "  --tries 20 --seed 0          random moments a check, and where they and the combinations come from\n"
    "  --draws 20                   combinations beside the defaults, drawn from the declared ranges"
)


def causal(
    strategy: Strategy,
    bars: Any,
    *,
    account: AccountSection | None = None,
    interval: str = "",
    venue: str = "KRX",
    actions: Any = None,
    listed: Mapping[str, Listing] | None = None,
    ranges: Mapping[str, Any] | None = None,
    draws: int = 20,
    checks: Sequence[str] = tuple(CHECKS),
    tries: int = 20,
    seed: int = 0,
    emit: Emit = silent,
) -> Audit:
    """Hold a strategy to C1 and C2 with its defaults and some combinations of its ranges; the same seed tries the same.

    bars : pandas frame of raw bars as for `instruments`, with symbol and ts. The step is called after the last bar that
    it may see, too. Symbols are taken in groups. Raises AuditError and StrategyError.
    """
    from ..backtest.single.frames import interval_of
    from .played import Played, Plays, groups

    names = chosen(checks, tries, tuple(CHECKS))
    frame = bars.reset_index(drop=True)
    interval = interval or interval_of(frame)
    if "basis" not in frame:
        from storage.schema import ACTIONS

        frame = with_basis(frame, ACTIONS.empty_table() if actions is None else actions)
    drawn = combinations(strategy, ranges, interval, draws, seed)
    played = Played(drawn, account or AccountSection(), interval, venue, listed or {})
    outcomes = [Outcome(name) for name in names]
    sides, digests = np.zeros(len(drawn), np.int64), []
    rows = frame["symbol"].value_counts(sort=False).to_dict()
    for symbols in groups(rows, len(played.names), BUDGET):
        case = Plays(played, frame[frame["symbol"].isin(symbols)], NO_PROMISES)
        held(case, CHECKS, outcomes, tries=tries, seed=seed, emit=emit)
        sides += case.sides()
        digests.append(case.digest())
    for outcome in outcomes:
        outcome.measured = {"combinations": len(drawn), "that want a side": int((sides > 0).sum())}
        if not sides.any():
            outcome.reasons[strategy.name] = f"none of {len(drawn)} combinations wants a side on these bars"
    return Audit(tuple(outcomes), digest_of(digests))


def combinations(strategy: Strategy, ranges: Mapping[str, Any] | None, interval: str, draws: int, seed: int) -> Samples:
    """Return the defaults, or what the ranges and the bars allow that is nearest to them, and draws from the ranges."""
    from ..backtest.single.ranges import Ranges, codes
    from ..backtest.single.samples import Samples, in_order

    whole = Ranges.whole(strategy, ranges, interval)
    usual = [
        min(numbers, key=lambda number: abs(p.code(p.value(number)) - p.code(p.default)))
        for p, numbers in zip(strategy.parameters, whole.numbers)
    ]
    first = np.array([usual], np.int64)
    if not in_order(strategy, codes(strategy, first)).all():
        first = first[:0]
    known = {row.tobytes() for row in first}
    return Samples(strategy, codes(strategy, np.concatenate([first, whole.draw(draws, seed, known)])))


def strategies(words: list[str], prog: str) -> int:
    """Audit the strategies that the first words name; return the exit status."""
    from ..strategies import StrategyError, names, strategy_of

    wanted = []
    while words and not words[0].startswith("-"):
        wanted.append(words.pop(0))
    own = options(prog, CHECKS)
    own.add_argument("--draws", type=int, default=20)
    mine, rest = parsed(own, words)
    config, _ = configuration.load(rest, f"{prog} strategies", ABOUT)
    checks = chosen(mine.checks, mine.tries, tuple(CHECKS))
    if mine.draws < 1:
        raise AuditError(f"expected at least one of --draws, got {mine.draws}")
    asked = [strategy_of(name) for name in dict.fromkeys(wanted or names())]
    receipt = _receipt(config)
    symbols = _symbols(config, receipt, mine.symbols, mine.seed)
    interval, account = config.optimize.interval, config.account
    bars = with_basis(framed(receipt.bars(interval, symbols=symbols, columns=READ)), receipt.actions())
    if not len(bars):
        raise AuditError(f"expected bars of {interval} of {', '.join(symbols)}, got none; see optimize.interval")
    found = listing(symbols, receipt.symbol_table())
    listed = {
        name: Listing((market,), (kind,), (gone,))
        for name, market, kind, gone in zip(symbols, found.markets, found.kinds, found.delisted)
    }
    folder = cli.run_folder(config, configuration.as_yaml(config))
    audits: dict[str, Audit] = {}
    with RunLog(folder, config.run.log_level) as log:
        log.stage = "audit"
        for one in asked:
            ranges = config.optimize.ranges if one.name == config.optimize.strategy else None
            text = f"{one.name}: {len(symbols)} symbols, {len(bars)} bars of {interval}"
            log.emit("log", level="info", text=text)
            try:
                done = causal(
                    one, bars, account=account, interval=interval, venue=receipt.venue, listed=listed, ranges=ranges,
                    draws=mine.draws, checks=checks, tries=mine.tries, seed=mine.seed, emit=log.emit,
                )  # fmt: skip
            except StrategyError as error:
                done = Audit(tuple(Outcome(name, reasons={one.name: str(error)}) for name in checks), "")
            audits[one.name] = done
            done.tell(log.emit, one.name)
        verdicts = [done.verdict for done in audits.values()]
        verdict = next((v for v in ("found", "cannot judge") if v in verdicts), "clean")
        certificate = {
            "about": "strategies",
            "made": time.strftime("%Y-%m-%d %H:%M:%S%z"),
            "verdict": verdict,
            "strategies": {name: done.summary() for name, done in audits.items()},
            "bars": {"interval": interval, "rows": len(bars), "symbols": symbols},
            "account": account.model_dump(mode="json"),
            "asked": {"checks": checks, "tries": mine.tries, "seed": mine.seed, "draws": mine.draws},
            "code": {"audit": code_digest(__name__, *(one.step.__module__ for one in asked))},
            "versions": versions(),
        }
        write_json(folder / FILE, certificate)
        log.emit("log", level="info", text=f"{verdict}: {Path(folder) / FILE}", verdict=verdict)
    return {"clean": CLEAN, "found": UNCLEAN}.get(verdict, CANNOT_TELL)


def _receipt(config: configuration.Config) -> Receipt:
    """Return what the last ingest left; AuditError where strategies cannot be run on it."""
    from .command import last_receipt  # which imports this module

    receipt = last_receipt(config)
    interval = config.optimize.interval
    if receipt.close_only:
        raise AuditError(f"expected bars with open, high and low, got closes only from source '{receipt.source}'")
    if interval not in receipt.intervals and not receipt.finer(interval):
        raise AuditError(
            f"expected bars of one of {', '.join(receipt.intervals)} or of what they can be put together to, got "
            f"'{interval}'; set --optimize.interval"
        )
    return receipt


def _symbols(config: configuration.Config, receipt: Receipt, asked: list[str], seed: int) -> list[str]:
    """Return those that are asked for, those of the configuration, or some of the last ingest, drawn by lot."""
    from ..indicators.spec import nearest

    wanted = sorted({*(asked or config.optimize.symbols)})
    for name in wanted:
        if name not in receipt.symbols:
            raise AuditError(f"expected symbols of the last ingest, got '{name}'{nearest(name, list(receipt.symbols))}")
    if wanted or len(receipt.symbols) <= MOST:
        return wanted or sorted(receipt.symbols)
    return sorted(np.random.default_rng(seed).choice(sorted(receipt.symbols), MOST, replace=False).tolist())
