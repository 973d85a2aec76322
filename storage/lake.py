"""The lake: Delta tables of market data, one sorted Parquet file a partition.

A write reads the partitions that it touches, adds its rows, drops duplicates, sorts and replaces them in one commit, so
it is idempotent and leaves no small files. Where rows belong is in `partitions.py`, how they are joined in `merge.py`,
the files and the log in `lake_files.py` and `lake_log.py`. This is the only file that knows cuDF.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from . import lake_files, migrations, upkeep
from .lake_files import DamagedFile
from .lake_log import File, LakeError, Log, LostRace, Version
from .merge import each, merged, sorted_rows
from .partitions import COLUMNS, Partition, Query, group_of, may_hold, split
from .schema import KEYS, SCHEMAS, content_digest
from .section import Section, setting
from .upkeep import Damage

__all__ = ["Backend", "Damage", "Lake", "LakeError", "LakeSection", "framed", "group_of"]
Backend = Literal["pandas", "cudf"]
ATTEMPTS = 40  # a lost race means that another writer got on, so this many in a row take that many writers
READ_ATTEMPTS = 5


class LakeSection(Section):
    """Where the market data is kept, and for how long what has been replaced."""

    path: str = setting("", "folder of the Delta tables; empty = lake/ in run.data", unit="path", runtime=True)
    keep_days: float = setting(
        7.0,
        "how long the files of replaced versions of a table are kept; those that a kept run names stay",
        unit="days",
        runtime=True,
        ge=0,
    )
    archive_mb: float = setting(
        2048.0, "bound of the archive of raw answers; the oldest go first", unit="MB", runtime=True, ge=0
    )


class Change(NamedTuple):
    """What becomes of one partition: its new rows (None = leave it as it is) and how many rows differ."""

    rows: pa.Table | None
    differ: int


class Lake:
    """Read and write the tables under one folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._logs = {table: Log(self.path, table) for table in SCHEMAS}

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, table: str, rows: pa.Table) -> int:
        """Add rows; a row with the key of an older one replaces it. Return how many rows are new or differ.

        Other writers may be at work: a lost race is tried again from fresh data, so no row is lost and none doubled.
        Raises LakeError, with the table as it was, where a file is damaged or the disk full.
        """
        if rows.num_rows == 0:
            return 0
        new, keys = split(table, lake_files.encoded(table, rows)), KEYS[table]

        def join(partition: Partition, old: pa.Table) -> Change:
            both, count = merged(keys, old, new[partition])
            return Change(both if count else None, count)

        return self._change(table, lambda version: list(new), join)

    def append(self, table: str, rows: pa.Table) -> None:
        """Add rows of `pages` as new files of their partitions, without a look at what is there."""
        if table != "pages":
            raise LakeError(f"expected to append to 'pages' alone, got '{table}', whose rows have keys; use write")
        if rows.num_rows == 0:
            return
        log = self._opened(table)
        parts = split(table, lake_files.encoded(table, rows))
        written: list[File] = []
        with _undone(log, written):
            for partition, part in parts.items():
                written.append(lake_files.write(log.folder, table, partition, part))
            log.commit(log.latest(), add=written, remove=[])

    def remove(self, table: str, *, symbols: Iterable[str] | None, **equal: str) -> int:
        """Delete the rows of these symbols (None = of all) where each column named has that value, in one commit.
        Return how many.
        """
        return self.replace(table, SCHEMAS[table].empty_table(), symbols=symbols, **equal)

    def replace(self, table: str, rows: pa.Table, *, symbols: Iterable[str] | None, **equal: str) -> int:
        """Put rows in the place of all rows of these symbols (None = of all) where each column named has that value.

        One commit, so that no reader sees the gap. Return how many rows are new, differ or are gone.
        """
        if rows.num_rows == 0 and not self._logs[table].exists():
            return 0
        query, keys = Query(None if symbols is None else frozenset(symbols), equal), KEYS[table]
        rows = lake_files.encoded(table, rows)
        new = split(table, rows) if rows.num_rows else {}

        def touched(version: Version) -> list[Partition]:
            held = {file.partition for file in version.files if may_hold(table, file.partition, query)}
            return sorted(held | set(new))

        def exchange(partition: Partition, old: pa.Table) -> Change:
            kept = old.filter(pc.invert(lake_files.matching(old, query)))
            after, _ = merged(keys, kept, new.get(partition, rows.slice(0, 0)))
            before_and_after, count = merged(keys, old, after)
            count += before_and_after.num_rows - after.num_rows
            return Change(after if count else None, count)

        return self._change(table, touched, exchange)

    def _change(
        self,
        table: str,
        touched: Callable[[Version], Sequence[Partition]],
        change: Callable[[Partition, pa.Table], Change],
    ) -> int:
        """Replace the rows of partitions by what `change` makes of them, in one commit, again after every lost race."""
        log = self._opened(table)
        for attempt in range(ATTEMPTS):
            version, written = log.latest(), list[File]()
            partitions = touched(version)
            held: dict[Partition, list[File]] = {partition: [] for partition in partitions}
            for file in version.files:
                if file.partition in held:
                    held[file.partition].append(file)

            def one(partition: Partition, held: Any = held, written: list[File] = written) -> Change:
                old = lake_files.read(log.folder, table, held[partition], SCHEMAS[table].names)
                found = change(partition, old)
                if found.rows is not None and found.rows.num_rows:
                    written.append(lake_files.write(log.folder, table, partition, found.rows))
                return found

            try:
                with _undone(log, written):
                    changes = each(one, partitions)
                    gone = [f for p, c in zip(partitions, changes, strict=True) if c.rows is not None for f in held[p]]
                    if written or gone:
                        log.commit(version, add=written, remove=gone, read=partitions)
                return sum(found.differ for found in changes)
            except LostRace:
                time.sleep(random.uniform(0.01, 0.05) * min(attempt + 1, 10))
            except DamagedFile:
                if log.version() == version.number:
                    raise
        raise LakeError(
            f"expected to commit to table '{table}' in {self.path}, lost the race to other writers {ATTEMPTS} times; "
            "let fewer write at once"
        )

    def _opened(self, table: str) -> Log:
        """Return the log of a table that may be written to, created where there was none."""
        migrations.prepare(self.path)
        log = self._logs[table]
        log.create()
        return log

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        symbols: Iterable[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        **equal: str,
    ) -> pa.Table:
        """Return rows sorted by the table's key; `start` and `end` are inclusive bounds on `ts` (aware datetimes).

        `equal` are exact matches such as source="kis", interval="1d". Columns are chunked. A table that does not exist
        yet is empty. Raises LakeError, which names the file, where one that is needed is damaged.
        """
        wanted = list(columns or SCHEMAS[table].names)
        needed = wanted + [k for k in KEYS[table] if k not in wanted]
        query = Query(None if symbols is None else frozenset(symbols), equal)
        found = self._scan(table, query, needed, start, end)
        return lake_files.decoded(table, sorted_rows(KEYS[table], found, wanted))

    def _scan(
        self,
        table: str,
        query: Query,
        columns: Sequence[str],
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pa.Table:
        """Return rows of the newest version as they lie in its files. A file that is gone because it was replaced
        meanwhile is looked for in the version after that.
        """
        migrations.check(self.path)
        log = self._logs[table]
        if not log.exists():
            return lake_files.encoded(table, SCHEMAS[table].empty_table()).select(columns)
        for _ in range(READ_ATTEMPTS):
            version = log.latest()
            files = [f for f in version.files if may_hold(table, f.partition, query, start, end)]
            try:
                return lake_files.read(log.folder, table, files, columns, query, start, end)
            except DamagedFile:
                if log.version() == version.number:
                    raise
        raise LakeError(
            f"expected to read table '{table}' in {self.path}, but its files were replaced under the reader"
        )

    def counts(self, table: str, **equal: str) -> dict[str, int]:
        """Return how many rows each symbol has where each column named has that value; sorted, none for no rows."""
        found = self._scan(table, Query(None, equal), ["symbol"])
        counted = {row["values"]: row["counts"] for row in found["symbol"].value_counts().to_pylist()}
        return dict(sorted(counted.items()))

    def digest(self, table: str, **query: Any) -> str:
        """Return the content digest of what `read` finds."""
        return content_digest(self.read(table, **query))  # in the order of the keys already

    def groups(self, interval: str, *, source: str, symbols: Iterable[str] | None = None) -> dict[int, list[str]]:
        """Return the symbols that have bars, by partition group, both sorted."""
        if symbols is None:
            symbols = self.counts("bars", interval=interval, source=source)
        out: dict[int, list[str]] = {}
        for symbol in sorted(set(symbols)):
            out.setdefault(group_of(symbol, interval), []).append(symbol)
        return dict(sorted(out.items()))

    def periods(self, interval: str) -> list[str]:
        """Return the years, or months of intraday bars, of which the lake holds bars of any source, oldest first."""
        log = self._logs["bars"]
        held = [dict(zip(COLUMNS["bars"], file.partition)) for file in log.latest().files] if log.exists() else []
        return sorted({at["period"] for at in held if at["interval"] == interval})

    def version(self, table: str) -> int:
        """Return the version of the table's log, -1 where there is no table."""
        return self._logs[table].version()

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def damaged(self, tables: Iterable[str] | None = None) -> list[Damage]:
        """Read every file of the newest versions in full and return those that are missing, cut short, altered or
        foreign.
        """
        migrations.check(self.path)
        return [damage for table in tables or SCHEMAS for damage in upkeep.damaged(self.path, table)]

    def discard(self, damage: Damage) -> None:
        """Take a damaged file out of its table, which is readable again but for the rows of that file; the file itself
        is moved to the folder `damaged` of the lake.
        """
        migrations.check(self.path)
        upkeep.discard(self.path, damage)

    def tidy(self, keep: Mapping[str, set[int]], days: float) -> dict[str, int]:
        """Delete the files that only old versions name; return how many by table.

        Never those of the newest version, of the versions in `keep` (by table) or of one that was the newest within the
        last `days` (at least an hour).
        """
        migrations.check(self.path)
        return {table: upkeep.tidy(self.path, table, keep.get(table, set()), days) for table in SCHEMAS}

    def shrink(self, table: str, megabytes: float) -> int:
        """Take the oldest files out of a table to which rows are only added, until it fits; return how many."""
        return upkeep.shrink(self.path, table, megabytes * 1e6)


def framed(table: pa.Table, backend: Backend = "pandas") -> Any:
    """Return rows as a pandas or a cuDF frame; `symbol` is text in both."""
    if backend == "cudf":
        import cudf  # here and nowhere else: importing it takes seconds and needs a driver

        return cudf.DataFrame.from_arrow(table)
    return table.to_pandas(split_blocks=True)  # no copy of columns without nulls


@contextmanager
def _undone(log: Log, written: list[File]) -> Iterator[None]:
    """Delete the files of a change that was not committed."""
    try:
        yield
    except BaseException:
        for file in written:
            (log.folder / file.path).unlink(missing_ok=True)
        raise
