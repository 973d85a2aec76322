"""Load what lies under a path: files go in groups of whole symbols, each group becomes checked bars, trouble is told as
it is met.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import quality
from storage.emit import Emit, silent

from . import base, listing, rows, stamps
from .cells import Longs
from .files import BadFile, FilesError, Found, opened
from .group import Group
from .owners import Owners
from .rows import Rows, Symbols
from .section import BAR_COLUMNS, QUARANTINE_COLUMNS, ImportSection, Loaded
from .troubles import TOLD, Troubles

TELL_FILES = 100
UNTRADED = BadFile("not_traded", "expected prices of trades, got mark or index prices or funding rates by the name")
# Files of one symbol that differ in more of their common rows are no one source.
DISAGREE_ROWS, DISAGREE_SHARE = 20, 0.01


def load(path: str | Path, section: ImportSection, emit: Emit = silent) -> Iterator[Loaded]:
    """Read all bars under a file, folder or archive, batch by batch; what cannot be used is in the batches'
    `quarantined`.

    A batch holds whole symbols where each file holds one symbol; files that hold several are one batch together. Only
    one adjustment basis is handed over: FilesError when subfolders hold the same symbols, when a column `source` has
    several values and when files of one symbol disagree. FilesError also when nothing usable is found.
    """
    with opened(Path(path)) as found:
        yield from _Load(section, emit, found, Path(path)).batches()


class _Load:
    """Know what several groups of one load have in common."""

    def __init__(self, section: ImportSection, emit: Emit, found: Found, path: Path) -> None:
        self.section, self.emit, self.found, self.path = section, emit, found, path
        self.symbols = Symbols(section.market)
        self.names = [entry.name for entry in found.entries] + [name for name, _ in found.bad]
        self.owners = Owners(found.entries, section, path)
        self.bases: set[str] = set()
        self.stamped: set[str] = set()  # intraday intervals about whose stamps something was said
        self.listings: list[pa.Table] = []
        self.troubles = Troubles(emit)
        self.good = self.padded = 0
        self.last = np.datetime64("1900-01-01", "D")

    def batches(self) -> Iterator[Loaded]:
        done, total = 0, len(self.found.entries)
        for i, files in enumerate(self.owners.groups()):
            group = Group(self.section)
            if i == 0:
                for number, (_, bad) in enumerate(self.found.bad, total):
                    group.refuse(number, bad)
            for number, entry in files:
                if number in self.owners.untraded:
                    group.refuse(number, UNTRADED)
                else:
                    group.read(number, entry, owned=number in self.owners.symbol_of)
                done += 1
                if done % TELL_FILES == 0 or done == total:
                    self.emit("progress", done=done, total=total, unit="files")
            yield from self._loaded(group)
        self._require_basis()
        if self.good == 0:
            raise FilesError(self.troubles.nothing(len(self.names), self.path))
        if self.section.listing:
            self._read_listing(Path(self.section.listing))
        if self.listings:
            told = listing.of_listings(self.listings, self.section.market, self.last)
            empty = BAR_COLUMNS.empty_table(), QUARANTINE_COLUMNS.empty_table()
            yield Loaded(*empty, told, self.section.market, False, self.section.interval or "1d")
        if self.found.ignored:
            kinds = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in self.found.ignored.most_common())
            self.emit("log", level="info", text=f"files of other kinds under {self.path} were not read: {kinds}")

    def _owner(self, number: int) -> int:
        symbol = self.owners.symbol_of.get(number)
        return -1 if symbol is None else self.symbols.number(symbol)

    def _loaded(self, group: Group) -> Iterator[Loaded]:
        found = group.rows(self.symbols, self._owner)
        self.listings += group.listings
        self.bases |= group.bases
        self._refuse_bases()
        counts = {"files": group.files, "rows": 0 if found is None else len(found)}
        fault = np.zeros(0, np.int8)
        if found is not None:
            counts["blank"] = int(found.empty.sum())
            found = rows.taken(found, ~found.empty)
            others = rows.other_markets(found, self.section.markets)
            counts["other_market"] = int(others.sum())
            found = rows.taken(found, ~others)
            fault = rows.faults(found)
        by_interval = {} if found is None else self._intervals(found)
        if found is not None and "" in by_interval:
            fault[np.isin(found.file, by_interval.pop("")) & (fault == 0)] = rows.REASONS.index("unknown_interval")
        quarantined = group.quarantine(found, fault, self.names, lambda n: self.symbols.names[n] if n >= 0 else None)
        if found is None or not by_interval:
            self.troubles.note(quarantined)
            yield Loaded(
                BAR_COLUMNS.empty_table(),
                quarantined,
                None,
                self.section.market,
                False,
                self.section.interval or "1d",
                counts,
            )
            return
        for interval, files in by_interval.items():
            chosen = rows.taken(found, (fault == 0) & np.isin(found.file, files))
            yield self._checked(group, chosen, interval, quarantined, counts)
            quarantined, counts = QUARANTINE_COLUMNS.empty_table(), {}

    def _intervals(self, found: Rows) -> dict[str, stamps.Ints]:
        """Return interval -> files, of names where they tell it."""
        out: dict[str, stamps.Ints] = {}
        if self.owners.interval_of and not self.section.interval:
            by_name: dict[str, list[int]] = defaultdict(list)
            for number in stamps.numbers_of(found.file).tolist():
                by_name[self.owners.interval_of.get(number, "")].append(number)
            rest = np.isin(found.file, by_name.pop("", []))
            out = {interval: np.array(files, np.int32) for interval, files in by_name.items()}
            if not rest.any():
                return out
            found = rows.taken(found, rest)
        for interval, files in stamps.intervals(found.file, found.wall, found.timed, self.section).items():
            out[interval] = np.union1d(out[interval], files) if interval in out else files
        return out

    def _checked(
        self, group: Group, chosen: Rows, interval: str, quarantined: pa.Table, counts: dict[str, int]
    ) -> Loaded:
        ts = stamps.ends(chosen.wall, chosen.offset, interval, self.section)
        self._tell_stamps(interval)
        table = rows.bars(chosen, ts, self.symbols, interval, self.section, self.names)
        good, bad = quality.check(table, market=self.section.market)
        unsorted, reversed_ = _against_order(chosen, ts)
        counts |= {
            "duplicate": table.num_rows - good.num_rows - bad.num_rows,
            "unsorted": unsorted,
            "newest_first": reversed_,
            "padded": self.symbols.padded - self.padded,
        }
        actions = None
        bases = good["base"].to_numpy() if "base" in good.column_names else None
        good = good.select(BAR_COLUMNS.names).cast(BAR_COLUMNS)
        if bases is not None and interval == "1d" and self.section.market == "KRX":
            actions, counts["changes_not_used"] = base.found_in(good, bases)
            self._tell_changes(counts["changes_not_used"])
        self._refuse_disagreement(bad, counts["duplicate"])
        self.owners.note(chosen, self.symbols)
        files = {name: number for number, name in enumerate(self.names)}
        written = [group.written(files[f], n) for f, n in zip(bad["file"].to_pylist(), bad["line"].to_pylist())]
        bad = bad.set_column(bad.column_names.index("row"), "row", pa.array(written, pa.string()))
        quarantined = pa.concat_tables([quarantined, bad.select(QUARANTINE_COLUMNS.names).cast(QUARANTINE_COLUMNS)])
        self.troubles.note(quarantined)
        self.good += good.num_rows
        told = None
        if good.num_rows:
            told = self._symbol_rows(good, chosen, ts)
            self.last = max(self.last, told["as_of"].to_numpy().max())
            counts["whole_points"] = _whole_points(good, told)
        no_range = bool(good.num_rows) and all(
            pc.all(pc.is_nan(good[name])).as_py() for name in ("open", "high", "low")
        )
        return Loaded(good, quarantined, told, self.section.market, no_range, interval, counts, actions)

    def _symbol_rows(self, good: pa.Table, chosen: Rows, ts: Longs) -> pa.Table:
        ends = good.group_by("symbol").aggregate([("ts", "min"), ("ts", "max")])
        first, last = (
            stamps.day_of(ends[name].cast(pa.int64()).to_numpy(), self.section) for name in ("ts_min", "ts_max")
        )
        names = ends["symbol"].to_pylist()
        latest = dict(zip(names, last))
        day = stamps.day_of(ts, self.section) if chosen.said else last
        told = listing.of_bars(chosen, day, self.symbols, latest, self.owners.companies)
        if self.section.complete and self.section.market == "KRX":
            begins, owners = dict(zip(names, first)), told["symbol"].to_pylist()
            told = listing.with_ends(told, np.array([begins[s] for s in owners]), np.array([latest[s] for s in owners]))
        return told

    def _tell_stamps(self, interval: str) -> None:
        if interval[-1] in "mh" and interval not in self.stamped:
            self.stamped.add(interval)
            what = {"end": "ends", "start": "starts", "last": "last moments"}[self.section.stamps]
            text = f"stamps of {interval} bars are taken for their {what} (ingest.files.stamps)"
            self.emit("log", level="info", text=f"{text}; those without a zone are in {self.section.timezone}")

    def _tell_changes(self, lost: int) -> None:
        if lost:
            self.emit(
                "log",
                level="warning",
                text=f"expected changes whose base price (close - change) is nearly always the close of the day "
                f"before, got others in {self.path}: {lost} are not used and no corporate actions come from them; "
                "prices may be adjusted, or name another column as ingest.files.columns.change",
            )

    def _read_listing(self, path: Path) -> None:
        with opened(path) as found:
            group = Group(self.section)
            for number, entry in enumerate(found.entries):
                group.read(number, entry, owned=False)
        if not group.listings:
            got = group.lost[0][3] if group.lost else "a file of bars"
            raise FilesError(
                f"expected columns for code and name in the listing {path}, got: {got}; correct ingest.files.listing"
            )
        self.listings += group.listings

    def _refuse_bases(self) -> None:
        if len(self.bases) > 1 and not self.section.basis:
            raise FilesError(
                f"expected one source, got {sorted(self.bases)} in the column 'source' of {self.path}; "
                "they may have different adjustment bases and are not joined: choose one with --ingest.files.basis"
            )

    def _require_basis(self) -> None:
        if self.section.basis and self.section.basis not in self.bases:
            raise FilesError(
                f"expected rows whose column 'source' is {self.section.basis!r} in {self.path}, "
                f"got {sorted(self.bases)}; correct ingest.files.basis"
            )

    def _refuse_disagreement(self, bad: pa.Table, agreeing: int) -> None:
        """Refuse files that give one symbol different prices for the same bars: they are on different bases."""
        rows_ = bad.filter(pc.equal(bad["reason"], "duplicate"))
        keys = rows_.group_by(["symbol", "ts"]).aggregate([("file", "count_distinct")])
        keys = keys.filter(pc.greater(keys["file_count_distinct"], 1))
        if keys.num_rows >= DISAGREE_ROWS and keys.num_rows > DISAGREE_SHARE * (keys.num_rows + agreeing):
            files = pc.unique(rows_["file"]).to_pylist()
            raise FilesError(
                f"expected files that agree, got {keys.num_rows} bars with different values in "
                f"{', '.join(files[:TOLD])} (e.g. {keys['symbol'][0].as_py()}); they may have different bases "
                "and are not joined: import one of them at a time with --ingest.path"
            )


def _against_order(chosen: Rows, ts: Longs) -> tuple[int, int]:
    """Return how many rows go against the order of their file, and how many files begin with the last bar."""
    step = np.diff(ts)
    together = (np.diff(chosen.file) == 0) & (np.diff(chosen.symbol) == 0)
    size = int(chosen.file.max()) + 1 if len(chosen) else 0
    down, up = (np.bincount(chosen.file[1:][together & way], minlength=size) for way in (step < 0, step > 0))
    return int(np.minimum(down, up).sum()), int((down > up).sum())


def _whole_points(good: pa.Table, told: pa.Table) -> int:
    """Return the rows of indices all of whose closes are whole: exchanges give two decimals."""
    indices = told.filter(pc.equal(told["kind"], "index"))["symbol"]
    total = 0
    for symbol in pc.unique(indices).to_pylist():
        close = good.filter(pc.equal(good["symbol"], symbol))["close"].to_numpy()
        total += len(close) if (close == np.floor(close)).all() else 0
    return total
