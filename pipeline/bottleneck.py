"""How the time of a stage grows with its input: what `scripts/bottleneck.py` measures, and a table of what can be
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.special import stdtrit

from storage.emit import silent
from storage.section import digest_of
from storage.store import Store

from . import cli
from . import config as configuration
from .audit.command import last_receipt
from .cluster import Cluster
from .config import Config, ConfigError
from .receipt import FILE as RECEIPT
from .receipt import Receipt, take
from .stages import STAGES, Runner, Stage, parts, wanted

ABOUT = (
    "Run a stage on 10, 50 and 100 symbols, or a sweep of so many combinations, each three times after a run that only "
    "warms up, in a folder of its own "
    "that is removed afterwards. Bars are those of the last ingest into the lake of run.data or, where there is none, "
    "of an ingest with the given options. Says the seconds of each, the use of the processor, what is fixed and what "
    "each symbol takes (least squares), the exponent of growth (1 = linear) and a forecast with its 95 % interval. "
    "Where the time of one run goes is what --profile of the stage's own command says.\n"
    "Exit status: 0 done, 2 bad input.\n\n"
    "  --samples 10,50,100   how many symbols\n"
    "  --forecast 1000       for how many the time is forecast\n"
    "  --repeats 3           runs of each\n"
    "  --json                one JSON line"
)
MEASURED = {"lake", "rows", "digests", "versions"}  # fields of a receipt that `take` fills in
LEAST_S = 0.5  # shorter runs tell more of the clock and of the neighbours than of the work
LINEAR = 0.15  # how far the exponent of growth may be from 1


@dataclass(frozen=True)
class Target:
    """What can be measured. prepare : from configuration, cluster, number of samples and a folder, make what is not to
    be timed and return what is; called before each run.
    """

    unit: str
    prepare: Callable[[Config, Cluster, int, Path], Callable[[], Any]]
    again: bool = False  # what is returned may be called several times


def by_symbols(which: Stage) -> Target:
    """Measure a stage by symbols; the stages before it run once for each number of symbols."""

    def prepare(config: Config, cluster: Cluster, n: int, folder: Path) -> Callable[[], Any]:
        data = folder / str(n)
        shutil.rmtree(data if which.name == "ingest" else data / "stages" / which.name, ignore_errors=True)
        cut = _with(_with(config, "run", data=str(data), cache_enabled=True), "ingest", count=n)
        found = _last_ingest(config)
        if found is not None:
            cut = _cut(cut, cluster, n, *found, ingests=which.name == "ingest")
        stages = wanted([which.name], cut)
        if stages[:-1]:
            Runner(cut, cluster, silent).run(stages[:-1])
        return lambda: Runner(cut, cluster, silent).run(stages)

    return Target("symbols", prepare)


def by_combinations() -> Target:
    """Measure a sweep by combinations: those that the optimiser draws first, over the bars of its settings."""

    def prepare(config: Config, cluster: Cluster, n: int, folder: Path) -> Callable[[], Any]:
        from .backtest import sweep
        from .backtest.single.lake_bars import of_receipt
        from .backtest.single.ranges import Ranges, codes
        from .backtest.single.samples import Samples
        from .strategies import strategy_of

        found, own = _last_ingest(config), config.optimize
        if found is None:
            made = Runner(_with(config, "run", data=str(folder), cache_enabled=True), cluster, silent).run(STAGES[:1])
            left = Path(made["ingest"]["directory"])
        else:
            left = found[1]
        strategy = strategy_of(own.strategy)
        bars = of_receipt(left, config.account, own.interval, own.symbols)
        drawn = Ranges.whole(strategy, own.ranges, own.interval).draw(n, own.seed, set())
        chosen = Samples(strategy, codes(strategy, drawn))
        return lambda: sweep(bars, strategy, chosen, account=config.account, workers=cluster.cores)

    return Target("combinations", prepare, again=True)


TARGETS = {**{which.name: by_symbols(which) for which in STAGES}, "sweep": by_combinations()}


def _with(config: Config, section: str, **values: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _last_ingest(config: Config) -> tuple[Receipt, Path] | None:
    """Return what the last ingest left and its directory, None where nothing was ever ingested."""
    finished = sorted((Path(config.run.data).absolute() / "stages" / "ingest").glob(f"*/{RECEIPT}"))
    if not finished:
        return None
    receipt = last_receipt(config)
    return receipt, next(path.parent for path in finished if Receipt.load(path.parent) == receipt)


def _cut(config: Config, cluster: Cluster, n: int, receipt: Receipt, left: Path, *, ingests: bool) -> Config:
    """Let the next run find an ingest of the first n symbols done, or ingest those where ingest is what is timed."""
    if len(receipt.symbols) < n:
        raise ConfigError(
            f"expected {n} symbols in {receipt.lake}, got {len(receipt.symbols)}; ingest more or give smaller --samples"
        )
    symbols = receipt.symbols[:n]
    if ingests:
        return _with(config, "ingest", symbols=symbols)
    config = _with(config, "lake", path=receipt.lake)
    store, made_of = Store(Path(config.run.data) / "stages"), parts(STAGES[0], config, {}, cluster.device)
    key = digest_of(made_of)
    if store.done("ingest", key) is None:
        known = {k: v for k, v in receipt.model_dump().items() if k not in MEASURED}
        fewer = take(receipt.opened, **{**known, "symbols": symbols})
        with store.writing("ingest", key) as out:
            shutil.copytree(left, out, dirs_exist_ok=True)
            fewer.save(out)
            content = digest_of(fewer.model_dump(mode="json", exclude={"lake", "versions"}))
            facts = {"key": key, "made_of": made_of, "content": content, "made": "", "seconds": 0.0}
            store.finish("ingest", key, facts)
    return config


def measure(target: Target, config: Config, sizes: list[int], repeats: int) -> Iterator[tuple[int, float, float]]:
    """Yield (samples, seconds, CPU seconds) of each run; what takes milliseconds runs as often as LEAST_S holds."""
    with tempfile.TemporaryDirectory(prefix="bottleneck-") as folder, Cluster(config.cluster) as cluster:
        target.prepare(config, cluster, sizes[0], Path(folder))()  # kernels are loaded, caches are warm
        for n in [n for n in sizes for _ in range(repeats)]:
            act = target.prepare(config, cluster, n, Path(folder))
            count, took = 1, 0.0
            while not took or (target.again and took < LEAST_S):
                count = math.ceil(1.2 * LEAST_S * count / took) if took else count
                cpu, start = _cpu_seconds(), time.perf_counter()
                for _ in range(count):
                    act()
                took, used = time.perf_counter() - start, _cpu_seconds() - cpu
            yield n, took / count, used / count


def _cpu_seconds() -> float:
    """Return what this process and those that it started have used."""
    me = psutil.Process()
    own = me.cpu_times()
    used = own.user + own.system + own.children_user + own.children_system
    for child in me.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            used += sum(child.cpu_times()[:2])
    return float(used)


def report(what: str, unit: str, runs: list[tuple[int, float, float]], forecast: int) -> dict[str, Any]:
    """Return seconds by number of samples and what follows from them.

    seconds = fixed + each x samples by least squares, each not below zero, with Student's 95 % interval of a further
    run; exponent = slope of log seconds over log samples; r2 of the line.
    """
    n, seconds, _ = (np.array(column, np.float64) for column in zip(*runs))
    rows = []
    for size in sorted({size for size, _, _ in runs}):
        own = [(s, c) for m, s, c in runs if m == size]
        took = float(np.median([s for s, _ in own]))
        use = sum(c for _, c in own) / sum(s for s, _ in own) / (psutil.cpu_count() or 1)
        rows.append({"samples": size, "seconds": took, "runs": [s for s, _ in own], "cpu_use": use})
    spread = n - n.mean()
    each = max(float(spread @ seconds / (spread @ spread)), 0.0)  # more samples take no less
    fixed = float(seconds.mean() - each * n.mean())
    rest = seconds - fixed - each * n
    free = len(n) - 2
    sd = math.sqrt(float(rest @ rest) / free)
    error = sd * math.sqrt(1 + 1 / len(n) + (forecast - n.mean()) ** 2 / float(spread @ spread))
    middle, half = fixed + each * forecast, float(stdtrit(free, 0.975)) * error
    varied = float(((seconds - seconds.mean()) ** 2).sum())
    return {
        "what": what,
        "unit": unit,
        "cores": psutil.cpu_count(),
        "rows": rows,
        "fixed_s": fixed,
        "each_s": each,
        "each_error_s": sd / math.sqrt(float(spread @ spread)),
        "r2": 1 - float(rest @ rest) / varied if varied else 1.0,
        "exponent": float(np.polyfit(np.log(n), np.log(seconds), 1)[0]),
        "forecast": {"samples": forecast, "seconds": middle, "low": max(middle - half, 0.0), "high": middle + half},
    }


def table(found: dict[str, Any]) -> str:
    """Return the report as text."""
    unit, ahead, exponent = found["unit"], found["forecast"], found["exponent"]
    lines = [
        f"{found['what']} by {unit}, {found['cores']} cores",
        f"{unit:>12} {'s':>10} {'ms each':>10} {'CPU use':>8}",
    ]
    for row in found["rows"]:
        each = 1000 * row["seconds"] / row["samples"]
        lines.append(f"{row['samples']:>12,} {row['seconds']:>10.3f} {each:>10.2f} {row['cpu_use']:>8.0%}")
    how = "linear" if abs(exponent - 1) <= LINEAR else "less than linear" if exponent < 1 else "MORE than linear"
    lines += [
        f"{found['fixed_s']:.3f} s fixed + {1000 * found['each_s']:.2f} ms each (r2 {found['r2']:.3f}); "
        f"grows as samples^{exponent:.2f}: {how}",
        f"forecast for {ahead['samples']:,} {unit}: {ahead['seconds']:.2f} s, 95 % of runs between {ahead['low']:.2f} "
        f"and {ahead['high']:.2f} s if it goes on as a line",
    ]
    if found["each_s"] < 2 * found["each_error_s"]:
        lines.append("what each takes cannot be told from zero at these sizes: give larger --samples or more --repeats")
    return "\n".join(lines) + "\n"


def _sizes(text: str) -> list[int]:
    words = text.replace(" ", "").split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len({*words}) < 2:
        raise ConfigError(
            f"expected two or more different numbers of samples, such as --samples 10,50,100, got {text!r}"
        )
    return sorted({int(word) for word in words})


def main(arguments: list[str] | None = None) -> int:
    """Measure what the first word names; return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    what = words.pop(0) if words and not words[0].startswith("-") else ""

    def act(prog: str) -> int:
        own = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False, exit_on_error=False)
        own.add_argument("--samples", default="10,50,100")
        own.add_argument("--forecast", type=int, default=1000)
        own.add_argument("--repeats", type=int, default=3)
        own.add_argument("--json", action="store_true")
        try:
            mine, rest = own.parse_known_args(words)
        except argparse.ArgumentError as error:
            raise ConfigError(f"{error}; --help lists the options") from error
        config, _ = configuration.load(rest, f"{prog} STAGE", ABOUT)
        if what not in TARGETS:
            raise ConfigError(f"expected one of {', '.join(TARGETS)}, got {what or 'nothing'!r}")
        sizes = _sizes(mine.samples)
        if mine.repeats < 1 or len(sizes) * mine.repeats < 3 or mine.forecast < 1:
            raise ConfigError(
                f"expected at least three runs and a forecast for one sample or more, got --samples {mine.samples} "
                f"--repeats {mine.repeats} --forecast {mine.forecast}"
            )
        target = TARGETS[what]
        found = report(what, target.unit, list(measure(target, config, sizes, mine.repeats)), mine.forecast)
        sys.stdout.write(json.dumps(found) + "\n" if mine.json else table(found))
        return 0

    return cli.guarded(act)
