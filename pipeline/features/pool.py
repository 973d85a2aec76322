"""Blocks that were made before, named by what made them, so that an append computes only what is new.

A block's folder is its chain: the digest of the code, the specs and all rows before it. Its file is named by its own
rows. Stages get links to blocks, never copies where the file system can link.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from storage.store import StoreError, read_json, replacing, write_parquet

FOLDER = ".blocks"


@dataclass(frozen=True)
class Block:
    """Name a block: its Parquet file, its state and, written last, its facts."""

    folder: Path
    rows: str

    @property
    def file(self) -> Path:
        return self.folder / f"{self.rows}.parquet"

    @property
    def state(self) -> Path:
        return self.folder / f"{self.rows}.npz"

    def told(self) -> dict[str, Any]:
        """Return what was written about a block, whole or not; nothing where that cannot be read."""
        try:
            told = read_json(self.folder / f"{self.rows}.json")
        except StoreError:
            return {}
        return told if isinstance(told, dict) else {}

    def facts(self) -> dict[str, Any] | None:
        """Return what was written of a whole block, else None: killed attempts and damaged files count as nothing."""
        told = self.told()
        try:
            return told if told and _checksum(self.file) == told.get("checksum") else None
        except OSError:
            return None

    def write(self, table: pa.Table, facts: dict[str, Any]) -> dict[str, Any]:
        """Write the block and its facts, and return these."""
        write_parquet(self.file, table)
        whole = {**facts, "checksum": _checksum(self.file)}
        with replacing(self.folder / f"{self.rows}.json") as temporary:
            temporary.write_text(json.dumps(whole), encoding="utf-8")
        return whole

    def read(self) -> pa.Table:
        return pq.read_table(self.file)

    def others(self) -> Iterator[Block]:
        """Return the blocks with the same past and other rows, such as yesterday's of the open period, newest first."""
        found = [path for path in self.folder.glob("*.json") if path.stem != self.rows]
        for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            yield Block(self.folder, path.stem)

    def forget(self) -> None:
        """Take the block out of the pool; stages keep their links."""
        for path in (self.folder / f"{self.rows}.json", self.state, self.file):
            path.unlink(missing_ok=True)

    def link(self, path: Path) -> None:
        """Put the block at a path as a link, or as a copy where there are no links."""
        if path.exists() and path.samefile(self.file):
            return
        with replacing(path) as temporary:
            temporary.unlink()
            try:
                os.link(self.file, temporary)
            except OSError:
                shutil.copyfile(self.file, temporary)


def _checksum(path: Path) -> str:
    total = xxhash.xxh3_64()
    with path.open("rb", buffering=0) as file:
        while part := file.read(1 << 20):
            total.update(part)
    return total.hexdigest()
