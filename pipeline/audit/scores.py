"""`audit.py scores`: the trained models of the last predictions, held to the checks of trained.py."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.store import MANIFEST, Store, StoreError, read_json, write_json
from training.promoted import STAGE as REGISTRY

from .. import cli
from .. import config as configuration
from ..cluster import gpu_count
from ..events import RunLog
from ..provenance import code_digest, versions
from ..verbs import CANNOT_TELL, CLEAN, UNCLEAN
from . import Audit, AuditError, Outcome, chosen, held
from .options import options, parsed

if TYPE_CHECKING:
    from .rescored import Sources

CHECKS = ("C1", "C2", "C6", "C7")
FILE = "certificate.json"
ABOUT = (
    "Score the windows of the last predictions again with the same models, of all folds and seeds: from the rows up to "
    "random moments alone (C1), with what follows poisoned (C2), from one symbol's rows alone (C6), and see that no "
    "model scores what its training knew of and that its scaler is of its training's rows (C7). Leaves "
    "certificate.json in the run's folder.\n"
    "Exit status: 0 clean, 1 found something, 3 cannot judge, 2 bad input.\n\n"
    "  --symbols A,B                symbols (all)\n"
    f"  --checks {','.join(CHECKS)}         which checks (all)\n"
    "  --tries 20 --seed 0          random moments a check, at least one a fold, and where they come from\n"
    "  --windows 5000               windows compared at a moment, the last ones of each symbol"
)


def scores(words: list[str], prog: str) -> int:
    """Audit the predictions that finished last; return the exit status."""
    own = options(prog, CHECKS)
    own.add_argument("--windows", type=int, default=5000)
    mine, rest = parsed(own, words)
    config, _ = configuration.load(rest, f"{prog} scores", ABOUT)
    checks = chosen(mine.checks, mine.tries, CHECKS)
    if mine.windows < 1:
        raise AuditError(f"expected at least one of --windows, got {mine.windows}")
    sources, manifests = last_predictions(config)
    from .rescored import Rescored  # torch, which the other audits do without
    from .trained import CHECKS as ACTS
    from .trained import Trained

    with tempfile.TemporaryDirectory(prefix=".audit-", dir=Path(config.run.data).absolute()) as scratch:
        again = Rescored(sources, Path(scratch), sorted({*mine.symbols}), mine.windows)
        elsewhere = sources.device == "gpu" and not gpu_count()
        missing = "they were made on a GPU, and there is none here" if elsewhere else ""
        case = Trained(again, **_training(manifests, whole=not mine.symbols), missing=missing)
        folder = cli.run_folder(config, configuration.as_yaml(config))
        with RunLog(folder, config.run.log_level) as log:
            log.stage = "audit"
            predict = manifests["predict"]
            text = f"predictions {predict['key']}, made {predict['made']} with the models of {predict['trained']}"
            log.emit("log", level="info", text=text)
            outcomes = [Outcome(name) for name in checks]
            held(case, ACTS, outcomes, tries=mine.tries, seed=mine.seed, emit=log.emit)
            done = Audit(tuple(outcomes), manifests["predict"]["content"])
            panel = again.panel
            found = {
                "about": "scores",
                "made": time.strftime("%Y-%m-%d %H:%M:%S%z"),
                **done.summary(),
                "stages": {name: manifest["key"] for name, manifest in manifests.items()},
                "columns": again.names,
                "folds": len(again.folds),
                "rows": {"features": len(panel.ts_N), "scores": sum(len(w.rows) for w in again.written.values())},
                "bound": {"precision": sources.section.precision, "device": sources.device, "batches": case.bound},
                "asked": {"checks": checks, "tries": mine.tries, "seed": mine.seed, "windows": mine.windows,
                          "symbols": sorted({*mine.symbols})},
                "code": {"audit": code_digest(__name__)},
                "versions": versions(),
            }  # fmt: skip
            write_json(folder / FILE, found)
            done.tell(log.emit, folder / FILE)
    return {"clean": CLEAN, "found": UNCLEAN}.get(done.verdict, CANNOT_TELL)


def last_predictions(config: configuration.Config) -> tuple[Sources, dict[str, dict[str, Any]]]:
    """Return the places and the manifests of the predict stage that finished last and of the features and models that
    it read; AuditError where one is not there.
    """
    from .rescored import Sources

    data = Path(config.run.data).absolute()
    store = Store(data / "stages")
    predict = _latest(store, "predict")
    if predict is None:
        raise AuditError(f"expected a finished predict stage in {store.root}, got none; run predict.py first")
    content = predict["made_of"]["inputs"]["features"]
    features = _latest(store, "features", content)
    if features is None:
        raise AuditError(
            f"expected the features that the predictions {predict['key']} were made of (content {content}) in "
            f"{store.root / 'features'}, got none; run features.py and predict.py again"
        )
    trained = (data if predict["trained"].startswith(f"{REGISTRY}/") else store.root) / predict["trained"]
    if not (trained / MANIFEST).exists():
        raise AuditError(
            f"expected the models of the predictions {predict['key']} in {trained}, got none; predict again"
        )
    section = config.predict.model_copy(update={"precision": predict["precision"]})
    places = store.path("features", features["key"]), trained, store.path("predict", predict["key"])
    manifests = {"predict": predict, "features": features, "train": read_json(trained / MANIFEST)}
    return Sources(*places, section, predict["made_of"]["device"]), manifests


def _latest(store: Store, stage: str, content: str = "") -> dict[str, Any] | None:
    """Return the manifest of the stage that finished last, of this content where one is asked for."""
    made = sorted((store.root / stage).glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(made):
        try:
            found = store.done(stage, path.parent.name)
        except StoreError:
            continue  # of another one, which is damaged
        if found is not None and content in ("", found["content"]):
            return found
    return None


def _training(manifests: dict[str, dict[str, Any]], *, whole: bool) -> dict[str, Any]:
    """Return the split's kind and the settings of training, these where it read all the rows that are here."""
    made_of = manifests["train"].get("made_of") or {}
    sections = made_of.get("sections") or {}
    same = whole and (made_of.get("inputs") or {}).get("features") == manifests["features"]["content"]
    return {"kind": sections.get("split", {}).get("kind", ""), "train": sections.get("train") if same else None}
