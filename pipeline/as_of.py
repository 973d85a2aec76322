"""What was known about symbols on days: the history of facts (SYMBOLS rows by `as_of`) asked without looking ahead.

Shapes: S symbols, F facts, D pairs of a symbol and a day.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bools = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]


class Facts:
    """Answer what held for symbols on days.

    table : SYMBOLS rows in any order; names : (S,) symbols, by whose places and by days since 1970 is asked.
    """

    def __init__(self, table: pa.Table, names: Sequence[str]) -> None:
        place = pc.index_in(table["symbol"].cast(pa.string()), pa.array(names, pa.string()))
        table = table.append_column("place", place).filter(pc.is_valid(place))
        self.table = table.sort_by([("place", "ascending"), ("as_of", "ascending")])
        self.size = len(names)
        self.place_F = self.table["place"].to_numpy().astype(np.int64)
        self.day_F = self.table["as_of"].to_numpy().astype("datetime64[D]").astype(np.int64)

    def texts(self, column: str) -> list[str]:
        return [text or "" for text in self.table[column].to_pylist()]

    def row(self, said_F: Bools, owner_D: Longs, day_D: Longs) -> tuple[Longs, Bools]:
        """Return (row of `table`, told by then) for symbols on days, only of rows that say something.

        The row is the latest up to the day, before any of them the first (then it was told later), -1 = there is none.
        """
        rows = np.flatnonzero(said_F)
        if not rows.size:
            return np.full(owner_D.size, -1), np.zeros(owner_D.size, np.bool_)
        begin_S = np.searchsorted(self.place_F[rows], np.arange(self.size + 1))
        keys = _key(self.place_F[rows], self.day_F[rows])
        at = np.searchsorted(keys, _key(owner_D, day_D), side="right") - 1
        begin, end = begin_S[owner_D], begin_S[owner_D + 1]
        here = at >= begin
        return np.where(begin < end, rows[np.minimum(np.maximum(at, begin), rows.size - 1)], -1), here

    def flag(self, flags: Sequence[bool | None], owner_D: Longs, day_D: Longs) -> tuple[Bools, Bools, Bools]:
        """Return (flag, told by then, told only later) of symbols on days; a flag that was never told is False.

        flags : (F,) what each row of `table` says; None says nothing, and what was said before holds on.
        """
        row, here = self.row(np.array([flag is not None for flag in flags], np.bool_), owner_D, day_D)
        if not len(flags):
            return here, here, here
        return np.array([bool(flag) for flag in flags], np.bool_)[row] & (row >= 0), here, ~here & (row >= 0)

    def outside(self, owner_D: Longs, day_D: Longs, traded_D: Bools) -> Bools:
        """Say which days lie before a listing, unless it had traded, and which from a delisting on."""
        listed, delisted = self._last("listed")[owner_D], self._last("delisted")[owner_D]
        day = day_D.astype("datetime64[D]")
        return np.asarray(((day < listed) & ~traded_D) | (day >= delisted))  # NaT: neither

    def _last(self, column: str) -> npt.NDArray[np.datetime64]:
        days = self.table[column].to_numpy().astype("datetime64[D]")
        out = np.full(self.size, np.datetime64("NaT"), "datetime64[D]")
        known = ~np.isnat(days)
        out[self.place_F[known]] = days[known]  # sorted by as_of: the last stays
        return out


def _key(place: Longs, day: Longs) -> Longs:
    """Return numbers in the order of (place, day)."""
    return (place << 32) + day + (1 << 31)
