"""Runs of rows with equal keys that stand together, such as the rows of one moment: sums, means and order within each.

What a run gives depends on its own rows and their order alone, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]

_CELLS = 1 << 20  # of the matrix that is sorted at once


class Runs:
    """Hold where runs of equal keys begin, and how many rows each has; keys of a run stand together."""

    def __init__(self, key: npt.NDArray[Any]) -> None:
        self.starts = np.flatnonzero(changed(key))
        self.sizes = np.diff(np.append(self.starts, key.size))

    def spread(self, of: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return each run's value on each of its rows."""
        return np.repeat(of, self.sizes)

    def sums(self, x: Floats) -> Floats:
        return np.asarray(np.add.reduceat(x, self.starts))

    def centred(self, x: Floats) -> Floats:
        """Return x - mean, exactly 0 where all values of a run are equal."""
        equal = np.minimum.reduceat(x, self.starts) == np.maximum.reduceat(x, self.starts)
        return np.where(self.spread(equal), 0.0, x - self.spread(self.sums(x) / self.sizes))

    def sorted(self, x: Floats) -> Longs:
        """Return rows in the order of values within each run; the order of equal values is arbitrary."""
        out = np.empty(x.size, np.int64)
        runs = np.argsort(-self.sizes, kind="stable")  # runs of like sizes make a matrix without many gaps
        first = 0
        while first < runs.size:
            width = int(self.sizes[runs[first]])
            some = runs[first : first + max(_CELLS // width, 1)]
            first += some.size
            column = np.arange(width)
            held = column < self.sizes[some, None]
            row = np.where(held, self.starts[some, None] + column, 0)
            order = np.argsort(np.where(held, x[row], np.inf), axis=1)  # gaps last
            out[row[held]] = (self.starts[some, None] + order)[held]
        return out


def changed(key: npt.NDArray[Any]) -> Bools:
    """Say where a value differs from the one before; the first does."""
    return np.append(True, key[1:] != key[:-1])[: key.size]
