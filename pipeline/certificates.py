"""What an audit said about features, kept beside the data under a name that says of which: a report finds it there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.section import digest_of
from storage.store import read_json, write_json

from .features.section import AUTO
from .receipt import Receipt

FOLDER = "certificates"


def key(features: Mapping[str, Any], universe: Mapping[str, Any], receipt: Receipt, code: str) -> str:
    """Name features by what they are made of. features, universe : the sections, `keyed`; code : digest of the code of
    the features stage.
    """
    sets = features["set"]  # of `auto` all that it may stand for
    made = {**features, "set": sets[receipt.close_only] if len(sets) == len(AUTO) else sets[0]}
    return digest_of({"features": made, "universe": universe, "rows": receipt.digests, "code": code})


def write(data: Path, name: str, certificate: dict[str, Any]) -> Path:
    """Keep a certificate in a data folder, beside those of the same features that asked something else."""
    asked = digest_of([certificate["asked"], certificate["bars"]])
    path = data / FOLDER / name / f"{asked}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, certificate)
    return path


def of(data: Path, receipt: Receipt, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the certificate of what a features stage made, None where nobody audited it: one that found something,
    else that of the most checks on the most bars. manifest : the stage's.
    """
    made_of = manifest.get("made_of") or {}
    sections = made_of.get("sections") or {}
    if not {"features", "universe"} <= set(sections):
        return None
    name = key(sections["features"], sections["universe"], receipt, made_of["code"])
    found: list[dict[str, Any]] = [read_json(path) for path in sorted((data / FOLDER / name).glob("*.json"))]
    return max(found, key=_weight, default=None)


def _weight(certificate: Mapping[str, Any]) -> tuple[bool, int, int, int, str]:
    asked, rows = certificate["asked"], certificate["bars"]["rows"]
    return certificate["verdict"] == "found", len(asked["checks"]), rows, asked["tries"], certificate["made"]


def digest(certificate: Mapping[str, Any] | None) -> str:
    """Name what a certificate says, whenever it was made; empty = there is none."""
    return digest_of({**certificate, "made": ""}) if certificate else ""
