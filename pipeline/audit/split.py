"""`audit.py split`: the folds that training would make of the last features, and the ledger of what they share."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from storage.emit import silent
from storage.store import Store, read_json
from training.splits import TEST, TRAIN, VALID

from .. import config as configuration
from ..verbs import CANNOT_TELL, CLEAN, UNCLEAN
from . import AuditError
from .ledger import Ledger, ledger
from .result import Verdict

ABOUT = (
    "Make the folds that training would make of the last features, with the windows that would be used, and print what "
    "each part holds and what each two share: labels known when another part has begun, windows that read it, dates, "
    "the scaler's rows.\n"
    "Exit status: 0 clean, 1 found something, 3 cannot judge, 2 bad input.\n\n"
    "  --json                       one JSON object a line: a fold each, then the verdict"
)


def split(words: list[str], prog: str) -> int:
    """Print the ledger of every fold; return the exit status."""
    own = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    own.add_argument("--json", action="store_true")
    mine, rest = own.parse_known_args(words)
    config, _ = configuration.load(rest, f"{prog} split", ABOUT)
    directory, manifest = last_features(config)
    told = f"features {manifest['key']}, made {manifest['made']}"
    _say(mine.json, [told], {"features": manifest["key"], "made": manifest["made"]})
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix=".audit-", dir=Path(config.run.data).absolute()) as scratch:
        for one in ledgers(directory, config, Path(scratch)):
            _say(mine.json, one.lines(), one.summary())
            verdicts.append(one.verdict)
    worst: Verdict = next((v for v in ("found", "cannot judge") if v in verdicts), "clean")
    _say(mine.json, [worst], {"verdict": worst, "folds": len(verdicts)})
    return {"clean": CLEAN, "found": UNCLEAN}.get(worst, CANNOT_TELL)


def last_features(config: configuration.Config) -> tuple[Path, dict[str, Any]]:
    """Return the directory and manifest of the features stage that finished last; AuditError where there is none."""
    store = Store(Path(config.run.data).absolute() / "stages")
    made = sorted((store.root / "features").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(made):
        if (manifest := store.done("features", path.parent.name)) is not None:
            return path.parent, manifest
    raise AuditError(f"expected a finished features stage in {store.root}, got none; run features.py first")


def ledgers(directory: Path, config: configuration.Config, scratch: Path) -> Iterator[Ledger]:
    """Yield the ledger of each fold that `split` and `train` make of a features stage."""
    from training.dataset import Folds
    from training.windows import window_ends

    train = config.train
    silent_about = [f["name"] for f in read_json(directory / "columns.json")["features"] if "ready" not in f]
    folds = Folds(directory, config.split, train, scratch)
    for fold in folds.folds:
        data = folds.dataset(fold.number, silent, scratch)
        ends_W = window_ends(data.panel, data.known_N, train.window, train.max_gap_days)
        panel, part_N = data.panel, data.fold.of(data.panel.ts_N)
        judged_N = (part_N == TEST) & np.isfinite(panel.y_NH[:, 0]) & ~data.fold.purged(panel.ts_N, panel.end_N)
        windows = {part: data.windows(part, train) for part in (TRAIN, VALID)} | {TEST: ends_W[judged_N[ends_W]]}
        one = ledger(data, windows, data.split_N == TRAIN, train.window)
        if silent_about:
            more = f" and {len(silent_about) - 3} more" if len(silent_about) > 3 else ""
            one.reasons.append(
                f"how far {', '.join(silent_about[:3])}{more} look back: {directory / 'columns.json'} does not say"
            )
        yield one


def _say(as_json: bool, lines: list[str], fields: dict[str, Any]) -> None:
    out = [json.dumps(fields, ensure_ascii=False)] if as_json else lines
    sys.stdout.write("".join(f"{line}\n" for line in out))
    sys.stdout.flush()
