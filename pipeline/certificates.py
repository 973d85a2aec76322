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
    """Keep a certificate in a data folder, in place of an earlier one of the same features; return where."""
    path = data / FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, certificate)
    return path


def of(data: Path, receipt: Receipt, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the certificate of what a features stage made, None where nobody audited it. manifest : the stage's."""
    made_of = manifest.get("made_of") or {}
    sections = made_of.get("sections") or {}
    if not {"features", "universe"} <= set(sections):
        return None
    path = data / FOLDER / f"{key(sections['features'], sections['universe'], receipt, made_of['code'])}.json"
    found: dict[str, Any] | None = read_json(path) if path.exists() else None
    return found


def digest(certificate: Mapping[str, Any] | None) -> str:
    """Name what a certificate says, whenever it was made; empty = there is none."""
    return digest_of({**certificate, "made": ""}) if certificate else ""
