"""`models.py list | promote | pin | rollback | show`: which trained model prediction and the live stage use."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from storage.store import MANIFEST, Store, read_json
from training.promoted import STAGE, RegistryError, check
from training.registry import IN_USE, Registry

from . import cli
from . import config as configuration

ABOUT = (
    "Say which trained model is in use: `--predict.model registry` scores with it.\n\n"
    "  list                       finished train stages, and the models that were promoted\n"
    "  promote [RUN | KEY]        put the last fold of a train stage in use: a run's folder, or the beginning of a\n"
    "                             stage's key or of a digest; none = the latest stage. --model lstm, none = that of\n"
    "                             the highest validation rank IC\n"
    "  pin [--off]                nothing replaces the model in use until it is unpinned\n"
    "  rollback                   back to the model before the one in use\n"
    "  show [DIGEST]              the model in use, or another, and whether its files are whole\n\n"
    "  --json                     for machines      --why TEXT  kept in the history\n"
    "  --force                    replace a pinned model, or one of other features"
)
VERBS = ("list", "promote", "pin", "rollback", "show")


def main(arguments: list[str] | None = None) -> int:
    """Do what the first word says; return the exit status: 0 done, 2 bad input."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    verb = words.pop(0) if words and not words[0].startswith("-") else ""

    def act(prog: str) -> int:
        if verb not in VERBS and not {"-h", "--help"} & {*words}:
            raise RegistryError(f"expected {', '.join(VERBS)}, got {verb or 'nothing'!r}; --help lists the options")
        own = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
        own.add_argument("--json", action="store_true")
        own.add_argument("--model", default="")
        own.add_argument("--why", default="")
        own.add_argument("--force", action="store_true")
        own.add_argument("--off", action="store_true")
        name = words.pop(0) if words and not words[0].startswith("-") else ""
        mine, rest = own.parse_known_args(words)
        config, _ = configuration.load(rest, f"{prog} {verb}".strip(), ABOUT)
        found = _done(verb, name, mine, config)
        sys.stdout.write((json.dumps(found, ensure_ascii=False) if mine.json else _text(verb, found)) + "\n")
        return 0

    return cli.guarded(act)


def _done(verb: str, name: str, mine: argparse.Namespace, config: configuration.Config) -> dict[str, Any]:
    data = Path(config.run.data).absolute()
    registry = Registry(data)
    match verb:
        case "promote":
            trained = _trained(name, data, Path(config.run.runs).absolute())
            return registry.promote(trained, mine.model, mine.why, force=mine.force)
        case "pin":
            return registry.pin(mine.why, on=not mine.off)
        case "rollback":
            return registry.rollback(mine.why, force=mine.force)
        case "show":
            folder = registry.folder(name or IN_USE)
            check(folder)
            return _state(registry, folder.name) | {"folder": str(folder)}
        case _:
            promoted = sorted({str(entry["digest"]) for entry in registry.history()})
            stages = {key: _figures(manifest) for key, manifest in _stages(data).items()}
            return {
                "stages": stages,
                "models": [_state(registry, digest) for digest in promoted],
                "history": registry.history(),
            }


def _stages(data: Path) -> dict[str, dict[str, Any]]:
    """Return the manifests of the finished train stages that have folds, as all of this version do, oldest first."""
    store = Store(data / "stages")
    found = sorted((store.root / "train").glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    known = {path.parent.name: store.done("train", path.parent.name) for path in found}
    return {key: manifest for key, manifest in known.items() if manifest and "folds" in manifest}


def _trained(name: str, data: Path, runs: Path) -> Path:
    """Return the train stage that a run, a key or a digest names; the latest finished one without a name."""
    stages = _stages(data)
    if not name:
        if not stages:
            raise RegistryError(f"expected a finished train stage in {data / 'stages'}, got none; run train.py first")
        return data / "stages" / "train" / list(stages)[-1]
    run = next((path for path in (Path(name), runs / name) if (path / MANIFEST).exists()), None)
    if run:
        done = read_json(run / MANIFEST).get("stages", {})
        if "train" not in done:
            raise RegistryError(f"expected a run that trained in {run}, got the stages {', '.join(done) or 'none'}")
        name = str(done["train"]["key"])
    promoted = [path.parent for path in (data / STAGE).glob(f"*/{MANIFEST}")]
    places = [*(data / "stages" / "train" / key for key in stages), *promoted]
    found = [place for place in places if place.name.startswith(name)]
    if len(found) != 1:
        raise RegistryError(
            f"expected a run's folder, or the beginning of the key of one finished train stage or model in {data}, got "
            f"'{name}', which names {len(found) or 'none'}; python scripts/models.py list"
        )
    return found[0]


def _figures(manifest: dict[str, Any]) -> dict[str, Any]:
    ranks = {name: one.get("valid_rank_ic") for name, one in manifest["metrics"].items()}
    return {"made": manifest["made"], "folds": manifest["folds"], "valid_rank_ic": ranks}


def _state(registry: Registry, digest: str) -> dict[str, Any]:
    """Say what there is to know about a promoted model; its folder may be gone."""
    used = registry.used()
    card = registry.store.done(STAGE, digest)
    state = {"digest": digest, "in_use": digest == used.digest, "pinned": digest == used.digest and used.pinned}
    if card is None:
        return {**state, "whole": False}
    columns = card["columns"]
    return {
        **state, "whole": True, "model": card["model"], "stage": card["stage_key"], "fold": card["fold"],
        "features": len(columns["features"]), "targets": columns["targets"], "interval": columns["interval"],
        "valid_rank_ic": card["metrics"][card["model"]]["valid_rank_ic"], "made": card["made"],
    }  # fmt: skip


def _text(verb: str, found: dict[str, Any]) -> str:
    if verb == "show":
        return "\n".join(f"{name:<14} {value}" for name, value in found.items())
    if verb != "list":
        pinned = " until it is unpinned" if found["action"] == "pin" else ""
        return (
            f"{found['action']}: {found['model']} {found['digest']} of train stage {found['stage']} is in use{pinned}"
        )
    lines = ["train stages, the latest last:" if found["stages"] else "no finished train stage"]
    for key, one in found["stages"].items():
        ranks = ", ".join(f"{name} {_number(value)}" for name, value in one["valid_rank_ic"].items())
        lines.append(f"  {key}  {one['made']}  {one['folds']} fold(s)  validation rank IC: {ranks}")
    lines.append("promoted models:" if found["models"] else "no model was promoted")
    for one in found["models"]:
        marks = [name for name in ("in_use", "pinned") if one[name]] + ([] if one["whole"] else ["DAMAGED OR GONE"])
        lines.append(f"  {one['digest']}  {one.get('model', '')}  {' '.join(marks).replace('_', ' ')}".rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
