"""Directories named by the hash of what made them. Complete means that the manifest, written last, is there; readers
ignore the rest.

No rename of directories and no lock file that a reader must respect, so the rule also holds on an object store.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST = "manifest.json"


class StoreError(Exception):
    """A folder that cannot be written or a file that is not what it should be."""


class Store:
    """Keep the results of stages under `root/<stage>/<key>/`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, stage: str, key: str) -> Path:
        return self.root / stage / key

    def done(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return the manifest when the directory is complete and of its written size, else None."""
        manifest = self.path(stage, key) / MANIFEST
        if not manifest.exists():
            return None
        found: dict[str, Any] = read_json(manifest)
        sizes = {name: _size(manifest.parent / name) for name in found["files"]}
        return found if sizes == found["files"] else None

    @contextlib.contextmanager
    def writing(self, stage: str, key: str, waiting: Callable[[], Any] = lambda: None) -> Iterator[Path]:
        """Give the directory to one writer of this machine at a time, and call `waiting` where there is one; what a
        killed attempt left in it is still there.
        """
        path = self.path(stage, key)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (self.root / stage / f".{key}.lock").open("w")
        except OSError as error:
            raise StoreError(
                f"expected a writable folder for results, got '{error.strerror}' at {path}; "
                "give another with --run.data DIR or change its rights"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield path

    def begin(self, stage: str, key: str, *, anew: bool = False) -> None:
        """Make the directory unfinished before anything in it changes; `anew` also removes what is in it."""
        path = self.path(stage, key)
        (path / MANIFEST).unlink(missing_ok=True)
        if anew:
            shutil.rmtree(path)
            path.mkdir()

    def finish(self, stage: str, key: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Write the manifest, which makes the directory complete; it lists every file with its size."""
        path = self.path(stage, key)
        files = sorted(p for p in path.rglob("*") if p.is_file() and not _scratch(p, path))
        full = {**manifest, "files": {str(p.relative_to(path)): p.stat().st_size for p in files}}
        write_json(path / MANIFEST, full)
        return full


def _scratch(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return path.name == MANIFEST or any(p.startswith((".", "tmp")) for p in parts)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; the file takes its place when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; readers see the old file or the new one, never a part."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str)
    with replacing(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; StoreError names the file when it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StoreError(
            f"expected a JSON file at {path}, got: {error}; remove its folder to have it made again"
        ) from error


def write_parquet(path: Path, table: pa.Table, *, sort: tuple[str, ...] = ()) -> None:
    """Write one Parquet file atomically: zstd, floats by BYTE_STREAM_SPLIT, row groups of 128k rows."""
    if sort:
        table = table.sort_by([(name, "ascending") for name in sort])
    floats = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    others = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_dictionary(f.type)]
    with replacing(Path(path)) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=others,
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
            row_group_size=131072,
        )
