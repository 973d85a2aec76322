"""From the command line to a run folder: what `run_optimized_pipeline.py` and every stage script call."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from storage.emit import Emit, silent
from storage.section import digest_of
from storage.store import StoreError, write_json
from training import tensorboard

from . import config as configuration
from .cluster import Cluster
from .doctor import DoctorError, run_checks
from .events import RunLog
from .interrupt import Interrupted, Interrupts
from .provenance import PACKAGES, environment
from .stages import Runner, Stage, wanted

ABOUT = "Market data in, report out: check, ingest, features, (tune,) train, predict, backtest, report."
SHOWN = {  # files of stages that the run's folder gets copies of, the one to look at last
    "optimize": ("trials.parquet", "ranges.yaml", "bank.json"),
    "report": ("performance_report.json", "performance_analysis.png", "report.html"),
}


def main(last: str = "report", arguments: list[str] | None = None, more: str = "") -> int:
    """Run the stages that lead to `last`; finished ones are reused. `more` is said in the help.

    Return the exit status: 0 done, 2 bad input, 130 or 143 interrupted. Other errors are faults of ours and are raised.
    """
    words = sys.argv[1:] if arguments is None else arguments
    about = (ABOUT if last == "report" else f"Run the stage '{last}' and what it needs that is not there yet.") + more

    def act(prog: str) -> int:
        with Interrupts() as interrupts:
            config, given = configuration.load(words, prog, about)
            with Cluster(config.cluster) as cluster:
                if given.dry_run:
                    return _dry_run(config, cluster, last)
                return _run(config, cluster, last, interrupts)

    return guarded(act)


def guarded(act: Callable[[str], int]) -> int:
    """Call `act` with the program's name; an error that is the user's to mend becomes a sentence and a status."""
    prog = Path(sys.argv[0]).name
    atexit.register(gc.freeze)  # at the end Python goes through all objects of all packages: a second here
    try:
        return act(prog)
    except Interrupted as error:
        sys.stderr.write(f"{prog}: {error}\n")
        return error.code
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__module__.split(".")[0] not in PACKAGES:
            raise
        sys.stderr.write(f"{prog}: {error}\n")
        return 2


def _stages(config: configuration.Config, last: str) -> list[Stage]:
    return wanted([last], config)


def _dry_run(config: configuration.Config, cluster: Cluster, last: str) -> int:
    for planned in Runner(config, cluster, silent).plan(_stages(config, last)):
        verb = "reuse" if planned.manifest else "run"
        sys.stdout.write(f"{planned.stage.name:<9} {verb:<6} {planned.key or '-':<33} {planned.why}\n")
    sys.stdout.flush()
    return 0


def run_folder(config: configuration.Config, text: str) -> Path:
    """Make the run's folder, which no other run has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    runs = Path(config.run.runs).absolute()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for again in ("", *(f"-{n}" for n in range(2, 1000))):
            directory = runs / f"{stamp}{again}_{config.run.name}_{digest_of(text)[:8]}"
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                (directory / "config.yaml").write_text(text, encoding="utf-8")
                return directory
    except OSError as error:
        raise StoreError(
            f"expected a writable folder for runs, got '{error.strerror}' at {runs}; set --run.runs"
        ) from error
    raise StoreError(f"expected to start fewer than 1,000 runs a second in {runs}")


@contextlib.contextmanager
def _telling(config: configuration.Config, directory: Path, log: RunLog) -> Iterator[Emit]:
    """Give what stages tell their events to."""
    if not config.run.tensorboard:
        yield log.emit
        return
    with tensorboard.Board(directory / "tensorboard", log.emit) as board:
        yield board.emit


def _run(config: configuration.Config, cluster: Cluster, last: str, interrupts: Interrupts) -> int:
    if config.run.tensorboard:
        tensorboard.check()
    directory = run_folder(config, configuration.as_yaml(config))
    profiles = directory / "profile" if config.run.profile else None
    start = time.perf_counter()
    with RunLog(directory, config.run.log_level) as log, _telling(config, directory, log) as emit:
        cluster.emit = log.emit
        runner, stages = Runner(config, cluster, emit, profiles), _stages(config, last)
        started = time.strftime("%Y-%m-%d %H:%M:%S%z")
        record: dict[str, Any] = {"name": config.run.name, "started": started, "state": "failed", "stages": {}}

        def begin(stage: str) -> None:
            interrupts.check()
            log.stage = stage

        try:
            begin("check")
            _check(config, cluster, log, trains={"train", "tune"} & {s.name for s in stages} != set())
            record["stages"] = runner.run(stages, begin)
            interrupts.check()
            record["state"] = "done"
        except BaseException as error:
            record["error"] = f"{type(error).__name__}: {error}"
            log.emit("log", level="error", text=record["error"])
            log.emit("log", level="debug", text=traceback.format_exc())
            raise
        finally:
            record["seconds"] = round(time.perf_counter() - start, 3)
            write_json(directory / "manifest.json", record)
            write_json(directory / "environment.json", environment(cluster.device))
        log.stage = ""
        result = directory
        for stage in SHOWN.keys() & record["stages"].keys():
            for name in SHOWN[stage]:
                shutil.copy2(Path(record["stages"][stage]["directory"]) / name, directory / name)
                result = directory / name
        log.emit("log", level="info", text=f"{last} done in {record['seconds']:.1f} s: {result}")
    return 0


def _check(config: configuration.Config, cluster: Cluster, log: RunLog, *, trains: bool) -> None:
    """The environment stage: what would make the run fail is said before any work is done."""
    findings = run_checks(config, trains=trains)
    log.emit("progress", done=len(findings), total=len(findings), unit="checks")
    for finding in findings:
        if finding.status != "ok":
            level = "error" if finding.status == "fail" else "warning"
            log.emit("log", level=level, text=f"{finding.name}: {finding.text}; {finding.what_to_do}")
    failed = [f for f in findings if f.status == "fail"]
    if failed:
        raise DoctorError(
            "the environment is not ready: " + "; ".join(f"{f.name}: {f.text} ({f.what_to_do})" for f in failed)
        )
    cluster.announce()
