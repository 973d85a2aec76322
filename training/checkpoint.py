"""Files of tensors and plain values, written whole or not at all and read without running anything."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from storage.store import replacing

VERSION = 2


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or of another kind."""


def save(path: Path, value: dict[str, Any]) -> None:
    """Write tensors and plain values; readers see the old file or the new one, never a part."""
    with replacing(path) as temporary:
        torch.save({"version": VERSION, **value}, temporary)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, tensors on the CPU; CheckpointError names a file that is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (part := archive.testzip()) is not None:  # torch does not look at the checksums
                raise CheckpointError(f"damaged bytes in {part}")
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes fail anywhere in the readers
        raise CheckpointError(
            f"expected a checkpoint of tensors at {path}, got: {error}; remove its folder and train again"
        ) from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise CheckpointError(
            f"expected a checkpoint of version {VERSION} at {path}, got another kind of file; train again"
        )
    return value


def before(path: Path) -> Path:
    """Return where the checkpoint before the last one is kept."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def keep(path: Path, value: dict[str, Any]) -> None:
    """Write a checkpoint and keep the one before it, so that a damaged one costs one interval."""
    if path.exists():
        path.replace(before(path))
    save(path, value)


def newest(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest checkpoint that can be read, None without one, and what was wrong with those after it."""
    troubles: list[str] = []
    for place in (path, before(path)):
        if place.exists():
            try:
                found = load(place)
            except CheckpointError as error:
                troubles.append(str(error))
                continue
            if place != path:
                path.unlink(missing_ok=True)  # else the next `keep` would put the damaged one in the place of this one
            return found, troubles
    return None, troubles
