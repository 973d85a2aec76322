"""The transaction log of one table of the lake: which files a version has, and commits that cannot interleave.

The only file that knows delta-rs. Its table readers abort the interpreter at exit now and then and its writer knows no
page checksums, so the files themselves are read and written by Arrow (`lake_files.py`); here is the log alone. Each
commit names the partitions that it has read as application transactions: of two writers that started from one version
and share a partition the second is refused, also where the partition had no file yet.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import deltalake
import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from .partitions import COLUMNS, Partition, schema_of

# Old versions go by `Lake.tidy` alone, which knows what kept runs name; delta-rs would drop log entries after 30 days.
PROPERTIES = {"delta.enableExpiredLogCleanup": "false"}
ATTEMPTS = 10
SAID = 200  # characters of an error of delta-rs


class LakeError(Exception):
    """Something the lake cannot do: the message says expected, got, where, what to do."""


def refused(root: Path, what: str, error: Exception) -> LakeError:
    """Return the error that says that a write failed and how much space is left."""
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free / 1e6
    return LakeError(
        f"expected to write {what} to {root}, got: {_said(error)}; {free:.1f} MB are free there. The lake is as it "
        "was: make room, mend the rights or set --lake.path, then run it again"
    )


def _said(error: Exception) -> str:
    """Return what went wrong in one line, without the stack, structures and colours of Rust that delta-rs adds."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)).split(": ParsedLogPath")[0]
    lines = takewhile(lambda line: not re.match(r"\s*\d+: ", line), text.splitlines())
    return ": ".join(line.strip(" \u21b3") for line in lines)[:SAID]


class LostRace(Exception):
    """Another writer has committed to one of the partitions first."""


@dataclass(frozen=True)
class File:
    """One Parquet file of a table: its path inside the table's folder, its partition, bytes and rows."""

    path: str
    partition: Partition
    size: int
    rows: int


@dataclass(frozen=True)
class Version:
    """The files of one version of a table."""

    number: int
    files: tuple[File, ...]


class Log:
    """Read and extend the log of one table."""

    def __init__(self, lake: Path, table: str) -> None:
        self.table, self.folder = table, lake / table
        self._seen: tuple[Version, tuple[int, int]] | None = None  # the last version read and what its entry was

    def exists(self) -> bool:
        """Say whether the table has been created."""
        try:
            return bool(deltalake.DeltaTable.is_deltatable(str(self.folder)))
        except (OSError, DeltaError) as error:
            raise LakeError(
                f"expected the table '{self.table}' in the folder {self.folder}, got: {_said(error)}; give this user "
                "access to it, or move away what is there"
            ) from error

    def create(self) -> None:
        """Create the table unless it is there; several processes may try at once. Raises LakeError."""
        if self.exists():
            return
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            deltalake.DeltaTable.create(
                str(self.folder),
                schema=schema_of(self.table),
                partition_by=list(COLUMNS.get(self.table, ())),
                mode="ignore",
                configuration=PROPERTIES,
            )
        except (OSError, DeltaError) as error:
            if not self.exists():
                raise refused(self.folder, "the log of a new table", error) from error

    def upgrade(self) -> None:
        """Give an older table the columns and the properties that it lacks; rows written before have nulls there."""
        for attempt in range(ATTEMPTS):
            delta = self._open()
            known = {field.name for field in delta.schema().fields}
            lacking = [
                field for field in deltalake.Schema.from_arrow(schema_of(self.table)).fields if field.name not in known
            ]
            try:
                if lacking:
                    delta.alter.add_columns(lacking)
                if any(delta.metadata().configuration.get(name) != value for name, value in PROPERTIES.items()):
                    delta.alter.set_table_properties(PROPERTIES)
                return
            except DeltaError as error:  # another process does the same, or it writes
                if attempt == ATTEMPTS - 1:
                    raise refused(self.folder, "the columns of a newer layout", error) from error
                time.sleep(0.05 * (attempt + 1))

    def version(self) -> int:
        """Return the number of the newest version, -1 where there is no table."""
        return int(self._open().version()) if self.exists() else -1

    def latest(self) -> Version:
        """Return the newest version. Raises LakeError where the log cannot be read.

        Asked again it looks only whether an entry has followed: reading the log takes longer than many a partition.
        """
        if seen := self._seen:
            known, entry = seen
            if self._entry(known.number) == entry and not self._entry(known.number + 1):
                return known
        version = self._read()
        written = self._entry(version.number)
        self._seen = (version, written) if written else None
        return version

    def _entry(self, number: int) -> tuple[int, int] | None:
        """Return what tells a log entry from another one that took its place; None where there is none."""
        try:
            found = (self.folder / "_delta_log" / f"{number:020d}.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _read(self) -> Version:
        delta = self._open()
        rows = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
        columns = COLUMNS.get(self.table, ())
        files = tuple(
            File(
                unquote(row["path"]),
                tuple(str(row[f"partition.{name}"]) for name in columns),
                row["size_bytes"],
                -1 if row["num_records"] is None else row["num_records"],
            )
            for row in rows
        )
        return Version(int(delta.version()), tuple(sorted(files, key=lambda file: file.path)))

    def commit(
        self, start: Version, *, add: Sequence[File], remove: Sequence[File], read: Iterable[Partition] = ()
    ) -> None:
        """Add and remove files in one version on top of `start`. `read` are the partitions that the change rests on.

        Raises LostRace where another commit has touched one of them since `start`, LakeError where the disk refuses;
        after either nothing has been committed.
        """
        now, columns = time.time_ns() // 1_000_000, COLUMNS.get(self.table, ())
        actions: list[AddAction | RemoveAction] = [
            AddAction(
                file.path,
                file.size,
                dict(zip(columns, file.partition, strict=True)),
                now,
                True,
                json.dumps({"numRecords": file.rows}),
            )
            for file in add
        ]
        for file in remove:
            values: dict[str, str | None] = dict(zip(columns, file.partition, strict=True))
            actions.append(RemoveAction(file.path, True, now, file.size, values))
        names = ["/".join((self.table, *partition)) for partition in read]
        try:
            self._open(start.number).create_write_transaction(
                actions,
                mode="append",
                schema=schema_of(self.table),
                partition_by=list(columns),
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(name, start.number + 1) for name in sorted(names)]
                ),
            )
        except CommitFailedError as error:
            if self._landed(add, remove):
                return
            raise LostRace(str(error)) from error
        except (OSError, DeltaError) as error:
            if not self._landed(add, remove):
                raise refused(self.folder, "a commit", error) from error

    def _landed(self, add: Sequence[File], remove: Sequence[File]) -> bool:
        """Say whether a commit that ended in an error is there: a step after it, such as a checkpoint, may have
        failed.
        """
        paths = {file.path for file in self.latest().files}
        if add:
            return all(file.path in paths for file in add)
        return not any(file.path in paths for file in remove)

    def _open(self, number: int | None = None) -> deltalake.DeltaTable:
        try:
            return deltalake.DeltaTable(str(self.folder), version=number)
        except DeltaError as error:
            raise LakeError(
                f"expected a readable log of the table '{self.table}' in {self.folder}/_delta_log, got: "
                f"{_said(error)}; restore the log from a copy of the lake, or move the folder away and run the ingest "
                "stage again"
            ) from error
