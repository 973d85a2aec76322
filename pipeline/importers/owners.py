"""Whose bars the files of a load hold, as far as their names and folders tell, and which go together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from .files import Entry, FilesError
from .names import Pair, code_in, company_in, index_in, pair_in
from .rows import Rows, Symbols
from .section import ImportSection
from .troubles import TOLD

GROUP_BYTES = 64 * 2**20  # of the files that are read together; more costs memory and saves nothing
INTERVAL = re.compile(r"^([1-9]\d*[mh]|1d|1w|1mo)$")
Numbered = tuple[int, Entry]


class Owners:
    """Know the symbols that files hold; a file's number is its place in the load."""

    def __init__(self, entries: Sequence[Entry], section: ImportSection, path: Path) -> None:
        """Read the names of all files under a path. Raises FilesError when folders hold the same symbols."""
        self.section, self.path, self._entries = section, path, entries
        self.symbol_of: dict[int, str] = {}  # number of a file -> the one symbol that its name tells
        self.companies: dict[str, str] = {}
        self.interval_of: dict[int, str] = {}  # number of a file -> the interval that its name tells
        self.untraded: set[int] = set()  # numbers of files of rates and index prices
        self._folders: dict[str, set[str]] = defaultdict(set)  # symbol -> folders with bars of it
        for number, entry in enumerate(entries):
            symbol: str | None = entry.stem
            if self.section.market == "KRX":
                index = index_in(entry.stem)
                symbol = index[0] if index else code_in(entry.stem)
                company = index[1] if index else company_in(entry.stem, symbol) if symbol else None
                if symbol and company:
                    self.companies[symbol] = company
            if told := self._pair(entry.stem):
                symbol = told.symbol
                if told.interval:
                    self.interval_of[number] = told.interval
                if not told.traded:
                    self.untraded.add(number)
            if symbol:
                self.symbol_of[number] = symbol
                self._folders[symbol].add(entry.folder)
        self._refuse_folders()

    def _pair(self, stem: str) -> Pair | None:
        """Return what a file's name tells beyond a KRX code: by the section's pattern, or as candles are named."""
        if not self.section.file_name:
            return None if self.section.market == "KRX" else pair_in(stem)
        found = re.search(self.section.file_name, stem)
        if not found:
            return None
        interval = found.groupdict().get("interval") or ""
        if interval and not INTERVAL.match(interval):
            raise FilesError(
                f"expected an interval such as 15m, 1h or 1d in the name {stem}, got {interval!r}; correct the group "
                "interval in ingest.files.file_name, or leave it out"
            )
        return Pair(found["symbol"], interval, True)

    def groups(self) -> list[list[Numbered]]:
        """Put files of single symbols, in order of symbol, in groups of about GROUP_BYTES, and all others in one group
        at the end.
        """
        numbered = list(enumerate(self._entries))
        single = sorted((f for f in numbered if f[0] in self.symbol_of), key=lambda f: (self.symbol_of[f[0]], f[0]))
        several = [f for f in numbered if f[0] not in self.symbol_of]
        if self.section.join_folders or self.section.complete:  # a symbol may be anywhere; all are held against all
            return [single + several]
        out: list[list[Numbered]] = [[]]
        size = 0
        for _, files in groupby(single, key=lambda f: self.symbol_of[f[0]]):
            if size >= GROUP_BYTES:
                out.append([])
                size = 0
            for file in files:
                out[-1].append(file)
                size += file[1].size
        if several:
            out.append(several)
        return [files for files in out if files] or [[]]

    def note(self, chosen: Rows, symbols: Symbols) -> None:
        """Note where symbols were found that only the rows could tell; a symbol that has its own file is refused."""
        several = ~np.isin(chosen.file, np.array(list(self.symbol_of), np.int32))
        pairs = np.unique(chosen.symbol[several].astype(np.int64) << 32 | chosen.file[several])
        single = set(self.symbol_of.values())
        for pair in pairs.tolist():
            symbol, entry = symbols.names[pair >> 32], self._entries[pair & 0xFFFFFFFF]
            self._folders[symbol].add(entry.name if symbol in single else entry.folder)
        self._refuse_folders()

    def _refuse_folders(self) -> None:
        shared = sorted(s for s, folders in self._folders.items() if len(folders) > 1)
        if not shared or self.section.join_folders:
            return
        folders = sorted(set().union(*(self._folders[s] for s in shared)))
        choices = ", ".join(str(self.path / f) if f else f"the files of {self.path} alone" for f in folders[:8])
        raise FilesError(
            f"expected one source, got {len(folders)} places under {self.path} that hold the same symbols "
            f"({', '.join(shared[:TOLD])}); their prices may have different adjustment bases and are not joined: "
            f"choose one with --ingest.path ({choices}), or set ingest.files.join_folders if all are on one basis"
        )
