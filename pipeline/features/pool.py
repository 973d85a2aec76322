"""Blocks that were made before, named by what made them, so that an append computes only what is new.

A block's folder is its chain: the digest of the code, the specs and all rows before it. Its file is named by its own
rows. Stages get links to blocks, never copies where the file system can link.

Runs share a pool without locks, and one may forget a block at any moment. So a stage links a block first and then
looks whether it is whole, and writes a new one to its own folder before it links it into the pool.
"""

from __future__ import annotations

import contextlib
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
    def key(self) -> str:
        """Name the block within the pool; its facts and its state hold it, so that no other's are taken for them."""
        return f"{self.folder.name}/{self.rows}"

    @property
    def file(self) -> Path:
        return self.folder / f"{self.rows}.parquet"

    @property
    def state(self) -> Path:
        return self.folder / f"{self.rows}.npz"

    @property
    def about(self) -> Path:
        return self.folder / f"{self.rows}.json"

    def told(self) -> dict[str, Any]:
        """Return what was written about the block, whether its file is whole or not; nothing where that is damaged."""
        try:
            told = read_json(self.about)
            facts: dict[str, Any] = told["facts"]
            return facts if told["checksum"] == self._sealed(facts) else {}
        except (StoreError, LookupError, TypeError):
            return {}

    def facts(self) -> dict[str, Any] | None:
        """Return what was written of a whole block, else None: killed attempts and damaged files count as nothing."""
        return self._whole(self.file)

    def link(self, path: Path) -> dict[str, Any] | None:
        """Put the block at a path as a link, or as a copy where there are no links, and return its facts; None where it
        is not whole.
        """
        try:
            if not (path.exists() and path.samefile(self.file)):
                _linked(self.file, path)
        except OSError:
            return None
        return self._whole(path)

    def write(self, table: pa.Table, facts: dict[str, Any], path: Path) -> dict[str, Any]:
        """Write the block at a path, link it into the pool with its facts, and return these."""
        write_parquet(path, table)
        whole = {**facts, "checksum": _checksum(path)}
        _linked(path, self.file)
        with replacing(self.about) as temporary:
            temporary.write_text(json.dumps({"facts": whole, "checksum": self._sealed(whole)}), encoding="utf-8")
        return whole

    def read(self, facts: dict[str, Any]) -> pa.Table | None:
        """Return the rows of the block that has these facts; None where it is not whole any more."""
        try:
            content = self.file.read_bytes()
        except OSError:
            return None
        whole = xxhash.xxh3_64(content).hexdigest() == facts["checksum"]
        return pq.read_table(pa.BufferReader(content)) if whole else None

    def others(self) -> Iterator[Block]:
        """Return the blocks with the same past and other rows, such as yesterday's of the open period, newest first."""
        found = []
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path.stem))
        for _, rows in sorted(found, reverse=True):
            if rows != self.rows:
                yield Block(self.folder, rows)

    def forget(self) -> None:
        """Take the block out of the pool; stages keep their links."""
        for path in (self.about, self.state, self.file):
            path.unlink(missing_ok=True)

    def _whole(self, file: Path) -> dict[str, Any] | None:
        told = self.told()
        try:
            return told if told and _checksum(file) == told["checksum"] else None
        except OSError:
            return None

    def _sealed(self, facts: Any) -> str:
        return xxhash.xxh3_64(json.dumps([self.key, facts], sort_keys=True).encode()).hexdigest()


def _linked(source: Path, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _checksum(path: Path) -> str:
    total = xxhash.xxh3_64()
    with path.open("rb", buffering=0) as file:
        while part := file.read(1 << 20):
            total.update(part)
    return total.hexdigest()
